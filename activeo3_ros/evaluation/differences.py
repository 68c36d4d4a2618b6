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

"""Paired differences: two methods on the same bootstrap samples of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from .metrics import interval
from .scoring import Estimate, MethodScores


@dataclass(frozen=True)
class Difference:
    """By how much method `a` exceeds method `b` in one metric; a, b: their ids."""

    a: str
    b: str
    metric: str
    estimate: Estimate

    @property
    def has_interval(self) -> bool:
        """Whether the bootstrap has an interval."""
        return math.isfinite(self.estimate.low) and math.isfinite(self.estimate.high)

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.estimate.low > 0 or self.estimate.high < 0


def difference(a: MethodScores, b: MethodScores, metric: str) -> Difference:
    """The paired difference a - b: both are resampled over the same images."""
    change = Estimate(
        a.quality[metric].value - b.quality[metric].value, *interval(a.replicates[metric] - b.replicates[metric])
    )
    return Difference(a.method.id, b.method.id, metric, change)


def paired_differences(scores: Sequence[MethodScores], metric: str) -> list[Difference]:
    """Compare the first preset, at each number of regions, with each other method.

    Where any method zooms, those without regions are only compared with. A method that was run with several budgets is
    compared at the same number of regions and at the nearest number of pixels: tiles and crops of another shape cost
    less for the same number.

    Args:
        scores: Scores of all methods, the first preset first.
        metric: Name of the metric, as in `MethodScores.quality`.

    Returns:
        The differences in the order of the scores, none with the oracle.
    """
    first = scores[0].method.name
    judged = [s for s in scores if metric in s.quality]
    zooms = any(s.method.regions != 0 for s in scores)
    differences = []
    for own in judged:
        if own.method.name != first or (zooms and own.method.regions == 0):
            continue
        rivals: dict[str, list[MethodScores]] = {}
        for other in judged:
            if other.method.name != first and not other.method.oracle:
                rivals.setdefault(other.method.name, []).append(other)
        for budgets in rivals.values():
            nearest = min(budgets, key=partial(_pixels_apart, own))
            same = [s for s in budgets if s.method.regions == own.method.regions]
            chosen = {s.method.id: s for s in (*same, nearest)}
            differences += [difference(own, rival, metric) for rival in chosen.values()]
    return differences


def _pixels_apart(a: MethodScores, b: MethodScores) -> float:
    return abs(a.cost["pixels"] - b.cost["pixels"])
