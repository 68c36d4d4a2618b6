"""ONNX files made on the spot: graphs with the inputs and outputs of real exports, without their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
IMAGES = ("images", FLOAT, (1, 3, 64, 96))
"""An input of 96 x 64 pixels, as (name, type, shape)."""


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple],
    outputs: Sequence[tuple],
    constants: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] = {},
) -> Path:
    """Write a graph; inputs and outputs are (name, type, shape), a name or None in a shape is a free size."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, dict(metadata))
    path.write_bytes(model.SerializeToString())
    return path


def constant_model(
    path: Path, outputs: Mapping[str, np.ndarray], inputs: Sequence[tuple] = (IMAGES,), metadata: Mapping[str, str] = {}
) -> Path:
    """A model that gives the same outputs whatever it sees."""
    return save(
        path,
        [helper.make_node("Identity", [f"{name}_value"], [name]) for name in outputs],
        inputs,
        [(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape) for name, array in outputs.items()],
        {f"{name}_value": array for name, array in outputs.items()},
        metadata,
    )


def reading_model(
    path: Path, shape: Sequence, dtype: int = FLOAT, rows: int = 4, metadata: Mapping[str, str] = {}
) -> Path:
    """A model whose detections stand in the pixels of the image: x1, y1, x2, y2, score, class in the green ones.

    Each row of pixels is one detection, from the top; pixels are expected as 0 to 255, scores as 255 times what they
    are. It gives `(n, rows, 6)`.
    """
    last = shape[3] == 3
    starts, ends, axes = ([0, 0, 1], [rows, 6, 2], [1, 2, 3]) if last else ([1, 0, 0], [2, rows, 6], [1, 2, 3])
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=FLOAT),
        helper.make_node("Slice", ["pixels", "starts", "ends", "axes"], ["cut"]),
        helper.make_node("Squeeze", ["cut", "channel"], ["numbers"]),
        helper.make_node("Mul", ["numbers", "factors"], ["full"]),
        helper.make_node(
            "Cast", ["full"], ["detections"], to=TensorProto.FLOAT if dtype != TensorProto.FLOAT16 else dtype
        ),
    ]
    constants = {
        "starts": np.array(starts, np.int64),
        "ends": np.array(ends, np.int64),
        "axes": np.array(axes, np.int64),
        "channel": np.array([3 if last else 1], np.int64),
        "factors": np.array([1, 1, 1, 1, 1 / 255, 1], np.float32),
    }
    out = TensorProto.FLOAT16 if dtype == TensorProto.FLOAT16 else FLOAT
    return save(
        path, nodes, [("images", dtype, shape)], [("detections", out, (shape[0], rows, 6))], constants, metadata
    )


def image_of_detections(detections: Sequence[Sequence[float]], width: int, height: int) -> np.ndarray:
    """The BGR image that tells `reading_model` these rows of x1, y1, x2, y2, score times 255, class."""
    image = np.zeros((height, width, 3), np.uint8)
    for index, row in enumerate(detections):
        image[index, :6, 1] = row
    return image


def red_segmenter(path: Path, side: int = 160) -> Path:
    """A model that finds what is red, with its mask, laid out as exports of YOLO for segmentation with suppression.

    It gives one row `(1, 1, 6 + 8)` (corners, score, class 0, coefficients of the mask) and prototypes `(1, 8, h, w)`
    at a quarter of the input's resolution. Pixels are expected as RGB, 0 to 1.
    """
    quarter = side // 4
    columns = np.arange(side, dtype=np.float32)
    nodes = [
        helper.make_node("Slice", ["images", "red", "green", "axis"], ["r"]),
        helper.make_node("Slice", ["images", "green", "blue", "axis"], ["g"]),
        helper.make_node("Sub", ["r", "g"], ["redness"]),
        helper.make_node("Greater", ["redness", "half"], ["is_red"]),
        helper.make_node("Cast", ["is_red"], ["inside"], to=FLOAT),  # (1, 1, side, side)
        helper.make_node("ReduceMax", ["inside"], ["score"], axes=[2, 3], keepdims=0),
    ]
    for name, weights in (("x", "across"), ("y", "down")):
        nodes += [
            helper.make_node("Mul", ["inside", f"{weights}_after"], [f"{name}_after"]),
            helper.make_node("ReduceMax", [f"{name}_after"], [f"{name}2"], axes=[2, 3], keepdims=0),
            helper.make_node("Mul", ["inside", f"{weights}_before"], [f"{name}_before"]),
            helper.make_node("ReduceMax", [f"{name}_before"], [f"{name}_rest"], axes=[2, 3], keepdims=0),
            helper.make_node("Sub", ["side", f"{name}_rest"], [f"{name}1"]),
        ]
    nodes += [
        helper.make_node("Concat", ["x1", "y1", "x2", "y2", "score", "class", "coefficients"], ["row"], axis=1),
        helper.make_node("Unsqueeze", ["row", "axis"], ["output0"]),
        helper.make_node("AveragePool", ["redness"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Sub", ["pooled", "half"], ["logits"]),
        helper.make_node("Pad", ["logits", "seven_more", "zero"], ["output1"]),
    ]
    constants = {
        "red": np.array([0], np.int64),
        "green": np.array([1], np.int64),
        "blue": np.array([2], np.int64),
        "axis": np.array([1], np.int64),
        "half": np.array(0.5, np.float32),
        "zero": np.array(0, np.float32),
        "side": np.array([[side]], np.float32),
        "class": np.zeros((1, 1), np.float32),
        "coefficients": np.eye(8, dtype=np.float32)[:1],
        "seven_more": np.array([0, 0, 0, 0, 0, 7, 0, 0], np.int64),
        "across_after": (columns + 1)[None, None, None],
        "across_before": (side - columns)[None, None, None],
        "down_after": (columns + 1)[None, None, :, None],
        "down_before": (side - columns)[None, None, :, None],
    }
    metadata = {"author": "Ultralytics", "task": "segment", "stride": "32", "names": "{0: 'gizmo'}"}
    outputs = [("output0", FLOAT, (1, 1, 14)), ("output1", FLOAT, (1, 8, quarter, quarter))]
    return save(path, nodes, [("images", FLOAT, (1, 3, side, side))], outputs, constants, metadata)


def list_model(path: Path, exporter: str, images: int | str = "n", rows: int = 4) -> Path:
    """A model that lists the detections of all images of a batch one after another, with suppression inside.

    They stand in the pixels of the images as for `reading_model`; those of score 0 are none. "yolov7" writes the index
    of the image into each row, "paddle" the number of rows of each image into a second output.
    """
    nodes = [
        helper.make_node("Slice", ["images", "starts", "ends", "axes"], ["cut"]),
        helper.make_node("Squeeze", ["cut", "channel"], ["numbers"]),
        helper.make_node("Mul", ["numbers", "factors"], ["all"]),  # (n, rows, 6)
        helper.make_node("Gather", ["all", "four"], ["scores"], axis=2),
        helper.make_node("Greater", ["scores", "zero"], ["is_found"]),
        helper.make_node("NonZero", ["is_found"], ["places"]),
        helper.make_node("Transpose", ["places"], ["pairs"]),
        helper.make_node("GatherND", ["all", "pairs"], ["found"]),  # (detections, 6)
        helper.make_node("Split", ["found", "parts"], ["corners", "score", "class"], axis=1),
    ]
    constants = {
        "starts": np.array([1, 0, 0], np.int64),
        "ends": np.array([2, rows, 6], np.int64),
        "axes": np.array([1, 2, 3], np.int64),
        "channel": np.array([1], np.int64),
        "factors": np.array([1, 1, 1, 1, 1 / 255, 1], np.float32),
        "four": np.array(4, np.int64),
        "zero": np.array(0, np.float32),
        "parts": np.array([4, 1, 1], np.int64),
    }
    inputs = [("images", FLOAT, (images, 3, 64, 96))]
    if exporter == "yolov7":
        nodes += [
            helper.make_node("Split", ["pairs", "halves"], ["image", "row"], axis=1),
            helper.make_node("Cast", ["image"], ["image_number"], to=FLOAT),
            helper.make_node("Concat", ["image_number", "corners", "class", "score"], ["output"], axis=1),
        ]
        return save(path, nodes, inputs, [("output", FLOAT, ("num", 7))], {**constants, "halves": np.array([1, 1])})
    nodes += [
        helper.make_node("Cast", ["is_found"], ["ones"], to=TensorProto.INT32),
        helper.make_node("ReduceSum", ["ones", "second"], ["bbox_num"], keepdims=0),
        # The exporter's own way back to the pixels of the photo: none is left where both factors are 1.
        helper.make_node("Gather", ["scale_factor", "first"], ["factor"], axis=0),
        helper.make_node("ReduceMax", ["factor"], ["one"], keepdims=1),
        helper.make_node("Div", ["corners", "one"], ["in_photo"]),
        helper.make_node("Concat", ["class", "score", "in_photo"], ["bbox"], axis=1),
    ]
    constants |= {"second": np.array([1], np.int64), "first": np.array(0, np.int64)}
    inputs += [("scale_factor", FLOAT, (images, 2))]
    outputs = [("bbox", FLOAT, ("num", 6)), ("bbox_num", TensorProto.INT32, (images,))]
    return save(path, nodes, inputs, outputs, constants)
