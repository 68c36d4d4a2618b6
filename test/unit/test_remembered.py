"""Where to look with a memory: not twice at what is certain, and where existence is open."""

import numpy as np
import pytest
from fake_detector_task import FakeDetectorTask, view_of

from activeo3_ros.core import Box, Budget, Finding, Query
from activeo3_ros.core.expectation import Expectation, ExpectedObject, PastZoom
from activeo3_ros.core.interfaces import ExpectingPolicy
from activeo3_ros.policies.detector_proposals import DetectorProposals
from activeo3_ros.policies.fixed import Grid

QUERY = Query(classes=("car",))
LEFT, RIGHT = Box(60, 150, 14, 10), Box(430, 150, 14, 10)


NOTHING = Expectation()


def regions(expected=NOTHING, max_regions=1):
    """What is proposed for a view that hints at two small cars."""
    task = FakeDetectorTask(Finding("car", LEFT, 0.25), Finding("car", RIGHT, 0.24))
    policy = DetectorProposals(task=task, neighbours=0.0, far_objects=0.0)
    budget = Budget(max_regions=max_regions, view_pixels=512 * 512, crop_pixels=512 * 512)
    return policy.propose_expecting(view_of(), QUERY, budget, expected).regions


def shows(region, box):
    x, y = box.center
    return region.box.x <= x <= region.box.right and region.box.y <= y <= region.box.bottom


def test_without_a_memory_it_zooms_into_the_likelier_hint():
    [region] = regions()
    assert shows(region, LEFT)


@pytest.mark.parametrize("existence", [0.97, 0.02])
def test_what_is_certain_is_not_looked_at_again(existence):
    [region] = regions(Expectation((ExpectedObject("car", LEFT, existence),)))
    assert shows(region, RIGHT)


def test_an_object_whose_existence_is_open_is_looked_at_though_the_view_shows_no_hint():
    hidden = Box(250, 60, 14, 10)
    [region] = regions(Expectation((ExpectedObject("car", hidden, 0.5),)))
    assert shows(region, hidden)


def test_a_place_is_looked_at_again_when_its_last_zoom_is_long_ago():
    window = Box(20, 110, 90, 90)
    [soon] = regions(Expectation(zooms=(PastZoom(window, 5.0, 0.04),)))
    [later] = regions(Expectation(zooms=(PastZoom(window, 5.0, 30.0),)))
    assert shows(soon, RIGHT)
    assert shows(later, LEFT)


def test_a_coarser_zoom_than_wanted_does_not_count_as_a_look():
    [region] = regions(Expectation(zooms=(PastZoom(Box(0, 0, 256, 288), 1.01, 0.04),)))
    assert shows(region, LEFT)


def test_one_region_a_frame_covers_both_in_two_frames():
    [first] = regions()
    [second] = regions(Expectation(zooms=(PastZoom(first.box, 512 / first.box.width, 0.04),)))
    assert {shows(first, LEFT), shows(second, LEFT)} == {True, False}


def test_policies_without_a_memory_are_none_that_expect():
    assert isinstance(DetectorProposals(task=FakeDetectorTask()), ExpectingPolicy)
    assert not isinstance(Grid(), ExpectingPolicy)
    assert np.isfinite([r.score for r in regions(max_regions=3)]).all()
