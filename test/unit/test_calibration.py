"""Calibration without labels: a detector of known behaviour is measured, and the file that holds what was measured."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from activeo3_ros.cli.calibrate import looking_for
from activeo3_ros.core import Box, DetectedBoxes, Frame, InputSize, InvalidInput
from activeo3_ros.core.calibration import DEFAULT
from activeo3_ros.detectors.calibration import VALUES, calibration_text, load_calibration, read_calibration
from activeo3_ros.evaluation.calibration_looks import CANVAS_GREY, look_at, one_to_one
from activeo3_ros.evaluation.detector_calibration import (
    DetectorCalibration,
    NothingSure,
    crossing,
    half_side,
    isotonic,
)

CANVAS = 320


class FakeSquareDetector:
    """Finds red squares, with exactly the weaknesses that a test gives it.

    Args:
        smallest_px: Squares with a smaller side are never found.
        found: Probability that a larger one is found.
        jitter_px: Standard deviation of each edge of its boxes.
        repeats: Whether it decides by the side alone, so that it misses again what it missed.
        false_boxes: Whether a box with a score `c` comes with a false one of that score with probability (1 - c) / c,
            so that a score is the share of its boxes that are objects.
    """

    names = ("square",)
    input_size = InputSize(CANVAS, CANVAS)
    concurrent = False

    def __init__(self, smallest_px=13.45, found=0.7, jitter_px=1.0, repeats=False, false_boxes=False):
        self.smallest_px, self.found, self.jitter_px, self.repeats = smallest_px, found, jitter_px, repeats
        self.false_boxes = false_boxes
        self.random = np.random.default_rng(0)

    def detect(self, images, threshold, /):
        return [self._detect(image) for image in images]

    def _detect(self, image):
        red = (image[:, :, 2].astype(int) - image[:, :, 1] > 80).astype(np.uint8)
        rows = cv2.connectedComponentsWithStats(red)[2][1:, :4].astype(float)
        left, top, width, height = cv2.boundingRect((image[:, :, 0] != CANVAS_GREY).astype(np.uint8))
        boxes, scores = [], []
        for x, y, wide, high in rows:
            side = np.sqrt(wide * high)
            chance = abs(np.sin(1e4 * round(side))) % 0.1 * 10 if self.repeats else self.random.random()
            if side < self.smallest_px or chance > self.found:
                continue
            x0, y0, x1, y1 = np.array([x, y, x + wide, y + high]) + self.random.normal(0, self.jitter_px, 4)
            x0, y0, x1, y1 = np.clip([x0, y0, x1, y1], 0, [*image.shape[1::-1]] * 2)
            scores.append(self.random.uniform(0.5, 1) if self.false_boxes else 0.9)
            boxes.append([x0, y0, x1 - x0, y1 - y0])
            if self.false_boxes and self.random.random() < (1 - scores[-1]) / scores[-1]:
                place = left + self.random.uniform(0, width - side), top + self.random.uniform(0, height - side)
                boxes.append([*place, side, side])
                scores.append(scores[-1])
        order = np.argsort(scores)[::-1]
        found = np.array(boxes, float).reshape(-1, 4)[order]
        return DetectedBoxes(found, np.array(scores, np.float32)[order], np.zeros(len(found), np.intp))


def squares(seed):
    """A grey picture with red squares of 24 to 180 px."""
    random = np.random.default_rng(seed)
    picture = np.full((480, 640, 3), 90, np.uint8)
    taken = []
    for side in random.permutation(np.geomspace(24, 180, 6)).round().astype(int):
        for _ in range(50):
            x, y = random.integers(4, 636 - side), random.integers(4, 476 - side)
            if all(x > b + 8 or x + side + 8 < a or y > d + 8 or y + side + 8 < c for a, b, c, d in taken):
                picture[y : y + side, x : x + side] = (30, 30, 220)
                taken.append((x, x + side, y, y + side))
                break
    return picture


def measure(detector, pictures=24):
    calibration = DetectorCalibration(detector)
    for seed in range(pictures):
        calibration.add(squares(seed), seed)
    return calibration.measured()


@pytest.fixture(scope="module")
def known():
    """A detector that finds 7 of 10 from 13.45 px on, each look anew, with edges off by 1 px."""
    return measure(FakeSquareDetector())


def test_the_share_found_is_recovered_at_each_side(known):
    for side, tries, found, (low, high) in zip(
        known.calibration.sides_px, known.tries, known.calibration.found, known.found_interval, strict=True
    ):
        truth = 0.0 if side < 13 else 0.7
        assert low <= truth <= high, f"side {side}: {found} ({low} to {high})"
        assert tries < 60 or high - low < 0.35


def test_two_looks_of_a_detector_without_memory_miss_independently(known):
    low, high = known.repeated_interval
    assert low <= 0.3 <= high
    assert high - low < 0.25


def test_a_detector_that_decides_by_size_misses_again_what_it_missed():
    measured = measure(FakeSquareDetector(repeats=True), 12)
    assert measured.calibration.repeated_misses > 0.8


def test_the_jitter_of_edges_is_recovered(known):
    for side, jitter, (low, high) in zip(
        known.calibration.sides_px, known.calibration.jitter_px, known.jitter_interval, strict=True
    ):
        if side >= 22:  # smaller boxes that are off further no longer overlap their object
            assert jitter == pytest.approx(1.0, abs=0.25), side
            assert low - 0.15 <= 1.0 <= high  # 0.04 of it is the grid of the pixels
    assert known.calibration.edge_tolerance_px == pytest.approx(1.0, abs=0.25)


def test_the_size_from_which_it_works_is_the_step(known):
    low, high = known.half_found_interval
    assert 10 < low <= known.calibration.half_found_side_px <= high < 24


def test_a_score_is_the_share_of_its_boxes_that_are_objects():
    measured = measure(FakeSquareDetector(found=1.0, false_boxes=True))
    scores = np.array([0.6, 0.8])
    for side in (22.6, 64.0):
        np.testing.assert_allclose(measured.calibration.probability_true(scores, side), scores, atol=0.12)


def test_pictures_without_anything_sure_are_refused_with_their_number():
    calibration = DetectorCalibration(FakeSquareDetector())
    for _ in range(2):
        calibration.add(np.full((100, 100, 3), 90, np.uint8), 0)
    with pytest.raises(NothingSure, match="sure of 0 objects in 2 pictures"):
        calibration.measured()


def test_the_same_pictures_give_the_same_values():
    first, second = measure(FakeSquareDetector(), 3), measure(FakeSquareDetector(), 3)
    assert first.calibration == second.calibration


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(3, 700), st.integers(3, 700)),
    scale=st.floats(0.05, 4),
    corner=st.tuples(st.floats(-300, 300), st.floats(-300, 300)),
)
def test_a_look_keeps_places(size, scale, corner):
    frame = Frame(np.zeros((size[1], size[0], 3), np.uint8))
    look = look_at(frame, scale, corner, (CANVAS, CANVAS))
    assert look.image.shape == (CANVAS, CANVAS, 3)
    window = look.view.window
    shown = np.array([[*look.place, look.view.width, look.view.height]], float)
    np.testing.assert_allclose(look.to_picture(shown), [window.as_tuple()], atol=1e-6)
    inside = window.x >= 0 and window.y >= 0 and window.right <= size[0] and window.bottom <= size[1]
    assert inside


def test_a_look_shows_whole_what_its_border_does_not_cut():
    frame = Frame(np.zeros((600, 600, 3), np.uint8))
    look = look_at(frame, 1.0, (100.0, 0.0), (CANVAS, CANVAS))  # columns 100 to 420, rows 0 to 320
    boxes = np.array([[200, 100, 50, 50], [101, 100, 50, 50], [400, 100, 30, 30], [200, 0, 50, 50]], float)
    assert look.shows_whole(boxes).tolist() == [True, False, False, True]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 100)), min_size=1, max_size=30))
def test_isotonic_values_never_fall_and_keep_the_mean(pairs):
    values, weights = np.array(pairs).T
    fitted = isotonic(values, weights)
    assert (np.diff(fitted) >= -1e-12).all()
    assert np.average(fitted, weights=weights) == pytest.approx(np.average(values, weights=weights), abs=1e-9)
    np.testing.assert_allclose(isotonic(fitted, weights), fitted, atol=1e-12)


def test_each_row_gets_its_best_free_column():
    assert one_to_one(np.array([[0.9, 0.8], [0.95, 0.0], [0.1, 0.2]])).tolist() == [1, 0, -1]
    assert one_to_one(np.empty((2, 0))).tolist() == [-1, -1]


def test_the_crossing_of_a_curve_is_interpolated_by_ratio():
    sides, curve = np.array([8.0, 16.0, 32.0]), np.array([0.0, 0.5, 1.0])
    assert crossing(sides, curve, 0.5) == pytest.approx(16)
    assert crossing(sides, curve, 0.25) == pytest.approx(8 * 2**0.5)
    half, slope = half_side(sides, curve)
    assert half == pytest.approx(16)
    assert slope == pytest.approx(2 * np.log(3))
    assert crossing(sides, np.array([0.9, 0.9, 1.0]), 0.5) == 8.0


def test_a_detector_that_reads_words_is_told_the_classes_that_count():
    class FakeWordDetector(FakeSquareDetector):
        def for_names(self, names, /):
            told = FakeWordDetector()
            told.names = tuple(names)
            return told

    detector, ids = looking_for(FakeWordDetector(), ("red box", "square"))
    assert detector.names == ("red box", "square")
    assert ids is None
    fixed = FakeSquareDetector()
    assert looking_for(fixed, ("square",)) == (fixed, [0])
    assert looking_for(fixed, ()) == (fixed, None)
    with pytest.raises(InvalidInput, match="the detector has no class 'circle'; it has square"):
        looking_for(fixed, ("circle",))


def text_of(calibration=DEFAULT, **about):
    rows = [{"tries": 3, "found_interval": [0.1, 0.2]}] * len(calibration.sides_px)
    return calibration_text(calibration, {"material": "", **about}, {"repeated_misses": [float("nan")] * 2}, rows)


def test_a_file_gives_back_what_was_written(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(text_of(date="2026-01-02"))
    assert read_calibration(file) == DEFAULT
    assert yaml.safe_load(file.read_text())["about"]["date"] == "2026-01-02"


def test_a_value_that_is_set_by_hand_stands_in_place_of_the_measured_one(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(text_of() + "set_by_hand: {half_found_side_px: 21}\n")
    assert read_calibration(file).half_found_side_px == 21.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("threshold: 0.3", "threshold: 3"), "threshold must be 0 to 1, got 3"),
        (("side_px: 8.0", "side_px: 2.0"), "sides_px must be rising numbers from 0 on, got [4.0, 2.0, "),
        (("found: 0.25", "found: many"), "row 2 of sides: found must be a number, got 'many'; allowed is 0 to 1"),
        (("found: 0.25", "found: .nan"), "row 2 of sides: found must be 0 to 1, got nan"),
        (("scores: [0.0, ", "scores: ["), "true_share needs 5 entries a row, one a score, got 6"),
        (("intervals:", "interval:"), "unknown key 'interval' of a calibration; known are scores, "),
        (("half_found_side_px: 18.0", "half_found_side_px: 0"), "half_found_side_px must be more than 0, got 0.0"),
        (("sides:", "sides: 3\nabout:"), "sides must be a list"),
        (("about:", "set_by_hand: {found: 1}\nabout:"), "set_by_hand has no 'found'; it may hold repeated_misses, "),
        (("about:", "- a\nabout:"), "not a readable calibration file: "),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path, change, message):
    file = tmp_path / "mine.yaml"
    text = text_of()
    assert change[0] in text
    file.write_text(text.replace(*change, 1))
    with pytest.raises(InvalidInput) as error:
        read_calibration(file)
    assert message in str(error.value)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidInput, match=r"none\.yaml: not a readable calibration file: No such file"):
        load_calibration("embedded", 0.3, str(tmp_path / "none.yaml"))


def test_a_detector_without_a_calibration_has_the_defaults_and_says_so_once(caplog):
    assert load_calibration("some_detector_of_mine", 0.3) is DEFAULT
    assert load_calibration("some_detector_of_mine", 0.3) is DEFAULT
    assert [record.message for record in caplog.records] == [
        "the detector 'some_detector_of_mine' has no calibration: stated defaults are used; measure one with "
        "activeo3 calibrate, or name a file with the setting 'calibration'"
    ]


def test_a_calibration_of_another_threshold_is_told(caplog, tmp_path):
    file = tmp_path / "other.yaml"
    file.write_text(text_of())
    load_calibration("x", 0.32, str(file))
    assert not caplog.records
    load_calibration("x", 0.5, str(file))
    assert "was measured at a threshold of 0.3, the detector reports from 0.5 on" in caplog.text


def test_the_embedded_detector_keeps_what_policy_and_merging_were_tuned_with():
    """Its results are those of before calibration: none of these may drift when its curves are measured again."""
    own = load_calibration("embedded", 0.3)
    tuned = {
        "half_found_side_px": 18.0,
        "logits_per_doubling": 1.4,
        "probability_per_score": 2.0,
        "class_side_px": 12.0,
        "legible_side_px": 32.0,
        "edge_tolerance_px": 2.0,
        "same_object_iou": 0.5,
        "same_object_any_class_iou": 0.7,
    }
    assert {name: getattr(own, name) for name in tuned} == tuned
    assert set(tuned) | {"threshold", "repeated_misses"} == set(VALUES)
    assert own.measured


def test_boxes_between_the_sides_and_scores_are_interpolated():
    own = DEFAULT
    assert own.probability_found([4, 8, 1000, 0]).tolist() == [0.02, 0.25, 0.9, 0.02]
    assert own.probability_true([0.25], [20.0])[0] == pytest.approx(0.5)
    assert own.probability_found(Box(0, 0, 8, 8).area ** 0.5) == pytest.approx(0.25)
