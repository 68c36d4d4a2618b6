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

"""A camera that moves over a photograph: the frames of a video."""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np

from ..codecs.image_files import Picture
from ..core import Box

ZOOM = 1.5
"""Magnification half-way, against both ends."""
SWAY = 0.35
"""Amplitude of the pan to the left and right, as a share of the room in the picture."""


def film(picture: Picture, count: int, size: tuple[int, int]) -> Iterator[Picture]:
    """Pan over a picture and zoom in and out, smoothly, in steps below a pixel.

    Args:
        picture: `(h, w, 3)` BGR photograph.
        count: Number of frames.
        size: Width and height of a frame in pixels.

    Yields:
        `(height, width, 3)` BGR frames.
    """
    for index in range(count):
        window = camera_window(picture.shape[1], picture.shape[0], index / max(1, count - 1), size[0] / size[1])
        yield render_window(picture, window, size)


def camera_window(width: int, height: int, time: float, aspect: float) -> Box:
    """The part of a picture in the camera's view.

    Args:
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
        time: 0 to 1, from the first frame to the last.
        aspect: Width over height of the view.

    Returns:
        A box inside the picture, in fractions of its pixels.
    """
    widest = min(width, height * aspect)
    closeness = (1 - math.cos(2 * math.pi * time)) / 2
    wide = widest / (1 + (ZOOM - 1) * closeness)
    high = wide / aspect
    across = 0.5 + SWAY * math.sin(2 * math.pi * time)
    return Box((width - wide) * across, (height - high) / 2, wide, high)


def render_window(picture: Picture, window: Box, size: tuple[int, int]) -> Picture:
    """Resample a window of a picture.

    Args:
        picture: `(h, w, 3)` BGR.
        window: Box in fractions of the picture's pixels.
        size: Width and height of the result in pixels.

    Returns:
        `(height, width, 3)` BGR.
    """
    scale_x, scale_y = window.width / size[0], window.height / size[1]
    # Pixel i covers i to i + 1, so its centre lies at i + 0.5 on both sides.
    to_picture = np.array(
        [[scale_x, 0, window.x + scale_x / 2 - 0.5], [0, scale_y, window.y + scale_y / 2 - 0.5]], np.float64
    )
    flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(picture, to_picture, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)
