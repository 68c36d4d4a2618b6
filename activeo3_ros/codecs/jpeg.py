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

"""Strict decoding of JPEG: a picture to its last block and its last scan, or an error.

libjpeg fills what is missing with grey and only warns; OpenCV and Pillow keep the warning to themselves. `simplejpeg`
wraps libjpeg-turbo, the decoder that OpenCV has, and raises it: the pixels are the same. A JPEG has no checksum: a lost
piece of some tens of bytes can leave a valid stream of as many blocks, which nobody can tell.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.errors import InvalidInput
from ..core.optional import require_package

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
MARKER = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)
SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
"""The next marker in scan data, where 0xFF is followed by 0 and restart markers may stand."""
WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
FRAME_HEADERS = tuple(code for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC))
BASELINE = (0xC0, 0xC1)
PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
APP0, START_OF_SCAN, END_OF_IMAGE = 0xE0, 0xDA, 0xD9
COEFFICIENTS = 64


@dataclass(frozen=True)
class JpegHeader:
    """What the frame header says.

    Attributes:
        kind: Code of the header's marker: baseline, progressive and so on.
        width: In pixels.
        height: In pixels.
        components: The components' identifiers: one for grey, three for colour, four for CMYK.
    """

    kind: int
    width: int
    height: int
    components: tuple[int, ...]


def jpeg_header(data: bytes) -> JpegHeader:
    """Read the frame header; nothing is decoded.

    Args:
        data: The file; bytes after its end marker do not matter.

    Returns:
        The header.

    Raises:
        InvalidInput: If there is no readable header.
    """
    for code, start, end in _segments(data):
        count = data[start + 5] if end - start > 5 else 0
        if code in FRAME_HEADERS and count and end - start >= 6 + 3 * count:
            height, width = struct.unpack(">HH", data[start + 1 : start + 5])
            return JpegHeader(code, width, height, tuple(data[start + 6 : start + 6 + 3 * count : 3]))
    raise InvalidInput(f"a JPEG of {len(data)} bytes is damaged: it has no frame header")


def decode_jpeg(data: bytes) -> npt.NDArray[np.uint8]:
    """The picture in a JPEG, as the sensor delivered it: orientation tags are not applied.

    Args:
        data: The file; bytes after its end marker do not matter.

    Returns:
        `(h, w, 3)` uint8, BGR.

    Raises:
        InvalidInput: If it is cut off or damaged, also where libjpeg would only warn and fill in grey.
        MissingPackageError: If simplejpeg is not installed.
    """
    simplejpeg = require_package("simplejpeg", "to decode JPEG")
    if data.rfind(JPEG_END) < 0:
        raise InvalidInput(f"a JPEG of {len(data)} bytes is cut off: it has no end marker")
    header = jpeg_header(data)
    if not _has_every_scan(data, header):
        raise InvalidInput(f"a JPEG of {len(data)} bytes is damaged: a scan is missing")
    try:
        tidied = _without_harmless_faults(data, header)
        return np.asarray(simplejpeg.decode_jpeg(tidied, colorspace="BGR", strict=True), np.uint8)
    except ValueError as error:
        reason = " ".join(str(error).split()) or "it cannot be decoded"
        what = "of an unsupported kind" if "nsupported" in reason else "damaged"
        raise InvalidInput(f"a JPEG of {len(data)} bytes is {what}: {reason}") from error


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Code, start and end of the payload of each segment that is there whole, to the end marker."""
    at = len(JPEG_START)
    expected = MARKER
    while found := expected.search(data, at):
        code, at, expected = data[found.start() + 1], found.end(), MARKER
        if code == END_OF_IMAGE:
            return
        if code in WITHOUT_LENGTH:
            continue
        end = at + int.from_bytes(data[at : at + 2], "big")
        if not at + 2 <= end <= len(data):
            return
        yield code, at + 2, end
        at = end
        if code == START_OF_SCAN:
            expected = SCAN_END


def _has_every_scan(data: bytes, header: JpegHeader) -> bool:
    """Whether the scans bring every bit of every component; without one, libjpeg shows a blurred or a grey picture."""
    missing = {component: set(range(COEFFICIENTS)) for component in header.components}
    for code, start, end in _segments(data):
        if code != START_OF_SCAN or end - start < 6:
            continue
        components = data[start + 1 : start + 1 + 2 * data[start] : 2]
        first, last, bits_left = data[end - 3], data[end - 2], data[end - 1] & 0x0F
        if header.kind not in PROGRESSIVE:
            first, last, bits_left = 0, COEFFICIENTS - 1, 0
        if not bits_left:
            for component in components:
                missing.get(component, set()).difference_update(range(first, last + 1))
    return not any(missing.values())


def _without_harmless_faults(data: bytes, header: JpegHeader) -> bytes:
    """The file without what libjpeg warns of though no pixel depends on it: fields that cameras fill in wrongly."""
    tidied = bytearray(data)
    for code, start, end in _segments(data):
        if code == APP0 and data[start : start + 5] == b"JFIF\0" and end - start >= 7 and data[start + 5] != 1:
            tidied[start + 5] = 1  # the format's major version
        if code == START_OF_SCAN and end - start >= 6 and header.kind in BASELINE:
            tidied[end - 3 : end] = bytes([0, COEFFICIENTS - 1, 0])  # coefficients and bits, which only others choose
    return bytes(tidied)
