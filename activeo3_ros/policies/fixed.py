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

"""Fixed policies, which choose regions without seeing the image: the baselines for every other policy."""

from __future__ import annotations

import math
import zlib
from typing import Annotated

import numpy as np

from ..core.budget import Budget
from ..core.frame import View, fit_within
from ..core.geometry import Box
from ..core.query import Query
from ..core.results import Proposal, Region
from ..settings import validated, within
from .slicing import tile_side


class _FixedPolicy:
    """Base of policies that need no pixels."""

    concurrent = True

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return fit_within(width, height, max_pixels)


class FullFrame(_FixedPolicy):
    """Never zooms: the task model sees the whole frame once."""

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        return Proposal(used_view=False)


class CentreCrop(_FixedPolicy):
    """Zooms into the centre, each region half as wide as the one before."""

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        regions = []
        for step in range(1, budget.max_regions + 1):
            width, height = view.width / 2**step, view.height / 2**step
            if min(width, height) < 1:
                break
            box = Box((view.width - width) / 2, (view.height - height) / 2, width, height)
            regions.append(Region(box, f"centre 1/{2**step}"))
        return Proposal(tuple(regions), used_view=False)


class Grid(_FixedPolicy):
    """Slices the whole frame into as many overlapping tiles as the budget has regions, as near to square as they go."""

    @validated
    def __init__(self, overlap: Annotated[float, within(0, 0.9)] = 0.25) -> None:
        """Create the policy.

        Args:
            overlap: Share of a tile's side that it has in common with its neighbour.
        """
        self.overlap = overlap

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        if budget.max_regions < 2:
            return Proposal(used_view=False)
        layouts = [
            (columns, rows) for columns in range(1, budget.max_regions + 1) for rows in [budget.max_regions // columns]
        ]
        columns, rows = min(
            layouts,
            key=lambda layout: max(
                tile_side(view.width, layout[0], self.overlap), tile_side(view.height, layout[1], self.overlap)
            ),
        )
        width, height = tile_side(view.width, columns, self.overlap), tile_side(view.height, rows, self.overlap)
        regions = [
            Region(Box(x, y, width, height), f"tile {column},{row}")
            for row, y in enumerate(np.linspace(0, view.height - height, rows).tolist())
            for column, x in enumerate(np.linspace(0, view.width - width, columns).tolist())
        ]
        return Proposal(tuple(regions), used_view=False)


class Random(_FixedPolicy):
    """Square regions at random places, 1/6 to 1/2 of the longer side wide; the same frame always gets the same ones."""

    @validated
    def __init__(self, seed: Annotated[int, within(0)] = 0) -> None:
        """Create the policy.

        Args:
            seed: Of the random numbers; the same seed and frame give the same regions.
        """
        self.seed = seed

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        generator = np.random.default_rng([self.seed, zlib.crc32(view.image.tobytes())])
        regions = []
        for _ in range(budget.max_regions):
            share = math.exp(generator.uniform(math.log(1 / 6), math.log(1 / 2)))
            side = share * max(view.width, view.height)
            width, height = min(side, view.width), min(side, view.height)
            x, y = generator.uniform(0, view.width - width), generator.uniform(0, view.height - height)
            regions.append(Region(Box(x, y, width, height), "random"))
        return Proposal(tuple(regions), used_view=False)
