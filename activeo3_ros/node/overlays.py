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

"""Results for other tools: the annotated picture, RViz markers, and boxes of `vision_msgs`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from activeo3_ros import msg

from ..codecs.picture import Colour, caption, draw, track_colour
from ..core import Result, Track
from ..core.camera import CameraModel

# BGR
REGION_COLOUR = (0, 200, 255)
DETECTION_COLOUR = (80, 220, 60)
GROUNDING_COLOUR = (255, 120, 40)
MAX_WIDTH = 1280
"""Pixels: wider pictures are shrunk to this width before they are drawn on."""
JPEG_QUALITY = 80
AUTOWARE_LABELS = {
    "car": "CAR",
    "truck": "TRUCK",
    "bus": "BUS",
    "trailer": "TRAILER",
    "motorcycle": "MOTORCYCLE",
    "bicycle": "BICYCLE",
    "person": "PEDESTRIAN",
    "pedestrian": "PEDESTRIAN",
}
"""Constants of `autoware_perception_msgs/ObjectClassification` by names of classes; all others are UNKNOWN there."""
UNLABELED = 65535
"""The class id that `vision_msgs/VisionClass` keeps for what has no class."""
OUTLINE_PX, FONT_PX = 2.0, 16.0
"""Thickness of outlines and height of letters in annotations, source pixels."""
MARKER_LIFETIME_S = 2
"""Seconds without a new result after which RViz removes markers, so that old boxes do not look like new ones."""


def annotated(image: npt.NDArray[np.uint8], header: Header, result: Result) -> CompressedImage:
    """Draw a result into its frame.

    Args:
        image: The frame, `(height, width, 3)` uint8 BGR.
        header: The header of its message.
        result: The result, in source pixels.

    Returns:
        A JPEG of at most `MAX_WIDTH` pixels width.
    """
    scale = min(1.0, MAX_WIDTH / image.shape[1])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    shrunk = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    canvas = draw(shrunk, result)
    _, data = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return CompressedImage(header=header, format="bgr8; jpeg compressed bgr8", data=data.tobytes())


def markers(
    result: msg.PerceptionResult, camera: CameraModel | None, distance_m: float, tracks: Sequence[Track] = ()
) -> MarkerArray:
    """Draw boxes as outlines, and the ways of tracks, in the camera's optical frame on a plane in front of it.

    A box with a corner that the camera cannot see is left out.

    Args:
        result: The result, in source pixels.
        camera: The calibration of the image; None: no box is drawn, and those of the last result go.
        distance_m: Distance of the plane, metres.
        tracks: Of the result; each is a line through its last centres.
    """
    clear = Marker(header=result.header, action=Marker.DELETEALL)
    if camera is None:
        return MarkerArray(markers=[clear])
    boxes = _labelled_boxes(result)
    drawn = []
    for index, (namespace, box, text, colour) in enumerate(boxes):
        corners = _corners(box, camera, distance_m)
        if not corners:
            continue
        drawn.append(
            _marker(
                result.header,
                namespace,
                index,
                Marker.LINE_STRIP,
                colour,
                points=[*corners, corners[0]],
            )
        )
        if text:
            label = _marker(
                result.header,
                namespace,
                len(boxes) + index,
                Marker.TEXT_VIEW_FACING,
                colour,
                text=text,
            )
            label.pose.position = corners[0]
            drawn.append(label)
    for track in tracks:
        points = _points(track.path, camera, distance_m) if len(track.path) > 1 else []
        if points:
            colour = track_colour(track.track_id)
            drawn.append(_marker(result.header, "tracks", len(drawn), Marker.LINE_STRIP, colour, points=points))
    return MarkerArray(markers=[clear, *drawn])


def _labelled_boxes(result: msg.PerceptionResult) -> list[tuple[str, msg.BoundingBox, str, Colour]]:
    """Everything in a result that has a box: what it is, the box, its label ("" for none), its colour."""
    boxes = [("regions", r.box, r.label, REGION_COLOUR) for r in result.regions]
    grounded = {g.detection for g in result.groundings}  # one label an object
    boxes += [
        ("detections", d.box, "" if index in grounded else caption(d.label, d.score), _colour(d, DETECTION_COLOUR))
        for index, d in enumerate(result.detections)
    ]
    return boxes + [("groundings", g.box, g.text or g.phrase, GROUNDING_COLOUR) for g in result.groundings]


def image_annotations(result: msg.PerceptionResult) -> Any:
    """The boxes as `foxglove_msgs/ImageAnnotations`, which Foxglove draws over the image of the same stamp."""
    from foxglove_msgs.msg import Color, ImageAnnotations, Point2, PointsAnnotation, TextAnnotation

    drawn, stamp = ImageAnnotations(), result.header.stamp
    for _, box, text, (blue, green, red) in _labelled_boxes(result):
        colour = Color(r=red / 255, g=green / 255, b=blue / 255, a=1.0)
        right, bottom = box.x + box.width, box.y + box.height
        corners = [Point2(x=x, y=y) for x, y in ((box.x, box.y), (right, box.y), (right, bottom), (box.x, bottom))]
        outline = PointsAnnotation(
            timestamp=stamp, type=PointsAnnotation.LINE_LOOP, points=corners, outline_color=colour
        )
        outline.thickness = OUTLINE_PX
        drawn.points.append(outline)
        if text:
            label = TextAnnotation(timestamp=stamp, position=corners[0], text=text, text_color=colour)
            label.font_size, label.background_color = FONT_PX, Color(r=0.0, g=0.0, b=0.0, a=0.5)
            drawn.texts.append(label)
    return drawn


def detections_2d(result: msg.PerceptionResult) -> Any:
    """The detections as `vision_msgs/Detection2DArray`: centre and size in source pixels.

    `class_id` is the name of the class, as in `class_map` of `label_info`. `score` is never NaN: without a score it is
    the existence, without that either 0. `pose` says nothing.
    """
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

    array = Detection2DArray(header=result.header)
    for found in result.detections:
        detection = Detection2D(header=result.header, id=found.track_id)
        detection.bbox.center.position.x = found.box.x + found.box.width / 2
        detection.bbox.center.position.y = found.box.y + found.box.height / 2
        detection.bbox.size_x, detection.bbox.size_y = found.box.width, found.box.height
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = found.label, _known_score(found)
        detection.results.append(hypothesis)
        array.detections.append(detection)
    return array


def _known_score(found: msg.Detection) -> float:
    """A number from 0 to 1, as consumers that filter by a threshold need it: 0 where nobody gave one."""
    known = next((value for value in (found.score, found.existence) if math.isfinite(value)), 0.0)
    return min(1.0, max(0.0, float(known)))


def vision_info(header: Header, method: str, labels_topic: str, revision: int) -> Any:
    """How to read `detections_2d`, as `vision_msgs/VisionInfo`.

    Args:
        header: Of the first image that it holds for.
        method: The pipeline, for people.
        labels_topic: Full name of the topic with the names of the classes.
        revision: Of the query: with it the names may change.
    """
    from vision_msgs.msg import VisionInfo

    return VisionInfo(header=header, method=method, database_location=labels_topic, database_version=revision)


def label_info(header: Header, names: Sequence[str]) -> Any:
    """The names of the classes in their order, as `vision_msgs/LabelInfo`.

    Its `threshold` is 0: presets have thresholds by class and size, which are applied already.

    Args:
        header: Of the first image that they hold for.
        names: Of the classes; empty where what is found has no fixed names.
    """
    from vision_msgs.msg import LabelInfo, VisionClass

    classes = [VisionClass(class_id=number, class_name=name) for number, name in enumerate(names[:UNLABELED])]
    return LabelInfo(header=header, class_map=classes)


def rois(result: msg.PerceptionResult) -> Any:
    """The detections as `tier4_perception_msgs/DetectedObjectsWithFeature`: whole pixels around each box.

    Kinematics and shape are empty: they say of themselves that they are not available.
    """
    from autoware_perception_msgs.msg import ObjectClassification
    from tier4_perception_msgs.msg import DetectedObjectsWithFeature, DetectedObjectWithFeature

    array = DetectedObjectsWithFeature(header=result.header)
    for found in result.detections:
        roi = DetectedObjectWithFeature()
        left, top = max(0, math.floor(found.box.x)), max(0, math.floor(found.box.y))
        right = min(result.image_width, math.ceil(found.box.x + found.box.width))
        bottom = min(result.image_height, math.ceil(found.box.y + found.box.height))
        if right <= left or bottom <= top:
            continue  # a RegionOfInterest of no pixels means the whole image
        region = roi.feature.roi
        region.x_offset, region.y_offset, region.width, region.height = left, top, right - left, bottom - top
        label = getattr(ObjectClassification, AUTOWARE_LABELS.get(found.label.lower(), "UNKNOWN"))
        roi.object.existence_probability = _known_score(found)
        roi.object.classification = [ObjectClassification(label=label, probability=_known_score(found))]
        array.feature_objects.append(roi)
    return array


def _colour(detection: msg.Detection, without_track: Colour) -> Colour:
    return track_colour(detection.track_id) if detection.track_id else without_track


def _corners(box: msg.BoundingBox, camera: CameraModel, distance_m: float) -> list[Point]:
    """A box's four corners on the plane `distance_m` ahead, metres in the optical frame; none if one has no ray."""
    right, bottom = box.x + box.width, box.y + box.height
    return _points([(box.x, box.y), (right, box.y), (right, bottom), (box.x, bottom)], camera, distance_m)


def _points(pixels: Sequence[tuple[float, float]], camera: CameraModel, distance_m: float) -> list[Point]:
    """Source pixels on the plane `distance_m` ahead, metres in the optical frame; none if one has no ray."""
    rays = camera.rays(pixels)
    if not np.isfinite(rays).all():
        return []
    return [Point(x=x, y=y, z=z) for x, y, z in (rays * distance_m).tolist()]


def _marker(
    header: Header,
    namespace: str,
    number: int,
    kind: int,
    colour: tuple[int, int, int],
    **fields: Any,
) -> Marker:
    marker = Marker(header=header, ns=namespace, id=number, type=kind, action=Marker.ADD, **fields)
    marker.pose.orientation.w = 1.0
    marker.scale.x, marker.scale.z = (
        0.03,
        0.3,
    )  # metres: width of a line, height of a letter
    marker.color = ColorRGBA(b=colour[0] / 255, g=colour[1] / 255, r=colour[2] / 255, a=1.0)
    marker.lifetime = Duration(sec=MARKER_LIFETIME_S)
    return marker
