"""Results to the bytes of a recorded message and back, without ROS."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..codecs.result_message import ResultMessages
from ..codecs.rle import decode
from ..core import Box, Cost, Detection, Grounding, InstanceMask, Query, Region, Result, Status
from .messages import RESULT_TYPE, typestore


def serialize_result(result: Result, camera: str, stamp_ns: int, frame_id: str) -> bytes:
    """A `PerceptionResult` in CDR, with the header of the image that it is about."""
    return to_cdr(result_message(result, camera, stamp_ns, frame_id))


def result_message(result: Result, camera: str, stamp_ns: int, frame_id: str) -> Any:
    """The `PerceptionResult` of a frame of a bag, as rosbags' class.

    `completed` is when a node that took the frame up at its stamp would have been done: in a replay nobody waits.
    """
    header = typestore().types["std_msgs/msg/Header"](stamp=_time(stamp_ns), frame_id=frame_id)
    completed = _time(stamp_ns + round(result.timings_ms.get("total", 0.0) * 1e6))
    return _result_messages().result(camera, header, result, completed)


def to_cdr(message: Any) -> bytes:
    """The CDR bytes of a `PerceptionResult` of rosbags' class."""
    return bytes(typestore().serialize_cdr(message, RESULT_TYPE))


def from_cdr(cdr: bytes) -> Any:
    """The `PerceptionResult`, of rosbags' class, in CDR bytes."""
    return typestore().deserialize_cdr(cdr, RESULT_TYPE)


def canonical_cdr(message: Any) -> bytes:
    """The part of a result that two runs have in common: its CDR without timings and time of completion."""
    return to_cdr(replace(message, timings=[], completed=_time(0)))


@lru_cache(maxsize=1)
def _result_messages() -> ResultMessages:
    types = {
        name.rpartition("/")[2]: kind for name, kind in typestore().types.items() if name.startswith("activeo3_ros/")
    }
    return ResultMessages(SimpleNamespace(**types), lambda data: np.frombuffer(data, np.uint8))


def _time(nanoseconds: int) -> Any:
    return typestore().types["builtin_interfaces/msg/Time"](*divmod(nanoseconds, 1_000_000_000))


def result_from_message(message: Any) -> Result:
    """The `Result` in a `PerceptionResult`, whichever library read it. Coordinates and scores are float32 by then."""
    return Result(
        message.image_width,
        message.image_height,
        Query(message.query, revision=message.query_revision),
        Status(message.status),
        message.status_message,
        regions=tuple(Region(_box(r.box), r.label, r.score, r.zoom) for r in message.regions),
        detections=tuple(Detection(d.label, d.score, _box(d.box), d.region, d.track_id) for d in message.detections),
        groundings=tuple(Grounding(g.phrase, g.score, _box(g.box), g.region, g.text) for g in message.groundings),
        masks=tuple(InstanceMask(m.label, m.score, _box(m.box), decode(m), m.region) for m in message.masks),
        answer=message.answer or None,
        reasoning=message.reasoning,
        timings_ms={timing.stage: timing.milliseconds for timing in message.timings},
        cost=Cost(message.views, message.pixels, message.tokens),
    )


def _box(box: Any) -> Box:
    return Box(box.x, box.y, box.width, box.height)
