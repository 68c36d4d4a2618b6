"""Picture files become frames whole, or not at all."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from activeo3_ros.codecs.image_files import find_images, read_image, write_image
from activeo3_ros.core import InvalidInput

RED = (0, 0, 255)
"""Blue, green, red."""


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """Something that JPEG has work with, `(120, 160, 3)`."""
    y, x = np.indices((120, 160))
    return np.stack([x, y, 128 + 60 * np.sin(x * y / 300)], axis=2).astype(np.uint8)


def test_a_picture_is_read_as_it_was_written(tmp_path, photograph):
    write_image(tmp_path / "a" / "b.png", photograph)
    assert np.array_equal(read_image(tmp_path / "a" / "b.png"), photograph)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "WEBP"])
def test_red_stays_red_in_every_format(tmp_path, format):
    path = tmp_path / "red"
    options = {"lossless": True} if format == "WEBP" else {}
    Image.new("RGB", (4, 3), (255, 0, 0)).save(path, format, **options)
    assert (read_image(path) == RED).all()


def test_a_palette_is_resolved(tmp_path):
    Image.new("RGB", (4, 3), (255, 0, 0)).convert("P").save(tmp_path / "p.png")
    assert (read_image(tmp_path / "p.png") == RED).all()


def test_what_is_transparent_is_black(tmp_path):
    Image.new("RGBA", (4, 3), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGBA", (4, 3), (255, 0, 0, 255)).save(tmp_path / "opaque.png")
    assert (read_image(tmp_path / "clear.png") == 0).all()
    assert (read_image(tmp_path / "opaque.png") == RED).all()


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, format):
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "grey16", format)
    assert read_image(tmp_path / "grey16")[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_floating_point_values_are_refused(tmp_path):
    Image.fromarray(np.ones((3, 4), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(InvalidInput, match=r"f\.tif: cannot be read as a picture: it holds floating-point numbers"):
        read_image(tmp_path / "f.tif")


@settings(max_examples=100, deadline=None)
@given(share=st.floats(0, 0.995), format=st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM", "GIF"]))
def test_a_file_cut_anywhere_is_refused_and_never_half_a_picture(tmp_path_factory, photograph, share, format):
    path = tmp_path_factory.mktemp("cut") / "picture"
    Image.fromarray(photograph).save(path, format)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InvalidInput, match="picture"):
        read_image(path)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_a_jpeg_whose_scan_ends_early_before_an_end_marker_is_refused(tmp_path, photograph, progressive, share):
    Image.fromarray(photograph).save(tmp_path / "p.jpg", progressive=progressive)
    data = (tmp_path / "p.jpg").read_bytes()
    (tmp_path / "p.jpg").write_bytes(data[: int(len(data) * share)] + b"\xff\xd9")
    with pytest.raises(InvalidInput, match=r"p\.jpg: cannot be read as a picture: a JPEG .* is damaged"):
        read_image(tmp_path / "p.jpg")


def test_a_png_whose_data_end_early_is_refused_and_not_black_below(tmp_path, photograph):
    Image.fromarray(photograph).save(tmp_path / "p.png")
    data = (tmp_path / "p.png").read_bytes()
    at = data.index(b"IDAT") - 4
    length = int.from_bytes(data[at : at + 4], "big")
    half = zlib.compress(zlib.decompress(data[at + 8 : at + 8 + length])[: 160 * 3 * 60])
    piece = b"IDAT" + half
    chunk = len(half).to_bytes(4, "big") + piece + zlib.crc32(piece).to_bytes(4, "big")
    (tmp_path / "p.png").write_bytes(data[:at] + chunk + data[-12:])
    with pytest.raises(InvalidInput, match=r"p\.png: cannot be read as a picture: a PNG .* is damaged"):
        read_image(tmp_path / "p.png")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_upright_in_every_orientation(tmp_path, photograph, format, orientation):
    path = tmp_path / "picture"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(photograph).save(path, format, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"), int)[..., ::-1]
    assert read_image(path).shape == expected.shape
    assert np.abs(read_image(path) - expected).max() <= (3 if format == "JPEG" else 0)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_a_jpeg_of_any_colour_space_has_its_colours(tmp_path, photograph, mode):
    picture = Image.fromarray(photograph).convert(mode)
    picture.save(tmp_path / "p.jpg", quality=95)
    expected = np.asarray(picture.convert("RGB"), int)[..., ::-1]
    assert np.abs(read_image(tmp_path / "p.jpg") - expected).mean() < 3


def test_in_a_directory_only_pictures_count_and_only_its_own(tmp_path):
    (tmp_path / "deeper").mkdir()
    for name in ("b.JPG", "a.png", "notes.txt", "deeper/c.png"):
        (tmp_path / name).touch()
    assert find_images([tmp_path]) == ([tmp_path / "a.png", tmp_path / "b.JPG"], [])


def test_a_file_that_is_named_may_have_any_name(tmp_path):
    (tmp_path / "frame").touch()
    found, errors = find_images([tmp_path / "frame", tmp_path / "absent"])
    assert found == [tmp_path / "frame"]
    assert errors == [f"{tmp_path / 'absent'}: no such file or directory"]


@pytest.mark.parametrize("size", [(64, 48), (300, 200)])
@pytest.mark.parametrize("where", [0.3, 0.5, 0.9])
def test_a_tiff_with_checksums_that_is_damaged_inside_is_refused(tmp_path, size, where):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8))
    file = tmp_path / "a.tiff"
    picture.save(file, compression="tiff_adobe_deflate")
    assert np.array_equal(read_image(file), np.asarray(picture)[..., ::-1])
    data = bytearray(file.read_bytes())
    at = int(len(data) * where)
    data[at : at + 100] = bytes(100)
    file.write_bytes(data)
    with pytest.raises(InvalidInput, match="damaged"):
        read_image(file)
