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

"""Output layouts with a row for each cell of the grids of a YOLO, before suppression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .onnx_inputs import ModelInputs
from .onnx_outputs import (
    YOLO,
    YOLOX,
    Array,
    Candidates,
    Floats,
    Layout,
    Roles,
    Seen,
    best_class,
    finite,
    mask_count,
    masks_of,
    prototypes_of,
)

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))
"""The grids of YOLO heads: input pixels per cell of each."""
YOLOV5_ANCHORS = 3
"""Boxes of a cell in a YOLOv5 head."""


class DenseRows(Layout):
    """A row for each box of a cell of the grids: centre x, y, width, height, scores, and coefficients of a mask."""

    box_format = "cxcywh"
    suppresses = False
    boxes_per_cell = 1

    def find(self, seen: Seen) -> list[Roles]:
        return [
            {"rows": name, **prototypes_of(seen)}
            for name, array in seen.outputs.items()
            if array.ndim == 3 and array.shape[2] > 5 and self._grids(array.shape[1], seen.inputs)
        ]

    def class_count(self, arrays: Mapping[str, Array], names: int) -> int | None:
        return int(arrays["rows"].shape[2]) - 5 - mask_count(arrays)

    def read(self, arrays: Mapping[str, Array], box_format: str, inputs: ModelInputs, classes: int) -> Candidates:
        rows = finite(arrays["rows"])
        end = rows.shape[1] - (len(arrays["prototypes"]) if "prototypes" in arrays else 0)
        found = best_class(self._boxes(rows, inputs), rows[:, 5:end] * rows[:, 4:5], box_format, inputs)
        return found._replace(masks=masks_of(rows[:, end:], arrays))

    @staticmethod
    def _is_yolox(seen: Seen) -> bool:
        """Whether no other family wrote the file: exporters of YOLOX leave no metadata."""
        return not seen.of_ultralytics and not seen.family

    def _boxes(self, rows: Floats, inputs: ModelInputs) -> Floats:
        return rows[:, :4]

    def _grids(self, count: int, inputs: ModelInputs) -> tuple[int, ...] | None:
        return _strides(count, self.boxes_per_cell, inputs)


class YoloV5(DenseRows):
    """YOLOv5 and YOLOv7, three boxes a cell, in pixels."""

    name = "yolov5"
    shape = "one output (n, 3 x cells, 5 + classes); masks: a second one (n, k, h, w) and k more columns"
    preprocessing = YOLO
    boxes_per_cell = YOLOV5_ANCHORS


class YoloXDecoded(DenseRows):
    """YOLOX that was exported to write boxes in pixels."""

    name = "yolox_decoded"
    shape = "one output (n, cells, 5 + classes), boxes in pixels"
    preprocessing = YOLOX

    def certain(self, seen: Seen, roles: Roles) -> bool:
        return self._is_yolox(seen) and _in_cells(seen.outputs[roles["rows"]], seen.inputs) is False


class YoloX(DenseRows):
    """YOLOX as it is exported unless told otherwise: boxes in cells of the grids."""

    name = "yolox"
    shape = "one output (n, cells, 5 + classes), boxes in cells of the grids"
    preprocessing = YOLOX

    def certain(self, seen: Seen, roles: Roles) -> bool:
        return self._is_yolox(seen) and _in_cells(seen.outputs[roles["rows"]], seen.inputs) is True

    def _boxes(self, rows: Floats, inputs: ModelInputs) -> Floats:
        cells, strides = _cells(self._grids(len(rows), inputs) or (), inputs)
        with np.errstate(over="ignore"):
            sides = np.exp(rows[:, 2:4]) * strides
        return finite(np.hstack([(rows[:, :2] + cells) * strides, sides]))


class YoloV8(Layout):
    """A column for each cell of the grids: centre x, y, width, height, class scores, and coefficients of a mask."""

    name = "yolov8"
    shape = "one output (n, 4 + classes, cells); masks: a second one (n, k, h, w) and k more rows"
    preprocessing = YOLO
    suppresses = False

    def find(self, seen: Seen) -> list[Roles]:
        return [
            {"columns": name, **prototypes_of(seen)}
            for name, array in seen.outputs.items()
            if array.ndim == 3 and array.shape[1] > 4 and _strides(array.shape[2], 1, seen.inputs)
        ]

    def class_count(self, arrays: Mapping[str, Array], names: int) -> int | None:
        return int(arrays["columns"].shape[1]) - 4 - mask_count(arrays)

    def read(self, arrays: Mapping[str, Array], box_format: str, inputs: ModelInputs, classes: int) -> Candidates:
        rows = finite(arrays["columns"]).T
        end = rows.shape[1] - (len(arrays["prototypes"]) if "prototypes" in arrays else 0)
        found = best_class(rows[:, :4], rows[:, 4:end], box_format, inputs)
        return found._replace(masks=masks_of(rows[:, end:], arrays))


def _strides(count: int, boxes_per_cell: int, inputs: ModelInputs) -> tuple[int, ...] | None:
    """The strides of the grids that have so many boxes together, None if none have."""
    for strides in STRIDES:
        if count == boxes_per_cell * sum(_cell_count(stride, inputs) for stride in strides):
            return strides
    return None


def _cell_count(stride: int, inputs: ModelInputs) -> int:
    return -(-inputs.width // stride) * -(-inputs.height // stride)


def _cells(strides: Sequence[int], inputs: ModelInputs) -> tuple[Floats, Floats]:
    """Column and row of each cell, `(n, 2)`, and its stride, `(n, 1)`."""
    cells = [np.indices((-(-inputs.height // s), -(-inputs.width // s))).reshape(2, -1)[::-1].T for s in strides]
    sides = [np.full((len(each), 1), stride) for each, stride in zip(cells, strides, strict=True)]
    return np.vstack(cells).astype(np.float32), np.vstack(sides).astype(np.float32)


def _in_cells(rows: Array, inputs: ModelInputs) -> bool | None:
    """Whether boxes are written in cells of the grids instead of pixels; None where that is not clear.

    A box lies about its own cell: its centre in pixels rises along the grid, its offset from the cell does not.
    """
    strides = _strides(rows.shape[1], 1, inputs)
    if strides is None:
        return None
    cells, sides = _cells(strides, inputs)
    centres = np.asarray(rows[0, :, :2], np.float32)
    from_cell = float(np.median(np.abs(centres / sides - cells - 0.5)))
    from_zero = float(np.median(np.abs(centres - 0.5)))
    if not np.isfinite(from_cell + from_zero) or max(from_cell, from_zero) < 2 * min(from_cell, from_zero):
        return None
    return from_zero < from_cell
