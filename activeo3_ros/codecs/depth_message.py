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

"""Depth images as messages, by REP-118: `sensor_msgs/Image` with millimetres as `16UC1` or metres as `32FC1`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.errors import InvalidInput
from ..core.position import DEPTH_ERROR, DepthImage
from .image_files import MAX_IMAGE_PIXELS
from .image_message import Encoding, ImageMessage, check_layout, check_size, unpadded_rows

ENCODINGS = {"16UC1": (Encoding(2, 1, None), "u2", 1e-3), "32FC1": (Encoding(4, 1, None), "f4", 1.0)}
"""Layout, NumPy's name of a value, and metres of one unit."""


@dataclass(frozen=True)
class DepthSettings:
    """How depth images are read.

    Attributes:
        tolerance_s: How far the stamps of an image and its depth may be apart, seconds; 0: they must be equal.
        error: See `DepthImage`.
        max_pixels: A larger depth image is refused.
    """

    tolerance_s: float = 0.0
    error: float = DEPTH_ERROR
    max_pixels: int = MAX_IMAGE_PIXELS


def check_stamps(depth_ns: int, image_ns: int, tolerance_s: float) -> None:
    """Raises InvalidInput where a depth image is not of an image's time.

    Args:
        depth_ns: Stamp of the depth image nearest in time, nanoseconds.
        image_ns: Stamp of the image.
        tolerance_s: See `DepthSettings`.
    """
    apart_ns = depth_ns - image_ns
    if abs(apart_ns) > tolerance_s * 1e9:
        raise InvalidInput(
            f"the depth image nearest in time is {abs(apart_ns) / 1e6:.1f} ms {'younger' if apart_ns > 0 else 'older'} "
            f"than the image, and depth_tolerance is {tolerance_s:g} s"
        )


def registered_depth(message: Any, frame_id: str, size: tuple[int, int], settings: DepthSettings) -> DepthImage:
    """Decode the depth of an image.

    Args:
        message: A `sensor_msgs/Image` of the image's time, of whichever library.
        frame_id: The coordinate frame of the image.
        size: Width and height of the image, pixels.
        settings: How it is read.

    Raises:
        InvalidInput: It is not registered to the image, or as for `depth_image`.
    """
    if message.header.frame_id != frame_id:
        raise InvalidInput(
            f"the depth is in the frame {message.header.frame_id!r} and the image in {frame_id!r}: it must be "
            "registered to the image"
        )
    if (message.width, message.height) != size:
        raise InvalidInput(
            f"the depth has {message.width} x {message.height} pixels and the image {size[0]} x {size[1]}: it must be "
            "registered to the image"
        )
    return depth_image(message, settings.max_pixels, settings.error)


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
        supported = " (mm), ".join(ENCODINGS)
        raise InvalidInput(
            f"the depth has the encoding {message.encoding[:40]!r}, which is none of depth; supported are {supported} "
            "(m), not compressed"
        )
    encoding, kind, unit_m = ENCODINGS[message.encoding]
    check_size(message.width, message.height, max_pixels)
    check_layout(message, encoding)
    stored = unpadded_rows(message, encoding).view((">" if message.is_bigendian else "<") + kind)
    values = stored.reshape(message.height, message.width).astype(kind, copy=False)
    return DepthImage(values, unit_m, error)
