"""An own task model: finds red lamps by their colour, in the views that a policy chooses.

python examples/own_detector.py PICTURE
"""

import sys
from collections.abc import Sequence

import cv2

from activeo3_ros.core import ActivePerception, Box, Budget, Finding, Findings, Frame, Grounding, Query, View
from activeo3_ros.core.frame import fit_within
from activeo3_ros.policies.fixed import Grid

MIN_AREA_PX = 20


class RedLamps:
    """A `core.interfaces.TaskModel`: it needs `batch_size` and these three methods, and no base class."""

    batch_size = 1

    def view_size(self, width: float, height: float, max_pixels: int) -> tuple[int, int]:
        """The size at which `examine` gets a region."""
        return fit_within(width, height, max_pixels)

    def examine(self, views: Sequence[View], query: Query, budget: Budget) -> list[Findings]:
        """The lamps in each view, in pixels of that view."""
        return [Findings(tuple(self._lamps(view))) for view in views]

    def answer(self, query: Query, findings: Sequence[Findings], groundings: Sequence[Grounding], /) -> str | None:
        """No answer: this model only detects."""

    def _lamps(self, view: View) -> list[Finding]:
        hsv = cv2.cvtColor(view.image, cv2.COLOR_BGR2HSV)
        red = cv2.inRange(hsv, (0, 150, 150), (8, 255, 255)) | cv2.inRange(hsv, (172, 150, 150), (180, 255, 255))
        _, _, blobs, _ = cv2.connectedComponentsWithStats(red)
        return [
            Finding("red lamp", Box(x, y, width, height), area / (width * height))
            for x, y, width, height, area in blobs[1:].tolist()
            if area >= MIN_AREA_PX
        ]


if __name__ == "__main__":
    perception = ActivePerception(Grid(), RedLamps(), Budget(max_regions=12))
    for found in perception.perceive(Frame(cv2.imread(sys.argv[1]))).detections:
        print(f"{found.label} {found.score:.2f} at {found.box.center} in region {found.region}")
