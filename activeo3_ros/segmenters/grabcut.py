"""Instance masks on a CPU: OpenCV's GrabCut inside each detection's box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import cv2
import numpy as np

from ..core.frame import Frame
from ..core.geometry import Box
from ..core.results import Detection, InstanceMask
from ..settings import validated, within

MIN_SIDE_PX = 6
"""GrabCut needs pixels to fit two colour models; a smaller box gets no mask."""
MIN_SHARE, MAX_SHARE = 0.05, 0.98
"""A mask that fills less or more of its box than this separated nothing."""


class GrabCut:
    """Separates the object in a box from what surrounds it by colour (Rother et al. 2004)."""

    concurrent = True

    @validated
    def __init__(
        self,
        iterations: Annotated[int, within(1, 20)] = 3,
        margin: Annotated[float, within(0.05, 2)] = 0.25,
        max_side: Annotated[int, within(32, 2048, "pixels")] = 160,
    ) -> None:
        """Create the segmenter.

        Args:
            iterations: Of the algorithm; more follow an outline closer and take longer.
            margin: Surroundings to learn the background from, as a share of the box's sides.
            max_side: Longer side of the patch for the computation; a larger one is scaled down to it.
        """
        self.iterations, self.margin, self.max_side = iterations, margin, max_side

    def segment(self, frame: Frame, detections: Sequence[Detection]) -> list[InstanceMask]:
        masks = (self._segment_one(frame, detection, index) for index, detection in enumerate(detections))
        return [mask for mask in masks if mask is not None]

    def _segment_one(self, frame: Frame, detection: Detection, index: int) -> InstanceMask | None:
        box = detection.box.snapped(frame.width, frame.height)
        if min(box.width, box.height) < MIN_SIDE_PX:
            return None
        around_x, around_y = max(2.0, box.width * self.margin), max(2.0, box.height * self.margin)
        surroundings = Box(box.x - around_x, box.y - around_y, box.width + 2 * around_x, box.height + 2 * around_y)
        surroundings = surroundings.snapped(frame.width, frame.height)
        if surroundings == box:
            return None  # the object fills the frame: there is nothing to tell it from
        patch = frame.image[surroundings.slices()]
        scale = min(1.0, self.max_side / max(patch.shape[:2]))
        size = max(1, round(patch.shape[1] * scale)), max(1, round(patch.shape[0] * scale))
        small = cv2.resize(patch, size, interpolation=cv2.INTER_AREA) if scale < 1 else np.ascontiguousarray(patch)
        scale_x, scale_y = size[0] / surroundings.width, size[1] / surroundings.height
        x0, y0 = round((box.x - surroundings.x) * scale_x), round((box.y - surroundings.y) * scale_y)
        width, height = max(1, round(box.width * scale_x)), max(1, round(box.height * scale_y))
        labels = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
        labels[y0 : y0 + height, x0 : x0 + width] = cv2.GC_PR_FGD
        if (labels == cv2.GC_BGD).sum() < MIN_SIDE_PX:
            return None
        cv2.setRNGSeed(0)  # GrabCut starts from k-means: the same picture must give the same mask
        background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(small, labels, (0, 0, 1, 1), background, foreground, self.iterations, cv2.GC_INIT_WITH_MASK)
        inside = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))[y0 : y0 + height, x0 : x0 + width]
        mask = (
            cv2.resize(inside.astype(np.uint8), (int(box.width), int(box.height)), interpolation=cv2.INTER_NEAREST) > 0
        )
        if not MIN_SHARE <= mask.mean() <= MAX_SHARE:
            return None
        return InstanceMask(detection.label, detection.score, box, mask, detection.region, index)
