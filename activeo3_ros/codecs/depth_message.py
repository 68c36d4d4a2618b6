"""Depth images as messages, by REP-118: `sensor_msgs/Image` with millimetres as `16UC1` or metres as `32FC1`."""

from __future__ import annotations

from ..core.errors import InvalidInput
from ..core.position import DEPTH_ERROR, DepthImage
from .image_message import Encoding, ImageMessage, check_layout, check_size, unpadded_rows

ENCODINGS = {"16UC1": (Encoding(2, 1, None), "u2", 1e-3), "32FC1": (Encoding(4, 1, None), "f4", 1.0)}
"""Layout, NumPy's name of a value, and metres of one unit."""


def depth_image(message: ImageMessage, max_pixels: int, error: float = DEPTH_ERROR) -> DepthImage:
    """Decode a depth image.

    Args:
        message: A `sensor_msgs/Image`, of whichever library.
        max_pixels: A larger image is refused.
        error: See `DepthImage`.

    Returns:
        The depth; it may share the message's memory.

    Raises:
        InvalidInput: The encoding is not one of depth, the fields contradict each other, or there are too many pixels.
    """
    if message.encoding not in ENCODINGS:
        raise InvalidInput(
            f"encoding {message.encoding[:40]!r} is none of depth; supported are {' (mm), '.join(ENCODINGS)} (m), "
            "not compressed"
        )
    encoding, kind, unit_m = ENCODINGS[message.encoding]
    check_size(message.width, message.height, max_pixels)
    check_layout(message, encoding)
    stored = unpadded_rows(message, encoding).view((">" if message.is_bigendian else "<") + kind)
    values = stored.reshape(message.height, message.width).astype(kind, copy=False)
    return DepthImage(values, unit_m, error)
