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

"""The subscription to the depth images of one camera, and the one that belongs to an image."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ..bags.storage import header_stamp_ns
from ..codecs.depth_message import DepthSettings, check_stamps, registered_depth
from ..core.errors import InvalidInput, without_numbers
from ..core.position import DepthImage
from . import qos
from .depth_buffer import DepthBuffer
from .image_subscription import ImageSubscription

IMAGE_TYPE = "sensor_msgs/msg/Image"


class DepthInput:
    """Receives the depth images of one camera, and finds that of an image.

    Attributes:
        topic: Resolved name of the topic.
        error: Why the last image that asked for one has no depth, "" if it has.
    """

    def __init__(
        self,
        node: Node,
        camera: str,
        group: CallbackGroup,
        settings: Callable[[], DepthSettings],
        wanted_ns: Callable[[], int],
    ) -> None:
        """Subscribe.

        Args:
            node: The node whose subscription this is.
            camera: Name of the camera, the prefix of the topic.
            group: Callback group of the camera's topics.
            settings: Read at each image.
            wanted_ns: Gives the stamp of the camera's frame in progress, nanoseconds.
        """
        self.error = ""
        self._node = node
        self._camera = camera
        self._settings = settings
        self._wanted_ns = wanted_ns
        self._buffer = DepthBuffer()
        self._told: set[str] = set()
        # Serialized: most depth images are never needed.
        self._images = ImageSubscription(node, Image, f"{camera}/depth", self._on_depth, group)
        self.topic = self._images.topic

    def image_for(self, header: Header, width: int, height: int) -> DepthImage | None:
        """The depth of an image; None, with the reason in `error` and each kind of reason logged once, without one.

        Args:
            header: The header of the image.
            width: Of the image, pixels.
            height: Of the image, pixels.
        """
        try:
            depth = self._find(header, width, height)
        except InvalidInput as error:
            self.refuse(str(error))
            return None
        self.error = ""
        return depth

    def refuse(self, reason: str) -> None:
        """Say why an image has no depth."""
        self.error = reason
        kind = without_numbers(reason)
        if kind not in self._told:
            self._told.add(kind)
            self._node.get_logger().warning(f"{self._camera}: no positions: {reason}")

    def _find(self, header: Header, width: int, height: int) -> DepthImage:
        """Raises InvalidInput where no depth belongs to the image."""
        settings, stamp_ns = self._settings(), header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        nearest = self._buffer.nearest(stamp_ns)
        if nearest is None:
            raise InvalidInput(f"nothing has come on {self.topic}{self._other_publishers()}")
        check_stamps(nearest[0], stamp_ns, settings.tolerance_s)
        try:
            message = deserialize_message(nearest[1], Image)
        except Exception as error:
            raise InvalidInput(f"a depth image could not be read: {type(error).__name__}: {error}") from error
        return registered_depth(message, header.frame_id, (width, height), settings)

    def _other_publishers(self) -> str:
        """Why publishers of the topic are not heard, "" where there are none of that kind."""
        told = ""
        for publisher in self._node.get_publishers_info_by_topic(self.topic):
            if publisher.topic_type != IMAGE_TYPE:
                told += f"; {qos.full_name(publisher)} publishes it as {publisher.topic_type}, and {IMAGE_TYPE} is read"
            elif reason := qos.incompatibility(publisher, self.topic, self._images.profile):
                told += f"; {qos.full_name(publisher)}: {reason}"
        return told

    def _on_depth(self, data: bytes) -> None:
        stamp_ns = header_stamp_ns(data)
        if stamp_ns is not None:
            self._buffer.put(stamp_ns, data, self._wanted_ns())
