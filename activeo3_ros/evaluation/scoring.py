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

"""Scores of each method from the items of a run: quality, quality of the regions, cost, with confidence intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..codecs.rle import Mask, decode_rle
from ..core.geometry import Box, Boxes
from .datasets import Dataset, Sample
from .detector_oracle import TrueObject, matched
from .distances import by_distance
from .ground_truth_masks import decode_segmentation
from .interactive_segmentation import ZOOMS
from .item_files import read_items
from .methods import Method
from .metrics import (
    HEADLINES,
    MAX_DETECTIONS,
    NO_SCORE_RANK,
    DetectionScores,
    MetricName,
    draw_images,
    interval,
)
from .multiple_choice import chosen_option, letter_order
from .region_quality import region_quality

Items = list[dict[str, Any]]
ACCURACY = "accuracy"
"""The metric of multiple choice: the share of right answers."""
CORRECTED_IOU = "mIoU at zoom budget"
"""The metrics of interactive segmentation; the number of zooms follows."""
RECALL = "recall"
"""Of objects at a distance, at an IoU of 0.5; what it is follows."""
MASK_IOU = "mask mIoU"
"""The metric of masks beside detections."""


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % bootstrap interval; NaN where the ground truth has no object to judge by."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @staticmethod
    def of(value: float, replicates: npt.NDArray[np.float64]) -> Estimate:
        """A number with the interval of its bootstrap replicates."""
        return Estimate(value, *interval(replicates))

    def to_json(self) -> list[float | None]:
        """`[value, low, high]`, None for a number that does not exist."""
        return [None if not math.isfinite(x) else round(x, 9) for x in (self.value, self.low, self.high)]


@dataclass(frozen=True)
class MethodScores:
    """The scores of one method.

    Attributes:
        method: The method.
        quality: Metrics by name.
        by_category: Value of each category, by metric.
        regions: `coverage`, `purity` and `overlap` of the regions.
        cost: Means a frame (`regions`, `views`, `pixels`, `tokens`, `calls`), and `ms_p50` and `ms_p95`, milliseconds a
            frame.
        failed: Number of failed frames.
        failure: Why the first of them failed.
        coarse: Number of frames whose deadline stopped the zooming.
        unscored: Number of detections without a score.
        unknown_labels: How often each label occurs that is no category.
        replicates: Bootstrap values by metric, paired with those of the other methods.
        frame_recall: Share of the objects of each sample that were found at IoU 0.5, NaN where there are none.
    """

    method: Method
    quality: dict[str, Estimate]
    by_category: dict[str, dict[str, float]]
    regions: dict[str, Estimate]
    cost: dict[str, float]
    failed: int
    failure: str
    coarse: int
    unscored: int
    unknown_labels: dict[str, int]
    replicates: dict[str, npt.NDArray[np.float64]]
    frame_recall: list[float]


def score(
    out: Path,
    dataset: Dataset,
    methods: Sequence[Method],
    replicates: int,
    seed: int,
    max_detections: int = MAX_DETECTIONS[-1],
) -> list[MethodScores]:
    """Score the items of a complete run.

    Args:
        out: Directory of the results.
        dataset: The data set of the run.
        methods: Methods to score.
        replicates: Number of bootstrap replicates.
        seed: Seed of the bootstrap.
        max_detections: Detections that count, of one category in one image.

    Returns:
        The scores in the order of the methods.

    Raises:
        InvalidInput: An item is missing or damaged.
    """
    draws = draw_images(len(dataset.truth["images"]), replicates, seed)
    return [_score_method(read_items(out, dataset, m), dataset, m, draws, max_detections) for m in methods]


def _score_method(
    items: Items, dataset: Dataset, method: Method, draws: npt.NDArray[np.intp], max_detections: int
) -> MethodScores:
    if dataset.samples[0].choices:
        return _score_answers(items, dataset, method, draws)
    if dataset.interactive:
        return _score_corrections(items, dataset, method, draws)
    predictions, unscored, unknown = predictions_of(items, dataset)
    scores = DetectionScores(dataset.truth, predictions, max_detections=(max_detections,))
    quality = {str(name): Estimate(scores.value(name)) for name in HEADLINES}
    values = scores.resampled(HEADLINES, draws)
    resampled = {str(name): values[:, column] for column, name in enumerate(HEADLINES)}
    for name, drawn in resampled.items():
        quality[name] = Estimate(quality[name].value, *interval(drawn))
    mask_ious = _mask_ious(items, dataset)
    if mask_ious is not None:
        quality[MASK_IOU], resampled[MASK_IOU] = mean_of(mask_ious, draws)
    for name, (found, objects) in _found_by_distance(items, dataset).items():
        quality[name], resampled[name] = share_of(found, objects, draws)
    by_category = {str(name): scores.by_category(name) for name in (MetricName("AP"), MetricName("AR"))}
    return MethodScores(
        method=method,
        quality=quality,
        by_category=by_category,
        regions=_regions(items, dataset, draws),
        cost=_cost(items),
        failed=sum(item["status"] == "failed" for item in items),
        failure=first_failure(items),
        coarse=sum(item["status"] == "coarse" for item in items),
        unscored=unscored,
        unknown_labels=unknown,
        replicates=resampled,
        frame_recall=_recall_by_frame(items, dataset),
    )


def _score_answers(items: Items, dataset: Dataset, method: Method, draws: npt.NDArray[np.intp]) -> MethodScores:
    """The share of right answers; no answer, and an answer that fits several choices, count as wrong."""
    right = [
        float(option_of(item, sample, dataset, sample.name) == 0)
        for item, sample in zip(items, dataset.samples, strict=True)
    ]
    kinds = [sample.name.partition("/")[0] for sample in dataset.samples]
    quality, replicates = {}, {}
    for kind in (ACCURACY, *dict.fromkeys(kinds)):
        values = np.array(
            [value if kind in (ACCURACY, own) else math.nan for value, own in zip(right, kinds, strict=True)]
        )
        name = kind if kind == ACCURACY else f"{ACCURACY} {kind}"
        quality[name], replicates[name] = mean_of(values, draws)
    for end, mask in by_distance([sample.distance_m for sample in dataset.samples]).items():
        name = f"{ACCURACY} {end}"
        quality[name], replicates[name] = mean_of(np.where(mask, right, math.nan), draws)
    return without_detections(items, dataset, method, draws, quality, replicates, right)


def option_of(item: Mapping[str, Any], sample: Sample, dataset: Dataset, name: str) -> int | None:
    """The index of the option that an item's answer means; None where it failed, or means none, or several alike.

    Args:
        item: The item.
        sample: With the options.
        dataset: Whose facts say whether the options were asked for by letters.
        name: Of the question, after which its letters are ordered.
    """
    order = letter_order(len(sample.choices), int(dataset.facts["subset_seed"]), name)
    answer = None if item["status"] == "failed" else item["answer"]
    return chosen_option(answer, sample.choices, order if dataset.facts["asked with choices"] else None)


def _score_corrections(items: Items, dataset: Dataset, method: Method, draws: npt.NDArray[np.intp]) -> MethodScores:
    """The mean IoU of the masks after 0 to 3 zooms; 0 for a frame that failed."""
    quality, replicates = {}, {}
    for zooms in range(ZOOMS + 1):
        values = np.array([item["ious"][zooms] if item["status"] != "failed" else 0.0 for item in items])
        name = f"{CORRECTED_IOU} {zooms}"
        quality[name], replicates[name] = mean_of(values, draws)
    last = [item["ious"][-1] if item["status"] != "failed" else 0.0 for item in items]
    return without_detections(items, dataset, method, draws, quality, replicates, last)


def without_detections(
    items: Items,
    dataset: Dataset,
    method: Method,
    draws: npt.NDArray[np.intp],
    quality: dict[str, Estimate],
    replicates: dict[str, npt.NDArray[np.float64]],
    by_frame: list[float],
) -> MethodScores:
    """The scores of a protocol that judges no detections: its own metrics beside regions, cost and failures."""
    return MethodScores(
        method=method,
        quality=quality,
        by_category={},
        regions=_regions(items, dataset, draws),
        cost=_cost(items),
        failed=sum(item["status"] == "failed" for item in items),
        failure=first_failure(items),
        coarse=sum(item["status"] == "coarse" for item in items),
        unscored=0,
        unknown_labels={},
        replicates=replicates,
        frame_recall=by_frame,
    )


def predictions_of(items: Items, dataset: Dataset) -> tuple[list[dict[str, Any]], int, dict[str, int]]:
    """Convert items to COCO results.

    A failed item has no detections, whatever else it holds. A score that does not exist is not invented: such
    detections rank after those that have one.

    Args:
        items: The items of a method.
        dataset: Knows the category of each label.

    Returns:
        COCO results; how many have no score of their own; how often each label occurs that is no category.
    """
    rows: list[dict[str, Any]] = []
    unscored, unknown = 0, Counter[str]()
    for item in items:
        for found in item["detections"] if item["status"] != "failed" else ():
            category = dataset.category_of(found["label"])
            if category is None:
                unknown[found["label"]] += 1
                continue
            unscored += found["score"] is None
            rows.append(
                {
                    "image_id": item["sample"],
                    "category_id": category,
                    "bbox": [found["x"], found["y"], found["width"], found["height"]],
                    "score": NO_SCORE_RANK if found["score"] is None else found["score"],
                }
            )
    return rows, unscored, dict(unknown)


def boxes_of(found: Sequence[Mapping[str, float]]) -> Boxes:
    """`(n, 4)` boxes `x, y, width, height` of the regions or detections of an item, in source pixels."""
    return np.array([[row["x"], row["y"], row["width"], row["height"]] for row in found], np.float64).reshape(-1, 4)


def _regions(items: Items, dataset: Dataset, draws: npt.NDArray[np.intp]) -> dict[str, Estimate]:
    found = [region_quality(boxes_of(item["regions"]), dataset.boxes(item["sample"])) for item in items]
    covered, objects = np.array([q.covered for q in found], float), np.array([q.objects for q in found], float)
    return {
        "coverage": share_of(covered, objects, draws)[0],
        "purity": mean_of(np.array([q.purity for q in found]), draws)[0],
        "overlap": mean_of(np.array([q.overlap for q in found]), draws)[0],
    }


def share_of(
    counted: npt.NDArray[np.float64], of: npt.NDArray[np.float64], draws: npt.NDArray[np.intp]
) -> tuple[Estimate, npt.NDArray[np.float64]]:
    """The share of what all images together have, from the counts of each image, and its replicates."""
    with np.errstate(invalid="ignore"):
        drawn = counted[draws].sum(axis=1) / of[draws].sum(axis=1)
    total = counted.sum() / of.sum() if of.sum() else math.nan
    return Estimate.of(float(total), drawn), drawn


def mean_of(values: npt.NDArray[np.float64], draws: npt.NDArray[np.intp]) -> tuple[Estimate, npt.NDArray[np.float64]]:
    """The mean over the images that have a value, and its replicates."""
    has = np.isfinite(values)
    if not has.any():
        return Estimate(math.nan), np.full(len(draws), math.nan)
    filled = np.where(has, values, 0.0)
    with np.errstate(invalid="ignore"):
        drawn = filled[draws].sum(axis=1) / has[draws].sum(axis=1)
    return Estimate(float(values[has].mean()), *interval(drawn)), drawn


def _cost(items: Items) -> dict[str, float]:
    """Means a frame, and percentiles of the time of a frame in milliseconds."""
    times = [item["timings_ms"]["total"] for item in items if "total" in item["timings_ms"]]
    mean = {
        name: float(np.mean([item["cost"][name] for item in items])) for name in ("views", "pixels", "tokens", "calls")
    }
    p50, p95 = np.percentile(times, [50, 95]) if times else (math.nan, math.nan)
    mean["regions"] = float(np.mean([len(item["regions"]) for item in items]))
    return {**mean, "ms_p50": float(p50), "ms_p95": float(p95)}


def first_failure(items: Items) -> str:
    """Why the first of the failed frames failed, "" if none did."""
    return next((str(item["status_message"]) for item in items if item["status"] == "failed"), "")


def _mask_ious(items: Items, dataset: Dataset) -> npt.NDArray[np.float64] | None:
    """For each image the mean over its true masks of the IoU with the best found one of that category.

    A frame that failed has found none. None where no masks were asked for.
    """
    if not any(sample.query.masks for sample in dataset.samples):
        return None
    means = []
    for item in items:
        ious = []
        for row in dataset.objects(item["sample"]):
            if item["status"] == "failed":
                ious += [0.0] if row.get("segmentation") else []
                continue
            true = decode_segmentation(row.get("segmentation"), item["height"], item["width"])
            if true is None:
                continue
            candidates = [m for m in item["masks"] if dataset.category_of(m["label"]) == row["category_id"]]
            ious.append(max((_mask_iou(true, mask) for mask in candidates), default=0.0))
        means.append(float(np.mean(ious)) if ious else math.nan)
    return np.array(means)


def _mask_iou(true: Mask, found: Mapping[str, Any]) -> float:
    """IoU of a mask of the whole image with a mask that covers a box of whole pixels."""
    part = decode_rle(found["counts"].encode("ascii"), *found["size"])
    x, y = round(found["x"]), round(found["y"])
    under = true[y : y + part.shape[0], x : x + part.shape[1]]
    shared = int((under & part[: under.shape[0], : under.shape[1]]).sum())
    union = int(true.sum()) + int(part.sum()) - shared
    return shared / union if union else 0.0


def _found_by_distance(
    items: Items, dataset: Dataset
) -> dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Found objects and all objects of each image, by the name of their recall; nothing where none has a distance."""
    frames: list[int] = []
    hits: list[bool] = []
    distances: list[float] = []
    for frame, item in enumerate(items):
        rows = dataset.objects(item["sample"])
        found = objects_found(item, [TrueObject(row["category_id"], Box(*row["bbox"])) for row in rows], dataset)
        frames += [frame] * len(rows)
        hits += [index in found for index in range(len(rows))]
        distances += [row.get("distance_m", math.nan) for row in rows]
    count = len(items)
    return {
        f"{RECALL} {end}": (
            np.asarray(np.bincount(frames, np.asarray(hits & mask, np.float64), count), np.float64),
            np.asarray(np.bincount(frames, np.asarray(mask, np.float64), count), np.float64),
        )
        for end, mask in by_distance(distances).items()
    }


def _recall_by_frame(items: Items, dataset: Dataset) -> list[float]:
    """The share of the objects of each frame that were found, each by a detection of its own and of its category."""
    recalls = []
    for item in items:
        objects = [TrueObject(row["category_id"], Box(*row["bbox"])) for row in dataset.objects(item["sample"])]
        recalls.append(len(objects_found(item, objects, dataset)) / len(objects) if objects else math.nan)
    return recalls


def objects_found(item: Mapping[str, Any], objects: Sequence[TrueObject], dataset: Dataset) -> set[int]:
    """Indices of the true objects that the detections of an item find; none where the frame failed."""
    if item["status"] == "failed":
        return set()
    found = [
        (NO_SCORE_RANK if each["score"] is None else each["score"], category, Box(*box))
        for each, box in zip(item["detections"], boxes_of(item["detections"]).tolist(), strict=True)
        if (category := dataset.category_of(each["label"])) is not None
    ]
    return {index for index, _ in matched(objects, found)}
