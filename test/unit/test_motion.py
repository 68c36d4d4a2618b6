"""The motion of a camera between two pictures."""

import cv2
import numpy as np
import pytest
from textured_picture import picture

from activeo3_ros.core import Frame
from activeo3_ros.core.motion import MotionEstimator


def view_of(image):
    frame = Frame(np.ascontiguousarray(image))
    return frame.view(frame.window, (500, 300))


def motion_of(*images):
    estimator = MotionEstimator()
    return [estimator.update(view_of(image)) for image in images][-1]


def warped(image, angle=0.0, scale=1.0, shift=(0, 0)):
    matrix = cv2.getRotationMatrix2D((image.shape[1] / 2, image.shape[0] / 2), angle, scale)
    matrix[:, 2] += shift
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REFLECT), matrix


@pytest.mark.parametrize(
    "how", [{"shift": (12, -6)}, {"scale": 1.04}, {"angle": 2.0}, {"angle": -1.0, "scale": 0.97, "shift": (-8, 5)}]
)
def test_shift_rotation_and_scale_are_found_in_source_pixels(how):
    image = picture()
    moved, matrix = warped(image, **how)
    found = motion_of(image, moved)
    points = np.array([[100.0, 100], [900, 500], [500, 300], [100, 500]])
    assert found.moved_points(points) == pytest.approx(points @ matrix[:, :2].T + matrix[:, 2], abs=2.0)


def test_an_object_that_moves_by_itself_is_left_out():
    image = picture()
    moved, _ = warped(image, shift=(10, 0))
    moved[200:400, 300:500] = image[200:400, 330:530]
    assert motion_of(image, moved).matrix[:, 2] == pytest.approx([10, 0], abs=1.5)


def test_another_picture_is_a_cut():
    assert motion_of(picture(0), picture(1)) is None
    assert motion_of(picture(0), picture(0)[:, ::-1]) is None
    assert motion_of(picture(0), np.zeros((600, 1000, 3), np.uint8)) is None


def test_the_first_picture_and_one_without_corners_say_nothing_and_the_camera_is_still():
    grey = np.full((600, 1000, 3), 90, np.uint8)
    for found in (motion_of(picture()), motion_of(grey, grey), motion_of(grey, picture())):
        assert found.scale == 1.0
        assert not found.matrix[:, 2].any()


def test_what_moves_before_a_camera_that_stands_still_is_an_object():
    image = picture()
    moved = image.copy()
    moved[200:400, 300:500] = image[200:400, 330:530]
    found = motion_of(image, moved)
    beside = np.array([[290.0, 300], [510, 300], [400, 300]])
    assert found.moved_points(beside) == pytest.approx(beside)
