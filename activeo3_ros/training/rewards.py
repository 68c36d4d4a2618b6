"""The rewards of ACTIVE-o3 (arXiv 2505.21457, section 3): what a choice of regions is worth.

Two forms, added up. The heuristic form looks at the regions alone: are they well-formed, apart, of a sensible size,
and do
they cover targets. The task form looks at what a task model finds in them. Every term is a pure function that gives 0
to 1
(detection: 0 to 2), so that terms can be tested by hand, logged one by one, and weighed.

Boxes are `(n, 4)` arrays of `x, y, width, height` in pixels, all of one call in the same image; masks are `(h, w)`
bool of
that image. Where the paper leaves a case open, the choice made here is in the docstring.
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
    """How much each term counts in the total; the paper uses 1 for all. Zero switches a term off."""

    format: float = 1.0
    overlap: float = 1.0
    area: float = 1.0
    coverage: float = 1.0
    task: float = 1.0

    def __post_init__(self) -> None:
        for each in fields(self):
            _check(f"weight of {each.name}", getattr(self, each.name), 0.0, 100.0)


@dataclass(frozen=True)
class RewardSettings:
    """What the terms compare against. All are shares, 0 to 1.

    max_pair_iou: largest IoU that two regions may have. min_area, max_area: of a region, as a share of the image.
    coverage: which of the paper's variants (see `coverage`). min_purity: theta, min_match_iou: delta; neither is
    published.
    detection_iou: IoU from which a detection counts in the task term.
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
    """The terms of one response by name, and their weighted sum."""

    terms: Mapping[str, float] = field(default_factory=dict)
    total: float = 0.0


def format_term(thought: bool, answered: bool, parsed: bool) -> float:
    """1 if both tags are there, each opened and closed, and the answer is the JSON asked for without any repair."""
    return float(thought and answered and parsed)


def overlap_term(regions: npt.ArrayLike, max_pair_iou: float) -> float:
    """1 if no two of the `(n, 4)` regions overlap by more than `max_pair_iou`; 0 without any region."""
    regions = _boxes(regions)
    if not len(regions):
        return 0.0
    pairs = iou(regions, regions)[np.triu_indices(len(regions), k=1)]
    return float(np.all(pairs <= max_pair_iou))


def area_term(regions: npt.ArrayLike, width: int, height: int, min_area: float, max_area: float) -> float:
    """1 if every region's share of a `width` x `height` image is in `[min_area, max_area]`; 0 without any region.

    The pixel count is inclusive, as in the paper: corners `x1, y1, x2, y2` span `(x2 - x1 + 1) * (y2 - y1 + 1)` pixels.
    """
    regions = _boxes(regions)
    if not len(regions):
        return 0.0
    shares = (regions[:, 2] + 1) * (regions[:, 3] + 1) / (width * height)
    return float(np.all((shares >= min_area) & (shares <= max_area)))


def purity_coverage(regions: npt.ArrayLike, mask: Mask, min_purity: float) -> float:
    """Share of the regions of whose pixels at least `min_purity` belong to a target; 1 if there is neither, 0 if one
    lacks.
    """
    regions = _boxes(regions)
    if not len(regions):
        return float(not mask.any())
    return float(np.mean([purity(row, mask) >= min_purity for row in regions])) if mask.any() else 0.0


def matched_coverage(regions: npt.ArrayLike, targets: npt.ArrayLike, min_match_iou: float) -> float:
    """Share of the `(m, 4)` targets that some region matches at an IoU of at least `min_match_iou`.

    One region may match several targets. Without targets it is 1 if there are no regions, else 0.
    """
    regions, targets = _boxes(regions), _boxes(targets)
    if not len(targets):
        return float(not len(regions))
    if not len(regions):
        return 0.0
    return float(np.mean(iou(targets, regions).max(axis=1) >= min_match_iou))


def merged_coverage(regions: npt.ArrayLike, mask: Mask, measure: Literal["dice", "iou"]) -> float:
    """Dice or IoU between all regions taken together and the targets' pixels; 1 if there are neither."""
    covered = mask_of(regions, mask.shape[1], mask.shape[0])
    shared, both = int((covered & mask).sum()), int(covered.sum()) + int(mask.sum())
    if not both:
        return 1.0
    return 2 * shared / both if measure == "dice" else shared / (both - shared)


def coverage_term(regions: npt.ArrayLike, targets: npt.ArrayLike, mask: Mask, settings: RewardSettings) -> float:
    """The variant of coverage that the settings name: `purity`, `matched`, or `dice` or `iou` of the merged regions."""
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
    """AP + AR of one image's detections at `min_iou`, 0 to 2, each averaged over the classes that have targets, as in
    COCO.

    boxes `(n, 4)`, scores `(n,)`, NaN where the model gives none: those rank last, in the order given. Without any
    target it
    is 2 if nothing was found, else 0, where COCO has no value.
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
    """The target that each detection hits, best score first, -1 for none; `(n,)` in that order.

    Each takes the target not yet taken that it overlaps most, at an IoU of at least `min_iou`: COCO's matching.
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
    """COCO's average precision, 0 to 1, at 101 recalls, of detections ranked best first and the number of targets."""
    if not len(hits):
        return 0.0
    found = np.cumsum(hits)
    precision = np.maximum.accumulate((found / np.arange(1, len(hits) + 1))[::-1])[::-1]
    at = np.searchsorted(found / targets, np.linspace(0, 1, 101), side="left")
    return float(np.where(at < len(hits), precision[np.minimum(at, len(hits) - 1)], 0.0).mean())


def segmentation_term(mask: Mask, target: Mask) -> float:
    """IoU, 0 to 1, between an `(h, w)` mask and the true one; 1 if both are empty."""
    if mask.shape != target.shape:
        raise InvalidInput(f"masks of {mask.shape} and {target.shape} cannot be compared; map one to the other first")
    union = int((mask | target).sum())
    return int((mask & target).sum()) / union if union else 1.0


def combine(terms: Mapping[str, float], weights: RewardWeights) -> Reward:
    """The dual-form reward: the sum of the terms, each times its weight. A term that was not computed counts
    nothing.
    """
    return Reward(dict(terms), float(sum(getattr(weights, name) * value for name, value in terms.items())))


def _boxes(boxes: npt.ArrayLike) -> Boxes:
    return np.asarray(boxes, np.float64).reshape(-1, 4)
