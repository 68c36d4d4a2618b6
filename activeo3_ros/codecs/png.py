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

"""Checks a PNG before it is decoded: whole and undamaged, or an error.

Decoders differ in what they let pass: Pillow shows a picture whose data ends early in black, and skips checksums.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from ..core.errors import InvalidInput

PNG_START = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples a pixel, by the colour type: grey, colour, palette, grey with alpha, colour with alpha."""
INTERLACED = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""The seven pictures of Adam7: first column and row, and the steps between columns and rows."""
PIECE = 1 << 20
"""Bytes that are unpacked at a time, so that a small file cannot fill the memory."""


@dataclass(frozen=True)
class PngHeader:
    """What IHDR says: size in pixels, bits a sample, colour type, and whether it is interlaced."""

    width: int
    height: int
    bits: int
    colour_type: int
    interlaced: bool

    @property
    def is_grey(self) -> bool:
        """Whether the pixels are grey, with or without alpha."""
        return self.colour_type in (0, 4)

    @property
    def data_bytes(self) -> int:
        """Length of the unpacked picture: in each row a byte for the filter, and the pixels."""
        whole = ((0, 0, 1, 1),)
        total = 0
        for left, top, step_x, step_y in INTERLACED if self.interlaced else whole:
            columns = max(0, -(-(self.width - left) // step_x))
            rows = max(0, -(-(self.height - top) // step_y))
            if columns:
                total += rows * (1 + -(-columns * CHANNELS[self.colour_type] * self.bits // 8))
        return total


def png_header(data: bytes) -> PngHeader:
    """Read the header of a PNG; nothing is decoded.

    Args:
        data: The file.

    Returns:
        The header.

    Raises:
        InvalidInput: If it is cut off, or there is none.
    """
    if len(data) < 33:
        raise InvalidInput(f"a PNG of {len(data)} bytes is cut off")
    if data[12:16] != b"IHDR":
        raise InvalidInput(f"a PNG of {len(data)} bytes is damaged: it has no header")
    width, height, bits, colour_type, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    if colour_type not in CHANNELS or bits not in (1, 2, 4, 8, 16):
        raise InvalidInput(f"a PNG of {len(data)} bytes is damaged: colour type {colour_type} of {bits} bits is none")
    return PngHeader(width, height, bits, colour_type, bool(interlaced))


def check_png(data: bytes) -> None:
    """Check that a PNG is there to its last row, and undamaged.

    Args:
        data: The file; bytes after its end do not matter.

    Raises:
        InvalidInput: If it is cut off, a checksum is wrong, or picture data is missing.
    """
    expected = png_header(data).data_bytes
    unpacker, unpacked = zlib.decompressobj(), 0
    at, kind = len(PNG_START), b""
    while kind != b"IEND":
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 8 + length
        if end + 4 > len(data):
            raise InvalidInput(f"a PNG of {len(data)} bytes is cut off")
        # The first letter is upper case in chunks that a picture cannot do without.
        if kind[:1].isupper() and zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise InvalidInput(f"a PNG of {len(data)} bytes is damaged: the checksum of {_name(kind)} is wrong")
        if kind == b"IDAT":
            try:
                unpacked += _unpacked_bytes(unpacker, data[at + 8 : end], expected - unpacked)
            except zlib.error as error:
                raise InvalidInput(f"a PNG of {len(data)} bytes is damaged: {error}") from error
        at = end + 4
    if unpacked < expected:
        raise InvalidInput(
            f"a PNG of {len(data)} bytes is damaged: {unpacked} of {expected} bytes of its picture are there"
        )
    if unpacked == expected and not unpacker.eof:
        raise InvalidInput(f"a PNG of {len(data)} bytes is damaged: the checksum of its picture is missing")


def _unpacked_bytes(unpacker: zlib._Decompress, data: bytes, expected: int) -> int:
    """How many bytes a piece of the compressed data makes, counted until they are more than expected."""
    total = 0
    while data and not unpacker.eof and total <= expected:
        total += len(unpacker.decompress(data, PIECE))
        data = unpacker.unconsumed_tail
    return total


def _name(kind: bytes) -> str:
    return kind.decode("ascii", "backslashreplace")
