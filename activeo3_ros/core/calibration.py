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

"""How far a detector can be believed, by the size at which it saw an object: what `activeo3 calibrate` measures.

A side is the square root of a box's area in pixels of the detector's input: the apparent size, after zooming. Policies
and the merging of views read what they know of a detector from here and hold no constant of one. How a policy searches
(neighbours, far objects, windows) and when two boxes are one object in two views are rules, not measurements, and stay
with the code that follows them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import InvalidInput

Array = npt.NDArray[np.float64]

SMALLEST_SIDE_PX = 0.25
"""Smaller sides count as this one."""
POSITIVE = ("half_found_side_px", "logits_per_doubling", "probability_per_score", "class_side_px", "legible_side_px")


@dataclass(frozen=True)
class Calibration:
    """What is known of one detector at one threshold. Values between the sides and scores given are interpolated.

    Attributes:
        sides_px: `(n,)` apparent sides, rising, pixels of the detector's input.
        found: `(n,)` probability that an object of that side is reported, 0 to 1.
        scores: `(m,)` scores, rising, 0 to 1.
        true_share: `n` rows of `m`: probability that a box of that side and score is an object, 0 to 1.
        jitter_px: `(n,)` standard deviation of an edge of a box, pixels of the detector's input.
        repeated_misses: Probability that a second view at the same magnification misses what the first one missed.
        measured: What it was measured on; "" for the stated defaults.
        threshold: Score from which an object counted as reported.
        half_found_side_px: Side at which the detector gives half of what it can give: objects found, with boxes that
            fit.
        logits_per_doubling: How fast that grows with each doubling of the side, in logits.
        probability_per_score: Probability that there is an object where the detector hints at one with a score below
            the threshold, for each unit of score.
        class_side_px: Below this side the detector tells that there is an object before it tells its class.
        legible_side_px: From this side on more resolution no longer makes a box more trustworthy.
        edge_tolerance_px: How far the edge of a small object's box may be off in a view of the same object.
        same_object_iou: Two boxes of one class in one view that overlap more are one object; 1 for a detector that
            gives each object once.
        same_object_any_class_iou: The same for boxes of different classes.
    """

    sides_px: tuple[float, ...]
    found: tuple[float, ...]
    scores: tuple[float, ...]
    true_share: tuple[tuple[float, ...], ...]
    jitter_px: tuple[float, ...]
    repeated_misses: float
    measured: str = ""
    threshold: float = 0.3
    half_found_side_px: float = 18.0
    logits_per_doubling: float = 1.4
    probability_per_score: float = 2.0
    class_side_px: float = 12.0
    legible_side_px: float = 32.0
    edge_tolerance_px: float = 2.0
    same_object_iou: float = 0.5
    same_object_any_class_iou: float = 0.7

    def __post_init__(self) -> None:
        count = len(self.sides_px)
        for name, values in (("found", self.found), ("jitter_px", self.jitter_px), ("true_share", self.true_share)):
            if len(values) != count:
                raise InvalidInput(f"{name} needs one entry for each of the {count} sides_px, got {len(values)}")
        for name, rising in (("sides_px", self.sides_px), ("scores", self.scores)):
            if not rising or not np.isfinite(rising).all() or (np.diff(rising) <= 0).any() or rising[0] < 0:
                raise InvalidInput(f"{name} must be rising numbers from 0 on, got {list(rising)}")
        for row in self.true_share:
            if len(row) != len(self.scores):
                raise InvalidInput(f"true_share needs {len(self.scores)} entries a row, one a score, got {len(row)}")
        shares = np.array([*self.found, self.repeated_misses, *(p for row in self.true_share for p in row)])
        if not ((shares >= 0) & (shares <= 1)).all():
            raise InvalidInput("found, true_share and repeated_misses must be from 0 to 1")
        if not (np.isfinite(self.jitter_px).all() and min(self.jitter_px) >= 0):
            raise InvalidInput(f"jitter_px must be at least 0, got {list(self.jitter_px)}")
        for name in POSITIVE:
            if not 0 < getattr(self, name) < np.inf:
                raise InvalidInput(f"{name} must be more than 0, got {getattr(self, name)!r}")
        if not 0 <= self.edge_tolerance_px < np.inf:
            raise InvalidInput(f"edge_tolerance_px must be at least 0, got {self.edge_tolerance_px!r}")
        for name in ("threshold", "same_object_iou", "same_object_any_class_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidInput(f"{name} must be from 0 to 1, got {getattr(self, name)!r}")

    def probability_found(self, sides_px: npt.ArrayLike) -> Array:
        """`(n,)` probabilities that objects of these `(n,)` apparent sides are reported."""
        return np.asarray(np.interp(log_side(sides_px), log_side(self.sides_px), self.found))

    def probability_true(self, scores: npt.ArrayLike, sides_px: npt.ArrayLike) -> Array:
        """`(n,)` probabilities that boxes with these `(n,)` scores and apparent sides are objects."""
        scores, sides = np.broadcast_arrays(np.asarray(scores, np.float64), log_side(sides_px))
        by_side = np.stack([np.interp(scores, self.scores, row) for row in self.true_share])
        position = np.interp(sides, log_side(self.sides_px), np.arange(len(self.sides_px)))
        low = np.floor(position).astype(np.intp)
        high = np.minimum(low + 1, len(self.sides_px) - 1)
        share = position - low
        below = np.take_along_axis(by_side, low[None], 0)[0]
        above = np.take_along_axis(by_side, high[None], 0)[0]
        return np.asarray(below * (1 - share) + above * share)

    def edge_jitter_px(self, sides_px: npt.ArrayLike) -> Array:
        """`(n,)` standard deviations of an edge of boxes with these `(n,)` apparent sides, detector pixels."""
        return np.asarray(np.interp(log_side(sides_px), log_side(self.sides_px), self.jitter_px))


def log_side(sides_px: npt.ArrayLike) -> Array:
    """`(n,)` binary logarithms of `(n,)` sides: sizes are compared by their ratio."""
    return np.asarray(np.log2(np.maximum(np.asarray(sides_px, np.float64), SMALLEST_SIDE_PX)))


DEFAULT = Calibration(
    sides_px=(4.0, 8.0, 11.0, 16.0, 24.0, 32.0, 64.0, 128.0),
    found=(0.02, 0.25, 0.5, 0.7, 0.8, 0.85, 0.9, 0.9),
    scores=(0.0, 0.1, 0.2, 0.3, 0.5, 1.0),
    true_share=((0.0, 0.2, 0.4, 0.6, 0.9, 1.0),) * 8,
    jitter_px=(1.0, 1.0, 1.0, 1.0, 1.2, 1.5, 3.0, 6.0),
    repeated_misses=0.79,
)
"""Stated defaults for a detector that was not calibrated: careful guesses, near what CenterNet does."""
