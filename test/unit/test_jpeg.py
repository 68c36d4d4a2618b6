"""A JPEG is a whole picture or an error, whatever its end looks like."""

from __future__ import annotations

import io
import re
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from activeo3_ros.codecs.jpeg import decode_jpeg, jpeg_header
from activeo3_ros.core.errors import InvalidInput
from activeo3_ros.core.optional import MissingPackageError

KINDS = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "with restart markers": [cv2.IMWRITE_JPEG_RST_INTERVAL, 4],
}


def scene() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


def jpeg(kind: str = "baseline") -> bytes:
    return cv2.imencode(".jpg", scene(), [cv2.IMWRITE_JPEG_QUALITY, 90, *KINDS[kind]])[1].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_picture_has_opencvs_pixels(kind):
    decoded = decode_jpeg(jpeg(kind))
    assert np.array_equal(decoded, cv2.imdecode(np.frombuffer(jpeg(kind), np.uint8), cv2.IMREAD_COLOR))
    header = jpeg_header(jpeg(kind))
    assert (header.width, header.height, len(header.components)) == (160, 120, 3)


def test_grey_pictures_have_three_equal_channels():
    data = cv2.imencode(".jpg", scene()[..., 0])[1].tobytes()
    decoded = decode_jpeg(data)
    assert decoded.shape == (120, 160, 3)
    assert np.array_equal(decoded[..., 0], decoded[..., 2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_scan_data_that_ends_early_before_an_end_marker_is_refused(kind, share):
    data = jpeg(kind)
    with pytest.raises(InvalidInput, match="damaged"):
        decode_jpeg(data[: int(len(data) * share)] + b"\xff\xd9")


@pytest.mark.parametrize("kind", KINDS)
def test_a_piece_that_is_missing_in_the_middle_is_refused(kind):
    data = jpeg(kind)
    middle = len(data) * 2 // 3
    with pytest.raises(InvalidInput, match="damaged"):
        decode_jpeg(data[:middle] + data[middle + len(data) // 8 :])


def test_a_picture_without_its_end_marker_is_cut_off():
    with pytest.raises(InvalidInput, match="cut off"):
        decode_jpeg(jpeg()[:-2])


@pytest.mark.parametrize("tail", [b"\n", b"\r\n", b"\0" * 64, b"\xff" * 8, b"trailer of a camera", b"\xff\xd9"])
def test_bytes_after_the_end_marker_do_not_matter(tail):
    assert np.array_equal(decode_jpeg(jpeg() + tail), decode_jpeg(jpeg()))


def scans(data: bytes) -> list[int]:
    """Where each scan starts."""
    return [match.start() for match in re.finditer(b"\xff\xda", data)]


@pytest.mark.parametrize("count", range(1, 10))
def test_a_progressive_picture_without_its_last_scans_is_refused_and_not_blurred(count):
    data = jpeg("progressive")
    assert len(scans(data)) == 10
    with pytest.raises(InvalidInput, match="a scan is missing"):
        decode_jpeg(data[: scans(data)[-count]] + b"\xff\xd9")


@pytest.mark.parametrize("lost", range(10))
def test_a_progressive_picture_that_lost_a_scan_in_the_middle_is_refused(lost):
    data = jpeg("progressive")
    starts = [*scans(data), len(data) - 2]
    with pytest.raises(InvalidInput, match="damaged"):
        decode_jpeg(data[: starts[lost]] + data[starts[lost + 1] :])


def with_header_fault(kind: str) -> bytes:
    data = bytearray(jpeg())
    scan = scans(data)[0]
    if kind == "a JFIF version of the future":
        data[data.index(b"JFIF\0") + 5] = 3
    if kind == "no choice of coefficients":
        end = scan + 5 + 2 * data[scan + 4]
        data[end : end + 3] = b"\0\0\0"
    if kind == "the usual Huffman tables left out":
        while (at := data.find(b"\xff\xc4")) > 0:
            del data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
    if kind == "padding before the end marker":
        data[-2:] = b"\0\0\xff\xd9"
    assert data != jpeg()
    return bytes(data)


@pytest.mark.parametrize(
    "kind",
    [
        "a JFIF version of the future",
        "no choice of coefficients",
        "the usual Huffman tables left out",
        "padding before the end marker",
    ],
)
def test_faults_of_cameras_that_no_pixel_depends_on_do_not_matter(kind):
    # scene() is coded with the default tables, as motion JPEG is.
    assert np.array_equal(decode_jpeg(with_header_fault(kind)), decode_jpeg(jpeg()))


def test_cmyk_has_its_colours():
    image = Image.fromarray(scene()[..., ::-1]).convert("CMYK")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    expected = np.asarray(image.convert("RGB"), int)[..., ::-1]
    assert np.abs(decode_jpeg(file.getvalue()) - expected).mean() < 3


def test_twelve_bits_are_of_an_unsupported_kind():
    data = bytearray(jpeg())
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(InvalidInput, match="unsupported kind: Unsupported JPEG data precision 12"):
        decode_jpeg(bytes(data))


def test_without_simplejpeg_nothing_is_guessed(monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(MissingPackageError, match=r"simplejpeg is needed to decode JPEG .* 'simplejpeg'"):
        decode_jpeg(jpeg())


@given(st.binary(max_size=400))
def test_noise_is_refused(data):
    with pytest.raises(InvalidInput):
        decode_jpeg(b"\xff\xd8" + data)


@given(st.integers(0, 2**32), st.data())
def test_a_picture_with_a_flipped_byte_is_decoded_or_refused(seed, data):
    damaged = bytearray(jpeg())
    damaged[data.draw(st.integers(2, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert decode_jpeg(bytes(damaged)).ndim == 3
    except InvalidInput:
        pass
