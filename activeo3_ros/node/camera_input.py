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

"""The subscriptions of one camera: images, which go on serialized, camera_info, and depth if it is asked for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from ..codecs.camera_info import camera_model, is_rectified
from ..codecs.depth_message import DepthSettings
from ..codecs.video_packets import PACKAGE, PACKET_TYPE, VIDEO_TYPE
from ..core.camera import CameraModel
from ..core.errors import InvalidInput
from ..core.optional import MissingPackageError, require_package
from ..core.position import DepthImage
from . import qos
from .calibration_history import CalibrationHistory
from .depth_input import DepthInput
from .image_subscription import ImageSubscription

try:
    from foxglove_msgs.msg import CompressedVideo
except ImportError:
    CompressedVideo = None

try:
    from ffmpeg_image_transport_msgs.msg import FFMPEGPacket
except ImportError:
    FFMPEGPacket = None

MOST_TOPICS = 5
"""Topics with images that are named where a camera's own is not published."""
SOURCES: dict[str, tuple[Any, str]] = {
    "raw": (Image, "image_raw"),
    "compressed": (CompressedImage, "image_raw/compressed"),
    "ffmpeg": (FFMPEGPacket, "image_raw/ffmpeg"),
    "foxglove": (CompressedVideo, "image_raw/foxglove"),
}
"""Message type, None where its package is not installed, and topic below the camera's name, by the parameter
`transport`."""
TYPES = {
    "raw": "sensor_msgs/msg/Image",
    "compressed": "sensor_msgs/msg/CompressedImage",
    "ffmpeg": PACKET_TYPE,
    "foxglove": VIDEO_TYPE,
}
"""The same types by their full names, as the graph has them."""
VIDEOS = ("ffmpeg", "foxglove")
"""The transports whose messages are packets of a video."""


@dataclass(frozen=True)
class Publishers:
    """The nodes that publish a camera's images.

    Attributes:
        heard: Full names of those whose images the subscription can receive.
        unheard: The others, each with the reason: another type or quality of service.
        elsewhere: Where nobody publishes the topic: topics that do carry images.
    """

    heard: tuple[str, ...] = ()
    unheard: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()


def topic_to_subscribe(node: Node, name: str, transport: str) -> str:
    """The topic of a camera's images, for a subscription, which remaps it.

    A rule for `NAME/image_raw` moves the topics below it too, as in image_transport; one for such a topic itself wins.

    Args:
        node: The node with the remapping rules.
        name: Name of the camera, the prefix of its topics.
        transport: A key of `SOURCES`.
    """
    topic, base = f"{name}/{SOURCES[transport][1]}", f"{name}/{SOURCES['raw'][1]}"
    moved = node.resolve_topic_name(base)
    has_own_rule = node.resolve_topic_name(topic) != node.resolve_topic_name(topic, only_expand=True)
    if topic == base or has_own_rule or moved == node.resolve_topic_name(base, only_expand=True):
        return topic
    return moved + topic.removeprefix(base)


def _message_class(transport: str) -> Any:
    """The class of a transport's messages. Raises InvalidInput where a package is missing, with what to install."""
    kind = SOURCES[transport][0]
    if kind is None:
        package = TYPES[transport].partition("/")[0]
        apt = f"ros-$ROS_DISTRO-{package.replace('_', '-')}"
        raise InvalidInput(f"transport {transport} needs the package {package}; run: apt install {apt}")
    if transport in VIDEOS:
        try:
            require_package("av", f"for transport {transport}", PACKAGE)
        except MissingPackageError as error:
            raise InvalidInput(str(error)) from error
    return kind


class CameraInput:
    """Receives one camera's messages and passes the images on.

    Attributes:
        name: Name of the camera.
        group: Callback group of all its topics.
        topic: Resolved name of the image topic.
        calibrations: Its camera_info, as they came.
        depth: Its depth images; None where the node does not ask for them.
        calibration_error: Why the newest camera_info does not fit the newest image it was needed for, "" if it does.
        images: The subscription to its images.
    """

    def __init__(self, node: Node, name: str, transport: str, group: CallbackGroup) -> None:
        """Subscribe.

        Args:
            node: The node whose subscriptions these are.
            name: Name of the camera, the prefix of its topics.
            transport: A key of `SOURCES`.
            group: Callback group of all its topics.

        Raises:
            InvalidInput: A package that the transport needs is not installed.
        """
        kind = _message_class(transport)
        topic = topic_to_subscribe(node, name, transport)
        self._transport = transport
        self.name = name
        self.group = group
        self.topic = node.resolve_topic_name(topic)
        self.calibrations = CalibrationHistory()
        self.depth: DepthInput | None = None
        self.calibration_error = ""
        self._node = node
        self._heard_at = math.nan
        self._told: set[str] = set()
        self._enqueue: Callable[[str, bytes], None] | None = None
        self.images = ImageSubscription(
            node, kind, topic, self._on_image, group, qos.VIDEO if transport in VIDEOS else qos.IMAGES
        )
        self._info_topic = node.resolve_topic_name(f"{name}/camera_info")
        qos.create_subscription(node, CameraInfo, self._info_topic, self._on_camera_info, qos.CAMERA_INFO, group)

    def connect(self, enqueue: Callable[[str, bytes], None] | None) -> None:
        """Choose where images go.

        Args:
            enqueue: Called with the camera's name and the serialized message; None: images are dropped.
        """
        self._enqueue = enqueue

    def publishers(self) -> Publishers:
        """The nodes that publish its images, whether this subscription can receive them or not."""
        endpoints = self._node.get_publishers_info_by_topic(self.topic)
        if not endpoints:
            return Publishers(elsewhere=self._image_topics())
        reasons = [(qos.full_name(endpoint), self._why_unheard(endpoint)) for endpoint in endpoints]
        return Publishers(
            tuple(name for name, reason in reasons if not reason),
            tuple(f"{name} {reason}" for name, reason in reasons if reason),
        )

    def _why_unheard(self, publisher: Any) -> str:
        """Why no image of a publisher of this topic arrives, "" where they do."""
        kind, wanted = publisher.topic_type, TYPES[self._transport]
        if kind != wanted:
            reason = f"publishes it as {kind}, which this node does not read there but {wanted}"
            other = next((name for name, its_type in TYPES.items() if its_type == kind), None)
            if other is None:
                return reason
            topic = self._node.resolve_topic_name(f"{self.name}/{SOURCES[other][1]}")
            return f"{reason}: set transport:={other} and remap {topic}:={self.topic}"
        if reason := qos.incompatibility(publisher, self.topic, self.images.profile):
            offers, asks = qos.describe(publisher.qos_profile), qos.describe(self.images.profile)
            return f"publishes it as {offers}, and this node asks for {asks}: {reason}"
        return ""

    def _image_topics(self) -> tuple[str, ...]:
        """The topics with images that no camera of this node reads, the nearest in name first."""
        node = self._node
        namespace, name = node.get_namespace(), node.get_name()
        ours = dict(node.get_subscriber_names_and_types_by_node(name, namespace))
        ours.update(node.get_publisher_names_and_types_by_node(name, namespace))
        found = [
            name
            for name, kinds in node.get_topic_names_and_types()
            if set(kinds) & set(TYPES.values()) and name not in ours and node.count_publishers(name)
        ]
        return tuple(sorted(found, key=lambda name: -SequenceMatcher(None, name, self.topic).ratio())[:MOST_TOPICS])

    def silent_s(self) -> float:
        """Seconds since the newest image, NaN before the first."""
        return time.monotonic() - self._heard_at

    def subscribe_to_depth(self, settings: Callable[[], DepthSettings], wanted_ns: Callable[[], int]) -> None:
        """Receive depth images too; the arguments are those of `DepthInput`."""
        self.depth = DepthInput(self._node, self.name, self.group, settings, wanted_ns)

    def model(self, header: Header, width: int, height: int) -> CameraModel | None:
        """The calibration of an image; None without one, or where it contradicts the image.

        A contradiction is logged once.

        Args:
            header: The header of the image.
            width: Of the image, pixels.
            height: Of the image, pixels.
        """
        info = self.calibrations.at(header.stamp.sec * 1_000_000_000 + header.stamp.nanosec)
        if info is None:
            return None
        try:
            model = camera_model(info, (width, height), is_rectified(self.topic))
        except InvalidInput as error:
            self.calibration_error = str(error)
            if self.calibration_error not in self._told:
                self._told.add(self.calibration_error)
                self._node.get_logger().warning(f"{self.name}: no markers or bearings: {self.calibration_error}")
            return None
        self.calibration_error = ""
        return model

    def geometry(self, header: Header, width: int, height: int) -> tuple[CameraModel | None, DepthImage | None]:
        """The calibration and the depth of an image; the arguments are those of `model`."""
        model = self.model(header, width, height)
        if self.depth is None:
            return model, None
        if model is None:
            self.depth.refuse(self.calibration_error or f"no calibration has come on {self._info_topic}")
            return None, None
        return model, self.depth.image_for(header, width, height)

    def _on_image(self, data: bytes) -> None:
        self._heard_at = time.monotonic()
        enqueue = self._enqueue
        if enqueue is not None:
            enqueue(self.name, data)

    def _on_camera_info(self, info: CameraInfo) -> None:
        if self.calibrations.add(info) and self.calibrations.changes == 1:
            self._node.get_logger().info(
                f"{self.name}: camera_info has changed; it holds for images from its stamp on. Further changes are "
                "counted in /diagnostics"
            )
