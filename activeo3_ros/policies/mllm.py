"""Chooses regions with a vision-language model: the policy of ACTIVE-o3 (arXiv 2505.21457) and its untrained start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from ..core.budget import Budget
from ..core.errors import EngineError
from ..core.frame import View
from ..core.geometry import Box
from ..core.query import Query
from ..core.results import Findings, Proposal, Region
from ..settings import validated, within
from ..vlm.engine import Engine, Reply, Request
from ..vlm.engine_registry import shared_engine
from ..vlm.out_of_memory import generate_within_memory
from ..vlm.parsing import Answer, parse_answer
from ..vlm.prompts import Reasoning, is_question, load_prompt, target_of
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
            gate: A question is first asked of the view; where its answer has at least this score, no region is looked
                at. 0 asks at once for regions.
            gate_prompt: Prompt of that first question, as `question_prompt` of the task `mllm`.

        Raises:
            InvalidInput: A setting is out of its range.
            EngineError: The engine cannot start.
        """
        self.reasoning = reasoning
        self.shorter_side = shorter_side
        self.gate = gate
        self._prompt, self._question_prompt = load_prompt(str(prompt)), load_prompt(str(question_prompt))
        self.engine: Engine = shared_engine(engine) if isinstance(engine, Mapping) else engine
        self._reader = MllmTask(self.engine, question_prompt=gate_prompt) if gate else None

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return self.engine.family.fit(width, height, max_pixels, self.shorter_side)

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        if budget.max_regions == 0:
            return Proposal(used_view=False)
        known, spent = self._answer_of_view(view, query, budget)
        if known is not None:
            return Proposal(findings=replace(known, tokens=0), tokens=spent)
        reply = generate_within_memory(self.engine, [self.request(view, query, budget)])[0]
        answer = parse_answer(reply.text, self.engine.family.extent(reply.input_size))
        return Proposal(
            regions=self._regions(answer, reply, view)[: budget.max_regions],
            reasoning=answer.reasoning,
            tokens=len(reply.tokens) + spent,
            notes=tuple(f"sensing: {note}" for note in (*reply.notes, *reply_notes(reply, answer, answer.says_where))),
        )

    def _answer_of_view(self, view: View, query: Query, budget: Budget) -> tuple[Findings | None, int]:
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
        return (replace(found, notes=(*found.notes, note)) if sure else None), found.tokens

    def request(self, view: View, query: Query, budget: Budget) -> Request:
        """The request for a view."""
        template = self._question_prompt if is_question(query) else self._prompt
        target = target_of(query)
        prompt = template.fill(self.reasoning, target=target, question=target, max_regions=budget.max_regions)
        return Request(view.image, prompt, budget.max_tokens)

    def _regions(self, answer: Answer, reply: Reply, view: View) -> tuple[Region, ...]:
        family = self.engine.family
        boxes = family.to_view([box.corners for box in answer.boxes], reply.input_size, (view.width, view.height))
        return tuple(
            Region(Box(*row.tolist()), box.label, reply.probability(box.spans))
            for box, row in zip(answer.boxes, boxes, strict=True)
        )
