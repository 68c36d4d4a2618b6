"""The output layouts of exported detectors: how each is recognised, and how boxes, scores and classes are read from it.

A layout is recognised by the names and the shapes of the outputs of one run, and by what the exporter wrote beside
them. Where these fit several layouts, or leave open how pixels were prepared, none is guessed (see `choose_layout`).
"""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..assets.onnx_session import shape_text
from ..core.errors import InvalidInput
from .onnx_inputs import SIZES, ModelInputs, Preprocessing

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

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))
"""The grids of YOLO heads: input pixels per cell of each."""
YOLOV5_ANCHORS = 3
"""Boxes of a cell in a YOLOv5 head."""


class Candidates(NamedTuple):
    """What a model found in one image, before threshold and suppression.

    Attributes:
        corners: `(n, 4)` x1, y1, x2, y2 in pixels of the input.
        scores: `(n,)`.
        class_ids: `(n,)`, as the model counts classes.
        mask: Gives the mask of one row: `(h, w)` over the whole input, of any resolution, above 0 inside the object;
            None without masks.
    """

    corners: npt.NDArray[np.float64]
    scores: Floats
    class_ids: npt.NDArray[np.intp]
    mask: Callable[[int], Floats] | None = None


@dataclass(frozen=True)
class Seen:
    """What there is to recognise a layout by.

    Attributes:
        outputs: The arrays of one run by name.
        inputs: The inputs of the graph.
        metadata: What the exporter wrote into the file, by key.
        family: The `model_type` of a transformers model, "" where it is not known.
    """

    outputs: Mapping[str, Array]
    inputs: ModelInputs
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
    """

    name: str
    shape: str
    preprocessing = ZERO_TO_ONE
    box_format: BoxFormat = "cxcywh"
    suppresses = True
    first_class = 0

    @abstractmethod
    def find(self, seen: Seen) -> list[Roles]:
        """Every choice of outputs that can be read in this layout."""

    def certain(self, seen: Seen, roles: Roles) -> bool:
        """Whether nothing else has these outputs, and pixels are prepared for them in one way alone."""
        return True

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


class DenseRows(Layout):
    """A row for each box of a cell of the grids: centre x, y, width, height, scores, and coefficients of a mask."""

    box_format = "cxcywh"
    suppresses = False
    boxes_per_cell = 1

    def find(self, seen: Seen) -> list[Roles]:
        return [
            {"rows": name, **_prototypes(seen)}
            for name, array in seen.outputs.items()
            if array.ndim == 3 and array.shape[2] > 5 and self._grids(array.shape[1], seen.inputs)
        ]

    def class_count(self, arrays: Mapping[str, Array], names: int) -> int | None:
        return int(arrays["rows"].shape[2]) - 5 - _mask_count(arrays)

    def read(self, arrays: Mapping[str, Array], box_format: str, inputs: ModelInputs, classes: int) -> Candidates:
        rows = _finite(arrays["rows"])
        end = rows.shape[1] - (len(arrays["prototypes"]) if "prototypes" in arrays else 0)
        found = _best_class(self._boxes(rows, inputs), rows[:, 5:end] * rows[:, 4:5], box_format, inputs)
        return found._replace(mask=_mask_of(rows[:, end:], arrays))

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
        return _finite(np.hstack([(rows[:, :2] + cells) * strides, sides]))


class YoloV8(Layout):
    """A column for each cell of the grids: centre x, y, width, height, class scores, and coefficients of a mask."""

    name = "yolov8"
    shape = "one output (n, 4 + classes, cells); masks: a second one (n, k, h, w) and k more rows"
    preprocessing = YOLO
    suppresses = False

    def find(self, seen: Seen) -> list[Roles]:
        return [
            {"columns": name, **_prototypes(seen)}
            for name, array in seen.outputs.items()
            if array.ndim == 3 and array.shape[1] > 4 and _strides(array.shape[2], 1, seen.inputs)
        ]

    def class_count(self, arrays: Mapping[str, Array], names: int) -> int | None:
        return int(arrays["columns"].shape[1]) - 4 - _mask_count(arrays)

    def read(self, arrays: Mapping[str, Array], box_format: str, inputs: ModelInputs, classes: int) -> Candidates:
        rows = _finite(arrays["columns"]).T
        end = rows.shape[1] - (len(arrays["prototypes"]) if "prototypes" in arrays else 0)
        found = _best_class(rows[:, :4], rows[:, 4:end], box_format, inputs)
        return found._replace(mask=_mask_of(rows[:, end:], arrays))


class EndToEnd(Layout):
    """A row for each detection: corners, score, class id, and coefficients of a mask."""

    name = "end_to_end"
    shape = "one output (n, detections, 6): x1, y1, x2, y2, score, class; masks: a second one and k more columns"
    preprocessing = YOLO
    box_format: BoxFormat = "xyxy"

    def find(self, seen: Seen) -> list[Roles]:
        prototypes = _prototypes(seen)
        masks = seen.outputs[prototypes["prototypes"]].shape[1] if prototypes else 0
        return [
            {"rows": name, **prototypes}
            for name, array in seen.outputs.items()
            if array.ndim == 3 and array.shape[2] == 6 + masks
        ]

    def certain(self, seen: Seen, roles: Roles) -> bool:
        return seen.of_ultralytics and seen.metadata.get("head") != UltralyticsRtDetr.head

    def class_count(self, arrays: Mapping[str, Array], names: int) -> int | None:
        return None

    def read(self, arrays: Mapping[str, Array], box_format: str, inputs: ModelInputs, classes: int) -> Candidates:
        rows = _finite(arrays["rows"])
        corners = to_corners(rows[:, :4], box_format, inputs)
        return Candidates(corners, rows[:, 4], _ids(rows[:, 5]), _mask_of(rows[:, 6:], arrays))


class UltralyticsRtDetr(EndToEnd):
    """RT-DETR as ultralytics exports it: rows as in `EndToEnd`, or the scores of all classes behind each box."""

    name = "ultralytics_rt_detr"
    shape = "one output (n, queries, 6) or (n, queries, 4 + classes), boxes normalized"
    preprocessing = ZERO_TO_ONE
    box_format: BoxFormat = "cxcywh_normalized"
    head = "RTDETRDecoder"
    most_queries = 1000

    def find(self, seen: Seen) -> list[Roles]:
        return [
            {"rows": name}
            for name, array in seen.outputs.items()
            if array.ndim == 3 and array.shape[2] > 4 and array.shape[1] <= self.most_queries
        ]

    def certain(self, seen: Seen, roles: Roles) -> bool:
        rtdetr = "rt-detr" in seen.metadata.get("description", "").lower()
        return seen.of_ultralytics and (rtdetr or seen.metadata.get("head") == self.head)

    def class_count(self, arrays: Mapping[str, Array], names: int) -> int | None:
        columns = int(arrays["rows"].shape[2])
        return None if columns == 6 and names != 2 else columns - 4

    def read(self, arrays: Mapping[str, Array], box_format: str, inputs: ModelInputs, classes: int) -> Candidates:
        if not classes:
            return super().read(arrays, box_format, inputs, classes)
        rows = _finite(arrays["rows"])
        return _best_class(rows[:, :4], rows[:, 4:], box_format, inputs)


class Queries(Layout):
    """Class logits and normalized boxes of a set of queries, each class on its own (sigmoid)."""

    box_format: BoxFormat = "cxcywh_normalized"
    names: tuple[tuple[str, ...], tuple[str, ...]] = (("logits", "pred_logits"), ("pred_boxes",))
    families: tuple[str, ...] = ()
    most_pairs: int | None = None
    """Pairs of query and class that may be detections; None for as many as there are queries."""

    def find(self, seen: Seen) -> list[Roles]:
        logits, boxes = ([name for name in seen.outputs if name in names] for names in self.names)
        return [
            {"logits": one, "boxes": other, **_query_masks(seen)}
            for one in logits
            for other in boxes
            if seen.outputs[one].ndim == 3 and seen.outputs[other].shape == (*seen.outputs[one].shape[:2], 4)
        ]

    def certain(self, seen: Seen, roles: Roles) -> bool:
        return seen.family in self.families

    def class_count(self, arrays: Mapping[str, Array], names: int) -> int | None:
        return int(arrays["logits"].shape[2])

    def read(self, arrays: Mapping[str, Array], box_format: str, inputs: ModelInputs, classes: int) -> Candidates:
        boxes = to_corners(_finite(arrays["boxes"]), box_format, inputs)
        scores = _sigmoid(_finite(arrays["logits"])[:, :classes])
        best = np.argsort(-scores, axis=None, kind="stable")[: self.most_pairs or len(boxes)]
        query, class_ids = np.divmod(best, scores.shape[1])
        mask = _query_mask(arrays)
        return Candidates(boxes[query], scores.ravel()[best], class_ids, mask and (lambda row: mask(query[row])))


class RtDetr(Queries):
    """RT-DETR, D-FINE and RF-DETR of transformers."""

    name = "rt_detr"
    shape = "outputs logits (n, queries, classes) and pred_boxes (n, queries, 4)"
    families = ("rt_detr", "rt_detr_v2", "d_fine", "deimv2", "rf_detr")


class DeformableDetr(Queries):
    """Deformable DETR, Conditional DETR and their like of transformers."""

    name = "deformable_detr"
    shape = RtDetr.shape
    preprocessing = IMAGENET
    most_pairs = 100
    families = ("deformable_detr", "conditional_detr", "dab-detr", "dab_detr", "lw_detr")


class Detr(Queries):
    """Class logits with one for "no object" at the end (softmax), and normalized boxes."""

    name = "detr"
    shape = "outputs logits (n, queries, classes + 1) and pred_boxes (n, queries, 4)"
    preprocessing = IMAGENET
    families = ("detr", "yolos", "table-transformer")

    def class_count(self, arrays: Mapping[str, Array], names: int) -> int | None:
        return int(arrays["logits"].shape[2]) - 1

    def read(self, arrays: Mapping[str, Array], box_format: str, inputs: ModelInputs, classes: int) -> Candidates:
        logits = _finite(arrays["logits"])
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = powers[:, :-1] / powers.sum(axis=1, keepdims=True)
        return _best_class(_finite(arrays["boxes"]), scores, box_format, inputs)._replace(mask=_query_mask(arrays))


class RfDetr(Queries):
    """RF-DETR as its own library exports it; the last class may be the background, which no name stands for."""

    name = "rf_detr"
    shape = "outputs dets (n, queries, 4) and labels (n, queries, classes or classes + 1); masks: a third one"
    preprocessing = IMAGENET
    names = (("labels",), ("dets",))

    def certain(self, seen: Seen, roles: Roles) -> bool:
        return True

    def class_count(self, arrays: Mapping[str, Array], names: int) -> int | None:
        columns = int(arrays["logits"].shape[2])
        return names if names == columns - 1 else columns


class Separate(Layout):
    """Boxes, scores and class ids in outputs of their own, with or without the number of detections."""

    words: Mapping[str, str] = {"boxes": "box", "scores": "score|conf", "classes": "class|label"}
    needs_count = False

    def find(self, seen: Seen) -> list[Roles]:
        words = {**self.words, **({"count": "num|count"} if self.needs_count else {})}
        ranks = {"boxes": (3,), "scores": (2,), "classes": (2,), "count": (1, 2)}
        fitting = [
            [
                name
                for name, array in seen.outputs.items()
                if re.search(pattern, name.lower()) and array.ndim in ranks[role]
            ]
            for role, pattern in words.items()
        ]
        choices = [dict(zip(words, names, strict=True)) for names in itertools.product(*fitting)]
        return [roles for roles in choices if self._belong_together(roles, seen)]

    @staticmethod
    def _belong_together(roles: Roles, seen: Seen) -> bool:
        boxes, scores, classes = (seen.outputs[roles[role]].shape for role in ("boxes", "scores", "classes"))
        return len(set(roles.values())) == len(roles) and boxes == (*scores, 4) and scores == classes

    def class_count(self, arrays: Mapping[str, Array], names: int) -> int | None:
        return None

    def read(self, arrays: Mapping[str, Array], box_format: str, inputs: ModelInputs, classes: int) -> Candidates:
        count = int(np.ravel(arrays["count"])[0]) if "count" in arrays else len(arrays["boxes"])
        boxes = _finite(arrays["boxes"][:count])
        scores, ids = _finite(arrays["scores"][:count]), _finite(arrays["classes"][:count])
        return Candidates(to_corners(boxes, box_format, inputs), scores, _ids(ids))


class EfficientNms(Separate):
    """Suppression inside, as TensorRT's plug-in of that name writes it."""

    name = "efficient_nms"
    shape = "outputs num_dets, det_boxes (n, detections, 4), det_scores and det_classes (n, detections)"
    preprocessing = YOLO
    box_format: BoxFormat = "xyxy"
    needs_count = True

    def certain(self, seen: Seen, roles: Roles) -> bool:
        return set(roles.values()) == {"num_dets", "det_boxes", "det_scores", "det_classes"}


class Ssd(Separate):
    """The detectors of TensorFlow's Object Detection API; the first class has the id 1."""

    name = "ssd"
    shape = "outputs for boxes (n, detections, 4), scores and classes (n, detections), and their number"
    preprocessing = UNCHANGED
    box_format: BoxFormat = "yxyx_normalized"
    needs_count = True
    first_class = 1

    def certain(self, seen: Seen, roles: Roles) -> bool:
        floats = seen.outputs[roles["count"]].dtype.kind == "f" and seen.outputs[roles["classes"]].dtype.kind == "f"
        return floats and seen.inputs.dtype == "uint8"


class RtDetrWithSizes(Separate):
    """RT-DETR, D-FINE and their like as their own repositories export them, with the image's size as an input."""

    name = "rt_detr_sizes"
    shape = "outputs labels and scores (n, queries) and boxes (n, queries, 4); an input with the size of the image"
    box_format: BoxFormat = "xyxy"

    def certain(self, seen: Seen, roles: Roles) -> bool:
        return any(kind == SIZES for kind, _ in seen.inputs.others.values())


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        YoloX(), YoloXDecoded(), YoloV5(), YoloV8(), EndToEnd(), EfficientNms(), UltralyticsRtDetr(), RtDetrWithSizes(),
        RtDetr(), DeformableDetr(), Detr(), RfDetr(), Ssd(),
    )
}  # fmt: skip
"""Every layout by name."""
LayoutName = Literal[
    "auto", "yolox", "yolox_decoded", "yolov5", "yolov8", "end_to_end", "efficient_nms", "ultralytics_rt_detr",
    "rt_detr_sizes", "rt_detr", "deformable_detr", "detr", "rf_detr", "ssd",
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
        raise InvalidInput(
            f"no known layout of a detector's outputs: {seen}{_like_a_classifier(seen)}; "
            "export the model as a detector, or set layout and outputs"
        )
    several = [choices for choices in fitting.values() if len(choices) > 1]
    if several:
        raise _several_outputs(several[0], seen)
    possible = ", ".join(layout.name for layout in certain or fitting)
    raise InvalidInput(
        f"the layout is unclear: {seen}; set layout to {possible}, whichever made the file, and scale, mean, std, "
        "channels and letterbox if the model was not trained with its usual ones"
    )


def _several_outputs(choices: Sequence[Roles], seen: Seen) -> InvalidInput:
    names = list(dict.fromkeys(name for roles in choices for name in roles.values()))
    return InvalidInput(f"several outputs may hold the detections: {seen}; set outputs to one of {', '.join(names)}")


def _like_a_classifier(seen: Seen) -> str:
    return ", as of a classifier" if all(array.ndim == 2 for array in seen.outputs.values()) else ""


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


def _finite(array: Array) -> Floats:
    """The array in single precision. Raises ValueError where a number is not finite."""
    numbers = np.asarray(array, np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError("holds numbers that are not finite (NaN or infinity)")
    return numbers


def _ids(numbers: Floats) -> npt.NDArray[np.intp]:
    return np.rint(numbers).astype(np.intp)


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -80, 80))), np.float32)


def _best_class(boxes: Floats, scores: Floats, box_format: str, inputs: ModelInputs) -> Candidates:
    """One candidate for each row of scores, with the class that scores best."""
    class_ids = scores.argmax(axis=1)
    return Candidates(to_corners(boxes, box_format, inputs), scores[np.arange(len(scores)), class_ids], class_ids)


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


def _prototypes(seen: Seen) -> Roles:
    """The output that holds the prototypes of masks, if there is one."""
    names = [name for name, array in seen.outputs.items() if array.ndim == 4 and array.shape[1] >= 8]
    return {"prototypes": names[0]} if len(names) == 1 and len(seen.outputs) == 2 else {}


def _mask_count(arrays: Mapping[str, Array]) -> int:
    return int(arrays["prototypes"].shape[1]) if "prototypes" in arrays else 0


def _mask_of(coefficients: Floats, arrays: Mapping[str, Array]) -> Callable[[int], Floats] | None:
    """The masks of rows: the prototypes, weighed by a row's coefficients."""
    if "prototypes" not in arrays:
        return None
    prototypes = _finite(arrays["prototypes"])
    return lambda row: np.asarray(np.tensordot(coefficients[row], prototypes, axes=1), np.float32)


def _query_masks(seen: Seen) -> Roles:
    """The output that holds the mask of each query, if there is one."""
    names = [name for name, array in seen.outputs.items() if array.ndim == 4 and "mask" in name]
    return {"masks": names[0]} if len(names) == 1 else {}


def _query_mask(arrays: Mapping[str, Array]) -> Callable[[int], Floats] | None:
    """The masks of queries."""
    if "masks" not in arrays:
        return None
    return lambda query: _finite(arrays["masks"][query])


def images_of(arrays: Mapping[str, Array], count: int) -> Iterator[dict[str, Array]]:
    """The outputs of each image of a batch, without the batch axis."""
    for index in range(count):
        yield {role: array[index] for role, array in arrays.items()}
