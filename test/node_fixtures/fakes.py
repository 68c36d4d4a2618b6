"""Models that fail on demand: some even grey values of a frame carry out a fault.

So one camera can be at fault while the others are fine, and a test in another process needs nothing but pictures.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from activeo3_ros.core import (
    ActivePerception,
    Box,
    Budget,
    Finding,
    Findings,
    Frame,
    Grounding,
    InvalidInput,
    Proposal,
    Query,
    Region,
    UnsupportedQuery,
    View,
)

FINE, RAISES, HANGS, GARBAGE, NO_MEMORY, SLOW, EMPTY, NAN_BOX = 100, 10, 20, 30, 40, 50, 60, 70
SLOW_S = 0.3
RARE_S = 3.0
"""Seconds that the model for the first query for "a rare thing" takes to load."""


def picture(grey: int = FINE, height: int = 60, width: int = 80) -> np.ndarray:
    return np.full((height, width, 3), grey, np.uint8)


def shows(view: View, grey: int) -> bool:
    return int(view.image[0, 0, 0]) == grey


class FakeSensing:
    """Proposes two regions: the left and the right half."""

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return 40, 30

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        return Proposal((Region(Box(0, 0, 20, 30), "left", 0.5), Region(Box(20, 0, 20, 30), "right")))


class SlowPolicy:
    """Takes its time, and gives the regions of another policy one by one, the next one with each call."""

    concurrent = True

    def __init__(self, policy: FakeSensing, seconds: float) -> None:
        self._policy, self._seconds, self._calls = policy, seconds, 0

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return self._policy.view_size(width, height, max_pixels)

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        time.sleep(self._seconds)
        regions = self._policy.propose(view, query, budget).regions
        self._calls += 1
        return Proposal((regions[self._calls % len(regions)],))


class FakeTask:
    """Finds one thing in every view: the whole view; carries out faults."""

    batch_size = 1

    def __init__(self, step_s: float = 0.0, memory_mb: int = 0) -> None:
        self._step_s = step_s
        self._ballast = np.ones(memory_mb * 2**17)
        self._knows_rare_things = False

    def view_size(self, width: float, height: float, max_pixels: int) -> tuple[int, int]:
        return max(1, int(width)), max(1, int(height))

    def examine(self, views: Sequence[View], query: Query, budget: Budget) -> list[Findings]:
        if "unicorn" in query.text:
            raise UnsupportedQuery("this preset finds things, not unicorns")
        if "a rare thing" in query.text and not self._knows_rare_things:
            time.sleep(RARE_S)
            self._knows_rare_things = True
        return [self._examine(view, query) for view in views]

    def _examine(self, view: View, query: Query) -> Findings:
        time.sleep(self._step_s)
        if shows(view, RAISES):
            raise RuntimeError("the engine broke")
        if shows(view, HANGS):
            time.sleep(3600)
        if shows(view, GARBAGE):
            return "a model gone mad"  # type: ignore[return-value]
        if shows(view, NO_MEMORY):
            raise MemoryError("no memory for 7 GB")
        if shows(view, SLOW):
            time.sleep(SLOW_S)
        if shows(view, EMPTY):
            return Findings()
        box = Box(float("nan"), 0, 1, 1) if shows(view, NAN_BOX) else Box(0, 0, view.width, view.height)
        return Findings((Finding("thing", box, float("nan"), phrase=query.text, text="102"),))

    def answer(self, query: Query, findings: Sequence[Findings], groundings: Sequence[Grounding]) -> str | None:
        return "102" if query.text else None


class FakeSegmenter:
    """Makes every detection a full rectangle."""

    def segment(self, frame: Frame, detections: Sequence) -> list:
        from activeo3_ros.core import InstanceMask

        masks = []
        for index, found in enumerate(detections):
            box = found.box.snapped(frame.width, frame.height)
            pixels = np.ones((int(box.height), int(box.width)), bool)
            masks.append(InstanceMask(found.label, found.score, box, pixels, found.region, index))
        return masks


@dataclasses.dataclass
class FakePreset:
    """`load_s`: how long its models take to load. `compute_s`: the same, but in Python, and without a pause.
    `policy_s`: how long its policy takes, `SlowPolicy` where that is not 0.

    `fails`: why they cannot be loaded, "" if they can.
    """

    load_s: float = 0.0
    compute_s: float = 0.0
    step_s: float = 0.0
    policy_s: float = 0.0
    memory_mb: int = 0
    fails: str = ""
    budget: Budget = dataclasses.field(default_factory=lambda: Budget(max_regions=2))
    query: Query = dataclasses.field(default_factory=Query)

    def build(self) -> ActivePerception:
        time.sleep(self.load_s)
        end = time.monotonic() + self.compute_s
        while time.monotonic() < end:
            pass
        if self.fails:
            raise RuntimeError(self.fails)
        sensing = SlowPolicy(FakeSensing(), self.policy_s) if self.policy_s else FakeSensing()
        return ActivePerception(sensing, FakeTask(self.step_s, self.memory_mb), self.budget, FakeSegmenter())


def load_fake(name: str, may_name_classes: bool = True) -> FakePreset:
    """`fake`, or `fake,load_s=10,fails=why`: the fields of `FakePreset` by name."""
    kind, *settings = name.split(",")
    if kind != "fake":
        raise InvalidInput(f"unknown preset {name!r}; choose fake")
    numbers = dict(setting.split("=") for setting in settings)
    fails = numbers.pop("fails", "")
    return FakePreset(fails=fails, **{key: type(getattr(FakePreset, key))(value) for key, value in numbers.items()})
