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

"""The network of gain maps: a small U-shaped net over a view and the maps of a detector's boxes.

Its layers stand in one table, from which both the network that is trained and the ONNX file that runs are made; in the
file the normalisation is folded into the convolutions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.optional import require_package
from ..evaluation.item_files import write_atomically
from ..policies.box_maps import ACROSS as BOX_CHANNELS
from ..policies.box_maps import CHANNELS
from ..policies.gain_maps import MAPS_INPUT, METADATA_KEY, RATES_OUTPUT, VIEW_INPUT, HeadDescription

OUTPUT = "out"
PAD_PX = 64
"""View pixels for one cell of the coarsest layer."""
CELL_PX = 16
"""View pixels for one cell of the output."""
RARE = 1e-3
"""Objects that an untrained head expects in each cell."""
OPSET = 17


@dataclass(frozen=True)
class Layer:
    """A convolution of 3 x 3 with normalisation and ReLU.

    Attributes:
        name: Of its output.
        inputs: Layers whose outputs are joined; one whose name ends in "^" is doubled in size first.
        channels: Of its output.
        stride: Of the convolution.
    """

    name: str
    inputs: tuple[str, ...]
    channels: int
    stride: int = 1


LAYERS = (
    Layer("view2", (VIEW_INPUT,), 8, 2),
    Layer("view4", ("view2",), 16, 2),
    Layer("view8", ("view4",), 32, 2),
    Layer("boxes8", (MAPS_INPUT,), 32),
    Layer("down16", ("view8", "boxes8"), 64, 2),
    Layer("in16", ("down16",), 64),
    Layer("down32", ("in16",), 96, 2),
    Layer("in32", ("down32",), 96),
    Layer("down64", ("in32",), 128, 2),
    Layer("in64", ("down64",), 128),
    Layer("up32", ("in64^", "in32"), 96),
    Layer("up16", ("up32^", "in16"), 64),
)
LAST = LAYERS[-1].name
FIRST = {layer.name: layer.inputs[0] for layer in LAYERS if layer.inputs[0] in (VIEW_INPUT, MAPS_INPUT)}
"""The layers that see an input, and which one."""


class GainNet(nn.Module):  # type: ignore[misc]
    """Maps of the logarithm of the expected objects, a channel for each magnification."""

    def __init__(self, zooms: int, view: bool = True, boxes: bool = True) -> None:
        """Make it with random weights.

        Args:
            zooms: How many maps it gives.
            view: Whether it sees the view.
            boxes: Whether it sees the detector's boxes; what else the maps hold it always sees.
        """
        super().__init__()
        self.register_buffer("sees_view", torch.full((1, 3, 1, 1), float(view)), persistent=False)
        drawn = torch.ones(1, CHANNELS, 1, 1)
        drawn[:, :BOX_CHANNELS] = float(boxes)
        self.register_buffer("sees_maps", drawn, persistent=False)
        width = {VIEW_INPUT: 3, MAPS_INPUT: CHANNELS}
        self.convolutions, self.norms = nn.ModuleDict(), nn.ModuleDict()
        for layer in LAYERS:
            joined = sum(width[name.rstrip("^")] for name in layer.inputs)
            self.convolutions[layer.name] = nn.Conv2d(joined, layer.channels, 3, layer.stride, 1, bias=False)
            self.norms[layer.name] = nn.BatchNorm2d(layer.channels)
            width[layer.name] = layer.channels
        self.convolutions[OUTPUT] = nn.Conv2d(width[LAST], zooms, 1)
        nn.init.constant_(self.convolutions[OUTPUT].bias, math.log(RARE))
        nn.init.normal_(self.convolutions[OUTPUT].weight, 0.0, 0.01)

    def forward(self, view: Tensor, maps: Tensor) -> Tensor:
        """Logarithms of expected objects `(n, zooms, h / 16, w / 16)`.

        Args:
            view: `(n, 3, h, w)`, as `policies.gain_maps.head_view` has it.
            maps: `(n, CHANNELS, h / 8, w / 8)`.
        """
        outputs: dict[str, Tensor] = {VIEW_INPUT: view * self.sees_view, MAPS_INPUT: maps * self.sees_maps}
        for layer in LAYERS:
            inputs = [
                functional.interpolate(outputs[name[:-1]], scale_factor=2.0, mode="nearest")
                if name.endswith("^")
                else outputs[name]
                for name in layer.inputs
            ]
            joined = torch.cat(inputs, dim=1) if inputs[1:] else inputs[0]
            outputs[layer.name] = functional.relu(self.norms[layer.name](self.convolutions[layer.name](joined)))
        result: Tensor = self.convolutions[OUTPUT](outputs[LAST])
        return result


def _folded(net: GainNet, name: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Weight and bias of a convolution with the normalisation behind it."""
    convolution = net.convolutions[name]
    weight = convolution.weight.detach().double()
    if name in FIRST:
        weight = weight * (net.sees_view if FIRST[name] == VIEW_INPUT else net.sees_maps)
    if name not in net.norms:
        return weight.float().numpy(), convolution.bias.detach().float().numpy()
    norm = net.norms[name]
    factor = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = norm.bias.detach().double() - norm.running_mean.double() * factor
    return (weight * factor[:, None, None, None]).float().numpy(), bias.float().numpy()


def export(net: GainNet, description: HeadDescription, path: Path) -> None:
    """Write a head as an ONNX file with its description inside; its output are expected objects.

    Weights are stored in half precision, which halves the file, and run in single.

    Args:
        net: The network.
        description: What it was trained for.
        path: The file; a kill leaves either all of it or nothing.

    Raises:
        MissingPackageError: onnx is not installed.
    """
    onnx = require_package("onnx", "to write a head of gain maps")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    nodes: list[Any] = []
    constants = [onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "double")]

    def convolve(name: str, source: str, kernel: int, stride: int) -> None:
        weight, bias = _folded(net, name)
        constants.append(onnx.numpy_helper.from_array(weight.astype(np.float16), f"{name}.half"))
        constants.append(onnx.numpy_helper.from_array(bias, f"{name}.bias"))
        nodes.append(helper.make_node("Cast", [f"{name}.half"], [f"{name}.weight"], to=floats))
        pads = [kernel // 2] * 4
        nodes.append(
            helper.make_node(
                "Conv",
                [source, f"{name}.weight", f"{name}.bias"],
                [f"{name}.sum"],
                kernel_shape=[kernel, kernel],
                strides=[stride, stride],
                pads=pads,
            )
        )

    for layer in LAYERS:
        inputs = []
        for name in layer.inputs:
            if name.endswith("^"):
                nodes.append(
                    helper.make_node(
                        "Resize", [name[:-1], "", "double"], [name], mode="nearest", nearest_mode="floor",
                        coordinate_transformation_mode="asymmetric",
                    )
                )  # fmt: skip
            inputs.append(name)
        if inputs[1:]:
            nodes.append(helper.make_node("Concat", inputs, [f"{layer.name}.in"], axis=1))
            inputs = [f"{layer.name}.in"]
        convolve(layer.name, inputs[0], 3, layer.stride)
        nodes.append(helper.make_node("Relu", [f"{layer.name}.sum"], [layer.name]))
    convolve(OUTPUT, LAST, 1, 1)
    nodes.append(helper.make_node("Exp", [f"{OUTPUT}.sum"], [RATES_OUTPUT]))
    graph = helper.make_graph(
        nodes,
        "gain_maps",
        [
            helper.make_tensor_value_info(VIEW_INPUT, floats, ("n", 3, "height", "width")),
            helper.make_tensor_value_info(MAPS_INPUT, floats, ("n", CHANNELS, "map_height", "map_width")),
        ],
        [helper.make_tensor_value_info(RATES_OUTPUT, floats, ("n", len(description.zooms), "rows", "columns"))],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    helper.set_model_props(model, {METADATA_KEY: description.to_text()})
    onnx.checker.check_model(model)
    write_atomically(path, model.SerializeToString())
