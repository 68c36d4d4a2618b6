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

"""Image messages to the arrays that the core takes: `(height, width, 3)` uint8, BGR.

Pure functions of the messages' fields; no node, no clock. 16-bit values are scaled from 0..65535 to 0..255, as
cv_bridge does it. A message's fields are checked against each other before a pixel is read: nothing is guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from ..core import InvalidInput
from .jpeg import JPEG_START, decode_jpeg, jpeg_header
from .png import PNG_START, check_png, png_header

BgrImage = npt.NDArray[np.uint8]

OPENCV_TYPE = re.compile(r"(8|16|32|64)[USF]C\d*", re.IGNORECASE)
"""OpenCV's names of matrices: of those that `ENCODINGS` lacks, nobody knows what their values mean."""


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
"""Every encoding of one plane that is understood, by its name in `sensor_msgs/image_encodings`."""

PLANAR_ENCODINGS = {"nv12": cv2.COLOR_YUV2BGR_NV12, "nv21": cv2.COLOR_YUV2BGR_NV21}
"""YUV 4:2:0 in two planes, with OpenCV's code to BGR: brightness, then two bytes of colour (U V, or V U) for each two
by two pixels, in rows of the same step. As all YUV here: ITU-R BT.601, narrow range (16 to 235 and 16 to 240)."""


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
    if encoding is None and message.encoding not in PLANAR_ENCODINGS:
        known = ", ".join([*ENCODINGS, *PLANAR_ENCODINGS])
        raise InvalidInput(f"unsupported encoding {message.encoding[:40]!r}; supported are {known}")
    check_size(message.width, message.height, max_pixels)
    if encoding is None:
        return _planes_to_bgr(message)
    check_layout(message, encoding)
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
        InvalidInput: It is neither, is cut off or damaged, holds no colours, or has too many pixels.
        MissingPackageError: It is a JPEG, and simplejpeg is not installed.
    """
    stored = _stored_encoding(message.format)
    pixels = _decompressed(bytes(message.data), max_pixels)
    if pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, _one_channel_to_bgr(message.format, stored, pixels))
    elif stored.is_rgb:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=255 / 65535)
    return np.asarray(pixels, np.uint8)


def grey(height: int, width: int) -> BgrImage:
    """A plain grey `(height, width, 3)` uint8 image."""
    return np.full((height, width, 3), 127, np.uint8)


@dataclass(frozen=True)
class StoredEncoding:
    """What the field `format` says, `ENCODING; CODEC compressed TARGET` by compressed_image_transport.

    Attributes:
        raw: The encoding of the image before compression, "" where the field does not name one.
        target: The encoding that the image was converted to for the codec, "" where it was left as it was.
        unknown: The encoding before compression where that is none of `ENCODINGS`, else "".
    """

    raw: str
    target: str
    unknown: str = ""

    @property
    def is_rgb(self) -> bool:
        """Whether red and blue are exchanged: the codec took what it was handed for BGR.

        Colours without a target are RGB, whatever their source: so compressed_image_transport wrote them before it
        named targets, and so its subscriber still reads them.
        """
        return self.target.startswith("rgb") or (not self.target and self.raw.startswith(("rgb", "bgr")))


def _stored_encoding(format: str) -> StoredEncoding:
    """Read the field `format`.

    Raises:
        InvalidInput: The compressed data are depth, or values that are no picture.
    """
    if "compresseddepth" in format.lower():
        raise InvalidInput(f"format {format[:60]!r} holds depth, not a picture; subscribe to a colour topic")
    first, _, rest = format.partition(";")
    known = {name.lower(): name for name in ENCODINGS}
    raw = known.get(first.strip().lower(), "")
    if not raw and OPENCV_TYPE.fullmatch(first.strip()):
        raise InvalidInput(
            f"format {format[:60]!r} holds values of type {first.strip()}, depth for instance, not a picture; "
            f"subscribe to a colour topic"
        )
    if not rest.strip() and raw.startswith(("rgb", "bgr")):
        return StoredEncoding("", "")  # no word about the codec, which is then taken for one that knows its colours
    _, _, target = rest.lower().partition("compressed")
    return StoredEncoding(raw, target.strip(), "" if raw or not rest.strip() else first.strip())


def _one_channel_to_bgr(format: str, stored: StoredEncoding, pixels: npt.NDArray[Any]) -> int:
    """OpenCV's code for a picture of one channel: grey, or the mosaic of a sensor."""
    encoding = ENCODINGS.get(stored.raw)
    if pixels.dtype == np.uint16 and (encoding is None or encoding.depth == 1):
        raise InvalidInput(
            f"format {format[:60]!r} does not say what the 16-bit values of its one channel are; they may be depth. "
            "Name the encoding, as in 'mono16; png compressed '"
        )
    if stored.unknown and not stored.target.startswith("mono"):
        raise InvalidInput(
            f"format {format[:60]!r}: the encoding {stored.unknown[:40]!r} is unknown, and the data have one channel, "
            "which may be a mosaic or depth; let the driver convert it to bgr8 or mono8"
        )
    if encoding is None or stored.target.startswith("mono"):
        return cv2.COLOR_GRAY2BGR
    is_bayer = stored.raw.startswith("bayer")
    if encoding.even_width or (is_bayer and stored.target not in ("", stored.raw)):
        raise InvalidInput(f"format {format[:60]!r} speaks of colours, but the data have one channel")
    if is_bayer and min(pixels.shape) < 3:
        raise InvalidInput(f"{stored.raw} needs at least 3 x 3 pixels, got {pixels.shape[1]} x {pixels.shape[0]}")
    return encoding.to_bgr if is_bayer and encoding.to_bgr is not None else cv2.COLOR_GRAY2BGR


def _decompressed(data: bytes, max_pixels: int) -> npt.NDArray[Any]:
    """`(h, w)` or `(h, w, 3)` as OpenCV orders colours, uint8 or uint16."""
    if data.startswith(PNG_START):
        png = png_header(data)
        check_size(png.width, png.height, max_pixels)
        pixels = _decode_png(data)
        return np.ascontiguousarray(pixels[..., 0]) if png.is_grey and pixels.ndim == 3 else pixels
    if data.startswith(JPEG_START):
        jpeg = jpeg_header(data)
        check_size(jpeg.width, jpeg.height, max_pixels)
        decoded = decode_jpeg(data)
        return np.ascontiguousarray(decoded[..., 0]) if len(jpeg.components) == 1 else decoded
    raise InvalidInput(f"a compressed image must be JPEG or PNG; its {len(data)} bytes start with {data[:8].hex()!r}")


def _decode_png(data: bytes) -> npt.NDArray[Any]:
    check_png(data)
    # An orientation tag would turn the picture away from the pixels that the camera's calibration speaks of.
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InvalidInput(f"a PNG of {len(data)} bytes could not be decoded: {error.err}") from error
    if pixels is None:
        raise InvalidInput(f"a PNG of {len(data)} bytes is damaged and could not be decoded")
    return np.asarray(pixels)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises InvalidInput for an image without pixels, or with too many."""
    if width < 1 or height < 1:
        raise InvalidInput(f"an image needs at least one pixel, got {width} x {height}")
    if width * height > max_pixels:
        raise InvalidInput(
            f"an image of {width} x {height} exceeds {max_pixels} pixels; send smaller ones or raise max_image_pixels"
        )


def check_layout(message: ImageMessage, encoding: Encoding) -> None:
    """Raises InvalidInput where step, height and the length of the data do not belong together."""
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
    rows = unpadded_rows(message, encoding)
    shape = (message.height, message.width) + ((encoding.channels,) if encoding.channels > 1 else ())
    if encoding.depth == 1:
        return rows.reshape(shape)
    stored = rows.view(">u2" if message.is_bigendian else "<u2").reshape(shape)
    return stored.astype(np.uint16, copy=False)


def _planes_to_bgr(message: ImageMessage) -> BgrImage:
    """Convert YUV 4:2:0. Of an odd width or height, the last colour is that of one column or row.

    Raises:
        InvalidInput: Step, height and the length of the data do not belong together.
    """
    width, height, step = message.width, message.height, message.step
    across, down = (width + 1) // 2, (height + 1) // 2
    if step < 2 * across:
        raise InvalidInput(f"step is {step} bytes, a row of {width} {message.encoding} pixels has {2 * across}")
    if len(message.data) != step * (height + down):
        raise InvalidInput(
            f"data has {len(message.data)} bytes, step {step} x ({height} + {down}) rows of {message.encoding} makes "
            f"{step * (height + down)}"
        )
    rows = np.frombuffer(message.data, np.uint8).reshape(height + down, step)
    brightness = cv2.copyMakeBorder(
        rows[:height, :width], 0, 2 * down - height, 0, 2 * across - width, cv2.BORDER_REPLICATE
    )
    colour = np.ascontiguousarray(rows[height:, : 2 * across]).reshape(down, across, 2)
    image = cv2.cvtColorTwoPlane(brightness, colour, PLANAR_ENCODINGS[message.encoding])
    return np.ascontiguousarray(image[:height, :width])


def unpadded_rows(message: ImageMessage, encoding: Encoding) -> npt.NDArray[np.uint8]:
    """`(h, bytes of a row)` without the padding of the rows, for a message whose layout was checked."""
    row = message.width * encoding.channels * encoding.depth
    padded = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    return np.ascontiguousarray(padded[:, :row])
