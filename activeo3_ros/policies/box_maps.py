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

"""What a detector makes of the small view, drawn as maps: the input of a head that predicts where zooming pays.

A box of the classes that are asked for is drawn apart from one of any other class, and boxes of different sizes in
channels of their own, each filled with its score. So a head learns from boxes of any detector and for any query.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..core.results import DetectedBoxes

Maps = npt.NDArray[np.float32]

MAP_CELL_PX = 8
"""View pixels along a side of a cell."""
SIZE_LIMITS_PX = (8.0, 16.0, 32.0)
"""Sides, in view pixels, at which the next channel begins."""
SIZES = len(SIZE_LIMITS_PX) + 1
POINTS, REPORTED, ACROSS, DOWN, ASKED = range(2 * SIZES, 2 * SIZES + 5)
"""Channels after those of the boxes: scores summed at centres, what the view reports, place, and share of classes."""
CHANNELS = 2 * SIZES + 5


def box_maps(
    detected: DetectedBoxes, asked: Sequence[int], classes: int, size: tuple[int, int], threshold: float
) -> Maps:
    """Draw what a detector gave for a view.

    Args:
        detected: In view pixels, from a low threshold on.
        asked: Ids of the classes that are asked for.
        classes: How many classes the detector has.
        size: Width and height of the view, pixels.
        threshold: Score from which the view itself reports an object.

    Returns:
        `(CHANNELS, h, w)` float32, a cell for each `MAP_CELL_PX` of the view.
    """
    width, height = (math.ceil(side / MAP_CELL_PX) for side in size)
    maps = np.zeros((CHANNELS, height, width), np.float32)
    boxes, scores = detected.boxes / MAP_CELL_PX, detected.scores
    low = np.floor(boxes[:, :2]).astype(np.intp)
    high = np.maximum(low + 1, np.ceil(boxes[:, :2] + boxes[:, 2:]).astype(np.intp))
    center = np.floor(boxes[:, :2] + boxes[:, 2:] / 2).astype(np.intp).clip(0, [width - 1, height - 1])
    sizes = np.searchsorted(SIZE_LIMITS_PX, np.sqrt(detected.boxes[:, 2] * detected.boxes[:, 3]))
    is_asked = np.isin(detected.class_ids, asked)
    for index in np.argsort(scores, kind="stable"):
        (x0, y0), (x1, y1) = low[index], high[index]
        # In the order of their scores, so that the best one stays.
        maps[sizes[index] + (0 if is_asked[index] else SIZES), y0:y1, x0:x1] = scores[index]
        if is_asked[index]:
            maps[POINTS, center[index, 1], center[index, 0]] += scores[index]
            if scores[index] >= threshold:
                maps[REPORTED, y0:y1, x0:x1] = 1
    maps[ACROSS] = np.linspace(-1, 1, width, dtype=np.float32)[None]
    maps[DOWN] = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    maps[ASKED] = len(set(asked)) / max(1, classes)
    return maps
