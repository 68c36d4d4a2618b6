"""The text reader on pictures with text that is known because it was drawn."""

from __future__ import annotations

import socket

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.packages import TEXT_DETECTOR, require
from activeo3_ros.core.errors import InvalidInput
from activeo3_ros.detectors.reading import without_lamps
from activeo3_ros.detectors.text_reader import TextReader

try:
    require(TEXT_DETECTOR)
except AssetError as missing:
    pytest.skip(str(missing), allow_module_level=True)


@pytest.fixture(scope="module")
def reader() -> TextReader:
    return TextReader(threads=1)


def sign(
    text: str, height: int = 240, width: int = 480, at: tuple[int, int] = (60, 150), scale: float = 3.0
) -> np.ndarray:
    """A bright sign with dark letters, the lower left corner of the text at `at`."""
    image = np.full((height, width, 3), 225, np.uint8)
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (20, 20, 20), round(2 * scale), cv2.LINE_AA)
    return image


def test_it_reads_a_text_and_its_place(reader):
    [line] = reader.read(sign("EXIT 42"))
    assert line.text.replace(" ", "") == "EXIT42"
    assert 0.8 < line.score <= 1
    x, y, width, height = line.box
    (text_width, text_height), _ = cv2.getTextSize("EXIT 42", cv2.FONT_HERSHEY_SIMPLEX, 3.0, 6)
    assert x == pytest.approx(60, abs=30)
    assert x + width == pytest.approx(60 + text_width, abs=30)
    assert y == pytest.approx(150 - text_height, abs=30)
    assert y + height == pytest.approx(150, abs=30)


def test_lines_come_from_top_to_bottom(reader):
    image = np.concatenate([sign("NORTH"), sign("SOUTH")])
    assert [line.text for line in reader.read(image)] == ["NORTH", "SOUTH"]


def test_a_picture_without_text_has_none(reader):
    assert reader.read(np.full((200, 300, 3), 128, np.uint8)) == []


@pytest.mark.parametrize(
    ("height", "width", "at"),
    [(240, 4800, (4000, 150)), (4800, 300, (20, 4500))],
)
def test_boxes_are_in_the_pixels_of_the_image_however_long_it_is(reader, height, width, at):
    [line] = reader.read(sign("B 17", height, width, at, scale=3.5))
    assert "17" in line.text
    x, y, box_width, box_height = line.box
    assert abs(x - at[0]) < 40
    assert abs(y + box_height - at[1]) < 40
    assert 0 <= x < x + box_width <= width
    assert 0 <= y < y + box_height <= height


@settings(max_examples=15, deadline=None)
@given(size=st.tuples(st.integers(1, 3000), st.integers(1, 60)), upright=st.booleans(), seed=st.integers(0, 999))
def test_it_reads_images_of_any_size(reader, size, upright, seed):
    height, width = size if upright else size[::-1]
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for line in reader.read(image):
        x, y, box_width, box_height = line.box
        assert 0 <= x <= x + box_width <= width
        assert 0 <= y <= y + box_height <= height


@pytest.mark.parametrize("colour", [(60, 230, 120), (40, 40, 235)])
@pytest.mark.parametrize("side", [110, 200, 320, 480])
def test_a_lit_lamp_beside_a_countdown_is_no_digit(reader, colour, side):
    image = np.full((160, 320, 3), 25, np.uint8)
    cv2.circle(image, (70, 80), 42, colour, -1, cv2.LINE_AA)
    cv2.putText(image, "15", (150, 115), cv2.FONT_HERSHEY_DUPLEX, 2.8, colour, 6, cv2.LINE_AA)
    image = cv2.resize(image, (2 * side, side), interpolation=cv2.INTER_AREA)
    lines = reader.read(image)
    covered = without_lamps(image, lines)
    texts = [line.text for line in (lines if covered is None else reader.read(covered))]
    assert texts == ["15"]


@pytest.mark.parametrize(
    "image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3), np.float32), None]
)
def test_an_array_that_is_no_bgr_image_is_refused(reader, image):
    with pytest.raises(InvalidInput, match="the text reader needs"):
        reader.read(image)


@pytest.mark.parametrize("min_side", [31, 2001])
def test_a_side_out_of_range_is_named(min_side):
    with pytest.raises(InvalidInput, match=f"min_side must be 32 to 2000 pixels, got {min_side}"):
        TextReader(min_side)


def test_it_neither_uses_the_network_nor_says_anything(monkeypatch, capfd):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the text reader opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    reader = TextReader(threads=1)
    assert len(reader.read(sign("EXIT 42"))) == 1
    assert reader.read(np.zeros((100, 100, 3), np.uint8)) == []
    assert capfd.readouterr() == ("", "")
