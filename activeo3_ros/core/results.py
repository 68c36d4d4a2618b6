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

"""The records of a frame: what models find in views, what policies propose, and the `Result` of it all.

Inside the loop a model's `Finding` is in the pixels of the view that was examined. Everything in a `Result` is in
pixels of the source frame. A score that a model does not give is NaN; none is ever invented.

One object is one `Detection`. A `Grounding` or an `InstanceMask` of the same object holds its index in
`Result.detections`; nothing is joined by comparing boxes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .budget import Cost
from .errors import InvalidInput
from .frame import GLOBAL_VIEW, Frame, KnownObject
from .geometry import Box, Boxes
from .query import Query

NO_SCORE = math.nan
NO_DETECTION = -1
"""The `detection` of a grounding or mask that belongs to no detection."""


class Status(IntEnum):
    """How far a frame got; the values are those of `PerceptionResult.status`."""

    COMPLETE = 0
    """Every stage ran."""
    COARSE = 1
    """The deadline stopped the zooming: what was found is right, small things may be missing."""
    FAILED = 2
    """Nothing in this result means "clear"."""


class DetectedBoxes(NamedTuple):
    """Raw output of a `Detector` for one image, best score first.

    Attributes:
        boxes: `(n, 4)` float64 x, y, width, height in pixels of that image, inside it.
        scores: `(n,)` float32, 0 to 1.
        class_ids: `(n,)` indices into the detector's `names`.
        masks: `(n, h, w)` bool, each over the whole image; None from a detector without masks.
    """

    boxes: Boxes
    scores: npt.NDArray[np.float32]
    class_ids: npt.NDArray[np.intp]
    masks: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Finding:
    """One thing that a model found in one view.

    Attributes:
        label: Class name.
        box: In pixels of that view.
        score: The model's own, 0 to 1; NaN if it gives none.
        phrase: The words of the query that it answers, "" for a plain detection.
        text: Text read inside the box, "" if none.
        text_score: The reader's confidence in `text`, 0 to 1; NaN if none.
        mask: `(h, w)` bool, its pixels inside `box.snapped(width, height)` of that view; None from a model without
            masks. Not compared.
    """

    label: str
    box: Box
    score: float = NO_SCORE
    phrase: str = ""
    text: str = ""
    text_score: float = NO_SCORE
    mask: npt.NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Findings:
    """A model's output for one view.

    Attributes:
        objects: The things it found, in pixels of that view.
        answer: Its answer to the query, None if it gives none.
        tokens: Tokens that a language model wrote for it.
        notes: Facts that the user should know about this output, such as a repaired answer.
        weak: What it is not sure enough of to report from this view alone, in pixels of that view: evidence beside
            other views and frames.
    """

    objects: tuple[Finding, ...] = ()
    answer: str | None = None
    tokens: int = 0
    notes: tuple[str, ...] = ()
    weak: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Region:
    """A window to zoom into.

    Attributes:
        box: In view pixels when a policy proposes it, in source pixels in a `Result`.
        label: The policy's reason in a word or two.
        score: Expected gain as the policy rates it, NaN if it gives none.
        zoom: Linear magnification of the crop that was examined against the view of the whole frame.
    """

    box: Box
    label: str = ""
    score: float = NO_SCORE
    zoom: float = NO_SCORE


@dataclass(frozen=True)
class Proposal:
    """A sensing policy's output for the view of the whole frame.

    Attributes:
        regions: In view pixels, best first.
        findings: What the policy itself found in the view; None when it only chooses regions, so that the task model
            has to examine the view as well.
        known: Objects that it saw in the view and that the task model should know of in the crops. Not reported.
        used_view: Whether it used the pixels of the view.
        reasoning: Its own account of the choice, "" if none.
        tokens: Tokens that a language model wrote for it.
        notes: Facts that the user should know, as in `Findings`.
        regions_age_ms: How much older the frame is that the regions were chosen in, milliseconds.
        regions_examined: Whether the policy itself has looked at the crops of its regions, and `findings` are of all
            that it saw: then the task model examines nothing more. Without findings it says nothing.
    """

    regions: tuple[Region, ...] = ()
    findings: Findings | None = None
    known: tuple[KnownObject, ...] = ()
    used_view: bool = True
    reasoning: str = ""
    tokens: int = 0
    notes: tuple[str, ...] = ()
    regions_age_ms: float = 0.0
    regions_examined: bool = False


@dataclass(frozen=True)
class Detection:
    """One object.

    Attributes:
        label: Class name.
        score: The model's own, 0 to 1; NaN if it gives none.
        box: In source pixels.
        region: Index of the region whose crop the box comes from, or `GLOBAL_VIEW`.
        track_id: Identity over frames, "" without a memory.
        existence: How sure it is from all views that the object is there, 0 to 1; NaN where only one view tells.
        carried: Whether no view of this frame shows it and it is kept from earlier frames.
    """

    label: str
    score: float
    box: Box
    region: int = GLOBAL_VIEW
    track_id: str = ""
    existence: float = NO_SCORE
    carried: bool = False


@dataclass(frozen=True)
class Track:
    """One object over several frames of one camera.

    Attributes:
        track_id: As in `Detection.track_id`; an id is never used again.
        label: Class name, the one that most looks are for.
        existence: How sure it is from all views of all frames that the object is there, 0 to 1.
        box: Where it is in this frame, source pixels.
        velocity: Of the centre, x and y, source pixels a second; NaN if unknown.
        first_seen_ns: Stamp of the first frame that showed it, nanoseconds.
        last_seen_ns: Stamp of the last frame that showed it.
        zoom: Of the most magnified view that showed it, against the view of the whole frame.
        text: Text that was read on it, voted over its looks, "" if none.
        path: Its last centres in source pixels, moved with the camera, oldest first.
        sigma: Standard deviation of its centre along each axis, source pixels; NaN if unknown.
    """

    track_id: str
    label: str
    existence: float
    box: Box
    velocity: tuple[float, float] = (NO_SCORE, NO_SCORE)
    first_seen_ns: int = 0
    last_seen_ns: int = 0
    zoom: float = 1.0
    text: str = ""
    path: tuple[tuple[float, float], ...] = ()
    sigma: float = NO_SCORE


@dataclass(frozen=True)
class Grounding:
    """One thing that a phrase of the query points to.

    Attributes:
        phrase: The words of the query.
        score: The model's own, 0 to 1; NaN if it gives none.
        box: In source pixels.
        region: Index of the region whose crop the box comes from, or `GLOBAL_VIEW`.
        text: Text read there, "" if none.
        detection: Index of the same object in `Result.detections`, or `NO_DETECTION`.
    """

    phrase: str
    score: float
    box: Box
    region: int = GLOBAL_VIEW
    text: str = ""
    detection: int = NO_DETECTION


@dataclass(frozen=True, eq=False)  # holds an array: compared and hashed by identity
class InstanceMask:
    """The pixels of one object.

    Attributes:
        label: Class name.
        score: The detection's.
        box: The extent of the mask, whole source pixels.
        mask: `(h, w)` bool that covers `box`.
        region: Index of the region whose crop the detection's box comes from, or `GLOBAL_VIEW`.
        detection: Index of the same object in `Result.detections`, or `NO_DETECTION`.
    """

    label: str
    score: float
    box: Box
    mask: npt.NDArray[np.bool_]
    region: int = GLOBAL_VIEW
    detection: int = NO_DETECTION


@dataclass(frozen=True)
class Result:
    """Everything known about one frame, in source pixels.

    Attributes:
        width: Of the source frame, pixels.
        height: Of the source frame, pixels.
        query: The query that the frame was asked.
        status: How far the frame got; with `Status.FAILED` an empty list says nothing about the scene.
        status_message: Why the status is not `COMPLETE`, and the notes; "" if there is nothing to say.
        regions: The crops that were examined, in the policy's order.
        detections: The objects, best score first.
        groundings: Places that the query's phrase points to; each holds the index of its detection.
        masks: Masks, where the query wants them; each holds the index of its detection.
        answer: Answer to the query, None if there is none.
        reasoning: The policy's own account of its choice, "" if none.
        timings_ms: Milliseconds by stage, in the order in which the stages ran.
        cost: What the frame spent.
        regions_age_ms: How much older the frame is that the regions were chosen in, in milliseconds; 0: this frame.
        notes: What was repaired or left out, each once; `status_message` holds them too.
        tracks: The objects of `detections` over all frames, in their order; none without a memory.

    Raises:
        InvalidInput: A grounding or mask holds an index that is not in `detections`.
    """

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
    regions_age_ms: float = 0.0
    notes: tuple[str, ...] = ()
    tracks: tuple[Track, ...] = ()

    def __post_init__(self) -> None:
        parts: list[Grounding | InstanceMask] = [*self.groundings, *self.masks]
        for part in parts:
            if not NO_DETECTION <= part.detection < len(self.detections):
                raise InvalidInput(
                    f"{type(part).__name__}.detection must be -1 (none) or an index into the "
                    f"{len(self.detections)} detections of the result, got {part.detection}"
                )

    @staticmethod
    def failed(
        frame: Frame, query: Query, message: str, timings_ms: dict[str, float] | None = None, cost: Cost = Cost()
    ) -> Result:
        """An empty result of status `FAILED`.

        Args:
            frame: The frame that could not be perceived.
            query: The query that it was asked.
            message: The reason.
            timings_ms: Milliseconds by stage, as far as the frame got.
            cost: What it spent.
        """
        return Result(
            frame.width, frame.height, query, Status.FAILED, message, timings_ms=dict(timings_ms or {}), cost=cost
        )

    def with_notes(self, notes: Sequence[str]) -> Result:
        """The same result with notes added, each once, also to the status message."""
        new = tuple(dict.fromkeys(note for note in notes if note))
        message = "; ".join(part for part in (self.status_message, *new) if part)
        return replace(self, status_message=message, notes=(*self.notes, *new))
