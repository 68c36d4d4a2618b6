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

"""Validates a vision-language policy: its words, its reasoning and its engines, on data that show what they bring.

Each choice is a method of the evaluation core. The verdict compares two methods at a time that differ in one choice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core import InvalidInput
from ..presets import Component, Preset
from ..settings import settings_of
from ..vlm.as_released import MAX_PIXELS, MAX_TOKENS
from ..vlm.engine_registry import AUTO, REMOTE, load_engine_class, problems
from ..vlm.imported_prompts import IMPORT, chosen_set
from .datasets import Dataset
from .differences import Difference, difference
from .methods import Method
from .published import PublishedRow
from .scoring import Estimate, MethodScores
from .summary import format_difference, verdict

WORDS, REASONING, ENGINE, CALLS = "words", "reasoning", "engine", "calls"
RELEASED = "as_released"


@dataclass(frozen=True)
class Choice:
    """What a method tries.

    Attributes:
        words: "own" or "imported".
        reasoning: "full" or "none".
        engine: A key of `ENGINE_TYPES`.
        calls: "ours", or "as_released" for those of the released script.
    """

    words: str
    reasoning: str
    engine: str
    calls: str = "ours"

    @property
    def name(self) -> str:
        """Of the method."""
        return f"{self.calls if self.calls == RELEASED else f'{self.words}-{self.reasoning}'}-{self.engine}"


@dataclass(frozen=True)
class Plan:
    """What is tried, and what is not.

    Attributes:
        methods: By choice.
        not_run: Reasons by what is not tried.
    """

    methods: Mapping[Choice, Method]
    not_run: Mapping[str, str]

    def for_questions(self, asked: bool) -> Plan:
        """The plan for a data set of questions, or for one of targets, for which the script has no request."""
        if asked:
            return self
        kept = {choice: method for choice, method in self.methods.items() if choice.calls != RELEASED}
        return Plan(kept, self.not_run)

    def compare(self, scores: Sequence[MethodScores], metric: str) -> list[Difference]:
        """The paired differences of methods that differ in one choice."""
        return [found for found, _ in self.compared(scores, metric)]

    def compared(self, scores: Sequence[MethodScores], metric: str) -> list[tuple[Difference, str]]:
        """The same, each with the choice that differs."""
        of = {s.method.id: s for s in scores}
        own = {choice: of[method.id] for choice, method in self.methods.items()}
        pairs = [
            (difference(own[a], own[b], metric), what)
            for a in own
            for what, b in _counterparts(a).items()
            if b in own and metric in own[a].quality and metric in own[b].quality
        ]
        return sorted(pairs, key=lambda pair: (WORDS, REASONING, ENGINE, CALLS).index(pair[1]))


def _counterparts(choice: Choice) -> dict[str, Choice]:
    """The methods that one is compared with, by what they differ in."""
    if choice.calls == RELEASED:
        other = {CALLS: replace(choice, calls="ours")}
    else:
        other = {
            **({WORDS: replace(choice, words="own")} if choice.words == "imported" else {}),
            **({REASONING: replace(choice, reasoning="none")} if choice.reasoning == "full" else {}),
        }
    return {**other, **({ENGINE: replace(choice, engine="transformers")} if choice.engine == "vllm" else {})}


def make_plan(preset: Preset, engines: Sequence[str] = ()) -> Plan:
    """Everything to try with a preset.

    Args:
        preset: Its policy is a vision-language model.
        engines: Those to try; none for all that run here.

    Raises:
        InvalidInput: It has another policy, or an engine that was asked for does not run here.
    """
    if preset.sensing.type != "mllm":
        raise InvalidInput(f"preset {preset.name!r}: its policy {preset.sensing.type!r} is no vision-language model")
    for name in ("prompt", "question_prompt"):
        if name in preset.sensing.settings:
            raise InvalidInput(f"preset {preset.name!r} has a {name} of its own, so there are no words to choose from")
    found, unavailable = _engines(preset, engines)
    imported = chosen_set("auto")
    not_run = dict(unavailable)
    words = ["own"] if imported is None else ["imported", "own"]
    if imported is None:
        not_run["imported words, calls as released"] = f"nothing is imported; run: {IMPORT}"
    choices = [Choice(w, r, e) for e in found for w in words for r in ("none", "full")]
    if imported is not None and imported.as_released and preset.task.type == "mllm":
        choices += [Choice("imported", "full", engine, RELEASED) for engine in found]
        choices.sort(key=lambda choice: found.index(choice.engine))
    elif imported is not None:
        why = "the task is no vision-language model" if imported.as_released else "the imported script was changed"
        not_run["calls as released"] = why
    return Plan({c: Method(c.name, _with(preset, c), preset.budget.max_regions) for c in choices}, not_run)


def _engines(preset: Preset, asked: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The engines to try, and the reasons against the others."""
    kind = str(preset.sensing.settings["engine"].get("type", AUTO))
    reasons = {REMOTE: ""} if kind == REMOTE else problems()
    unknown = [engine for engine in asked if engine not in reasons]
    refused = unknown or [engine for engine in asked if reasons[engine]]
    if refused:
        why = f"the preset's engine is {kind}" if unknown else reasons[refused[0]]
        raise InvalidInput(f"engine {refused[0]}: {why}")
    found = list(asked) or [engine for engine, reason in reasons.items() if not reason]
    if not found:
        raise InvalidInput("; ".join(f"engine {engine}: {reason}" for engine, reason in reasons.items()))
    return found, {f"engine {engine}": reason or "not asked for" for engine, reason in reasons.items()
                   if engine not in found}  # fmt: skip


def _with(preset: Preset, choice: Choice) -> Preset:
    """The preset as a choice has it."""
    released = choice.calls == RELEASED
    extra: dict[str, Any] = {"words": choice.words, **({"as_released": True} if released else {})}
    sensing = _component(preset.sensing, choice, {**extra, "reasoning": choice.reasoning})
    task = _component(preset.task, choice, extra) if preset.task.type == "mllm" else preset.task
    budget = preset.budget
    if released:
        budget = replace(budget, view_pixels=MAX_PIXELS, crop_pixels=MAX_PIXELS, max_tokens=MAX_TOKENS)
    examine_view = preset.examine_view and not released
    return replace(preset, name=choice.name, sensing=sensing, task=task, budget=budget, examine_view=examine_view)


def _component(component: Component, choice: Choice, settings: Mapping[str, Any]) -> Component:
    known = settings_of(load_engine_class(choice.engine))
    engine = {name: value for name, value in component.settings["engine"].items() if name in known}
    return replace(component, settings={**component.settings, **settings, "engine": {"type": choice.engine, **engine}})


@dataclass(frozen=True)
class Part:
    """The verdict on one data set.

    Attributes:
        name: Of the data set.
        metric: In which methods are compared.
        reason: Why it was not run; "" where it was.
        results: By method, the metric with its interval, and how many of how many frames failed.
        differences: Paired ones, each with the choice that differs.
        notes: What the paper has beside what was measured, and what else to know, in lines for people.
    """

    name: str
    metric: str
    reason: str = ""
    results: Mapping[str, tuple[Estimate, int, int]] | None = None
    differences: Sequence[tuple[Difference, str]] = ()
    notes: Sequence[str] = ()

    def lines(self) -> list[str]:
        """For people."""
        if self.results is None:
            return [f"{self.name}: not run: {self.reason}"]
        rows = [
            f"  {method}: {_shown(estimate)}{f', {failed} of {count} frames failed' if failed else ''}"
            for method, (estimate, failed, count) in self.results.items()
        ]
        pairs = [f"  {what}: {d.a} - {d.b} = {format_difference(d)}, {verdict(d)}" for d, what in self.differences]
        return [f"{self.name}: {self.metric}", *rows, *pairs, *(f"  {line}" for line in self.notes)]

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "data": self.name,
            "metric": self.metric,
            "not_run": self.reason or None,
            "methods": {
                method: {"estimate": estimate.to_json(), "failed": failed, "frames": count}
                for method, (estimate, failed, count) in (self.results or {}).items()
            },
            "differences": [
                {"differ_in": what, "a": d.a, "b": d.b, "estimate": d.estimate.to_json(), "is_clear": d.is_clear}
                for d, what in self.differences
            ],
            "notes": list(self.notes),
        }


def judge(
    dataset: Dataset,
    plan: Plan,
    scores: Sequence[MethodScores],
    metric: str,
    published: Sequence[PublishedRow],
    columns: Sequence[tuple[str, str]],
) -> Part:
    """The verdict on a data set that was run."""
    results = {s.method.id: (s.quality[metric], s.failed, len(dataset.samples)) for s in scores}
    beside = [_beside(s, published, columns) for s in scores if published]
    none = () if published else ("published: the paper has no row for these questions",)
    return Part(dataset.name, metric, "", results, plan.compared(scores, metric), (*beside, *none))


def _beside(s: MethodScores, published: Sequence[PublishedRow], columns: Sequence[tuple[str, str]]) -> str:
    """A method's numbers beside those of each published row."""
    here = ", ".join(f"{theirs} {_shown(s.quality[ours], 100)}" for theirs, ours in columns)
    rows = [
        f"{row.method} "
        + ", ".join(
            f"{row.numbers[theirs]} ({_where(float(row.numbers[theirs]) / 100, s.quality[ours])})"
            for theirs, ours in columns
        )
        for row in published
    ]
    return f"{s.method.id}, in percent: {here}; published: {'; '.join(rows)}"


def _where(number: float, measured: Estimate) -> str:
    """Where a published number lies; the pictures of the paper are not known, so that this is no test of it."""
    if not (math.isfinite(measured.low) and math.isfinite(measured.high)):
        return "no interval"
    if measured.low <= number <= measured.high:
        return "in the interval"
    return "above it" if number > measured.high else "below it"


def _shown(estimate: Estimate, factor: int = 1) -> str:
    digits = 3 if factor == 1 else 1
    values = [factor * value for value in (estimate.value, estimate.low, estimate.high)]
    if not math.isfinite(values[0]):
        return "n/a"
    interval = f" [{values[1]:.{digits}f}, {values[2]:.{digits}f}]" if math.isfinite(values[1]) else ""
    return f"{values[0]:.{digits}f}{interval}"


MEANINGS = {
    WORDS: ("imported words are better", "our own words are better"),
    REASONING: ("thinking aloud is better", "answering at once is better"),
    ENGINE: ("vllm is better", "transformers is better"),
    CALLS: ("the script's calls are better", "our calls are better"),
}


def overall(parts: Sequence[Part]) -> list[str]:
    """One line for each choice, from all data sets together."""
    lines = []
    for what, meanings in MEANINGS.items():
        found = [d for part in parts for d, about in part.differences if about == what]
        clear = Counter(meanings[d.estimate.low <= 0] for d in found if d.is_clear)
        told = " and ".join(f"{meaning} in {count}" for meaning, count in clear.items())
        counted = f"of {len(found)} comparison{'s' if len(found) != 1 else ''}"
        lines.append(f"{what}: " + (f"{told} {counted}" if told else f"no clear difference {counted}" if found else
                                    "not compared"))  # fmt: skip
    return lines
