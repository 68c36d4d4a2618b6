"""The annotated picture: what was found is there, nothing else is, at any size."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activeo3_ros.codecs.picture import Labels, caption, draw, side_by_side, track_colour
from activeo3_ros.core import Box, Detection, Grounding, InstanceMask, Query, Region, Result, Status, Track

GREY = 128


def grey(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Which pixels differ, `(h, w)` bool."""
    return (before != after).any(axis=2)


def test_the_frame_itself_stays_as_it_is():
    image = grey(320, 240)
    draw(image, Result(320, 240, Query(), detections=(Detection("car", 0.9, Box(50, 50, 100, 80)),)))
    assert (image == GREY).all()


def test_a_box_is_drawn_around_its_object_and_leaves_it_visible():
    image = grey(640, 480)
    box = Box(200, 150, 120, 90)
    picture = changed(image, draw(image, Result(640, 480, Query(), detections=(Detection("car", 0.9, box),))))
    inside = picture[150:240, 200:320]
    assert not inside.any()
    around = picture[146:244, 196:324]
    assert around.sum() > 2 * (120 + 90)


def test_a_result_is_drawn_to_scale_on_a_smaller_picture_of_its_frame():
    small = grey(320, 240)
    picture = changed(
        small, draw(small, Result(640, 480, Query(), detections=(Detection("car", 0.9, Box(400, 300, 120, 90)),)))
    )
    assert not picture[150:195, 200:260].any()
    assert picture[145:200, 195:265].any()


def test_a_track_has_one_colour_and_a_tail():
    image = grey(640, 480)
    detection = Detection("car", 0.9, Box(200, 150, 120, 90), track_id="front:3")
    track = Track("front:3", "car", 0.9, detection.box, path=((20.0, 400.0), (60.0, 400.0), (100.0, 400.0)))
    with_tail = draw(image, Result(640, 480, Query(), detections=(detection,), tracks=(track,)))
    assert with_tail[400, 60].tolist() == list(track_colour("front:3"))
    assert changed(image, with_tail)[148, 260]
    renamed = replace(detection, label="truck", track_id="front:3")
    other = draw(image, Result(640, 480, Query(), detections=(renamed,)))
    assert other[148, 260].tolist() == with_tail[148, 260].tolist() == list(track_colour("front:3"))


def test_what_no_region_covers_is_darker():
    image = grey(640, 480)
    picture = draw(image, Result(640, 480, Query(), regions=(Region(Box(100, 100, 200, 150), "far away", 0.5, 2.0),)))
    assert picture[200, 200].tolist() == [GREY] * 3
    assert picture[400, 500].max() < GREY


def test_without_regions_nothing_is_darker():
    image = grey(640, 480)
    assert draw(image, Result(640, 480, Query()))[400, 500].tolist() == [GREY] * 3


@pytest.mark.parametrize(("score", "expected"), [(0.876, "car 0.88"), (math.nan, "car"), (0.0, "car 0.00")])
def test_an_object_without_a_score_shows_none(score, expected):
    assert caption("car", score) == expected


def test_labels_do_not_cover_one_another_and_no_box_is_left_out():
    image = grey(640, 480)
    boxes = [Box(300 + 3 * i, 200 + 2 * i, 20, 15) for i in range(12)]
    crowd = Result(640, 480, Query(), detections=tuple(Detection("car", 0.5, box) for box in boxes))
    picture = changed(image, draw(image, crowd))
    for box in boxes:
        assert picture[int(box.y) - 1, int(box.x) : int(box.right)].any()


@pytest.mark.parametrize(("detection", "labels"), [(0, {"“102” 0.50"}), (-1, {"“102” 0.50", "car 0.90"})])
def test_a_detection_and_a_grounding_of_one_object_have_one_label(monkeypatch, detection, labels):
    """They are one by their link; that two boxes are equal says nothing."""
    written = set()
    monkeypatch.setattr(Labels, "put", lambda self, corners, text, colour: written.add(text))
    box = Box(200, 150, 120, 90)
    grounding = Grounding("the number", 0.5, box, text="102", detection=detection)
    found = Result(640, 480, Query(), detections=(Detection("car", 0.9, box),), groundings=(grounding,))
    draw(grey(640, 480), found)
    assert written == labels


def test_a_mask_tints_its_pixels_and_no_others():
    image = grey(640, 480)
    mask = np.zeros((40, 60), bool)
    mask[:, :30] = True
    picture = draw(image, Result(640, 480, Query(), masks=(InstanceMask("car", 0.5, Box(200, 200, 60, 40), mask),)))
    assert picture[220, 210].tolist() != [GREY] * 3
    assert picture[220, 250].tolist() == [GREY] * 3


def test_failure_cannot_be_taken_for_an_empty_scene():
    image = grey(640, 480)
    complete = draw(image, Result(640, 480, Query()))
    failed = draw(image, Result(640, 480, Query(), Status.FAILED, "the model is gone"))
    assert failed[1, 1, 2] > 150 > complete[1, 1, 2]  # red


coordinates = st.floats(-5000, 5000)
boxes = st.builds(Box, coordinates, coordinates, st.floats(0, 5000), st.floats(0, 5000))
texts = st.text(max_size=60)
scores = st.one_of(st.floats(0, 1), st.just(math.nan))


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([(1, 1), (1, 300), (300, 1), (7, 5), (64, 48), (333, 250)]),
    boxes=st.lists(boxes, max_size=6),
    text=texts,
    score=scores,
    status=st.sampled_from(Status),
)
def test_any_result_can_be_drawn_on_a_picture_of_any_size(size, boxes, text, score, status):
    width, height = size
    result = Result(
        width,
        height,
        Query(),
        status,
        text,
        regions=tuple(Region(box, text, score, score) for box in boxes),
        detections=tuple(Detection(text, score, box) for box in boxes),
        groundings=tuple(Grounding(text, score, box, text=text) for box in boxes),
        masks=tuple(InstanceMask(text, score, box, np.ones((3, 2), bool)) for box in boxes),
        answer=text,
    )
    picture = draw(grey(width, height), result)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8


def test_pictures_beside_one_another_are_below_their_titles_and_not_wider_than_asked():
    dark, bright = np.zeros((90, 160, 3), np.uint8), np.full((90, 160, 3), 255, np.uint8)
    pair = side_by_side([("before", dark), ("after", bright)])
    strip = pair.shape[0] - 90
    assert pair.shape[1] == 320 and strip > 0
    assert (pair[strip:, :160] == 0).all() and (pair[strip:, 160:] == 255).all()
    assert (pair[:strip, :160] != pair[0, 159]).any(), "there is a title"
    assert side_by_side([("before", dark), ("after", bright)], max_width=100).shape[1] == 100


def test_an_object_that_is_followed_has_its_number_in_every_frame(monkeypatch):
    texts = []
    monkeypatch.setattr(Labels, "put", lambda self, corners, text, colour: texts.append(text))
    box = Box(20, 20, 30, 20)
    followed = Detection("car", 0.5, box, track_id="front:12")
    draw(grey(100, 100), Result(100, 100, Query(), detections=(followed, Detection("car", 0.4, box))))
    assert sorted(texts) == ["car 0.40", "car 0.50 #12"]
