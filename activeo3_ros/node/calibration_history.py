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

"""The calibrations of one camera, each with the stamp from which it holds. Knows no ROS."""

from __future__ import annotations

from typing import Any

MAX_KEPT = 100
"""Calibrations that are remembered: of a zoom lens, which changes with each frame, those of a few seconds."""
FIELDS = ("width", "height", "distortion_model", "d", "k", "r", "p", "binning_x", "binning_y")


class CalibrationHistory:
    """Gives each image the calibration of its time, so that one that changes holds for no image before.

    Attributes:
        newest: The newest `sensor_msgs/CameraInfo`, None before the first.
        changes: How often it changed.
    """

    def __init__(self) -> None:
        self.newest: Any = None
        self.changes = 0
        self._kept: tuple[tuple[int, Any], ...] = ()  # replaced as a whole: another thread may read it
        self._contents: tuple[Any, ...] = ()

    def add(self, info: Any) -> bool:
        """Take in a message.

        Returns:
            Whether it says another thing than the one before.
        """
        contents = _contents(info)
        if self._kept and contents == self._contents:
            return False
        is_change = bool(self._kept)
        self._contents, self.newest = contents, info
        since_ns = info.header.stamp.sec * 1_000_000_000 + info.header.stamp.nanosec
        self._kept = (*self._kept, (since_ns, info))[-MAX_KEPT:]
        self.changes += is_change
        return is_change

    def at(self, stamp_ns: int) -> Any:
        """The calibration of an image: the last one that came and is not younger, else the oldest that is known.

        Args:
            stamp_ns: Stamp of the image, nanoseconds.

        Returns:
            A `sensor_msgs/CameraInfo`, or None before the first.
        """
        kept = self._kept
        older = (info for since_ns, info in reversed(kept) if since_ns <= stamp_ns)
        return next(older, kept[0][1] if kept else None)


def _contents(info: Any) -> tuple[Any, ...]:
    roi = info.roi
    values = [getattr(info, name) for name in FIELDS]
    # As text: NaN does not equal itself.
    return (*(str(value if isinstance(value, (str, int)) else list(value)) for value in values),
            roi.x_offset, roi.y_offset, roi.width, roi.height)  # fmt: skip
