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

"""The motion of a camera from one picture to the next, by sparse optical flow.

Corners of the small view are followed to the next one and back again; those that do not return to where they began are
left out, and a similarity (shift, rotation, scale) is fitted to the others, objects that move by themselves left out as
outliers. Where too few corners can be followed, the picture has been cut: nothing is known of the motion.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from .frame import View
from .geometry import Boxes

MAX_WIDTH = 320
"""Pixels: wider views are shrunk to this width; the flow of a larger picture is no steadier and takes longer."""
MAX_CORNERS = 100
CORNER_QUALITY, CORNER_DISTANCE_PX = 0.01, 7
"""A corner is at least this strong beside the strongest, and this far from the next."""
FLOW_WINDOW_PX, FLOW_LEVELS = 9, 3
FLOW_ENDS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.02)
"""A corner is followed to a fiftieth of a pixel."""
MAX_RETURN_ERROR_PX = 0.7
"""A corner that is followed forth and back must end this close to where it began."""
INLIER_PX = 2.0
"""How far a corner may be off the fitted motion: roads and buildings are not one plane."""
STILL_PX = 0.5
"""A fit that moves no corner by more says that the camera stands still: then what moves are objects, and nothing is
nearer or farther."""
MIN_CORNERS = 12
"""With fewer corners a picture says nothing of the motion, and the camera is taken to be still."""
MIN_FOLLOWED = 0.25
"""A smaller share of the corners that can be followed means that the picture was cut."""
NEAREST = 9
"""Corners around a point whose median says how it moves beside the fit."""
MAX_SCALE = 1.5
"""A fit that scales by more than this, from one picture to the next, is wrong."""

Grey = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Motion:
    """Maps source pixels of the last frame to those of the present one.

    From a camera that drives, near and far move differently: no one similarity fits. So a point moves as the similarity
    says and as much beside it as the corners around the point do, in their median.

    Attributes:
        matrix: `(2, 3)`: rotation and scale, then the shift in source pixels.
        corners: `(k, 2)` where corners were that could be followed, source pixels.
        beside: `(k, 2)` how far each moved beside the similarity.
    """

    matrix: Array
    corners: Array = field(default_factory=lambda: np.zeros((0, 2)))
    beside: Array = field(default_factory=lambda: np.zeros((0, 2)))

    @property
    def scale(self) -> float:
        """By how much it enlarges."""
        return float(np.hypot(self.matrix[0, 0], self.matrix[1, 0]))

    def moved_points(self, points: Array) -> Array:
        """`(n, 2)` points where they are now."""
        moved = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        if len(self.corners) >= NEAREST and len(points):
            distance = ((points[:, None] - self.corners) ** 2).sum(axis=2)
            nearest = np.argpartition(distance, NEAREST - 1, axis=1)[:, :NEAREST]
            moved = moved + np.partition(self.beside[nearest], NEAREST // 2, axis=1)[:, NEAREST // 2]  # the median
        return np.asarray(moved)

    def turned(self, vectors: Array) -> Array:
        """`(n, 2)` vectors, turned with the camera."""
        return np.asarray(vectors @ self.matrix[:, :2].T / self.scale)

    def moved_boxes(self, boxes: Boxes) -> Boxes:
        """`(n, 4)` boxes where they are now; they keep their size: how fast it grows, depth decides."""
        size = boxes[:, 2:]
        return np.concatenate([self.moved_points(boxes[:, :2] + size / 2) - size / 2, size], axis=1)


STILL = Motion(np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))


class MotionEstimator:
    """Follows the camera of one stream of frames of one size."""

    def __init__(self) -> None:
        self._last: Grey | None = None

    def update(self, view: View) -> Motion | None:
        """Compare a frame with the last one.

        Args:
            view: The whole frame.

        Returns:
            The motion since the last frame, `STILL` for the first one; None where the picture was cut.
        """
        grey = _grey(view)
        last, self._last = self._last, grey
        if last is None:
            return STILL
        scale = view.source_size[0] / grey.shape[1], view.source_size[1] / grey.shape[0]
        return _motion(last, grey, np.array(scale))


def _grey(view: View) -> Grey:
    grey = cv2.cvtColor(view.image, cv2.COLOR_BGR2GRAY)
    if grey.shape[1] > MAX_WIDTH:
        height = max(1, round(grey.shape[0] * MAX_WIDTH / grey.shape[1]))
        grey = cv2.resize(grey, (MAX_WIDTH, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(grey, np.uint8)


def _motion(last: Grey, grey: Grey, scale: Array) -> Motion | None:
    """The motion in source pixels; `scale` is source pixels per grey pixel for x and y."""
    if last.shape != grey.shape:
        return None
    corners = cv2.goodFeaturesToTrack(last, MAX_CORNERS, CORNER_QUALITY, CORNER_DISTANCE_PX)
    if corners is None or len(corners) < MIN_CORNERS:
        return STILL
    start = np.asarray(corners, np.float32).reshape(-1, 2)
    end, returned, is_followed = _follow(last, grey, start)
    error = np.abs(returned - start).max(axis=1)
    is_followed &= np.isfinite(error) & (error <= MAX_RETURN_ERROR_PX)
    if is_followed.sum() < max(MIN_FOLLOWED * len(start), MIN_CORNERS / 2):
        return None
    before, after = start[is_followed] * scale, end[is_followed] * scale
    cv2.setRNGSeed(0)
    threshold = INLIER_PX * float(scale.max())
    matrix, _ = cv2.estimateAffinePartial2D(
        before, after, method=cv2.RANSAC, ransacReprojThreshold=threshold, maxIters=200, refineIters=5
    )
    if matrix is None or not np.isfinite(matrix).all():
        return STILL
    motion = Motion(np.asarray(matrix, np.float64))
    if float(np.abs(motion.moved_points(before) - before).max()) <= STILL_PX * float(scale.max()):
        return STILL
    motion = Motion(motion.matrix, before, after - motion.moved_points(before))
    return motion if 1 / MAX_SCALE < motion.scale < MAX_SCALE else None


def _follow(last: Grey, grey: Grey, start: npt.NDArray[np.float32]) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """`(n, 2)` where corners are now, `(n, 2)` where they are followed back to, `(n,)` whether both succeeded."""
    how = {"winSize": (FLOW_WINDOW_PX, FLOW_WINDOW_PX), "maxLevel": FLOW_LEVELS, "criteria": FLOW_ENDS}
    end, forth, _ = cv2.calcOpticalFlowPyrLK(last, grey, start, None, **how)  # type: ignore[call-overload]
    returned, back, _ = cv2.calcOpticalFlowPyrLK(grey, last, end, None, **how)  # type: ignore[call-overload]
    return np.asarray(end), np.asarray(returned), (forth.ravel() > 0) & (back.ravel() > 0)
