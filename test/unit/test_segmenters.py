"""Segmenters that need no model."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activeo3_ros.core import Box, Detection, Frame, InstanceMask
from activeo3_ros.segmenters.grabcut import GrabCut

GREEN, RED, BLUE, SKIN = (40, 120, 40), (30, 30, 220), (160, 60, 30), (140, 170, 215)
"""Blue, green, red."""
PEDESTRIANS = Path("/usr/share/doc/opencv-doc/examples/data/vtest.avi")
"""Of Debian's opencv-doc: people on a walkway, seen by a fixed camera."""


def masks(image: np.ndarray, *boxes: Box, **options) -> list[InstanceMask]:
    return GrabCut(**options).segment(Frame(image), [Detection("person", 0.9, box) for box in boxes])


def test_a_mask_is_linked_to_its_detection_where_one_before_it_is_too_small_for_a_mask():
    image = np.full((120, 160, 3), GREEN, np.uint8)
    image[40:80, 60:100] = RED
    detections = [Detection("car", 0.9, Box(5, 5, 3, 3)), Detection("car", 0.8, Box(56, 36, 48, 48), region=2)]
    (mask,) = GrabCut().segment(Frame(image), detections)
    assert (mask.detection, mask.region, mask.score, mask.box) == (1, 2, 0.8, Box(56, 36, 48, 48))
    assert mask.mask[24, 24]
    assert not mask.mask[1, 1]


def person(head: tuple, jacket: tuple, legs: tuple) -> np.ndarray:
    """A drawn person in the box 60, 20, 40 x 120, on a green ground with noise."""
    image = np.full((160, 160, 3), GREEN, np.uint8)
    cv2.ellipse(image, (80, 30), (9, 11), 0, 0, 360, head, cv2.FILLED)
    cv2.rectangle(image, (62, 41), (97, 90), jacket, cv2.FILLED)
    cv2.rectangle(image, (66, 90), (77, 139), legs, cv2.FILLED)
    cv2.rectangle(image, (82, 90), (93, 139), legs, cv2.FILLED)
    noise = np.random.default_rng(0).normal(0, 4, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


PERSON = Box(60, 18, 40, 123)


def test_a_whole_person_has_a_mask():
    (mask,) = masks(person(RED, RED, RED), PERSON)
    assert mask.mask[12, 20] and mask.mask[60, 20] and mask.mask[118, 12] and mask.mask[118, 28]


@pytest.mark.parametrize(
    "colours",
    [(GREEN, RED, GREEN), (RED, RED, GREEN), (GREEN, RED, RED)],
    ids=["a jacket", "without legs", "without a head"],
)
def test_a_person_of_whom_colour_shows_a_part_has_no_mask(colours):
    assert not masks(person(*colours), PERSON)
    assert masks(person(*colours), PERSON, max_gap=1, min_share=0.05), "the part alone would have been published"


def with_mask(shape: np.ndarray, **options) -> bool:
    return GrabCut(**options)._is_whole(shape)


@pytest.mark.parametrize(
    ("rows", "columns", "whole"),
    [
        (slice(0, 100), slice(0, 50), True),
        (slice(12, 88), slice(6, 44), True),
        (slice(13, 100), slice(0, 50), False),
        (slice(0, 87), slice(0, 50), False),
        (slice(0, 100), slice(7, 50), False),
        (slice(0, 100), slice(0, 43), False),
    ],
)
def test_a_mask_must_come_near_each_side_of_its_box(rows, columns, whole):
    shape = np.zeros((100, 50), bool)
    shape[rows, columns] = True
    assert with_mask(shape, max_share=1.0) is whole
    assert with_mask(shape, max_share=1.0, max_gap=1.0)


def test_a_mask_in_pieces_or_of_a_sliver_or_of_the_whole_box_is_left_out():
    halves = np.zeros((100, 50), bool)
    halves[:45] = halves[55:] = True
    assert not with_mask(halves)
    assert not with_mask(halves, min_connected=0.5), "its largest part ends at half the height"
    assert with_mask(halves, min_connected=0.5, max_gap=0.6)
    assert not with_mask(np.eye(100, dtype=bool))
    assert with_mask(np.eye(100, dtype=bool), min_share=0.01)
    assert not with_mask(np.ones((100, 50), bool))
    assert not with_mask(np.zeros((100, 50), bool), min_share=0.0)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(deadline=None)
def test_any_mask_is_judged(height, width, seed, density):
    shape = np.random.default_rng(seed).random((height, width)) < density
    assert with_mask(shape, min_share=0, max_share=1, min_connected=0, max_gap=1) is bool(shape.any())
    assert with_mask(shape) in (True, False)


def test_the_portrait_of_a_person_has_no_mask_of_her_face_alone():
    matplotlib_cbook = pytest.importorskip("matplotlib.cbook")
    with matplotlib_cbook.get_sample_data("grace_hopper.jpg") as file:
        data = file.read() if isinstance(file, io.BufferedReader) else Path(file).read_bytes()
    portrait = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    # The whole person, then her left and her right half, as a detector found them.
    boxes = Box(14, 24, 480, 552), Box(6, 240, 295, 357), Box(207, 240, 300, 357)
    assert not masks(portrait, *boxes)
    # GrabCut keeps her face and badges, and loses the dark uniform.
    before = masks(portrait, *boxes, min_share=0.05, min_connected=0, max_gap=1)
    assert [round(float(mask.mask.mean()), 1) for mask in before] == [0.3, 0.1, 0.1]


@pytest.mark.skipif(not PEDESTRIANS.is_file(), reason="needs vtest.avi of Debian's opencv-doc")
def test_pedestrians_have_masks_of_their_whole_length():
    film, frames = cv2.VideoCapture(str(PEDESTRIANS)), {}
    for number in range(541):
        _, picture = film.read()
        frames[number] = picture
    boxes = [  # frame, x, y, width, height
        *[(20, 681, 272, 42, 102), (20, 443, 234, 37, 79), (20, 364, 211, 37, 65), (150, 590, 229, 34, 88)],
        *[(150, 389, 208, 27, 70), (280, 258, 183, 48, 78), (280, 409, 244, 21, 75), (540, 642, 288, 38, 94)],
    ]
    for number, *box in boxes:
        (mask,) = masks(frames[number], Box(*map(float, box)))
        rows = np.flatnonzero(mask.mask.any(axis=1))
        assert rows[-1] - rows[0] > 0.85 * box[3], (number, box)
