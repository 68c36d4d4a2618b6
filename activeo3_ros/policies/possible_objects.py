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

"""Which objects may be in a frame, from a detector's output on the small view of it: each with a probability.

Below the score from which a detection is believed, a detector still gives hints: of a few pixels it tells that there is
an object long before it tells the class. Hints, the objects that usually stand beside them, and those too far away for
the view to show are *possible objects*. `windows` chooses the windows that show most of them large enough.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.calibration import Calibration
from ..core.geometry import Boxes, non_maximum_suppression
from ..core.results import DetectedBoxes

Array = npt.NDArray[np.float64]

OTHER_CLASS_WEIGHT = 0.8
"""Weight of a small hint of another class beside one of a class that is asked for; from 0.6 to 1 the choice makes
little difference. From the calibration's `class_side_px` on it weighs less: the class is told by the area."""
SAME_HINT_IOU = 0.3
"""The detector gives several boxes of different classes for one place: boxes that overlap more are one hint."""
IMPROVABLE = 0.5
"""Worth of a zoom into an object that the view already reports, beside finding one that it misses."""
NEIGHBOURS = 6
"""Places around a hint where a neighbour may be."""
NEIGHBOUR_DISTANCE = (2.5, 1.2)
"""How far they lie from it in x and y, in its sides: groups on the ground are wide, not tall."""
NEIGHBOUR_SIZE = 0.7
"""Size of a neighbour, as a share of the hint's."""
FAR_SIDES_PX = np.array([3.0, 5.0, 8.0])
"""Sides of the objects that the view is expected to miss, in view pixels."""
FAR_STEPS = np.array([-1.2, -0.4, 0.4, 1.2])
"""Where far objects are sampled around their expected position, in standard deviations along each axis."""
PRIOR_POSITION, PRIOR_DEVIATION = (0.5, 0.45), (0.25, 0.12)
"""Mean and standard deviation of the vanishing point (x, y), as shares of the frame's width and height."""
PRIOR_SLOPE = (5.0, 5.0)
"""Standard deviation, around none, of how far objects move from the vanishing point as they grow, in their sides."""
SCATTER = (3.0, 1.0)
"""How far objects of one size lie beside the line, in x and y, in their own sides."""

REASONS = ("small object", "beside small objects", "far away", "to read", "seen before")
HINT, NEIGHBOUR, FAR, READ, EXPECTED = range(len(REASONS))


@dataclass(frozen=True)
class PossibleObjects:
    """Objects that may be there.

    Attributes:
        center: `(n, 2)` x, y in view pixels.
        size: `(n, 2)` width, height in view pixels.
        probability: `(n,)`, that the object exists and has not been found.
        reason: `(n,)` index into `REASONS`.
    """

    center: Array
    size: Array
    probability: Array
    reason: npt.NDArray[np.intp]

    @classmethod
    def in_boxes(cls, boxes: Boxes, probability: Array, reason: int) -> PossibleObjects:
        """Objects with `(n, 4)` boxes in view pixels and their probabilities `(n,)`, all for one reason."""
        size = boxes[:, 2:]
        return cls(boxes[:, :2] + size / 2, size, probability, np.full(len(boxes), reason, np.intp))

    @classmethod
    def joined(cls, parts: Sequence[PossibleObjects]) -> PossibleObjects:
        """All objects of several sets."""
        return cls(
            np.concatenate([part.center for part in parts]),
            np.concatenate([part.size for part in parts]),
            np.concatenate([part.probability for part in parts]),
            np.concatenate([part.reason for part in parts]),
        )

    @property
    def side(self) -> Array:
        """`(n,)` sides of the squares of the same areas, in view pixels."""
        return np.asarray(np.sqrt(self.size[:, 0] * self.size[:, 1]))


def existence(scores: npt.ArrayLike, calibration: Calibration) -> Array:
    """`(n,)` probabilities that there is an object at each of `(n,)` detector scores."""
    return np.minimum(1.0, calibration.probability_per_score * np.asarray(scores, np.float64))


def hinted_objects(
    detected: DetectedBoxes, class_ids: Sequence[int], threshold: float, calibration: Calibration
) -> PossibleObjects:
    """The objects that the view hints at, of whatever class.

    Args:
        detected: In the view, from a low threshold on.
        class_ids: The classes that are asked for.
        threshold: Score from which an object of these is reported from the view itself.
        calibration: Of the detector.
    """
    objects = PossibleObjects.in_boxes(detected.boxes, existence(detected.scores, calibration), HINT)
    class_side = calibration.class_side_px
    is_asked = np.isin(detected.class_ids, class_ids)
    weight_of_other = OTHER_CLASS_WEIGHT * (class_side / np.maximum(objects.side, class_side)) ** 2
    exists = objects.probability * np.where(is_asked, 1.0, weight_of_other)
    kept = non_maximum_suppression(detected.boxes, exists, SAME_HINT_IOU)
    is_reported = is_asked & (detected.scores.astype(np.float64) >= threshold)
    unfound = np.where(is_reported, IMPROVABLE * exists, exists)
    return PossibleObjects.in_boxes(detected.boxes[kept], unfound[kept], HINT)


def neighbours_of(hints: PossibleObjects, expected: float) -> PossibleObjects:
    """Objects come in groups: around each hint others, a little smaller, may be.

    Args:
        hints: What the view hints at.
        expected: Objects expected around each of them.
    """
    angles = np.arange(NEIGHBOURS) * (2 * math.pi / NEIGHBOURS)
    offsets = np.stack([NEIGHBOUR_DISTANCE[0] * np.cos(angles), NEIGHBOUR_DISTANCE[1] * np.sin(angles)], axis=1)
    centers = hints.center[:, None] + offsets[None] * hints.side[:, None, None]
    return PossibleObjects(
        centers.reshape(-1, 2),
        np.repeat(NEIGHBOUR_SIZE * hints.size, NEIGHBOURS, axis=0),
        np.repeat(hints.probability * expected / NEIGHBOURS, NEIGHBOURS),
        np.full(len(hints.size) * NEIGHBOURS, NEIGHBOUR, np.intp),
    )


def far_objects(hints: PossibleObjects, expected: float, frame_size: tuple[int, int]) -> PossibleObjects:
    """Objects too small for the view, along the line on which the hints shrink towards the horizon.

    On a plane, each halving of the size doubles the depth that it spans, so the small objects are at least as many as
    the large ones that are seen.

    Args:
        hints: What the view hints at.
        expected: Far objects for each one that is seen.
        frame_size: Width and height of the view, pixels.
    """
    mean, deviation = position_at_size(
        FAR_SIDES_PX, hints.center, hints.side, hints.probability, np.array(frame_size, np.float64)
    )
    steps = np.stack(np.meshgrid(FAR_STEPS, FAR_STEPS), axis=-1).reshape(-1, 2)
    weights = np.exp(-0.5 * (steps**2).sum(axis=1))
    centers = (mean[:, None] + steps[None] * deviation[:, None]).reshape(-1, 2)
    count_of_each_size = expected * (1.0 + hints.probability.sum()) / len(FAR_SIDES_PX)
    return PossibleObjects(
        centers,
        np.repeat(np.stack([FAR_SIDES_PX, FAR_SIDES_PX], axis=1), len(steps), axis=0),
        np.tile(count_of_each_size * weights / weights.sum(), len(FAR_SIDES_PX)),
        np.full(len(centers), FAR, np.intp),
    )


def position_at_size(sides: Array, center: Array, side: Array, weight: Array, frame_size: Array) -> tuple[Array, Array]:
    """Predict where objects of given sizes are, by Bayesian linear regression of the centre on the side.

    Under perspective an object's distance from the vanishing point is proportional to its size, and so is the scatter.
    The prior, alone when nothing is seen, puts small objects in the middle of the frame a little above half its height,
    where the horizon of a level camera is.

    Args:
        sides: `(m,)` sides to predict for, view pixels.
        center: `(n, 2)` centres of the objects that are seen, view pixels.
        side: `(n,)` their sides, view pixels.
        weight: `(n,)` how much each of them counts.
        frame_size: `(2,)` width and height of the view, pixels.

    Returns:
        Mean and standard deviation of the position, each `(m, 2)`, in view pixels.
    """
    design = np.stack([np.ones_like(side), side], axis=1)
    asked = np.stack([np.ones_like(sides), sides], axis=1)
    mean, deviation = np.empty((len(sides), 2)), np.empty((len(sides), 2))
    for axis in range(2):
        prior_mean = np.array([PRIOR_POSITION[axis] * frame_size[axis], 0.0])
        prior_precision = np.diag([(PRIOR_DEVIATION[axis] * frame_size[axis]) ** -2.0, PRIOR_SLOPE[axis] ** -2.0])
        information = weight / (1.0 + SCATTER[axis] * side) ** 2
        precision = prior_precision + (design * information[:, None]).T @ design
        covariance = np.linalg.inv(precision)
        line = covariance @ (prior_precision @ prior_mean + design.T @ (information * center[:, axis]))
        mean[:, axis] = np.clip(asked @ line, 0, frame_size[axis])
        spread = np.einsum("ij,jk,ik->i", asked, covariance, asked)
        deviation[:, axis] = np.sqrt(spread + (SCATTER[axis] * sides) ** 2)
    return mean, deviation
