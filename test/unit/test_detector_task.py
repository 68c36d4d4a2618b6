"""Any detector in the loop: what it finds, and nothing else, is reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activeo3_ros.core import (
    ActivePerception,
    Box,
    Budget,
    ComponentError,
    DetectedBoxes,
    Frame,
    InputSize,
    Query,
    Status,
    UnsupportedQuery,
)
from activeo3_ros.core.scene import Scene
from activeo3_ros.detectors.detector_task import DetectorTask
from activeo3_ros.policies.detector_proposals import DetectorProposals
from activeo3_ros.policies.fixed import FullFrame
from activeo3_ros.segmenters.grabcut import GrabCut


class GizmoDetector:
    """Sees one made-up class: every patch of pure red is a gizmo, a small one with a low score."""

    names = ("gizmo",)
    input_size = InputSize(320, 320)
    concurrent = True

    def detect(self, images, threshold):
        return [self._gizmos(image, threshold) for image in images]

    @staticmethod
    def _gizmos(image, threshold):
        ys, xs = np.nonzero((image == (0, 0, 255)).all(axis=2))
        if len(xs) == 0:
            return DetectedBoxes(np.zeros((0, 4)), np.zeros(0, np.float32), np.zeros(0, np.intp))
        box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        score = min(0.9, box[2] / 20)
        kept = slice(None) if score > threshold else slice(0, 0)
        return DetectedBoxes(
            np.array([box], float)[kept], np.array([score], np.float32)[kept], np.zeros(1, np.intp)[kept]
        )


def with_red_square(side, x=900, y=300, size=(1280, 720)):
    image = np.full((size[1], size[0], 3), 90, np.uint8)
    image[y : y + side, x : x + side] = (0, 0, 255)
    return Frame(image)


def loop(detector=None):
    task = DetectorTask(detector or GizmoDetector(), label="gizmo")
    return ActivePerception(DetectorProposals(task=task), task, Budget(max_regions=2))


def test_a_detector_of_one_made_up_class_is_all_that_is_reported():
    result = loop().perceive(with_red_square(16))
    assert [detection.label for detection in result.detections] == ["gizmo"]
    box = result.detections[0].box
    assert (box.x, box.y) == pytest.approx((900, 300), abs=2) and box.width == pytest.approx(16, abs=3)


def test_the_policy_asks_the_detector_of_the_task():
    """The square is 4 px wide in the view, a hint alone: the zoom goes there, and finds it."""
    result = loop().perceive(with_red_square(16))
    assert result.regions[0].box.x <= 900 and result.regions[0].box.right >= 916
    assert result.detections[0].region == 0


def test_a_query_speaks_of_the_classes_of_the_detector():
    frame = with_red_square(60)
    assert [g.phrase for g in loop().perceive(frame, Query("find the gizmos")).groundings] == ["gizmos"]
    refused = loop().perceive(frame, Query(classes=("car",)))
    assert (
        refused.status == Status.FAILED and "unknown class 'car'; this preset detects gizmo" in refused.status_message
    )


class OpenGizmoDetector(GizmoDetector):
    """Calls a red patch by the first name that it is told."""

    def for_names(self, names):
        other = OpenGizmoDetector()
        other.names = tuple(names)
        return other


def test_an_open_vocabulary_takes_the_words_of_the_query():
    perception, frame = loop(OpenGizmoDetector()), with_red_square(60)
    [found] = perception.perceive(frame, Query("a red widget. a valve.")).detections
    assert found.label == "a red widget"
    assert [each.label for each in perception.perceive(frame).detections] == ["gizmo"]
    with pytest.raises(UnsupportedQuery, match="gizmo finds what a phrase names but answers no questions"):
        perception.load(Query("What colour is the gizmo?"))


def boxes(*rows, scores=None, class_ids=None, masks=None):
    count = len(rows)
    return DetectedBoxes(
        np.array(rows, float).reshape(-1, 4),
        np.array(scores if scores is not None else [0.9] * count, np.float32),
        np.array(class_ids if class_ids is not None else [0] * count),
        masks,
    )


class FaultyDetector(GizmoDetector):
    """Answers whatever a test tells it to, to force faults."""

    def __init__(self, answer):
        self.answer = answer

    def detect(self, images, threshold):
        return self.answer(images) if callable(self.answer) else [self.answer] * len(images)


def broken(images):
    raise KeyError("anchors")


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (broken, "raised KeyError: 'anchors'"),
        (lambda images: None, "'NoneType'"),
        (lambda images: [boxes()] * (len(images) + 1), "results for"),
        (lambda images: [None] * len(images), "'NoneType' object has no attribute"),
        (boxes([1, 1, float("nan"), 5]), "no finite number"),
        (boxes([1, 1, 5, 5], scores=[float("inf")]), "no finite number"),
        (boxes([1, 1, 5, 5], scores=[87.0]), "scores from 87 to 87; they must be from 0 to 1"),
        (boxes([1, 1, 5, 5], class_ids=[1]), "class ids from 1 to 1 with 1 names"),
        (boxes([1, 1, 5, 5], class_ids=[0.5]), "whole numbers"),
        (boxes([9, 9, -5, 5]), "negative width or height"),
        (boxes([1, 1, 5000, 5]), "outside of its image of 320 x 180 px"),
        (boxes([1, 1, 5, 5], scores=[0.9, 0.8]), "boxes of shape (1, 4) where (2, 4) belongs"),
        (boxes([1, 1, 5, 5], masks=np.zeros((1, 9, 9), bool)), "masks of shape (1, 9, 9) where (1, 180, 320) belongs"),
    ],
)
def test_a_detector_that_gives_no_valid_answer_fails_the_frame_by_its_name(answer, complaint):
    result = loop(FaultyDetector(answer)).perceive(with_red_square(60))
    assert result.status == Status.FAILED and result.detections == ()
    assert "the detector 'gizmo'" in result.status_message and complaint in result.status_message


def test_what_is_off_by_rounding_alone_is_clipped():
    view = Frame(np.zeros((180, 320, 3), np.uint8)).view(Frame(np.zeros((180, 320, 3), np.uint8)).window, (320, 180))
    task = DetectorTask(FaultyDetector(boxes([-0.1, 0, 320.2, 180.1], scores=[1.0004])))
    [detected] = task.detect([view], 0.3, task.resolve(Query()))
    assert detected.boxes.tolist() == [[0, 0, 320, 180]] and detected.scores.tolist() == [1]


def test_a_fault_of_the_detector_is_told_as_one_of_it():
    task = DetectorTask(FaultyDetector(broken), label="gizmo")
    with pytest.raises(ComponentError, match="the detector 'gizmo' raised KeyError"):
        task.examine([with_red_square(9).view(with_red_square(9).window, (320, 180))], Query(), Budget())


# Masks that the detector gives


class DiscDetector(GizmoDetector):
    """Every red patch is a gizmo whose mask is its red pixels; it also gives the boxes of masks that hold nothing."""

    def __init__(self, empty=False):
        self.empty = empty

    def detect(self, images, threshold):
        found = super().detect(images, threshold)
        masks = [(image == (0, 0, 255)).all(axis=2) & (not self.empty) for image in images]
        return [each._replace(masks=mask[None][: len(each.scores)]) for each, mask in zip(found, masks, strict=True)]


def red_disc(x=900, y=300, radius=40):
    ys, xs = np.mgrid[:720, :1280]
    disc = (xs + 0.5 - x) ** 2 + (ys + 0.5 - y) ** 2 < radius**2
    image = np.full((720, 1280, 3), 90, np.uint8)
    image[disc] = (0, 0, 255)
    return Frame(image), disc


def on_frame(mask, frame):
    whole = np.zeros((frame.height, frame.width), bool)
    whole[mask.box.slices()] = mask.mask
    return whole


def test_the_masks_of_a_detector_are_those_of_the_result_where_a_query_wants_some():
    frame, disc = red_disc()
    result = loop(DiscDetector()).perceive(frame, Query(masks=True))
    [mask], [found] = result.masks, result.detections
    assert (mask.detection, mask.label, mask.score, mask.region) == (0, "gizmo", found.score, found.region)
    shown = on_frame(mask, frame)
    assert (shown & disc).sum() / (shown | disc).sum() > 0.9
    assert result.notes == ()
    assert loop(DiscDetector()).perceive(frame).masks == ()


@pytest.mark.parametrize("regions", [0, 2])
def test_a_mask_comes_from_the_view_whose_box_the_object_has(regions):
    """The disc is 20 px wide in the view of the whole frame, and 80 in the crop."""
    frame, disc = red_disc()
    perception = loop(DiscDetector())
    result = perception.perceive(frame, Query(masks=True), Budget(max_regions=regions, view_pixels=320 * 180))
    assert result.detections[0].region == (0 if regions else -1)
    shown = on_frame(result.masks[0], frame)
    assert result.masks[0].box == result.detections[0].box.snapped(frame.width, frame.height)
    assert (shown & disc).sum() / (shown | disc).sum() > (0.96 if regions else 0.85)


def test_memory_follows_an_object_and_its_mask_is_of_this_frame():
    perception, scene = loop(DiscDetector()), Scene()
    for step in range(4):
        frame, disc = red_disc(x=900 + 12 * step)
        frame = replace(frame, stamp_ns=(step + 1) * 100_000_000)
        result = perception.perceive(frame, Query(masks=True), scene=scene)
        shown = on_frame(result.masks[0], frame)
        assert (shown & disc).sum() / (shown | disc).sum() > 0.9
    road = Frame(np.full((720, 1280, 3), 90, np.uint8), 500_000_000)
    assert perception.perceive(road, Query(masks=True), scene=scene).masks == ()


def test_an_empty_mask_is_left_out_and_said_to_be_missing():
    frame, _ = red_disc()
    result = loop(DiscDetector(empty=True)).perceive(frame, Query(masks=True))
    assert result.masks == () and result.notes == ("1 of 1 objects have no mask: the model gave none in its box",)


def test_an_empty_road_is_not_said_to_lack_masks():
    road = Frame(np.full((720, 1280, 3), 90, np.uint8))
    assert loop(DiscDetector()).perceive(road, Query(masks=True)).notes == ()
    assert loop(GizmoDetector()).perceive(road, Query(masks=True)).notes == ("this preset makes no masks",)


def test_a_segmenter_that_a_preset_names_makes_the_masks():
    frame, _ = red_disc()
    task = DetectorTask(DiscDetector(empty=True), label="gizmo")
    perception = ActivePerception(DetectorProposals(task=task), task, Budget(max_regions=2), GrabCut())
    assert perception.perceive(frame, Query(masks=True)).masks[0].mask.any()


def test_a_mask_that_does_not_cover_its_box_fails_the_frame():
    class WrongMask(DetectorTask):
        """Gives masks of another size, to force the fault."""

        def examine(self, views, query, budget):
            found = super().examine(views, query, budget)
            wrong = np.ones((3, 4), bool)
            return [replace(f, objects=tuple(replace(each, mask=wrong) for each in f.objects)) for f in found]

    task = WrongMask(DiscDetector(), label="gizmo")
    result = ActivePerception(FullFrame(), task).perceive(red_disc()[0], Query(masks=True))
    assert result.status == Status.FAILED
    assert "the task model WrongMask gave a mask bool (3, 4) for a box of" in result.status_message


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 400), st.integers(0, 300), st.integers(60, 300), st.integers(60, 300), st.floats(0.3, 3), st.data()
)
def test_a_mask_finds_its_pixels_again_whatever_its_view(left, top, width, height, zoom, data):
    frame = Frame(np.zeros((600, 700, 3), np.uint8))
    window = Box(left, top, width, height)
    view = frame.view(window, (max(1, round(width * zoom)), max(1, round(height * zoom))))
    # The object is the left part of its box, up to a column between whole source pixels.
    x, y = data.draw(st.integers(left, left + width - 40)), data.draw(st.integers(top, top + height - 40))
    inside = Box(*view.from_source([(x, y, 40, 40)])[0])
    patch = inside.snapped(*view.size)
    share = data.draw(st.floats(0.25, 0.75))
    edge = inside.x + share * inside.width
    mask = np.tile(np.arange(patch.width) + 0.5 + patch.x < edge, (int(patch.height), 1))
    box, mapped = view.mask_to_source(mask, inside)
    assert (box.x, box.y, box.width, box.height) == pytest.approx((x, y, 40, 40), abs=1.001)
    assert mapped.shape == (box.height, box.width)
    assert box.x + mapped.sum(axis=1) == pytest.approx(np.full(int(box.height), x + share * 40), abs=1 + 0.6 / zoom)
