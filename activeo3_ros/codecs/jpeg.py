"""Strict decoding of JPEG: a picture to its last block, or an error.

libjpeg fills what is missing with grey and only warns; OpenCV and Pillow keep the warning to themselves. `simplejpeg`
wraps libjpeg-turbo, the decoder that OpenCV has, and raises it: the pixels are the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import simplejpeg

from ..core.errors import InvalidInput

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height of a JPEG from its header.

    Args:
        data: The file; bytes after its end marker do not matter.

    Returns:
        Width and height in pixels.

    Raises:
        InvalidInput: If there is no readable header.
    """
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise InvalidInput(f"a JPEG of {len(data)} bytes is damaged: {_reason(error)}") from error
    return int(width), int(height)


def decode_jpeg(data: bytes) -> npt.NDArray[np.uint8]:
    """The picture in a JPEG, as the sensor delivered it: orientation tags are not applied.

    Args:
        data: The file; bytes after its end marker do not matter.

    Returns:
        `(h, w, 3)` uint8, BGR.

    Raises:
        InvalidInput: If it is cut off or damaged, also where libjpeg would only warn and fill in grey.
    """
    if data.rfind(JPEG_END) < 0:
        raise InvalidInput(f"a JPEG of {len(data)} bytes is cut off: it has no end marker")
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, colorspace="BGR", strict=True), np.uint8)
    except ValueError as error:
        raise InvalidInput(f"a JPEG of {len(data)} bytes is damaged: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or "it cannot be decoded"
