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

"""Image messages as bytes of a recording, to frames and back. Needs no ROS.

The two types of images are parsed here and not by rosbags, so that a replay accepts what the node accepts: rosbags
refuses a string that is not UTF-8, or that has no NUL at its end.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..codecs.image_files import JPEG_QUALITY, MAX_IMAGE_PIXELS, Picture
from ..codecs.image_message import compressed_to_bgr, image_to_bgr
from ..codecs.result_cdr import typestore
from ..codecs.video_packets import PACKET_TYPE, VIDEO_TYPE, VIDEO_TYPES, VideoPacket
from ..core import Frame, InvalidInput

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
IMAGE_TYPES = (IMAGE_TYPE, COMPRESSED_TYPE)
ENCAPSULATION_BYTES = 4
TRANSPORTS = ("compressed", "ffmpeg", "foxglove")
"""The last part of the names of topics that image_transport adds to that of the images."""


def serialize_image(image: Picture, stamp_ns: int, frame_id: str) -> bytes:
    """A `sensor_msgs/Image` in CDR.

    Args:
        image: `(h, w, 3)` uint8 BGR.
        stamp_ns: Stamp for its header, nanoseconds.
        frame_id: Coordinate frame for its header.
    """
    store = typestore()
    message = store.types[IMAGE_TYPE](
        header=_header(stamp_ns, frame_id),
        height=image.shape[0],
        width=image.shape[1],
        encoding="bgr8",
        is_bigendian=0,
        step=3 * image.shape[1],
        data=np.ascontiguousarray(image).reshape(-1),
    )
    return bytes(store.serialize_cdr(message, IMAGE_TYPE))


def serialize_jpeg(image: Picture, stamp_ns: int, frame_id: str) -> bytes:
    """A `sensor_msgs/CompressedImage` with a JPEG in CDR; the arguments are those of `serialize_image`."""
    store = typestore()
    done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise InvalidInput(f"a picture of {image.shape[1]} x {image.shape[0]} cannot be written as JPEG")
    message = store.types[COMPRESSED_TYPE](
        header=_header(stamp_ns, frame_id), format="bgr8; jpeg compressed bgr8", data=encoded.reshape(-1)
    )
    return bytes(store.serialize_cdr(message, COMPRESSED_TYPE))


def video_packet(cdr: bytes, message_type: str) -> VideoPacket:
    """The packet in a serialized message of a video topic; `message_type` is one of `VIDEO_TYPES`.

    Raises:
        InvalidInput: The bytes are no message of that type.
    """
    try:
        reader = _CdrReader(cdr)
        stamp_ns = reader.number("i") * 1_000_000_000 + reader.number("I")
        frame_id = reader.text()
        if message_type == VIDEO_TYPE:
            data = reader.octets()
            return VideoPacket(stamp_ns, frame_id, reader.text(), data.tobytes())
        reader.number("i"), reader.number("i")
        codec, number = reader.text(), reader.number("Q")
        reader.number("B"), reader.number("B")
        return VideoPacket(stamp_ns, frame_id, codec, reader.octets().tobytes(), number)
    except (struct.error, ValueError) as error:
        raise InvalidInput(f"a message of {len(cdr)} bytes is not a whole {message_type}: {error}") from error


def serialize_video(packet: VideoPacket, message_type: str, size: tuple[int, int] = (0, 0)) -> bytes:
    """A message of a video topic in CDR.

    Args:
        packet: The packet.
        message_type: One of `VIDEO_TYPES`.
        size: Width and height of the picture in pixels, for those that carry it.
    """
    store, header = typestore(), _header(packet.stamp_ns, packet.frame_id)
    data = np.frombuffer(packet.data, np.uint8)
    if message_type == VIDEO_TYPE:
        message = store.types[VIDEO_TYPE](header.stamp, packet.frame_id, data, packet.codec)
    else:
        number = packet.number or 0
        message = store.types[PACKET_TYPE](header, *size, packet.codec, number, 0, False, data)
    return bytes(store.serialize_cdr(message, message_type))


def _header(stamp_ns: int, frame_id: str) -> Any:
    types = typestore().types
    stamp = types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 1_000_000_000))
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)


def image_message(cdr: bytes, message_type: str) -> Any:
    """A deserialized image message; its strings are read as rclpy reads them.

    Of a message of a video topic only the header: its picture depends on the messages before it (`bags.frames`).

    Raises:
        InvalidInput: The bytes are no message of that type.
    """
    types = typestore().types
    if message_type in VIDEO_TYPES:
        packet = video_packet(cdr, message_type)
        return SimpleNamespace(header=_header(packet.stamp_ns, packet.frame_id))
    try:
        reader = _CdrReader(cdr)
        stamp = types["builtin_interfaces/msg/Time"](reader.number("i"), reader.number("I"))
        header = types["std_msgs/msg/Header"](stamp, reader.text())
        if message_type == COMPRESSED_TYPE:
            return types[COMPRESSED_TYPE](header, reader.text(), reader.octets())
        height, width, encoding = reader.number("I"), reader.number("I"), reader.text()
        is_bigendian, step = reader.number("B"), reader.number("I")
        return types[IMAGE_TYPE](header, height, width, encoding, is_bigendian, step, reader.octets())
    except (struct.error, ValueError) as error:
        raise InvalidInput(f"a message of {len(cdr)} bytes is not a whole {message_type}: {error}") from error


class _CdrReader:
    """Reads one field of a message after the other. Its methods raise `struct.error` or ValueError at the end."""

    def __init__(self, cdr: bytes) -> None:
        if cdr[:2] not in (b"\0\0", b"\0\1") or len(cdr) < ENCAPSULATION_BYTES:
            raise ValueError(f"it begins with {cdr[:ENCAPSULATION_BYTES].hex()!r}, which is not plain CDR")
        self._order = "<" if cdr[1] else ">"
        self._data = memoryview(cdr)[ENCAPSULATION_BYTES:]
        self._at = 0

    def number(self, code: str) -> int:
        """An integer. code: as in `struct`."""
        size = struct.calcsize(code)
        start = self._at + -self._at % size
        (value,) = struct.unpack_from(self._order + code, self._data, start)
        self._at = start + size
        return int(value)

    def text(self) -> str:
        """A string up to its first NUL; U+FFFD in place of what is not UTF-8."""
        return bytes(self._take()).partition(b"\0")[0].decode("utf-8", "replace")

    def octets(self) -> npt.NDArray[np.uint8]:
        """A sequence of bytes, `(n,)` uint8; shares the message's memory."""
        return np.frombuffer(self._take(), np.uint8)

    def _take(self) -> memoryview:
        length = self.number("I")
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise ValueError(f"{self._at - len(self._data)} bytes are missing at its end")
        return self._data[start : self._at]


def frame_from_message(message: Any, message_type: str, camera: str) -> Frame:
    """The frame in a deserialized `sensor_msgs/Image` or `CompressedImage`.

    Raises:
        InvalidInput: Its image cannot be decoded.
    """
    to_bgr = compressed_to_bgr if message_type == COMPRESSED_TYPE else image_to_bgr
    return Frame(to_bgr(message, MAX_IMAGE_PIXELS), stamp_ns(message), message.header.frame_id, camera)


def frame_from_cdr(cdr: bytes, message_type: str, camera: str) -> Frame:
    """The frame in a serialized image message. Raises InvalidInput if there is none, or it cannot be decoded."""
    return frame_from_message(image_message(cdr, message_type), message_type, camera)


def stamp_ns(message: Any) -> int:
    """The stamp in a message's header, in nanoseconds."""
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


def camera_of(topic: str) -> str:
    """The camera of an image topic: `front/left` of `/front/left/image_raw/compressed`."""
    parts = _parts(topic)
    return "/".join(parts[:-1] or parts)


def beside(topic: str, name: str) -> str:
    """The topic of a name beside an image topic: `/front/camera_info` of `/front/image_raw/compressed`."""
    return "/" + "/".join([*_parts(topic)[:-1], name])


def _parts(topic: str) -> list[str]:
    """The parts of the name of a topic, without the transport."""
    parts = [part for part in topic.split("/") if part]
    return parts[:-1] if len(parts) > 1 and parts[-1] in TRANSPORTS else parts


def check_cameras_differ(topics: Sequence[str]) -> None:
    """Check that each image topic is of a camera of its own, since results are told apart by their camera.

    Raises:
        InvalidInput: Two topics are of one camera.
    """
    topic_of: dict[str, str] = {}
    for topic in topics:
        other = topic_of.setdefault(camera_of(topic), topic)
        if other != topic:
            raise InvalidInput(
                f"{other} and {topic} are both of camera {camera_of(topic)!r}, and would share its results; "
                "choose one with --topic, and give the other a run and an --out of its own"
            )
