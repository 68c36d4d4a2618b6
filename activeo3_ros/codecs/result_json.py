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

"""A `Result` to plain values for JSON and back. Boxes are in pixels of the source image, times in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..core import Box, Cost, Detection, Grounding, InstanceMask, Query, Region, Result, Status
from .rle import decode_rle, encode_rle

PIXEL_DIGITS = 3
SCORE_DIGITS = 6
MILLISECOND_DIGITS = 3


def to_json(result: Result, image: str) -> dict[str, Any]:
    """The object that `activeo3 perceive --json` prints for one image.

    Coordinates and milliseconds are rounded to 3 digits, scores to 6. A score that does not exist is None: JSON has no
    NaN. The query's classes, its wish for masks and its revision are not carried.

    Args:
        result: The result of the image.
        image: The path of the image.

    Returns:
        Values that `json.dumps(..., allow_nan=False)` takes.
    """
    return {
        "image": image,
        "width": result.width,
        "height": result.height,
        "status": result.status.name.lower(),
        "query": result.query.text,
        "regions": [
            {**_box_values(r.box), "label": r.label, "score": _number(r.score), "zoom": _number(r.zoom)}
            for r in result.regions
        ],
        "detections": [
            {
                "label": d.label,
                "score": _number(d.score),
                **_box_values(d.box),
                "region": d.region,
                "existence": _number(d.existence),
                "carried": d.carried,
                "track_id": d.track_id,
            }
            for d in result.detections
        ],
        "groundings": [
            {
                "phrase": g.phrase,
                "score": _number(g.score),
                **_box_values(g.box),
                "region": g.region,
                "text": g.text,
                "detection": g.detection,
            }
            for g in result.groundings
        ],
        "masks": [_mask_values(mask) for mask in result.masks],
        "answer": result.answer,
        "timings_ms": {stage: _milliseconds(took) for stage, took in result.timings_ms.items()},
        "cost": {
            "views": result.cost.views,
            "pixels": result.cost.pixels,
            "tokens": result.cost.tokens,
            "calls": result.cost.calls,
        },
        "status_message": result.status_message,
        "notes": list(result.notes),
        "reasoning": result.reasoning,
        "regions_age_ms": _milliseconds(result.regions_age_ms),
    }


def from_json(values: Mapping[str, Any]) -> Result:
    """The `Result` in the values that `to_json` gave; a score that is None is NaN.

    Keys that version 0.1 did not write may be missing.

    Raises:
        KeyError: A key is missing.
        ValueError: A mask or an index is damaged.
    """
    return Result(
        values["width"],
        values["height"],
        Query(values["query"]),
        Status[values["status"].upper()],
        values.get("status_message", ""),
        regions=tuple(Region(_box(r), r["label"], _score(r["score"]), _score(r["zoom"])) for r in values["regions"]),
        detections=tuple(
            Detection(
                d["label"],
                _score(d["score"]),
                _box(d),
                d["region"],
                d.get("track_id", ""),
                _score(d.get("existence")),
                d.get("carried", False),
            )
            for d in values["detections"]
        ),
        groundings=tuple(
            Grounding(g["phrase"], _score(g["score"]), _box(g), g["region"], g["text"], g.get("detection", -1))
            for g in values["groundings"]
        ),
        masks=tuple(
            InstanceMask(
                m["label"],
                _score(m["score"]),
                _box(m),
                decode_rle(m["counts"].encode("ascii"), *m["size"]),
                m["region"],
                m.get("detection", -1),
            )
            for m in values["masks"]
        ),
        answer=values["answer"],
        reasoning=values.get("reasoning", ""),
        timings_ms=dict(values["timings_ms"]),
        cost=Cost(**values["cost"]),
        regions_age_ms=values.get("regions_age_ms", 0.0),
        notes=tuple(values.get("notes", ())),
    )


def _box_values(box: Box) -> dict[str, float]:
    names = ("x", "y", "width", "height")
    return {name: round(float(value), PIXEL_DIGITS) for name, value in zip(names, box.as_tuple(), strict=True)}


def _box(values: Mapping[str, Any]) -> Box:
    return Box(values["x"], values["y"], values["width"], values["height"])


def _milliseconds(value: float) -> float:
    return round(float(value), MILLISECOND_DIGITS)


def _number(value: float) -> float | None:
    """JSON has no NaN, and a score that does not exist must not become a number."""
    return round(float(value), SCORE_DIGITS) if math.isfinite(value) else None


def _score(value: float | None) -> float:
    return math.nan if value is None else value


def _mask_values(mask: InstanceMask) -> dict[str, Any]:
    """The mask that covers the box, as COCO tools read it: `{"size": [height, width], "counts": run lengths}`."""
    height, width = mask.mask.shape
    return {
        "label": mask.label,
        "score": _number(mask.score),
        **_box_values(mask.box),
        "region": mask.region,
        "detection": mask.detection,
        "size": [int(height), int(width)],
        "counts": encode_rle(mask.mask).decode("ascii"),
    }
