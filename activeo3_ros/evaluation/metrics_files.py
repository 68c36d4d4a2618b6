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

"""The numbers of a run for programs: `metrics.json` and `metrics.csv`."""

from __future__ import annotations

import csv
import io
import math
import shlex
from collections.abc import Sequence
from typing import Any

from .datasets import Dataset
from .differences import Difference
from .environment import describe_environment
from .published import PublishedRow
from .scoring import MethodScores
from .settings import RunSettings


def metrics_to_dict(
    settings: RunSettings,
    dataset: Dataset,
    scores: Sequence[MethodScores],
    differences: Sequence[Difference],
    published: Sequence[PublishedRow],
) -> dict[str, Any]:
    """Convert the numbers of a run to the content of `metrics.json`; a number that does not exist is None."""
    return {
        "question": settings.question,
        "command": shlex.join(["activeo3", *settings.command]),
        "seed": settings.seed,
        "workers": settings.workers,
        "bootstrap_replicates": settings.replicates,
        "dataset": {"name": dataset.name, "samples": len(dataset.samples), **dataset.facts},
        "environment": describe_environment(),
        "methods": [_method_to_dict(s) for s in scores],
        "differences": [
            {"a": d.a, "b": d.b, "metric": d.metric, "estimate": d.estimate.to_json(), "is_clear": d.is_clear}
            for d in differences
        ],
        "published": [row.to_json() for row in published],
    }


def _method_to_dict(s: MethodScores) -> dict[str, Any]:
    return {
        "id": s.method.id,
        **s.method.facts(),
        "regions": s.method.regions,
        "quality": {name: value.to_json() for name, value in s.quality.items()},
        "by_category": {
            name: {label: _none_if_nan(value) for label, value in values.items()}
            for name, values in s.by_category.items()
        },
        "region_quality": {name: value.to_json() for name, value in s.regions.items()},
        "cost": {name: _none_if_nan(value) for name, value in s.cost.items()},
        "failed": s.failed,
        "first_failure": s.failure,
        "coarse": s.coarse,
        "detections_without_score": s.unscored,
        "labels_that_are_no_category": s.unknown_labels,
    }


def metrics_to_csv(scores: Sequence[MethodScores]) -> str:
    """Convert scores to CSV text, one line for each method and metric."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["method", "regions", "metric", "value", "low", "high"])
    for s in scores:
        method = [s.method.name, "" if s.method.regions is None else s.method.regions]
        for name, estimate in {**s.quality, **{f"regions {k}": v for k, v in s.regions.items()}}.items():
            writer.writerow([*method, name, *("" if v is None else v for v in estimate.to_json())])
        for name, value in s.cost.items():
            writer.writerow([*method, f"cost {name}", "" if math.isnan(value) else value, "", ""])
        writer.writerow([*method, "failed frames", s.failed, "", ""])
    return buffer.getvalue()


def _none_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
