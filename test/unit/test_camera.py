"""From pixels of an image to rays: region of interest, binning, resized and rectified images, distortion."""

from __future__ import annotations

import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activeo3_ros.codecs.camera_info import camera_model, is_rectified
from activeo3_ros.core.camera import CameraModel
from activeo3_ros.core.errors import InvalidInput

WIDTH, HEIGHT = 2136, 1160
K = (1500.0, 0.0, 1060.0, 0.0, 1510.0, 575.0, 0.0, 0.0, 1.0)
P = (1400.0, 0.0, 1050.0, 0.0, 0.0, 1410.0, 570.0, 0.0, 0.0, 0.0, 1.0, 0.0)
DISTORTION = (-0.3, 0.1, 0.001, -0.002, 0.02)


def info(roi: tuple[int, int, int, int] = (0, 0, 0, 0), binning: tuple[int, int] = (0, 0), **fields) -> SimpleNamespace:
    x, y, width, height = roi
    values = {
        "width": WIDTH,
        "height": HEIGHT,
        "k": K,
        "p": P,
        "d": (),
        "distortion_model": "plumb_bob",
        "binning_x": binning[0],
        "binning_y": binning[1],
        "roi": SimpleNamespace(x_offset=x, y_offset=y, width=width, height=height, do_rectify=False),
    }
    return SimpleNamespace(**{**values, **fields})


def sensor_ray(x: float, y: float) -> np.ndarray:
    """Of a point in continuous pixels of the whole sensor, by the pinhole equation itself."""
    return np.array([(x - 0.5 - K[2]) / K[0], (y - 0.5 - K[5]) / K[4], 1.0])


def test_the_principal_point_is_straight_ahead():
    model = camera_model(info(), (WIDTH, HEIGHT), rectified=False)
    assert model.rays([[1060.5, 575.5]]) == pytest.approx(np.array([[0.0, 0.0, 1.0]]))


def test_a_region_of_interest_is_where_it_lies_on_the_sensor():
    model = camera_model(info(roi=(534, 290, 1068, 580)), (1068, 580), rectified=False)
    assert model.rays([[100, 50]])[0] == pytest.approx(sensor_ray(634, 340))


def test_binned_pixels_are_larger():
    model = camera_model(info(binning=(2, 2)), (WIDTH // 2, HEIGHT // 2), rectified=False)
    assert model.rays([[100, 50]])[0] == pytest.approx(sensor_ray(200, 100))


def test_a_region_of_interest_may_be_binned_and_end_in_half_a_bin():
    model = camera_model(info(roi=(10, 20, 1001, 601), binning=(2, 2)), (500, 300), rectified=False)
    assert model.rays([[500, 300]])[0] == pytest.approx(sensor_ray(1010, 620))


def test_a_resized_image_shows_the_same_part_of_the_sensor():
    model = camera_model(info(), (WIDTH // 4, HEIGHT // 4), rectified=False)
    assert model.rays([[WIDTH / 4, HEIGHT / 4]])[0] == pytest.approx(sensor_ray(WIDTH, HEIGHT))


@pytest.mark.parametrize("points", [[[0, 0]], [[WIDTH, HEIGHT]], [[300.25, 900.75], [2000, 10]]])
@pytest.mark.parametrize("model_name", ["plumb_bob", "equidistant"])
def test_distortion_is_undone_as_opencv_does_it(points, model_name):
    d = DISTORTION if model_name == "plumb_bob" else (0.01, -0.002, 0.0005, 0.0)
    model = camera_model(info(d=d, distortion_model=model_name), (WIDTH, HEIGHT), rectified=False)
    rays = model.rays(points)
    project = cv2.projectPoints if model_name == "plumb_bob" else None
    matrix = np.array(K).reshape(3, 3)
    if project is not None:
        back, _ = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), matrix, np.array(d))
    else:
        back, _ = cv2.fisheye.projectPoints(rays[:, None], np.zeros(3), np.zeros(3), matrix, np.array(d))
    assert back.reshape(-1, 2) + 0.5 == pytest.approx(np.array(points, float), abs=0.01)


def test_a_rectified_image_has_the_projection_matrix_and_no_distortion():
    model = camera_model(info(d=DISTORTION), (WIDTH, HEIGHT), rectified=True)
    assert model.rays([[1050.5, 570.5]]) == pytest.approx(np.array([[0.0, 0.0, 1.0]]))
    assert model.rays([[1050.5 + 1400, 570.5]])[0, 0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("topic", "rectified"),
    [
        ("/front/image_raw", False),
        ("/front/image_rect", True),
        ("/front/image_rect_color", True),
        ("/front/image_rect/compressed", True),
        ("/rectory/image", False),
    ],
)
def test_rectified_topics_are_known_by_image_procs_names(topic, rectified):
    assert is_rectified(topic) is rectified


def test_a_camera_without_calibration_has_no_model():
    assert camera_model(info(k=(0.0,) * 9), (WIDTH, HEIGHT), rectified=False) is None


@pytest.mark.parametrize(
    ("wrong", "size", "words"),
    [
        ({"roi": (2000, 0, 500, 500)}, (500, 500), "does not lie on the sensor"),
        ({}, (1000, 1000), "not the shape"),
        ({"k": (-1.0, *K[1:])}, (WIDTH, HEIGHT), "positive focal lengths"),
        ({"k": (float("nan"), *K[1:])}, (WIDTH, HEIGHT), "positive focal lengths and a principal point, got nan, "),
        ({"k": (1.2, 0.0, 0.5, 0.0, 1.2, 0.5, 0.0, 0.0, 1.0)}, (WIDTH, HEIGHT), "a focal length of 1.2 px is none"),
        ({"d": DISTORTION, "distortion_model": "thin_prism"}, (WIDTH, HEIGHT), "thin_prism"),
        ({"d": DISTORTION[:3]}, (WIDTH, HEIGHT), "has 4 or 5 or 8 or 12 or 14 coefficients, got 3"),
        ({"d": DISTORTION, "distortion_model": "equidistant"}, (WIDTH, HEIGHT), "has 4 coefficients, got 5"),
        ({"d": (*DISTORTION[:4], float("nan"))}, (WIDTH, HEIGHT), "must be finite"),
    ],
)
def test_a_calibration_that_contradicts_the_image_is_refused(wrong, size, words):
    with pytest.raises(InvalidInput, match=words):
        camera_model(info(**wrong), size, rectified=False)


@given(
    st.integers(0, 500),
    st.integers(0, 500),
    st.integers(16, 1000),
    st.integers(16, 600),
    st.integers(1, 4),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_any_window_of_the_sensor_gives_the_rays_of_the_sensor(x, y, width, height, bins, u, v):
    binned = width // bins, height // bins
    model = camera_model(info(roi=(x, y, width, height), binning=(bins, bins)), binned, rectified=False)
    point = u * binned[0], v * binned[1]
    assert model.rays([point])[0] == pytest.approx(sensor_ray(x + point[0] * bins, y + point[1] * bins))


def test_where_the_distortion_has_no_inverse_there_is_no_ray():
    barrel = camera_model(info(d=(-0.9, 0.0, 0.0, 0.0, 0.0)), (WIDTH, HEIGHT), rectified=False)
    rays = barrel.rays([[1060.5, 575.5], [0.0, 0.0]])
    assert rays[0] == pytest.approx([0, 0, 1])
    assert np.isnan(rays[1, :2]).all()


def test_a_pixel_of_a_fisheye_that_looks_sideways_has_no_ray_on_the_plane_ahead():
    k = (300.0, 0.0, 1068.0, 0.0, 300.0, 580.0, 0.0, 0.0, 1.0)
    fields = {"k": k, "d": (0.0, 0.0, 0.0, 1e-9), "distortion_model": "equidistant"}
    rays = camera_model(info(**fields), (WIDTH, HEIGHT), rectified=False).rays([[1068.5 + 300, 580.5], [0.0, 0.0]])
    assert rays[0] == pytest.approx([np.tan(1.0), 0, 1])
    assert np.isnan(rays[1, :2]).all()


def test_no_points_have_no_rays():
    assert CameraModel((1.0, 1.0, 0.0, 0.0), (0.1, 0.0, 0.0, 0.0)).rays(np.zeros((0, 2))).shape == (0, 3)


@pytest.mark.parametrize("distortion", [(), DISTORTION])
@pytest.mark.parametrize("point", [(1060.5, 575.5), (5.0, 5.0), (2130.0, 1155.0), (5.0, 1155.0)])
def test_the_bearing_of_a_point_is_opencvs_and_its_spread_that_of_the_pixels(point, distortion):
    model = camera_model(info(d=distortion), (WIDTH, HEIGHT), rectified=False)
    bearing, sigma = model.bearing(point, 2.0)
    assert np.linalg.norm(bearing) == pytest.approx(1.0)
    matrix = np.array(K).reshape(3, 3)
    seen, _ = cv2.projectPoints(bearing[None, None], np.zeros(3), np.zeros(3), matrix, np.array(distortion))
    assert seen.ravel() + 0.5 == pytest.approx(np.array(point), abs=0.05)
    assert 0.3 * 2.0 / 1510 < sigma < 2.5 * 2.0 / 1500


def test_without_a_spread_or_a_ray_the_bearing_has_none():
    model = camera_model(info(), (WIDTH, HEIGHT), rectified=False)
    bearing, sigma = model.bearing((100.0, 100.0), math.nan)
    assert np.isfinite(bearing).all()
    assert math.isnan(sigma)
