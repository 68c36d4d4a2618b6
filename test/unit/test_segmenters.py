"""Segmenters that need no model."""

import numpy as np

from activeo3_ros.core import Box, Detection, Frame
from activeo3_ros.segmenters.grabcut import GrabCut


def test_a_mask_is_linked_to_its_detection_where_one_before_it_is_too_small_for_a_mask():
    image = np.full((120, 160, 3), (40, 120, 40), np.uint8)
    image[40:80, 60:100] = (30, 30, 220)
    detections = [Detection("car", 0.9, Box(5, 5, 3, 3)), Detection("car", 0.8, Box(56, 36, 48, 48), region=2)]
    (mask,) = GrabCut().segment(Frame(image), detections)
    assert (mask.detection, mask.region, mask.score, mask.box) == (1, 2, 0.8, Box(56, 36, 48, 48))
    assert mask.mask[24, 24]
    assert not mask.mask[1, 1]
