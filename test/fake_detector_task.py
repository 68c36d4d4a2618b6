"""A task whose detections a test chooses, and views for it."""

import numpy as np

from activeo3_ros.core import DetectedBoxes, Frame
from activeo3_ros.core.calibration import DEFAULT
from activeo3_ros.detectors.centernet import COCO_CLASSES
from activeo3_ros.detectors.vocabulary import load_vocabulary


def view_of(width=512, height=288, seed=0):
    frame = Frame(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))
    return frame.view(frame.window, (width, height))


class FakeDetectorTask:
    """Stands in for the embedded task: it detects what the test tells it to."""

    def __init__(self, *objects, threshold=0.3):
        self.objects, self.threshold = list(objects), threshold
        self.calibration, self.resolve = DEFAULT, load_vocabulary(COCO_CLASSES).resolve

    def view_size(self, width, height, max_pixels):
        scale = 512 / max(width, height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def class_ids(self, names, target):
        return [COCO_CLASSES.index(name) for name in names]

    def detect(self, views, threshold, target):
        detected = sorted((f for f in self.objects if f.score >= threshold), key=lambda f: -f.score)
        boxes = np.array([f.box.as_tuple() for f in detected], float).reshape(-1, 4)
        classes = np.array([COCO_CLASSES.index(f.label) for f in detected], np.intp)
        return [DetectedBoxes(boxes, np.array([f.score for f in detected], np.float32), classes)]

    def select(self, detected, target):
        return [f for f in self.objects if f.label in target.classes and np.float32(f.score) in detected.scores]
