"""An own sensing policy: zooms into tiles along the horizon, where distant traffic is.

python examples/own_policy.py PICTURE
"""

import sys

import cv2

from activeo3_ros.core import ActivePerception, Box, Budget, Frame, Proposal, Query, Region, View
from activeo3_ros.core.frame import fit_within
from activeo3_ros.detectors.centernet import CenterNet
from activeo3_ros.detectors.detector_task import DetectorTask


class Horizon:
    """A `core.interfaces.SensingPolicy`: it needs these two methods and no base class."""

    def __init__(self, height: float = 0.45) -> None:
        """Create the policy.

        Args:
            height: Of the horizon, as a share of the image's height from its top.
        """
        self.height = height

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        """The size at which `propose` gets the frame."""
        return fit_within(width, height, max_pixels)

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        """As many square tiles side by side as the budget has regions, in pixels of the view."""
        side = min(view.width / max(1, budget.max_regions), view.height)
        top = min(max(0.0, self.height * view.height - side / 2), view.height - side)
        tiles = [Box(index * side, top, side, side) for index in range(budget.max_regions)]
        return Proposal(tuple(Region(tile, "horizon") for tile in tiles), used_view=False)


if __name__ == "__main__":
    perception = ActivePerception(Horizon(), DetectorTask(CenterNet()), Budget(max_regions=6))
    result = perception.perceive(Frame(cv2.imread(sys.argv[1])), Query(classes=("car", "truck", "bus")))
    for found in result.detections:
        print(f"{found.label} {found.score:.2f} at {found.box.center} in region {found.region}")
