"""Image messages to the arrays that the core takes: `(height, width, 3)` uint8, BGR.

Pure functions of the messages' fields; no node, no clock. 16-bit values are scaled from 0..65535 to 0..255, as
cv_bridge does it. A message's fields are checked against each other before a pixel is read: nothing is guessed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from ..core import InvalidInput

BgrImage = npt.NDArray[np.uint8]

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


class ImageMessage(Protocol):
    """The fields of `sensor_msgs/Image` that are read here."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: bytes


class CompressedImageMessage(Protocol):
    """The fields of `sensor_msgs/CompressedImage` that are read here."""

    format: str
    data: bytes


@dataclass(frozen=True)
class Encoding:
    """How pixels are stored: bytes a channel, channels a pixel, and OpenCV's code to BGR (None: it is BGR)."""

    depth: int
    channels: int
    to_bgr: int | None
    even_width: bool = False
    """Whether two neighbours share their colour, so that only even widths exist."""


def _both_depths(name: str, channels: int, to_bgr: int | None) -> dict[str, Encoding]:
    return {f"{name}{8 * depth}": Encoding(depth, channels, to_bgr) for depth in (1, 2)}


# OpenCV names a Bayer pattern after the second row's middle two pixels, ROS after the first row's first two.
ENCODINGS: dict[str, Encoding] = {
    **_both_depths("bgr", 3, None),
    **_both_depths("rgb", 3, cv2.COLOR_RGB2BGR),
    **_both_depths("bgra", 4, cv2.COLOR_BGRA2BGR),
    **_both_depths("rgba", 4, cv2.COLOR_RGBA2BGR),
    **_both_depths("mono", 1, cv2.COLOR_GRAY2BGR),
    **_both_depths("bayer_rggb", 1, cv2.COLOR_BayerBG2BGR),
    **_both_depths("bayer_bggr", 1, cv2.COLOR_BayerRG2BGR),
    **_both_depths("bayer_gbrg", 1, cv2.COLOR_BayerGR2BGR),
    **_both_depths("bayer_grbg", 1, cv2.COLOR_BayerGB2BGR),
    # The channel order of these is OpenCV's by convention.
    "8UC1": Encoding(1, 1, cv2.COLOR_GRAY2BGR),
    "8UC3": Encoding(1, 3, None),
    "8UC4": Encoding(1, 4, cv2.COLOR_BGRA2BGR),
    # YUV 4:2:2; the first two names are those before ROS 2 Iron.
    "yuv422": Encoding(1, 2, cv2.COLOR_YUV2BGR_UYVY, even_width=True),
    "yuv422_yuy2": Encoding(1, 2, cv2.COLOR_YUV2BGR_YUY2, even_width=True),
    "uyvy": Encoding(1, 2, cv2.COLOR_YUV2BGR_UYVY, even_width=True),
    "yuyv": Encoding(1, 2, cv2.COLOR_YUV2BGR_YUY2, even_width=True),
}
"""Every encoding that is understood, by its name in `sensor_msgs/image_encodings`."""


def image_to_bgr(message: ImageMessage, max_pixels: int) -> BgrImage:
    """Decode a raw image.

    Args:
        message: A `sensor_msgs/Image`, of whichever library.
        max_pixels: A larger image is refused before it is decoded.

    Returns:
        `(height, width, 3)` uint8 BGR; it may share the message's memory.

    Raises:
        InvalidInput: The encoding is not supported, the fields contradict each other, or there are too many pixels.
    """
    encoding = ENCODINGS.get(message.encoding)
    if encoding is None:
        raise InvalidInput(f"unsupported encoding {message.encoding[:40]!r}; supported are {', '.join(ENCODINGS)}")
    _check_size(message.width, message.height, max_pixels)
    _check_layout(message, encoding)
    pixels: Any = _pixels(message, encoding)
    is_bayer = message.encoding.startswith("bayer")
    if (encoding.even_width and message.width % 2) or (is_bayer and min(message.width, message.height) < 3):
        least = "an even width" if encoding.even_width else "at least 3 x 3 pixels"
        raise InvalidInput(f"{message.encoding} needs {least}, got {message.width} x {message.height}")
    if encoding.to_bgr is not None:
        pixels = cv2.cvtColor(pixels, encoding.to_bgr)
    if encoding.depth == 2:
        pixels = cv2.convertScaleAbs(pixels, alpha=255 / 65535)
    return np.asarray(pixels, np.uint8)


def compressed_to_bgr(message: CompressedImageMessage, max_pixels: int) -> BgrImage:
    """Decode a JPEG or PNG.

    Args:
        message: A `sensor_msgs/CompressedImage`, of whichever library.
        max_pixels: A larger image is refused before it is decoded.

    Returns:
        `(height, width, 3)` uint8 BGR, as the sensor delivered it: an orientation tag is not applied.

    Raises:
        InvalidInput: It is neither, is cut off or damaged, holds depth, or has too many pixels.
    """
    data = bytes(message.data)
    if "compressedDepth" in message.format:
        raise InvalidInput(f"format {message.format[:60]!r} holds depth, not a picture; subscribe to a colour topic")
    width, height = _compressed_size(data)
    _check_size(width, height, max_pixels)
    # An orientation tag would turn the picture away from the pixels that the camera's calibration speaks of.
    try:
        image = cv2.imdecode(
            np.frombuffer(data, np.uint8),
            cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
        )
    except cv2.error as error:
        raise InvalidInput(f"the compressed image could not be decoded: {error.err}") from error
    if image is None or image.shape[:2] != (height, width):
        raise InvalidInput(f"the compressed image of {len(data)} bytes is damaged and could not be decoded")
    # compressed_image_transport names the channel order that it handed to an encoder that expects BGR.
    if "compressed rgb" in message.format:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return np.asarray(image, np.uint8)


def grey(height: int, width: int) -> BgrImage:
    """A plain grey `(height, width, 3)` uint8 image."""
    return np.full((height, width, 3), 127, np.uint8)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise InvalidInput(f"an image needs at least one pixel, got {width} x {height}")
    if width * height > max_pixels:
        raise InvalidInput(
            f"an image of {width} x {height} exceeds {max_pixels} pixels; send smaller ones or raise max_image_pixels"
        )


def _check_layout(message: ImageMessage, encoding: Encoding) -> None:
    """Whether step, height and the length of the data belong together."""
    row = message.width * encoding.channels * encoding.depth
    if message.step < row:
        raise InvalidInput(
            f"step is {message.step} bytes, a row of {message.width} {message.encoding} pixels has {row}"
        )
    if len(message.data) != message.step * message.height:
        raise InvalidInput(
            f"data has {len(message.data)} bytes, step {message.step} x height {message.height} makes "
            f"{message.step * message.height}"
        )


def _pixels(message: ImageMessage, encoding: Encoding) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """`(h, w)` or `(h, w, channels)` in this machine's byte order, without the padding of the rows."""
    row = message.width * encoding.channels * encoding.depth
    padded = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    rows = np.ascontiguousarray(padded[:, :row])
    shape = (message.height, message.width) + ((encoding.channels,) if encoding.channels > 1 else ())
    if encoding.depth == 1:
        return rows.reshape(shape)
    stored = rows.view(">u2" if message.is_bigendian else "<u2").reshape(shape)
    return stored.astype(np.uint16, copy=False)


def _compressed_size(data: bytes) -> tuple[int, int]:
    """Width and height from the header of a JPEG or PNG that is there to its end, so that no decoder fills in grey."""
    if data.startswith(PNG_START):
        if len(data) < 33 or PNG_END not in data[-64:]:
            raise InvalidInput(f"a PNG of {len(data)} bytes is cut off")
        width, height = struct.unpack(">II", data[16:24])
        return int(width), int(height)
    if data.startswith(JPEG_START):
        if JPEG_END not in data.rstrip(b"\0")[-2:]:
            raise InvalidInput(f"a JPEG of {len(data)} bytes is cut off")
        return _jpeg_size(data)
    raise InvalidInput(f"a compressed image must be JPEG or PNG; its {len(data)} bytes start with {data[:8].hex()!r}")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height from the frame header, walking the segments of a JPEG."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return int(width), int(height)
        else:
            at += 2 + int(struct.unpack(">H", data[at + 2 : at + 4])[0])
    raise InvalidInput(f"a JPEG of {len(data)} bytes is damaged: it has no frame header")
