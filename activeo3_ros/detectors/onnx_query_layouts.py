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

"""Output layouts with logits and a box for each query of a DETR or one of its kin."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .onnx_inputs import ModelInputs
from .onnx_outputs import (
    IMAGENET,
    Array,
    BoxFormat,
    Candidates,
    Floats,
    Layout,
    Masks,
    Roles,
    Seen,
    best_class,
    finite,
    to_corners,
)


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
        boxes = to_corners(finite(arrays["boxes"]), box_format, inputs)
        scores = _sigmoid(finite(arrays["logits"])[:, :classes])
        best = np.argsort(-scores, axis=None, kind="stable")[: self.most_pairs or len(boxes)]
        query, class_ids = np.divmod(best, scores.shape[1])
        return Candidates(boxes[query], scores.ravel()[best], class_ids, _masks_of(query, arrays))


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
        logits = finite(arrays["logits"])
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = powers[:, :-1] / powers.sum(axis=1, keepdims=True)
        found = best_class(finite(arrays["boxes"]), scores, box_format, inputs)
        return found._replace(masks=_masks_of(np.arange(len(logits)), arrays))


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


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -80, 80))), np.float32)


def _query_masks(seen: Seen) -> Roles:
    """The output that holds the mask of each query, if there is one."""
    names = [name for name, array in seen.outputs.items() if array.ndim == 4 and "mask" in name]
    return {"masks": names[0]} if len(names) == 1 else {}


def _masks_of(queries: npt.NDArray[np.intp], arrays: Mapping[str, Array]) -> Masks | None:
    """The masks of rows, each that of its query."""
    if "masks" not in arrays:
        return None
    masks = arrays["masks"]

    def part(row: int, rows: slice, columns: slice) -> Floats:
        return finite(masks[queries[row], rows, columns])

    return Masks((masks.shape[1], masks.shape[2]), part)
