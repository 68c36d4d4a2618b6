"""The detector's adapter: from images of any size to boxes in their pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.onnx_session import ModelError, OnnxSession
from activeo3_ros.assets.packages import CENTERNET, MOTORWAY_PICTURE, require
from activeo3_ros.core.errors import InvalidInput
from activeo3_ros.detectors import centernet
from activeo3_ros.detectors.centernet import (
    COCO_CLASSES,
    INPUT_SIDE_PX,
    PADDING_GREY,
    CenterNet,
    letterbox,
    read_rows,
)

some_examples = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def detector() -> CenterNet:
    try:
        return CenterNet(require(CENTERNET), threads=1)
    except AssetError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def motorway() -> np.ndarray:
    try:
        return cv2.imread(str(require(MOTORWAY_PICTURE)))
    except AssetError as error:
        pytest.skip(str(error))


def names(class_ids: np.ndarray) -> set[str]:
    return {COCO_CLASSES[index] for index in class_ids}


def test_there_are_eighty_classes_in_the_order_of_coco():
    assert len(set(COCO_CLASSES)) == 80
    assert [COCO_CLASSES[index] for index in (0, 2, 5, 7, 79)] == ["person", "car", "bus", "truck", "toothbrush"]


@pytest.mark.parametrize("size", [(512, 300), (288, 512), (512, 512), (512, 1)])
def test_an_image_of_the_models_size_is_not_resampled(size):
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    canvas, scale = letterbox(image)
    assert scale == (1.0, 1.0)
    np.testing.assert_array_equal(canvas[: size[1], : size[0]], image)
    assert (canvas[size[1] :] == PADDING_GREY).all()
    assert (canvas[:, size[0] :] == PADDING_GREY).all()


@some_examples
@given(
    size=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    corner=st.tuples(st.floats(0, 0.8), st.floats(0, 0.8)),
    extent=st.tuples(st.floats(0.1, 0.2), st.floats(0.1, 0.2)),
)
def test_a_box_returns_from_the_canvas_to_where_it_was(size, corner, extent):
    width, height = size
    _, (scale_x, scale_y) = letterbox(np.zeros((height, width, 3), np.uint8))
    x, y, w, h = corner[0] * width, corner[1] * height, extent[0] * width, extent[1] * height
    corners = [x * scale_x, y * scale_y, (x + w) * scale_x, (y + h) * scale_y]
    assert max(corners) <= INPUT_SIDE_PX
    found = read_rows(np.array([[*corners, 0.9, 2]]), 0.3, (scale_x, scale_y), size)
    np.testing.assert_allclose(found.boxes, [[x, y, w, h]], rtol=1e-6, atol=1e-3)


def row(x1=10.0, y1=10.0, x2=20.0, y2=30.0, score=0.9, class_id=2.0) -> list[float]:
    return [x1, y1, x2, y2, score, class_id]


@pytest.mark.parametrize(
    "bad",
    [
        row(x1=np.nan),
        row(y2=np.inf),
        row(score=np.nan),
        row(x2=10.0),
        row(y2=5.0),
        row(x1=200.0, x2=220.0),  # beyond the image, in the grey
        row(x1=-20.0, x2=-5.0),
        row(class_id=80.0),
        row(class_id=-1.0),
        row(score=0.3),  # must exceed the threshold
    ],
)
def test_rows_that_are_no_objects_are_left_out(bad):
    found = read_rows(np.array([bad, row()], np.float32), 0.3, (1.0, 1.0), (100, 100))
    assert found.boxes.tolist() == [[10.0, 10.0, 10.0, 20.0]]
    assert found.scores.tolist() == pytest.approx([0.9])
    assert names(found.class_ids) == {"car"}


def test_boxes_are_clipped_to_the_image_and_ordered_by_score():
    rows = np.array([row(score=0.4), row(x1=-8, y1=-4, x2=150, y2=300, score=0.8)], np.float32)
    found = read_rows(rows, 0.3, (1.0, 2.0), (100, 90))
    assert found.boxes.tolist() == [[0.0, 0.0, 100.0, 90.0], [10.0, 5.0, 10.0, 10.0]]
    assert found.scores.tolist() == pytest.approx([0.8, 0.4])


def test_nothing_found_has_the_shapes_of_nothing():
    found = read_rows(np.zeros((0, 6), np.float32), 0.3, (1.0, 1.0), (100, 90))
    assert (found.boxes.shape, found.scores.shape, found.class_ids.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), np.uint8),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10, 10, 3), np.uint16),
        np.zeros((10, 10, 3), np.float32),
        np.zeros((0, 10, 3), np.uint8),
        "picture.png",
    ],
)
def test_what_is_no_bgr_image_is_refused(image):
    with pytest.raises(InvalidInput, match="the detector needs"):
        letterbox(image)


def test_the_real_detector_finds_the_cars_on_a_motorway(detector, motorway):
    height, width = motorway.shape[:2]
    [found] = detector.detect([motorway], threshold=0.3)
    assert names(found.class_ids) <= {"car", "truck", "bus"}
    assert 8 <= len(found.scores) <= 30
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, :2] + found.boxes[:, 2:] <= [width, height]).all()
    # The cars nearest to the camera are in the lower half, each a few per cent of the width across.
    largest = found.boxes[np.argsort(-found.boxes[:, 2] * found.boxes[:, 3])[:3]]
    assert (largest[:, 1] + largest[:, 3] > height / 2).all()


def test_it_finds_them_in_a_crop_where_it_found_them_in_the_whole(detector, motorway):
    [whole] = detector.detect([motorway], threshold=0.3)
    x, y, w, h = whole.boxes[0]
    left, top = max(0, int(x - w)), max(0, int(y - h))
    crop = motorway[top : int(y + 2 * h), left : int(x + 2 * w)]
    [close] = detector.detect([crop], threshold=0.3)
    centres = close.boxes[:, :2] + close.boxes[:, 2:] / 2 + [left, top]
    distances = np.abs(centres - [x + w / 2, y + h / 2])
    assert (distances < [w / 4, h / 4]).all(axis=1).any()


def test_each_image_gets_its_own_answer(detector, motorway):
    nothing, cars = detector.detect([np.zeros((40, 60, 3), np.uint8), motorway], threshold=0.3)
    assert len(nothing.scores) == 0
    assert len(cars.scores) >= 8
    assert detector.detect([], threshold=0.3) == []


@pytest.mark.parametrize("size", [(1, 1), (8000, 1), (1, 8000), (3, 2)])
def test_images_of_odd_sizes_are_no_trouble(detector, size):
    [found] = detector.detect([np.full((size[1], size[0], 3), 90, np.uint8)], threshold=0.1)
    assert (found.boxes[:, 2:] <= size).all()


def test_a_file_that_is_not_a_model_is_named(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"broken\.onnx: cannot be loaded as an ONNX model"):
        OnnxSession(path)


@pytest.mark.parametrize("threads", [0, 65, -1])
def test_a_number_of_threads_out_of_range_is_named(tmp_path, threads):
    with pytest.raises(InvalidInput, match=f"threads must be 1 to 64, got {threads}"):
        OnnxSession(tmp_path / "any.onnx", threads)


def test_detectors_of_one_process_share_the_model_until_one_hangs():
    first, second = CenterNet(), CenterNet()
    assert first._session is second._session
    centernet.forget(first)
    assert CenterNet()._session is not first._session
