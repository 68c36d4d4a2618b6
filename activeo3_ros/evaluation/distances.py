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

"""Distances of objects in bins, as DTPQA has them (arXiv 2510.08352): how far does a model see?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

BINS_M = (5, 10, 20, 30, 40, 50)
"""Centres of the bins, metres; a distance belongs to the nearest one."""
BEYOND_M = 5.0
"""A distance so much beyond the last centre, metres, belongs to no bin."""
NEAR_M, FAR_M = 20, 30
"""Bins up to and from these, metres, are what the paper calls close and long range."""


def distance_bin(distance_m: float) -> int | None:
    """The centre of the bin of a distance, metres; None for one beyond all bins, or unknown (NaN)."""
    if math.isnan(distance_m) or distance_m >= BINS_M[-1] + BEYOND_M:
        return None
    return min(BINS_M, key=lambda centre: abs(centre - distance_m))


def by_distance(distances_m: Sequence[float]) -> Mapping[str, npt.NDArray[np.bool_]]:
    """Which of some values belong to each bin, and to the ranges close and long, by the end of a metric's name.

    Args:
        distances_m: Of each value, metres; NaN without one.

    Returns:
        Only those that have a value: "at 5 m", "to 20 m", "from 30 m", "beyond 55 m" and "without distance"; nothing
        where no value has a distance.
    """
    if all(map(math.isnan, distances_m)):
        return {}
    bins = [distance_bin(value) for value in distances_m]
    known = np.array([math.isfinite(value) for value in distances_m])
    masks = {f"at {centre} m": np.array([own == centre for own in bins]) for centre in BINS_M}
    masks[f"to {NEAR_M} m"] = np.array([own is not None and own <= NEAR_M for own in bins])
    masks[f"from {FAR_M} m"] = np.array([own is not None and own >= FAR_M for own in bins])
    masks[f"beyond {BINS_M[-1] + BEYOND_M:g} m"] = known & np.array([own is None for own in bins])
    masks["without distance"] = ~known
    return {name: mask for name, mask in masks.items() if mask.any()}
