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

"""Splits and shrinks the requests of a frame that do not fit into the memory of the device."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from ..core.errors import OutOfMemory
from .engine import Engine, Reply, Request
from .families import Family

logger = logging.getLogger(__name__)

MIN_PIXELS = 112 * 112
"""A view is never shown smaller than this for want of memory."""


def generate_within_memory(engine: Engine, requests: Sequence[Request]) -> list[Reply]:
    """Answer requests, fewer at a time and then with smaller images while memory is short.

    Args:
        engine: To ask.
        requests: Of one frame.

    Returns:
        The replies in the order of the requests; a note says where an image was shrunk.

    Raises:
        OutOfMemory: Even one small image does not fit; the engine can be asked again.
    """
    if not requests:
        return []
    try:
        return engine.generate(requests)
    except OutOfMemory as error:
        if len(requests) == 1:
            smaller = _half(requests[0], engine.family)
            if smaller is None:
                raise
            reason = str(error)
        else:
            logger.warning("%s; answering them in two halves", error)
            smaller = None
    if smaller is None:
        half = len(requests) // 2
        return generate_within_memory(engine, requests[:half]) + generate_within_memory(engine, requests[half:])
    height, width = smaller.image.shape[:2]
    logger.warning("%s; showing the view at %d x %d px instead", reason, width, height)
    note = f"memory was short: shown at {width} x {height} px"
    return [
        replace(reply, notes=(note,)) if not reply.notes else reply
        for reply in generate_within_memory(engine, [smaller])
    ]


def _half(request: Request, family: Family) -> Request | None:
    """The same request with at most half the pixels, in whole cells of the model; None where they would be too few."""
    height, width = request.image.shape[:2]
    pixels = height * width // 2
    if pixels < MIN_PIXELS:
        return None
    size = family.fit(width, height, pixels)
    image = np.asarray(cv2.resize(request.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return replace(request, image=image, on_text=None)  # its coordinates are not those that the listener expects
