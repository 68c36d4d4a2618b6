"""Masks as annotations have them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..codecs import rle as masks
from ..core.optional import require_package


def true_mask(segmentation: Any, height: int, width: int) -> masks.Mask | None:
    """`(height, width)` mask of a COCO segmentation: polygons, or run lengths, compressed or not; None for none."""
    if not segmentation or not height * width:
        return None
    coder = require_package("faster_coco_eval.core.mask", "to read masks", "faster-coco-eval")
    encoded = segmentation
    if isinstance(segmentation, list):
        encoded = coder.merge(coder.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        encoded = coder.frPyObjects(segmentation, height, width)
    return np.asarray(coder.decode(encoded), bool)
