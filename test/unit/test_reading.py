"""Reading a part of a view: whole and legible lines, twice the same; by a reader that answers as told."""

import cv2
import numpy as np
import pytest

from activeo3_ros.core import Box, Frame
from activeo3_ros.detectors.reading import read_object, read_view, without_lamps
from activeo3_ros.detectors.text_reader import TextLine

FRAME = Frame(np.zeros((600, 1000, 3), np.uint8))
OBJECT = Box(100, 100, 200, 100)


class ToldReader:
    """Finds lines where the test says that they are, in pixels of the view, with one text for each time of reading."""

    def __init__(self, view, *lines):
        self.view, self.lines, self.calls = view, lines, 0

    def read(self, image):
        height, width = image.shape[:2]
        # Which window it is shows in its pixels: each holds its own place.
        x0, y0 = image[0, 0, :2].astype(int) * 4
        found = []
        for texts, score, (x, y, w, h) in self.lines:
            left, top, right, bottom = max(0, x - x0), max(0, y - y0), min(width, x + w - x0), min(height, y + h - y0)
            if right > left and bottom > top and texts[min(self.calls, len(texts) - 1)]:
                text = texts[min(self.calls, len(texts) - 1)]
                found.append(TextLine(text, score, (left, top, right - left, bottom - top)))
        self.calls += 1
        return found


def placed(window=FRAME.window, size=(1000, 600), region=-1):
    """A view whose pixels tell their place, a quarter of x and of y."""
    view = FRAME.view(window, size, region)
    columns, rows = np.meshgrid(np.arange(size[0]) // 4, np.arange(size[1]) // 4)
    view.image[..., 0], view.image[..., 1] = columns, rows
    return view


def texts(lines, least=0.5):
    return [line.text for line in lines if line.score >= least]


def test_a_line_that_both_readings_have_keeps_its_score():
    view = placed()
    [line] = read_object(ToldReader(view, (["102"], 0.9, (160, 140, 60, 20))), view, OBJECT, "text")
    assert (line.text, line.score) == ("102", pytest.approx(0.9))
    assert line.box == pytest.approx((160, 140, 60, 20), abs=4)


@pytest.mark.parametrize("told", [["15", "815"], ["15", ""]])
def test_a_line_on_which_the_readings_differ_is_not_believed(told):
    view = placed()
    lines = read_object(ToldReader(view, (told, 0.99, (160, 140, 60, 20))), view, OBJECT, "text")
    assert texts(lines) == []
    assert all(line.score < 0.5 for line in lines)


def test_a_line_that_the_border_of_a_crop_cuts_is_not_read():
    crop = placed(Box(400, 0, 500, 300), (1000, 600), 0)
    assert read_view(ToldReader(crop, (["URGE"], 0.9, (0, 200, 200, 40))), crop, "text") == []
    whole = placed()
    assert texts(read_view(ToldReader(whole, (["URGE"], 0.9, (0, 200, 200, 40))), whole, "text")) == ["URGE"]


def test_letters_of_a_few_pixels_are_not_believed():
    view = placed()
    assert read_view(ToldReader(view, (["102"], 0.9, (160, 140, 20, 6))), view, "text") == []
    blown_up = placed(Box(400, 300, 100, 60), (1000, 600), 0)
    assert read_view(ToldReader(blown_up, (["102"], 0.9, (300, 200, 200, 60))), blown_up, "text") == []


def test_text_beside_an_object_is_not_text_on_it():
    view = placed()
    reader = ToldReader(view, (["ON"], 0.9, (160, 140, 60, 20)), (["BESIDE"], 0.9, (320, 140, 20, 20)))
    assert texts(read_object(reader, view, OBJECT, "text")) == ["ON"]


def test_a_number_is_the_words_with_a_digit():
    view = placed()
    reader = ToldReader(view, (["EXIT 42"], 0.9, (160, 140, 90, 20)), (["TAXI"], 0.9, (160, 170, 60, 20)))
    assert texts(read_object(reader, view, OBJECT, "number")) == ["42"]


def test_a_lit_lamp_beside_digits_is_covered_and_the_digits_are_not():
    image = np.full((100, 260, 3), 25, np.uint8)
    cv2.circle(image, (50, 50), 25, (60, 230, 120), -1, cv2.LINE_AA)
    cv2.putText(image, "15.8", (95, 75), cv2.FONT_HERSHEY_DUPLEX, 2, (60, 230, 120), 4, cv2.LINE_AA)
    covered = without_lamps(image, [TextLine("015.8", 0.9, (20, 20, 220, 60))])
    assert covered is not None
    assert covered[25:75, 25:75].max() < 60
    np.testing.assert_array_equal(covered[:, 85:], image[:, 85:])


@pytest.mark.parametrize("lines", [[], [TextLine("15", 0.9, (95, 20, 120, 60))]])
def test_a_lamp_that_no_line_holds_stays(lines):
    image = np.full((100, 260, 3), 25, np.uint8)
    cv2.circle(image, (50, 50), 25, (60, 230, 120), -1, cv2.LINE_AA)
    assert without_lamps(image, lines) is None
