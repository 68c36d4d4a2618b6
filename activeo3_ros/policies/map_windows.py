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

"""Which windows to zoom into, from maps of how many objects a zoom would newly find: greedily, each by what it adds.

A map says for each cell of the view how many objects with their centre there a crop of one magnification would find
that are not known yet. The gain of a window is the sum of the map of its magnification over it: a product of the map
with the share of each column and of each row that the window shows, so that all windows of one size are compared by two
products of matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.geometry import Box
from ..core.results import Region

Array = npt.NDArray[np.float64]

STEP_CELLS = 0.5
"""Distance between neighbouring windows of one size, in cells."""
MARGIN_PX = 12.0
"""Crop pixels at a window's border where an object's centre does not count: the border cuts what is there."""
SIZE_RATIO = 1.2
"""Most by which the windows of one size are larger than those of the next."""
LABEL = "expected objects"


@dataclass(frozen=True)
class GainMaps:
    """How many objects a zoom would newly find.

    Attributes:
        zooms: Magnifications against the view, rising.
        rates: `(n, h, w)`, one map for each of them: expected objects with their centre in each cell.
        cell_px: View pixels along a side of a cell.
    """

    zooms: tuple[float, ...]
    rates: Array
    cell_px: float

    def at(self, zoom: float) -> Array:
        """`(h, w)` map at any magnification: interpolated by its logarithm, none at 1, the last one beyond it."""
        known = np.log(np.array([1.0, *self.zooms]))
        place = float(np.interp(math.log(max(1.0, zoom)), known, np.arange(len(known))))
        low = math.floor(place)
        share = place - low
        maps = [np.zeros_like(self.rates[0]), *self.rates, self.rates[-1]]
        return np.asarray((1 - share) * maps[low] + share * maps[low + 1])

    def without(self, found: Array) -> GainMaps:
        """The maps after `(h, w)` objects were found: what one magnification finds, the others would have found too."""
        return GainMaps(self.zooms, np.maximum(0.0, self.rates - found), self.cell_px)


@dataclass(frozen=True)
class WindowSize:
    """Width and height of a window in view pixels, and how much its crop magnifies the view."""

    width: float
    height: float
    zoom: float


def window_sizes(
    view_size: tuple[int, int], crop_size: tuple[int, int], smallest_zoom: float, largest_zoom: float
) -> list[WindowSize]:
    """The windows whose crops fill the detector's input, in steps of their size.

    Args:
        view_size: Width and height of the view, pixels.
        crop_size: Width and height of the largest crop, pixels.
        smallest_zoom: Magnification against the view of the largest window.
        largest_zoom: Of the smallest; no less than the other is used.
    """
    largest_zoom = max(smallest_zoom, largest_zoom)
    steps = math.ceil(math.log(largest_zoom / smallest_zoom, SIZE_RATIO) - 1e-9)
    sizes = []
    for zoom in np.geomspace(smallest_zoom, largest_zoom, steps + 1).tolist():
        width, height = (min(crop / zoom, side) for crop, side in zip(crop_size, view_size, strict=True))
        # A window that the frame limits along both axes is shown larger than that.
        sizes.append(WindowSize(width, height, min(crop_size[0] / width, crop_size[1] / height)))
    return sizes


def best_map_windows(
    maps: GainMaps, view_size: tuple[int, int], sizes: Sequence[WindowSize], max_regions: int, min_gain: float
) -> tuple[Region, ...]:
    """Choose, one after the other, the window that adds most to what the ones before will find.

    Args:
        maps: Where zooming pays.
        view_size: Width and height of the view, pixels.
        sizes: Sizes of the windows to compare.
        max_regions: Windows to choose at most.
        min_gain: A window from which fewer objects are expected is not proposed.

    Returns:
        Regions in view pixels, best first, `score` the objects that each adds; none where nothing is worth a look.
    """
    placements = [Placements.of(maps, view_size, size) for size in sizes]
    regions: list[Region] = []
    while placements and len(regions) < max_regions:
        gain, box, each = max((each.best(maps) for each in placements), key=lambda best: best[0])
        if gain < min_gain or gain <= 0:
            break
        regions.append(Region(box, LABEL, gain))
        maps = maps.without(maps.at(each.size.zoom) * each.shown(box))
    return tuple(regions)


def map_windows(
    maps: GainMaps,
    view_size: tuple[int, int],
    crop_size: tuple[int, int],
    largest_zoom: float,
    max_regions: int,
    min_gain: float,
) -> tuple[Region, ...]:
    """Choose windows as `best_map_windows`, of every magnification that some maps have.

    Args:
        maps: Where zooming pays.
        view_size: Width and height of the view, pixels.
        crop_size: Width and height of a crop, pixels.
        largest_zoom: Magnification against the view beyond which there is nothing more to see.
        max_regions: Windows to choose at most.
        min_gain: A window from which fewer objects are expected is not proposed.
    """
    sizes = window_sizes(view_size, crop_size, maps.zooms[0], min(maps.zooms[-1], largest_zoom))
    return best_map_windows(maps, view_size, sizes, max_regions, min_gain)


def shown_share(maps: GainMaps, view_size: tuple[int, int], box: Box, zoom: float) -> Array:
    """`(h, w)` share of each cell whose objects a window shows whole."""
    rows, columns = maps.rates.shape[1:]
    across = _shares(np.array([box.x]), box.width, view_size[0], zoom, columns, maps.cell_px)
    down = _shares(np.array([box.y]), box.height, view_size[1], zoom, rows, maps.cell_px)
    return np.asarray(np.outer(down[0], across[0]))


@dataclass(frozen=True, eq=False)
class Placements:
    """Where the windows of one size may lie.

    Attributes:
        size: Of the windows.
        left: `(n,)` their left borders, view pixels.
        top: `(m,)` their upper borders.
        across: `(n, w)` share of each column of cells that they show.
        down: `(m, h)` share of each row.
    """

    size: WindowSize
    left: Array
    top: Array
    across: Array
    down: Array

    @classmethod
    def of(cls, maps: GainMaps, view_size: tuple[int, int], size: WindowSize) -> Placements:
        """All places, `STEP_CELLS` apart."""
        starts, shares = [], []
        rows, columns = maps.rates.shape[1:]
        for side, length, cells in zip((size.width, size.height), view_size, (columns, rows), strict=True):
            last = length - side
            start = np.linspace(0, last, math.ceil(last / (STEP_CELLS * maps.cell_px)) + 1) if last > 0 else np.zeros(1)
            starts.append(start)
            shares.append(_shares(start, side, length, size.zoom, cells, maps.cell_px))
        return cls(size, *starts, *shares)

    def best(self, maps: GainMaps) -> tuple[float, Box, Placements]:
        """Gain and place of the best window, and this."""
        gains = self.down @ maps.at(self.size.zoom) @ self.across.T
        row, column = np.unravel_index(int(gains.argmax()), gains.shape)
        return float(gains[row, column]), self.box(int(row), int(column)), self

    def box(self, row: int, column: int) -> Box:
        """One of the windows."""
        return Box(float(self.left[column]), float(self.top[row]), self.size.width, self.size.height)

    def shown(self, box: Box) -> Array:
        """`(h, w)` share of each cell that one of the windows shows."""
        column, row = int(np.searchsorted(self.left, box.x)), int(np.searchsorted(self.top, box.y))
        return np.asarray(np.outer(self.down[row], self.across[column]))


def _shares(low: Array, side: float, length: float, zoom: float, cells: int, cell_px: float) -> Array:
    """`(n, cells)` share of each cell, along one axis, whose objects windows from `(n,)` places on show whole."""
    low, high = _trusted(low, low + side, length, zoom)
    edges = np.arange(cells + 1) * cell_px
    low_edges, high_edges = np.maximum(edges[None, :-1], low[:, None]), np.minimum(edges[None, 1:], high[:, None])
    return np.asarray(np.clip((high_edges - low_edges) / cell_px, 0, 1))


def _trusted(low: Array, high: Array, length: float, zoom: float) -> tuple[Array, Array]:
    """Where spans of windows show objects whole: a border is only one where the frame goes on."""
    margin = MARGIN_PX / zoom
    ends = np.where(high < length - 1e-6, high - margin, length + margin)
    return np.where(low > 1e-6, low + margin, low), np.maximum(low, ends)
