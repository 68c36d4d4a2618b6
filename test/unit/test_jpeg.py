"""A JPEG is a whole picture or an error, whatever its end looks like."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activeo3_ros.codecs.jpeg import decode_jpeg, jpeg_size
from activeo3_ros.core.errors import InvalidInput

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
    assert jpeg_size(jpeg(kind)) == (160, 120)


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
