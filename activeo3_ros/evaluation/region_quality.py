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

"""Quality of a policy's regions, independent of the task model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.geometry import Boxes, iou, mask_of, share_inside

COVERED_SHARE = 0.5
"""An object is covered if at least this share of its box lies in one region."""


@dataclass(frozen=True)
class RegionQuality:
    """Quality of the regions of one frame, NaN where there is nothing to measure.

    Attributes:
        covered: Number of objects that lie in a region.
        objects: Number of objects.
        purity: Share of the regions' pixels that lie on objects.
        overlap: Mean IoU of two regions.
    """

    covered: int
    objects: int
    purity: float
    overlap: float


def region_quality(regions: npt.ArrayLike, objects: npt.ArrayLike) -> RegionQuality:
    """Measure the regions of one frame.

    Args:
        regions: `(k, 4)` boxes `x, y, width, height` in source pixels.
        objects: `(n, 4)` true boxes in source pixels.

    Returns:
        Their coverage, purity and overlap.
    """
    regions = np.asarray(regions, np.float64).reshape(-1, 4)
    objects = np.asarray(objects, np.float64).reshape(-1, 4)
    inside = share_inside(objects, regions)
    covered = int((inside.max(axis=1) >= COVERED_SHARE).sum()) if inside.size else 0
    pairs = iou(regions, regions)[np.triu_indices(len(regions), 1)]
    purity = float(np.mean([_share_on_objects(region, objects) for region in regions])) if len(regions) else math.nan
    return RegionQuality(covered, len(objects), purity, float(pairs.mean()) if pairs.size else math.nan)


def _share_on_objects(region: Boxes, objects: Boxes) -> float:
    """Share of the pixels of a region that lie in any object; objects may overlap."""
    x, y, width, height = region.tolist()
    return float(mask_of(objects - [x, y, 0, 0], max(1, round(width)), max(1, round(height))).mean())
