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

"""The output layouts of exported detectors, and how the one of a file is recognised.

A layout is recognised by the names and the shapes of the outputs of one run, and by what the exporter wrote beside
them. Where these fit several layouts, or leave open how pixels were prepared, none is guessed (see `choose_layout`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..core.errors import InvalidInput
from .onnx_grid_layouts import YoloV5, YoloV8, YoloX, YoloXDecoded
from .onnx_list_layouts import (
    EfficientNms,
    EndToEnd,
    MmDeploy,
    Paddle,
    RtDetrWithSizes,
    Ssd,
    UltralyticsRtDetr,
    YoloV7EndToEnd,
)
from .onnx_outputs import Layout, Roles, Seen
from .onnx_query_layouts import DeformableDetr, Detr, RfDetr, RtDetr

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        YoloX(), YoloXDecoded(), YoloV5(), YoloV7EndToEnd(), YoloV8(), EndToEnd(), EfficientNms(), UltralyticsRtDetr(),
        RtDetrWithSizes(), RtDetr(), DeformableDetr(), Detr(), RfDetr(), Ssd(), MmDeploy(), Paddle(),
    )
}  # fmt: skip
"""Every layout by name."""
LayoutName = Literal[
    "auto", "yolox", "yolox_decoded", "yolov5", "yolov7_end_to_end", "yolov8", "end_to_end", "efficient_nms",
    "ultralytics_rt_detr", "rt_detr_sizes", "rt_detr", "deformable_detr", "detr", "rf_detr", "ssd", "mmdeploy",
    "paddle",
]  # fmt: skip
"""The values of the setting `layout`."""


def choose_layout(name: str, seen: Seen) -> tuple[Layout, Roles]:
    """Find the layout of a model's outputs.

    Args:
        name: A key of `LAYOUTS`, or "auto".
        seen: What there is to recognise it by.

    Returns:
        The layout, and the outputs that it reads.

    Raises:
        InvalidInput: None fits, several do, or it takes the user's word to tell them apart; the message says what was
            seen and which setting decides.
    """
    task = seen.metadata.get("task", "detect")
    if task not in ("detect", "segment"):
        raise InvalidInput(f"the model was exported for the task {task!r}, it is no detector; give one of task detect")
    if name != "auto":
        layout = LAYOUTS[name]
        choices = layout.find(seen)
        if not choices:
            raise InvalidInput(f"layout {name} needs {layout.shape}; the model has {seen}; set layout to another")
        if len(choices) > 1:
            raise _several_outputs(choices, seen)
        return layout, choices[0]
    fitting = {layout: layout.find(seen) for layout in LAYOUTS.values()}
    fitting = {layout: choices for layout, choices in fitting.items() if choices}
    certain = {
        layout: choices for layout, choices in fitting.items() if any(layout.certain(seen, roles) for roles in choices)
    }
    if len(certain) == 1:
        layout, choices = next(iter(certain.items()))
        if len(choices) > 1:
            raise _several_outputs(choices, seen)
        return layout, choices[0]
    if not fitting:
        if _like_raw_heads(seen):
            raise InvalidInput(
                f"these are the heads of a YOLO, from which boxes are made with anchors that the file does not hold: "
                f"{seen}; export it with the boxes made inside, YOLOv7 with --grid or --end2end"
            )
        raise InvalidInput(
            f"no known layout of a detector's outputs: {seen}{_like_a_classifier(seen)}; "
            "export the model as a detector, or set layout and outputs"
        )
    several = [choices for choices in fitting.values() if len(choices) > 1]
    if several:
        raise _several_outputs(several[0], seen)
    possible = ", ".join(layout.name for layout in certain or fitting)
    raise InvalidInput(
        f"the layout is unclear: {seen}{_like_a_classifier(seen)}; set layout to {possible}, whichever made the file, "
        "and scale, mean, std, channels and letterbox if the model was not trained with its usual ones"
    )


def _several_outputs(choices: Sequence[Roles], seen: Seen) -> InvalidInput:
    names = list(dict.fromkeys(name for roles in choices for name in roles.values()))
    return InvalidInput(f"several outputs may hold the detections: {seen}; set outputs to one of {', '.join(names)}")


def _like_a_classifier(seen: Seen) -> str:
    return ", as of a classifier" if all(array.ndim == 2 for array in seen.outputs.values()) else ""


def _like_raw_heads(seen: Seen) -> bool:
    """Whether there is an output for each grid, such as `(n, boxes of a cell, rows, columns, numbers)`."""
    grids = {(-(-seen.inputs.height // stride), -(-seen.inputs.width // stride)) for stride in (8, 16, 32, 64)}
    sides = [
        [pair for pair in zip(array.shape[1:], array.shape[2:], strict=False) if pair in grids]
        for array in seen.outputs.values()
        if array.ndim in (4, 5)
    ]
    return len(sides) == len(seen.outputs) >= 2 and all(sides)
