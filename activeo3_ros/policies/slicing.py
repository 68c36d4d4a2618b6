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

"""Exhaustive slicing, the usual alternative to choosing regions: SAHI's slices of fixed size, an adaptive layout."""

from __future__ import annotations

from typing import Annotated

from ..core.budget import MAX_REGIONS, Budget
from ..core.errors import InvalidInput
from ..core.frame import View, fit_within
from ..core.geometry import Box
from ..core.query import Query
from ..core.results import Proposal, Region
from ..settings import validated, within


class SahiSlices:
    """Slices of a fixed size in source pixels, as SAHI (Akyon et al. 2022, arXiv 2202.06934) lays them out.

    The last row and column are shifted inwards instead of being cut. The number of slices follows from the size of the
    frame; the budget must allow it, since a frame of which a part was left out would not be SAHI's result.
    """

    concurrent = True

    @validated
    def __init__(
        self, slice_px: Annotated[int, within(32, 8192)] = 512, overlap: Annotated[float, within(0, 0.9)] = 0.2
    ) -> None:
        """Choose the slices; the defaults are those of SAHI's `predict`.

        Args:
            slice_px: Side of a slice in source pixels.
            overlap: Share of a slice's side that it has in common with its neighbour.
        """
        self.slice_px = slice_px
        self.overlap = overlap

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return fit_within(width, height, max_pixels)

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        """Propose every slice of the frame.

        Raises:
            InvalidInput: If there are more slices than the budget has regions.
        """
        if budget.max_regions == 0:
            return Proposal(used_view=False)
        slices = self.slices(*view.source_size)
        if len(slices) > budget.max_regions:
            raise InvalidInput(
                f"a frame of {view.source_size[0]} x {view.source_size[1]} has {len(slices)} slices of "
                f"{self.slice_px} px, the budget {budget.max_regions} regions; raise max_regions (at most "
                f"{MAX_REGIONS}) or slice_px"
            )
        boxes = view.from_source([box.as_tuple() for box in slices])
        return Proposal(tuple(Region(Box(*row.tolist()), "slice") for row in boxes), used_view=False)

    def slices(self, width: int, height: int) -> list[Box]:
        """All slices of a frame of `width` x `height` source pixels, in source pixels, row by row."""
        return [
            Box(float(x), float(y), float(min(self.slice_px, width)), float(min(self.slice_px, height)))
            for y in self._starts(height)
            for x in self._starts(width)
        ]

    def _starts(self, length: int) -> list[int]:
        side = min(self.slice_px, length)
        step = max(1, side - int(self.overlap * side))
        starts = [0]
        while starts[-1] + side < length:
            starts.append(min(starts[-1] + step, length - side))
        return starts


class AdaptiveSlices:
    """A number of slices that follows from the resolution, as ASAHI (arXiv 2604.19233) has it: 3 x 2, or 4 x 3."""

    concurrent = True

    @validated
    def __init__(
        self,
        overlap: Annotated[float, within(0, 0.9)] = 0.15,
        high_resolution_px: Annotated[int, within(64, 100_000)] = 1819,
    ) -> None:
        """Choose the layout.

        Args:
            overlap: Share of a slice's side that it has in common with its neighbour.
            high_resolution_px: Frames whose longer side has at least so many pixels get 12 slices instead of 6; the
                default is four overlapping slices of 512 px.
        """
        self.overlap = overlap
        self.high_resolution_px = high_resolution_px

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return fit_within(width, height, max_pixels)

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        """Propose the 6 or 12 slices, or as many of them as the budget has regions, row by row."""
        longer, shorter = (4, 3) if max(view.source_size) >= self.high_resolution_px else (3, 2)
        columns, rows = (longer, shorter) if view.width >= view.height else (shorter, longer)
        boxes = tiles(view.width, view.height, columns, rows, self.overlap)
        return Proposal(tuple(Region(box, "slice") for box in boxes[: budget.max_regions]), used_view=False)


def tiles(width: float, height: float, columns: int, rows: int, overlap: float) -> list[Box]:
    """Equal tiles that cover an area, row by row.

    Args:
        width: Width of the area; any unit, which the boxes then have.
        height: Height of the area.
        columns: Tiles in a row, at least 1.
        rows: Rows, at least 1.
        overlap: Share of a tile's side that it has in common with its neighbour.

    Returns:
        `columns * rows` boxes inside the area.
    """
    wide, high = tile_side(width, columns, overlap), tile_side(height, rows, overlap)
    return [
        Box(column * wide * (1 - overlap), row * high * (1 - overlap), wide, high)
        for row in range(rows)
        for column in range(columns)
    ]


def tile_side(length: float, count: int, overlap: float) -> float:
    """Side of each of `count` equal tiles that cover a length with the overlap between neighbours."""
    return length / (count - (count - 1) * overlap)
