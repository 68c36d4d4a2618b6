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

"""What a gate would save: no region where the answer from the whole view is sure enough.

Computed from items that are there, those of a preset without regions and with some, for the thresholds of `GATES`. The
setting `gate` of the policy `mllm` asks the policy's own view, whose size may differ: two presets show what it does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .datasets import Dataset
from .item_files import read_items
from .methods import Method
from .metrics import draw_images
from .scoring import Estimate, mean_of, option_of

GATES = (0.5, 0.7, 0.8, 0.9, 0.95)
"""Scores of the view's answer from which no region is looked at."""


@dataclass(frozen=True)
class Gate:
    """A method with a gate, against itself without.

    Attributes:
        method: Its id.
        threshold: Score of the view's answer from which no region is looked at.
        saved: Share of the looks at regions that are saved.
        lost: Accuracy without the gate, less with it; below 0 it gains.
        accuracy: With the gate.
        scored: Share of the questions whose answer from the view has a score, without which nothing is saved.
    """

    method: str
    threshold: float
    saved: Estimate
    lost: Estimate
    accuracy: Estimate
    scored: float

    def to_json(self) -> dict[str, Any]:
        """As an object for JSON."""
        estimates = {"saved": self.saved, "lost": self.lost, "accuracy": self.accuracy}
        values = {name: estimate.to_json() for name, estimate in estimates.items()}
        return {"method": self.method, "threshold": self.threshold, **values, "scored": self.scored}


def gates(out: Path, dataset: Dataset, methods: Sequence[Method], replicates: int, seed: int) -> list[Gate]:
    """Compute the gates of all methods that were run without regions and with some.

    Args:
        out: Directory of the results.
        dataset: With questions; others have no gate.
        methods: Methods of the run.
        replicates: Number of bootstrap replicates, over the questions.
        seed: Seed of the bootstrap.

    Returns:
        For each such method and each threshold one, none where no method has both.
    """
    if not dataset.samples[0].choices:
        return []
    draws = draw_images(len(dataset.samples), replicates, seed)
    views = {method.name: method for method in methods if method.regions == 0 and not method.oracle}
    found = []
    for method in methods:
        if method.regions == 0 or method.oracle or method.name not in views:
            continue
        view, zoomed = read_items(out, dataset, views[method.name]), read_items(out, dataset, method)
        right = [_right(items, dataset) for items in (view, zoomed)]
        looks = np.array([float(len(item["regions"])) for item in zoomed])
        scores = np.array([answer_score(item) for item in view])
        for threshold in GATES:
            closed = scores >= threshold  # False where there is no score
            accuracy = np.where(closed, right[0], right[1])
            # Looks, not frames: a policy may choose none where the gate is open.
            kept, kept_drawn = mean_of(np.where(closed, 0.0, looks), draws)
            all_looks, all_drawn = mean_of(looks, draws)
            with np.errstate(invalid="ignore", divide="ignore"):
                saved = 1 - kept.value / all_looks.value if all_looks.value else math.nan
                interval_of = Estimate.of(saved, 1 - kept_drawn / all_drawn)
            lost = mean_of(right[1] - accuracy, draws)[0]
            scored = float(np.isfinite(scores).mean())
            found.append(Gate(method.id, threshold, interval_of, lost, mean_of(accuracy, draws)[0], scored))
    return found


def answer_score(item: Mapping[str, Any]) -> float:
    """The model's own score of an item's answer: that of the place where it was read; NaN where none is told."""
    if item["status"] == "failed" or not item["answer"]:
        return math.nan
    scores = [g["score"] for g in item["groundings"] if g["text"] == item["answer"] and g["score"] is not None]
    return float(max(scores, default=math.nan))


def _right(items: Sequence[Mapping[str, Any]], dataset: Dataset) -> Any:
    return np.array([float(option_of(i, s, dataset, s.name) == 0) for i, s in zip(items, dataset.samples, strict=True)])


def gate_line(gate: Gate) -> str:
    """A gate in one line for people."""
    if not gate.scored:
        return f"{gate.method}, gate {gate.threshold:g}: no answer from the view has a score, nothing is saved"
    saved, lost = gate.saved, gate.lost
    return (
        f"{gate.method}, gate {gate.threshold:g}: saves {saved.value:.2f} [{saved.low:.2f}, {saved.high:.2f}] of the "
        f"looks, loses {lost.value:+.3f} [{lost.low:+.3f}, {lost.high:+.3f}] of the accuracy"
    )
