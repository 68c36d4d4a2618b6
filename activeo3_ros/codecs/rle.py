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

"""Masks to bytes and back, as in `InstanceMask`. Needs NumPy and nothing else.

>>> import numpy as np
>>> mask = np.array([[0, 1, 1], [0, 1, 0]], bool)
>>> encode_rle(mask)
b'231'
>>> np.array_equal(decode_rle(encode_rle(mask), 2, 3), mask)
True

`ENCODING_RLE` is COCO's compressed run-length encoding: the lengths of alternating runs of zeros and ones, column by
column, starting with zeros; from the third run on the difference to the run two before; each number in groups of
5 bits, lowest first, as the characters from "0" (48) on, bit 32 of a character saying that more follow.
`ENCODING_BITS` is one bit a pixel, row by row, each row padded to whole bytes, the first pixel in the highest bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

ENCODING_RLE = 0
ENCODING_BITS = 1
MAX_MASK_PIXELS = 100_000_000
"""A mask that claims more pixels is refused before any memory is set aside for it."""


class MaskMessage(Protocol):
    """The fields of `InstanceMask` that hold its pixels."""

    height: int
    width: int
    encoding: int
    data: bytes


def decode(message: MaskMessage) -> Mask:
    """The mask of an `InstanceMask` message.

    Returns:
        `(height, width)` bool, which covers the message's box.

    Raises:
        ValueError: The data are damaged, or the encoding is unknown.
    """
    data = bytes(message.data)
    if message.encoding == ENCODING_RLE:
        return decode_rle(data, message.height, message.width)
    if message.encoding == ENCODING_BITS:
        return decode_bits(data, message.height, message.width)
    raise ValueError(f"unknown mask encoding {message.encoding}; known are 0 (RLE) and 1 (bits)")


def encode_rle(mask: npt.ArrayLike) -> bytes:
    """COCO compressed RLE of an `(h, w)` mask; pixels other than zero are inside."""
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist() if flat.size else []
    if flat.size and flat[0]:
        runs.insert(0, 0)
    encoded = bytearray()
    for index, run in enumerate(runs):
        _append_number(encoded, run - runs[index - 2] if index > 2 else run)
    return bytes(encoded)


def decode_rle(data: bytes, height: int, width: int) -> Mask:
    """The `(height, width)` bool mask of COCO compressed RLE.

    Raises:
        ValueError: The data are damaged, or the runs do not fill the mask exactly.
    """
    _check_size(height, width)
    runs: list[int] = []
    for number in _numbers(data):
        runs.append(number + runs[-2] if len(runs) > 2 else number)
        if runs[-1] < 0:
            raise ValueError(f"run {len(runs) - 1} of the mask has length {runs[-1]}")
    if sum(runs) != height * width:
        raise ValueError(f"the mask's runs cover {sum(runs)} pixels, {height} x {width} has {height * width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape((height, width), order="F"))


def encode_bits(mask: npt.ArrayLike) -> bytes:
    """One bit a pixel, each row padded to whole bytes, of an `(h, w)` mask."""
    return np.packbits(np.asarray(mask, bool), axis=1).tobytes()


def decode_bits(data: bytes, height: int, width: int) -> Mask:
    """The `(height, width)` bool mask of packed rows.

    Raises:
        ValueError: The length is wrong.
    """
    _check_size(height, width)
    row = -(-width // 8)
    if len(data) != height * row:
        raise ValueError(f"a packed mask of {height} x {width} needs {height * row} bytes, got {len(data)}")
    packed = np.frombuffer(data, np.uint8).reshape(height, row)
    return np.unpackbits(packed, axis=1, count=width).astype(bool)


def _check_size(height: int, width: int) -> None:
    if height < 0 or width < 0 or height * width > MAX_MASK_PIXELS:
        raise ValueError(f"a mask of {height} x {width} is outside 0 to {MAX_MASK_PIXELS} pixels")


def _append_number(encoded: bytearray, number: int) -> None:
    """Append one number in groups of 5 bits; the highest bit of the last group is its sign."""
    while True:
        group = number & 0x1F
        number >>= 5
        more = number != (-1 if group & 0x10 else 0)
        encoded.append(48 + (group | 0x20 if more else group))
        if not more:
            return


def _numbers(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        group = byte - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError(f"byte {byte} does not belong into a compressed mask")
        number |= (group & 0x1F) << shift
        shift += 5
        if not group & 0x20:
            yield number - (1 << shift) if group & 0x10 else number
            number = shift = 0
    if shift:
        raise ValueError("the compressed mask ends in the middle of a number")
