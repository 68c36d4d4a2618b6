"""MCAP bags that ROS tools read: `ros2 bag play`, Foxglove, rosbags. Needs no ROS.

A bag is one file. Its messages are CDR as they travel, each type with its full definition, so that whoever opens it
later needs none of our packages.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import CompressionType, Writer

from ..codecs.image_files import MAX_IMAGE_PIXELS, Picture
from ..codecs.image_message import compressed_to_bgr, image_to_bgr
from ..codecs.result_cdr import typestore
from ..core import Frame, InvalidInput
from .reading import Bag, DamagedMessage

logger = logging.getLogger(__name__)

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
IMAGE_TYPES = (IMAGE_TYPE, COMPRESSED_TYPE)
CHUNK_BYTES = 4 << 20


class BagWriter:
    """Writes one MCAP file; a context manager. What was written before a crash can still be read."""

    def __init__(self, path: Path, chunk_bytes: int = CHUNK_BYTES) -> None:
        """chunk_bytes: how much a crash may lose; every chunk is on its way to the disk as soon as it is full."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        # Frames are noise to a compressor that has to keep up with a camera: it would cost time and save little.
        self._writer = Writer(self._file, chunk_size=chunk_bytes, compression=CompressionType.NONE)
        self._writer.start(profile="ros2", library="activeo3_ros")
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_topic(self, topic: str, message_type: str) -> None:
        """Announce a topic. message_type: such as `sensor_msgs/msg/Image`, one that `typestore()` knows."""
        store = typestore()
        if message_type not in self._schemas:
            definition, _ = store.generate_msgdef(message_type, ros_version=2)
            self._schemas[message_type] = self._writer.register_schema(message_type, "ros2msg", definition.encode())
        self._channels[topic] = self._writer.register_channel(
            topic, "cdr", self._schemas[message_type], {"topic_type_hash": store.hash_rihs01(message_type)}
        )

    def write(self, topic: str, stamp_ns: int, cdr: bytes) -> None:
        """Append one serialized message. stamp_ns: when it was received or is to be played, in nanoseconds."""
        self._writer.add_message(self._channels[topic], stamp_ns, cdr, stamp_ns)
        self._file.flush()

    def add_metadata(self, name: str, values: dict[str, str]) -> None:
        """Leave notes for whoever reads the file; before the first message they are found at once."""
        self._writer.add_metadata(name, values)
        self._file.flush()

    def close(self) -> None:
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._file.close()


def serialize_image(image: Picture, stamp_ns: int, frame_id: str) -> bytes:
    """A `sensor_msgs/Image` in CDR of an `(h, w, 3)` uint8 BGR picture."""
    store = typestore()
    message = store.types[IMAGE_TYPE](
        header=store.types["std_msgs/msg/Header"](
            stamp=store.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 1_000_000_000)), frame_id=frame_id
        ),
        height=image.shape[0],
        width=image.shape[1],
        encoding="bgr8",
        is_bigendian=0,
        step=3 * image.shape[1],
        data=np.ascontiguousarray(image).reshape(-1),
    )
    return bytes(store.serialize_cdr(message, IMAGE_TYPE))


def read_serialized(path: Path, topic: str) -> Iterator[tuple[int, str, bytes]]:
    """Time of recording in nanoseconds, type and CDR bytes of each message of a topic, in the order of that time.

    What is damaged is left out, with a warning.
    Raises InvalidInput if there is no bag or it has no such topic; then it says which topics there are.
    """
    with Bag(path) as bag:
        message_type = topic_type(bag, topic)
        entries, damage = bag.index([topic], by_header=False)
        if damage:
            logger.warning("%s: %s", path, damage.describe())
        for entry in entries:
            try:
                cdr = bag.read(entry)
            except DamagedMessage as error:
                logger.warning("%s: a message is lost: %s", path, error)
                continue
            yield entry.log_time_ns, message_type, cdr


def read_messages(path: Path, topic: str) -> Iterator[tuple[int, Any]]:
    """Time in nanoseconds and message of each message of a topic, in the order of time. Errors as `read_serialized`."""
    for time_ns, message_type, cdr in read_serialized(path, topic):
        yield time_ns, typestore().deserialize_cdr(cdr, message_type)


def read_frames(path: Path, topic: str) -> Iterator[Frame]:
    """The pictures of a topic of images, in the order of time; the camera is named as its topic begins.

    Raises InvalidInput as `read_serialized` does, and for a picture that cannot be decoded.
    """
    for _, message_type, cdr in read_serialized(path, topic):
        yield frame_from_cdr(cdr, message_type, camera_of(topic))


def topic_type(bag: Bag, topic: str) -> str:
    """The type of a topic of a bag. Raises InvalidInput, with the topics that there are, if it has no such topic."""
    if not bag.topics:
        raise InvalidInput(f"{bag.path}: cannot be read as a bag: it is none, or nothing of its topics is left")
    if topic not in bag.topics:
        raise InvalidInput(f"{bag.path}: has no topic {topic!r}; it has {', '.join(bag.topics)}")
    return bag.topics[topic].type


def camera_of(topic: str) -> str:
    """The camera of an image topic: `front/left` of `/front/left/image_raw/compressed`."""
    parts = topic.strip("/").split("/")
    if parts[-1] == "compressed":
        parts = parts[:-1]
    return "/".join(parts[:-1]) or parts[0]


def frame_from_cdr(cdr: bytes, message_type: str, camera: str) -> Frame:
    """The picture in a serialized `sensor_msgs/Image` or `CompressedImage`. Raises InvalidInput if there is none."""
    return frame_from_message(image_message(cdr, message_type), message_type, camera)


def frame_from_message(message: Any, message_type: str, camera: str) -> Frame:
    """The picture in a deserialized image message. Raises InvalidInput if there is none."""
    to_bgr = compressed_to_bgr if message_type == COMPRESSED_TYPE else image_to_bgr
    return Frame(to_bgr(message, MAX_IMAGE_PIXELS), stamp_ns(message), message.header.frame_id, camera)


def image_message(cdr: bytes, message_type: str) -> Any:
    """A deserialized image message. Raises InvalidInput if the bytes are none."""
    try:
        return typestore().deserialize_cdr(cdr, message_type)
    except Exception as error:  # damaged bytes make the library raise whatever comes up
        raise InvalidInput(f"not a {message_type}: {type(error).__name__}") from error


def stamp_ns(message: Any) -> int:
    """The stamp in a message's header, in nanoseconds."""
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)
