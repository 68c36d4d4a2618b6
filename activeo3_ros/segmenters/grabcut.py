# Copyright 2026 The activeo3_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Instance masks on a CPU: OpenCV's GrabCut inside each detection's box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import cv2
import numpy as np
import numpy.typing as npt

from ..core.frame import Frame
from ..core.geometry import Box
from ..core.results import Detection, InstanceMask
from ..settings import validated, within

MIN_SIDE_PX = 6
"""GrabCut needs pixels to fit two colour models; a smaller box gets no mask."""


class GrabCut:
    """Cuts the object in a box out by colour (Rother et al. 2004): of an object of several colours it may keep a part.

    A mask that does not look like the whole object in its box is left out. What passes may still miss a part inside
    the outline, or hold a piece of something of the same colour.
    """

    concurrent = True

    @validated
    def __init__(
        self,
        iterations: Annotated[int, within(1, 20)] = 3,
        margin: Annotated[float, within(0.05, 2)] = 0.25,
        max_side: Annotated[int, within(32, 2048, "pixels")] = 160,
        min_share: Annotated[float, within(0, 1)] = 0.2,
        max_share: Annotated[float, within(0, 1)] = 0.98,
        min_connected: Annotated[float, within(0, 1)] = 0.9,
        max_gap: Annotated[float, within(0, 1)] = 0.12,
    ) -> None:
        """Create the segmenter.

        Args:
            iterations: Of the algorithm; more follow an outline closer and take longer.
            margin: Surroundings to learn the background from, as a share of the box's sides.
            max_side: Longer side of the patch for the computation; a larger one is scaled down to it.
            min_share: A mask that fills less of its box is left out: it holds a detail.
            max_share: A mask that fills more of its box is left out: nothing was told apart.
            min_connected: A mask whose largest connected part is a smaller share of it is left out: it is in pieces.
            max_gap: A mask whose largest part ends further from a side of the box, as a share of the box's width or
                height, is left out: a detection's box touches its object on every side. 1 accepts every mask.
        """
        self.iterations, self.margin, self.max_side = iterations, margin, max_side
        self.min_share, self.max_share = min_share, max_share
        self.min_connected, self.max_gap = min_connected, max_gap

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
        if not self._is_whole(mask):
            return None
        return InstanceMask(detection.label, detection.score, box, mask, detection.region, index)

    def _is_whole(self, mask: npt.NDArray[np.bool_]) -> bool:
        """Whether a mask, `(h, w)` over its box, has the area, the connection and the extent of a whole object."""
        if not mask.any() or not self.min_share <= mask.mean() <= self.max_share:
            return False
        height, width = mask.shape
        _, _, parts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        x, y, part_width, part_height, area = max(parts[1:].tolist(), key=lambda part: part[cv2.CC_STAT_AREA])
        gap = max(x / width, 1 - (x + part_width) / width, y / height, 1 - (y + part_height) / height)
        return bool(area >= self.min_connected * mask.sum() and gap <= self.max_gap)
