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

"""Boxes and their arithmetic.

One convention everywhere outside a model's adapter: a box is `x, y, width, height` in pixels, `x, y` its top-left
corner, the origin the top-left corner of the image. Coordinates are continuous: pixel column `i` covers `i` to `i + 1`,
so a whole image of width `w` is the box `0, 0, w, h`, and resizing an image by `s` multiplies every coordinate by `s`.
Arrays of boxes are `(n, 4)` float64 in that order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Box:
    """One box.

    Attributes:
        x: Left edge, pixels.
        y: Top edge, pixels.
        width: Pixels, never negative.
        height: Pixels, never negative.
    """

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Right edge, pixels."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Bottom edge, pixels."""
        return self.y + self.height

    @property
    def area(self) -> float:
        """Square pixels."""
        return self.width * self.height

    @property
    def center(self) -> tuple[float, float]:
        """The centre as x, y in pixels."""
        return self.x + self.width / 2, self.y + self.height / 2

    def clipped(self, width: float, height: float) -> Box:
        """The part inside an image of `width` x `height` pixels; width or height 0 when nothing is."""
        x0, y0 = min(max(self.x, 0.0), width), min(max(self.y, 0.0), height)
        x1, y1 = min(max(self.right, 0.0), width), min(max(self.bottom, 0.0), height)
        return Box(x0, y0, max(0.0, x1 - x0), max(0.0, y1 - y0))

    def snapped(self, width: int, height: int) -> Box:
        """The smallest box of whole pixels, at least 1 x 1, around this one inside a `width` x `height` image."""
        x0 = min(max(math.floor(self.x), 0), width - 1)
        y0 = min(max(math.floor(self.y), 0), height - 1)
        x1 = min(max(math.ceil(self.right), x0 + 1), width)
        y1 = min(max(math.ceil(self.bottom), y0 + 1), height)
        return Box(float(x0), float(y0), float(x1 - x0), float(y1 - y0))

    def slices(self) -> tuple[slice, slice]:
        """Row and column slices of an image array; the box must hold whole pixels (see `snapped`)."""
        return slice(int(self.y), int(self.bottom)), slice(int(self.x), int(self.right))

    def as_tuple(self) -> tuple[float, float, float, float]:
        """x, y, width, height."""
        return self.x, self.y, self.width, self.height


def as_array(boxes: Iterable[Box]) -> Boxes:
    """`(n, 4)` array of boxes; `(0, 4)` for none."""
    return np.array([box.as_tuple() for box in boxes], np.float64).reshape(-1, 4)


def sample_grid(grid: npt.NDArray[np.float32], x: npt.ArrayLike, y: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Values of a map between its cells, by bilinear interpolation.

    Args:
        grid: `(h, w)` values; that of row i and column j is the value at x = j + 0.5, y = i + 0.5.
        x: `(m,)` positions along the columns, in cells; beyond the border the outermost value holds.
        y: `(n,)` positions along the rows.

    Returns:
        `(n, m)`, the value at each pair of positions.
    """
    at_x, at_y = np.meshgrid(np.asarray(x, np.float32) - 0.5, np.asarray(y, np.float32) - 0.5)
    return np.asarray(cv2.remap(grid, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def from_corners(corners: npt.ArrayLike) -> Boxes:
    """`(n, 4)` of `x1, y1, x2, y2` to `(n, 4)` of `x, y, width, height`."""
    corners = np.asarray(corners, np.float64).reshape(-1, 4)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def to_corners(boxes: npt.ArrayLike) -> Boxes:
    """`(n, 4)` of `x, y, width, height` to `(n, 4)` of `x1, y1, x2, y2`."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def areas(boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """`(n,)` areas in square pixels."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.asarray(boxes[:, 2] * boxes[:, 3])


def intersections(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """`(n, m)` areas shared by each of `n` boxes with each of `m` boxes, in square pixels."""
    (left, top, right, bottom), others = to_corners(a).T[:, :, None], to_corners(b).T
    width = np.minimum(right, others[2]) - np.maximum(left, others[0])
    height = np.minimum(bottom, others[3]) - np.maximum(top, others[1])
    return np.asarray(np.maximum(width, 0) * np.maximum(height, 0))


def iou(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """`(n, m)` intersection over union, 0 to 1; two empty boxes have 0."""
    shared = intersections(a, b)
    union = areas(a)[:, None] + areas(b)[None, :] - shared
    # Areas near the smallest number that a float can hold are rounded: the quotient may come out above 1.
    return np.minimum(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0), 1.0)


def share_inside(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """`(n, m)` share, 0 to 1, of the area of each box of `a` that lies inside each box of `b`."""
    shared, own = intersections(a, b), areas(a)[:, None]
    return np.divide(shared, own, out=np.zeros_like(shared), where=own > 0)


def mask_of(boxes: npt.ArrayLike, width: int, height: int) -> npt.NDArray[np.bool_]:
    """`(height, width)` mask of the pixels whose centres lie in any of the `(n, 4)` boxes."""
    mask = np.zeros((height, width), bool)
    for row in np.asarray(boxes, np.float64).reshape(-1, 4):
        mask[_pixels(row)] = True
    return mask


def purity(box: npt.ArrayLike, mask: npt.NDArray[np.bool_]) -> float:
    """Share of the pixels of a box that belong to a mask.

    Args:
        box: `(4,)` x, y, width, height in pixels of the mask.
        mask: `(h, w)` bool.

    Returns:
        0 to 1; 0 for a box without pixels.
    """
    inside = mask[_pixels(box)]
    return float(inside.mean()) if inside.size else 0.0


def _pixels(box: npt.ArrayLike) -> tuple[slice, slice]:
    """Rows and columns of the pixels whose centres lie in a box."""
    x0, y0, x1, y1 = (max(0, math.ceil(value - 0.5)) for value in to_corners(box)[0].tolist())
    return slice(y0, y1), slice(x0, x1)


def non_maximum_suppression(boxes: npt.ArrayLike, scores: npt.ArrayLike, max_iou: float) -> npt.NDArray[np.intp]:
    """Keep the best of each group of overlapping boxes, greedily.

    Args:
        boxes: `(n, 4)` x, y, width, height.
        scores: `(n,)`; boxes of equal score keep their order, so that the result is deterministic.
        max_iou: A box is kept if its IoU with every box kept before is at most this.

    Returns:
        Indices of the boxes to keep, best score first.
    """
    return best_apart(iou(boxes, boxes) > max_iou, scores)


def best_apart(too_close: npt.NDArray[np.bool_], scores: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Keep the best of each group of things that are too close to each other, greedily.

    Args:
        too_close: `(n, n)`, which are.
        scores: `(n,)`; those of equal score keep their order, so that the result is deterministic.

    Returns:
        Indices of those to keep, best score first.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    # Few are too close: their pairs are walked, not the rows.
    rows, columns = np.nonzero(too_close)
    close_to: dict[int, list[int]] = {}
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if row != column:
            close_to.setdefault(row, []).append(column)
    suppressed: set[int] = set()
    kept = []
    for index in order.tolist():
        if index not in suppressed:
            kept.append(index)
            suppressed.update(close_to.get(index, ()))
    return np.array(kept, np.intp)
