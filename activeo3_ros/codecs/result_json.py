"""Results as plain values for JSON. Boxes are in pixels of the source image, times in milliseconds."""

from __future__ import annotations

import math
from typing import Any

from ..core import Box, InstanceMask, Result
from .rle import encode_rle

PIXEL_DIGITS = 3
SCORE_DIGITS = 6
MILLISECOND_DIGITS = 3


def result_to_dict(result: Result, image: str) -> dict[str, Any]:
    """What `activeo3 perceive --json` prints for one image. image: its path. A score that does not exist is None."""
    return {
        "image": image,
        "width": result.width,
        "height": result.height,
        "status": result.status.name.lower(),
        "query": result.query.text,
        "regions": [
            {**_box(r.box), "label": r.label, "score": _score(r.score), "zoom": _score(r.zoom)} for r in result.regions
        ],
        "detections": [
            {"label": d.label, "score": _score(d.score), **_box(d.box), "region": d.region} for d in result.detections
        ],
        "groundings": [
            {"phrase": g.phrase, "score": _score(g.score), **_box(g.box), "region": g.region, "text": g.text}
            for g in result.groundings
        ],
        "masks": [_mask(mask) for mask in result.masks],
        "answer": result.answer,
        "timings_ms": {stage: round(took, MILLISECOND_DIGITS) for stage, took in result.timings_ms.items()},
        "cost": {"views": result.cost.views, "pixels": result.cost.pixels, "tokens": result.cost.tokens},
    }


def _box(box: Box) -> dict[str, float]:
    names = ("x", "y", "width", "height")
    return {name: round(float(value), PIXEL_DIGITS) for name, value in zip(names, box.as_tuple(), strict=True)}


def _score(score: float) -> float | None:
    """JSON has no NaN, and a score that does not exist must not become a number."""
    return round(float(score), SCORE_DIGITS) if math.isfinite(score) else None


def _mask(mask: InstanceMask) -> dict[str, Any]:
    """The mask that covers the box, as COCO tools read it: `{"size": [height, width], "counts": run lengths}`."""
    height, width = mask.mask.shape
    return {
        "label": mask.label,
        "score": _score(mask.score),
        **_box(mask.box),
        "region": mask.region,
        "size": [int(height), int(width)],
        "counts": encode_rle(mask.mask).decode("ascii"),
    }
