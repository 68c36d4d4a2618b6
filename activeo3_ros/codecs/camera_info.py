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

"""`sensor_msgs/CameraInfo` to the camera model of an image."""

from __future__ import annotations

from typing import Any

from ..core.camera import CameraModel
from ..core.errors import InvalidInput

LEAST_FOCAL_LENGTH = 0.02
"""Share of the sensor's width; lenses of 220 degrees have 0.2."""


def camera_model(info: Any, image_size: tuple[int, int], rectified: bool) -> CameraModel | None:
    """The camera of an image that `info` came with.

    `info.width` and `info.height` are those of the whole sensor; the image shows its region of interest, binned. The
    scale comes from the sizes themselves, so that an image that was resized after the driver is right as well.

    Args:
        info: A `sensor_msgs/CameraInfo`, or anything with its fields.
        image_size: Width and height of the image in pixels.
        rectified: Whether the image is rectified; then the projection matrix P holds, and no distortion.

    Returns:
        The model, or None where the camera is not calibrated (`K[0]` is 0).

    Raises:
        InvalidInput: If the region of interest does not lie on the sensor, its shape is not the image's, or the
            matrices are no camera's.
    """
    width, height = image_size
    if not info.k[0] or not info.width or not info.height or width < 1 or height < 1:
        return None
    roi = info.roi
    shown = (roi.width or info.width, roi.height or info.height)
    if roi.x_offset + shown[0] > info.width or roi.y_offset + shown[1] > info.height:
        raise InvalidInput(
            f"camera_info: the region of interest {roi.x_offset}, {roi.y_offset}, {shown[0]} x {shown[1]} does not lie "
            f"on the sensor of {info.width} x {info.height}"
        )
    scale = shown[0] / width, shown[1] / height
    if abs(scale[0] / scale[1] - 1) > 1 / width + 1 / height:  # a side may be rounded by a pixel
        raise InvalidInput(
            f"camera_info shows {shown[0]} x {shown[1]} sensor pixels, which is not the shape of the image of "
            f"{width} x {height}"
        )
    binning = info.binning_x or 1, info.binning_y or 1
    if (shown[0] // binning[0], shown[1] // binning[1]) == image_size:
        scale = float(binning[0]), float(binning[1])  # a last row or column that fills no bin is not in the image
    offset = float(roi.x_offset), float(roi.y_offset)
    if rectified and info.p[0]:
        return CameraModel(_matrix(info, info.p, (0, 5, 2, 6)), offset=offset, scale=scale)
    matrix = _matrix(info, info.k, (0, 4, 2, 5))
    distortion = () if rectified else tuple(map(float, info.d))
    return CameraModel(matrix, distortion, info.distortion_model, offset, scale)


def _matrix(info: Any, values: Any, places: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Focal lengths and principal point in pixels. Raises InvalidInput where they are in another unit."""
    fx, fy, cx, cy = (float(values[place]) for place in places)
    if 0 < fx < LEAST_FOCAL_LENGTH * info.width:
        raise InvalidInput(
            f"camera_info: a focal length of {fx:g} px is none of a sensor of {info.width} x {info.height}; it is in "
            "pixels, not in shares of the width or millimetres"
        )
    return fx, fy, cx, cy


def is_rectified(topic: str) -> bool:
    """Whether a topic carries rectified images, by image_proc's names: `image_rect`, `image_rect_color`."""
    return any(part.startswith("image_rect") for part in topic.split("/"))
