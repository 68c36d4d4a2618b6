"""Chooses regions with a vision-language model: the policy of ACTIVE-o3 (arXiv 2505.21457) and its untrained start."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Any

from ..core.budget import Budget
from ..core.frame import View
from ..core.geometry import Box
from ..core.query import Query
from ..core.results import Proposal, Region
from ..settings import validated, within
from ..vlm.answer_places import AnswerBox
from ..vlm.engine import Engine, Reply, Request
from ..vlm.engine_registry import shared_engine
from ..vlm.out_of_memory import generate_within_memory
from ..vlm.parsing import Answer, parse_answer
from ..vlm.prompts import Reasoning, is_question, load_prompt, target_of
from ..vlm.region_reader import RegionReader
from ..vlm.reply_notes import reply_notes


class MllmSensing:
    """Sensing policy that asks the model for all regions of a frame at once."""

    concurrent = True

    @validated
    def __init__(
        self,
        engine: Mapping[str, Any] | Engine,
        reasoning: Reasoning = "none",
        shorter_side: Annotated[int, within(28, 4096, "pixels")] = 1024,
        prompt: str | Path = "sensing_detection",
        question_prompt: str | Path = "sensing_question",
        stream_regions: bool = False,
    ) -> None:
        """Load the prompts and start the engine.

        Args:
            engine: Settings of an engine (see `vlm.engine_registry`), or one that runs.
            reasoning: "full" as the policy was trained, "short" for one sentence, "none" to answer at once: least time.
            shorter_side: Pixels of the view's shorter side where the budget allows them; the paper has 1024.
            prompt: Name in `config/prompts/` or path, for queries that name targets.
            question_prompt: The same for queries that ask a question.
            stream_regions: Hand each region over as soon as its box is written: it is examined while the rest of the
                answer is still written, with the same results. It pays where both roles have one engine `vllm`.

        Raises:
            InvalidInput: A setting is out of its range.
            EngineError: The engine cannot start.
        """
        self.reasoning = reasoning
        self.shorter_side = shorter_side
        self.streams = stream_regions
        self._prompt, self._question_prompt = load_prompt(str(prompt)), load_prompt(str(question_prompt))
        self.engine: Engine = shared_engine(engine) if isinstance(engine, Mapping) else engine

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return self.engine.family.fit(width, height, max_pixels, self.shorter_side)

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        if budget.max_regions == 0:
            return Proposal(used_view=False)
        return self._proposal(self.request(view, query, budget), view, budget)

    def propose_streaming(self, view: View, query: Query, budget: Budget) -> Generator[Region | Proposal, None, None]:
        """As `StreamingPolicy.propose_streaming`; closed early, it waits for the answer in progress."""
        if budget.max_regions == 0:
            yield Proposal(used_view=False)
            return
        size = (view.width, view.height)
        reader = RegionReader(self.engine.family.extent(size), budget.max_regions)
        known: SimpleQueue[Region | None] = SimpleQueue()

        def read(text: str) -> None:
            for box in reader.new_boxes(text):
                known.put(self._region(box, size, size))

        request = replace(self.request(view, query, budget), on_text=read)
        with ThreadPoolExecutor(1, "sensing") as pool:
            proposal = pool.submit(self._proposal, request, view, budget)
            proposal.add_done_callback(lambda _: known.put(None))
            yield from iter(known.get, None)
            yield proposal.result()

    def _proposal(self, request: Request, view: View, budget: Budget) -> Proposal:
        reply = generate_within_memory(self.engine, [request])[0]
        answer = parse_answer(reply.text, self.engine.family.extent(reply.input_size))
        return Proposal(
            regions=self._regions(answer, reply, view)[: budget.max_regions],
            reasoning=answer.reasoning,
            tokens=len(reply.tokens),
            notes=tuple(f"sensing: {note}" for note in (*reply.notes, *reply_notes(reply, answer, answer.says_where))),
        )

    def request(self, view: View, query: Query, budget: Budget) -> Request:
        """The request for a view."""
        template = self._question_prompt if is_question(query) else self._prompt
        target = target_of(query)
        prompt = template.fill(self.reasoning, target=target, question=target, max_regions=budget.max_regions)
        return Request(view.image, prompt, budget.max_tokens)

    def _regions(self, answer: Answer, reply: Reply, view: View) -> tuple[Region, ...]:
        size = (view.width, view.height)
        return tuple(
            replace(self._region(box, reply.input_size, size), score=reply.probability(box.spans))
            for box in answer.boxes
        )

    def _region(self, box: AnswerBox, input_size: tuple[int, int], view_size: tuple[int, int]) -> Region:
        """The region of a box, without its score."""
        (row,) = self.engine.family.to_view([box.corners], input_size, view_size)
        return Region(Box(*row.tolist()), box.label)
