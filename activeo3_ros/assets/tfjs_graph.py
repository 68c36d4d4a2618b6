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

"""The two graphs of a conversion: TensorFlow's nodes as they are read, ONNX's operations as they are written.

TensorFlow.js images are channels-last, ONNX convolutions channels-first. `Graph` follows the layout of every value and
keeps a chain of convolutions channels-first from end to end, so that a transpose stands only where the model really
needs the other layout. It also carries multiplications with a number along until a convolution can take them into its
kernel. Integers become int64, which ONNX wants for indices and shapes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Reference = tuple[str, int]
"""A result in the TensorFlow graph: the name of its node, and which of that node's results it is."""

ONNX_TYPES = {"DT_FLOAT": 1, "DT_INT32": 7, "DT_BOOL": 9}
"""TensorFlow's types and the members of `onnx.TensorProto.DataType` (float, int64, bool) that stand for them."""

CHANNELS_FIRST = (0, 3, 1, 2)
"""Axis order that turns channels-last into channels-first."""
CHANNELS_LAST = (0, 2, 3, 1)


class UnsupportedModelError(ValueError):
    """The model uses an operation, type or setting that this converter does not know; the message names it."""


def reference(name: str) -> Reference:
    """`node` or `node:2` as TensorFlow writes it."""
    node, _, index = name.partition(":")
    return node, int(index or 0)


@dataclass(frozen=True)
class Tensor:
    """An input or output of the model: its name, TensorFlow type and shape; an open size has a name."""

    name: str
    type: str
    shape: list[int | str]

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Tensor:
        """From an entry of the model's signature."""
        name, _ = reference(raw["name"])
        if raw["dtype"] not in ONNX_TYPES:
            raise UnsupportedModelError(f"{name!r} has the unknown type {raw['dtype']}")
        sizes = [int(dimension["size"]) for dimension in raw["tensorShape"].get("dim", ())]
        return cls(name, raw["dtype"], [size if size >= 0 else f"size_{axis}" for axis, size in enumerate(sizes)])


@dataclass(frozen=True)
class Node:
    """One operation of the TensorFlow graph."""

    name: str
    op: str
    inputs: tuple[Reference, ...]
    attributes: Mapping[str, Any]

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Node:
        """From an entry of the model's topology; inputs that only order the execution are left out."""
        data_inputs = tuple(reference(name) for name in raw.get("input", ()) if not name.startswith("^"))
        return cls(raw["name"], raw["op"], data_inputs, raw.get("attr", {}))

    def boolean(self, key: str) -> bool:
        """A setting that is true or false; false if absent."""
        return bool(self.attributes.get(key, {}).get("b", False))

    def integer(self, key: str) -> int:
        """A setting that is a whole number; 0 if absent."""
        return int(self.attributes.get(key, {}).get("i", 0))

    def integers(self, key: str, default: Sequence[int]) -> list[int]:
        """A setting that is a list of whole numbers."""
        return [int(value) for value in self.attributes.get(key, {}).get("list", {}).get("i", default)]

    def text(self, key: str, default: str) -> str:
        """A setting that is a word."""
        value = self.attributes.get(key, {}).get("s")
        return default if value is None else base64.b64decode(value).decode()

    def texts(self, key: str) -> list[str]:
        """A setting that is a list of words; empty if absent."""
        return [base64.b64decode(value).decode() for value in self.attributes.get(key, {}).get("list", {}).get("s", ())]

    def type(self, key: str) -> str:
        """A setting that names a type such as DT_INT32; DT_FLOAT if absent."""
        return str(self.attributes.get(key, {}).get("type", "DT_FLOAT"))

    def unsupported(self, what: str) -> UnsupportedModelError:
        """The error for a setting of this node that is not supported."""
        return UnsupportedModelError(f"{self.op} {self.name!r}: {what} is not supported")


@dataclass(frozen=True)
class Value:
    """A result in the ONNX graph.

    Attributes:
        name: Of an ONNX value.
        channels_first: Whether its axes are in that order.
        factor: It has still to be multiplied with this.
    """

    name: str
    channels_first: bool = False
    factor: float = 1.0


@dataclass(frozen=True)
class Step:
    """One ONNX operation."""

    op: str
    inputs: list[str]
    results: list[str]
    attributes: dict[str, Any]


class Graph:
    """The ONNX graph while it is being built.

    Attributes:
        steps: Its operations in order.
        numbers: Its constants by name.
        inputs: Inputs of the model.
    """

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.steps: list[Step] = []
        self.numbers: dict[str, Array] = {}
        self.inputs: list[Tensor] = []
        self._weights = weights
        self._constants: dict[Reference, Array] = {}
        self._values: dict[Reference, Value] = {}
        self._shifted: dict[Reference, tuple[Reference, float]] = {}
        self._rearranged: dict[Value, str] = {}

    # Results of TensorFlow nodes.

    def add_input(self, tensor: Tensor) -> None:
        """Add an input to the model."""
        self.inputs.append(tensor)
        self._values[tensor.name, 0] = Value(tensor.name)

    def add_constant(self, node: Node) -> None:
        """Take the numbers of a Const node from the weights.

        Raises:
            ValueError: The weights lack it.
        """
        if node.name not in self._weights:
            raise ValueError(f"the weights lack the constant {node.name!r}")
        self._constants[node.name, 0] = self._weights[node.name]

    def set(self, node: Node, name: str, channels_first: bool = False, factor: float = 1.0, index: int = 0) -> None:
        """Say which ONNX value, times a factor, is result `index` of a node."""
        self._values[node.name, index] = Value(name, channels_first, factor)

    def set_multiple(self, node: Node, source: Reference, factor: float) -> None:
        """Say that a node gives another result times a factor."""
        if source in self._constants:
            array = self._constants[source]
            self._constants[node.name, 0] = array if factor == 1.0 else array * np.float32(factor)
        else:
            value = self._values[source]
            self.set(node, value.name, value.channels_first, value.factor * factor)

    def note_shift(self, node: Node, source: Reference, addend: float) -> None:
        """Remember that a node adds a number to another result."""
        self._shifted[node.name, 0] = source, addend

    # Their inputs.

    def shift(self, source: Reference) -> tuple[Reference, float] | None:
        """The result and the number whose sum `source` is, None if it came about otherwise."""
        return self._shifted.get(source)

    def constant(self, node: Node, index: int) -> Array:
        """Input `index` of a node as numbers, where ONNX needs a constant.

        Raises:
            UnsupportedModelError: The input is computed.
        """
        try:
            return self._constants[node.inputs[index]]
        except KeyError:
            raise node.unsupported(f"an input {index} that is computed") from None

    def number(self, source: Reference) -> float | None:
        """The value of a constant that is one floating-point number, else None."""
        array = self._constants.get(source)
        return float(array) if array is not None and array.ndim == 0 and array.dtype == np.float32 else None

    def is_channels_first(self, source: Reference) -> bool:
        """Whether a result stands in the ONNX graph with its channels first."""
        return source in self._values and self._values[source].channels_first

    def can_be_channels_first(self, source: Reference) -> bool:
        """Whether a result is channels-first or a constant that can be arranged to broadcast against such a one."""
        constant = self._constants.get(source)
        return self.is_channels_first(source) if constant is None else constant.ndim <= len(CHANNELS_FIRST)

    def read(self, source: Reference, channels_first: bool = False) -> str:
        """ONNX name of a result in the layout asked for; this is where transposes and factors get written out."""
        name, factor = self.read_unscaled(source, channels_first)
        if factor == 1.0:
            return name
        key = Value(name, channels_first, factor)
        if key not in self._rearranged:
            self._rearranged[key] = self.emit("Mul", [name, self.store(np.float32(factor))])
        return self._rearranged[key]

    def read_unscaled(self, source: Reference, channels_first: bool = False) -> tuple[str, float]:
        """ONNX name of a result in the layout asked for, and the factor that it has still to be multiplied with."""
        if source in self._constants:
            return self.store(_laid_out(self._constants[source], channels_first)), 1.0
        value = self._values[source]
        if value.channels_first == channels_first:
            return value.name, value.factor
        key = Value(value.name, channels_first)
        if key not in self._rearranged:
            order = CHANNELS_FIRST if channels_first else CHANNELS_LAST
            self._rearranged[key] = self.emit("Transpose", [value.name], perm=order)
        return self._rearranged[key], value.factor

    # Operations of the ONNX graph.

    def store(self, array: npt.ArrayLike) -> str:
        """Put numbers into the ONNX graph; returns their name."""
        name = f"numbers_{len(self.numbers)}"
        self.numbers[name] = np.ascontiguousarray(array).reshape(np.shape(array))
        return name

    def emit(self, op: str, inputs: Sequence[str], results: int = 1, **attributes: Any) -> str:
        """Append an ONNX operation; returns the name of its first result (the others end in `.1`, `.2`, …)."""
        first = f"{op}_{len(self.steps)}"
        names = [first, *(f"{first}.{index}" for index in range(1, results))]
        self.steps.append(Step(op, list(inputs), names, attributes))
        return first

    def finish(self, outputs: Sequence[str]) -> None:
        """Name the model's outputs as their nodes are named and drop operations that do not lead to them."""
        for name in outputs:
            self.steps.append(Step("Identity", [self.read((name, 0))], [name], {}))
        read, kept = set(outputs), []
        for step in reversed(self.steps):
            if not read.isdisjoint(step.results):
                kept.append(step)
                read.update(step.inputs)
        self.steps = kept[::-1]
        self.numbers = {name: array for name, array in self.numbers.items() if name in read}


def _laid_out(constant: Array, channels_first: bool) -> Array:
    """A constant, for channels-first arranged to broadcast as it did against channels-last values."""
    if not channels_first or constant.ndim == 0:
        return constant
    return constant.reshape((1,) * (len(CHANNELS_FIRST) - constant.ndim) + constant.shape).transpose(CHANNELS_FIRST)
