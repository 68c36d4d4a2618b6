"""Where the policies zoom: the fixed ones by rule, the embedded one by expected gain."""

import numpy as np
import pytest
from fake_detector_task import FakeDetectorTask, view_of
from hypothesis import given, settings
from hypothesis import strategies as st

from activeo3_ros.core import ActivePerception, Box, Budget, DetectedBoxes, Finding, Frame, InputSize, Query
from activeo3_ros.detectors.detector_task import DetectorTask
from activeo3_ros.policies.detector_proposals import DetectorProposals
from activeo3_ros.policies.fixed import CentreCrop, FullFrame, Grid, Random
from activeo3_ros.policies.possible_objects import position_at_size
from activeo3_ros.policies.windows import detectability


@given(
    st.sampled_from([FullFrame(), CentreCrop(), Grid(), Grid(overlap=0), Random()]),
    st.integers(1, 600),
    st.integers(1, 600),
    st.integers(0, 64),
)
def test_fixed_policies_stay_in_the_view_and_within_the_budget(policy, width, height, max_regions):
    regions = policy.propose(view_of(width, height), Query(), Budget(max_regions=max_regions)).regions
    assert len(regions) <= max_regions
    for region in regions:
        assert region.box.width > 0
        assert region.box.height > 0
        assert region.box.x >= -1e-9
        assert region.box.y >= -1e-9
        assert region.box.right <= width + 1e-6
        assert region.box.bottom <= height + 1e-6


@pytest.mark.parametrize("max_regions", [2, 3, 6, 18])
def test_the_grid_covers_the_whole_view(max_regions):
    covered = np.zeros((288, 512), bool)
    for region in Grid().propose(view_of(), Query(), Budget(max_regions=max_regions)).regions:
        covered[region.box.snapped(512, 288).slices()] = True
    assert covered.all()


def test_random_regions_are_the_same_for_the_same_frame_and_seed():
    def propose(seed, picture):
        return Random(seed).propose(view_of(seed=picture), Query(), Budget()).regions

    assert propose(0, 1) == propose(0, 1)
    assert propose(0, 1) != propose(1, 1)
    assert propose(0, 1) != propose(0, 2)


def propose(*findings, max_regions=3, frame=(1920, 1080)):
    source = Frame(np.zeros((frame[1], frame[0], 3), np.uint8))
    task = FakeDetectorTask(*findings)
    view = source.view(source.window, task.view_size(*frame, 0))
    policy = DetectorProposals(task=task)
    return policy.propose(view, Query(classes=("car",)), Budget(max_regions=max_regions)), view


def car(x, y, side, score):
    return Finding("car", Box(x, y, side, side), score)


class FakeBatches:
    names, input_size, concurrent = ("car",), InputSize(64, 36), True

    def __init__(self, batch_size):
        self.batch_size = batch_size

    def detect(self, images, threshold):
        return [DetectedBoxes(np.zeros((0, 4)), np.zeros(0, np.float32), np.zeros(0, np.intp)) for _ in images]


@pytest.mark.parametrize(("batch_size", "together"), [(1, False), (24, True)])
def test_cameras_share_a_detector_that_answers_in_batches(batch_size, together):
    task = DetectorTask(FakeBatches(batch_size))
    assert ActivePerception(DetectorProposals(task=task), task).concurrent is together


def test_it_zooms_into_small_objects_that_are_half_seen():
    proposal, _ = propose(car(400, 60, 6, 0.15), car(410, 62, 5, 0.2), max_regions=1)
    box = proposal.regions[0].box
    assert box.x < 400
    assert box.right > 415
    assert box.y < 60
    assert box.bottom > 67
    assert box.width < 300


def test_the_class_of_a_small_hint_does_not_matter_that_of_a_large_one_does():
    def first_region(*objects):
        return propose(*objects, max_regions=1)[0].regions[0]

    box = first_region(Finding("bird", Box(400, 200, 6, 6), 0.08), Finding("sheep", Box(415, 204, 7, 5), 0.06)).box
    assert box.x < 400 < 422 < box.right
    assert box.y < 200 < 209 < box.bottom
    assert box.width < 150
    assert first_region(Finding("bed", Box(300, 180, 150, 90), 0.08)).label == "far away"


def test_an_object_that_the_view_shows_large_gets_no_zoom():
    """One car fills the left, a few pixels on the right may be another: the first window goes to the right."""
    proposal, _ = propose(car(20, 60, 180, 0.9), car(450, 140, 6, 0.2), max_regions=1)
    assert proposal.regions[0].box.right > 456
    assert proposal.regions[0].box.x > 200


def test_an_object_that_the_view_shows_well_is_reported_from_the_view():
    proposal, _ = propose(car(20, 60, 180, 0.9), car(450, 140, 6, 0.2))
    assert [f.score for f in proposal.findings.objects] == [0.9]


def test_where_nothing_is_seen_it_zooms_into_the_middle_distance():
    proposal, view = propose(max_regions=1)
    assert [region.label for region in proposal.regions] == ["far away"]
    x, y = proposal.regions[0].box.center
    assert abs(x - view.width / 2) < 0.1 * view.width
    assert abs(y - 0.45 * view.height) < 0.1 * view.height


def test_windows_do_not_repeat_each_other():
    proposal, _ = propose(car(100, 140, 6, 0.2), car(400, 140, 6, 0.2))
    assert len({region.box for region in proposal.regions}) == len(proposal.regions) == 3


def test_without_regions_in_the_budget_it_only_reports_the_findings_of_the_view():
    proposal, _ = propose(car(20, 60, 180, 0.9), max_regions=0)
    assert proposal.regions == ()
    assert len(proposal.findings.objects) == 1


def test_shrinking_objects_point_to_where_the_far_ones_are():
    """Cars on a straight road: 64 px at the bottom right, half as large half way to the vanishing point (200, 100)."""
    side = np.array([64.0, 32.0, 16.0])
    center = np.array([200.0, 100.0]) + np.outer(side, [3.0, 2.0])
    mean, _ = position_at_size(np.array([2.0]), center, side, np.ones(3), np.array([512.0, 288.0]))
    assert np.abs(mean[0] - [206, 104]).max() < 30


def test_larger_is_easier():
    sides = detectability(np.array([2.0, 4, 8, 16, 32, 64]), 11.0, 1.4)
    assert (np.diff(sides) > 0).all()
    assert sides[0] < 0.1
    assert sides[-1] > 0.9


findings = st.builds(car, st.floats(0, 500), st.floats(0, 280), st.floats(0.5, 200), st.floats(0.1, 1))


@settings(deadline=None, max_examples=40)
@given(
    st.lists(findings, max_size=30),
    st.integers(1, 64),
    st.sampled_from([(1920, 1080), (300, 900), (40, 30), (1, 1), (9000, 8)]),
)
def test_its_windows_lie_in_the_view_whatever_is_detected(seen, max_regions, frame):
    proposal, view = propose(*seen, max_regions=max_regions, frame=frame)
    assert len(proposal.regions) <= max_regions
    gains = [region.score for region in proposal.regions]
    assert gains == sorted(gains, reverse=True)
    for region in proposal.regions:
        assert region.box.x >= -1e-6
        assert region.box.y >= -1e-6
        assert region.box.right <= view.width + 1e-6
        assert region.box.bottom <= view.height + 1e-6
        assert region.box.width > 0
        assert region.box.height > 0
