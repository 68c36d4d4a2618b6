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

"""Checks the compressed pieces of a TIFF file by the checksums that they carry, which libtiff does not always reach."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from ..core.errors import InvalidInput

COMPRESSION = 259
STARTS, LENGTHS = (273, 324), (279, 325)
"""Tags: offsets and byte counts of strips, and of tiles."""
DEFLATE = (8, 32946)
"""The codes of the compression by zlib, the only one with a checksum."""
PIECE = 1 << 20
"""Bytes that are unpacked at a time, so that a small file cannot fill the memory."""


def check_tiff(data: bytes, tags: Mapping[int, Any]) -> None:
    """Check that what a TIFF compressed with zlib is undamaged; other compressions have nothing to check it by.

    Args:
        data: The file.
        tags: Those of its first picture.

    Raises:
        InvalidInput: A piece is damaged or cut off.
    """
    if tags.get(COMPRESSION) not in DEFLATE:
        return
    for start, length in zip(_values(tags, STARTS), _values(tags, LENGTHS), strict=False):
        unpacker, rest = zlib.decompressobj(), data[start : start + length]
        try:
            while rest and not unpacker.eof:
                unpacker.decompress(rest, PIECE)
                rest = unpacker.unconsumed_tail
        except zlib.error as error:
            raise InvalidInput(f"a TIFF of {len(data)} bytes is damaged: {error}") from error
        if not unpacker.eof:
            raise InvalidInput(f"a TIFF of {len(data)} bytes is damaged: a piece at byte {start} is cut off")


def _values(tags: Mapping[int, Any], names: tuple[int, ...]) -> tuple[int, ...]:
    found = next((tags[name] for name in names if name in tags), ())
    return (found,) if isinstance(found, int) else tuple(found)
