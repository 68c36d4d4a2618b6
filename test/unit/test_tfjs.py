"""The converter against plain NumPy, on small graphs made here as TensorFlow.js would have saved them."""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activeo3_ros.assets.tfjs import convert, read_weights
from activeo3_ros.assets.tfjs_graph import UnsupportedModelError

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

few_examples = settings(max_examples=25, deadline=None)
sizes = st.integers(1, 9)
seeds = st.integers(0, 2**32 - 1)


class GraphModel:
    """A TensorFlow.js graph model with one input `x`, built node by node."""

    def __init__(self, *shape: int) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.weights: list[tuple[dict[str, Any], bytes]] = []
        self.add("Placeholder", "x", dtype={"type": "DT_FLOAT"}, shape={"shape": dimensions(shape)})

    def add(self, op: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append({"name": name, "op": op, "input": list(inputs), "attr": attributes})
        return name

    def constant(self, name: str, value: Any, dtype: str = "float32") -> str:
        array = np.asarray(value, {"float32": np.float32, "int32": np.int32}[dtype])
        self.weights.append(({"name": name, "shape": list(array.shape), "dtype": dtype}, array.tobytes()))
        return self.add("Const", name)

    def save(self, directory: Path, *outputs: str, rank: int = 4) -> Path:
        """Write the model with these outputs, all of this rank and of open size."""
        described = [
            {"name": f"{name}:0", "dtype": "DT_FLOAT", "tensorShape": dimensions([-1] * rank)} for name in outputs
        ]
        model = {
            "modelTopology": {"node": self.nodes},
            "signature": {"outputs": dict(zip(outputs, described, strict=True))},
            "weightsManifest": [{"paths": ["weights.bin"], "weights": [entry for entry, _ in self.weights]}],
        }
        (directory / "weights.bin").write_bytes(b"".join(raw for _, raw in self.weights))
        path = directory / "model.json"
        path.write_text(json.dumps(model))
        return path

    def run(self, x: np.ndarray, *outputs: str, rank: int = 4) -> list[np.ndarray]:
        """What the converted model gives for `x`."""
        with tempfile.TemporaryDirectory() as directory:
            model = convert(self.save(Path(directory), *outputs, rank=rank))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(list(outputs), {"x": x})


def dimensions(shape: Any) -> dict[str, Any]:
    return {"dim": [{"size": str(size)} for size in shape]}


def text(value: str) -> dict[str, str]:
    return {"s": base64.b64encode(value.encode()).decode()}


def texts(*values: str) -> dict[str, Any]:
    return {"list": {"s": [base64.b64encode(value.encode()).decode() for value in values]}}


def integers(*values: int) -> dict[str, Any]:
    return {"list": {"i": [str(value) for value in values]}}


def windows(image: np.ndarray, kernel: tuple[int, int], stride: int, dilation: int, padding: str, fill: float) -> Any:
    """For each place of a kernel on an image `(n, h, w, c)`, the pixels under it: `(n, oh, ow, kh, kw, c)`."""
    reach = [(side - 1) * dilation + 1 for side in kernel]
    if padding == "SAME":
        out = [-(-size // stride) for size in image.shape[1:3]]
        total = [max(0, (o - 1) * stride + r - size) for o, r, size in zip(out, reach, image.shape[1:3], strict=True)]
        around = [(t // 2, t - t // 2) for t in total]
        image = np.pad(image, ((0, 0), *around, (0, 0)), constant_values=fill)
    out = [(size - r) // stride + 1 for r, size in zip(reach, image.shape[1:3], strict=True)]
    rows = np.arange(out[0])[:, None] * stride + np.arange(kernel[0]) * dilation
    columns = np.arange(out[1])[:, None] * stride + np.arange(kernel[1]) * dilation
    return image[:, rows[:, None, :, None], columns[None, :, None, :]]


@few_examples
@given(
    seed=seeds,
    size=st.tuples(st.integers(7, 12), st.integers(7, 12)),
    channels=st.tuples(sizes, sizes),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    step=st.sampled_from([(1, 1), (2, 1), (3, 1), (1, 2)]),
    padding=st.sampled_from(["SAME", "VALID"]),
    fused=st.sampled_from([(), ("BiasAdd",), ("BiasAdd", "Relu"), ("BiasAdd", "Relu6"), ("Relu",)]),
)
def test_convolution(seed, size, channels, kernel, step, padding, fused):
    rng = np.random.default_rng(seed)
    stride, dilation = step
    if padding == "SAME" and kernel != (1, 1):
        stride = min(stride, *kernel)  # a window shorter than its step is refused, see below
    x = rng.normal(size=(1, *size, channels[0])).astype(np.float32)
    w = rng.normal(size=(*kernel, *channels)).astype(np.float32)
    b = rng.normal(size=channels[1]).astype(np.float32)

    graph = GraphModel(*x.shape)
    inputs = ["x", graph.constant("w", w)] + ([graph.constant("b", b)] if "BiasAdd" in fused else [])
    graph.add(
        "_FusedConv2D",
        "y",
        *inputs,
        strides=integers(1, stride, stride, 1),
        dilations=integers(1, dilation, dilation, 1),
        padding=text(padding),
        fused_ops=texts(*fused),
    )

    expected = np.einsum("nhwklc,klco->nhwo", windows(x, kernel, stride, dilation, padding, 0), w)
    if "BiasAdd" in fused:
        expected = expected + b
    if "Relu" in fused or "Relu6" in fused:
        expected = np.clip(expected, 0, 6 if "Relu6" in fused else None)
    np.testing.assert_allclose(graph.run(x, "y")[0], expected, atol=1e-4)


@few_examples
@given(seed=seeds, channels=sizes, multiplier=st.integers(1, 3), stride=st.integers(1, 2))
def test_depthwise_convolution(seed, channels, multiplier, stride):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1, 8, 7, channels)).astype(np.float32)
    w = rng.normal(size=(3, 3, channels, multiplier)).astype(np.float32)

    graph = GraphModel(*x.shape)
    settings_ = {"strides": integers(1, stride, stride, 1), "padding": text("SAME")}
    graph.add("DepthwiseConv2dNative", "y", "x", graph.constant("w", w), **settings_)

    expected = np.einsum("nhwklc,klcm->nhwcm", windows(x, (3, 3), stride, 1, "SAME", 0), w)
    np.testing.assert_allclose(graph.run(x, "y")[0], expected.reshape(*expected.shape[:3], -1), atol=1e-4)


@few_examples
@given(seed=seeds, side=st.integers(1, 3), stride=st.integers(1, 2), padding=st.sampled_from(["SAME", "VALID"]))
def test_max_pool(seed, side, stride, padding):
    x = np.random.default_rng(seed).normal(size=(1, 8, 7, 3)).astype(np.float32)
    stride = stride if padding == "VALID" or side == 1 else min(stride, side)
    graph = GraphModel(*x.shape)
    size = {"ksize": integers(1, side, side, 1), "strides": integers(1, stride, stride, 1), "padding": text(padding)}
    graph.add("MaxPool", "y", "x", **size)
    expected = windows(x, (side, side), stride, 1, padding, -np.inf).max(axis=(3, 4))
    np.testing.assert_array_equal(graph.run(x, "y")[0], expected)


@few_examples
@given(
    seed=seeds,
    size=st.tuples(sizes, sizes),
    resized=st.tuples(sizes, sizes),
    corners=st.sampled_from(["align_corners", "half_pixel_centers", "neither"]),
)
def test_resize_bilinear(seed, size, resized, corners):
    x = np.random.default_rng(seed).normal(size=(1, *size, 3)).astype(np.float32)
    graph = GraphModel(*x.shape)
    choice = {name: {"b": name == corners} for name in ("align_corners", "half_pixel_centers")}
    graph.add("ResizeBilinear", "y", "x", graph.constant("size", resized, "int32"), **choice)
    expected = interpolate(interpolate(x, 1, resized[0], corners), 2, resized[1], corners)
    np.testing.assert_allclose(graph.run(x, "y")[0], expected, atol=1e-5)


def interpolate(x: np.ndarray, axis: int, size: int, corners: str) -> np.ndarray:
    """Linear interpolation along one axis as TensorFlow defines it."""
    old, at = x.shape[axis], np.arange(size, dtype=np.float64)
    if corners == "align_corners":
        at = at * ((old - 1) / (size - 1) if size > 1 else 0.0)
    elif corners == "half_pixel_centers":
        at = (at + 0.5) * old / size - 0.5
    else:
        at = at * old / size
    at = np.clip(at, 0, old - 1)
    low = np.floor(at).astype(int)
    share = (at - low).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    return x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, old - 1), axis) * share


class Chain:
    """A graph that grows at its end, and its result in NumPy; every value is `(1, 5, 4, 3)`."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.x = self.rng.normal(size=(1, 5, 4, 3)).astype(np.float32)
        self.graph = GraphModel(*self.x.shape)
        self.values = [("x", self.x.astype(np.float64))]

    def name(self, suffix: str = "") -> str:
        return f"n{len(self.values)}{suffix}"

    def elementwise(self, op: str) -> None:
        last, value = self.values[-1]
        functions = {
            "Relu": lambda a: np.maximum(a, 0),
            "Relu6": lambda a: np.clip(a, 0, 6),
            "Sigmoid": lambda a: 1 / (1 + np.exp(-a)),
            "Identity": lambda a: a,
        }
        self.values.append((self.graph.add(op, self.name(), last), functions[op](value)))

    def binary(self, op: str, other: str, array: np.ndarray, other_first: bool) -> None:
        last, value = self.values[-1]
        function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}[op]
        names, arrays = ((other, last), (array, value)) if other_first else ((last, other), (value, array))
        self.values.append((self.graph.add(op, self.name(), *names), function(*arrays)))

    def with_constant(self, op: str, shape: tuple[int, ...], constant_first: bool) -> None:
        array = self.rng.normal(size=shape).astype(np.float32)
        self.binary(op, self.graph.constant(self.name("k"), array), array.astype(np.float64), constant_first)

    def with_earlier(self, op: str, index: int) -> None:
        name, array = self.values[index % len(self.values)]
        self.binary(op, name, array, other_first=False)

    def convolution(self) -> None:
        last, value = self.values[-1]
        kernel = self.rng.normal(size=(1, 1, 3, 3)).astype(np.float32)
        weights = self.graph.constant(self.name("w"), kernel)
        self.values.append(
            (self.graph.add("Conv2D", self.name(), last, weights, padding=text("SAME")), value @ kernel[0, 0])
        )

    def squeeze_and_excite(self) -> None:
        last, value = self.values[-1]
        axes = self.graph.constant(self.name("a"), [1, 2], "int32")
        mean = self.graph.add("Mean", self.name("m"), last, axes, keep_dims={"b": True})
        self.values.append((self.graph.add("Mul", self.name(), last, mean), value * value.mean((1, 2), keepdims=True)))

    def hard_swish(self) -> None:
        last, value = self.values[-1]
        scaled = self.graph.add("Mul", self.name("s"), self.graph.constant(self.name("c"), 0.2), last)
        shifted = self.graph.add("Add", self.name("p"), last, self.graph.constant(self.name("t"), 3.0))
        clipped = self.graph.add("Relu6", self.name("r"), shifted)
        self.values.append(
            (self.graph.add("Mul", self.name(), scaled, clipped), 0.2 * value * np.clip(value + 3, 0, 6))
        )

    def concatenate_and_choose(self) -> None:
        last, value = self.values[-1]
        axis = self.graph.constant(self.name("a"), -1, "int32")
        both = self.graph.add("ConcatV2", self.name("b"), last, "x", axis)
        channels = self.graph.constant(self.name("i"), [1, 3, 5], "int32")
        chosen = self.graph.add("GatherV2", self.name(), both, channels, axis)
        self.values.append((chosen, np.concatenate([value, self.x], axis=-1)[..., [1, 3, 5]]))


operations = st.sampled_from(["Add", "Sub", "Mul"])
shapes = st.sampled_from([(), (3,), (1, 1, 3), (4, 1), (1, 5, 4, 3), (1, 1, 1, 1)])
steps = st.one_of(
    st.tuples(st.just("elementwise"), st.sampled_from(["Relu", "Relu6", "Sigmoid", "Identity"])),
    st.tuples(st.just("with_constant"), operations, shapes, st.booleans()),
    st.tuples(st.just("with_earlier"), operations, st.integers(0, 9)),
    st.tuples(st.sampled_from(["convolution", "squeeze_and_excite", "hard_swish", "concatenate_and_choose"])),
)


@settings(max_examples=200, deadline=None)
@given(seed=seeds, plan=st.lists(steps, min_size=1, max_size=8))
def test_any_chain_gives_what_numpy_gives(seed, plan):
    """The converter moves transposes and factors about; wherever they end up, the result must be the same."""
    chain = Chain(seed)
    for step, *arguments in plan:
        getattr(chain, step)(*arguments)
    name, expected = chain.values[-1]
    largest = max(1.0, *(float(np.abs(value).max()) for _, value in chain.values))
    np.testing.assert_allclose(chain.graph.run(chain.x, name)[0], expected, rtol=1e-4, atol=1e-5 * largest)


@few_examples
@given(seed=seeds, divisor=st.integers(-7, 7).filter(bool))
def test_division_and_remainder_of_integers_round_down(seed, divisor):
    x = np.random.default_rng(seed).integers(-50, 50, (2, 3)).astype(np.float32)
    graph = GraphModel(2, 3)
    whole, by = graph.add("Cast", "whole", "x", DstT={"type": "DT_INT32"}), graph.constant("by", divisor, "int32")
    for op in ("FloorDiv", "FloorMod"):
        result = graph.add(op, f"{op}_whole", whole, by, T={"type": "DT_INT32"})
        graph.add("Cast", op, result, DstT={"type": "DT_FLOAT"})
    quotient, remainder = graph.run(x, "FloorDiv", "FloorMod", rank=2)
    np.testing.assert_array_equal(quotient, x // divisor)
    np.testing.assert_array_equal(remainder, x % divisor)


@few_examples
@given(
    bounds=st.lists(st.tuples(st.integers(-6, 6), st.integers(-6, 6), st.integers(1, 3)), min_size=2, max_size=2),
    masks=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_strided_slice(bounds, masks):
    x = np.arange(20, dtype=np.float32).reshape(4, 5)
    graph = GraphModel(4, 5)
    parts = [graph.constant(f"part{index}", values, "int32") for index, values in enumerate(zip(*bounds, strict=True))]
    graph.add("StridedSlice", "y", "x", *parts, begin_mask={"i": masks[0]}, end_mask={"i": masks[1]})
    slices = tuple(
        slice(None if masks[0] >> axis & 1 else begin, None if masks[1] >> axis & 1 else end, step)
        for axis, (begin, end, step) in enumerate(bounds)
    )
    np.testing.assert_array_equal(graph.run(x, "y", rank=2)[0], x[slices])


def test_selecting_the_best():
    """Reshape, TopKV2 with its second result, ExpandDims, Equal: the end of a detector."""
    x = np.array([[[3.0, 1.0], [4.0, 1.0]]], np.float32)
    graph = GraphModel(1, 2, 2)
    flat = graph.add("Reshape", "flat", "x", graph.constant("shape", [1, -1], "int32"))
    best = graph.add("TopKV2", "best", flat, graph.constant("k", 2, "int32"), sorted={"b": True})
    graph.add("ExpandDims", "values", best, graph.constant("axis", -1, "int32"))
    graph.add("Cast", "indices", f"{best}:1", DstT={"type": "DT_FLOAT"})
    graph.add("Cast", "ones", graph.add("Equal", "equal", "x", graph.constant("one", 1.0)), DstT={"type": "DT_FLOAT"})
    values, indices, ones = graph.run(x, "values", "indices", "ones")
    assert values.tolist() == [[[4.0], [3.0]]]
    assert indices.tolist() == [[2.0, 0.0]]
    assert ones.tolist() == [[[0.0, 1.0], [0.0, 1.0]]]


def test_quantised_weights_are_restored(tmp_path):
    stored = [
        ("half", "float32", {"dtype": "float16"}, np.array([0.5, -2.0], np.float16)),
        ("byte", "float32", {"dtype": "uint8", "scale": 0.1, "min": -1.0}, np.array([0, 255], np.uint8)),
        ("word", "float32", {"dtype": "uint16", "scale": 0.01, "min": 2.0}, np.array([100], np.uint16)),
        ("count", "int32", None, np.array([-3, 7], np.int32)),
    ]
    entries = [
        {
            "name": name,
            "dtype": dtype,
            "shape": [len(array)],
            **({"quantization": quantization} if quantization else {}),
        }
        for name, dtype, quantization, array in stored
    ]
    raw = b"".join(array.tobytes() for *_, array in stored)
    (tmp_path / "shard1").write_bytes(raw[:5])
    (tmp_path / "shard2").write_bytes(raw[5:])

    weights = read_weights([{"paths": ["shard1", "shard2"], "weights": entries}], tmp_path)

    assert weights["half"].tolist() == [0.5, -2.0]
    np.testing.assert_allclose(weights["byte"], [-1.0, 24.5], rtol=1e-6)
    np.testing.assert_allclose(weights["word"], [3.0])
    assert weights["count"].tolist() == [-3, 7]


def two_branches() -> GraphModel:
    graph = GraphModel(1, 4, 4, 2)
    graph.add("Relu", "kept", "x")
    graph.add("FakeOperation", "odd", "x")
    return graph


def test_unknown_operations_are_named(tmp_path):
    path = two_branches().save(tmp_path, "kept", "odd")
    with pytest.raises(UnsupportedModelError, match=r"model\.json: operations without a handler: FakeOperation"):
        convert(path)


def test_only_what_the_outputs_need_is_converted(tmp_path):
    model = convert(two_branches().save(tmp_path, "kept", "odd"), ["kept"])
    assert [output.name for output in model.graph.output] == ["kept"]


def test_an_unknown_output_is_an_error_that_lists_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="no output 'keep'; its outputs are kept, odd"):
        convert(two_branches().save(tmp_path, "kept", "odd"), ["keep"])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"padding": text("EXPLICIT")}, "padding 'EXPLICIT'"),
        ({"padding": text("SAME"), "strides": integers(1, 3, 3, 1)}, "padding 'SAME' with a window of"),
        ({"padding": text("SAME"), "data_format": text("NCHW")}, "data_format NCHW"),
        ({"padding": text("SAME"), "strides": integers(2, 1, 1, 1)}, "strides of"),
        ({"padding": text("SAME"), "fused_ops": texts("BiasAdd", "Elu")}, "fused operation Elu"),
    ],
)
def test_settings_that_are_not_known_are_refused(tmp_path, attributes, message):
    graph = GraphModel(1, 4, 4, 2)
    weights = graph.constant("w", np.ones((2, 2, 2, 2))), graph.constant("b", np.ones(2))
    graph.add("_FusedConv2D", "y", "x", *weights, **attributes)
    with pytest.raises(UnsupportedModelError, match=f"_FusedConv2D 'y': .*{message}"):
        convert(graph.save(tmp_path, "y"))


def test_damaged_files_are_refused(tmp_path):
    graph = GraphModel(1, 4, 4, 2)
    graph.add("Add", "y", "x", graph.constant("offset", [1.0, 2.0]))
    path = graph.save(tmp_path, "y")
    (tmp_path / "weights.bin").write_bytes(b"1234")
    with pytest.raises(ValueError, match="the weight files end at byte 4, 'offset' at 8"):
        convert(path)
    path.write_text('{"format": "layers-model"}')
    with pytest.raises(ValueError, match=r"not a TensorFlow\.js graph model"):
        convert(path)
    path.write_text("<html>")
    with pytest.raises(ValueError, match=r"not a TensorFlow\.js graph model"):
        convert(path)


def test_the_order_of_the_nodes_does_not_matter(tmp_path):
    graph = GraphModel(1, 4, 4, 2)
    graph.add("Add", "y", graph.add("Relu", "r", "x"), graph.constant("offset", [1.0, 2.0]))
    straight = convert(graph.save(tmp_path, "y"))
    graph.nodes.reverse()
    assert convert(graph.save(tmp_path, "y")).graph == straight.graph
