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

"""Publishes results as messages on the topics of their cameras."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage
from visualization_msgs.msg import MarkerArray

from activeo3_ros import msg

from ..codecs.result_message import ARRAY_TYPES, array_message, to_message, track_array
from ..core import Status
from . import overlays, qos
from .camera_input import CameraInput
from .jobs import FrameOutcome
from .message_library import RCLPY

try:
    from vision_msgs.msg import Detection2DArray, LabelInfo, VisionInfo
except ImportError:
    Detection2DArray = LabelInfo = VisionInfo = None

try:
    from tier4_perception_msgs.msg import DetectedObjectsWithFeature
except ImportError:
    DetectedObjectsWithFeature = None

try:
    from foxglove_msgs.msg import ImageAnnotations
except ImportError:
    ImageAnnotations = None

ARRAYS = {name: getattr(msg, kind) for name, kind in ARRAY_TYPES.items()}
"""Types of the topics that carry one list of a result, by the name of the topic, of the list and of the field."""


@dataclass(frozen=True)
class Pipeline:
    """What finds the detections. method: for people. names: of the classes; empty where it has no fixed ones."""

    method: str = ""
    names: tuple[str, ...] = ()


class ResultPublisher:
    """Publishes `~/CAMERA/result` for every outcome; every other topic is built only for its subscribers.

    Worker threads may publish for different cameras at the same time.
    """

    def __init__(
        self,
        node: Node,
        cameras: Iterable[CameraInput],
        marker_distance_m: Callable[[], float],
        pipeline: Callable[[], Pipeline] = Pipeline,
    ) -> None:
        """Create the publishers of every camera.

        Args:
            node: The node whose topics these are.
            cameras: The cameras; their camera_info and depth place markers and tracks.
            marker_distance_m: Distance of RViz markers from the camera, metres, read at each frame.
            pipeline: What finds the detections, read at each frame.
        """
        self._node = node
        self._pipeline = pipeline
        self._marker_distance_m = marker_distance_m
        self._topics = {camera.name: _CameraTopics(node, camera) for camera in cameras}

    def message(self, outcome: FrameOutcome) -> msg.PerceptionResult:
        """The result as a message, with the header of its image, completed now."""
        completed = self._node.get_clock().now().to_msg()
        return to_message(outcome.result, RCLPY, outcome.camera, outcome.header, completed)

    def publish(self, outcome: FrameOutcome) -> None:
        """Publish the result of one frame, first our own messages, then what other tools show."""
        topics, result = self._topics[outcome.camera], self.message(outcome)
        topics.publish_result(result)
        topics.publish_tracks(outcome)
        try:
            topics.publish_information(outcome, result, self._pipeline())
            topics.publish_overlays(outcome, result, self._marker_distance_m())
        except Exception as error:
            # What robots act on is out; a picture that cannot be drawn takes nothing of that back.
            self._node.get_logger().error(f"{outcome.camera}: could not be drawn: {type(error).__name__}: {error}")


class _CameraTopics:
    """The publishers of one camera."""

    def __init__(self, node: Node, camera: CameraInput) -> None:
        def publisher(kind: Any, name: str) -> Publisher[Any]:
            return qos.create_publisher(node, kind, f"~/{camera.name}/{name}", qos.RESULTS, camera.group)

        def latched(kind: Any, name: str) -> Publisher[Any] | None:
            topic = f"~/{camera.name}/{name}"
            return qos.create_publisher(node, kind, topic, qos.STATUS, camera.group) if kind else None

        self._camera = camera
        self._result = publisher(msg.PerceptionResult, "result")
        self._arrays = {name: publisher(kind, name) for name, kind in ARRAYS.items()}
        self._tracks = publisher(msg.TrackArray, "tracks")
        self._annotated = publisher(CompressedImage, "annotated/compressed")
        self._markers = publisher(MarkerArray, "markers")
        self._detections_2d = publisher(Detection2DArray, "detections_2d") if Detection2DArray else None
        self._rois = publisher(DetectedObjectsWithFeature, "rois") if DetectedObjectsWithFeature else None
        self._annotations = publisher(ImageAnnotations, "annotations") if ImageAnnotations else None
        self._vision_info, self._label_info = latched(VisionInfo, "vision_info"), latched(LabelInfo, "label_info")
        self._labels_topic = node.resolve_topic_name(f"~/{camera.name}/label_info")
        self._informed: tuple[str, Sequence[str], int] | None = None

    def publish_result(self, result: msg.PerceptionResult) -> None:
        """The result, and the lists in it that have subscribers of their own.

        Lists are published only where the frame was perceived: an empty list must not be mistaken for an empty road.
        """
        self._result.publish(result)
        if _is_perceived(result):
            for name, publisher in self._arrays.items():
                if _has_subscriber(publisher):
                    publisher.publish(array_message(name, result, RCLPY))

    def publish_tracks(self, outcome: FrameOutcome) -> None:
        """The tracks, where they have a subscriber and the frame was perceived."""
        if outcome.result.status is not Status.FAILED and _has_subscriber(self._tracks):
            result, header = outcome.result, outcome.header
            geometry = self._camera.geometry(header, result.width, result.height) if result.tracks else (None, None)
            self._tracks.publish(track_array(result, RCLPY, header, _stamp, *geometry))

    def publish_information(self, outcome: FrameOutcome, result: msg.PerceptionResult, pipeline: Pipeline) -> None:
        """How to read `detections_2d`, whenever that changes: late subscribers get the newest too."""
        if self._vision_info is None or self._label_info is None or not _is_perceived(result):
            return
        query = outcome.result.query
        information = (pipeline.method, query.classes or pipeline.names, query.revision)
        if information != self._informed:
            self._informed = information
            method, names, revision = information
            self._label_info.publish(overlays.label_info(result.header, names))
            self._vision_info.publish(overlays.vision_info(result.header, method, self._labels_topic, revision))

    def publish_overlays(self, outcome: FrameOutcome, result: msg.PerceptionResult, marker_distance_m: float) -> None:
        """The boxes for other tools, the annotated picture and the markers, where they have subscribers."""
        if self._detections_2d is not None and _is_perceived(result) and _has_subscriber(self._detections_2d):
            self._detections_2d.publish(overlays.detections_2d(result))
        if self._rois is not None and _is_perceived(result) and _has_subscriber(self._rois):
            self._rois.publish(overlays.rois(result))
        if self._annotations is not None and _is_perceived(result) and _has_subscriber(self._annotations):
            self._annotations.publish(overlays.image_annotations(result))
        if outcome.frame is not None and _has_subscriber(self._annotated):
            self._annotated.publish(overlays.annotated(outcome.frame.image, outcome.header, outcome.result))
        if self._camera.calibrations.newest is not None and _has_subscriber(self._markers):
            model = self._camera.model(outcome.header, result.image_width, result.image_height)
            self._markers.publish(overlays.markers(result, model, marker_distance_m, outcome.result.tracks))


def _stamp(nanoseconds: int) -> Time:
    seconds, rest = divmod(nanoseconds, 10**9)
    return Time(sec=seconds, nanosec=rest)


def _is_perceived(result: msg.PerceptionResult) -> bool:
    return bool(result.status != msg.PerceptionResult.STATUS_FAILED)


def _has_subscriber(publisher: Publisher[Any]) -> bool:
    return publisher.get_subscription_count() > 0
