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

"""Decodes a camera's serialized messages into frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ..codecs.image_message import compressed_to_bgr, image_to_bgr
from ..codecs.video_packets import picture_to_bgr
from ..core import Frame, InvalidInput
from ..core.optional import MissingPackageError
from .jobs import DecodedFrame, RejectedFrame
from .video_feed import VideoPicture


class FrameDecoder:
    """Turns serialized messages of one type into frames. Any thread may call it.

    Attributes:
        stamps_ns: The stamp of each camera's newest decoded message, nanoseconds; 0 for a message without one.
    """

    def __init__(self, message_type: Any, max_pixels: Callable[[], int]) -> None:
        """Decode `sensor_msgs/Image` or `sensor_msgs/CompressedImage`.

        Args:
            message_type: The class of the messages.
            max_pixels: The limit on an image's width x height, read at each frame.
        """
        self._type = message_type
        self._to_bgr: Callable[[Any, int], Any] = image_to_bgr if message_type is Image else compressed_to_bgr
        self._max_pixels = max_pixels
        self.stamps_ns: dict[str, int] = {}

    def decode(self, camera: str, data: bytes) -> DecodedFrame:
        """Decode one message.

        Args:
            camera: Name of the camera.
            data: The serialized message.

        Returns:
            The frame, `(height, width, 3)` uint8 BGR with its stamp, and the message's header.

        Raises:
            RejectedFrame: The message cannot be read, or is no usable image; in the latter case with its header.
        """
        try:
            message = deserialize_message(data, self._type)
        except Exception as error:
            raise RejectedFrame(f"the message could not be read: {type(error).__name__}: {error}") from error
        header = message.header
        stamp_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        self.stamps_ns[camera] = stamp_ns
        try:
            image = self._to_bgr(message, self._max_pixels())
        except (InvalidInput, MissingPackageError) as error:
            raise RejectedFrame(str(error), header) from error
        return DecodedFrame(Frame(image, stamp_ns, header.frame_id, camera), header)


class VideoFrameDecoder:
    """Turns the pictures of videos into frames. Any thread may call it.

    Attributes:
        stamps_ns: The stamp of each camera's newest picture, nanoseconds; 0 for one without.
    """

    def __init__(self) -> None:
        self.stamps_ns: dict[str, int] = {}

    def decode(self, camera: str, data: VideoPicture) -> DecodedFrame:
        """Convert one picture.

        Args:
            camera: Name of the camera.
            data: The picture.

        Returns:
            The frame, `(height, width, 3)` uint8 BGR with its stamp, and a header of that stamp and coordinate frame.

        Raises:
            RejectedFrame: It stands for a packet that could not be used.
        """
        if data.packet is None:
            raise RejectedFrame(data.error)
        stamp_ns = data.packet.stamp_ns
        header = Header(frame_id=data.packet.frame_id)
        header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
        self.stamps_ns[camera] = stamp_ns
        if data.picture is None:
            raise RejectedFrame(data.error, header)
        image = picture_to_bgr(data.picture)
        return DecodedFrame(Frame(image, stamp_ns, header.frame_id, camera), header)
