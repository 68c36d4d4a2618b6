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

"""The rewards of ACTIVE-o3 (arXiv 2505.21457, section 3) for a choice of regions.

Two forms, added up. The heuristic form judges the regions alone: well-formed, apart, of a sensible size, covering the
targets. The task form judges a task model's detections in them. Every term is a pure function that gives 0 to 1
(detection: 0 to 2), so that terms can be tested by hand, logged one by one, and weighed.

Boxes are `(n, 4)` arrays of `x, y, width, height` in pixels, all of one call in the same image, origin at its top left
corner; masks are `(h, w)` bool of that image. Where the paper leaves a case open, the docstring says how it is decided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..core.errors import InvalidInput
from ..core.geometry import Boxes, iou, mask_of, purity

Mask = npt.NDArray[np.bool_]
Coverage = Literal["purity", "matched", "dice", "iou"]
COVERAGES: tuple[Coverage, ...] = ("purity", "matched", "dice", "iou")


def _check(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise InvalidInput(f"{name} must be {low:g} to {high:g}, got {value!r}")


@dataclass(frozen=True)
class RewardWeights:
    """The weight of each term in the total, 0 to 100; the paper uses 1 for all. Zero switches a term off.

    Two are none of the paper's. `looks`: each region costs a look, which has to pay for itself by what it adds to the
    others. `negatives`: a picture without targets needs no region; with a weight, an answer without regions is also
    taken for well-formed, apart and of a sensible size there, which the paper's terms give to regions alone.
    """

    format: float = 1.0
    overlap: float = 1.0
    area: float = 1.0
    coverage: float = 1.0
    task: float = 1.0
    looks: float = 0.0
    negatives: float = 0.0

    def __post_init__(self) -> None:
        for each in fields(self):
            _check(f"weight of {each.name}", getattr(self, each.name), 0.0, 100.0)


@dataclass(frozen=True)
class RewardSettings:
    """Thresholds of the terms, all of them shares, 0 to 1, and their weights.

    Attributes:
        max_pair_iou: Largest IoU that two regions may have.
        min_area: Of a region, as a share of the image.
        max_area: Of a region, as a share of the image.
        coverage: The variant of the paper's coverage, see `coverage_term`.
        min_purity: The paper's theta, which is not published.
        min_match_iou: The paper's delta, which is not published.
        detection_iou: IoU from which a detection counts in the task term.
        weights: Of the terms.
    """

    max_pair_iou: float = 0.3
    min_area: float = 0.01
    max_area: float = 0.5
    coverage: Coverage = "purity"
    min_purity: float = 0.1
    min_match_iou: float = 0.3
    detection_iou: float = 0.5
    weights: RewardWeights = RewardWeights()

    def __post_init__(self) -> None:
        for name in ("max_pair_iou", "min_area", "max_area", "min_purity", "min_match_iou", "detection_iou"):
            _check(name, getattr(self, name), 0.0, 1.0)
        if self.min_area > self.max_area:
            raise InvalidInput(f"min_area {self.min_area} is above max_area {self.max_area}")
        if self.coverage not in COVERAGES:
            raise InvalidInput(f"unknown coverage {self.coverage!r}; known are {', '.join(COVERAGES)}")


@dataclass(frozen=True)
class Reward:
    """The terms of one answer by name, and their weighted sum."""

    terms: Mapping[str, float] = field(default_factory=dict)
    total: float = 0.0


def format_term(thought: bool, answered: bool, parsed: bool) -> float:
    """Reward an answer of the right form.

    Args:
        thought: Whether the `<think>` tag is there, opened and closed.
        answered: Whether the `<answer>` tag is there, opened and closed.
        parsed: Whether the answer is the JSON asked for without any repair.

    Returns:
        1 if all are true, else 0.
    """
    return float(thought and answered and parsed)


def overlap_term(regions: npt.ArrayLike, max_pair_iou: float) -> float:
    """Reward regions that lie apart.

    Args:
        regions: `(n, 4)`, pixels.
        max_pair_iou: Largest IoU that two of them may have.

    Returns:
        1 if no two overlap by more; else, and without any region, 0.
    """
    regions = _boxes(regions)
    if not len(regions):
        return 0.0
    pairs = iou(regions, regions)[np.triu_indices(len(regions), k=1)]
    return float(np.all(pairs <= max_pair_iou))


def area_term(regions: npt.ArrayLike, width: int, height: int, min_area: float, max_area: float) -> float:
    """Reward regions of a sensible size.

    The pixel count is inclusive, as in the paper: corners `x1, y1, x2, y2` span `(x2 - x1 + 1) * (y2 - y1 + 1)` pixels.

    Args:
        regions: `(n, 4)`, pixels.
        width: Of the image, pixels.
        height: Of the image, pixels.
        min_area: Least share of the image.
        max_area: Greatest share of the image.

    Returns:
        1 if the share of every region is within the limits; else, and without any region, 0.
    """
    regions = _boxes(regions)
    if not len(regions):
        return 0.0
    shares = (regions[:, 2] + 1) * (regions[:, 3] + 1) / (width * height)
    return float(np.all((shares >= min_area) & (shares <= max_area)))


def looks_term(regions: npt.ArrayLike, max_regions: int) -> float:
    """Reward the looks that were not spent.

    Args:
        regions: `(n, 4)`.
        max_regions: The most that could have been spent, at least 1.

    Returns:
        The share of them that is left; 0 for more regions than that.
    """
    return max(0.0, 1.0 - len(_boxes(regions)) / max_regions)


def negatives_term(regions: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Reward the answer that no region is needed, where none is.

    Args:
        regions: `(n, 4)`.
        targets: `(m, 4)`.

    Returns:
        1 with neither regions nor targets, else 0; so a picture with targets has no part in it.
    """
    return float(not len(_boxes(regions)) and not len(_boxes(targets)))


def purity_coverage(regions: npt.ArrayLike, mask: Mask, min_purity: float) -> float:
    """Compute the share of regions that hold enough pixels of targets.

    Args:
        regions: `(n, 4)`, pixels.
        mask: `(h, w)`, the pixels of all targets.
        min_purity: Least share of a region's pixels that belong to targets.

    Returns:
        0 to 1; 1 with neither regions nor targets, 0 with only one of them.
    """
    regions = _boxes(regions)
    if not len(regions):
        return float(not mask.any())
    return float(np.mean([purity(row, mask) >= min_purity for row in regions])) if mask.any() else 0.0


def matched_coverage(regions: npt.ArrayLike, targets: npt.ArrayLike, min_match_iou: float) -> float:
    """Compute the share of targets that some region matches. One region may match several.

    Args:
        regions: `(n, 4)`, pixels.
        targets: `(m, 4)`, pixels.
        min_match_iou: Least IoU of a match.

    Returns:
        0 to 1; without targets 1 if there are no regions, else 0.
    """
    regions, targets = _boxes(regions), _boxes(targets)
    if not len(targets):
        return float(not len(regions))
    if not len(regions):
        return 0.0
    return float(np.mean(iou(targets, regions).max(axis=1) >= min_match_iou))


def merged_coverage(regions: npt.ArrayLike, mask: Mask, measure: Literal["dice", "iou"]) -> float:
    """Compute Dice or IoU between all regions taken together and the targets.

    Args:
        regions: `(n, 4)`, pixels.
        mask: `(h, w)`, the pixels of all targets.
        measure: `dice` or `iou`.

    Returns:
        0 to 1; 1 with neither regions nor targets.
    """
    covered = mask_of(regions, mask.shape[1], mask.shape[0])
    shared, both = int((covered & mask).sum()), int(covered.sum()) + int(mask.sum())
    if not both:
        return 1.0
    return 2 * shared / both if measure == "dice" else shared / (both - shared)


def coverage_term(regions: npt.ArrayLike, targets: npt.ArrayLike, mask: Mask, settings: RewardSettings) -> float:
    """Reward regions that cover the targets, by the variant of coverage that the settings name.

    Args:
        regions: `(n, 4)`, pixels.
        targets: `(m, 4)`, pixels; used by `matched`.
        mask: `(h, w)`, the pixels of all targets; used by the others.
        settings: `coverage` is `purity`, `matched`, or `dice` or `iou` of the merged regions.

    Returns:
        0 to 1.
    """
    if settings.coverage == "purity":
        return purity_coverage(regions, mask, settings.min_purity)
    if settings.coverage == "matched":
        return matched_coverage(regions, targets, settings.min_match_iou)
    return merged_coverage(regions, mask, settings.coverage)


def detection_term(
    boxes: npt.ArrayLike,
    scores: npt.ArrayLike,
    labels: Sequence[str],
    target_boxes: npt.ArrayLike,
    target_labels: Sequence[str],
    min_iou: float = 0.5,
) -> float:
    """Compute AP + AR of the detections in one image, each averaged over the classes that have targets, as in COCO.

    Args:
        boxes: `(n, 4)`, pixels, the detections.
        scores: `(n,)`; NaN where the model gives none: those rank last, in the order given.
        labels: The class of each detection.
        target_boxes: `(m, 4)`, pixels.
        target_labels: The class of each target.
        min_iou: IoU from which a detection hits a target.

    Returns:
        0 to 2; without any target 2 if there is no detection, else 0, where COCO has no value.
    """
    boxes, target_boxes = _boxes(boxes), _boxes(target_boxes)
    scores = np.asarray(scores, np.float64)
    if not len(target_boxes):
        return 0.0 if len(boxes) else 2.0
    names, target_names = np.asarray(labels, object), np.asarray(target_labels, object)
    values = []
    for label in dict.fromkeys(target_labels):
        mine, theirs = names == label, target_boxes[target_names == label]
        hits = match(boxes[mine], scores[mine], theirs, min_iou) >= 0
        values.append(average_precision(hits, len(theirs)) + float(hits.sum()) / len(theirs))
    return float(np.mean(values))


def match(boxes: npt.ArrayLike, scores: npt.ArrayLike, targets: npt.ArrayLike, min_iou: float) -> npt.NDArray[np.intp]:
    """Match detections with targets as COCO does: each takes the free target that it overlaps most, best score first.

    Args:
        boxes: `(n, 4)`, pixels, the detections.
        scores: `(n,)`; NaN ranks last.
        targets: `(m, 4)`, pixels.
        min_iou: Least IoU of a match.

    Returns:
        `(n,)`, the index of the target that each detection hits, -1 for none, in the order of the scores.
    """
    boxes, targets = _boxes(boxes), _boxes(targets)
    scores = np.asarray(scores, np.float64)
    overlaps = iou(boxes, targets)
    free = np.ones(len(targets), bool)
    hits = []
    for index in np.argsort(-np.where(np.isnan(scores), -math.inf, scores), kind="stable"):
        candidates = np.where(free, overlaps[index], -1.0)
        best = int(candidates.argmax()) if len(targets) else -1
        if best >= 0 and candidates[best] < min_iou:
            best = -1
        if best >= 0:
            free[best] = False
        hits.append(best)
    return np.array(hits, np.intp)


def average_precision(hits: npt.NDArray[np.bool_], targets: int) -> float:
    """Compute COCO's average precision at 101 recalls.

    Args:
        hits: `(n,)`, whether each detection hits a target, best score first.
        targets: Number of targets.

    Returns:
        0 to 1.
    """
    if not len(hits):
        return 0.0
    found = np.cumsum(hits)
    precision = np.maximum.accumulate((found / np.arange(1, len(hits) + 1))[::-1])[::-1]
    at = np.searchsorted(found / targets, np.linspace(0, 1, 101), side="left")
    return float(np.where(at < len(hits), precision[np.minimum(at, len(hits) - 1)], 0.0).mean())


def segmentation_term(mask: Mask, target: Mask) -> float:
    """Compute the IoU of a mask with the true one.

    Args:
        mask: `(h, w)`.
        target: `(h, w)`, the true one.

    Returns:
        0 to 1; 1 if both are empty.

    Raises:
        InvalidInput: They differ in shape.
    """
    if mask.shape != target.shape:
        raise InvalidInput(f"masks of {mask.shape} and {target.shape} cannot be compared; map one to the other first")
    union = int((mask | target).sum())
    return int((mask & target).sum()) / union if union else 1.0


def combine(terms: Mapping[str, float], weights: RewardWeights) -> Reward:
    """Sum the terms, each times its weight: the dual-form reward.

    Args:
        terms: By name; one that was not computed counts nothing.
        weights: Of the terms.

    Returns:
        The terms and their sum.
    """
    return Reward(dict(terms), float(sum(getattr(weights, name) * value for name, value in terms.items())))


def _boxes(boxes: npt.ArrayLike) -> Boxes:
    return np.asarray(boxes, np.float64).reshape(-1, 4)
