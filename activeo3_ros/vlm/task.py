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

"""Examines regions with a vision-language model: detects the targets of a query, or answers a question."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from ..core.budget import MAX_REGIONS, Budget
from ..core.errors import EngineError
from ..core.frame import GLOBAL_VIEW, View
from ..core.geometry import Box, non_maximum_suppression
from ..core.query import Query
from ..core.results import Finding, Findings, Grounding
from ..settings import validated, within
from . import as_released as released_calls
from .answer_places import AnswerBox
from .engine import Engine, Reply, Request
from .engine_registry import shared_engine
from .imported_prompts import TASK_ROLES, Words, choose_words
from .out_of_memory import generate_within_memory
from .parsing import Answer, parse_answer
from .prompts import is_question, target_of
from .reply_notes import excerpt, reply_notes

SAME_OBJECT_IOU = 0.7
"""Two boxes of one label in one view that overlap more are one object, which the model named twice."""
UNKNOWN = frozenset({"", "unknown", "none", "n/a", "not visible", "not shown", "cannot tell", "can't tell"})
"""Words of a model that does not see the answer."""


class MllmTask:
    """Task model that examines all views of a frame in one call of an engine."""

    batch_size = MAX_REGIONS + 1
    concurrent = True

    @validated
    def __init__(
        self,
        engine: Mapping[str, Any] | Engine,
        crop_side: Annotated[int, within(28, 4096, "pixels")] = 840,
        keep_aspect: bool = False,
        prompt: str | Path = "task_grounding",
        question_prompt: str | Path = "task_question",
        words: Words = "own",
        as_released: bool = False,
    ) -> None:
        """Load the prompts and start the engine.

        Args:
            engine: Settings of an engine (see `vlm.engine_registry`), or one that runs.
            crop_side: Pixels; each region is shown as a square of this side where the budget allows it; the paper has
                840.
            keep_aspect: Show it with as many pixels but undistorted, as the released demo does.
            prompt: Name in `config/prompts/` or path, for queries that name targets.
            question_prompt: The same for queries that ask a question.
            words: "own" for these prompts; "imported" for those that `activeo3 prompts import` read out of the released
                script, "auto" for them where they are there.
            as_released: Make the calls of the released script, token for token: imported words, its sizes and its limit
                of tokens.

        Raises:
            InvalidInput: A setting is out of its range, or contradicts another.
            EngineError: The engine cannot start.
        """
        wording = choose_words(words, str(prompt), str(question_prompt), TASK_ROLES)
        self.crop_side = crop_side
        self.keep_aspect = keep_aspect
        self.as_released = as_released
        self.words = wording.used
        self._prompt, self._question_prompt = wording.targets, wording.question
        self.engine: Engine = shared_engine(engine) if isinstance(engine, Mapping) else engine
        if as_released:
            released_calls.check_as_released(wording, self.engine.family)
        self._limits = released_calls.PixelLimits.of({"engine": engine} if as_released else {})

    def view_size(self, width: float, height: float, max_pixels: int) -> tuple[int, int]:
        if self.as_released:
            return released_calls.crop_size(width, height, max_pixels, self._limits)
        pixels = min(max_pixels, self.crop_side**2)
        return self.engine.family.fit(width if self.keep_aspect else 1.0, height if self.keep_aspect else 1.0, pixels)

    def examine(self, views: Sequence[View], query: Query, budget: Budget) -> list[Findings]:
        """As `TaskModel.examine`.

        Raises:
            EngineError: No answer at all can be used; that is a failure, not an empty scene.
        """
        replies = generate_within_memory(self.engine, [self.request(view, query, budget) for view in views])
        return self._findings(views, replies, query)

    def examine_streaming(self, views: Iterator[View], query: Query, budget: Budget) -> list[Findings]:
        """As `StreamingTask.examine_streaming`: each view is a request of its own, which the engine takes up at once.

        Raises:
            EngineError: As `examine`.
        """

        def ask(view: View) -> Reply:
            return generate_within_memory(self.engine, [self.request(view, query, budget)])[0]

        taken: list[View] = []
        with ThreadPoolExecutor(self.batch_size, "examine") as pool:
            asked = []
            for view in views:
                taken.append(view)
                asked.append(pool.submit(ask, view))
            replies = [each.result() for each in asked]
        return self._findings(taken, replies, query)

    def _findings(self, views: Sequence[View], replies: Sequence[Reply], query: Query) -> list[Findings]:
        answers = [self._parse(reply) for reply in replies]
        if replies and not any(_usable(answer, query) for answer in answers):
            told = "; ".join((*replies[0].notes, *reply_notes(replies[0], answers[0], usable=True)))
            first = f"the first is {excerpt(replies[0].text)}{f' ({told})' if told else ''}"
            raise EngineError(f"none of {len(replies)} answers could be used; {first}")
        return [self._read(*each, query) for each in zip(views, replies, answers, strict=True)]

    def _parse(self, reply: Reply) -> Answer:
        answer = parse_answer(reply.text, self.engine.family.extent(reply.input_size))
        # "10" of an answer that was cut off may have become "102"; reasoning that was cut off has no answer at all.
        cut_off = not reply.finished and any(end == len(reply.text) for _, end in answer.words_spans)
        return replace(answer, words="", words_spans=(), valid_json=False) if cut_off else answer

    def request(self, view: View, query: Query, budget: Budget) -> Request:
        """The request for a view."""
        template = self._question_prompt if is_question(query) else self._prompt
        target = target_of(query)
        prompt = template.fill(target=target, question=target)
        if self.as_released:
            return Request(view.image, released_calls.unhelped(prompt), released_calls.token_limit(budget))
        return Request(view.image, prompt, budget.max_tokens)

    def answer(self, query: Query, findings: Sequence[Findings], groundings: Sequence[Grounding]) -> str | None:
        """The answer that the views support most, each view's voice weighing as much as the model was sure of it."""
        if not is_question(query):
            return None
        voices: dict[str, float] = defaultdict(float)
        wording: dict[str, str] = {}
        for each in findings:
            if each.answer is not None:
                key = each.answer.lower().strip(" .")
                wording.setdefault(key, each.answer)
                score = each.objects[0].score if each.objects else math.nan
                voices[key] += 0.5 if math.isnan(score) else score
        return wording[max(voices, key=lambda key: voices[key])] if voices else None

    def _read(self, view: View, reply: Reply, answer: Answer, query: Query) -> Findings:
        asked = is_question(query)
        words = answer.words.strip() if asked else ""
        known = words if words.lower().strip(" .") not in UNKNOWN else ""
        objects = self._objects(view, reply, answer, query, known) if known or not asked else ()
        where = "view" if view.region == GLOBAL_VIEW else f"region {view.region + 1}"
        about = (*reply.notes, *reply_notes(reply, answer, _usable(answer, query)), *label_notes(answer, query))
        notes = tuple(f"{where}: {note}" for note in about)
        return Findings(objects, known or None, len(reply.tokens), notes)

    def _objects(self, view: View, reply: Reply, answer: Answer, query: Query, words: str) -> tuple[Finding, ...]:
        family = self.engine.family
        named = [box for box in answer.boxes if not _names_nothing(box, query)]
        boxes = family.to_view([box.corners for box in named], reply.input_size, (view.width, view.height))
        findings = [
            Finding(
                label_for(box.label, query),
                Box(*row.tolist()),
                reply.probability((*box.spans, *answer.words_spans)),
                query.text,
                words,
                reply.probability(answer.words_spans) if words else math.nan,
            )
            for box, row in zip(named, boxes, strict=True)
        ]
        return tuple(_once(findings))


def _usable(answer: Answer, query: Query) -> bool:
    """Whether an answer says something; points alone are no boxes, and no empty scene."""
    if is_question(query) and answer.words:
        return True
    return answer.says_where and (bool(answer.boxes) or not answer.points)


def label_for(label: str, query: Query) -> str:
    """The class of the query that a model's label means; the label itself where it means none of them."""
    plain = _plain(label)
    for ending in ("", "s", "es"):
        for name in query.classes:
            short, long = sorted((plain, _plain(name)), key=len)
            if short and long == short + ending:
                return name
    if not label.strip():
        return query.classes[0] if len(query.classes) == 1 else query.text or "object"
    return label


def label_notes(answer: Answer, query: Query) -> tuple[str, ...]:
    """Notes on the labels of an answer: boxes under a key that is no class asked for, and boxes without a label."""
    keys = dict.fromkeys(box.label for box in answer.boxes if _names_nothing(box, query))
    notes = [f"boxes of {excerpt(key, 30)}, which is no class that was asked for, were left out" for key in [*keys][:5]]
    if len(query.classes) > 1 and not all(box.label for box in answer.boxes):
        notes.append(f"boxes without a label are reported as {label_for('', query)!r}")
    return tuple(notes)


def _names_nothing(box: AnswerBox, query: Query) -> bool:
    """Whether the label is a key, or words in prose, that means no class of the query: it may be no label at all."""
    return box.keyed and bool(query.classes) and label_for(box.label, query) not in query.classes


def _plain(name: str) -> str:
    """A label in small letters with single spaces for all else that is no letter or digit."""
    return " ".join(re.split(r"[\W_]+", name.lower())).strip()


def _once(findings: Sequence[Finding]) -> list[Finding]:
    """Each object once, the surest box of it, in the model's order."""
    kept: list[int] = []
    for label in dict.fromkeys(finding.label for finding in findings):
        members = [index for index, finding in enumerate(findings) if finding.label == label]
        boxes = [findings[index].box.as_tuple() for index in members]
        scores = np.nan_to_num([findings[index].score for index in members])
        kept += [members[int(i)] for i in non_maximum_suppression(boxes, scores, SAME_OBJECT_IOU)]
    return [findings[index] for index in sorted(kept)]
