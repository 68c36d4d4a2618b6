"""`type: onnx` on graphs made here: every layout, fitting of images, settings, and one clear line for what is wrong."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_models import (
    FLOAT,
    IMAGES,
    constant_model,
    image_of_detections,
    list_model,
    reading_model,
    red_segmenter,
    save,
)

from activeo3_ros.assets import onnx_session
from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.onnx_session import ModelError, OnnxSession, engine_directory
from activeo3_ros.assets.packages import CENTERNET, MOTORWAY_PICTURE, require
from activeo3_ros.cli.main import main
from activeo3_ros.codecs.rle import decode_rle
from activeo3_ros.core.errors import InvalidInput, OutOfMemory, PerceptionError
from activeo3_ros.core.geometry import Box, from_corners, iou, non_maximum_suppression, to_corners
from activeo3_ros.detectors.centernet import COCO_CLASSES, CenterNet
from activeo3_ros.detectors.onnx_detector import OnnxDetector, suppress
from activeo3_ros.detectors.onnx_inputs import Preprocessing, fit
from activeo3_ros.detectors.onnx_layouts import LAYOUTS, LayoutName
from activeo3_ros.presets import load_preset

WIDTH, HEIGHT = 96, 64
CELLS = 12 * 8 + 6 * 4 + 3 * 2
NAMES = ["car", "bus", "dog"]
ULTRALYTICS = {"author": "Ultralytics", "task": "detect", "stride": "32", "names": str(dict(enumerate(NAMES)))}
SIZES = ("orig_target_sizes", TensorProto.INT64, (1, 2))
# One car and one dog, in pixels of the input.
CORNERS = np.array([[10, 20, 42, 44], [50, 8, 90, 60]], np.float32)
SCORES = np.array([0.75, 0.5], np.float32)
CLASSES = np.array([0, 2])
CELL = np.array([30, 70])
"""The cells that found them, on the finest grid of 12 x 8."""
some_examples = settings(max_examples=25, deadline=None)


def centred(corners: np.ndarray, share: bool = False) -> np.ndarray:
    middle, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    return np.hstack([middle, size]) / ([WIDTH, HEIGHT] * 2 if share else 1)


def logit(share: np.ndarray) -> np.ndarray:
    return np.log(share / (1 - share))


def one_hot(columns: int, rest: float = 0.0) -> np.ndarray:
    scores = np.full((2, columns), rest, np.float32)
    scores[[0, 1], CLASSES] = SCORES
    return scores


def grid_positions() -> tuple[np.ndarray, np.ndarray]:
    """Column and row of each cell and its stride, computed cell by cell."""
    cells = [(x, y, s) for s in (8, 16, 32) for y in range(HEIGHT // s) for x in range(WIDTH // s)]
    return np.array(cells, np.float32)[:, :2], np.array(cells, np.float32)[:, 2:]


def dense(rows: int, columns: int) -> np.ndarray:
    """Rows that found nothing: small boxes about their cells, all scores 0."""
    table = np.zeros((rows, columns), np.float32)
    cells, strides = grid_positions()
    repeats = rows // CELLS
    table[:, :2] = np.tile((cells + 0.5) * strides, (repeats, 1))
    table[:, 2:4] = 4
    return table


def yolox_decoded() -> dict[str, np.ndarray]:
    table = dense(CELLS, 8)
    table[CELL, :4], table[CELL, 4], table[CELL, 5:] = centred(CORNERS), 1, one_hot(3)
    return {"output": table[None]}


def yolox() -> dict[str, np.ndarray]:
    table = yolox_decoded()["output"][0]
    cells, strides = grid_positions()
    table[:, :2] = table[:, :2] / strides - cells
    table[:, 2:4] = np.log(table[:, 2:4] / strides)
    return {"output": table[None]}


def yolov5() -> dict[str, np.ndarray]:
    table = dense(3 * CELLS, 8)
    table[CELL, :4], table[CELL, 4], table[CELL, 5:] = centred(CORNERS), 1, one_hot(3)
    return {"output0": table[None]}


def yolov8() -> dict[str, np.ndarray]:
    table = dense(CELLS, 7)
    table[CELL, :4], table[CELL, 4:] = centred(CORNERS), one_hot(3)
    return {"output0": np.ascontiguousarray(table.T[None])}


def end_to_end() -> dict[str, np.ndarray]:
    rows = np.zeros((1, 300, 6), np.float32)
    rows[0, :2] = np.hstack([CORNERS, SCORES[:, None], CLASSES[:, None]])
    return {"output0": rows}


def efficient_nms() -> dict[str, np.ndarray]:
    beyond = np.float32(np.nan)  # what lies behind the count means nothing
    boxes, scores, classes = np.full((1, 9, 4), beyond), np.full((1, 9), beyond), np.zeros((1, 9), np.int32)
    boxes[0, :2], scores[0, :2], classes[0, :2] = CORNERS, SCORES, CLASSES
    return {"num_dets": np.array([[2]], np.int32), "det_boxes": boxes, "det_scores": scores, "det_classes": classes}


def ssd() -> dict[str, np.ndarray]:
    boxes, scores, classes = (np.zeros(shape, np.float32) for shape in ((1, 9, 4), (1, 9), (1, 9)))
    boxes[0, :2] = (CORNERS / ([WIDTH, HEIGHT] * 2))[:, [1, 0, 3, 2]]
    scores[0, :2], classes[0, :2] = SCORES, CLASSES + 1
    return {
        "detection_boxes": boxes,
        "detection_scores": scores,
        "detection_classes": classes,
        "num_detections": np.array([2], np.float32),
        "raw_detection_boxes": np.zeros((1, 50, 4), np.float32),
        "raw_detection_scores": np.zeros((1, 50, 4), np.float32),
    }


def ultralytics_rt_detr() -> dict[str, np.ndarray]:
    rows = np.zeros((1, 20, 7), np.float32)
    rows[0, 4:6] = np.hstack([centred(CORNERS, share=True), one_hot(3)])
    return {"output0": rows}


def rt_detr_sizes() -> dict[str, np.ndarray]:
    scores = np.zeros((1, 9), np.float32)
    labels, boxes = np.zeros((1, 9), np.int64), np.zeros((1, 9, 4), np.float32)
    labels[0, :2], boxes[0, :2], scores[0, :2] = CLASSES, CORNERS, SCORES
    return {"labels": labels, "boxes": boxes, "scores": scores}


def queries(classes: int, boxes: str = "pred_boxes", logits: str = "logits") -> dict[str, np.ndarray]:
    tables = np.full((1, 12, 4), 0.1, np.float32), np.full((1, 12, classes), -9, np.float32)
    tables[0][0, 5:7], tables[1][0, 5:7] = centred(CORNERS, share=True), logit(np.clip(one_hot(classes), 1e-4, 1))
    return {boxes: tables[0], logits: tables[1]}


def detr() -> dict[str, np.ndarray]:
    outputs = queries(4)
    outputs["logits"][:] = [-9, -9, -9, 9]
    outputs["logits"][0, 5:7] = np.log(np.hstack([one_hot(3, 1e-9), 1 - SCORES[:, None]]))
    return outputs


def yolov7_end_to_end() -> dict[str, np.ndarray]:
    rows = np.hstack([np.zeros((2, 1)), CORNERS, CLASSES[:, None], SCORES[:, None]])
    return {"output": rows.astype(np.float32)}


def mmdeploy() -> dict[str, np.ndarray]:
    dets, labels = np.zeros((1, 9, 5), np.float32), np.full((1, 9), -1, np.int64)
    dets[0, :2], labels[0, :2] = np.hstack([CORNERS, SCORES[:, None]]), CLASSES
    return {"dets": dets, "labels": labels}


def paddle() -> dict[str, np.ndarray]:
    rows = np.hstack([CLASSES[:, None], SCORES[:, None], CORNERS]).astype(np.float32)
    return {"multiclass_nms3_0.tmp_0": rows, "multiclass_nms3_0.tmp_2": np.array([2], np.int32)}


UINT8 = ("image_tensor", TensorProto.UINT8, (1, HEIGHT, WIDTH, 3))
MADE = {
    "yolox": (yolox, {}, (IMAGES,)),
    "yolox_decoded": (yolox_decoded, {}, (IMAGES,)),
    "yolov5": (yolov5, {}, (IMAGES,)),
    "yolov8": (yolov8, ULTRALYTICS, (IMAGES,)),
    "end_to_end": (end_to_end, ULTRALYTICS, (IMAGES,)),
    "efficient_nms": (efficient_nms, {}, (IMAGES,)),
    "ultralytics_rt_detr": (ultralytics_rt_detr, {**ULTRALYTICS, "head": "RTDETRDecoder"}, (IMAGES,)),
    "rt_detr_sizes": (rt_detr_sizes, {}, (IMAGES, SIZES)),
    "rf_detr": (lambda: queries(3, "dets", "labels"), {}, (IMAGES,)),
    "ssd": (ssd, {}, (UINT8,)),
    "yolov7_end_to_end": (yolov7_end_to_end, {}, (IMAGES,)),
}
"""Layouts that need no other file: outputs, metadata, inputs."""
FAMILIES = {
    "rt_detr": (lambda: queries(3), "rt_detr"),
    "deformable_detr": (lambda: queries(3), "conditional_detr"),
    "detr": (detr, "yolos"),
}
"""Layouts that config.json tells apart."""
PADDLE_INPUTS = (("image", FLOAT, (1, 3, HEIGHT, WIDTH)), ("scale_factor", FLOAT, (1, 2)), ("im_shape", FLOAT, (1, 2)))
UNCERTAIN = {"mmdeploy": (mmdeploy, (IMAGES,)), "paddle": (paddle, PADDLE_INPUTS)}
"""Layouts that leave open how pixels are prepared, so that a setting names them: outputs, inputs."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("models")


def grey(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def check(detector: OnnxDetector) -> None:
    """Both objects are found where they are, in an image of the input's size and in one that is stretched to it."""
    for size in ((WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT)):
        [found] = detector.detect([grey(*size)], 0.3)
        scale = size[0] / WIDTH
        np.testing.assert_allclose(to_corners(found.boxes), CORNERS * scale, atol=1e-3)
        np.testing.assert_allclose(found.scores, SCORES, atol=1e-5)
        assert [detector.names[each] for each in found.class_ids] == ["car", "dog"]
        assert (found.boxes.dtype, found.scores.dtype, found.masks) == (np.float64, np.float32, None)
    assert detector.detect([grey()], 0.6)[0].scores.tolist() == [0.75]
    assert detector.detect([], 0.3) == []


def test_every_layout_is_tried_here():
    assert {*MADE, *FAMILIES, *UNCERTAIN} == set(LAYOUTS)
    assert set(LayoutName.__args__) == {"auto", *LAYOUTS}


@pytest.mark.parametrize("layout", ["auto", "named"])
@pytest.mark.parametrize("name", MADE)
def test_a_layout_is_recognised_and_read(folder, name, layout):
    outputs, metadata, inputs = MADE[name]
    path = constant_model(folder / f"{name}.onnx", outputs(), inputs, metadata)
    detector = OnnxDetector(path, names=NAMES, layout=name if layout == "named" else "auto")
    assert detector.layout == name
    check(detector)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_transformers_model_is_recognised_by_the_files_beside_it(tmp_path, name):
    outputs, family = FAMILIES[name]
    (tmp_path / "onnx").mkdir()
    path = constant_model(tmp_path / "onnx" / "model.onnx", outputs())
    with pytest.raises(InvalidInput, match=r"the layout is unclear: .* set layout to rt_detr, deformable_detr, detr"):
        OnnxDetector(path, names=NAMES)
    config = {"model_type": family, "id2label": {str(index): each for index, each in enumerate(NAMES)}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    detector = OnnxDetector(path)
    assert (detector.layout, detector.names) == (name, tuple(NAMES))
    check(detector)


@pytest.mark.parametrize("name", UNCERTAIN)
def test_a_layout_that_does_not_tell_how_pixels_are_prepared_is_named_by_a_setting(tmp_path, name):
    outputs, inputs = UNCERTAIN[name]
    path = constant_model(tmp_path / "model.onnx", outputs(), inputs)
    message = refusal(path, names=NAMES)
    assert f"set layout to {name}, whichever made the file, and scale, mean, std, channels and letterbox" in message
    detector = OnnxDetector(path, names=NAMES, layout=name, letterbox="stretch")
    assert detector.layout == name
    check(detector)


STEPS = """
Preprocess:
- {type: Resize, target_size: [64, 96], keep_ratio: false, interp: 2}
- {type: NormalizeImage, is_scale: false, mean: [0.5, 0.5, 0.5], std: [2, 2, 2], norm_type: none}
- {type: Permute}
label_list: [car, bus, dog]
"""


@pytest.mark.parametrize("exporter", ["yolov7", "paddle"])
@pytest.mark.parametrize("batch", [1, 3])
def test_each_image_of_a_batch_gets_its_own_rows_of_one_list(tmp_path, exporter, batch):
    path = list_model(tmp_path / "model.onnx", exporter)
    if exporter == "paddle":
        (tmp_path / "infer_cfg.yml").write_text(STEPS)
        detector = OnnxDetector(path, batch=batch)
    else:
        detector = OnnxDetector(path, names=NAMES, scale=1.0, batch=batch)
    assert detector.layout == {"yolov7": "yolov7_end_to_end", "paddle": "paddle"}[exporter]
    assert (detector.batch_size, detector.names) == (batch, tuple(NAMES))
    rows = [[], [[10, 20, 42, 44, 191, 0]], [[1, 2, 9, 8, 204, 1], [50, 8, 90, 60, 128, 2]], []]
    found = detector.detect([image_of_detections(each, WIDTH, HEIGHT) for each in rows], 0.3)
    assert [to_corners(each.boxes).tolist() for each in found] == [[row[:4] for row in each] for each in rows]
    assert [[detector.names[i] for i in each.class_ids] for each in found] == [[], ["car"], ["bus", "dog"], []]
    assert found[2].scores.tolist() == pytest.approx([204 / 255, 128 / 255])


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("[{type: Resize, target_size: [64, 96], keep_ratio: false}]", Preprocessing(scale=1.0)),
        ("[{type: Resize, target_size: [64, 96]}]", Preprocessing(scale=1.0, letterbox="top_left", padding=0)),
        (
            "[{type: LetterBoxResize, target_size: [64, 96]}, {type: NormalizeImage, mean: [1, 2, 3], std: [4, 5, 6]}]",
            Preprocessing(1 / 255, (1, 2, 3), (4, 5, 6), letterbox="centre", padding=127),
        ),
    ],
)
def test_the_steps_of_paddle_are_read_from_the_file_beside_the_model(tmp_path, steps, expected):
    path = list_model(tmp_path / "model.onnx", "paddle", images=1)
    (tmp_path / "inference.yml").write_text(f"Preprocess: {steps}\nlabel_list: [car, bus, dog]\n")
    assert OnnxDetector(path)._preprocessing == expected
    (tmp_path / "inference.yml").write_text("Preprocess: [{type: WarpAffine}]\nlabel_list: [car, bus, dog]\n")
    assert "the layout is unclear" in refusal(path)
    (tmp_path / "inference.yml").write_text("Preprocess: [")
    assert "inference.yml: not a readable YAML file" in refusal(path)


def test_lists_that_do_not_tell_which_image_a_row_is_of_are_a_fault(tmp_path):
    rows = yolov7_end_to_end()
    rows["output"][1, 0] = 5
    detector = OnnxDetector(constant_model(tmp_path / "wild.onnx", rows), names=NAMES)
    with pytest.raises(ModelError, match=r"wild\.onnx: an output has rows of the images 0 to 5 of a batch of 1"):
        detector.detect([grey()], 0.3)
    rows = {**paddle(), "multiclass_nms3_0.tmp_2": np.array([3], np.int32)}
    path = constant_model(tmp_path / "short.onnx", rows, PADDLE_INPUTS)
    detector = OnnxDetector(path, names=NAMES, layout="paddle")
    with pytest.raises(ModelError, match=r"an output has 2 rows where \[3\] are announced for 1 images"):
        detector.detect([grey()], 0.3)


def test_a_classifier_of_seven_classes_is_not_taken_for_a_list_of_detections(tmp_path):
    path = constant_model(tmp_path / "seven.onnx", {"logits": np.zeros((1, 7), np.float32)})
    assert "as of a classifier" in refusal(path, names=NAMES)


@pytest.mark.parametrize("shape", [(1, 3, 0, 0, 8), (1, 24, 0, 0)])
def test_the_bare_heads_of_a_yolo_are_refused_with_how_to_export_it(tmp_path, shape):
    outputs = {}
    for stride in (8, 16, 32):
        size = list(shape)
        size[-2:] = (HEIGHT // stride, WIDTH // stride)
        if len(shape) == 5:
            size = [1, 3, HEIGHT // stride, WIDTH // stride, 8]
        outputs[f"head{stride}"] = np.zeros(size, np.float32)
    message = refusal(constant_model(tmp_path / "raw.onnx", outputs), names=NAMES)
    assert (
        "these are the heads of a YOLO, from which boxes are made with anchors that the file does not hold" in message
    )
    assert "export it with the boxes made inside, YOLOv7 with --grid or --end2end" in message


def test_names_come_from_the_metadata_unless_a_setting_gives_them(folder):
    path = constant_model(folder / "named.onnx", yolov8(), metadata=ULTRALYTICS)
    assert OnnxDetector(path).names == ("car", "bus", "dog")
    assert OnnxDetector(path, names=["a", "b", "c"]).names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("names.txt", "car\nbus\ndog\n\n"),
        ("names.yaml", "[car, bus, dog]"),
        ("data.yaml", "path: x\nnames:\n  0: car\n  1: bus\n  2: dog\n"),
        ("config.json", '{"id2label": {"0": "car", "1": "bus", "2": "dog"}}'),
    ],
)
def test_names_come_from_a_file(tmp_path, file, text):
    path = constant_model(tmp_path / "model.onnx", yolov5())
    (tmp_path / file).write_text(text)
    assert OnnxDetector(path, names=str(tmp_path / file)).names == ("car", "bus", "dog")


def test_names_in_metadata_are_data_and_are_not_run(tmp_path):
    trap = tmp_path / "ran"
    names = f"__import__('pathlib').Path({str(trap)!r}).touch()"
    path = constant_model(tmp_path / "trap.onnx", yolov8(), metadata={**ULTRALYTICS, "names": names})
    with pytest.raises(InvalidInput, match="the file does not name its classes: set names"):
        OnnxDetector(path)
    assert not trap.exists()


@pytest.mark.parametrize("names", [list(COCO_CLASSES), {3: "car", 12: "N/A", 90: "toothbrush"}])
def test_the_91_ids_of_coco_take_its_80_names_or_a_mapping(folder, names):
    outputs = queries(91, "dets", "labels")
    outputs["labels"][0, 5:7] = -9
    outputs["labels"][0, 5, 3] = outputs["labels"][0, 6, 12] = 3  # a car, and an id that stands for no class
    detector = OnnxDetector(constant_model(folder / "coco91.onnx", outputs), names=names)
    assert list(detector.names) == (names if isinstance(names, list) else ["car", "toothbrush"])
    [found] = detector.detect([grey()], 0.3)
    assert [detector.names[each] for each in found.class_ids] == ["car"]


def test_a_background_at_the_end_needs_no_name(folder):
    path = constant_model(folder / "background.onnx", queries(4, "dets", "labels"))
    detector = OnnxDetector(path, names=NAMES)
    assert detector.names == ("car", "bus", "dog")
    check(detector)


def rows_model(folder: Path, shape=(1, 3, HEIGHT, WIDTH), dtype=FLOAT, name="rows.onnx") -> Path:
    return reading_model(folder / name, shape, dtype)


AS_THEY_ARE = {"names": NAMES, "layout": "end_to_end", "scale": 1.0, "letterbox": "top_left"}
CAR, DOG = [10, 20, 42, 44, 255 * 0.8, 0], [50, 8, 90, 60, 255 * 0.4, 2]


@pytest.mark.parametrize("dtype", [FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE])
@pytest.mark.parametrize("shape", [(1, 3, HEIGHT, WIDTH), (1, HEIGHT, WIDTH, 3)])
def test_pixels_arrive_in_either_order_and_any_precision(folder, shape, dtype):
    detector = OnnxDetector(rows_model(folder, shape, dtype, f"order{shape[1]}{dtype}.onnx"), **AS_THEY_ARE)
    [found] = detector.detect([image_of_detections([DOG, CAR], WIDTH, HEIGHT)], 0.3)
    np.testing.assert_allclose(to_corners(found.boxes), [CAR[:4], DOG[:4]], atol=0.1)
    np.testing.assert_allclose(found.scores, [0.8, 0.4], atol=1e-3)
    assert found.class_ids.tolist() == [0, 2]


def test_a_model_that_takes_bytes_gets_them(folder):
    path = rows_model(folder, (1, HEIGHT, WIDTH, 3), TensorProto.UINT8, "bytes.onnx")
    detector = OnnxDetector(path, names=NAMES, layout="end_to_end", letterbox="top_left")
    [found] = detector.detect([image_of_detections([CAR], WIDTH, HEIGHT)], 0.3)
    np.testing.assert_allclose(to_corners(found.boxes), [CAR[:4]])
    with pytest.raises(InvalidInput, match=r"takes pixels as they are \(uint8\): leave out scale, mean and std"):
        OnnxDetector(path, **AS_THEY_ARE)


@pytest.mark.parametrize(("batch", "setting"), [("n", 3), ("n", None), (1, None), (2, None), (4, None)])
def test_each_image_of_a_batch_gets_its_own_answer(folder, batch, setting):
    path = rows_model(folder, (batch, 3, HEIGHT, WIDTH), name=f"batch{batch}.onnx")
    detector = OnnxDetector(path, batch=setting, **AS_THEY_ARE)
    assert detector.batch_size == (setting or (batch if batch != "n" else 1))
    images = [image_of_detections([[i, 0, 50 + i, 40, 200, i % 3]], WIDTH, HEIGHT) for i in range(7)]
    found = detector.detect(images, 0.5)
    assert [each.boxes.tolist() for each in found] == [[[i, 0, 50, 40]] for i in range(7)]
    assert [each.class_ids.tolist() for each in found] == [[i % 3] for i in range(7)]


def test_a_graph_that_answers_a_batch_wrongly_is_given_one_image_at_a_time(tmp_path, caplog):
    # Every image of a batch gets the answer to the first, as of an export that was traced with one image.
    rows = reading_model(tmp_path / "reading.onnx", ("n", 3, HEIGHT, WIDTH))
    model = onnx.load(rows)
    model.graph.node[-1].output[0] = "each"
    model.graph.node.extend(
        [
            helper.make_node("Gather", ["each", "first"], ["first_image"], axis=0),
            helper.make_node("Shape", ["each"], ["shape"]),
            helper.make_node("Expand", ["first_image", "shape"], ["detections"]),
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "first"))
    onnx.save(model, tmp_path / "traced.onnx")
    detector = OnnxDetector(tmp_path / "traced.onnx", batch=4, **AS_THEY_ARE)
    assert detector.batch_size == 1
    assert "traced.onnx: is given one image at a time" in caplog.text
    images = [image_of_detections([[i, 0, 50 + i, 40, 200, 0]], WIDTH, HEIGHT) for i in range(3)]
    assert [each.boxes[0, 0] for each in detector.detect(images, 0.5)] == [0, 1, 2]


def test_several_threads_may_ask_at_once(folder):
    from concurrent.futures import ThreadPoolExecutor

    detector = OnnxDetector(rows_model(folder), **AS_THEY_ARE)
    assert detector.concurrent
    images = [image_of_detections([[i, 0, 50 + i, 40, 200, 0]], WIDTH, HEIGHT) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: detector.detect([image], 0.5)[0].boxes[0, 0], images))
    assert found == list(range(40))


def test_a_free_size_is_set_or_known_from_the_metadata(folder):
    free = (1, 3, "height", "width")
    path = rows_model(folder, free, name="free.onnx")
    with pytest.raises(
        InvalidInput,
        match=r"free\.onnx: the graph leaves the size of its input free: set input to \[width, height\]; "
        r"inputs: images \(1, 3, \?, \?\) float32",
    ):
        OnnxDetector(path, **AS_THEY_ARE)
    detector = OnnxDetector(path, input=[WIDTH, HEIGHT], **AS_THEY_ARE)
    assert (detector.input_size.width, detector.input_size.height) == (WIDTH, HEIGHT)
    told = reading_model(folder / "told.onnx", free, metadata={**ULTRALYTICS, "imgsz": f"[{HEIGHT}, {WIDTH}]"})
    assert (
        OnnxDetector(told, scale=1.0).input_size == OnnxDetector(path, input=[WIDTH, HEIGHT], **AS_THEY_ARE).input_size
    )


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ([640], r"input must be a width and a height of 16 to 8192 pixels, got \[640\]"),
        ([0, 64], r"input must be a width and a height of 16 to 8192 pixels, got \[0, 64\]"),
        ([640, 640], "input is 640 x 640, but the graph fixes another size"),
    ],
)
def test_a_size_that_cannot_be_is_refused(folder, size, message):
    with pytest.raises(InvalidInput, match=message):
        OnnxDetector(rows_model(folder), input=size, **AS_THEY_ARE)


def test_pixels_are_scaled_shifted_and_ordered_as_set(tmp_path):
    # The mean of each channel is the score of a box of that channel's class.
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Reshape", ["means", "shape"], ["scores"]),
        helper.make_node("Concat", ["boxes", "scores", "classes"], ["rows"], axis=2),
    ]
    constants = {
        "shape": np.array([1, 3, 1], np.int64),
        "boxes": np.tile(np.array([1, 2, 30, 40], np.float32), (1, 3, 1)),
        "classes": np.arange(3, dtype=np.float32).reshape(1, 3, 1),
    }
    path = save(tmp_path / "means.onnx", nodes, [IMAGES], [("rows", FLOAT, (1, 3, 6))], constants)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:] = (51, 102, 204)  # blue, green, red
    common = {"names": ["first", "second", "third"], "layout": "end_to_end"}

    def scores(**chosen) -> list[float]:
        [found] = OnnxDetector(path, **common, **chosen).detect([image], 0.0)
        return found.scores[np.argsort(found.class_ids)].tolist()

    near = functools.partial(pytest.approx, abs=1e-4)
    assert scores() == near([0.8, 0.4, 0.2])
    assert scores(channels="bgr") == near([0.2, 0.4, 0.8])
    assert scores(scale=0.001) == near([0.204, 0.102, 0.051])
    assert scores(mean=[0.1, 0.2, 0.1], std=[1, 2, 0.5]) == near([0.7, 0.1, 0.2])
    with pytest.raises(InvalidInput, match=r"mean must be three numbers, one for each channel, got \[0.5\]"):
        scores(mean=[0.5])
    with pytest.raises(InvalidInput, match=r"std must be three numbers above 0, got \[1, 0, 1\]"):
        scores(std=[1, 0, 1])


sizes = st.tuples(st.integers(1, 700), st.integers(1, 700))


@some_examples
@given(
    size=sizes,
    letterbox=st.sampled_from(["stretch", "top_left", "centre"]),
    corner=st.tuples(st.floats(0, 0.7), st.floats(0, 0.7)),
    extent=st.tuples(st.floats(0.05, 0.3), st.floats(0.05, 0.3)),
)
def test_a_box_returns_from_the_input_to_where_it_was(size, letterbox, corner, extent):
    width, height = size
    canvas, place = fit(np.zeros((height, width, 3), np.uint8), WIDTH, HEIGHT, letterbox, 114)
    assert canvas.shape == (HEIGHT, WIDTH, 3)
    start, share = np.array(corner), np.array(extent)
    box = np.hstack([start, start + share]) * ([width, height] * 2)
    shown = box * ([place.scale_x, place.scale_y] * 2) + [place.left, place.top] * 2
    assert (shown >= -1e-9).all() and (shown <= np.array([WIDTH, HEIGHT] * 2) + 1e-9).all()
    np.testing.assert_allclose(place.to_image(shown), [box], atol=1e-6)
    if letterbox == "stretch":
        assert (canvas == 0).all()


@some_examples
@given(size=sizes, letterbox=st.sampled_from(["top_left", "centre"]))
def test_padding_is_where_the_image_is_not(size, letterbox):
    canvas, place = fit(np.zeros((size[1], size[0], 3), np.uint8), WIDTH, HEIGHT, letterbox, 77)
    across, down = round(place.scale_x * size[0]), round(place.scale_y * size[1])
    content = np.zeros((HEIGHT, WIDTH), bool)
    content[place.top : place.top + down, place.left : place.left + across] = True
    assert (canvas[content] == 0).all() and (canvas[~content] == 77).all()
    assert across == WIDTH or down == HEIGHT


@some_examples
@given(seed=st.integers(0, 10**6), count=st.integers(0, 60), block=st.integers(1, 70), limit=st.floats(0.05, 0.95))
def test_suppression_in_blocks_equals_that_of_each_class(seed, count, block, limit):
    random = np.random.default_rng(seed)
    boxes = np.hstack([random.uniform(0, 20, (count, 2)), random.uniform(1, 20, (count, 2))])
    scores, classes = np.sort(random.random(count).astype(np.float32))[::-1], random.integers(0, 3, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("activeo3_ros.detectors.onnx_detector.SUPPRESSION_BLOCK", block)
        kept = suppress(boxes, scores, classes, limit)
    expected = [
        members[index]
        for each in range(3)
        for members in [np.flatnonzero(classes == each)]
        for index in non_maximum_suppression(boxes[members], scores[members], limit)
    ]
    assert kept.tolist() == sorted(expected)


def test_overlapping_boxes_of_one_class_become_one(folder):
    outputs = yolov8()
    table = outputs["output0"][0]
    table[:, 31] = table[:, 30]  # the car again, a little less sure
    table[4, 31] -= 0.1
    table[:, 71], table[5, 71], table[6, 71] = table[:, 70], 0.45, 0  # a bus where the dog is
    path = constant_model(folder / "twice.onnx", outputs, metadata=ULTRALYTICS)
    detector = OnnxDetector(path)
    [found] = detector.detect([grey()], 0.3)
    assert [detector.names[each] for each in found.class_ids] == ["car", "dog", "bus"]
    assert len(OnnxDetector(path, nms_iou=1.0).detect([grey()], 0.3)[0].scores) == 4
    assert OnnxDetector(path, max_detections=1).detect([grey()], 0.3)[0].scores.tolist() == [0.75]


def test_boxes_are_cut_at_the_image_and_padding_holds_none(folder):
    rows = end_to_end()
    rows["output0"][0, :3] = [[-9, -9, 200, 300, 0.9, 0], [4, 50, 40, 60, 0.8, 1], [5, 5, 5, 30, 0.7, 2]]
    path = constant_model(folder / "beyond.onnx", rows, metadata=ULTRALYTICS)
    [found] = OnnxDetector(path, letterbox="top_left").detect([grey(192, 64)], 0.3)  # half of the input is padding
    assert found.boxes.tolist() == [[0, 0, 192, 64]]
    assert found.scores.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize(
    ("box_format", "write"),
    [
        ("xyxy", lambda c: c),
        ("yxyx", lambda c: c[:, [1, 0, 3, 2]]),
        ("xywh", from_corners),
        ("cxcywh", centred),
        ("xyxy_normalized", lambda c: c / ([WIDTH, HEIGHT] * 2)),
        ("cxcywh_normalized", lambda c: centred(c, share=True)),
    ],
)
def test_the_format_of_boxes_can_be_set(folder, box_format, write):
    rows = end_to_end()
    rows["output0"][0, :2, :4] = write(CORNERS)
    path = constant_model(folder / f"{box_format}.onnx", rows, metadata=ULTRALYTICS)
    check(OnnxDetector(path, box_format=box_format))


def disc(centre: tuple[float, float], radius: float, width: int, height: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return radius - np.hypot(x - centre[0], y - centre[1])


@pytest.mark.parametrize("name", ["yolov5", "yolov8", "end_to_end", "rf_detr"])
def test_masks_are_of_the_object_in_the_pixels_of_the_image(folder, name):
    # Each object is a disc; masks have a quarter of the input's resolution.
    discs = np.stack([disc((6.5, 8), 3.5, 24, 16), disc((17.5, 8.5), 4.5, 24, 16)]).astype(np.float32)
    prototypes = np.zeros((1, 8, 16, 24), np.float32)
    prototypes[0, :2] = discs
    weights = np.eye(8, dtype=np.float32)[:2]
    metadata = {**ULTRALYTICS, "task": "segment"}
    if name == "yolov8":
        table = yolov8()["output0"]
        masks = np.zeros((1, 8, CELLS), np.float32)
        masks[0, :, CELL] = weights
        outputs = {"output0": np.concatenate([table, masks], axis=1), "output1": prototypes}
    elif name == "yolov5":
        masks = np.zeros((1, 3 * CELLS, 8), np.float32)
        masks[0, CELL] = weights
        outputs = {"output0": np.concatenate([yolov5()["output0"], masks], axis=2), "output1": prototypes}
    elif name == "end_to_end":
        rows = np.zeros((1, 300, 8), np.float32)
        rows[0, :2] = weights
        outputs = {"output0": np.concatenate([end_to_end()["output0"], rows], axis=2), "output1": prototypes}
    else:
        masks = np.full((1, 12, 16, 24), -1, np.float32)
        masks[0, 5:7] = discs
        outputs, metadata = {**queries(3, "dets", "labels"), "masks": masks}, {}
    detector = OnnxDetector(constant_model(folder / f"mask_{name}.onnx", outputs, metadata=metadata), names=NAMES)
    for size in ((WIDTH, HEIGHT), (3 * WIDTH, 3 * HEIGHT), (WIDTH, HEIGHT // 2)):
        [found] = detector.detect([grey(*size)], 0.3)
        assert found.masks.shape == (2, size[1], size[0])
        assert found.masks.dtype == bool
        _, place = fit(grey(*size), WIDTH, HEIGHT, "centre" if detector.input_size.keeps_aspect else "stretch", 0)
        for mask, box, (x, y, radius) in zip(found.masks, found.boxes, ((26, 32, 14), (70, 34, 18)), strict=True):
            across, down = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
            shown = np.hypot(across * place.scale_x + place.left - x, down * place.scale_y + place.top - y) < radius
            left, top, right, bottom = to_corners(box)[0]
            shown &= (across > left) & (across < right) & (down > top) & (down < bottom)
            assert (mask & shown).sum() / (mask | shown).sum() > 0.93


@some_examples
@given(st.sampled_from(["stretch", "top_left", "centre"]), st.integers(1, 90), st.integers(1, 90), st.data())
def test_a_part_of_a_mask_is_that_part_of_the_whole(letterbox, width, height, data):
    """Only the cells that a box needs are computed."""
    grid = np.random.default_rng(0).normal(size=(11, 17)).astype(np.float32)
    _, place = fit(grey(width, height), WIDTH, HEIGHT, letterbox, 0)
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    rows, columns = (slice(a, data.draw(st.integers(a + 1, b))) for a, b in ((top, height), (left, width)))

    def resampled(*part):
        return place.resample(lambda r, c: grid[r, c], grid.shape, WIDTH, HEIGHT, *part)

    whole = resampled(slice(0, height), slice(0, width))
    np.testing.assert_allclose(resampled(rows, columns), whole[rows, columns], atol=1e-4)


def test_perceive_gives_the_masks_of_a_model_file_as_json_and_in_the_picture(tmp_path, capsys):
    model, picture = red_segmenter(tmp_path / "model.onnx"), tmp_path / "street.png"
    image, inside = np.full((720, 1280, 3), 90, np.uint8), disc((900, 300), 40, 1280, 720) > 0
    image[inside] = (0, 0, 255)
    cv2.imwrite(str(picture), image)
    command = ["perceive", str(picture), "--preset", str(preset(tmp_path, f"model: {model}", "detector_proposals"))]
    assert main([*command, "--json", "--masks", "--out", str(tmp_path)]) == 0
    result = json.loads(capsys.readouterr().out)
    [mask] = result["masks"]
    assert (mask["label"], mask["detection"], mask["region"], result["notes"]) == ("gizmo", 0, 0, [])
    shown = np.zeros((720, 1280), bool)
    rows, columns = Box(mask["x"], mask["y"], mask["width"], mask["height"]).slices()
    shown[rows, columns] = decode_rle(mask["counts"].encode(), *mask["size"])
    assert (shown & inside).sum() / (shown | inside).sum() > 0.97
    drawn = cv2.imread(str(tmp_path / "street.annotated.jpg"))
    assert np.abs(drawn[300, 900].astype(int) - image[300, 900]).max() > 30  # tinted
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["masks"] == []


# The real file of the package


@pytest.fixture(scope="module")
def motorway() -> np.ndarray:
    try:
        return cv2.imread(str(require(MOTORWAY_PICTURE)))
    except AssetError as error:
        pytest.skip(str(error))


def test_the_embedded_model_gives_through_settings_alone_what_its_own_class_gives(motorway):
    detector = OnnxDetector(
        require(CENTERNET),
        names=list(COCO_CLASSES),
        layout="end_to_end",
        scale=1.0,
        letterbox="top_left",
        threads=1,
    )
    embedded = CenterNet(require(CENTERNET), threads=1)
    assert (detector.names, detector.input_size) == (embedded.names, embedded.input_size)
    images = [motorway, motorway[100:400, 50:333], motorway[:401, :77], np.zeros((3, 2, 3), np.uint8)]
    compared = 0
    for ours, theirs in zip(detector.detect(images, 0.1), embedded.detect(images, 0.1), strict=True):
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        np.testing.assert_array_equal(ours.scores, theirs.scores)
        np.testing.assert_array_equal(ours.class_ids, theirs.class_ids)
        compared += len(ours.scores)
    assert compared > 30


# Bad input: one clear line each


def refusal(path: Path, kind: type[PerceptionError] = InvalidInput, **chosen) -> str:
    with pytest.raises(kind) as caught:
        OnnxDetector(path, **chosen)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_a_text_file_is_no_model(tmp_path):
    path = tmp_path / "notes.onnx"
    path.write_text("buy milk\n")
    assert "cannot be loaded as an ONNX model" in refusal(path, ModelError)
    assert "does not exist" in refusal(tmp_path / "none.onnx", ModelError)
    assert "is a directory" in refusal(tmp_path, ModelError)


def test_a_classifier_is_no_detector(tmp_path):
    path = constant_model(tmp_path / "resnet.onnx", {"logits": np.zeros((1, 1000), np.float32)})
    message = refusal(path)
    assert "outputs logits (1, 1000) float32, as of a classifier" in message
    path = constant_model(tmp_path / "pose.onnx", yolov8(), metadata={**ULTRALYTICS, "task": "pose"})
    assert "exported for the task 'pose', it is no detector" in refusal(path)


def test_of_two_outputs_that_may_be_meant_a_setting_names_one(tmp_path):
    outputs = {"first": yolov5()["output0"], "second": np.zeros_like(yolov5()["output0"])}
    path = constant_model(tmp_path / "two.onnx", outputs)
    message = refusal(path, names=NAMES)
    assert "several outputs may hold the detections: outputs first (1, 378, 8) float32, second" in message
    assert message.endswith("set outputs to one of first, second")
    check(OnnxDetector(path, names=NAMES, outputs=["first"]))
    assert "outputs must be of first, second, got ['third']" in refusal(path, names=NAMES, outputs=["third"])


@pytest.mark.parametrize("names", [["car"], ["car", "bus"], ["car", "bus", "dog", "cat"], {0: "car", 7: "bus"}])
def test_names_must_be_as_many_as_classes(tmp_path, names):
    path = constant_model(tmp_path / "three.onnx", yolov8(), metadata=ULTRALYTICS)
    message = refusal(path, names=names)
    assert f"the model has 3 classes, but {len(names)} names are given" in message
    assert "set names to a list of 3" in message


def test_a_class_without_a_name_is_a_fault_and_no_guess(tmp_path):
    path = constant_model(tmp_path / "dog.onnx", end_to_end(), metadata=ULTRALYTICS)
    detector = OnnxDetector(path, names=["car", "bus"])
    with pytest.raises(ModelError, match=r"dog\.onnx: found something of class 2, but names has 2 classes; set names"):
        detector.detect([grey()], 0.3)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("none.txt", "names: cannot read"),
        ([], "names must name at least one class"),
        (["", "car"], "names must name at least one class"),
        (["N/A", "n/a", "N/A"], "all names are empty or N/A"),
    ],
)
def test_names_that_are_none_are_refused(tmp_path, names, message):
    path = constant_model(tmp_path / "model.onnx", yolov5())
    assert message in refusal(path, names=names)


def test_what_is_unclear_is_refused_with_the_setting_that_decides(tmp_path):
    path = constant_model(tmp_path / "rows.onnx", end_to_end())
    message = refusal(path, names=NAMES)
    assert "the layout is unclear: outputs output0 (1, 300, 6) float32; set layout to" in message
    assert "end_to_end" in message and "scale, mean, std, channels and letterbox" in message
    message = refusal(path, names=NAMES, layout="yolov8")
    assert "layout yolov8 needs one output (n, 4 + classes, cells)" in message
    with pytest.raises(InvalidInput, match="layout must be one of auto, yolox"):
        OnnxDetector(path, names=NAMES, layout="yolo9")


def test_a_model_whose_inputs_are_not_understood_is_refused(tmp_path):
    more = ("intrinsics", FLOAT, (1, 2))
    path = constant_model(tmp_path / "mono.onnx", end_to_end(), (IMAGES, more), ULTRALYTICS)
    assert "the input 'intrinsics' is not understood" in refusal(path)
    path = constant_model(tmp_path / "sound.onnx", end_to_end(), [("wave", FLOAT, (1, 16000))])
    assert "no input takes colour images; inputs: wave (1, 16000) float32" in refusal(path)
    path = constant_model(tmp_path / "stereo.onnx", end_to_end(), (IMAGES, ("right", FLOAT, (1, 3, 64, 96))))
    assert "several inputs take colour images" in refusal(path)


def test_numbers_that_are_not_finite_are_a_fault(tmp_path):
    rows = end_to_end()
    rows["output0"][0, 1, 0] = np.nan
    path = constant_model(tmp_path / "nan.onnx", rows, metadata=ULTRALYTICS)
    detector = OnnxDetector(path)
    with pytest.raises(ModelError, match=r"nan\.onnx: an output holds numbers that are not finite"):
        detector.detect([grey()], 0.3)


def test_scores_that_are_no_scores_are_a_fault(tmp_path):
    rows = end_to_end()
    rows["output0"][0, 0, 4] = 7.5
    path = constant_model(tmp_path / "wild.onnx", rows, metadata=ULTRALYTICS)
    with pytest.raises(ModelError, match=r"wild\.onnx: a score of 7.5 .* set layout to another"):
        OnnxDetector(path).detect([grey()], 0.3)


def test_a_model_that_needs_more_memory_than_there_is_is_named(tmp_path):
    path = tmp_path / "huge.onnx"
    huge(path)
    message = refusal(path, OutOfMemory)
    # Not every version of onnxruntime says how much it asked for.
    assert re.search(r"huge\.onnx: needs more memory than there is( \(40000\.0 GB at once\))?; use a smaller", message)


@pytest.mark.parametrize(
    ("providers", "message"),
    [
        (["tensorrt", "cpu"], r"'tensorrt' is not in the onnxruntime that is installed, which has cpu.*; install"),
        (["gpu"], "unknown provider 'gpu'; known are cpu, cuda, tensorrt, openvino"),
        (["cuda:x"], "unknown provider 'cuda:x'"),
        (["cpu:1"], "unknown provider 'cpu:1'"),
        (["openvino:1"], "unknown provider 'openvino:1'; .* with a device as in cuda:1, openvino:gpu or openvino:npu"),
        ([], "providers must name at least one of cpu"),
    ],
)
def test_a_provider_that_is_not_there_is_refused(tmp_path, monkeypatch, providers, message):
    import onnxruntime

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["AzureExecutionProvider", "CPUExecutionProvider"]
    )
    path = constant_model(tmp_path / "model.onnx", yolov8(), metadata=ULTRALYTICS)
    with pytest.raises(InvalidInput, match=message):
        OnnxDetector(path, providers=providers)


def test_it_says_which_provider_really_runs(tmp_path, monkeypatch, caplog):
    import onnxruntime

    real, asked = onnxruntime.InferenceSession, []

    def fake_session_without_a_gpu(path, options, providers):
        """Falls back to the CPU as onnxruntime does where the driver is missing."""
        asked.append(providers)
        return real(path, options, providers=["CPUExecutionProvider"])

    path = constant_model(tmp_path / "model.onnx", yolov8(), metadata=ULTRALYTICS)
    assert OnnxDetector(path).provider == "cpu"
    monkeypatch.setattr(onnxruntime, "InferenceSession", fake_session_without_a_gpu)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(onnx_session.PROVIDERS.values()))
    monkeypatch.setenv("ACTIVEO3_CACHE", str(tmp_path / "cache"))
    detector = OnnxDetector(path, providers=["tensorrt", "cuda:1", "cpu"])
    assert (detector.provider, detector.batch_size) == ("cpu", 1)
    assert "runs on cpu: tensorrt does not start on this machine" in caplog.text
    (tensorrt, with_cache), (cuda, device), _ = asked[0]
    assert (tensorrt, cuda, device["device_id"]) == ("TensorrtExecutionProvider", "CUDAExecutionProvider", "1")
    assert Path(with_cache["trt_engine_cache_path"]).is_relative_to(tmp_path / "cache" / "tensorrt")
    with pytest.raises(ModelError, match="none of the providers cuda starts on this machine, only cpu"):
        OnnxDetector(path, providers=["cuda"])
    for providers in (["openvino"], ["openvino:gpu"]):
        with pytest.raises(ModelError, match=re.escape(f"none of the providers {providers[0].split(':')[0]} starts")):
            OnnxDetector(path, threads=2, providers=providers)
    [(_, on_cpu)], [(_, on_gpu)] = asked[-2:]
    assert (on_cpu["device_type"], on_cpu["num_of_threads"]) == ("CPU", "2")
    assert on_gpu["device_type"] == "GPU" and "num_of_threads" not in on_gpu


@pytest.fixture
def openvino(tmp_path, monkeypatch) -> list[str]:
    import onnxruntime

    if onnx_session.PROVIDERS["openvino"] not in onnxruntime.get_available_providers():
        pytest.skip("needs OpenVINO: pip install onnxruntime-openvino")
    monkeypatch.setenv("ACTIVEO3_CACHE", str(tmp_path / "cache"))
    return ["openvino"]


@pytest.mark.parametrize("name", MADE)
def test_openvino_reads_every_layout(tmp_path, openvino, name):
    outputs, metadata, inputs = MADE[name]
    path = constant_model(tmp_path / "model.onnx", outputs(), inputs, metadata)
    detector = OnnxDetector(path, names=NAMES, layout=name, providers=openvino)
    assert (detector.provider, detector.batch_size) == ("openvino", 1)
    check(detector)


@pytest.fixture(scope="module")
def centernet_file() -> Path:
    try:
        return require(CENTERNET)
    except AssetError as error:
        pytest.skip(str(error))


def test_openvino_finds_what_the_cpu_finds_with_a_real_model(tmp_path, openvino, centernet_file, motorway):
    settings = {"names": list(COCO_CLASSES), "layout": "end_to_end", "scale": 1.0, "letterbox": "top_left"}
    on_cpu, on_openvino = (OnnxDetector(centernet_file, **settings, providers=names) for names in (["cpu"], openvino))
    assert on_openvino.provider == "openvino"
    [here], [there] = on_cpu.detect([motorway], 0.3), on_openvino.detect([motorway], 0.3)
    assert len(here.scores) > 10
    np.testing.assert_allclose(there.scores, here.scores, atol=1e-3)
    np.testing.assert_allclose(there.boxes, here.boxes, atol=0.5)
    assert there.class_ids.tolist() == here.class_ids.tolist()
    assert list((tmp_path / "cache" / "openvino").iterdir()) != []  # the next start does not compile it again


def test_openvino_without_its_gpu_falls_back_or_fails_as_it_is_told(tmp_path, openvino, caplog):
    path = constant_model(tmp_path / "model.onnx", yolov8(), metadata=ULTRALYTICS)
    detector = OnnxDetector(path, providers=["openvino:gpu", "cpu"])
    if detector.provider == "openvino":
        pytest.skip("there is such a GPU")
    assert "runs on cpu: openvino does not start on this machine" in caplog.text
    with pytest.raises(ModelError, match="none of the providers openvino starts on this machine, only cpu"):
        OnnxDetector(path, providers=["openvino:gpu"])


def test_engines_are_cached_by_model_device_and_version(tmp_path, monkeypatch):
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    first.write_bytes(b"one"), second.write_bytes(b"two")
    names = {engine_directory(first).name, engine_directory(second).name}
    monkeypatch.setattr(onnx_session, "_device_name", lambda device: "Another GPU")
    names.add(engine_directory(first).name)
    monkeypatch.setattr(onnx_session, "_tensorrt_version", lambda: "100900")
    names.add(engine_directory(first).name)
    assert len(names) == 4
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)


def external_weights(path: Path, location: str) -> Path:
    weights = TensorProto(name="weights", data_type=FLOAT, dims=[1, 300, 6], data_location=TensorProto.EXTERNAL)
    weights.external_data.add(key="location", value=location)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["weights"], ["output0"])],
        "graph",
        [helper.make_tensor_value_info(*IMAGES)],
        [helper.make_tensor_value_info("output0", FLOAT, (1, 300, 6))],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, ULTRALYTICS)
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_in_a_file_of_their_own_must_lie_beside_the_model(tmp_path):
    (tmp_path / "models").mkdir()
    data = end_to_end()["output0"].tobytes()
    for place in ("secret.bin", "models/weights.bin"):
        (tmp_path / place).write_bytes(data)
    path = tmp_path / "models" / "model.onnx"
    check(OnnxDetector(external_weights(path, "weights.bin")))
    for location in ("../secret.bin", str(tmp_path / "secret.bin")):
        assert "External data path" in refusal(external_weights(path, location), ModelError)


def test_operators_that_are_not_onnxs_own_run_only_from_a_library_that_a_setting_names(tmp_path):
    path = tmp_path / "custom.onnx"
    graph = helper.make_graph(
        [helper.make_node("Steal", ["images"], ["output0"], domain="com.evil")],
        "graph",
        [helper.make_tensor_value_info(*IMAGES)],
        [helper.make_tensor_value_info("output0", FLOAT, (1, 300, 6))],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.evil", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    assert "com.evil" in refusal(path, ModelError)
    with pytest.raises(InvalidInput, match=r"custom_ops: .*none\.so does not exist"):
        OnnxDetector(path, custom_ops=str(tmp_path / "none.so"))
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(InvalidInput, match=r"custom_ops: .*text\.so is no library of ONNX operators"):
        OnnxDetector(path, custom_ops=str(tmp_path / "text.so"))


def test_the_session_knows_what_the_graph_says(tmp_path):
    path = reading_model(tmp_path / "model.onnx", ("n", 3, HEIGHT, WIDTH), TensorProto.FLOAT16, metadata={"a": "b"})
    session = OnnxSession(path)
    assert str(session.input_tensors[0]) == f"images (?, 3, {HEIGHT}, {WIDTH}) float16"
    assert session.metadata == {"a": "b"}
    assert iou([[0, 0, 1, 1]], [[0, 0, 1, 1]])[0, 0] == 1


# In a preset


def preset(folder: Path, settings: str, sensing: str = "full_frame") -> Path:
    path = folder / "mine.yaml"
    path.write_text(f"sensing: {{type: {sensing}}}\ntask: {{type: onnx, {settings}}}\n", encoding="utf-8")
    return path


def test_perceive_runs_a_model_file_that_a_preset_names(tmp_path, capsys):
    model = constant_model(tmp_path / "model.onnx", yolov8(), metadata=ULTRALYTICS)
    picture = tmp_path / "street.png"
    cv2.imwrite(str(picture), grey(2 * WIDTH, 2 * HEIGHT))
    assert main(["perceive", str(picture), "--preset", str(preset(tmp_path, f"model: {model}")), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["detections"]
    assert [(each["label"], each["x"], each["width"]) for each in found] == [("car", 20, 64), ("dog", 100, 80)]


def text_file(path: Path) -> None:
    path.write_text("buy milk")


def classifier(path: Path) -> None:
    constant_model(path, {"logits": np.zeros((1, 1000), np.float32)})


def two_candidates(path: Path) -> None:
    constant_model(path, {name: yolov5()["output0"] for name in ("first", "second")})


def three_classes(path: Path) -> None:
    constant_model(path, yolov8(), metadata=ULTRALYTICS)


def huge(path: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["block"]),
        helper.make_node("ReduceSum", ["block"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "rows"], ["output0"]),
    ]
    constants = {"size": np.array([10**13], np.int64), "rows": end_to_end()["output0"]}
    save(path, nodes, [IMAGES], [("output0", FLOAT, (1, 300, 6))], constants, ULTRALYTICS)


@pytest.mark.parametrize(
    ("make", "settings", "says"),
    [
        (text_file, "", "cannot be loaded as an ONNX model"),
        (classifier, "names: [a, b]", "as of a classifier; export the model as a detector"),
        (two_candidates, "names: [a, b, c]", "set outputs to one of first, second"),
        (three_classes, "names: [a, b]", "the model has 3 classes, but 2 names are given"),
        (three_classes, "providers: [tensorrt]", "'tensorrt' is not in the onnxruntime that is installed"),
        (huge, "", "needs more memory than there is"),
        (lambda path: None, "", "does not exist; give an .onnx file"),
    ],
)
def test_perceive_says_in_one_line_what_is_wrong_with_a_model_file(tmp_path, monkeypatch, capfd, make, settings, says):
    """Also onnxruntime, which writes to the terminal by itself, says nothing else."""
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    picture, model = tmp_path / "street.png", tmp_path / "mine.onnx"
    cv2.imwrite(str(picture), grey())
    make(model)
    command = ["perceive", str(picture), "--preset", str(preset(tmp_path, f"model: mine.onnx, {settings}"))]
    assert main(command) == 2
    told = capfd.readouterr()
    [line] = told.err.splitlines()
    assert line.startswith("activeo3: ") and says in line and told.out == ""


def test_a_preset_chosen_while_a_program_runs_loads_no_library(tmp_path):
    path = preset(tmp_path, "model: model.onnx, custom_ops: /tmp/library.so")
    load_preset(str(path))
    with pytest.raises(InvalidInput, match="may set custom_ops, not one chosen while it runs"):
        load_preset(str(path), may_name_classes=False)
