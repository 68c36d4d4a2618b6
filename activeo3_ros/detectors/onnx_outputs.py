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

"""What the output layouts of exported detectors have in common: the interface of one, and how numbers become boxes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..assets.onnx_session import shape_text
from .onnx_inputs import ModelInputs, Preprocessing

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

BoxFormat = Literal[
    "xyxy", "yxyx", "xywh", "cxcywh", "xyxy_normalized", "yxyx_normalized", "xywh_normalized", "cxcywh_normalized"
]
"""Order of a box's numbers, in pixels of the input or normalized to 0 to 1; xywh begins with the top-left corner."""

YOLO = Preprocessing(letterbox="centre")
YOLOX = Preprocessing(scale=1.0, channels="bgr", letterbox="top_left")
ZERO_TO_ONE = Preprocessing()
IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
UNCHANGED = Preprocessing(scale=1.0)


class Masks(NamedTuple):
    """The masks of the rows of an output, each a grid over the whole input; a value above 0 is inside the object.

    Attributes:
        shape: Rows and columns of the grid.
        part: Gives the values of one row's mask in some rows and columns of the grid: to make all of them is dear.
    """

    shape: tuple[int, int]
    part: Callable[[int, slice, slice], Floats]


class Candidates(NamedTuple):
    """What a model found in one image, before threshold and suppression.

    Attributes:
        corners: `(n, 4)` x1, y1, x2, y2 in pixels of the input.
        scores: `(n,)`.
        class_ids: `(n,)`, as the model counts classes.
        masks: Of the rows; None without masks.
    """

    corners: npt.NDArray[np.float64]
    scores: Floats
    class_ids: npt.NDArray[np.intp]
    masks: Masks | None = None


@dataclass(frozen=True)
class Seen:
    """What there is to recognise a layout by.

    Attributes:
        outputs: The arrays of one run by name.
        inputs: The inputs of the graph.
        images: How many went through it.
        metadata: What the exporter wrote into the file, by key.
        family: The `model_type` of a transformers model, "paddle" for one of PaddleDetection, "" where it is not known.
    """

    outputs: Mapping[str, Array]
    inputs: ModelInputs
    images: int = 1
    metadata: Mapping[str, str] = field(default_factory=dict)
    family: str = ""

    def __str__(self) -> str:
        outputs = ", ".join(f"{name} {shape_text(array.shape)} {array.dtype}" for name, array in self.outputs.items())
        known = {key: self.metadata[key] for key in ("author", "task", "head") if key in self.metadata}
        metadata = f"; metadata: {', '.join(f'{key} {value}' for key, value in known.items())}" if known else ""
        return f"outputs {outputs}{metadata}"

    @property
    def of_ultralytics(self) -> bool:
        """Whether an exporter of the YOLOv5 and ultralytics family wrote the file."""
        return "stride" in self.metadata and "names" in self.metadata


Roles = dict[str, str]
"""The name of the output that has each role in a layout."""


class Layout(ABC):
    """One way to write detections into arrays.

    Attributes:
        name: As in the setting `layout`.
        shape: The outputs that it needs, for messages.
        preprocessing: What such models expect of pixels.
        box_format: How they write boxes.
        suppresses: Whether each object has one box already.
        first_class: The id of the first class.
        one_list: Whether the detections of all images of a batch stand in one list.
    """

    name: str
    shape: str
    preprocessing = ZERO_TO_ONE
    box_format: BoxFormat = "cxcywh"
    suppresses = True
    first_class = 0
    one_list = False

    @abstractmethod
    def find(self, seen: Seen) -> list[Roles]:
        """Every choice of outputs that can be read in this layout."""

    def certain(self, seen: Seen, roles: Roles) -> bool:
        """Whether nothing else has these outputs, and pixels are prepared for them in one way alone."""
        return True

    def images(self, arrays: Mapping[str, Array], count: int) -> list[dict[str, Array]]:
        """The outputs by role for each image of a batch, without the batch axis.

        Raises:
            ValueError: An output does not say which image its rows are of.
        """
        return [{role: array[index] for role, array in arrays.items()} for index in range(count)]

    @abstractmethod
    def class_count(self, arrays: Mapping[str, Array], names: int) -> int | None:
        """The number of classes.

        Args:
            arrays: The outputs by role.
            names: The number of names that are known; a layout may allow more than one.

        Returns:
            None where only the class ids of detections tell.
        """

    @abstractmethod
    def read(self, arrays: Mapping[str, Array], box_format: str, inputs: ModelInputs, classes: int) -> Candidates:
        """Read the detections of one image.

        Args:
            arrays: The outputs by role, without the batch axis.
            box_format: How boxes are written.
            inputs: The inputs of the graph.
            classes: The number of classes, 0 if it is not known.

        Raises:
            ValueError: An output that is read holds numbers that are not finite.
        """


def to_corners(boxes: npt.ArrayLike, box_format: str, inputs: ModelInputs) -> npt.NDArray[np.float64]:
    """Boxes as a model writes them, as corners.

    Args:
        boxes: `(n, 4)`.
        box_format: See `BoxFormat`.
        inputs: The size of the input.

    Returns:
        `(n, 4)` x1, y1, x2, y2 in pixels of the input.
    """
    a, b, c, d = np.asarray(boxes, np.float64).reshape(-1, 4).T
    order = box_format.removesuffix("_normalized")
    if order == "yxyx":
        a, b, c, d = b, a, d, c
    elif order == "xywh":
        c, d = a + c, b + d
    elif order == "cxcywh":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    size = [inputs.width, inputs.height] * 2 if box_format.endswith("_normalized") else [1] * 4
    return np.stack([a, b, c, d], axis=1) * size


def finite(array: Array) -> Floats:
    """The array in single precision. Raises ValueError where a number is not finite."""
    numbers = np.asarray(array, np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError("holds numbers that are not finite (NaN or infinity)")
    return numbers


def ids_of(numbers: Floats) -> npt.NDArray[np.intp]:
    """Class ids that a model writes as numbers of any type."""
    return np.rint(numbers).astype(np.intp)


def best_class(boxes: Floats, scores: Floats, box_format: str, inputs: ModelInputs) -> Candidates:
    """One candidate for each row of scores, with the class that scores best."""
    class_ids = scores.argmax(axis=1)
    return Candidates(to_corners(boxes, box_format, inputs), scores[np.arange(len(scores)), class_ids], class_ids)


def prototypes_of(seen: Seen) -> Roles:
    """The output that holds the prototypes of masks, if there is one."""
    names = [name for name, array in seen.outputs.items() if array.ndim == 4 and array.shape[1] >= 8]
    return {"prototypes": names[0]} if len(names) == 1 and len(seen.outputs) == 2 else {}


def mask_count(arrays: Mapping[str, Array]) -> int:
    """The number of coefficients of a mask, 0 without prototypes."""
    return int(arrays["prototypes"].shape[1]) if "prototypes" in arrays else 0


def masks_of(coefficients: Floats, arrays: Mapping[str, Array]) -> Masks | None:
    """The masks of rows: the prototypes, weighed by a row's coefficients."""
    if "prototypes" not in arrays:
        return None
    prototypes = finite(arrays["prototypes"])

    def part(row: int, rows: slice, columns: slice) -> Floats:
        return np.asarray(np.tensordot(coefficients[row], prototypes[:, rows, columns], axes=1), np.float32)

    return Masks((prototypes.shape[1], prototypes.shape[2]), part)
