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

"""The pinhole camera of an image: from pixels of the image to rays in the optical frame.

Frame: REP-103's optical frame, x right, y down, z forward. Pixels are continuous coordinates as everywhere in this
package (column `i` covers `i` to `i + 1`); OpenCV's calibrations number pixel centres, half a pixel less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from numpy.polynomial import Polynomial

from .errors import InvalidInput

Points = npt.NDArray[np.float64]

FISHEYE_MODELS = ("equidistant", "fisheye")
PINHOLE_MODELS = ("plumb_bob", "rational_polynomial", "")
PINHOLE_COEFFICIENTS, FISHEYE_COEFFICIENTS = (4, 5, 8, 12, 14), (4,)
"""How many coefficients OpenCV's models take."""
MAX_ERROR_PX = 0.5
"""A ray that the lens would show further than this from its pixel is none: the distortion has no inverse there."""
HALF_STEP_PX = 0.5
"""Half the step, in source pixels, over which the change of a ray is measured."""
MAX_ANGLE = np.pi
"""Radians from the optical axis: what lies straight behind the camera."""
UNDISTORT_UNTIL = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-9)
"""Steps and accuracy of the inverse of a distortion; OpenCV's default of 5 steps is off by pixels in the corners."""


@dataclass(frozen=True)
class CameraModel:
    """The calibration that holds for the pixels of one image.

    Attributes:
        matrix: Focal lengths and principal point `(fx, fy, cx, cy)` in pixels of the calibrated sensor, OpenCV's
            pixel centres.
        distortion: Coefficients as OpenCV orders them; empty for a rectified image.
        distortion_model: ROS's name of the model.
        offset: Position `(x, y)` of the image's corner on the sensor, in sensor pixels.
        scale: Sensor pixels per image pixel along x and y: binning, or a picture that was resized afterwards.
    """

    matrix: tuple[float, float, float, float]
    distortion: tuple[float, ...] = ()
    distortion_model: str = ""
    offset: tuple[float, float] = (0.0, 0.0)
    scale: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        fx, fy, cx, cy = self.matrix
        if not (fx > 0 and fy > 0 and np.isfinite([fx, fy, cx, cy]).all()):
            got = ", ".join(f"{value:g}" for value in self.matrix)
            raise InvalidInput(f"a camera needs positive focal lengths and a principal point, got {got}")
        if any(self.distortion) and self.distortion_model not in (*PINHOLE_MODELS, *FISHEYE_MODELS):
            known = ", ".join(name for name in (*PINHOLE_MODELS, *FISHEYE_MODELS) if name)
            raise InvalidInput(f"distortion model {self.distortion_model!r} is unknown; known are {known}")
        if not np.isfinite(self.distortion).all():
            raise InvalidInput(f"distortion coefficients must be finite, got {self.distortion}")
        lengths = FISHEYE_COEFFICIENTS if self.distortion_model in FISHEYE_MODELS else PINHOLE_COEFFICIENTS
        if (any(self.distortion) or self._is_fisheye) and len(self.distortion) not in lengths:
            wanted = " or ".join(map(str, lengths))
            raise InvalidInput(
                f"distortion model {self.distortion_model!r} has {wanted} coefficients, got {len(self.distortion)}"
            )

    def rays(self, points: npt.ArrayLike) -> Points:
        """Points where rays through image points meet the plane z = 1.

        Args:
            points: `(n, 2)` x, y in pixels of the image, continuous coordinates.

        Returns:
            `(n, 3)` x, y, 1 in the optical frame; multiplied by a depth they are positions in metres. NaN where the
            lens shows no point of that plane.
        """
        if self._is_fisheye:
            directions = self.directions(points)
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where(directions[:, 2:] > 0, directions / directions[:, 2:], np.nan)
        sensor = self._on_sensor(points)
        fx, fy, cx, cy = self.matrix
        if any(self.distortion) and len(sensor):
            matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)
            coefficients = np.array(self.distortion, np.float64)
            found = cv2.undistortPointsIter(
                sensor[:, None], matrix, coefficients, np.eye(3), np.eye(3), UNDISTORT_UNTIL
            )
            plane = np.asarray(found, np.float64).reshape(-1, 2)
            back, _ = cv2.projectPoints(_on_plane(plane)[:, None], np.zeros(3), np.zeros(3), matrix, coefficients)
            plane[~(np.linalg.norm(back.reshape(-1, 2) - sensor, axis=1) < MAX_ERROR_PX)] = np.nan
        else:
            plane = (sensor - [cx, cy]) / [fx, fy]
        return _on_plane(plane)

    def directions(self, points: npt.ArrayLike) -> Points:
        """Unit vectors towards points of the image; those of a fisheye may point backwards.

        Args:
            points: `(n, 2)` x, y in pixels of the image, continuous coordinates.

        Returns:
            `(n, 3)` x right, y down, z forward in the optical frame; NaN where the lens shows nothing.
        """
        if not self._is_fisheye:
            rays = self.rays(points)
            return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True))
        fx, fy, cx, cy = self.matrix
        plane = (self._on_sensor(points) - [cx, cy]) / [fx, fy]
        radius = np.linalg.norm(plane, axis=1)
        angle = self._angles(radius)
        across = plane * np.divide(np.sin(angle), radius, out=np.ones_like(radius), where=radius > 0)[:, None]
        return np.concatenate([across, np.cos(angle)[:, None]], axis=1)

    def bearing(self, point: tuple[float, float], sigma: float) -> tuple[Points, float]:
        """The direction of a point of the image, and how far it may be off.

        The spread is that of the pixels, turned into an angle by how fast the direction changes there: `sigma` times
        the largest singular value of the derivative of `directions`.

        Args:
            point: x, y in source pixels.
            sigma: Standard deviation of the point along each axis, source pixels.

        Returns:
            `(3,)` unit vector in the optical frame (x right, y down, z forward), and the standard deviation of its
            angle in the direction in which it is larger, radians; NaN where the camera has no ray.
        """
        direction, change = _with_derivative(self.directions, point)
        if not np.isfinite(change).all():
            return direction, np.nan
        return direction, sigma * float(np.linalg.svd(change, compute_uv=False)[0])

    def ray(self, point: tuple[float, float]) -> tuple[Points, Points]:
        """The ray of one point of the image, and how it changes with the point.

        Args:
            point: x, y in source pixels.

        Returns:
            `(3,)` as in `rays`, and `(3, 2)` its derivative by x and y, for a source pixel.
        """
        return _with_derivative(self.rays, point)

    @property
    def _is_fisheye(self) -> bool:
        # Coefficients of 0 are a fisheye too; none at all are a rectified image.
        return self.distortion_model in FISHEYE_MODELS and len(self.distortion) > 0

    def _on_sensor(self, points: npt.ArrayLike) -> Points:
        """`(n, 2)` pixels of the sensor, as OpenCV numbers them."""
        points = np.asarray(points, np.float64).reshape(-1, 2)
        return np.asarray(points * self.scale + self.offset - 0.5)

    def _angles(self, radius: Points) -> Points:
        """Angles from the optical axis, radians, of `(n,)` distances from the principal point, in focal lengths.

        A fisheye shows the angle t at the radius `t (1 + k1 t^2 + k2 t^4 + k3 t^6 + k4 t^8)`, up to where that no
        longer grows; NaN beyond. OpenCV's inverse ends at 90 degrees, and wide lenses do not.
        """
        distorted = Polynomial(np.insert([1.0, *self.distortion], np.arange(5), 0.0))
        turns = distorted.deriv().roots()
        real = turns.real[(np.abs(turns.imag) < 1e-9) & (turns.real > 0)]
        limit = float(min([MAX_ANGLE, *real]))
        known = np.linspace(0.0, limit, 2048)
        angle = np.interp(radius, distorted(known), known, right=np.nan)
        for _ in range(4):  # Newton's steps from a start that is off by a thousandth
            slope = distorted.deriv()(angle)
            angle = np.clip(
                angle - np.divide(distorted(angle) - radius, slope, where=slope > 1e-6, out=0 * angle), 0, limit
            )
        return np.asarray(angle)


def _on_plane(plane: Points) -> Points:
    """`(n, 2)` points of the plane z = 1 as `(n, 3)`."""
    return np.concatenate([plane, np.ones((len(plane), 1))], axis=1)


def _with_derivative(function: Callable[[Points], Points], point: tuple[float, float]) -> tuple[Points, Points]:
    """`(3,)` value of a function of `(n, 2)` points, and `(3, 2)` its derivative by x and y, by central differences."""
    x, y = point
    h = HALF_STEP_PX
    values = function(np.array([(x, y), (x + h, y), (x - h, y), (x, y + h), (x, y - h)]))
    return values[0], np.stack([values[1] - values[2], values[3] - values[4]], axis=1) / (2 * h)
