"""What the paper reports (ACTIVE-o3, arXiv 2505.21457), to stand beside what is measured here. Never mixed with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PUBLISHED = "published (arXiv 2505.21457)"
MEASURED = "measured here"


@dataclass(frozen=True)
class PublishedRow:
    """One line of a table: a method's numbers as they are printed, and who measured them."""

    method: str
    numbers: Mapping[str, str]
    origin: str = PUBLISHED

    @property
    def is_published(self) -> bool:
        return self.origin == PUBLISHED

    def to_json(self) -> dict[str, Any]:
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
