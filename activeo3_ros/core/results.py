"""What the loop and its models say about a frame.

Inside the loop, what a model finds is a `Finding` in the pixels of the view that it looked at. Everything in a `Result`
is in the pixels of the source frame. A score that a model does not give is NaN; none is ever invented.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from .budget import Cost
from .frame import GLOBAL_VIEW, Frame
from .geometry import Box
from .query import Query

NO_SCORE = math.nan


class Status(IntEnum):
    """How far a frame got; the values are those of `PerceptionResult.status`."""

    COMPLETE = 0
    COARSE = 1
    """The deadline stopped the zooming: what was seen is right, small things may be missing."""
    FAILED = 2
    """Nothing in this result means "clear"."""


@dataclass(frozen=True)
class Finding:
    """One thing that a model saw in one view.

    box: in pixels of that view. score: the model's own, NaN if it gives none. text: what was read inside the box.
    phrase: the words of the query that it answers, "" for a plain detection.
    """

    label: str
    box: Box
    score: float = NO_SCORE
    phrase: str = ""
    text: str = ""
    text_score: float = NO_SCORE


@dataclass(frozen=True)
class Findings:
    """What a model says after looking at one view."""

    objects: tuple[Finding, ...] = ()
    answer: str | None = None
    tokens: int = 0
    notes: tuple[str, ...] = ()
    """What the user should know about this look, such as an answer that had to be repaired."""


@dataclass(frozen=True)
class Region:
    """Where to look closer. box: in view pixels when a policy proposes it, in source pixels in a `Result`.

    score: expected gain as the policy rates it, NaN if it gives none. label: the policy's reason in a word or two.
    zoom: linear magnification of the crop that was examined against the view of the whole frame.
    """

    box: Box
    label: str = ""
    score: float = NO_SCORE
    zoom: float = NO_SCORE


@dataclass(frozen=True)
class Proposal:
    """What a sensing policy says after looking at the view of the whole frame.

    regions: in view pixels, best first. findings: what it saw there by itself; None when the policy only chooses
    regions, so that the task model has to examine the view as well. used_view: whether it used the pixels of the view.
    """

    regions: tuple[Region, ...] = ()
    findings: Findings | None = None
    used_view: bool = True
    reasoning: str = ""
    tokens: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Detection:
    """One object: class, the model's score (NaN if none), box in source pixels, region that it was seen best in."""

    label: str
    score: float
    box: Box
    region: int = GLOBAL_VIEW
    track_id: str = ""


@dataclass(frozen=True)
class Grounding:
    """One thing that a phrase of the query points to, with the text read there ("" if nothing was)."""

    phrase: str
    score: float
    box: Box
    region: int = GLOBAL_VIEW
    text: str = ""


@dataclass(frozen=True, eq=False)  # holds an array: compared and hashed by identity
class InstanceMask:
    """The pixels of one object. mask: `(h, w)` bool that covers `box`, a box of whole source pixels."""

    label: str
    score: float
    box: Box
    mask: npt.NDArray[np.bool_]
    region: int = GLOBAL_VIEW


@dataclass(frozen=True)
class Result:
    """Everything known about one frame, in source pixels. timings_ms: milliseconds by stage, in the order they ran."""

    width: int
    height: int
    query: Query
    status: Status = Status.COMPLETE
    status_message: str = ""
    regions: tuple[Region, ...] = ()
    detections: tuple[Detection, ...] = ()
    groundings: tuple[Grounding, ...] = ()
    masks: tuple[InstanceMask, ...] = ()
    answer: str | None = None
    reasoning: str = ""
    timings_ms: dict[str, float] = field(default_factory=dict)
    cost: Cost = Cost()

    @staticmethod
    def failed(
        frame: Frame, query: Query, message: str, timings_ms: dict[str, float] | None = None, cost: Cost = Cost()
    ) -> Result:
        """A result that says why there is none."""
        return Result(
            frame.width, frame.height, query, Status.FAILED, message, timings_ms=dict(timings_ms or {}), cost=cost
        )

    def with_notes(self, notes: Sequence[str]) -> Result:
        """The same result with notes added to its status message, each once."""
        parts = [part for part in (self.status_message, *dict.fromkeys(notes)) if part]
        return replace(self, status_message="; ".join(parts))
