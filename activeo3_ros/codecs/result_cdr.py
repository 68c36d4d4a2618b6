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

"""A `Result` to the bytes of a recorded message and back, and the digest of results. Needs rosbags, no ROS.

The digest is SHA-256 over the canonical bytes of each message: its CDR without timings and time of completion, which
two runs cannot have in common. It is taken from the message itself: whoever has just serialized one parses nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from ..assets.resources import message_directory
from ..core import Result
from ..core.camera import CameraModel
from ..core.position import DepthImage
from .result_message import MessageLibrary, to_message, track_array
from .video_packets import DEFINITIONS

RESULT_TYPE = "activeo3_ros/msg/PerceptionResult"
TRACKS_TYPE = "activeo3_ros/msg/TrackArray"
FIELDS_SINCE_0_1 = frozenset(
    {
        "Detection.carried",
        "Detection.existence",
        "GroundingBox.detection",
        "InstanceMask.detection",
        "PerceptionResult.regions_age_ms",
    }
)
"""The fields that version 0.1 did not have: a digest with these left out equals the digest of 0.1."""


def typestore() -> Typestore:
    """ROS 2's common message types, those of video topics, and ours."""
    return _typestore(frozenset())


@lru_cache(maxsize=4)
def _typestore(left_out: frozenset[str]) -> Typestore:
    """The same with fields left out of our types."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for name, definition in DEFINITIONS.items():
        types.update(get_types_from_msg(definition, name))
    for path in sorted(message_directory().glob("*.msg")):
        found = get_types_from_msg(path.read_text(encoding="utf-8"), f"activeo3_ros/msg/{path.stem}")
        for name, (constants, fields) in found.items():
            types[name] = constants, [field for field in fields if f"{path.stem}.{field[0]}" not in left_out]
    store.register(types)
    return store


def result_message(result: Result, camera: str, stamp_ns: int, frame_id: str) -> Any:
    """The `PerceptionResult` of a frame of a bag, as rosbags' class.

    `completed` is when a node that took the frame up at its stamp would have been done: in a replay nobody waits.

    Args:
        result: The result of the frame.
        camera: The name of its camera.
        stamp_ns: The stamp of its image, nanoseconds.
        frame_id: The coordinate frame of its image.
    """
    header = typestore().types["std_msgs/msg/Header"](stamp=_time(stamp_ns), frame_id=frame_id)
    completed = _time(stamp_ns + round(result.timings_ms.get("total", 0.0) * 1e6))
    return to_message(result, _library(), camera, header, completed)


def tracks_message(result: Result, header: Any, camera: CameraModel | None, depth: DepthImage | None) -> Any:
    """The `TrackArray` of a frame of a bag, as rosbags' class; the arguments are those of `track_array`."""
    return track_array(result, _library(), header, _time, camera, depth)


def to_cdr(message: Any, message_type: str = RESULT_TYPE) -> bytes:
    """The CDR bytes of a message of rosbags' class."""
    return bytes(typestore().serialize_cdr(message, message_type))


def from_cdr(cdr: bytes) -> Any:
    """The `PerceptionResult`, of rosbags' class, in CDR bytes."""
    return typestore().deserialize_cdr(cdr, RESULT_TYPE)


def canonical_cdr(message: Any, left_out: Collection[str] = ()) -> bytes:
    """The part of a result that two runs have in common: its CDR without timings and time of completion.

    Args:
        message: A `PerceptionResult` of rosbags' class.
        left_out: More fields to leave out, such as `FIELDS_SINCE_0_1`.
    """
    message = replace(message, timings=[], completed=_time(0))
    return bytes(_typestore(frozenset(left_out)).serialize_cdr(message, RESULT_TYPE))


def result_digest(messages: Iterable[Any], left_out: Collection[str] = ()) -> str:
    """SHA-256, in hexadecimal, of the canonical bytes of results in their order, as `activeo3 replay` prints it.

    Args:
        messages: `PerceptionResult`s of rosbags' class.
        left_out: Fields to leave out, such as `FIELDS_SINCE_0_1`.
    """
    digest = hashlib.sha256()
    for message in messages:
        digest.update(canonical_cdr(message, left_out))
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _library() -> MessageLibrary:
    def classes(package: str) -> SimpleNamespace:
        types = typestore().types.items()
        return SimpleNamespace(**{name.rpartition("/")[2]: kind for name, kind in types if name.startswith(package)})

    return MessageLibrary(
        classes("activeo3_ros/"), lambda data: np.frombuffer(data, np.uint8), classes("geometry_msgs/")
    )


def _time(nanoseconds: int) -> Any:
    return typestore().types["builtin_interfaces/msg/Time"](*divmod(nanoseconds, 1_000_000_000))
