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

"""Scores of counterfactual pictures: does a model's answer follow what the picture shows?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .counterfactual import AS_IT_IS, BEST_CROP, BLURRED, ELSEWHERE, SWAPPED, VARIANTS
from .datasets import Dataset
from .detector_oracle import TrueObject
from .item_files import read_items
from .methods import Method
from .metrics import draw_images
from .scoring import (
    Estimate,
    Items,
    MethodScores,
    first_failure,
    mean_of,
    objects_found,
    option_of,
    without_detections,
)

FOLLOWS = "follows the picture"
"""Of what is right as it is: the share that changes with the region, blurred or swapped, and with nothing else."""
RIGHT = "right"
CHANGES = "changes"
TAKES_SWAPPED = "takes the swapped answer"
ZOOMING_GAP = "zooming gap"
"""Right with the best crop alone, less right with the picture as it is."""
MOST = 0.5
"""Of what is right: a method looks where more than this follows the picture, by its whole interval."""
FEWEST_RIGHT = 5
"""Right samples without which there is no verdict: if half followed, 4 of 4 would by chance in 6 of 100 runs."""
FAILED = -2

Values = npt.NDArray[np.float64]


def score_looking(
    out: Path, dataset: Dataset, methods: Sequence[Method], replicates: int, seed: int
) -> list[MethodScores]:
    """Score the items of a complete counterfactual run, with a bootstrap over the original samples.

    Args:
        out: Directory of the results.
        dataset: The counterfactual data set of the run.
        methods: Methods to score.
        replicates: Number of bootstrap replicates.
        seed: Seed of the bootstrap.

    Returns:
        The scores in the order of the methods. Regions and cost are those of the pictures as they are.

    Raises:
        InvalidInput: An item is missing or damaged.
    """
    draws = draw_images(1 + max(probe.origin for probe in dataset.probes), replicates, seed)
    return [_score_method(read_items(out, dataset, method), dataset, method, draws) for method in methods]


def _score_method(items: Items, dataset: Dataset, method: Method, draws: npt.NDArray[np.intp]) -> MethodScores:
    outcomes = _outcomes(items, dataset)
    right = {name: _right(values) for name, values in outcomes.items()}
    changes = {name: _changes(outcomes[AS_IT_IS], outcomes[name], right[AS_IT_IS]) for name in VARIANTS[1:]}
    metrics = {FOLLOWS: _follows(changes), **{f"{RIGHT}, {name}": right[name] for name in VARIANTS}}
    metrics[ZOOMING_GAP] = right[BEST_CROP] - right[AS_IT_IS]
    metrics |= {f"{CHANGES}, {name}": changes[name] for name in VARIANTS[1:-1]}
    metrics[TAKES_SWAPPED] = _takes_swapped(outcomes[SWAPPED], dataset)
    quality: dict[str, Estimate] = {}
    resampled: dict[str, Values] = {}
    for name, values in metrics.items():
        quality[name], resampled[name] = mean_of(values, draws)
    as_is = [item for item, probe in zip(items, dataset.probes, strict=True) if probe.variant == AS_IT_IS]
    by_sample = [float(right[probe.variant][probe.origin]) for probe in dataset.probes]
    scores = without_detections(as_is, dataset, method, draws, quality, resampled, by_sample)
    return replace(scores, failed=sum(i["status"] == "failed" for i in items), failure=first_failure(items))


def _outcomes(items: Items, dataset: Dataset) -> dict[str, Values]:
    """For each variant `(originals,)`: the option, -1 for no answer; for detection 0 for found, -1 for not.

    `FAILED` for a failed frame, which is not right and says nothing of what the model sees; NaN for a variant that a
    sample does not have.
    """
    count = 1 + max(probe.origin for probe in dataset.probes)
    outcomes = {name: np.full(count, math.nan) for name in VARIANTS}
    for item, sample, probe in zip(items, dataset.samples, dataset.probes, strict=True):
        if item["status"] == "failed":
            outcome = FAILED
        elif probe.box is not None:
            found = objects_found(item, [TrueObject(probe.category, probe.box)], dataset)
            outcome = 0 if found else -1
        else:
            option = option_of(item, sample, dataset, probe.name)
            outcome = -1 if option is None else option
        outcomes[probe.variant][probe.origin] = outcome
    return outcomes


def _right(outcome: Values) -> Values:
    """1 where it is right, 0 where not, NaN where there is none."""
    return np.where(np.isnan(outcome), math.nan, outcome == 0)


def _changes(before: Values, after: Values, right: Values) -> Values:
    """Of what was right before: 1 where it is another, 0 where it stays, NaN where one of the two is unknown."""
    known = (right == 1) & ~np.isnan(after) & (after != FAILED)
    return np.where(known, before != after, math.nan)


def _follows(changes: Mapping[str, Values]) -> Values:
    """The share of the changes of the region that are noticed; 0 where a change elsewhere is taken for one, too."""
    of_region = np.array([changes[BLURRED], changes[SWAPPED]])
    known = ~np.isnan(of_region)
    noticed = np.where(known, of_region, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), math.nan)
    return np.asarray(np.where(changes[ELSEWHERE] == 1, noticed * 0, noticed), np.float64)


def _takes_swapped(outcome: Values, dataset: Dataset) -> Values:
    """1 where the answer is the one that is right of what was swapped in; NaN where that is none of the options."""
    values = np.full(len(outcome), math.nan)
    for probe in dataset.probes:
        if probe.variant == SWAPPED and probe.swapped_option >= 0 and outcome[probe.origin] != FAILED:
            values[probe.origin] = float(outcome[probe.origin] == probe.swapped_option)
    return values


def looking_verdict(scores: MethodScores, dataset: Dataset) -> str:
    """Whether a method looks, in a line for people."""
    follows = scores.quality[FOLLOWS]
    name = scores.method.id
    as_is = [right for right, p in zip(scores.frame_recall, dataset.probes, strict=True) if p.variant == AS_IT_IS]
    right = int(sum(as_is))
    if right < FEWEST_RIGHT or math.isnan(follows.value):
        return f"{name}: {right} of {len(as_is)} are right as they are, too few to show whether it looks"
    share = (
        f"{follows.value:.2f} [{follows.low:.2f}, {follows.high:.2f}] of the {right} of {len(as_is)} that are right "
        "follow the picture"
    )
    if follows.low > MOST:
        return f"{name} looks: {share}"
    if follows.high < MOST:
        return f"{name} does not look, or not there: only {share}"
    return f"{name}: not clear whether it looks: {share}"
