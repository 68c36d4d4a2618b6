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

"""Positions of objects, from their boxes and a depth image that is registered to the camera's image.

A box shows more than its object: what is behind it at the corners, and what stands in front. The object is taken to be
the nearest surface that fills a significant share of the box, whatever the mean of the box says. Values that are no
measurements (REP-117: NaN, infinities, 0) take no part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .camera import CameraModel, Points
from .geometry import Box, as_array, intersections, iou, share_inside

Array = npt.NDArray[np.float64]

NEAREST_M, FARTHEST_M = 0.01, 10_000.0
"""A depth outside of these is no measurement of any sensor."""
CENTRAL_SHARE = 0.8
"""Share of the sides of a box whose ellipse is searched: the corners of a box show what is behind the object."""
MAX_SAMPLES_SIDE = 160
"""Pixels along a side of the box that are read at most, evenly spaced."""
BIN = 0.01
"""Width of the histogram's bins of the logarithm of depth: hundredths of the depth."""
SMOOTHING_BINS = 4.0
"""Standard deviation over which the histogram is smoothed: surfaces nearer to each other than that are one."""
VALLEY_SHARE = 0.4
"""Two surfaces are apart where the histogram between them falls below this share of the lower one's peak."""
MIN_SHARE = 0.2
"""A surface is significant if it fills this share of the pixels, as far as the sensor measures any."""
MIN_PIXELS = 5
SAME_DEPTH = 0.04
"""Share of the depth within which, and 3 of its standard deviations, pixels are of a surface."""
SAME_OBJECT_IOU = 0.5
"""Two boxes that overlap by this much and more are of one object, and share its pixels."""
PART_SHARE = 0.9
"""A box of which this share and more lies in another one may be a part of that object, and shares its pixels."""
DENSITY_STEP = 4
"""Every how many rows and columns are read to tell how many of its pixels a depth image measures."""
MAD_TO_SIGMA = 1.4826
"""Of a normal distribution: standard deviation over median absolute deviation."""
DEPTH_ERROR = 0.02
"""Default of `DepthImage.error`: stereo and time-of-flight cameras state 1 to 2 % within their range."""


@dataclass(frozen=True, eq=False)  # holds an array: compared and hashed by identity
class DepthImage:
    """Depth along the optical axis for each pixel of a camera's image.

    Attributes:
        values: `(h, w)` uint16 or float32, in units of `unit_m`; 0, NaN and infinities are no measurements, nor is the
            largest value of uint16.
        unit_m: Metres of one unit.
        error: Standard deviation of the error that all pixels of an object share, as a share of the depth: of the
            sensor's calibration, which no scatter of the pixels shows.
    """

    values: npt.NDArray[Any]
    unit_m: float = 1.0
    error: float = DEPTH_ERROR

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return int(self.values.shape[1]), int(self.values.shape[0])

    def metres(self, rows: slice, columns: slice) -> Array:
        """Depth of a part of the image, metres; NaN where nothing was measured."""
        part = self.values[rows, columns]
        depth = part.astype(np.float64) * self.unit_m
        if part.dtype.kind == "u":
            depth[part == np.iinfo(part.dtype).max] = np.nan
        with np.errstate(invalid="ignore"):
            depth[~((depth >= NEAREST_M) & (depth <= FARTHEST_M))] = np.nan
        return depth

    def density(self) -> float:
        """Share of the pixels of the whole image that are measured, 0 to 1."""
        depth = self.metres(slice(None, None, DENSITY_STEP), slice(None, None, DENSITY_STEP))
        return float(np.isfinite(depth).mean())


@dataclass(frozen=True, eq=False)
class Position:
    """A place in the optical frame (REP-103: x right, y down, z forward).

    Attributes:
        point: `(3,)` metres.
        covariance: `(3, 3)` square metres.
    """

    point: Points
    covariance: Points


@dataclass(frozen=True)
class Surface:
    """A surface in a box.

    Attributes:
        depth: Its median, metres.
        spread: Standard deviation of its depths, metres.
        share: Of the pixels of the box's central ellipse, 0 to 1.
    """

    depth: float
    spread: float
    share: float


def positions(
    boxes: Sequence[Box], sigmas: Sequence[float], depth: DepthImage, camera: CameraModel
) -> list[Position | None]:
    """The middles of the visible surfaces of objects.

    With the ray `r` of the box's centre, which reaches the plane z = 1, the point is `z r`. Its covariance is
    `s^2 r r' + z^2 sigma^2 J J'`: along the ray the depth of the surface and the errors of depth, across it those of
    the box, with the derivative `J` of the ray by the pixels. `s^2` is the sum of three variances: the scatter of the
    surface's depths, not divided by their number, since any of them may be meant and neighbouring errors are alike;
    the error that all pixels share; and the rounding to the unit of the values.

    Args:
        boxes: Of the objects that one frame shows, source pixels.
        sigmas: Standard deviation of the centre of each along each axis, source pixels.
        depth: Of the same pixels.
        camera: The calibration of these pixels.

    Returns:
        The position of each; None where no surface can be told, the camera has no ray, or the spread of the box is
        unknown.
    """
    found = visible_surfaces(boxes, depth)
    return [
        None if surface is None else _position(box, sigma, surface, depth, camera)
        for box, sigma, surface in zip(boxes, sigmas, found, strict=True)
    ]


def visible_surfaces(boxes: Sequence[Box], depth: DepthImage) -> list[Surface | None]:
    """The surface of each object, also of one behind another.

    Where the surface in front of a box is that of another one's object, it is the object's of which it fills the
    greater share; the other object is what is left of its box without those pixels.

    Args:
        boxes: Of the objects, source pixels.
        depth: Of the same pixels.
    """
    if not boxes:
        return []
    density = depth.density()
    surfaces = [nearest_surface(box, depth, density) for box in boxes]
    corners = as_array(boxes)
    apart = (iou(corners, corners) < SAME_OBJECT_IOU) & (share_inside(corners, corners) < PART_SHARE)
    others = apart & (intersections(corners, corners) > 0)
    settled: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda index: -_share(surfaces[index])):
        before = [(boxes[n], surface) for n in settled if others[index, n] and (surface := surfaces[n]) is not None]
        if before:
            surfaces[index] = nearest_surface(boxes[index], depth, density, before)
        settled.append(index)
    return surfaces


def _share(surface: Surface | None) -> float:
    return 0.0 if surface is None else surface.share


def _position(box: Box, sigma: float, surface: Surface, depth: DepthImage, camera: CameraModel) -> Position | None:
    ray, change = camera.ray(box.center)
    if not (math.isfinite(sigma) and np.isfinite(ray).all() and np.isfinite(change).all()):
        return None
    z, rounding = surface.depth, depth.unit_m if depth.values.dtype.kind == "u" else 0.0
    along = surface.spread**2 + (depth.error * z) ** 2 + rounding**2 / 12
    return Position(z * ray, along * np.outer(ray, ray) + (z * sigma) ** 2 * change @ change.T)


def nearest_surface(
    box: Box, depth: DepthImage, density: float, others: Sequence[tuple[Box, Surface]] = ()
) -> Surface | None:
    """The nearest surface that fills a significant share of a box.

    Surfaces are the peaks of the histogram of the logarithm of depth. One is significant if it has `MIN_SHARE` of the
    pixels of the box's central ellipse, times the share of pixels that the sensor measures at all. So a sparse depth
    image is enough, and an object that the sensor does not see, in a dense one, is not taken for what is around it.

    Args:
        box: Source pixels.
        depth: Of the same pixels.
        density: Share of the pixels of the whole image that are measured.
        others: Boxes and surfaces of other objects, whose pixels take no part.

    Returns:
        The surface; None if there is none.
    """
    samples, pixels = _samples(box, depth, others)
    if len(samples) < MIN_PIXELS:
        return None
    needed = max(MIN_PIXELS, MIN_SHARE * density * pixels)
    for found in _surfaces(np.sort(samples)):
        if len(found) >= needed:
            middle = float(np.median(found))
            spread = MAD_TO_SIGMA * float(np.median(np.abs(found - middle)))
            return Surface(middle, spread, len(found) / pixels)
    return None


def _samples(box: Box, depth: DepthImage, others: Sequence[tuple[Box, Surface]]) -> tuple[Array, int]:
    """`(n,)` measured depths in the central ellipse of a box, metres, and the number of pixels that were read."""
    (x, y), (width, height) = box.center, depth.size
    half_width, half_height = CENTRAL_SHARE * box.width / 2, CENTRAL_SHARE * box.height / 2
    columns, rows = _pixels(x, half_width, width), _pixels(y, half_height, height)
    if columns.stop <= columns.start or rows.stop <= rows.start:
        return np.zeros(0), 0
    across = np.arange(columns.start, columns.stop, columns.step) + 0.5
    down = np.arange(rows.start, rows.stop, rows.step)[:, None] + 0.5
    inside = ((across - x) / max(half_width, 0.5)) ** 2 + ((down - y) / max(half_height, 0.5)) ** 2 <= 1
    found = depth.metres(rows, columns)
    for other, surface in others:
        in_other = (other.x <= across) & (across <= other.right) & (other.y <= down) & (down <= other.bottom)
        inside &= ~(in_other & (np.abs(found - surface.depth) <= 3 * surface.spread + SAME_DEPTH * surface.depth))
    measured = found[inside]
    return measured[np.isfinite(measured)], int(inside.sum())


def _pixels(center: float, half: float, size: int) -> slice:
    """The pixels whose centres lie within `half` of a place along one axis."""
    first, last = max(0, math.ceil(center - half - 0.5)), min(size - 1, math.floor(center + half - 0.5))
    return slice(first, last + 1, max(1, math.ceil((last + 1 - first) / MAX_SAMPLES_SIDE)))


def _surfaces(depths: Array) -> list[Array]:
    """Depths in rising order, split where few of them are: the nearest surface first."""
    logarithms = np.log(depths)
    margin = math.ceil(3 * SMOOTHING_BINS)
    bins = ((logarithms - logarithms[0]) / BIN).astype(np.intp) + margin
    kernel = np.exp(-0.5 * (np.arange(-margin, margin + 1) / SMOOTHING_BINS) ** 2)
    counts = np.convolve(np.bincount(bins, minlength=bins[-1] + margin + 1).astype(np.float64), kernel, "same")
    splits = np.searchsorted(bins, _valleys(counts))
    return np.split(depths, splits)


def _valleys(counts: Array) -> list[int]:
    """Indices of the lowest places between peaks that are apart."""
    slope = np.sign(np.diff(counts))
    turning = np.flatnonzero(slope[1:] != slope[:-1]) + 1  # the ends of plateaus too
    valleys = []
    peak, low, low_at = 0.0, 0.0, 0  # of the present surface, and the lowest place since its peak
    for place in turning.tolist():
        value = float(counts[place])
        if value < low:
            low, low_at = value, place
        elif low < VALLEY_SHARE * min(peak, value):
            valleys.append(low_at)
            peak, low = value, value
        elif value > peak:
            peak, low = value, value
    return valleys
