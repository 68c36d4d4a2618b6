"""The topics of one camera: what is read, what is published, and what is drawn only while somebody looks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import CallbackGroup
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import MarkerArray

from activeo3_ros import msg

from ..codecs.result_message import array_message, to_message
from . import overlays, qos
from .frame_counters import Gaps
from .message_types import RCLPY
from .scheduling import FrameOutcome

try:
    from vision_msgs.msg import Detection2DArray
except ImportError:
    Detection2DArray = None

ARRAYS = {
    "detections": msg.DetectionArray,
    "groundings": msg.GroundingBoxArray,
    "masks": msg.InstanceMaskArray,
    "regions": msg.ZoomRegionArray,
}


class CameraTopics:
    """Subscriptions and publishers of one camera. `publish` may be called from any one thread."""

    def __init__(
        self,
        node: Node,
        camera: str,
        transport: str,
        group: CallbackGroup,
        on_image: Callable[[str, bytes], None],
    ) -> None:
        """on_image: called with the camera's name and the serialized message of `image_type`."""
        self.camera = camera
        self.image_type = Image if transport == "raw" else CompressedImage
        self.image_topic = node.resolve_topic_name(
            f"{camera}/image_raw" if transport == "raw" else f"{camera}/image_raw/compressed"
        )
        self.lost = 0
        """Images that the middleware says it lost on the way."""
        self.gaps = Gaps()
        """Images that were sent and never received, those that the middleware does not tell of included."""
        self._node = node
        self._group = group
        self._camera_info: CameraInfo | None = None
        # Serialized: a frame that is replaced before its turn is never unpacked.
        self._on_image = on_image
        self.image_profile = self._subscribe(self.image_type, self.image_topic, self._on_message, raw=True)
        self._subscribe(CameraInfo, f"{camera}/camera_info", self._on_camera_info)
        self._result = self._publisher(msg.PerceptionResult, "result")
        self._arrays = {name: self._publisher(kind, name) for name, kind in ARRAYS.items()}
        self._annotated = self._publisher(CompressedImage, "annotated/compressed")
        self._markers = self._publisher(MarkerArray, "markers")
        self._detections_2d = self._publisher(Detection2DArray, "detections_2d") if Detection2DArray else None

    def publish(self, outcome: FrameOutcome, marker_distance_m: float) -> None:
        """The result of one frame, first what robots act on, then what people look at.

        The lists go out only where the frame was perceived: an empty list must not be mistaken for an empty road.
        """
        completed = self._node.get_clock().now().to_msg()
        result = to_message(outcome.result, RCLPY, self.camera, outcome.header, completed)
        self._result.publish(result)
        if result.status != msg.PerceptionResult.STATUS_FAILED:
            for name, publisher in self._arrays.items():
                publisher.publish(array_message(name, result, RCLPY))
        try:
            self._show(outcome, result, marker_distance_m)
        except Exception as error:
            # What robots act on is out; a picture that cannot be drawn takes nothing of it back.
            self._node.get_logger().error(f"{self.camera}: could not be drawn: {type(error).__name__}: {error}")

    def _show(self, outcome: FrameOutcome, result: msg.PerceptionResult, marker_distance_m: float) -> None:
        """What somebody looks at right now."""
        perceived = result.status != msg.PerceptionResult.STATUS_FAILED
        if perceived and self._detections_2d is not None and _watched(self._detections_2d):
            self._detections_2d.publish(overlays.detections_2d(result))
        if outcome.frame is not None and _watched(self._annotated):
            self._annotated.publish(overlays.annotated(outcome.frame.image, outcome.header, outcome.result))
        if self._camera_info is not None and _watched(self._markers):
            self._markers.publish(overlays.markers(result, self._camera_info, marker_distance_m))

    def image_publishers(self) -> list[str]:
        """The names of the nodes whose images should come in."""
        return qos.publishers(self._node, self.image_topic, self.image_profile)

    def _on_message(self, data: bytes, info: Mapping[str, Any]) -> None:
        # Older releases do not say who sent it: there, one sender is taken to be all.
        sender = bytes(info["publisher_gid"]["data"]) if "publisher_gid" in info else None
        self.gaps.note(sender, info.get("publication_sequence_number"))
        self._on_image(self.camera, data)

    def _on_camera_info(self, info: CameraInfo) -> None:
        self._camera_info = info

    def _subscribe(self, kind: Any, topic: str, callback: Callable[..., None], raw: bool = False) -> QoSProfile:
        """The quality of service with what overrides it."""
        profile = copy.copy(qos.IMAGES)
        topic = self._node.resolve_topic_name(topic)
        events = SubscriptionEventCallbacks(
            incompatible_qos=qos.warn_incompatible_publishers(self._node, topic, profile),
            message_lost=self._on_lost if raw else None,
        )
        self._node.create_subscription(
            kind,
            topic,
            callback,
            profile,
            callback_group=self._group,
            event_callbacks=events,
            qos_overriding_options=qos.overridable(),
            raw=raw,
        )
        return profile

    def _on_lost(self, event: Any) -> None:
        self.lost = event.total_count

    def _publisher(self, kind: Any, name: str) -> Publisher[Any]:
        return create_publisher(self._node, kind, f"~/{self.camera}/{name}", qos.RESULTS, self._group)


def create_publisher(node: Node, kind: Any, topic: str, profile: QoSProfile, group: CallbackGroup) -> Publisher[Any]:
    """A publisher whose quality of service can be overridden and that warns of subscribers that cannot hear it."""
    # rclpy writes the overrides into the profile.
    profile, topic = copy.copy(profile), node.resolve_topic_name(topic)
    return node.create_publisher(
        kind,
        topic,
        profile,
        callback_group=group,
        event_callbacks=PublisherEventCallbacks(
            incompatible_qos=qos.warn_incompatible_subscribers(node, topic, profile)
        ),
        qos_overriding_options=qos.overridable(),
    )


def create_diagnostics_publisher(node: Node, group: CallbackGroup) -> Publisher[Any]:
    """The one publisher that is not a camera's."""
    return create_publisher(node, DiagnosticArray, "/diagnostics", qos.STATUS, group)


def _watched(publisher: Publisher[Any]) -> bool:
    return publisher.get_subscription_count() > 0
