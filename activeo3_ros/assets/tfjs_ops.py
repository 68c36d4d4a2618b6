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

"""TensorFlow's operations in ONNX: one small function each, found by name in `HANDLERS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .tfjs_graph import CHANNELS_FIRST, ONNX_TYPES, Array, Graph, Node, Reference, Tensor

Handler = Callable[[Graph, Node], None]
HANDLERS: dict[str, Handler] = {}
"""TensorFlow operation to the function that writes it in ONNX."""


def _handles(*ops: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(ops, handler))
        return handler

    return register


@_handles("Placeholder")
def _placeholder(graph: Graph, node: Node) -> None:
    shape = node.attributes["shape"]["shape"]
    graph.add_input(Tensor.parse({"name": node.name, "dtype": node.type("dtype"), "tensorShape": shape}))


@_handles("Const")
def _const(graph: Graph, node: Node) -> None:
    graph.add_constant(node)


@_handles("Identity")
def _identity(graph: Graph, node: Node) -> None:
    graph.set_multiple(node, node.inputs[0], 1.0)


@_handles("Conv2D", "_FusedConv2D")
def _convolution(graph: Graph, node: Node) -> None:
    kernel = graph.constant(node, 1)  # (height, width, in, out)
    _convolve(graph, node, kernel.transpose(3, 2, 0, 1), groups=1)


@_handles("DepthwiseConv2dNative", "FusedDepthwiseConv2dNative")
def _depthwise_convolution(graph: Graph, node: Node) -> None:
    kernel = graph.constant(node, 1)
    height, width, channels, multiplier = kernel.shape
    kernel = kernel.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    _convolve(graph, node, kernel, groups=channels)


def _convolve(graph: Graph, node: Node, kernel: Array, groups: int) -> None:
    """Convolution with a kernel `(out, in / groups, height, width)`, then the operations fused into the node."""
    image, factor = graph.read_unscaled(node.inputs[0], channels_first=True)
    inputs = [image, graph.store(kernel * np.float32(factor))]
    fused = node.texts("fused_ops")
    if fused[:1] == ["BiasAdd"]:
        inputs.append(graph.read(node.inputs[2]))
        fused = fused[1:]
    result = graph.emit("Conv", inputs, group=groups, **_window(node, list(kernel.shape[2:])))
    for activation in fused:
        if activation not in ("Relu", "Relu6"):
            raise node.unsupported(f"the fused operation {activation}")
        result = _activate(graph, result, activation)
    graph.set(node, result, channels_first=True)


def _window(node: Node, side: list[int]) -> dict[str, Any]:
    """How a window of height and width `side` moves over the image, as ONNX wants to know it."""
    strides, dilations = _spatial(node, "strides"), _spatial(node, "dilations")
    window = {"kernel_shape": side, "strides": strides, "dilations": dilations}
    padding = node.text("padding", "")
    if padding == "VALID" or (padding == "SAME" and side == [1, 1]):
        return window
    if padding == "SAME" and strides == [1, 1]:
        total = [(length - 1) * dilation for length, dilation in zip(side, dilations, strict=True)]
        before = [each // 2 for each in total]
        return {**window, "pads": before + [each - half for each, half in zip(total, before, strict=True)]}
    # onnxruntime computes this padding wrongly or not at all for dilated windows and for those shorter than their step.
    if padding == "SAME" and dilations == [1, 1] and side[0] >= strides[0] and side[1] >= strides[1]:
        return {**window, "auto_pad": "SAME_UPPER"}
    raise node.unsupported(f"padding {padding!r} with a window of {side}, strides {strides} and dilations {dilations}")


def _spatial(node: Node, key: str) -> list[int]:
    """Height and width of a setting such as `strides`, which has a number for each of the four axes."""
    if node.text("data_format", "NHWC") != "NHWC":
        raise node.unsupported(f"data_format {node.text('data_format', '')}")
    batch, height, width, channels = node.integers(key, default=(1, 1, 1, 1))
    if (batch, channels) != (1, 1):
        raise node.unsupported(f"{key} of {[batch, height, width, channels]}")
    return [height, width]


@_handles("MaxPool")
def _max_pool(graph: Graph, node: Node) -> None:
    image = graph.read(node.inputs[0], channels_first=True)
    pooled = graph.emit("MaxPool", [image], **_window(node, _spatial(node, "ksize")))
    graph.set(node, pooled, channels_first=True)


@_handles("ResizeBilinear")
def _resize_bilinear(graph: Graph, node: Node) -> None:
    if node.boolean("align_corners"):
        transform = "align_corners"
    else:
        transform = "half_pixel" if node.boolean("half_pixel_centers") else "asymmetric"
    image = graph.read(node.inputs[0], channels_first=True)
    # Naming only the two axes that change would do, but then onnxruntime leaves its fast blocked layout here.
    unchanged = graph.emit("Shape", [image], start=0, end=2)
    size = graph.emit("Concat", [unchanged, graph.store(graph.constant(node, 1))], axis=0)
    resized = graph.emit("Resize", [image, "", "", size], mode="linear", coordinate_transformation_mode=transform)
    graph.set(node, resized, channels_first=True)


@_handles("Relu", "Sigmoid")
def _elementwise(graph: Graph, node: Node) -> None:
    channels_first = graph.is_channels_first(node.inputs[0])
    value = graph.read(node.inputs[0], channels_first)
    graph.set(node, _activate(graph, value, node.op), channels_first)


@_handles("Relu6")
def _relu6(graph: Graph, node: Node) -> None:
    source, addend = graph.shift(node.inputs[0]) or (node.inputs[0], 0.0)
    if addend == 3.0:
        _hard_sigmoid(graph, node, source)
    else:
        _elementwise(graph, node)


def _hard_sigmoid(graph: Graph, node: Node, source: Reference) -> None:
    """relu6(x + 3) as 6 hard_sigmoid(x), which onnxruntime fuses into the convolution that gives x."""
    channels_first = graph.is_channels_first(source)
    value = graph.emit("HardSigmoid", [graph.read(source, channels_first)], alpha=1 / 6, beta=0.5)
    graph.set(node, value, channels_first, factor=6.0)


def _activate(graph: Graph, value: str, op: str) -> str:
    if op == "Relu6":
        return graph.emit("Clip", [value, graph.store(np.float32(0)), graph.store(np.float32(6))])
    return graph.emit(op, [value])


@_handles("Cast")
def _cast(graph: Graph, node: Node) -> None:
    if node.type("DstT") not in ONNX_TYPES:
        raise node.unsupported(f"the type {node.type('DstT')}")
    channels_first = graph.is_channels_first(node.inputs[0])
    value = graph.read(node.inputs[0], channels_first)
    graph.set(node, graph.emit("Cast", [value], to=ONNX_TYPES[node.type("DstT")]), channels_first)


@_handles("Mul")
def _multiply(graph: Graph, node: Node) -> None:
    by_number = _with_number(graph, node)
    if by_number is not None:
        source, number = by_number
        graph.set_multiple(node, source, number)
    else:
        channels_first = _common_layout(graph, node)
        (a, factor_a), (b, factor_b) = (graph.read_unscaled(source, channels_first) for source in node.inputs)
        graph.set(node, graph.emit("Mul", [a, b]), channels_first, factor_a * factor_b)


@_handles("Add", "AddV2")
def _add(graph: Graph, node: Node) -> None:
    a, b, channels_first = _operands(graph, node)
    graph.set(node, graph.emit("Add", [a, b]), channels_first)
    by_number = _with_number(graph, node)
    if by_number is not None:
        graph.note_shift(node, *by_number)


@_handles("Sub", "Equal")
def _binary(graph: Graph, node: Node) -> None:
    a, b, channels_first = _operands(graph, node)
    graph.set(node, graph.emit(node.op, [a, b]), channels_first)


@_handles("FloorDiv")
def _floor_division(graph: Graph, node: Node) -> None:
    _require_integers(node)
    a, b, channels_first = _operands(graph, node)
    # ONNX rounds a quotient of integers towards zero; taking the floored remainder away first leaves nothing to round.
    multiple = graph.emit("Sub", [a, graph.emit("Mod", [a, b])])
    graph.set(node, graph.emit("Div", [multiple, b]), channels_first)


@_handles("FloorMod")
def _floor_modulo(graph: Graph, node: Node) -> None:
    _require_integers(node)
    a, b, channels_first = _operands(graph, node)
    graph.set(node, graph.emit("Mod", [a, b]), channels_first)


def _require_integers(node: Node) -> None:
    if node.type("T") != "DT_INT32":
        raise node.unsupported(f"the type {node.type('T')}")


def _operands(graph: Graph, node: Node) -> tuple[str, str, bool]:
    """Names of both inputs in a common layout, and whether that is channels-first."""
    channels_first = _common_layout(graph, node)
    a, b = (graph.read(source, channels_first) for source in node.inputs)
    return a, b, channels_first


def _common_layout(graph: Graph, node: Node) -> bool:
    """Whether both inputs can meet channels-first without a transpose."""
    return any(map(graph.is_channels_first, node.inputs)) and all(map(graph.can_be_channels_first, node.inputs))


def _with_number(graph: Graph, node: Node) -> tuple[Reference, float] | None:
    """The input that is computed and the number it meets, if the other input is a constant number."""
    first, second = node.inputs
    for source, constant in ((first, second), (second, first)):
        number = graph.number(constant)
        if number is not None:
            return source, number
    return None


@_handles("Mean")
def _mean(graph: Graph, node: Node) -> None:
    axes, keep = np.atleast_1d(graph.constant(node, 1)), node.boolean("keep_dims")
    channels_first = keep and graph.is_channels_first(node.inputs[0])
    if channels_first:
        axes = np.array([_axis_channels_first(axis) for axis in axes])
    value, factor = graph.read_unscaled(node.inputs[0], channels_first)
    mean = graph.emit("ReduceMean", [value, graph.store(axes)], keepdims=int(keep))
    graph.set(node, mean, channels_first, factor)


@_handles("ConcatV2")
def _concat(graph: Graph, node: Node) -> None:
    parts, axis = node.inputs[:-1], int(graph.constant(node, len(node.inputs) - 1))
    channels_first = all(map(graph.is_channels_first, parts))
    names = [graph.read(part, channels_first) for part in parts]
    joined = graph.emit("Concat", names, axis=_axis_channels_first(axis) if channels_first else axis)
    graph.set(node, joined, channels_first)


def _axis_channels_first(axis: int) -> int:
    """Where an axis of a channels-last value, counted from either end, is in a channels-first one."""
    return CHANNELS_FIRST.index(axis % len(CHANNELS_FIRST))


@_handles("Reshape")
def _reshape(graph: Graph, node: Node) -> None:
    # Without allowzero a 0 in the shape would mean "as before" to ONNX.
    graph.set(node, graph.emit("Reshape", [graph.read(source) for source in node.inputs], allowzero=1))


@_handles("ExpandDims")
def _expand_dims(graph: Graph, node: Node) -> None:
    axis = graph.store(graph.constant(node, 1).reshape(1))
    graph.set(node, graph.emit("Unsqueeze", [graph.read(node.inputs[0]), axis]))


@_handles("StridedSlice")
def _strided_slice(graph: Graph, node: Node) -> None:
    for mask in ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask"):
        if node.integer(mask):
            raise node.unsupported(f"{mask} {node.integer(mask)}")
    begin, end, strides = (graph.constant(node, index) for index in (1, 2, 3))
    if (strides < 1).any():
        raise node.unsupported(f"strides of {strides.tolist()}")
    axes = np.arange(len(begin))
    # A bit of a mask says that the slice is open at that end; ONNX cuts an end beyond the axis back to its size.
    begin = np.where(node.integer("begin_mask") >> axes & 1, 0, begin)
    end = np.where(node.integer("end_mask") >> axes & 1, np.iinfo(np.int64).max, end)
    bounds = [graph.store(part) for part in (begin, end, axes, strides)]
    graph.set(node, graph.emit("Slice", [graph.read(node.inputs[0]), *bounds]))


@_handles("GatherV2")
def _gather(graph: Graph, node: Node) -> None:
    if node.integer("batch_dims"):
        raise node.unsupported(f"batch_dims {node.integer('batch_dims')}")
    values, indices = (graph.read(source) for source in node.inputs[:2])
    graph.set(node, graph.emit("Gather", [values, indices], axis=int(graph.constant(node, 2))))


@_handles("TopKV2")
def _top_k(graph: Graph, node: Node) -> None:
    count = graph.store(graph.constant(node, 1).reshape(1))
    values = graph.emit("TopK", [graph.read(node.inputs[0]), count], results=2)
    graph.set(node, values)
    graph.set(node, f"{values}.1", index=1)
