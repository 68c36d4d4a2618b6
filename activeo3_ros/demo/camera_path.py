"""A camera that moves over a still picture: frames of a video where there is only a photograph."""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np

from ..codecs.image_files import Picture
from ..core import Box

ZOOM = 1.5
"""How much closer the camera gets half-way than it is at both ends."""
SWAY = 0.35
"""How far it looks to the left and right, as a share of the room that there is."""


def film(picture: Picture, count: int, size: tuple[int, int]) -> Iterator[Picture]:
    """`count` frames of `size` (width, height) that pan over a picture and zoom in and out, smoothly, below a pixel."""
    for index in range(count):
        window = camera_window(picture.shape[1], picture.shape[0], index / max(1, count - 1), size[0] / size[1])
        yield show(picture, window, size)


def camera_window(width: int, height: int, time: float, aspect: float) -> Box:
    """What the camera sees at a time, 0 to 1, of a picture of `width` x `height` pixels; aspect: width over height."""
    widest = min(width, height * aspect)
    closeness = (1 - math.cos(2 * math.pi * time)) / 2
    wide = widest / (1 + (ZOOM - 1) * closeness)
    high = wide / aspect
    across = 0.5 + SWAY * math.sin(2 * math.pi * time)
    return Box((width - wide) * across, (height - high) / 2, wide, high)


def show(picture: Picture, window: Box, size: tuple[int, int]) -> Picture:
    """A window of a picture, in fractions of its pixels, at `size` (width, height)."""
    scale_x, scale_y = window.width / size[0], window.height / size[1]
    # Pixel i covers i to i + 1, so its centre lies at i + 0.5 on both sides.
    to_picture = np.array(
        [[scale_x, 0, window.x + scale_x / 2 - 0.5], [0, scale_y, window.y + scale_y / 2 - 0.5]], np.float64
    )
    flags = cv2.INTER_LANCZOS4 | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(picture, to_picture, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)
