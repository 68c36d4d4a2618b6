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

"""Which objects of the paper's data sets count (arXiv 2505.21457): one rule for the benchmarks and for training data.

A sample of LVIS is one category in one image. The paper leaves open what follows here: a category counts in an image
only where it is annotated exhaustively, since what is found there and not annotated would be false; the area is the
annotated one, that of the mask, and the box's only where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SMALL_AREA_PX2 = 100.0
"""LVIS-small: an instance below this area, in square pixels of the image."""
DENSE_INSTANCES = 15
"""LVIS-dense: more instances than this."""
IGNORED_NAMES = ("ignore", "other", "others")
"""Categories of SODA whose areas count neither way."""

Entry = Mapping[str, Any]


def small_instances(image: Entry, category: Entry, instances: Sequence[Entry]) -> list[Entry]:
    """The instances below `SMALL_AREA_PX2`.

    Args:
        image: Entry of the image, perhaps with `not_exhaustive_category_ids`.
        category: Entry of the category.
        instances: The annotations of the category in the image.

    Returns:
        Those that fit the rule; none where the category is not annotated exhaustively.
    """
    return [row for row in _judged(image, category, instances) if _area(row) < SMALL_AREA_PX2]


def dense_instances(image: Entry, category: Entry, instances: Sequence[Entry]) -> list[Entry]:
    """All instances, if there are more than `DENSE_INSTANCES`; arguments and result as of `small_instances`."""
    judged = _judged(image, category, instances)
    return judged if len(judged) > DENSE_INSTANCES else []


def counted_instances(image: Entry, category: Entry, instances: Sequence[Entry]) -> list[Entry]:
    """All instances of SODA that are not to be ignored; arguments and result as of `small_instances`."""
    if str(category.get("name")).strip().lower() in IGNORED_NAMES:
        return []
    return [row for row in instances if not row.get("ignore")]


def _judged(image: Entry, category: Entry, instances: Sequence[Entry]) -> list[Entry]:
    left_out = map(str, image.get("not_exhaustive_category_ids") or ())
    return [] if str(category["id"]) in left_out else [row for row in instances if not row.get("iscrowd")]


def _area(row: Entry) -> float:
    return float(row.get("area") or 0) or float(row["bbox"][2]) * float(row["bbox"][3])
