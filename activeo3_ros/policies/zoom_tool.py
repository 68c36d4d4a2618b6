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

"""Chooses regions with a model that calls a zoom tool in a conversation, such as DeepEyes (arXiv 2505.14362)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from ..core.budget import Budget
from ..core.frame import View
from ..core.geometry import Box
from ..core.query import Query
from ..core.results import Findings, Proposal, Region
from ..settings import validated, within
from ..vlm.engine import Engine, Reply, Request, Turn
from ..vlm.engine_registry import shared_engine
from ..vlm.out_of_memory import generate_within_memory
from ..vlm.parsing import parse_answer
from ..vlm.prompts import is_question, load_prompt, target_of
from ..vlm.reply_notes import excerpt
from ..vlm.task import UNKNOWN
from ..vlm.tool_calls import ZoomCall, zoom_calls

MIN_SIDE_PX = 2.0
"""Of a region, in source pixels: less shows nothing, whatever its magnification."""
REMINDER = "Think first. Then call the tool again if needed, or answer between <answer> and </answer>."
LAST = "No more calls are possible. Answer now, between <answer> and </answer>."


class ZoomToolSensing:
    """Sensing policy that lets a model zoom by tool calls and answer a question itself.

    Each call's box becomes a region, and its crop goes back to the model as the tool's answer. A question is answered
    in that conversation. Where it ends without an answer, and for queries that only name classes, the task model
    examines the regions.
    """

    concurrent = True

    @validated
    def __init__(
        self,
        engine: Mapping[str, Any] | Engine,
        shorter_side: Annotated[int, within(28, 4096, "pixels")] = 1024,
        crop_side: Annotated[int, within(28, 4096, "pixels")] = 840,
        max_calls: Annotated[int, within(1, 16)] = 6,
        prompt: str | Path = "zoom_tool_detection",
        question_prompt: str | Path = "zoom_tool_question",
    ) -> None:
        """Load the prompts and start the engine.

        Args:
            engine: Settings of an engine (see `vlm.engine_registry`), or one that runs. The type `vllm` takes one
                picture a request and cannot be used.
            shorter_side: Pixels of the view's shorter side where the budget allows them.
            crop_side: Pixels; a crop is shown with as many pixels as a square of this side, undistorted.
            max_calls: Of the tool in one frame, those that failed included; the budget's regions bound those that
                succeed.
            prompt: Name in `config/prompts/` or path, for queries that name targets.
            question_prompt: The same for queries that ask a question.

        Raises:
            InvalidInput: A setting is out of its range.
            EngineError: The engine cannot start.
        """
        self.shorter_side, self.crop_side, self.max_calls = shorter_side, crop_side, max_calls
        self._prompt, self._question_prompt = load_prompt(str(prompt)), load_prompt(str(question_prompt))
        self.engine: Engine = shared_engine(engine) if isinstance(engine, Mapping) else engine

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return self.engine.family.fit(width, height, max_pixels, self.shorter_side)

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        if budget.max_regions == 0:
            return Proposal(used_view=False)
        template = self._question_prompt if is_question(query) else self._prompt
        target = target_of(query)
        prompt = template.fill("full", target=target, question=target, max_regions=budget.max_regions)
        talk = _Conversation(self, view, budget)
        calls = 0
        while True:
            request = Request(view.image, prompt, budget.max_tokens, turns=tuple(talk.turns))
            reply = talk.take(generate_within_memory(self.engine, [request])[0])
            wanted = zoom_calls(reply.text)
            if not wanted:
                return talk.end(reply, query)
            if calls >= self.max_calls or len(talk.regions) >= budget.max_regions:
                talk.note(f"the model called the tool after its last call, and gave no answer: {excerpt(reply.text)}")
                return talk.proposal(None)
            calls += 1
            if len(wanted) > 1:
                talk.note(f"only the first of {len(wanted)} tool calls in one answer was followed")
            talk.answer_call(reply, wanted[0], calls)
            if calls >= self.max_calls or len(talk.regions) >= budget.max_regions:
                talk.say_last()


@dataclass
class _Conversation:
    """The state of one frame's conversation."""

    policy: ZoomToolSensing
    view: View
    budget: Budget
    turns: list[Turn] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    pictures: list[View] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    tokens: int = 0

    def __post_init__(self) -> None:
        self.pictures.append(self.view)

    def take(self, reply: Reply) -> Reply:
        """Count a reply and keep its reasoning."""
        self.tokens += len(reply.tokens)
        thoughts = parse_answer(reply.text).reasoning
        self.thoughts += [thoughts] if thoughts else []
        for note in reply.notes:
            self.note(note)
        return reply

    def note(self, text: str) -> None:
        self.notes.append(f"sensing: {text}")

    def answer_call(self, reply: Reply, call: ZoomCall | str, number: int) -> None:
        """Follow a call: its crop, or what was wrong with it, is the tool's answer."""
        crop = call if isinstance(call, str) else self._zoom(reply, call)
        if isinstance(crop, str):
            self.note(f"tool call {number}: {crop}")
            self.turns.append(Turn(reply.text, after=f"<tool_response>\nError: {crop}. {REMINDER}\n</tool_response>"))
            return
        self.pictures.append(crop)
        self.turns.append(Turn(reply.text, "<tool_response>\n", crop.image, f"\n{REMINDER}\n</tool_response>"))

    def say_last(self) -> None:
        """Tell the model that the tool cannot be called any more."""
        last = self.turns[-1]
        self.turns[-1] = Turn(last.answer, last.before, last.image, last.after.replace(REMINDER, LAST))

    def _zoom(self, reply: Reply, call: ZoomCall) -> View | str:
        """The crop that a call asks for, kept as a region; or why there is none."""
        if not 0 <= call.picture < len(self.pictures):
            return f"there is no picture {call.picture}; pictures are 0 to {len(self.pictures) - 1}"
        shown, family = self.pictures[call.picture], self.policy.engine.family
        size = reply.input_size if call.picture == 0 else shown.size
        box = Box(*family.to_view([call.corners], size, shown.size)[0].tolist())
        inside = box.clipped(*shown.size)
        if inside.area == 0:
            wide, high = (round(side) for side in family.extent(size))
            return f"the box {[round(value) for value in call.corners]} is outside of the picture, 0 to {wide} x {high}"
        source = shown.box_to_source(inside)
        if min(source.width, source.height) < MIN_SIDE_PX:
            return f"the box is smaller than {MIN_SIDE_PX:g} pixels of the camera; ask for a larger one"
        if inside != box:
            self.note("a tool call's box reached outside of the picture and was cut")
        window = source.snapped(*self.view.source_size)
        pixels = min(self.budget.crop_pixels, self.policy.crop_side**2)
        crop = self.view.frame.view(window, family.fit(window.width, window.height, pixels), len(self.regions))
        in_view = Box(*self.view.from_source([source.as_tuple()])[0].tolist())
        self.regions.append(Region(in_view, call.label, reply.probability(call.spans)))
        return crop

    def end(self, reply: Reply, query: Query) -> Proposal:
        """The proposal after a reply without a tool call."""
        if not is_question(query):
            return self.proposal(None)
        answer = parse_answer(reply.text)
        words = answer.words.strip()
        tagged = "<answer>" in reply.text
        if not words or (not reply.finished and not reply.text.rstrip().endswith("</answer>")):
            self.note(f"the model gave no answer that could be used: {excerpt(reply.text)}")
            return self.proposal(None)
        if not tagged:
            self.note("the model answered without its tags")
        known = words if words.lower().strip(" .") not in UNKNOWN else None
        return self.proposal(Findings((), known))

    def proposal(self, findings: Findings | None) -> Proposal:
        return Proposal(
            tuple(self.regions),
            findings,
            reasoning="\n".join(self.thoughts),
            tokens=self.tokens,
            notes=tuple(self.notes),
            regions_examined=findings is not None,
        )
