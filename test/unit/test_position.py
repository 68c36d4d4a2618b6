"""Positions of objects in depth images: foreground and background, holes, edges, and covariances that hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activeo3_ros.core import Box
from activeo3_ros.core.camera import CameraModel
from activeo3_ros.core.position import DepthImage, nearest_surface, positions, visible_surfaces

WIDTH, HEIGHT = 320, 240
CAMERA = CameraModel((300.0, 310.0, 159.5, 119.5))
DISTORTED = CameraModel((300.0, 310.0, 159.5, 119.5), (-0.3, 0.1, 0.001, -0.002, 0.02), "plumb_bob")
BOX = Box(100.0, 60.0, 60.0, 90.0)
CHI_SQUARE_95 = 7.815
"""Of three degrees of freedom: 95 % of true positions lie within it."""
OBJECT_M, WALL_M = 8.0, 20.0


def scene(background: float = WALL_M) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), background, np.float32)


def fill(depth: np.ndarray, box: Box, value: float) -> np.ndarray:
    """The ellipse in a box, as an object shows itself: the corners of the box stay as they are."""
    y, x = np.mgrid[: depth.shape[0], : depth.shape[1]] + 0.5
    (cx, cy) = box.center
    depth[((x - cx) / (box.width / 2)) ** 2 + ((y - cy) / (box.height / 2)) ** 2 <= 1] = value
    return depth


def place(depth: np.ndarray, box: Box = BOX, sigma: float = 1.0, camera: CameraModel = CAMERA, **fields):
    return positions([box], [sigma], DepthImage(depth, **fields), camera)[0]


def depth_of(depth: np.ndarray, box: Box = BOX) -> float:
    image = DepthImage(depth)
    found = nearest_surface(box, image, image.density())
    return math.nan if found is None else found.depth


def test_an_object_before_a_wall_is_at_its_own_depth_on_the_ray_of_its_box():
    found = place(fill(scene(), BOX, OBJECT_M))
    (x, y) = BOX.center
    assert found.point == pytest.approx([(x - 160) / 300 * 8, (y - 120) / 310 * 8, 8.0])


@pytest.mark.parametrize("nothing", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e-9, 3.4e38])
def test_what_is_no_measurement_is_no_object(nothing):
    assert place(scene(nothing)) is None


@pytest.mark.parametrize("nothing", [math.nan, math.inf, -math.inf, 0.0])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_holes_in_an_object_leave_it_where_it_is(nothing, share):
    generator = np.random.default_rng(1)
    depth = fill(scene(), BOX, OBJECT_M)
    depth[(depth == OBJECT_M) & (generator.random(depth.shape) < share)] = nothing
    assert depth_of(depth) == pytest.approx(OBJECT_M)


def test_an_object_that_the_sensor_does_not_see_is_not_taken_for_what_is_around_it():
    depth = fill(scene(), BOX, math.nan)
    depth[60:70, 100:160] = WALL_M
    assert math.isnan(depth_of(depth))


def test_a_sparse_depth_image_such_as_that_of_a_projected_lidar_is_enough():
    generator = np.random.default_rng(2)
    depth = fill(scene(), BOX, OBJECT_M)
    depth[generator.random(depth.shape) > 0.03] = 0.0
    assert depth_of(depth) == pytest.approx(OBJECT_M)


def test_pixels_between_foreground_and_background_are_neither():
    depth = fill(scene(), BOX, 14.0)  # a rim, mixed of both, as the edges of stereo and time of flight show it
    depth = fill(depth, Box(104.5, 66.75, 51.0, 76.5), OBJECT_M)
    assert depth_of(depth) == pytest.approx(OBJECT_M)


def test_a_pole_in_front_is_not_the_object():
    depth = fill(scene(), BOX, OBJECT_M)
    depth[:, 128:133] = 3.0
    assert depth_of(depth) == pytest.approx(OBJECT_M)


def depths(depth: np.ndarray, *boxes: Box) -> list[float]:
    return [math.nan if found is None else found.depth for found in visible_surfaces(boxes, DepthImage(depth))]


IN_FRONT = Box(130.0, 70.0, 50.0, 80.0)
"""Hides the right half of `BOX`."""


def test_an_object_behind_another_one_has_the_depth_of_what_is_left_of_it():
    depth = fill(fill(scene(), BOX, OBJECT_M), IN_FRONT, 4.0)
    assert depth_of(depth) == 4.0, "by itself nobody knows that this is another object"
    assert depths(depth, BOX, IN_FRONT) == depths(depth, IN_FRONT, BOX)[::-1] == [OBJECT_M, 4.0]


def test_a_person_before_a_bus_is_not_the_bus():
    bus, person = Box(20.0, 40.0, 200.0, 120.0), Box(90.0, 60.0, 60.0, 110.0)
    depth = scene()
    depth[40:160, 20:220] = OBJECT_M
    assert depths(fill(depth, person, 5.0), bus, person) == [OBJECT_M, 5.0]


def test_two_side_by_side_and_a_part_of_an_object_share_a_depth():
    depth = fill(fill(scene(), BOX, OBJECT_M), IN_FRONT, OBJECT_M)
    assert depths(depth, BOX, IN_FRONT, Box(115.0, 80.0, 15.0, 15.0)) == [OBJECT_M] * 3


def test_two_boxes_of_one_object_have_its_depth_both():
    assert depths(fill(scene(), BOX, OBJECT_M), BOX, Box(102.0, 62.0, 60.0, 88.0)) == [OBJECT_M] * 2


def test_an_object_of_which_another_one_leaves_nothing_has_no_position():
    depth = scene(math.nan)
    depth[60:150, 100:160] = 4.0
    in_front, hidden = Box(100.0, 60.0, 60.0, 90.0), Box(130.0, 60.0, 60.0, 90.0)
    assert depth_of(depth, hidden) == 4.0
    assert depths(depth, hidden, in_front) == pytest.approx([math.nan, 4.0], nan_ok=True)


def test_a_slanted_surface_is_one_object_with_the_spread_of_its_depths():
    depth = scene()
    depth[60:150, 100:160] = np.linspace(9.0, 12.0, 60)
    image = DepthImage(depth)
    surface = nearest_surface(BOX, image, image.density())
    assert surface.depth == pytest.approx(10.5, abs=0.1)
    assert 0.5 < surface.spread < 1.5


def test_an_object_of_few_pixels_at_the_edge_of_the_image_has_the_place_of_its_visible_part():
    depth = scene()
    depth[100:120, 310:] = 5.0
    assert place(depth, Box(310.0, 100.0, 10.0, 20.0)).point[2] == pytest.approx(5.0)
    assert place(depth, Box(318.0, 100.0, 1.0, 1.0)) is None


@settings(deadline=None)
@given(st.floats(-50, 400), st.floats(-50, 300), st.floats(0, 500), st.floats(0, 500))
def test_any_box_gives_a_depth_that_the_image_has_or_none(x, y, width, height):
    found = place(fill(scene(), BOX, OBJECT_M), Box(x, y, width, height))
    if found is not None:
        assert found.point[2] in (OBJECT_M, WALL_M)
        assert (np.linalg.eigvalsh(found.covariance) > -1e-12).all()


def test_millimetres_are_metres_and_their_largest_value_is_no_measurement():
    depth = fill(scene(), BOX, OBJECT_M) * 1000
    found = place(depth.astype(np.uint16), unit_m=1e-3)
    assert found.point[2] == pytest.approx(8.0)
    assert place(np.full((HEIGHT, WIDTH), 65535, np.uint16), unit_m=1e-3) is None
    assert place(np.zeros((HEIGHT, WIDTH), np.uint16), unit_m=1e-3) is None


def test_a_box_of_unknown_spread_has_no_position():
    assert place(fill(scene(), BOX, OBJECT_M), sigma=math.nan) is None


def test_where_the_lens_shows_no_ray_there_is_no_position():
    barrel = CameraModel((300.0, 300.0, 159.5, 119.5), (-0.9, 0.0, 0.0, 0.0, 0.0), "plumb_bob")
    assert place(scene(), Box(0.0, 0.0, 10.0, 10.0), camera=barrel) is None


@pytest.mark.parametrize("camera", [CAMERA, DISTORTED])
@pytest.mark.parametrize("noise", [0.003, 0.03])
@pytest.mark.parametrize("holes", [0.0, 0.6])
def test_true_positions_lie_within_the_covariance_as_often_as_it_says(camera, noise, holes):
    """Each scene: an object before a wall, both with noise, holes and a common error; its box is off as it says."""
    generator = np.random.default_rng(3)
    common, sigma, distances = 0.02, 1.5, []
    for _ in range(150):
        box = Box(generator.uniform(30, 230), generator.uniform(20, 150), 50.0, 60.0)
        z = generator.uniform(3.0, 25.0)
        seen = fill(scene(z * generator.uniform(1.3, 3.0)), box, z).astype(np.float64)
        seen *= (1 + noise * generator.standard_normal(seen.shape)) * (1 + common * generator.standard_normal())
        seen[generator.random(seen.shape) < holes] = generator.choice([0.0, math.nan, math.inf])
        off = sigma * generator.standard_normal(2)
        found = place(
            seen.astype(np.float32), Box(box.x + off[0], box.y + off[1], 50.0, 60.0), sigma, camera, error=common
        )
        miss = found.point - z * camera.rays([box.center])[0]
        distances.append(miss @ np.linalg.solve(found.covariance, miss))
    within = np.mean(np.array(distances) < CHI_SQUARE_95)
    assert within >= 0.92, f"{within:.3f} of the true positions lie within the region that should have 0.95"
    assert np.mean(distances) > 1.0, "the covariance says far more than the errors are"


def test_the_errors_of_the_box_lie_across_the_ray_and_those_of_depth_along_it():
    covariance = place(fill(scene(), BOX, OBJECT_M), sigma=3.0, error=0.0).covariance
    assert covariance[0, 0] == pytest.approx((8 * 3 / 300) ** 2)
    assert covariance[1, 1] == pytest.approx((8 * 3 / 310) ** 2)
    along = place(fill(scene(), BOX, OBJECT_M), sigma=0.0, error=0.05).covariance
    ray = CAMERA.rays([BOX.center])[0]
    assert along == pytest.approx((0.05 * 8) ** 2 * np.outer(ray, ray))
