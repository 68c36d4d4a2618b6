"""Image messages to pictures: every encoding against a picture whose pixels are known, and all that can be wrong."""

from __future__ import annotations

import io
import types

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_fixtures import BGR, message, stored_as
from PIL import Image

from activeo3_ros.codecs.image_message import ENCODINGS, compressed_to_bgr, image_to_bgr
from activeo3_ros.core import InvalidInput

LIMIT = 1_000_000


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 5])
@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_every_encoding_gives_the_picture_that_was_stored(encoding, padding, bigendian):
    got = image_to_bgr(message(stored_as(encoding), encoding, padding, bigendian), LIMIT)
    assert (got.shape, got.dtype) == (BGR.shape, np.uint8)
    expected = np.repeat(BGR[..., 1:2], 3, axis=2) if encoding.startswith(("mono", "8UC1")) else BGR
    # Where colours meet, Bayer and shared colours blur; YUV rounds.
    inside = np.zeros(BGR.shape[:2], bool)
    inside[2:6, 2:10] = inside[2:6, 14:22] = inside[10:14, 2:10] = inside[10:14, 14:22] = True
    exact = not encoding.startswith(("bayer", "yu", "uy"))
    difference = np.abs(got.astype(int) - expected)[... if exact else inside]
    assert difference.max() <= (0 if exact else 6), encoding


def test_a_bgr8_message_is_not_copied():
    source = message(BGR, "bgr8")
    assert np.shares_memory(image_to_bgr(source, LIMIT), np.frombuffer(source.data, np.uint8))


def test_16_bit_is_scaled_so_that_white_stays_white():
    pixels = np.array([[0, 128, 32896, 65535]], np.uint16)
    assert image_to_bgr(message(pixels, "mono16"), LIMIT)[0, :, 0].tolist() == [0, 0, 128, 255]


# A wrong message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoding": "16UC1"}, "unsupported encoding '16UC1'"),
        ({"encoding": "32FC1"}, "unsupported encoding"),
        ({"encoding": ""}, "unsupported encoding"),
        ({"step": 71}, "step is 71 bytes, a row of 24 bgr8 pixels has 72"),
        ({"step": 73}, "data has 1152 bytes"),
        ({"height": 17}, "data has 1152 bytes"),
        ({"height": 0}, "at least one pixel"),
        ({"width": 0, "step": 0}, "at least one pixel"),
        ({"data": b""}, "data has 0 bytes"),
        ({"width": 2**31, "step": 2**32 - 1}, "exceeds 1000000 pixels"),
    ],
)
def test_a_message_that_contradicts_itself_says_how(change, says):
    fields = {**vars(message(BGR, "bgr8")), **change}
    with pytest.raises(InvalidInput, match=says):
        image_to_bgr(types.SimpleNamespace(**fields), LIMIT)


def test_yuv_of_an_odd_width_and_bayer_of_one_pixel_are_errors():
    with pytest.raises(InvalidInput, match="even width"):
        image_to_bgr(message(np.zeros((4, 3, 2), np.uint8), "uyvy"), LIMIT)
    with pytest.raises(InvalidInput, match="at least 3 x 3"):
        image_to_bgr(message(np.zeros((1, 1), np.uint8), "bayer_rggb8"), LIMIT)


def planes(height: int, width: int, padding: int, encoding: str, seed: int = 0) -> types.SimpleNamespace:
    """A message of two planes of noise, its rows padded with 0xAB to one step."""
    across, down, random = (width + 1) // 2, (height + 1) // 2, np.random.default_rng(seed)
    rows = np.full((height + down, 2 * across + padding), 0xAB, np.uint8)
    rows[:height, :width] = random.integers(16, 256, (height, width))  # OpenCV takes less for black
    rows[height:, : 2 * across] = random.integers(0, 256, (down, 2 * across))
    return types.SimpleNamespace(
        height=height, width=width, encoding=encoding, step=rows.shape[1], data=rows.tobytes(), is_bigendian=0
    )


def by_the_standard(source: types.SimpleNamespace) -> np.ndarray:
    """BGR by the equations of ITU-R BT.601 for the narrow range, in floating point."""
    rows = np.frombuffer(source.data, np.uint8).reshape(-1, source.step).astype(float)
    pairs = rows[source.height :, : 2 * ((source.width + 1) // 2)].reshape(-1, (source.width + 1) // 2, 2)
    pairs = pairs.repeat(2, 0).repeat(2, 1)[: source.height, : source.width]
    u, v = (pairs - 128).transpose(2, 0, 1)[:: 1 if source.encoding == "nv12" else -1] / 224
    y = (rows[: source.height, : source.width] - 16) / 219
    blue, red = y + 2 * (1 - 0.114) * u, y + 2 * (1 - 0.299) * v
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    return (255 * np.stack([blue, green, red], axis=2)).clip(0, 255)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["nv12", "nv21"]), st.integers(1, 30), st.integers(1, 30), st.integers(0, 5), st.integers(0, 99))
def test_nv12_and_nv21_of_any_size_are_converted_as_the_standard_says(encoding, height, width, padding, seed):
    source = planes(height, width, padding, encoding, seed)
    got = image_to_bgr(source, LIMIT)
    assert (got.shape, got.dtype, got.flags.c_contiguous) == ((height, width, 3), np.uint8, True)
    assert np.abs(got - by_the_standard(source)).max() <= 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"step": 6}, "step is 6 bytes, a row of 7 nv12 pixels has 8"),
        ({"data": bytes(8 * 5)}, r"data has 40 bytes, step 8 x \(5 \+ 3\) rows of nv12 makes 64"),
        ({"step": 9}, "data has 64 bytes"),
        ({"height": 2**31}, "exceeds 1000000 pixels"),
        ({"encoding": "nv24"}, "unsupported encoding 'nv24'; supported are .*nv12, nv21"),
    ],
)
def test_planes_that_do_not_fit_their_message_say_how(change, says):
    with pytest.raises(InvalidInput, match=says):
        image_to_bgr(types.SimpleNamespace(**{**vars(planes(5, 7, 0, "nv12")), **change}), LIMIT)


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from([*sorted(ENCODINGS), "16UC1", "nv12", "nv21", "nonsense", ""]),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(0, 300),
    st.binary(max_size=2000),
    st.booleans(),
)
def test_any_message_gives_a_picture_of_its_size_or_a_reason(encoding, height, width, step, data, bigendian):
    fuzzed = types.SimpleNamespace(
        height=height, width=width, encoding=encoding, step=step, data=data, is_bigendian=int(bigendian)
    )
    try:
        assert image_to_bgr(fuzzed, LIMIT).shape == (height, width, 3)
    except InvalidInput as error:
        assert str(error)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(ENCODINGS)), st.integers(1, 12), st.integers(1, 12), st.integers(0, 3), st.booleans())
def test_any_message_whose_fields_agree_gives_a_picture_unless_its_encoding_needs_more_pixels(
    encoding, height, width, padding, bigendian
):
    kind = ENCODINGS[encoding]
    step = width * kind.channels * kind.depth + padding
    fine = types.SimpleNamespace(
        height=height, width=width, encoding=encoding, step=step, data=bytes(step * height), is_bigendian=int(bigendian)
    )
    try:
        assert image_to_bgr(fine, LIMIT).shape == (height, width, 3)
    except InvalidInput:
        assert min(height, width) < 3 or width % 2


# Compressed


def compressed(extension: str, bgr: np.ndarray = BGR, format: str = "bgr8; jpeg compressed bgr8"):
    return types.SimpleNamespace(format=format, data=cv2.imencode(extension, bgr)[1].tobytes())


def test_a_png_gives_its_pixels():
    assert np.array_equal(compressed_to_bgr(compressed(".png"), LIMIT), BGR)


def test_a_jpeg_gives_about_its_pixels():
    photo = cv2.resize(BGR, (240, 160), interpolation=cv2.INTER_CUBIC)
    got = compressed_to_bgr(compressed(".jpg", photo), LIMIT)
    assert np.abs(got.astype(int) - photo).mean() < 4


def test_a_jpeg_that_was_handed_to_its_encoder_as_rgb_is_turned_back():
    source = compressed(".png", np.ascontiguousarray(BGR[..., ::-1]), "rgb8; png compressed rgb8")
    assert np.array_equal(compressed_to_bgr(source, LIMIT), BGR)


INSIDE = np.zeros(BGR.shape[:2], bool)
"""Away from the edges between colours."""
INSIDE[2:6, 2:10] = INSIDE[2:6, 14:22] = INSIDE[10:14, 2:10] = INSIDE[10:14, 14:22] = True
GREY = np.repeat(BGR[..., 1:2], 3, axis=2)
RGB = np.ascontiguousarray(BGR[..., ::-1])
WIDE = BGR.astype(np.uint16) * 257


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize(
    ("extension", "words"),
    [
        (".png", "; png compressed "),
        (".png", "; png compressed"),
        (".png", ""),
        (".png", ";png compressed bayer_{pattern}{depth}"),
        (".jpg", "; jpeg compressed "),
    ],
)
def test_a_mosaic_in_its_raw_encoding_becomes_colour(pattern, depth, extension, words):
    encoding = f"bayer_{pattern}{depth}"
    mosaic = stored_as(f"bayer_{pattern}{depth if extension == '.png' else 8}")
    source = types.SimpleNamespace(
        format=encoding + words.format(pattern=pattern, depth=depth),
        data=cv2.imencode(extension, mosaic, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes(),
    )
    got = compressed_to_bgr(source, LIMIT).astype(int)
    assert np.abs(got - BGR)[INSIDE].max() <= (0 if extension == ".png" else 12)


@pytest.mark.parametrize(
    ("format", "pixels", "expected"),
    [
        ("png", BGR, BGR),
        ("PNG", BGR, BGR),
        ("", BGR, BGR),
        ("nonsense", BGR, BGR),
        ("image/png", BGR, BGR),
        ("rgb8", BGR, BGR),
        ("bgr8", BGR, BGR),
        ("bgr8; png compressed bgr8", BGR, BGR),
        ("rgb8; png compressed bgr8", BGR, BGR),
        ("rgb8; png compressed rgb8", RGB, BGR),
        ("bgr8; png compressed rgb8", RGB, BGR),
        ("rgb8; png compressed ", RGB, BGR),
        ("bgr8; png compressed ", RGB, BGR),  # of 2012; the plugin's subscriber still reads it so
        ("bgra8; png compressed ", RGB, BGR),
        ("bgra8; png compressed bgr8", BGR, BGR),
        ("bayer_rggb8; png compressed bgr8", BGR, BGR),
        ("bayer_rggb8; png compressed ", BGR, BGR),
        ("yuv422; png compressed bgr8", BGR, BGR),
        ("yuv422_yuy2; png compressed bgr8", BGR, BGR),
        ("nv12; png compressed bgr8", BGR, BGR),
        ("8UC3; png compressed ", BGR, BGR),
        ("rgb16; png compressed bgr16", WIDE, BGR),
        ("png", WIDE, BGR),
        ("mono8; png compressed ", BGR[..., 1], GREY),
        ("8UC1; png compressed ", BGR[..., 1], GREY),
        ("png", BGR[..., 1], GREY),
        ("bayer_rggb8; png compressed mono8", BGR[..., 1], GREY),
        ("mono16; png compressed ", WIDE[..., 1], GREY),
        ("mono16; png compressed mono16", WIDE[..., 1], GREY),
        ("mono8; png compressed bgr8", BGR, BGR),
    ],
)
def test_the_words_of_format_say_what_is_stored(format, pixels, expected):
    assert np.array_equal(compressed_to_bgr(compressed(".png", pixels, format), LIMIT), expected)


COLOURS = [f"{order}{depth}" for order in ("rgb", "bgr", "rgba", "bgra") for depth in (8, 16)]
YUV = ["yuv422", "yuv422_yuy2", "uyvy", "yuyv", "nv12", "nv21", "nv24"]
BAYER = [f"bayer_{pattern}{depth}" for pattern in ("rggb", "bggr", "gbrg", "grbg") for depth in (8, 16)]
WRITTEN_BY_THE_PLUGIN = [
    # compressed_image_transport of ROS 1 and of ROS 2 hands colours to the codec as BGR, since 2012 by this name.
    *[(f"{raw}; jpeg compressed bgr8", ".jpg", BGR, BGR) for raw in COLOURS + YUV],
    *[(f"{raw}; png compressed bgr8", ".png", BGR, BGR) for raw in [*COLOURS[::2], *YUV]],
    *[(f"{raw}; png compressed bgr16", ".png", WIDE, BGR) for raw in COLOURS[1::2]],
    *[(f"{raw}; {codec} compressed ", f".{codec}", RGB, BGR) for raw in COLOURS[::2] for codec in ("jpeg", "png")],
    # Anything else is left as it is, but for JPEG in ROS 2, which gets grey.
    ("mono8; png compressed ", ".png", BGR[..., 1], GREY),
    ("mono16; png compressed ", ".png", WIDE[..., 1], GREY),
    ("8UC1; png compressed ", ".png", BGR[..., 1], GREY),
    ("8UC3; png compressed ", ".png", BGR, BGR),
    ("8UC4; png compressed ", ".png", cv2.cvtColor(BGR, cv2.COLOR_BGR2BGRA), BGR),
    ("mono8; jpeg compressed ", ".jpg", BGR[..., 1], GREY),
    *[(f"{raw}; jpeg compressed mono8", ".jpg", BGR[..., 1], GREY) for raw in ("mono8", "mono16", "8UC1", *BAYER)],
]


@pytest.mark.parametrize(("format", "extension", "stored", "expected"), WRITTEN_BY_THE_PLUGIN)
def test_whatever_compressed_image_transport_writes_has_its_colours(format, extension, stored, expected):
    enlarge = (lambda pixels: pixels) if extension == ".png" else lambda pixels: cv2.resize(pixels, None, fx=8, fy=8)
    data = cv2.imencode(extension, enlarge(stored))[1].tobytes()
    got = compressed_to_bgr(types.SimpleNamespace(format=format, data=data), LIMIT)
    assert np.abs(got.astype(int) - enlarge(expected)).mean() < (1e-9 if extension == ".png" else 8)


@pytest.mark.parametrize(
    "format", ["jpeg", "jpg", "JPEG", "bayer_rggb8; jpeg compressed bgr8", "rgb8; jpeg compressed bgr8"]
)
def test_a_jpeg_of_colours_keeps_them(format):
    source = compressed(".jpg", BGR, format)
    assert np.array_equal(
        compressed_to_bgr(source, LIMIT), cv2.imdecode(np.frombuffer(source.data, np.uint8), cv2.IMREAD_COLOR)
    )


@pytest.mark.parametrize(
    ("format", "pixels", "says"),
    [
        ("16UC1; png compressed ", WIDE[..., 1], "type 16UC1, depth for instance"),
        ("16UC1", WIDE[..., 1], "type 16UC1"),
        ("16uc1; png compressed", WIDE[..., 1], "type 16uc1"),
        ("32FC1; png compressed ", BGR, "type 32FC1"),
        ("16SC1; png compressed ", BGR[..., 1], "type 16SC1"),
        ("16UC1; jpeg compressed ", BGR[..., 1], "type 16UC1"),
        ("16UC1; compressedDepth", WIDE[..., 1], "holds depth"),
        ("16UC1; compressedDepth png", WIDE[..., 1], "holds depth"),
        ("32FC1; compressedDepth rvl", WIDE[..., 1], "holds depth"),
        ("png", WIDE[..., 1], "may be depth"),
        ("mono8; png compressed ", WIDE[..., 1], "may be depth"),
        ("bayer_rggb8; png compressed bgr8", BGR[..., 1], "speaks of colours"),
        ("yuv422; png compressed ", BGR[..., 1], "speaks of colours"),
        ("bayer_rggb12; png compressed ", BGR[..., 1], "the encoding 'bayer_rggb12' is unknown"),
        ("nv12; jpeg compressed ", BGR[..., 1], "the encoding 'nv12' is unknown"),
        ("depth; png compressed", BGR[..., 1], "which may be a mosaic or depth"),
        ("bayer_rggb8; png compressed ", BGR[:2, :2, 1], "at least 3 x 3 pixels, got 2 x 2"),
    ],
)
def test_depth_and_contradictions_are_refused(format, pixels, says):
    with pytest.raises(InvalidInput, match=says):
        compressed_to_bgr(compressed(".png", pixels, format), LIMIT)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_a_png_of_any_kind_has_its_colours_and_no_alpha(mode):
    picture = Image.fromarray(RGB)
    picture.putalpha(100)
    stored = picture.convert(mode, dither=Image.Dither.NONE)
    file = io.BytesIO()
    stored.save(file, "PNG")
    expected = np.asarray(stored.convert("RGBA"))[..., 2::-1]
    assert np.array_equal(compressed_to_bgr(types.SimpleNamespace(format="png", data=file.getvalue()), LIMIT), expected)


def test_an_orientation_tag_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "JPEG", exif=exif)
    assert compressed_to_bgr(types.SimpleNamespace(format="jpeg", data=file.getvalue()), LIMIT).shape == BGR.shape


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_bytes_behind_the_end_do_not_matter(extension):
    source = compressed(extension)
    padded = types.SimpleNamespace(format=source.format, data=source.data + b"\r\n" + bytes(300))
    assert np.array_equal(compressed_to_bgr(padded, LIMIT), compressed_to_bgr(source, LIMIT))


def test_a_jpeg_whose_scan_ends_early_before_an_end_marker_is_refused():
    source = compressed(".jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    cut = types.SimpleNamespace(format="jpeg", data=source.data[: len(source.data) * 2 // 3] + b"\xff\xd9")
    with pytest.raises(InvalidInput, match="damaged"):
        compressed_to_bgr(cut, LIMIT)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_picture_that_is_cut_off_is_an_error_and_not_half_grey(extension, share):
    whole = compressed(extension)
    cut = types.SimpleNamespace(format=whole.format, data=whole.data[: int(len(whole.data) * share)])
    with pytest.raises(InvalidInput, match=r"cut off|must be JPEG or PNG|damaged"):
        compressed_to_bgr(cut, LIMIT)


def test_a_small_file_that_claims_a_huge_picture_is_refused_before_it_is_unpacked():
    with pytest.raises(InvalidInput, match="exceeds 100 pixels"):
        compressed_to_bgr(compressed(".png"), 100)


def test_depth_and_other_files_are_refused():
    with pytest.raises(InvalidInput, match="depth"):
        compressed_to_bgr(compressed(".png", format="16UC1; compressedDepth"), LIMIT)
    with pytest.raises(InvalidInput, match="JPEG or PNG"):
        compressed_to_bgr(types.SimpleNamespace(format="jpeg", data=b"GIF89a" * 10), LIMIT)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([".jpg", ".png"]), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8))
def test_a_damaged_picture_gives_a_picture_of_its_size_or_a_reason(extension, flips):
    data = bytearray(compressed(extension).data)
    for at, value in flips:
        data[at % len(data)] = value
    try:
        assert compressed_to_bgr(types.SimpleNamespace(format="", data=bytes(data)), LIMIT).ndim == 3
    except InvalidInput as error:
        assert str(error)
