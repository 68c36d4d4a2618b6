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

"""A `Result` to a `PerceptionResult` message and back, whichever library makes the message classes.

The node gives rclpy's `activeo3_ros.msg`; bags give the classes that rosbags makes without ROS (`codecs.result_cdr`).
Boxes stay in source pixels; a score that does not exist stays NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import Box, Cost, Detection, Grounding, InstanceMask, Query, Region, Result, Status, Track
from ..core.camera import CameraModel, Points
from ..core.position import DepthImage, Position, positions
from ..core.query import MAX_TEXT_LENGTH
from ..core.results import NO_DETECTION
from . import rle

MAX_TEXT = 16_384
"""Characters of a text that a message carries."""
ARRAY_TYPES = {
    "detections": "DetectionArray",
    "groundings": "GroundingBoxArray",
    "masks": "InstanceMaskArray",
    "regions": "ZoomRegionArray",
}
"""The lists of a result that are messages of their own, by their field, which is also the name of their topic."""


@dataclass(frozen=True)
class MessageLibrary:
    """The message classes of `activeo3_ros/msg` as one library makes them.

    Attributes:
        types: Has the classes as attributes: `types.PerceptionResult`, `types.Detection`, ...
        as_bytes: Turns bytes into the kind of sequence that the library wants in a field `uint8[]`.
        geometry: Has the classes of `geometry_msgs/msg` in the same way.
    """

    types: Any
    as_bytes: Callable[[bytes], Any]
    geometry: Any


def to_message(result: Result, library: MessageLibrary, camera: str, header: Any, completed: Any) -> Any:
    """A `PerceptionResult` of everything known about one frame.

    Coordinates and scores become float32. The query becomes one text: the phrase, or the names of the classes. Texts
    are cleaned (see `clean`). The status message holds the notes; `Result.notes` itself is not carried.

    Args:
        result: The result of the frame.
        library: Makes the message.
        camera: The name of the camera.
        header: The `std_msgs/Header` of the image.
        completed: A `builtin_interfaces/Time`: when the work on the frame ended.

    Returns:
        The message. Its lists may be shared by the messages that `array_message` makes of it.
    """
    return library.types.PerceptionResult(
        header=header,
        camera=camera,
        status=int(result.status),
        status_message=clean(result.status_message),
        query=clean(result.query.text or ", ".join(result.query.classes)),
        query_revision=result.query.revision,
        image_width=result.width,
        image_height=result.height,
        regions=region_messages(result.regions, library),
        regions_age_ms=float(result.regions_age_ms),
        detections=[_detection_message(found, library.types) for found in result.detections],
        groundings=[_grounding_message(found, library.types) for found in result.groundings],
        masks=[_mask_message(found, library) for found in result.masks],
        answer=clean(result.answer or ""),
        reasoning=clean(result.reasoning),
        timings=[
            library.types.StageTiming(stage=clean(stage), milliseconds=float(ms))
            for stage, ms in result.timings_ms.items()
        ],
        views=result.cost.views,
        pixels=result.cost.pixels,
        tokens=result.cost.tokens,
        completed=completed,
    )


def from_message(message: Any) -> Result:
    """The `Result` in a `PerceptionResult`, whichever library made it.

    Fields that version 0.1 did not have may be missing from the message. The result's query has the text that was
    asked, cut to the length that a query may have, and no classes; its cost has no calls.

    Raises:
        ValueError: A mask or an index is damaged, or the status is unknown.
    """
    return Result(
        message.image_width,
        message.image_height,
        Query(message.query[:MAX_TEXT_LENGTH], revision=message.query_revision),
        Status(message.status),
        message.status_message,
        regions=tuple(Region(_box(r.box), r.label, r.score, r.zoom) for r in message.regions),
        detections=tuple(
            Detection(
                d.label,
                d.score,
                _box(d.box),
                d.region,
                d.track_id,
                existence=getattr(d, "existence", math.nan),
                carried=getattr(d, "carried", False),
            )
            for d in message.detections
        ),
        groundings=tuple(
            Grounding(g.phrase, g.score, _box(g.box), g.region, g.text, getattr(g, "detection", NO_DETECTION))
            for g in message.groundings
        ),
        masks=tuple(
            InstanceMask(m.label, m.score, _box(m.box), rle.decode(m), m.region, getattr(m, "detection", NO_DETECTION))
            for m in message.masks
        ),
        answer=message.answer or None,
        reasoning=message.reasoning,
        timings_ms={timing.stage: timing.milliseconds for timing in message.timings},
        cost=Cost(message.views, message.pixels, message.tokens),
        regions_age_ms=getattr(message, "regions_age_ms", 0.0),
    )


def array_message(name: str, result_message: Any, library: MessageLibrary) -> Any:
    """One list of a `PerceptionResult` as a message of its own; nothing is converted again.

    Args:
        name: The list, a key of `ARRAY_TYPES`.
        result_message: The message that has the list.
        library: Makes the message, the same as for the result.

    Returns:
        A `DetectionArray`, `GroundingBoxArray`, `InstanceMaskArray` or `ZoomRegionArray` with the result's header.
    """
    array_type = getattr(library.types, ARRAY_TYPES[name])
    return array_type(header=result_message.header, **{name: getattr(result_message, name)})


def track_array(
    result: Result,
    library: MessageLibrary,
    header: Any,
    stamp: Callable[[int], Any],
    camera: CameraModel | None = None,
    depth: DepthImage | None = None,
) -> Any:
    """A `TrackArray` of the tracks of a result.

    A position is measured: a track that this frame does not show, whose box is a prediction, has none.

    Args:
        result: The result of the frame.
        library: Makes the message.
        header: The `std_msgs/Header` of the image.
        stamp: Turns nanoseconds into a `builtin_interfaces/Time`.
        camera: The calibration of the image; None: bearings and positions are NaN.
        depth: Of the image; None: positions are NaN.
    """
    taken_ns = int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)
    places: dict[str, Position | None] = {}
    if camera is not None and depth is not None:
        shown = [track for track in result.tracks if track.last_seen_ns == taken_ns]
        found = positions([track.box for track in shown], [track.sigma for track in shown], depth, camera)
        places = {track.track_id: place for track, place in zip(shown, found, strict=True)}
    tracks = [_track_message(track, library, stamp, camera, places.get(track.track_id)) for track in result.tracks]
    return library.types.TrackArray(header=header, tracks=tracks)


def region_messages(regions: Sequence[Region], library: MessageLibrary) -> list[Any]:
    """`ZoomRegion` messages of regions in source pixels, numbered in their order."""
    return [
        library.types.ZoomRegion(
            index=index,
            box=_box_message(region.box, library.types),
            label=clean(region.label),
            score=float(region.score),
            zoom=float(region.zoom),
        )
        for index, region in enumerate(regions)
    ]


def clean(text: str) -> str:
    """Text that every middleware can carry: valid UTF-8 without NUL, at most `MAX_TEXT` characters."""
    return text[:MAX_TEXT].replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def _detection_message(found: Detection, types: Any) -> Any:
    return types.Detection(
        **_common_fields(found, types),
        label=clean(found.label),
        existence=float(found.existence),
        carried=found.carried,
        track_id=clean(found.track_id),
    )


def _track_message(
    track: Track,
    library: MessageLibrary,
    stamp: Callable[[int], Any],
    camera: CameraModel | None,
    place: Position | None,
) -> Any:
    bearing, sigma = (
        (np.full(3, math.nan), math.nan) if camera is None else camera.bearing(track.box.center, track.sigma)
    )
    point, covariance = (
        (np.full(3, math.nan), np.full(9, math.nan)) if place is None else (place.point, place.covariance.ravel())
    )
    return library.types.Track(
        track_id=clean(track.track_id),
        label=clean(track.label),
        existence=float(track.existence),
        box=_box_message(track.box, library.types),
        velocity_x=float(track.velocity[0]),
        velocity_y=float(track.velocity[1]),
        bearing=library.geometry.Vector3(**_axes(bearing)),
        bearing_sigma=float(sigma),
        has_position=place is not None,
        position=library.geometry.Point(**_axes(point)),
        position_covariance=covariance,
        first_seen=stamp(track.first_seen_ns),
        last_seen=stamp(track.last_seen_ns),
        zoom=float(track.zoom),
        text=clean(track.text),
    )


def _axes(vector: Points) -> dict[str, float]:
    return dict(zip("xyz", vector.tolist(), strict=True))


def _grounding_message(found: Grounding, types: Any) -> Any:
    return types.GroundingBox(
        **_common_fields(found, types),
        phrase=clean(found.phrase),
        detection=found.detection,
        text=clean(found.text),
    )


def _mask_message(found: InstanceMask, library: MessageLibrary) -> Any:
    height, width = found.mask.shape
    return library.types.InstanceMask(
        **_common_fields(found, library.types),
        label=clean(found.label),
        detection=found.detection,
        height=height,
        width=width,
        encoding=rle.ENCODING_RLE,
        data=library.as_bytes(rle.encode_rle(found.mask)),
    )


def _common_fields(found: Detection | Grounding | InstanceMask, types: Any) -> dict[str, Any]:
    return {"score": float(found.score), "box": _box_message(found.box, types), "region": found.region}


def _box_message(box: Box, types: Any) -> Any:
    return types.BoundingBox(x=float(box.x), y=float(box.y), width=float(box.width), height=float(box.height))


def _box(message: Any) -> Box:
    return Box(message.x, message.y, message.width, message.height)
