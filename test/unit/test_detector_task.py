"""Any detector in the loop: what it finds, and nothing else, is reported."""

from __future__ import annotations

import numpy as np
import pytest

from activeo3_ros.core import (
    ActivePerception,
    Budget,
    ComponentError,
    DetectedBoxes,
    Frame,
    InputSize,
    Query,
    Status,
    UnsupportedQuery,
)
from activeo3_ros.detectors.detector_task import DetectorTask
from activeo3_ros.policies.detector_proposals import DetectorProposals


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
