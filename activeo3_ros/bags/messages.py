"""Image messages as bytes of a recording, to frames and back. Needs no ROS."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..codecs.image_files import MAX_IMAGE_PIXELS, Picture
from ..codecs.image_message import compressed_to_bgr, image_to_bgr
from ..codecs.result_cdr import typestore
from ..core import Frame, InvalidInput

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
IMAGE_TYPES = (IMAGE_TYPE, COMPRESSED_TYPE)


def serialize_image(image: Picture, stamp_ns: int, frame_id: str) -> bytes:
    """A `sensor_msgs/Image` in CDR.

    Args:
        image: `(h, w, 3)` uint8 BGR.
        stamp_ns: Stamp for its header, nanoseconds.
        frame_id: Coordinate frame for its header.
    """
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


def image_message(cdr: bytes, message_type: str) -> Any:
    """A deserialized image message.

    Raises:
        InvalidInput: The bytes are no message of that type.
    """
    try:
        return typestore().deserialize_cdr(cdr, message_type)
    except Exception as error:  # damaged bytes make the library raise whatever comes up
        raise InvalidInput(f"not a {message_type}: {type(error).__name__}") from error


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
    parts = topic.strip("/").split("/")
    if parts[-1] == "compressed":
        parts = parts[:-1]
    return "/".join(parts[:-1]) or parts[0]
