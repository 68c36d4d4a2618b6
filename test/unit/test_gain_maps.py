"""Gain maps: what a head sees, which windows its maps give, and which heads are refused."""

import json

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx_models import save

from activeo3_ros.core import Box, Budget, DetectedBoxes, Frame, InputSize, InvalidInput, Query
from activeo3_ros.core.expectation import Expectation, ExpectedObject, PastZoom
from activeo3_ros.core.interfaces import ExpectingPolicy
from activeo3_ros.detectors.detector_task import DetectorTask
from activeo3_ros.policies.box_maps import CHANNELS, POINTS, REPORTED, SIZES, box_maps
from activeo3_ros.policies.gain_maps import METADATA_KEY, HeadDescription, LearnedProposals, with_memory
from activeo3_ros.policies.map_windows import GainMaps, best_map_windows, shown_share, window_sizes

VIEW, CROP = (512, 288), (512, 512)
CAR, PERSON = 0, 1
ZOOMS = (2.0, 4.0, 8.0)


class FakeDetector:
    """Reports what a test chooses."""

    label, names, input_size, concurrent = "fake", ("car", "person"), InputSize(512, 512), False

    def __init__(self, *boxes):
        self.boxes = boxes

    def detect(self, images, threshold):
        kept = sorted((each for each in self.boxes if each[4] > threshold), key=lambda each: -each[4])
        rows = np.array(kept, float).reshape(-1, 6)
        return [DetectedBoxes(rows[:, :4], rows[:, 4].astype(np.float32), rows[:, 5].astype(np.intp)) for _ in images]


def detected(*rows):
    return FakeDetector(*rows).detect([None], 0)[0]


def head(path, channel=POINTS, factor=(0.0, 1.0, 0.0), **changes):
    """A head whose maps are one channel of what it sees, times a factor for each magnification."""
    description = HeadDescription("fake", ("car", "person"), (512, 512), 512, 0.03, 0.3, ZOOMS, 16, 64)
    metadata = {METADATA_KEY: json.dumps({**json.loads(description.to_text()), **changes})}
    weight = np.zeros((3, CHANNELS, 1, 1), np.float32)
    weight[:, channel, 0, 0] = np.array(factor) * 4  # as the mean of four cells is taken below
    nodes = [
        helper.make_node("AveragePool", ["maps"], ["mean"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["mean", "weight"], ["from_maps"]),
        helper.make_node("ReduceMean", ["view"], ["brightness"], keepdims=1),
        helper.make_node("Mul", ["brightness", "nothing"], ["no_brightness"]),
        helper.make_node("Add", ["from_maps", "no_brightness"], ["rates"]),
    ]
    floats = TensorProto.FLOAT
    inputs = [("view", floats, (1, 3, "h", "w")), ("maps", floats, (1, CHANNELS, "mh", "mw"))]
    constants = {"weight": weight, "nothing": np.zeros(1, np.float32)}
    return save(path, nodes, inputs, [("rates", floats, (1, 3, "r", "c"))], constants, metadata)


def policy(path, *boxes, **settings_):
    settings_.setdefault("min_gain", 0.1)
    return LearnedProposals(str(path), task=DetectorTask(FakeDetector(*boxes)), **settings_)


def propose(policy_, classes=("car",), max_regions=3, expected=None):
    frame = Frame(np.zeros((1080, 1920, 3), np.uint8))
    view = frame.view(frame.window, VIEW)
    budget = Budget(max_regions=max_regions)
    if expected is None:
        return policy_.propose(view, Query(classes=classes), budget)
    return policy_.propose_expecting(view, Query(classes=classes), budget, expected)


def shows(region, box):
    return box[0] >= region.box.x and box[1] >= region.box.y and box[0] + box[2] <= region.box.right


LEFT, RIGHT = (60.0, 150.0, 14.0, 10.0), (430.0, 150.0, 14.0, 10.0)


def test_it_zooms_where_the_maps_expect_most_and_scores_are_expected_objects(tmp_path):
    two = policy(head(tmp_path / "head.onnx"), (*LEFT, 0.2, CAR), (*RIGHT, 0.25, CAR))
    first, second = propose(two).regions
    assert shows(first, RIGHT)
    assert shows(second, LEFT)
    assert (first.score, second.score) == pytest.approx((0.25, 0.2), abs=1e-3)


def test_the_query_decides_which_boxes_count(tmp_path):
    both = policy(head(tmp_path / "head.onnx"), (*LEFT, 0.2, CAR), (*RIGHT, 0.25, PERSON))
    [region] = propose(both).regions
    assert shows(region, LEFT)
    [region] = propose(both, ("person",)).regions
    assert shows(region, RIGHT)


def test_nothing_is_proposed_where_less_is_expected_than_a_look_is_worth(tmp_path):
    assert propose(policy(head(tmp_path / "head.onnx"), (*LEFT, 0.08, CAR))).regions == ()
    assert propose(policy(head(tmp_path / "head.onnx"), (*LEFT, 0.08, CAR), min_gain=0.05)).regions != ()


def test_what_the_view_itself_reports_is_part_of_the_proposal(tmp_path):
    proposal = propose(policy(head(tmp_path / "head.onnx"), (*LEFT, 0.8, CAR)), max_regions=0)
    assert proposal.regions == ()
    assert [(found.label, found.box) for found in proposal.findings.objects] == [("car", Box(*LEFT))]


def test_scores_are_scaled_by_the_factor_in_the_file(tmp_path):
    [region] = propose(policy(head(tmp_path / "head.onnx", score_factor=2.0), (*LEFT, 0.2, CAR))).regions
    assert region.score == pytest.approx(0.4, abs=1e-3)


def test_rules_have_their_share_where_the_head_knows_nothing(tmp_path):
    hint = (*LEFT, 0.25, CAR)
    assert propose(policy(head(tmp_path / "head.onnx", factor=(0.0, 0.0, 0.0)), hint)).regions == ()
    mixed = policy(head(tmp_path / "head.onnx", factor=(0.0, 0.0, 0.0), rules_share=0.5), hint, min_gain=0.01)
    assert shows(propose(mixed).regions[0], LEFT)


def test_memory_takes_part(tmp_path):
    two = policy(head(tmp_path / "head.onnx"), (*LEFT, 0.25, CAR), (*RIGHT, 0.2, CAR))
    assert isinstance(two, ExpectingPolicy)
    certain = Expectation((ExpectedObject("car", Box(*LEFT), 0.99),))
    assert shows(propose(two, expected=certain).regions[0], RIGHT)
    zoomed = Expectation(zooms=(PastZoom(Box(20, 100, 128, 128), 4.0, 0.02),))
    assert shows(propose(two, expected=zoomed).regions[0], RIGHT)
    long_ago = Expectation(zooms=(PastZoom(Box(20, 100, 128, 128), 4.0, 30.0),))
    assert shows(propose(two, expected=long_ago).regions[0], LEFT)


def test_an_object_whose_existence_is_open_is_worth_a_look_where_the_maps_expect_none():
    nothing = GainMaps(ZOOMS, np.zeros((3, 18, 32)), 16)
    hidden = ExpectedObject("car", Box(250, 60, 14, 10), 0.5)
    assert with_memory(nothing, Expectation((hidden,)), VIEW).rates.sum(axis=(1, 2)) == pytest.approx(1.0)
    outside = ExpectedObject("car", Box(600, 60, 14, 10), 0.5)
    assert with_memory(nothing, Expectation((outside,)), VIEW).rates.sum() == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"detector": "other"}, "was trained for the detector 'other', not 'fake'"),
        ({"classes": ("car",)}, r"was trained for 1 classes \(car\), 'fake' finds 2 classes \(car, person\)"),
        ({"input_px": (640, 640)}, "was trained for an input of 640 x 640 pixels, 'fake' has 512 x 512"),
        ({"format": 7}, "has format 7, this version reads 1"),
        ({"zooms": None}, "its description cannot be read"),
    ],
)
def test_a_head_of_another_detector_is_refused_in_one_line(tmp_path, changes, reason):
    path = head(tmp_path / "head.onnx", **changes)
    with pytest.raises(InvalidInput, match=reason) as refused:
        policy(path)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_model_that_is_no_head_is_refused(tmp_path):
    path = head(tmp_path / "head.onnx")
    model = onnx.load(path)
    del model.metadata_props[:]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidInput, match="is no head of gain maps; activeo3 train proposals makes one"):
        policy(path)


def test_boxes_are_drawn_by_class_size_and_score():
    drawn = box_maps(detected((8, 8, 20, 20, 0.5, CAR), (64, 64, 6, 6, 0.1, PERSON)), [CAR], 2, (128, 96), 0.3)
    assert drawn.shape == (CHANNELS, 12, 16)
    assert drawn[2, 1:4, 1:4] == pytest.approx(0.5)
    assert drawn[SIZES, 8, 8] == pytest.approx(0.1)
    assert drawn[:SIZES].sum() == pytest.approx(9 * 0.5)
    assert drawn[REPORTED].sum() == 9
    assert drawn[POINTS].sum() == pytest.approx(0.5)


maps_of_any_kind = st.integers(0, 2**32 - 1).map(
    lambda seed: GainMaps(ZOOMS, np.random.default_rng(seed).gamma(0.1, 0.2, (3, 18, 32)), 16)
)


@settings(deadline=None, max_examples=30)
@given(maps_of_any_kind, st.integers(0, 8), st.floats(1.0, 10.0))
def test_windows_lie_in_the_view_and_each_adds_no_more_than_the_one_before(maps, count, largest_zoom):
    sizes = window_sizes(VIEW, CROP, ZOOMS[0], largest_zoom)
    regions = best_map_windows(maps, VIEW, sizes, count, 1e-3)
    assert len(regions) <= count
    assert all(r.box.x >= 0 and r.box.right <= 512 + 1e-6 for r in regions)
    assert all(r.box.y >= 0 and r.box.bottom <= 288 + 1e-6 for r in regions)
    scores = [region.score for region in regions]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) <= maps.rates.max(axis=0).sum() + 1e-6


@settings(deadline=None, max_examples=30)
@given(maps_of_any_kind)
def test_the_gain_of_a_window_is_the_sum_of_its_map_over_it(maps):
    [region] = best_map_windows(maps, VIEW, window_sizes(VIEW, CROP, 3.0, 3.0), 1, 1e-9)
    share = shown_share(maps, VIEW, region.box, 3.0)
    assert region.score == pytest.approx(float((maps.at(3.0) * share).sum()), rel=1e-6)
    assert share.max() == 1


def test_what_one_magnification_finds_is_not_looked_for_again_at_another():
    rates = np.zeros((3, 18, 32))
    rates[:, 9, 10] = 1.0, 1.0, 1.2
    sizes = window_sizes(VIEW, CROP, 2.0, 8.0)
    [only] = best_map_windows(GainMaps(ZOOMS, rates, 16), VIEW, sizes, 3, 0.05)
    assert only.score == pytest.approx(1.2)
    # A coarser one that shows more leaves what only a finer one can show.
    rates[:, 9, 15] = 0.5
    coarse, fine = best_map_windows(GainMaps(ZOOMS, rates, 16), VIEW, sizes, 3, 0.05)
    assert fine.box.width < coarse.box.width
    assert coarse.score > 1.5
    assert coarse.score + fine.score == pytest.approx(1.7, abs=0.02)


def test_windows_have_the_shape_of_the_detectors_input():
    wide = window_sizes((1024, 576), (640, 384), 2.0, 4.0)
    assert wide[0].width / wide[0].height == pytest.approx(640 / 384)
    assert [round(size.zoom, 6) for size in (wide[0], wide[-1])] == [2.0, 4.0]
