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

"""What memory changes in where to look: no second look at what is certain, one where existence is not, or where nobody
has looked for long.

`possible_objects` says what one view hints at; here that is compared with what earlier frames have shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..core.expectation import ExpectedObject, PastZoom
from ..core.geometry import as_array, iou, to_corners
from .possible_objects import EXPECTED, Array, PossibleObjects
from .windows import detectability

SAME_PLACE_IOU = 0.3
"""A hint that overlaps an expected object more than this is that object."""
FADING_S = 1.0
"""After this time a zoom that found nothing tells 1/e of what it told: objects come into view."""


def doubt(existence: Array) -> Array:
    """`(n,)` how much a look at each object tells: 0 where its existence is certain, 1 where it is open."""
    return np.asarray(4 * existence * (1 - existence))


def compared_with_memory(hints: PossibleObjects, expected: Sequence[ExpectedObject]) -> PossibleObjects:
    """Hints, each worth what it can add to what is known, and the expected objects that the view does not hint at.

    Args:
        hints: What the view hints at.
        expected: What should be in the view.
    """
    if not expected:
        return hints
    boxes = as_array(each.box for each in expected)
    existence = np.array([each.existence for each in expected])
    overlap = iou(np.concatenate([hints.center - hints.size / 2, hints.size], axis=1), boxes)
    worth = doubt(existence)
    nearest = overlap.argmax(axis=1)
    is_known = overlap.max(axis=1, initial=0.0) >= SAME_PLACE_IOU
    probability = np.where(is_known, np.minimum(hints.probability, worth[nearest]), hints.probability)
    unseen = overlap.max(axis=0, initial=0.0) < SAME_PLACE_IOU
    kept = replace(hints, probability=probability)
    return PossibleObjects.joined([kept, PossibleObjects.in_boxes(boxes[unseen], worth[unseen], EXPECTED)])


def found_before(
    possible: PossibleObjects, zooms: Sequence[PastZoom], half_side: float, logits_per_doubling: float
) -> Array:
    """`(n,)` probability that a zoom of an earlier frame has found each possible object, were it there.

    Args:
        possible: The objects.
        zooms: Of earlier frames, in pixels of the same view.
        half_side: See `windows.detectability`.
        logits_per_doubling: See `windows.detectability`.
    """
    if not zooms:
        return np.zeros(len(possible.size))
    corners = to_corners(as_array(each.window for each in zooms))
    x, y = possible.center[:, :1], possible.center[:, 1:]
    shown = (x >= corners[:, 0]) & (y >= corners[:, 1]) & (x <= corners[:, 2]) & (y <= corners[:, 3])
    magnified = possible.side[:, None] * np.array([each.zoom for each in zooms])
    fresh = np.exp(-np.array([each.age_s for each in zooms]) / FADING_S)
    found = np.where(shown, detectability(magnified, half_side, logits_per_doubling) * fresh, 0.0).max(axis=1)
    return np.asarray(np.where(possible.reason == EXPECTED, 0.0, found))
