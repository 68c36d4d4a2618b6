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

"""Which windows to zoom into: greedily those from which most possible objects are expected to be found.

Candidates are square windows around the possible objects at several scales, from half the view down: a pyramid. The
gain of a window are the objects that it shows large enough to be found, and that those chosen before do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.geometry import Box
from ..core.results import Region
from .possible_objects import REASONS, Array, PossibleObjects

SCALE_RATIO = 1.3
"""Most by which the windows of one scale are larger than those of the next."""
PLACES_PER_WINDOW = 5
"""Windows of one scale lie on a grid with this many places along a side."""
MIN_GAIN = 1e-3
"""A window from which fewer objects than this are expected is not proposed."""
MARGIN_SHARE = 0.15
"""What a window should show around an object, as a share of its width and height."""


@dataclass(frozen=True, eq=False)
class WindowScale:
    """The candidate windows of one size, a level of the pyramid.

    Attributes:
        windows: `(n, 4)` x, y, width, height in view pixels.
        zoom: How much a crop of them magnifies the view.
        shows: `(n, m)` float32, 1 where a window shows all of a possible object, else 0.
    """

    windows: Array
    zoom: float
    shows: npt.NDArray[np.float32]


def detectability(side: Array, half_side: float, logits_per_doubling: float) -> Array:
    """Probability that the detector finds an object: logistic in the logarithm of its size.

    Args:
        side: `(n,)` sides of the objects in pixels of the detector's input.
        half_side: The side from which half of them are found.
        logits_per_doubling: How fast that improves with each doubling of the side.
    """
    doublings = np.log2(np.maximum(side, 1e-3) / half_side)
    return np.asarray(1.0 / (1.0 + np.exp(-logits_per_doubling * doublings)))


def window_pyramid(
    possible: PossibleObjects, view_size: tuple[int, int], crop_side: int, smallest_side: float
) -> Iterator[WindowScale]:
    """Square windows around the possible objects, from half the view down to the smallest that is worth a zoom.

    Args:
        possible: The objects, in view pixels.
        view_size: Width and height of the view, pixels.
        crop_side: Longer side of the crop that a window becomes, pixels.
        smallest_side: Of a window, view pixels; beyond it there is nothing more to see.
    """
    frame = np.array(view_size, np.float64)
    largest_side = max(view_size) / 2
    smallest_side = min(largest_side, smallest_side)
    # A margin that would lie outside the frame cannot be shown, and nothing is cut off there.
    reach = (0.5 + MARGIN_SHARE) * possible.size
    start = np.maximum(possible.center - reach, 0.0).astype(np.float32)
    end = np.minimum(possible.center + reach, frame).astype(np.float32)
    steps = max(1, math.ceil(math.log(largest_side / smallest_side, SCALE_RATIO)))
    for side in np.geomspace(largest_side, smallest_side, steps + 1):
        size = np.minimum(side, frame)
        spacing = side / PLACES_PER_WINDOW
        places = np.round(possible.center / spacing).astype(np.intp)
        first = places.min(axis=0)
        is_used = np.zeros(places.max(axis=0) - first + 1, bool)
        is_used[tuple((places - first).T)] = True
        column, row = np.nonzero(is_used)
        # Windows of one scale share few columns and rows: each is compared with the objects once.
        lows = [
            np.clip((first[axis] + np.arange(is_used.shape[axis])) * spacing - size[axis] / 2, 0, limit)
            for axis, limit in enumerate(frame - size)
        ]
        beside, between = (
            (start[:, axis] >= low[:, None]) & (end[:, axis] <= (low + size[axis])[:, None])
            for axis, low in enumerate(lows)
        )
        shows = beside[column]
        shows &= between[row]
        windows = np.stack([lows[0][column], lows[1][row], *(np.full(len(row), each) for each in size)], axis=1)
        yield WindowScale(windows, float(crop_side / size.max()), shows.astype(np.float32))


def best_windows(
    possible: PossibleObjects,
    pyramid: list[WindowScale],
    half_side: float,
    logits_per_doubling: float,
    max_regions: int,
    found_before: Array | float = 0.0,
) -> tuple[Region, ...]:
    """Choose, one after the other, the window that adds most to what the ones before will find.

    Args:
        possible: The objects.
        pyramid: The candidate windows.
        half_side: See `detectability`.
        logits_per_doubling: See `detectability`.
        max_regions: Windows to choose at most.
        found_before: `(n,)` probability that an earlier frame's zoom has found each object, were it there.

    Returns:
        Regions in view pixels, best first; score: objects expected to be found, label: why most of them are expected.
    """
    # What one size fails to show, the same size again fails to show too: only a larger one adds to what was found.
    found = np.maximum(detectability(possible.side, half_side, logits_per_doubling), found_before)
    found_at = [detectability(possible.side * scale.zoom, half_side, logits_per_doubling) for scale in pyramid]
    regions: list[Region] = []
    for _ in range(max_regions):
        worth = [possible.probability * np.maximum(0.0, at_scale - found) for at_scale in found_at]
        gains = [scale.shows @ gain.astype(np.float32) for scale, gain in zip(pyramid, worth, strict=True)]
        best = max(range(len(pyramid)), key=lambda level: gains[level].max(initial=0.0))
        window = int(np.argmax(gains[best]))
        if gains[best][window] <= MIN_GAIN:
            break
        shown = pyramid[best].shows[window] > 0
        reason = np.bincount(possible.reason[shown], weights=worth[best][shown], minlength=len(REASONS))
        box = Box(*pyramid[best].windows[window].tolist())
        regions.append(Region(box, REASONS[int(np.argmax(reason))], float(gains[best][window])))
        found = np.where(shown, np.maximum(found, found_at[best]), found)
    return tuple(regions)
