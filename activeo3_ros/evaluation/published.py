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

"""Published numbers of ACTIVE-o3 (arXiv 2505.21457), shown beside ours and never mixed with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .scoring import Estimate, MethodScores

PUBLISHED = "published (arXiv 2505.21457)"
MEASURED = "measured here"


@dataclass(frozen=True)
class PublishedRow:
    """One line of the table: a method, its numbers as they are printed, and their origin."""

    method: str
    numbers: Mapping[str, str]
    origin: str = PUBLISHED

    @property
    def is_published(self) -> bool:
        """Whether the numbers are the paper's."""
        return self.origin == PUBLISHED

    def to_json(self) -> dict[str, Any]:
        """The line as an object for JSON."""
        return {"method": self.method, **self.numbers, "origin": self.origin}


def _rows(*rows: tuple[str, str, str]) -> tuple[PublishedRow, ...]:
    return tuple(PublishedRow(method, {"APs": ap, "ARs": ar}) for method, ap, ar in rows)


_QWEN, _ACTIVE, _GDINO = "Qwen2.5-VL-7B, untrained policy", "ACTIVE-o3", "ACTIVE-o3 + GroundingDINO"

ROWS: dict[str, tuple[PublishedRow, ...]] = {
    "lvis-small": _rows((_QWEN, "1.2", "1.8"), (_ACTIVE, "2.2", "4.6"), (_GDINO, "1.2", "2.5")),
    "lvis-dense": _rows((_QWEN, "1.6", "2.0"), (_ACTIVE, "4.3", "5.5"), (_GDINO, "7.0", "7.9")),
    "soda-a": _rows((_QWEN, "0.7", "1.5"), (_ACTIVE, "9.2", "10.4")),
    "soda-d": _rows((_QWEN, "2.1", "4.5"), (_ACTIVE, "15.1", "22.0"), (_GDINO, "20.2", "24.7")),
    "thinobjects": (
        PublishedRow(_QWEN, {"mIoU 0": "0.796", "mIoU 1": "0.654", "mIoU 2": "0.601", "mIoU 3": "0.561"}),
        PublishedRow(_ACTIVE, {"mIoU 0": "0.796", "mIoU 1": "0.840", "mIoU 2": "0.859", "mIoU 3": "0.863"}),
    ),
}
"""By benchmark; APs and ARs in percent, mIoU by zoom budget. The paper has no row for the others."""


def beside_published(
    scores: Sequence[MethodScores], published: Sequence[PublishedRow], columns: Sequence[tuple[str, str]]
) -> list[PublishedRow]:
    """Append our rows to the published ones.

    Args:
        scores: Our scores.
        published: Rows of the paper.
        columns: Published metrics, each with ours that stands under it.

    Returns:
        All rows, each with its origin; none if nothing was published.
    """
    if not published:
        return []
    numbers = [{theirs: as_printed(theirs, s.quality[ours]) for theirs, ours in columns} for s in scores]
    return [*published, *(PublishedRow(s.method.id, row, MEASURED) for s, row in zip(scores, numbers, strict=True))]


def as_printed(metric: str, value: Estimate) -> str:
    """Format a number as the paper prints it: APs and ARs in percent, IoUs as they are."""
    if not math.isfinite(value.value):
        return "n/a"
    return f"{100 * value.value:.1f}" if metric.startswith("A") else f"{value.value:.3f}"
