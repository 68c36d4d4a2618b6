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

"""Converts a TensorFlow.js graph model (JSON topology, binary weights) to ONNX; needs numpy and onnx, no TensorFlow.

`tfjs_graph` holds both graphs, `tfjs_ops` one function for each operation that can be converted.
"""

from __future__ import annotations

import graphlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.optional import require_package
from .tfjs_graph import ONNX_TYPES, Array, Graph, Node, Tensor, UnsupportedModelError
from .tfjs_ops import HANDLERS

if TYPE_CHECKING:
    import onnx

CONVERTER_VERSION = "1"
"""Raise it with every change that alters what a conversion gives: converted models are then made anew."""

OPSET = 18
IR_VERSION = 9

STORED_TYPES = {"float32": "<f4", "int32": "<i4", "bool": "?", "float16": "<f2", "uint8": "u1", "uint16": "<u2"}
RESTORED_TYPES = {"float32": np.float32, "int32": np.int64, "bool": np.bool_}


def convert(
    model_json: Path, outputs: Sequence[str] | None = None, metadata: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """Convert a graph model. The same files give the same bytes with the same versions of this module and of onnx.

    Args:
        model_json: The topology; the weight files are beside it.
        outputs: Names of the results to keep, all of the model's signature if None; operations that only others need
            are left out.
        metadata: Strings to store in the model.

    Returns:
        The checked ONNX model.

    Raises:
        UnsupportedModelError: An operation, data type or setting is not known here.
        ValueError: The files are damaged.
    """
    try:
        model = json.loads(model_json.read_bytes())
        nodes = [Node.parse(raw) for raw in model["modelTopology"]["node"]]
        signature = [Tensor.parse(raw) for raw in model["signature"]["outputs"].values()]
        weights = read_weights(model["weightsManifest"], model_json.parent)
    except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{model_json}: not a TensorFlow.js graph model ({type(error).__name__}: {error})") from error
    names = [tensor.name for tensor in signature]
    unknown = sorted(set(outputs or ()) - set(names))
    if unknown:
        raise ValueError(f"{model_json}: no output {unknown[0]!r}; its outputs are {', '.join(names)}")

    wanted = [tensor for tensor in signature if outputs is None or tensor.name in outputs]
    needed = in_order(nodes, [tensor.name for tensor in wanted])
    unsupported = sorted({node.op for node in needed} - set(HANDLERS))
    if unsupported:
        raise UnsupportedModelError(f"{model_json}: operations without a handler: {', '.join(unsupported)}")
    graph = Graph(weights)
    for node in needed:
        HANDLERS[node.op](graph, node)
    return _build(graph, wanted, metadata or {})


def read_weights(manifest: Sequence[Mapping[str, Any]], directory: Path) -> dict[str, Array]:
    """Read the weight files.

    Args:
        manifest: The `weightsManifest` of the topology.
        directory: Where the weight files are.

    Returns:
        Every weight by name: float32, int64 or bool, quantised ones restored.

    Raises:
        UnsupportedModelError: A weight has an unknown type.
        ValueError: A file is too short.
    """
    weights = {}
    for group in manifest:
        raw = b"".join((directory / path).read_bytes() for path in group["paths"])
        offset = 0
        for entry in group["weights"]:
            stored = _stored_type(entry)
            count = int(np.prod(entry["shape"], dtype=np.int64))
            end = offset + count * stored.itemsize
            if end > len(raw):
                raise ValueError(f"{directory}: the weight files end at byte {len(raw)}, {entry['name']!r} at {end}")
            array = np.frombuffer(raw, stored, count, offset).reshape(entry["shape"])
            weights[entry["name"]] = _restored(array, entry)
            offset = end
    return weights


def _stored_type(entry: Mapping[str, Any]) -> np.dtype[Any]:
    name = entry["quantization"]["dtype"] if "quantization" in entry else entry["dtype"]
    if name not in STORED_TYPES or entry["dtype"] not in RESTORED_TYPES:
        raise UnsupportedModelError(f"weight {entry['name']!r} has the unknown type {entry['dtype']} stored as {name}")
    return np.dtype(STORED_TYPES[name])


def _restored(array: Array, entry: Mapping[str, Any]) -> Array:
    quantization = entry.get("quantization", {})
    if "scale" in quantization:
        array = array * np.float32(quantization["scale"]) + np.float32(quantization["min"])
    return array.astype(RESTORED_TYPES[entry["dtype"]])


def in_order(nodes: Iterable[Node], outputs: Iterable[str]) -> list[Node]:
    """The nodes that the outputs need, each after those that it reads.

    Raises:
        ValueError: A node reads one that is not there.
    """
    by_name = {node.name: node for node in nodes}
    sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
    seen: set[str] = set()
    waiting = list(outputs)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        if name not in by_name:
            raise ValueError(f"the graph reads {name!r}, which it does not define")
        seen.add(name)
        reads = [source for source, _ in by_name[name].inputs]
        sorter.add(name, *reads)
        waiting.extend(reads)
    return [by_name[name] for name in sorter.static_order()]


def _build(graph: Graph, outputs: Sequence[Tensor], metadata: Mapping[str, str]) -> onnx.ModelProto:
    """The ONNX model of a finished graph, checked."""
    library = require_package("onnx", "to convert models")
    graph.finish([tensor.name for tensor in outputs])
    helper, describe = library.helper, library.helper.make_tensor_value_info
    model: onnx.ModelProto = helper.make_model(
        helper.make_graph(
            [helper.make_node(step.op, step.inputs, step.results, **step.attributes) for step in graph.steps],
            "tfjs",
            [describe(tensor.name, ONNX_TYPES[tensor.type], tensor.shape) for tensor in graph.inputs],
            [describe(tensor.name, ONNX_TYPES[tensor.type], tensor.shape) for tensor in outputs],
            [library.numpy_helper.from_array(array, name) for name, array in graph.numbers.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=__name__,
        producer_version=CONVERTER_VERSION,
    )
    helper.set_model_props(model, dict(metadata))
    library.checker.check_model(model)
    return model
