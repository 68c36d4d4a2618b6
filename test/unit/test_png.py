"""A PNG is checked to its last row: whole and undamaged, or an error."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from activeo3_ros.codecs.png import PNG_START, check_png, png_header
from activeo3_ros.core.errors import InvalidInput

PIXELS = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(packed: bytes, width: int = 90, height: int = 60, bits: int = 8, colour: int = 2, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    half = len(packed) // 2
    return PNG_START + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", packed[:half]), chunk(b"IDAT", packed[half:]), chunk(b"IEND")]
    )


ROWS = np.pad(PIXELS.reshape(60, -1), ((0, 0), (1, 0))).tobytes()
PACKED = zlib.compress(ROWS)


def test_a_whole_picture_passes_with_anything_behind_its_end():
    check_png(png(PACKED))
    check_png(png(PACKED) + b"\r\n" * 100)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (90, 60)])
def test_every_kind_of_pixel_passes(mode, size):
    image = Image.new("I;16", size, 40000) if mode == "I;16" else Image.fromarray(PIXELS).resize(size).convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    check_png(file.getvalue())
    header = png_header(file.getvalue())
    assert ((header.width, header.height), header.is_grey) == (size, mode in ("1", "L", "LA", "I;16"))


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([(1, 0), (2, 3), (4, 0), (8, 6), (16, 2)]))
@settings(deadline=None)
def test_an_interlaced_picture_has_the_length_of_its_seven_passes(width, height, kind):
    bits, colour = kind
    x_passes = [(0, 8), (4, 8), (0, 4), (2, 4), (0, 2), (1, 2), (0, 1)]
    y_passes = [(0, 8), (0, 8), (4, 8), (0, 4), (2, 4), (0, 2), (1, 2)]
    samples = {0: 1, 2: 3, 3: 1, 6: 4}[colour]
    passes = [
        (len(range(x, width, step_x)), len(range(y, height, step_y)))
        for (x, step_x), (y, step_y) in zip(x_passes, y_passes, strict=True)
    ]
    length = sum(rows * (1 + (columns * samples * bits + 7) // 8) for columns, rows in passes if columns)
    check_png(png(zlib.compress(bytes(length)), width, height, bits, colour, 1))
    with pytest.raises(InvalidInput, match="damaged"):
        check_png(png(zlib.compress(bytes(length - 1)), width, height, bits, colour, 1))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (png(PACKED)[:-12], "cut off"),
        (png(PACKED)[:-1], "cut off"),
        (png(PACKED[: len(PACKED) // 2]), "bytes of its picture are there"),
        (png(b""), "0 of 16260 bytes of its picture"),
        (png(zlib.compress(ROWS[:-1])), "16259 of 16260"),
        (png(PACKED[:-4]), "the checksum of its picture is missing"),
        (png(PACKED[:-4] + b"abcd"), "incorrect data check"),
        (png(PACKED[:4000] + PACKED[5000:]), "damaged"),
        (png(PACKED).replace(chunk(b"IDAT", PACKED[len(PACKED) // 2 :]), b""), "bytes of its picture are there"),
        (png(PACKED)[:2000] + b"\0\1\2" + png(PACKED)[2003:], "the checksum of IDAT is wrong"),
        (png(PACKED, colour=5), "colour type 5"),
    ],
)
def test_what_is_missing_or_damaged_is_told(data, says):
    with pytest.raises(InvalidInput, match=says):
        check_png(data)


def test_a_small_file_that_unpacks_to_very_much_is_counted_and_not_kept():
    check_png(png(zlib.compress(bytes(300_000_000), 9), 1, 1))


@given(st.integers(0, 10**9), st.integers(1, 255))
@settings(deadline=None)
def test_any_changed_byte_of_the_picture_is_found(at, change):
    data = bytearray(png(PACKED))
    data[8 + at % (len(data) - 8)] ^= change
    with pytest.raises(InvalidInput):
        check_png(bytes(data))
