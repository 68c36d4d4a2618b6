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

"""Ground truth masks of COCO annotations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..codecs.rle import Mask
from ..core import InvalidInput
from ..core.optional import require_package


def decode_segmentation(segmentation: Any, height: int, width: int) -> Mask | None:
    """Decode a COCO segmentation.

    Args:
        segmentation: Polygons, or run lengths, compressed or not; empty or None if there is none.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        `(height, width)` bool mask; None if there is no segmentation or no pixel.

    Raises:
        InvalidInput: The run lengths are of another size.
        MissingPackageError: faster-coco-eval is not installed.
    """
    if not segmentation or not height * width:
        return None
    coder = require_package("faster_coco_eval.core.mask", "to read masks", "faster-coco-eval")
    encoded = segmentation
    if isinstance(segmentation, list):
        encoded = coder.merge(coder.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        encoded = coder.frPyObjects(segmentation, height, width)
    mask = np.asarray(coder.decode(encoded), bool)
    if mask.shape != (height, width):
        raise InvalidInput(
            f"a true mask is of {mask.shape[0]} x {mask.shape[1]} pixels (height, width), its picture has {height} x "
            f"{width}; give the annotations of this picture"
        )
    return mask
