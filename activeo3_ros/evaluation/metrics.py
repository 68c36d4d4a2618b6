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

"""COCO average precision and recall, computed by faster-coco-eval, with a bootstrap over images.

Every number is 0 to 1, NaN where the ground truth has no object to judge by.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.optional import require_package

IOUS = (0.1, *(round(0.5 + 0.05 * step, 2) for step in range(10)))
"""IoU thresholds: 0.1 is that of SODA; the others are COCO's."""
COCO_IOUS = IOUS[1:]
AREAS: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e10),
    "tiny": (0.0, 10.0**2),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""Square pixels of the source image: COCO's bounds, and "tiny", the bound of LVIS-small."""
MAX_DETECTIONS = (1, 10, 100)
RECALLS = 101
NO_SCORE_RANK = -1.0
"""Detections without a score rank after all others, in the order of the model."""


@dataclass(frozen=True)
class MetricName:
    """The name of one metric, printed as `AP50 small`.

    Attributes:
        kind: `AP` or `AR`.
        ious: IoU thresholds over which it is averaged.
        area: Size of the objects, a key of `AREAS`.
    """

    kind: str
    ious: tuple[float, ...] = COCO_IOUS
    area: str = "all"

    def __str__(self) -> str:
        at = f"{round(100 * self.ious[0])}" if len(self.ious) == 1 else ""
        return f"{self.kind}{at}" + ("" if self.area == "all" else f" {self.area}")


HEADLINES: tuple[MetricName, ...] = tuple(
    MetricName(kind, ious, area)
    for ious, areas in ((COCO_IOUS, tuple(AREAS)), ((0.5,), ("all", "tiny", "small")), ((0.1,), ("all", "small")))
    for kind in ("AP", "AR")
    for area in areas
)


class DetectionScores:
    """The scores of one method on one data set."""

    def __init__(
        self,
        truth: Mapping[str, Any],
        predictions: Sequence[Mapping[str, Any]],
        max_detections: Sequence[int] = MAX_DETECTIONS,
        iou_type: str = "bbox",
        ious: Sequence[float] = IOUS,
        areas: Mapping[str, tuple[float, float]] = AREAS,
    ) -> None:
        """Match predictions with the ground truth.

        Args:
            truth: COCO annotations.
            predictions: COCO results, with `image_id`, `category_id`, `bbox` and `score`.
            max_detections: Numbers of detections of one category in one image that count; `value` reports the last.
            iou_type: `bbox` or `segm`.
            ious: IoU thresholds.
            areas: Bounds of the sizes of objects in square pixels, by name.

        Raises:
            MissingPackageError: faster-coco-eval is not installed.
        """
        package = require_package("faster_coco_eval", "to compute AP and AR", "faster-coco-eval")
        self._cpp = require_package("faster_coco_eval.faster_eval_api_cpp", "to compute AP and AR", "faster-coco-eval")
        self.ious, self.areas = tuple(ious), dict(areas)
        self.categories = {int(row["id"]): str(row["name"]) for row in truth["categories"]}
        coco = package.COCO(copy.deepcopy(dict(truth)))
        results = coco.loadRes([dict(row) for row in predictions])
        self._evaluation = package.COCOeval_faster(
            coco, results, iou_type, print_function=lambda *_: None, separate_eval=True
        )
        parameters = self._evaluation.params
        parameters.iouThrs = np.array(self.ious)
        parameters.areaRng = [list(bounds) for bounds in self.areas.values()]
        parameters.areaRngLbl = list(self.areas)
        parameters.maxDets = sorted(max_detections)
        self._evaluation.evaluate()
        self._evaluation.accumulate()
        self._images = len(self._evaluation.params.imgIds)
        self._precision, self._recall = self._arrays(self._evaluation.eval)

    @property
    def images(self) -> int:
        """The number of images, with objects or without."""
        return self._images

    def value(self, name: MetricName, max_detections: int = -1) -> float:
        """The value of a metric. max_detections: an index into those of the constructor."""
        return self._summarise(self._precision, self._recall, name, max_detections)

    def by_category(self, name: MetricName) -> dict[str, float]:
        """The value of a metric for each category, by its name."""
        return {
            label: self._summarise(self._precision[:, :, [k]], self._recall[:, [k]], name, -1)
            for k, label in enumerate(self.categories[number] for number in sorted(self.categories))
        }

    def resampled(self, names: Sequence[MetricName], draws: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Compute metrics on bootstrap samples of the images.

        Args:
            names: The metrics.
            draws: `(replicates, images)` indices of the drawn images, as `draw_images` gives them.

        Returns:
            `(replicates, names)` values.
        """
        matches = self._evaluation._evalImgs_cpp
        groups = [matches[start : start + self._images] for start in range(0, len(matches), self._images)]
        values = np.empty((len(draws), len(names)))
        for row, draw in enumerate(draws):
            drawn = [group[index] for group in groups for index in draw]
            arrays = self._arrays(self._cpp.COCOevalAccumulate(self._evaluation._paramsEval, drawn))
            values[row] = [self._summarise(*arrays, name, -1) for name in names]
        return values

    def _arrays(self, accumulated: Mapping[str, Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Precision `(ious, recalls, categories, areas, max)` and recall `(ious, categories, areas, max)`."""
        shape = (
            len(self.ious),
            RECALLS,
            len(self.categories),
            len(self.areas),
            len(self._evaluation._paramsEval.maxDets),
        )
        precision = np.asarray(accumulated["precision"], np.float64).reshape(shape)
        recall = np.asarray(accumulated["recall"], np.float64).reshape(shape[:1] + shape[2:])
        return precision, recall

    def _summarise(
        self,
        precision: npt.NDArray[np.float64],
        recall: npt.NDArray[np.float64],
        name: MetricName,
        max_detections: int,
    ) -> float:
        rows = [self.ious.index(iou) for iou in name.ious]
        area = list(self.areas).index(name.area)
        values = (
            precision[rows][..., area, max_detections] if name.kind == "AP" else recall[rows][..., area, max_detections]
        )
        judged = values[values > -1]
        return float(judged.mean()) if judged.size else float("nan")


def draw_images(count: int, replicates: int, seed: int) -> npt.NDArray[np.intp]:
    """Draw images with replacement; the same draws for every method make their differences paired.

    Args:
        count: Number of images.
        replicates: Number of bootstrap replicates.
        seed: Seed of the draws.

    Returns:
        `(replicates, count)` indices.
    """
    return np.random.default_rng(seed).integers(0, count, (replicates, count), np.intp)


def interval(values: npt.NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """The percentile interval `(low, high)` of bootstrap replicates; NaN where there are none."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
