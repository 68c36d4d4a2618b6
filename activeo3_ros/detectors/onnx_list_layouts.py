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

"""Output layouts with a list of detections: corners, score and class of each, mostly after suppression."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

import numpy as np

from .onnx_inputs import FACTORS, SHAPE, SIZES, ModelInputs, Preprocessing
from .onnx_outputs import (
    IMAGENET,
    UNCHANGED,
    YOLO,
    ZERO_TO_ONE,
    Array,
    BoxFormat,
    Candidates,
    Layout,
    Roles,
    Seen,
    best_class,
    finite,
    ids_of,
    masks_of,
    prototypes_of,
    to_corners,
)


class EndToEnd(Layout):
    """A row for each detection: corners, score, class id, and coefficients of a mask."""

    name = "end_to_end"
    shape = "one output (n, detections, 6): x1, y1, x2, y2, score, class; masks: a second one and k more columns"
    preprocessing = YOLO
    box_format: BoxFormat = "xyxy"

    def find(self, seen: Seen) -> list[Roles]:
        prototypes = prototypes_of(seen)
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
        rows = finite(arrays["rows"])
        corners = to_corners(rows[:, :4], box_format, inputs)
        return Candidates(corners, rows[:, 4], ids_of(rows[:, 5]), masks_of(rows[:, 6:], arrays))


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
            if len(seen.outputs) == 1 and array.ndim == 3 and array.shape[2] > 4 and array.shape[1] <= self.most_queries
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
        rows = finite(arrays["rows"])
        return best_class(rows[:, :4], rows[:, 4:], box_format, inputs)


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
        boxes = finite(arrays["boxes"][:count])
        scores, ids = finite(arrays["scores"][:count]), finite(arrays["classes"][:count])
        return Candidates(to_corners(boxes, box_format, inputs), scores, ids_of(ids))


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


class YoloV7EndToEnd(Layout):
    """YOLOv7 with suppression inside: a row for each detection of any image of the batch, whose index comes first."""

    name = "yolov7_end_to_end"
    shape = "one output (detections, 7): image, x1, y1, x2, y2, class, score"
    preprocessing = YOLO
    box_format: BoxFormat = "xyxy"
    one_list = True

    def find(self, seen: Seen) -> list[Roles]:
        return [{"rows": name} for name, array in seen.outputs.items() if array.ndim == 2 and array.shape[1] == 7]

    def certain(self, seen: Seen, roles: Roles) -> bool:
        return len(seen.outputs[roles["rows"]]) != seen.images  # else it may be a classifier of seven classes

    def images(self, arrays: Mapping[str, Array], count: int) -> list[dict[str, Array]]:
        rows = finite(arrays["rows"])
        image = ids_of(rows[:, 0])
        if ((image < 0) | (image >= count)).any():
            raise ValueError(f"has rows of the images {image.min()} to {image.max()} of a batch of {count}")
        return [{"rows": rows[image == index, 1:]} for index in range(count)]

    def class_count(self, arrays: Mapping[str, Array], names: int) -> int | None:
        return None

    def read(self, arrays: Mapping[str, Array], box_format: str, inputs: ModelInputs, classes: int) -> Candidates:
        rows = arrays["rows"]
        return Candidates(to_corners(rows[:, :4], box_format, inputs), rows[:, 5], ids_of(rows[:, 4]))


class Paddle(Layout):
    """PaddleDetection: a row for each detection, those of one image after those of another, and how many each has."""

    name = "paddle"
    shape = "outputs (detections, 6): class, score, corners; and their number (n); an input scale_factor or im_shape"
    box_format: BoxFormat = "xyxy"
    one_list = True
    family = "paddle"

    def find(self, seen: Seen) -> list[Roles]:
        if not {kind for kind, _ in seen.inputs.others.values()} & {FACTORS, SHAPE}:
            return []
        rows = [name for name, array in seen.outputs.items() if array.ndim == 2 and array.shape[1] == 6]
        counts = [name for name, array in seen.outputs.items() if array.ndim == 1 and array.dtype.kind in "iu"]
        return [{"rows": one, "count": other} for one in rows for other in counts]

    def certain(self, seen: Seen, roles: Roles) -> bool:
        return seen.family == self.family

    def images(self, arrays: Mapping[str, Array], count: int) -> list[dict[str, Array]]:
        numbers, rows = arrays["count"].astype(np.intp), arrays["rows"]
        if len(numbers) != count or (numbers < 0).any() or numbers.sum() > len(rows):
            raise ValueError(f"has {len(rows)} rows where {numbers.tolist()} are announced for {count} images")
        ends = np.cumsum(numbers)
        return [{"rows": rows[end - number : end]} for end, number in zip(ends, numbers, strict=True)]

    def class_count(self, arrays: Mapping[str, Array], names: int) -> int | None:
        return None

    def read(self, arrays: Mapping[str, Array], box_format: str, inputs: ModelInputs, classes: int) -> Candidates:
        rows = finite(arrays["rows"])
        return Candidates(to_corners(rows[:, 2:], box_format, inputs), rows[:, 1], ids_of(rows[:, 0]))


class MmDeploy(Layout):
    """MMDetection as mmdeploy exports it: corners with the score behind them, and class ids."""

    name = "mmdeploy"
    shape = "outputs dets (n, detections, 5): x1, y1, x2, y2, score; and labels (n, detections)"
    preprocessing = Preprocessing(IMAGENET.scale, IMAGENET.mean, IMAGENET.std, letterbox="top_left", padding=0)
    box_format: BoxFormat = "xyxy"

    def find(self, seen: Seen) -> list[Roles]:
        rows = [name for name, array in seen.outputs.items() if array.ndim == 3 and array.shape[2] == 5]
        return [
            {"rows": name, "classes": other}
            for name in rows
            for other, array in seen.outputs.items()
            if array.shape == seen.outputs[name].shape[:2] and array.dtype.kind in "iu"
        ]

    def certain(self, seen: Seen, roles: Roles) -> bool:
        return False  # each of its models prepares pixels in its own way

    def class_count(self, arrays: Mapping[str, Array], names: int) -> int | None:
        return None

    def read(self, arrays: Mapping[str, Array], box_format: str, inputs: ModelInputs, classes: int) -> Candidates:
        rows = finite(arrays["rows"])
        corners = to_corners(rows[:, :4], box_format, inputs)
        return Candidates(corners, rows[:, 4], np.asarray(arrays["classes"], np.intp))
