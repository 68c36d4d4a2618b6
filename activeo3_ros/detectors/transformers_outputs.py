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

"""Reads the outputs of the detection models of transformers, as their own post-processing does, on their device.

Nothing here depends on the values that a model gives, only on shapes: it can be compiled with the model, and one copy
brings all boxes of a batch to the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch


class RawBoxes(NamedTuple):
    """Boxes of a batch of `n` images, `k` of each, in no order.

    Attributes:
        boxes: `(n, k, 4)` centre x, centre y, width, height as shares of the image.
        scores: `(n, k)` 0 to 1.
        classes: `(n, k)` int64 class ids.
        queries: `(n, k)` int64 index of the object query that gave the box.
    """

    boxes: torch.Tensor
    scores: torch.Tensor
    classes: torch.Tensor
    queries: torch.Tensor


def best_of_queries(outputs: Any) -> RawBoxes:
    """One box of each object query, of its best class; the last class means no object (as DETR)."""
    probabilities = outputs.logits.float().softmax(-1)[..., :-1]
    scores, classes = probabilities.max(-1)
    queries = _indices(scores)
    return RawBoxes(outputs.pred_boxes.float(), scores, classes, queries)


def best_of_pairs(outputs: Any, limit: int | None = None) -> RawBoxes:
    """The best pairs of object query and class; one query can give several boxes (as Deformable DETR).

    Args:
        outputs: Of the model.
        limit: Most boxes of an image; None for as many as there are queries.
    """
    logits = outputs.logits.float()
    count, queries, classes = logits.shape
    kept = min(limit or queries, queries * classes)
    scores, pairs = logits.sigmoid().reshape(count, -1).topk(kept, dim=1)
    of_query = pairs // classes
    boxes = outputs.pred_boxes.float().gather(1, of_query[..., None].expand(-1, -1, 4))
    return RawBoxes(boxes, scores, pairs % classes, of_query)


def best_names(outputs: Any) -> RawBoxes:
    """One box of each image patch, of its best name (as OWL-ViT)."""
    logits, classes = outputs.logits.float().max(-1)
    return RawBoxes(outputs.pred_boxes.float(), logits.sigmoid(), classes, _indices(classes))


def best_of_tokens(outputs: Any, tokens: torch.Tensor, first_class: int) -> RawBoxes:
    """One box of each object query, of the name with the best token (as GroundingDINO).

    Args:
        outputs: Of the model.
        tokens: `(names, most)` positions of each name's tokens in the text; a short name repeats one of its own.
        first_class: Class id of the first name of the text.
    """
    scores = outputs.logits.float().sigmoid()[:, :, tokens].amax(-1)
    best, classes = scores.max(-1)
    return RawBoxes(outputs.pred_boxes.float(), best, classes + first_class, _indices(best))


def _indices(like: torch.Tensor) -> torch.Tensor:
    """`(n, k)` with 0 to k - 1 in each row."""
    import torch

    return torch.arange(like.shape[1], device=like.device).expand(like.shape)


def _best_hundred(outputs: Any) -> RawBoxes:
    return best_of_pairs(outputs, 100)


READERS: Mapping[str, Callable[[Any], RawBoxes]] = {
    "conditional_detr": _best_hundred,
    "d_fine": best_of_pairs,
    "dab-detr": _best_hundred,
    "deformable_detr": _best_hundred,
    "deimv2": best_of_pairs,
    "detr": best_of_queries,
    "lw_detr": _best_hundred,
    "rf_detr": best_of_pairs,
    "rt_detr": best_of_pairs,
    "rt_detr_v2": best_of_pairs,
    "table-transformer": best_of_queries,
    "yolos": best_of_queries,
}
"""How the models of fixed classes are read, by the `model_type` in their config.json."""
