# Copyright 2026 The activeo3_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Chooses regions with a vision-language model: the policy of ACTIVE-o3 (arXiv 2505.21457) and its untrained start."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Any

from ..core.budget import Budget
from ..core.errors import EngineError, InvalidInput, UnsupportedQuery
from ..core.frame import View
from ..core.geometry import Box
from ..core.query import Query
from ..core.results import Proposal, Region
from ..settings import validated, within
from ..vlm import as_released as released_calls
from ..vlm.answer_places import AnswerBox
from ..vlm.engine import Engine, Reply, Request
from ..vlm.engine_registry import shared_engine
from ..vlm.imported_prompts import SENSING_ROLES, Words, choose_words
from ..vlm.out_of_memory import generate_within_memory
from ..vlm.parsing import Answer, parse_answer
from ..vlm.prompts import Reasoning, is_question, target_of
from ..vlm.region_reader import RegionReader
from ..vlm.reply_notes import reply_notes
from ..vlm.task import MllmTask


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
        words: Words = "own",
        as_released: bool = False,
        stream_regions: bool = False,
        gate: Annotated[float, within(0, 1)] = 0.0,
        gate_prompt: str | Path = "task_question",
    ) -> None:
        """Load the prompts and start the engine.

        Args:
            engine: Settings of an engine (see `vlm.engine_registry`), or one that runs.
            reasoning: "full" as the policy was trained, "short" for one sentence, "none" to answer at once: least time.
            shorter_side: Pixels of the view's shorter side where the budget allows them; the paper has 1024.
            prompt: Name in `config/prompts/` or path, for queries that name targets.
            question_prompt: The same for queries that ask a question.
            words: "own" for these prompts; "imported" for those that `activeo3 prompts import` read out of the released
                script, "auto" for them where they are there. The script has none for targets: those stay our own.
            as_released: Make the calls of the released script, token for token: imported words, `reasoning: full`,
                questions alone, its sizes and its limit of tokens.
            stream_regions: Hand each region over as soon as its box is written: it is examined while the rest of the
                answer is still written, with the same results. It pays where both roles have one engine `vllm`.
            gate: A question is first asked of the view; where its answer has at least this score, no region is looked
                at. 0 asks at once for regions.
            gate_prompt: Prompt of that first question, as `question_prompt` of the task `mllm`.

        Raises:
            InvalidInput: A setting is out of its range, or contradicts another.
            EngineError: The engine cannot start.
        """
        wording = choose_words(words, str(prompt), str(question_prompt), SENSING_ROLES)
        if wording.imported and reasoning == "short":
            raise InvalidInput(
                "reasoning: short: the imported words ask for no short one; choose full, none or words: own"
            )
        if as_released and reasoning != "full":
            raise InvalidInput(
                f"as_released thinks aloud as the script does: set reasoning: full instead of {reasoning}"
            )
        if as_released and gate:
            raise InvalidInput("as_released asks for regions first as the script does: set gate: 0")
        if gate and stream_regions:
            raise InvalidInput("a gate asks for regions only after an answer: set stream_regions: false, or gate: 0")
        if as_released and stream_regions:
            raise InvalidInput("as_released waits for the whole answer as the script does: set stream_regions: false")
        self.reasoning = reasoning
        self.shorter_side = shorter_side
        self.as_released = as_released
        self.words = wording.used
        self._prompt, self._question_prompt = wording.targets, wording.question
        self.streams = stream_regions
        self.gate = gate
        self.engine: Engine = shared_engine(engine) if isinstance(engine, Mapping) else engine
        if as_released:
            released_calls.check_as_released(wording, self.engine.family)
        self._limits = released_calls.PixelLimits.of({"engine": engine} if as_released else {})
        self._reader = MllmTask(self.engine, question_prompt=gate_prompt) if gate else None

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        if self.as_released:
            return released_calls.view_size(width, height, max_pixels, self._limits)
        return self.engine.family.fit(width, height, max_pixels, self.shorter_side)

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        if budget.max_regions == 0:
            return Proposal(used_view=False)
        gated, spent = self._answer_of_view(view, query, budget)
        return gated or self._proposal(self.request(view, query, budget), view, budget, spent)

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

    def _proposal(self, request: Request, view: View, budget: Budget, spent: int = 0) -> Proposal:
        reply = generate_within_memory(self.engine, [request])[0]
        answer = parse_answer(reply.text, self.engine.family.extent(reply.input_size))
        return Proposal(
            regions=self._regions(answer, reply, view)[: budget.max_regions],
            reasoning=answer.reasoning,
            tokens=len(reply.tokens) + spent,
            notes=tuple(f"sensing: {note}" for note in (*reply.notes, *reply_notes(reply, answer, answer.says_where))),
        )

    def _answer_of_view(self, view: View, query: Query, budget: Budget) -> tuple[Proposal | None, int]:
        """What the view says where it is sure enough for the gate, else None; and the tokens that were written.

        The score is that of the place where the answer was read: an answer without one never closes the gate.
        """
        if self._reader is None or not is_question(query):
            return None, 0
        try:
            (found,) = self._reader.examine([view], query, budget)
        except EngineError:  # no answer that can be used: then regions are asked for, of the same engine
            return None, 0
        sure = found.answer is not None and any(each.score >= self.gate for each in found.objects)
        note = f"the whole view was sure enough of its answer (gate {self.gate:g}): no region was looked at"
        if not sure:
            return None, found.tokens
        return Proposal(findings=replace(found, tokens=0, notes=(*found.notes, note)), tokens=found.tokens), 0

    def request(self, view: View, query: Query, budget: Budget) -> Request:
        """The request for a view.

        Raises:
            UnsupportedQuery: The query names targets, and the calls are to be those of the released script.
        """
        if self.as_released and not is_question(query):
            raise UnsupportedQuery("as_released: the released script asks questions alone; ask one, or do without it")
        template = self._question_prompt if is_question(query) else self._prompt
        target = target_of(query)
        prompt = template.fill(self.reasoning, target=target, question=target, max_regions=budget.max_regions)
        if self.as_released:
            return Request(view.image, released_calls.unhelped(prompt), released_calls.token_limit(budget))
        return Request(view.image, prompt, budget.max_tokens)

    def _regions(self, answer: Answer, reply: Reply, view: View) -> tuple[Region, ...]:
        if self.as_released:
            return self._released_regions(answer, reply, view)
        size = (view.width, view.height)
        return tuple(
            replace(self._region(box, reply.input_size, size), score=reply.probability(box.spans))
            for box in answer.boxes
        )

    def _region(self, box: AnswerBox, input_size: tuple[int, int], view_size: tuple[int, int]) -> Region:
        """The region of a box, without its score."""
        (row,) = self.engine.family.to_view([box.corners], input_size, view_size)
        return Region(Box(*row.tolist()), box.label)

    def _released_regions(self, answer: Answer, reply: Reply, view: View) -> tuple[Region, ...]:
        crops = [released_calls.crop_box(box.corners, reply.input_size, view.source_size) for box in answer.boxes]
        return tuple(
            Region(Box(*view.from_source([crop.as_tuple()])[0].tolist()), box.label, reply.probability(box.spans))
            for box, crop in zip(answer.boxes, crops, strict=True)
            if crop is not None
        )
