"""The subscription to the depth images of one camera, and the one that belongs to an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from ..bags.storage import header_stamp_ns
from ..codecs.depth_message import depth_image
from ..core.errors import InvalidInput
from ..core.position import DepthImage
from . import qos
from .depth_buffer import DepthBuffer

IMAGE_TYPE = "sensor_msgs/msg/Image"


@dataclass(frozen=True)
class DepthSettings:
    """How depth images are read, by parameters of the node.

    Attributes:
        tolerance_s: How far the stamps of an image and its depth may be apart, seconds; 0: they must be equal.
        error: See `DepthImage`.
        max_pixels: A larger depth image is refused.
    """

    tolerance_s: float
    error: float
    max_pixels: int


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
        self.topic = node.resolve_topic_name(f"{camera}/depth")
        self.error = ""
        self._node = node
        self._camera = camera
        self._settings = settings
        self._wanted_ns = wanted_ns
        self._buffer = DepthBuffer()
        self._told: set[str] = set()
        # Serialized: most depth images are never needed.
        self._profile = qos.create_subscription(node, Image, self.topic, self._on_depth, qos.IMAGES, group, raw=True)

    def image_for(self, header: Header, width: int, height: int) -> DepthImage | None:
        """The depth of an image; None, with the reason in `error` and each kind of reason logged once, without one.

        Args:
            header: The header of the image.
            width: Of the image, pixels.
            height: Of the image, pixels.
        """
        kind, self.error, found = self._find(header, width, height)
        if kind and kind not in self._told:
            self._told.add(kind)
            self._node.get_logger().warning(f"{self._camera}: no positions: {self.error}")
        return found

    def _find(self, header: Header, width: int, height: int) -> tuple[str, str, DepthImage | None]:
        """The kind of fault, the fault in words, and the depth."""
        settings, stamp_ns = self._settings(), header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        nearest = self._buffer.nearest(stamp_ns)
        if nearest is None:
            return "silent", f"nothing has come on {self.topic}{self._other_publishers()}", None
        apart_s = (nearest[0] - stamp_ns) / 1e9
        if abs(apart_s) > settings.tolerance_s:
            return "stamp", (
                f"the depth image nearest in time is {_apart(apart_s)} than the image, and depth_tolerance is "
                f"{settings.tolerance_s:g} s"
            ), None  # fmt: skip
        try:
            message = deserialize_message(nearest[1], Image)
        except Exception as error:
            return "unreadable", f"a depth image could not be read: {type(error).__name__}: {error}", None
        if message.header.frame_id != header.frame_id:
            return "frame", (
                f"the depth is in the frame {message.header.frame_id!r} and the image in {header.frame_id!r}: it must "
                "be registered to the image"
            ), None  # fmt: skip
        if (message.width, message.height) != (width, height):
            return "size", (
                f"the depth has {message.width} x {message.height} pixels and the image {width} x {height}: it must "
                "be registered to the image"
            ), None  # fmt: skip
        try:
            return "", "", depth_image(message, settings.max_pixels, settings.error)
        except InvalidInput as error:
            return "encoding", f"depth: {error}", None

    def _other_publishers(self) -> str:
        """Why publishers of the topic are not heard, "" where there are none of that kind."""
        told = ""
        for publisher in self._node.get_publishers_info_by_topic(self.topic):
            if publisher.topic_type != IMAGE_TYPE:
                told += f"; {qos.full_name(publisher)} publishes it as {publisher.topic_type}, and {IMAGE_TYPE} is read"
            elif reason := qos.incompatibility(publisher, self.topic, self._profile):
                told += f"; {qos.full_name(publisher)}: {reason}"
        return told

    def _on_depth(self, data: bytes) -> None:
        stamp_ns = header_stamp_ns(data)
        if stamp_ns is not None:
            self._buffer.put(stamp_ns, data, self._wanted_ns())


def _apart(seconds: float) -> str:
    return f"{abs(seconds) * 1e3:.1f} ms {'younger' if seconds > 0 else 'older'}"
