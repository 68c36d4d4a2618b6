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
