"""An own detector: finds red lamps by their colour, in the views that a policy of the package chooses.

python examples/own_detector.py PICTURE
"""

import sys
from collections.abc import Sequence

import cv2
import numpy as np

from activeo3_ros.core import ActivePerception, Budget, DetectedBoxes, Frame, InputSize
from activeo3_ros.core.frame import Image
from activeo3_ros.detectors.detector_task import DetectorTask
from activeo3_ros.policies.fixed import Grid


class RedLamps:
    """A `core.interfaces.Detector`: it needs these three attributes and this method, and no base class."""

    names, input_size, concurrent = ("red lamp",), InputSize(512, 512), True

    def __init__(self, least_area: int = 20) -> None:
        """Create the detector.

        Args:
            least_area: Of a lamp, pixels of the view.
        """
        self.least_area = least_area

    def detect(self, images: Sequence[Image], threshold: float) -> list[DetectedBoxes]:
        """The lamps in each image, in its pixels; the score is how much of its box a lamp fills."""
        return [self._detect(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), threshold) for image in images]

    def _detect(self, hsv: Image, threshold: float) -> DetectedBoxes:
        red = cv2.inRange(hsv, (0, 150, 150), (8, 255, 255)) | cv2.inRange(hsv, (172, 150, 150), (180, 255, 255))
        blobs = cv2.connectedComponentsWithStats(red)[2][1:]  # x, y, width, height, area
        scores = (blobs[:, 4] / (blobs[:, 2] * blobs[:, 3])).astype(np.float32)
        kept = (scores > threshold) & (blobs[:, 4] >= self.least_area)
        return DetectedBoxes(blobs[kept, :4].astype(float), scores[kept], np.zeros(kept.sum(), np.intp))


if __name__ == "__main__":
    perception = ActivePerception(Grid(), DetectorTask(RedLamps()), Budget(max_regions=12))
    for found in perception.perceive(Frame(cv2.imread(sys.argv[1]))).detections:
        print(f"{found.label} {found.score:.2f} at {found.box.center} in region {found.region}")
