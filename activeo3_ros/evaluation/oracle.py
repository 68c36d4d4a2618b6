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

"""An oracle that knows the true boxes and no detector, for questions whose objects no detection names.

It is no bound for detection: `detector_oracle` is.
"""

from __future__ import annotations

import numpy as np

from ..core.budget import Budget
from ..core.frame import View, fit_within
from ..core.geometry import Box, Boxes
from ..core.query import Query
from ..core.results import Proposal, Region

LEGIBLE_SIDE_PX = 32.0
"""Side in a crop at which an object counts half as legible; legibility is logistic in the logarithm of the side."""
SLOPE = 2.0
"""Of that curve, a doubling of the side."""
MARGIN_SHARE = 0.2
"""Margin of a region around an object, as a share of the object's side."""
SHARES = (1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 8, 1 / 12, 1 / 16)
"""Sides of the candidate regions, as shares of the longer side of the view."""
MIN_GAIN = 1e-3


class Oracle:
    """Greedily takes the square region that adds most legibility over all objects. Uses no pixels."""

    def __init__(self) -> None:
        self.true_boxes: Boxes = np.empty((0, 4))
        """`(n, 4)` true boxes of the next frame, in source pixels."""

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return fit_within(width, height, max_pixels)

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        boxes = view.from_source(self.true_boxes)
        if not len(boxes) or not budget.max_regions:
            return Proposal(used_view=False)
        sides = np.sqrt(boxes[:, 2] * boxes[:, 3])
        windows = np.concatenate([_windows_at(boxes, share * max(view.width, view.height), view) for share in SHARES])
        # A crop may have as many pixels as the budget says, and each window is shown at that size.
        zooms = np.sqrt(budget.crop_pixels / (windows[:, 2] * windows[:, 3]))
        margin = MARGIN_SHARE * sides[None]
        inside = (
            (boxes[None, :, 0] - margin >= windows[:, 0, None])
            & (boxes[None, :, 1] - margin >= windows[:, 1, None])
            & (boxes[None, :, 0] + boxes[None, :, 2] + margin <= windows[:, 0, None] + windows[:, 2, None])
            & (boxes[None, :, 1] + boxes[None, :, 3] + margin <= windows[:, 1, None] + windows[:, 3, None])
        )
        closer = np.where(inside, _legibility(sides[None] * zooms[:, None]), 0.0)
        seen = _legibility(sides)
        regions: list[Region] = []
        for _ in range(budget.max_regions):
            gains = np.maximum(0.0, closer - seen).sum(axis=1)
            best = int(np.argmax(gains))
            if gains[best] <= MIN_GAIN:
                break
            regions.append(Region(Box(*windows[best].tolist()), "true objects", float(gains[best])))
            seen = np.maximum(seen, closer[best])
        return Proposal(tuple(regions), used_view=False)


def _windows_at(boxes: Boxes, side: float, view: View) -> Boxes:
    """Windows of one size, inside the view, with each object in the middle and at each corner."""
    width, height = min(side, view.width), min(side, view.height)
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    offsets = np.array([[dx * width, dy * height] for dx in (0.2, 0.5, 0.8) for dy in (0.2, 0.5, 0.8)])
    corners = (centres[:, None] - offsets[None]).reshape(-1, 2)
    corners = np.clip(corners, 0, [view.width - width, view.height - height])
    return np.concatenate([corners, np.broadcast_to([width, height], corners.shape)], axis=1)


def _legibility(sides: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Boxes:
    doublings = np.log2(np.maximum(sides, 1e-3) / LEGIBLE_SIDE_PX)
    return np.asarray(1.0 / (1.0 + np.exp(-SLOPE * doublings)), np.float64)
