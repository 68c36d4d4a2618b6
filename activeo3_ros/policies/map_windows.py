"""Which windows to zoom into, from maps of how many objects a zoom would newly find: greedily, each by what it adds.

A map says for each cell of the view how many objects with their centre there a crop of one magnification would find
that are not known yet. The gain of a window is the sum of the map of its magnification over it, so that all windows of
one size are compared at once by an integral image.
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
    regions: list[Region] = []
    while len(regions) < max_regions:
        gains = [_best_of_size(maps, view_size, size) for size in sizes]
        gain, box, size = max(gains, key=lambda each: each[0], default=(0.0, None, None))
        if box is None or size is None or gain < min_gain or gain <= 0:
            break
        regions.append(Region(box, LABEL, gain))
        maps = maps.without(maps.at(size.zoom) * shown_share(maps, view_size, box, size.zoom))
    return tuple(regions)


def shown_share(maps: GainMaps, view_size: tuple[int, int], box: Box, zoom: float) -> Array:
    """`(h, w)` share of each cell whose objects a window shows whole."""
    shares = []
    spans = (
        (box.x, box.right, view_size[0], maps.rates.shape[2]),
        (box.y, box.bottom, view_size[1], maps.rates.shape[1]),
    )
    for low, high, length, cells in spans:
        low, high = (float(each[0]) for each in _trusted(np.array([low]), np.array([high]), length, zoom))
        edges = np.arange(cells + 1) * maps.cell_px
        shares.append(np.clip((np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)) / maps.cell_px, 0, 1))
    return np.asarray(np.outer(shares[1], shares[0]))


def _best_of_size(
    maps: GainMaps, view_size: tuple[int, int], size: WindowSize
) -> tuple[float, Box | None, WindowSize | None]:
    """Gain and place of the best window of one size."""
    rates = maps.at(size.zoom)
    integral = np.zeros((rates.shape[0] + 1, rates.shape[1] + 1))
    integral[1:, 1:] = rates.cumsum(0).cumsum(1)
    starts, spans = [], []
    for side, length in zip((size.width, size.height), view_size, strict=True):
        last = length - side
        start = np.linspace(0, last, math.ceil(last / (STEP_CELLS * maps.cell_px)) + 1) if last > 0 else np.zeros(1)
        starts.append(start)
        spans.append(_trusted(start, start + side, length, size.zoom))
    (left, right), (top, bottom) = spans
    columns = _along(integral.T, right / maps.cell_px) - _along(integral.T, left / maps.cell_px)
    gains = _along(columns.T, bottom / maps.cell_px) - _along(columns.T, top / maps.cell_px)
    row, column = np.unravel_index(int(gains.argmax()), gains.shape)
    box = Box(float(starts[0][column]), float(starts[1][row]), size.width, size.height)
    return float(gains[row, column]), box, size


def _trusted(low: Array, high: Array, length: float, zoom: float) -> tuple[Array, Array]:
    """Where spans of windows show objects whole: a border is only one where the frame goes on."""
    margin = MARGIN_PX / zoom
    ends = np.where(high < length - 1e-6, high - margin, length + margin)
    return np.where(low > 1e-6, low + margin, low), np.maximum(low, ends)


def _along(table: Array, places: Array) -> Array:
    """`(n, m)` rows of an `(r, m)` table at `(n,)` fractional places, interpolated."""
    low = np.clip(np.floor(places).astype(np.intp), 0, len(table) - 2)
    share = np.clip(places - low, 0, 1)[:, None]
    return np.asarray((1 - share) * table[low] + share * table[low + 1])
