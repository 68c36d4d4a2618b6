"""Bearings: equal to OpenCV's for every model of a lens, and on a real distorted camera where a chessboard is."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textured_picture import picture

from activeo3_ros.codecs.camera_info import camera_model
from activeo3_ros.core import Box, Finding, Findings, Frame, Query, Scene
from activeo3_ros.core.calibration import DEFAULT
from activeo3_ros.core.camera import CameraModel
from activeo3_ros.core.evidence import hypotheses, observe, strongest

WIDTH, HEIGHT = 1280, 720
MATRIX = np.array([[900.0, 0.0, 655.0], [0.0, 905.0, 352.0], [0.0, 0.0, 1.0]])
CORNERS = [(0.0, 0.0), (WIDTH, 0.0), (WIDTH, HEIGHT), (0.0, HEIGHT)]
UNTIL = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
LENSES = {
    "plumb_bob of 4": ("plumb_bob", (-0.25, 0.07, 0.001, -0.0005)),
    "plumb_bob of 5": ("plumb_bob", (-0.25, 0.07, 0.001, -0.0005, -0.01)),
    "rational_polynomial": ("rational_polynomial", (0.4, -0.05, 0.0004, -0.0003, 0.01, 0.7, -0.03, 0.02)),
    "rational_polynomial with a thin prism": (
        "rational_polynomial",
        (0.4, -0.05, 0.0004, -0.0003, 0.01, 0.7, -0.03, 0.02, 0.001, -0.001, 0.0005, 0.0002),
    ),
    "equidistant": ("equidistant", (-0.02, 0.003, -0.002, 0.0004)),
    "fisheye without distortion": ("fisheye", (0.0, 0.0, 0.0, 0.0)),
}
pixels = st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT))


def info(lens: str, roi: tuple[int, int, int, int] = (0, 0, 0, 0), binning: int = 1) -> SimpleNamespace:
    model, d = LENSES[lens]
    x, y, width, height = roi
    return SimpleNamespace(
        width=WIDTH, height=HEIGHT, k=MATRIX.ravel(), p=np.zeros(12), d=d, distortion_model=model,
        binning_x=binning, binning_y=binning, roi=SimpleNamespace(x_offset=x, y_offset=y, width=width, height=height),
    )  # fmt: skip


def opencv_bearings(lens: str, points: list[tuple[float, float]]) -> np.ndarray:
    """`(n, 3)` unit vectors of points of the sensor, continuous coordinates: OpenCV's are half a pixel less."""
    model, d = LENSES[lens]
    numbered = np.array(points).reshape(-1, 1, 2) - 0.5
    if model == "rational_polynomial" or model == "plumb_bob":
        plane = cv2.undistortPointsIter(numbered, MATRIX, np.array(d), np.eye(3), np.eye(3), UNTIL)
    else:
        plane = cv2.fisheye.undistortPoints(numbered, MATRIX, np.array(d))
    rays = np.concatenate([plane.reshape(-1, 2), np.ones((len(points), 1))], axis=1)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


@pytest.mark.parametrize("lens", LENSES)
def test_bearings_of_the_corners_are_opencvs(lens):
    model = camera_model(info(lens), (WIDTH, HEIGHT), rectified=False)
    expected = opencv_bearings(lens, CORNERS)
    assert model.directions(CORNERS) == pytest.approx(expected, abs=1e-6)
    assert np.array([model.bearing(corner, 1.0)[0] for corner in CORNERS]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("lens", LENSES)
def test_the_principal_point_is_straight_ahead(lens):
    model = camera_model(info(lens), (WIDTH, HEIGHT), rectified=False)
    bearing, sigma = model.bearing((655.5, 352.5), 2.0)
    assert bearing == pytest.approx([0, 0, 1], abs=1e-9)
    assert sigma == pytest.approx(2.0 / 900, rel=1e-3)


@settings(deadline=None)
@given(st.sampled_from(sorted(LENSES)), st.lists(pixels, min_size=1, max_size=5))
def test_bearings_of_any_pixels_are_opencvs(lens, points):
    model = camera_model(info(lens), (WIDTH, HEIGHT), rectified=False)
    assert model.directions(points) == pytest.approx(opencv_bearings(lens, points), abs=1e-6)


@settings(deadline=None)
@given(st.sampled_from(sorted(LENSES)), pixels, st.integers(0, 300), st.integers(0, 200), st.integers(1, 4))
def test_a_region_of_interest_and_binning_leave_the_bearing_of_a_point_of_the_sensor(lens, point, x, y, binning):
    width, height = 640, 480
    binned = width // binning, height // binning
    model = camera_model(info(lens, (x, y, width, height), binning), binned, rectified=False)
    share = point[0] / WIDTH, point[1] / HEIGHT
    on_image = share[0] * binned[0], share[1] * binned[1]
    on_sensor = x + on_image[0] * binning, y + on_image[1] * binning
    assert model.directions([on_image]) == pytest.approx(opencv_bearings(lens, [on_sensor]), abs=1e-6)


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("point", [(640.0, 360.0), (1200.0, 80.0), (20.0, 700.0)])
def test_the_spread_of_a_bearing_is_that_of_the_bearings_of_scattered_pixels(lens, point):
    model = camera_model(info(lens), (WIDTH, HEIGHT), rectified=False)
    sigma_px = 3.0
    scattered = np.array(point) + sigma_px * np.random.default_rng(5).standard_normal((4000, 2))
    bearing, sigma = model.bearing(point, sigma_px)
    across = np.linalg.svd(np.cov((model.directions(scattered) - bearing).T), compute_uv=False)
    assert sigma == pytest.approx(np.sqrt(across[0]), rel=0.06)


def test_a_wide_fisheye_has_bearings_to_the_side_and_behind():
    lens = CameraModel((300.0, 300.0, 639.5, 359.5), (0.02, -0.003, 0.0, 0.0), "equidistant")
    for angle in (0.3, np.pi / 2, 1.8):
        radius = 300 * angle * (1 + 0.02 * angle**2 - 0.003 * angle**4)
        (bearing, sigma) = lens.bearing((640 + radius, 360.0), 1.0)
        assert bearing == pytest.approx([np.sin(angle), 0, np.cos(angle)], abs=1e-6)
        assert 0 < sigma < 0.01
    assert np.isnan(lens.rays([(640 + 300 * 1.9, 360.0)])[0, :2]).all(), "no plane ahead has a point there"


def test_beyond_the_edge_of_a_fisheyes_circle_there_is_nothing():
    lens = CameraModel((300.0, 300.0, 639.5, 359.5), (-0.1, 0.0, 0.0, 0.0), "equidistant")
    # 1 - 0.3 t^2 = 0: the circle ends at the angle 1.826, at the radius 300 * 1.217.
    bearing, sigma = lens.bearing((640 + 300 * 1.23, 360.0), 1.0)
    assert np.isnan(bearing).all()
    assert np.isnan(sigma)


REAL = json.loads((Path(__file__).parents[1] / "real_camera.json").read_text(encoding="utf-8"))
REAL_K, REAL_D = np.array(REAL["k"]).reshape(3, 3), np.array(REAL["d"])
BOARD = np.concatenate([np.mgrid[:9, :6].T.reshape(-1, 2), np.zeros((54, 1))], axis=1)
"""Corners of the chessboard, in its squares."""


def real_camera(**fields) -> CameraModel:
    values = {
        "width": WIDTH, "height": HEIGHT, "k": REAL["k"], "p": np.zeros(12), "d": REAL["d"], "binning_x": 0,
        "binning_y": 0, "distortion_model": "plumb_bob",
        "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    }  # fmt: skip
    return camera_model(SimpleNamespace(**{**values, **fields}), (WIDTH, HEIGHT), rectified=False)


def not_on_a_plane(directions: np.ndarray) -> float:
    """How far bearings are from those of a flat board, whatever its place: root mean square, in the plane z = 1."""
    seen = directions[:, :2] / directions[:, 2:]
    homography, _ = cv2.findHomography(BOARD[:, :2], seen)
    back = cv2.perspectiveTransform(BOARD[:, None, :2], homography)[:, 0]
    return float(np.sqrt(((back - seen) ** 2).sum(axis=1).mean()))


@pytest.mark.parametrize("name", REAL["boards"])
def test_bearings_of_a_real_camera_point_at_the_corners_of_a_board(name):
    """OpenCV finds where the board stands; it took no part in the calibration. Paper is not flat, and neither is this
    board: a bearing may miss its corner by as much as OpenCV's own projection of that corner does."""
    corners = np.array(REAL["boards"][name])
    _, turn, shift = cv2.solvePnP(BOARD, corners, REAL_K, REAL_D)
    places = BOARD @ cv2.Rodrigues(turn)[0].T + shift.ravel()
    expected = places / np.linalg.norm(places, axis=1, keepdims=True)
    projected, _ = cv2.projectPoints(BOARD, turn, shift, REAL_K, REAL_D)
    off_px = np.linalg.norm(projected.reshape(-1, 2) - corners, axis=1)
    missed = np.linalg.norm(real_camera().directions(corners + 0.5) - expected, axis=1)
    assert off_px.max() < 4.0
    assert (missed < 1.4 * off_px / REAL_K[0, 0] + 1e-6).all()
    assert missed[off_px > 0.5] == pytest.approx(off_px[off_px > 0.5] / REAL_K[0, 0], rel=0.4)


def test_by_the_bearings_of_a_real_camera_boards_are_flatter_than_without_its_distortion():
    def off(camera: CameraModel) -> float:
        boards = (np.array(corners) + 0.5 for corners in REAL["boards"].values())
        return float(np.mean([not_on_a_plane(camera.directions(points)) for points in boards]))

    assert off(real_camera()) < 0.6 * off(real_camera(d=()))


def bearing_errors(seed: int, speed_px_s: float, jitters: float) -> list[float]:
    """How far bearings of a track are off, in its own sigmas, while a car drives by and its boxes jitter.

    Args:
        seed: Of the jitter.
        speed_px_s: Of the car, to the right.
        jitters: Standard deviation of each edge, in those of the calibration.
    """
    generator, scene, camera = np.random.default_rng(seed), Scene(), CameraModel((800.0, 800.0, 499.5, 299.5))
    image, errors = picture(), []
    edge_px = jitters * float(DEFAULT.edge_jitter_px([np.sqrt(30 * 20)])[0]) * 2  # the view has half the size
    for number in range(1, 25):
        true = Box(300 + speed_px_s * number / 10, 250.0, 60.0, 40.0)
        left, top, right, bottom = np.array(
            [true.x, true.y, true.right, true.bottom]
        ) + edge_px * generator.standard_normal(4)
        frame = Frame(image, stamp_ns=number * 100_000_000)
        view = frame.view(frame.window, (500, 300))
        scene.expect(frame, view, Query(classes=("car",)))
        seen = Box(left / 2, top / 2, (right - left) / 2, (bottom - top) / 2)
        found = strongest(observe(view, Findings((Finding("car", seen, 0.9),))))
        (car,) = scene.update(hypotheses(found, [view], DEFAULT), [view], DEFAULT)
        bearing, sigma = camera.bearing(car.track.box.center, car.track.sigma)
        expected, _ = camera.bearing(true.center, 0.0)
        errors.append(float(np.linalg.norm(bearing - expected) / sigma))
    return errors


@pytest.mark.parametrize("speed_px_s", [0.0, 60.0])
@pytest.mark.parametrize("jitters", [1.0, 2.0])
def test_the_bearings_of_a_track_are_within_their_spread(speed_px_s, jitters):
    errors = np.array([error for seed in range(4) for error in bearing_errors(seed, speed_px_s, jitters)])
    assert (errors < 2.45).mean() >= 0.9, "2.45 sigmas hold 95 % of a normal distribution in two directions"
    assert np.sqrt((errors**2).mean() / 2) > 0.15, "the spread is far more than the errors"
