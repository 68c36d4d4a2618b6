"""The bound of a policy: windows in which the task model really finds true objects."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activeo3_ros.core import Budget, Finding, Findings, Frame, Query
from activeo3_ros.core.geometry import Box
from activeo3_ros.evaluation.detector_oracle import DetectorOracle, TrueObject, matched, window_pyramid

CARS = [Box(100, 100, 8, 8), Box(112, 100, 8, 8), Box(900, 500, 8, 8), Box(400, 300, 200, 150)]
QUERY = Query(classes=("car",))


class SquareFinder:
    """Finds white squares that are at least 16 pixels wide in a view, and counts the views."""

    batch_size = 1

    def __init__(self) -> None:
        self.views = 0

    def view_size(self, width, height, max_pixels):
        scale = min(1.0, 256 / max(width, height)) if width > 300 else 256 / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def examine(self, views, query, budget):
        self.views += len(views)
        return [self._examine(view) for view in views]

    def _examine(self, view):
        boxes = [
            (Box(*row), car) for row, car in zip(view.from_source([c.as_tuple() for c in CARS]), CARS, strict=True)
        ]
        inside = [
            box
            for box, _ in boxes
            if box.x >= 0 and box.y >= 0 and box.right <= view.width and box.bottom <= view.height and box.width >= 16
        ]
        return Findings(tuple(Finding("car", box, 0.9) for box in inside))

    def answer(self, query, findings, groundings):
        return None


def oracle(task, cache=None):
    found = DetectorOracle(task, lambda label: 1 if label == "car" else None, cache=cache)
    found.frame = Frame(np.zeros((600, 1000, 3), np.uint8))
    found.objects = [TrueObject(1, box) for box in CARS]
    return found


def propose(policy, regions):
    budget = Budget(max_regions=regions, view_pixels=256 * 256, crop_pixels=256 * 256)
    view = policy.frame.view(policy.frame.window, (500, 300))
    return list(policy.propose(view, QUERY, budget).regions)


def test_the_window_that_shows_two_cars_comes_before_the_one_that_shows_one():
    first, second = propose(oracle(SquareFinder()), 3)
    assert (first.score, second.score) == (2.0, 1.0)
    assert first.box.x * 2 <= 100 and first.box.right * 2 >= 120, "in view pixels, which are half as many"


def test_no_region_is_spent_on_what_is_found_already():
    assert len(propose(oracle(SquareFinder()), 8)) == 2, "the large car is found in the whole frame"


def test_fewer_regions_are_the_beginning_of_more():
    assert propose(oracle(SquareFinder()), 1) == propose(oracle(SquareFinder()), 2)[:1]


def test_a_frame_is_examined_once_for_all_budgets(tmp_path):
    task = SquareFinder()
    policy = oracle(task, tmp_path)
    propose(policy, 1)
    once = task.views
    propose(policy, 3)
    assert task.views == once
    again = SquareFinder()
    assert propose(oracle(again, tmp_path), 3) == propose(policy, 3)
    assert again.views == 0, "what was found is on disk"
    assert [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]


def test_without_truth_there_is_nothing_to_zoom_into_and_nothing_to_search():
    task = SquareFinder()
    policy = oracle(task)
    policy.objects = []
    assert not propose(policy, 3)
    assert not any(policy.search(QUERY, Budget()))
    assert not task.views


def test_a_preset_that_skips_the_whole_frame_spends_a_region_on_it():
    task = SquareFinder()
    policy = oracle(task)
    assert len(propose(policy, 8)) == 2
    policy = DetectorOracle(task, lambda label: 1 if label == "car" else None, examine_view=False)
    policy.frame, policy.objects = oracle(task).frame, oracle(task).objects
    assert len(propose(policy, 8)) == 3, "the large car has to be found too"


def test_the_share_of_the_search_is_shown():
    policy = oracle(SquareFinder())
    shown: list[float] = []
    policy.show = shown.append
    propose(policy, 1)
    assert shown == sorted(shown) and 0 < shown[0] < 0.01 and 0.99 < shown[-1] < 1


def test_one_object_is_found_once_and_only_as_what_it_is():
    objects = [TrueObject(1, Box(0, 0, 10, 10)), TrueObject(2, Box(50, 0, 10, 10))]
    found = [(0.9, 1, Box(0, 0, 10, 10)), (0.8, 1, Box(1, 0, 10, 10)), (0.7, 1, Box(50, 0, 10, 10))]
    assert matched(objects, found) == [(0, 1.0)]


class RoughFinder(SquareFinder):
    """Finds the large car everywhere, but in the whole frame by a box that is too wide."""

    def _examine(self, view):
        x, y, width, height = view.from_source([CARS[3].as_tuple()])[0].tolist()
        inside = min(x, y) >= 0 and x + width <= view.width and y + height <= view.height
        rough = 1.5 if view.window.width > 900 else 1.0
        return Findings((Finding("car", Box(x, y, width * rough, height), 0.9),) if inside else ())


def test_a_window_in_which_a_box_fits_better_is_worth_a_region():
    (region,) = propose(oracle(RoughFinder()), 8)
    assert region.score == pytest.approx(0.6), "thresholds 0.7 to 0.95 of ten, for the rough box has an IoU of 2/3"


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_the_pyramid_lies_in_the_frame_and_each_scale_covers_it(width, height):
    windows = window_pyramid(width, height)
    for box in windows:
        assert min(box.x, box.y) >= 0
        assert box.right <= width + 1e-6
        assert box.bottom <= height + 1e-6
    assert max(box.right for box in windows) == pytest.approx(width)
    assert max(box.bottom for box in windows) == pytest.approx(height)
