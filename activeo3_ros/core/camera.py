"""The pinhole camera of an image: from pixels of the image to rays in the optical frame.

Frame: REP-103's optical frame, x right, y down, z forward. Pixels are continuous coordinates as everywhere in this
package (column `i` covers `i` to `i + 1`); OpenCV's calibrations number pixel centres, half a pixel less.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .errors import InvalidInput

Points = npt.NDArray[np.float64]

FISHEYE_MODELS = ("equidistant", "fisheye")
PINHOLE_MODELS = ("plumb_bob", "rational_polynomial", "")
PINHOLE_COEFFICIENTS, FISHEYE_COEFFICIENTS = (4, 5, 8, 12, 14), (4,)
"""How many coefficients OpenCV's models take."""
MAX_ERROR_PX = 0.5
"""A ray that the lens would show further than this from its pixel is none: the distortion has no inverse there."""
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
        if any(self.distortion) and len(self.distortion) not in lengths:
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
        points = np.asarray(points, np.float64).reshape(-1, 2)
        sensor = points * self.scale + self.offset - 0.5
        fx, fy, cx, cy = self.matrix
        if any(self.distortion) and len(sensor):
            matrix = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)
            coefficients = np.array(self.distortion, np.float64)
            if self.distortion_model in FISHEYE_MODELS:
                found = cv2.fisheye.undistortPoints(sensor[:, None], matrix, coefficients)
            else:
                found = cv2.undistortPointsIter(
                    sensor[:, None], matrix, coefficients, np.eye(3), np.eye(3), UNDISTORT_UNTIL
                )
            plane = np.asarray(found, np.float64).reshape(-1, 2)
            plane[~(np.linalg.norm(self._projected(plane, matrix, coefficients) - sensor, axis=1) < MAX_ERROR_PX)] = (
                np.nan
            )
        else:
            plane = (sensor - [cx, cy]) / [fx, fy]
        return np.concatenate([plane, np.ones((len(plane), 1))], axis=1)

    def bearing(self, point: tuple[float, float], sigma: float) -> tuple[Points, float]:
        """The direction of a point of the image, and how far it may be off.

        Args:
            point: x, y in source pixels.
            sigma: Standard deviation of the point along each axis, source pixels.

        Returns:
            `(3,)` unit vector in the optical frame (x right, y down, z forward), and the standard deviation of its
            angle in the direction in which it is larger, radians; NaN where the camera has no ray.
        """
        x, y = point
        rays = self.rays([(x, y), (x + sigma, y), (x, y + sigma)])
        units = rays / np.linalg.norm(rays, axis=1, keepdims=True)
        # The length of the chord gives small angles exactly, where the arc cosine does not.
        chords = np.linalg.norm(units[1:] - units[0], axis=1)
        return units[0], float((2 * np.arcsin(chords / 2)).max())

    def _projected(self, plane: Points, matrix: Points, coefficients: Points) -> Points:
        """`(n, 2)` pixels of the sensor where the lens shows points of the plane z = 1."""
        points, nowhere = np.concatenate([plane, np.ones((len(plane), 1))], axis=1)[:, None], np.zeros(3)
        if self.distortion_model in FISHEYE_MODELS:
            pixels, _ = cv2.fisheye.projectPoints(points, nowhere, nowhere, matrix, coefficients)
        else:
            pixels, _ = cv2.projectPoints(points, nowhere, nowhere, matrix, coefficients)
        return np.asarray(pixels, np.float64).reshape(-1, 2)
