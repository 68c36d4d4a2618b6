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

"""Protocols: how a method runs on a sample, through the loop or through interactive segmentation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ..core import Box, Budget, Cost, Frame, InvalidInput, Query, Result
from ..core.loop import failures_told_by_caller
from .datasets import Dataset, Sample
from .detector_oracle import DetectorOracle, TrueObject
from .ground_truth_masks import decode_segmentation
from .interactive_segmentation import Corrector, ErrorOracle, GrabCutCorrector, SamCorrector, interact
from .item_files import result_to_item
from .methods import ORACLE, Method
from .oracle import Oracle
from .settings import RunSettings


class Runner(Protocol):
    """The loaded models of methods that differ in their budget only."""

    def check(self, query: Query, budget: Budget) -> None:
        """Check that the models understand a query.

        Raises:
            UnsupportedQuery: They do not.
        """

    def run(self, frame: Frame, sample: Sample, budget: Budget, show: Callable[[float], None]) -> dict[str, Any]:
        """Run the models on a sample.

        Args:
            frame: The decoded frame of the sample.
            sample: Its query and id.
            budget: The budget of the method.
            show: Called with the share of the work that is done, where that takes long.

        Returns:
            The item of the sample, as `result_to_item` makes it.
        """


def make_runner(method: Method, dataset: Dataset, settings: RunSettings) -> Runner:
    """Load the models of a method.

    Args:
        method: Its preset is built; its budget is not used.
        dataset: Chooses the protocol; its ground truth is for oracles alone.
        settings: Directory of the results, weights of SAM.

    Returns:
        A runner for all methods with the same models.
    """
    if dataset.interactive:
        sam = settings.sam_weights
        return InteractiveRunner(method, dataset, SamCorrector(sam) if sam else GrabCutCorrector())
    return PerceptionRunner(method, dataset, settings.out / ORACLE)


class PerceptionRunner:
    """Runs the loop; only an oracle gets the ground truth."""

    def __init__(self, method: Method, dataset: Dataset, oracle_cache: Path) -> None:
        self._perception = method.preset.build()
        self._dataset = dataset
        self._detector_oracle: DetectorOracle | None = None
        self._box_oracle: Oracle | None = None
        if method.oracle == ORACLE:
            task = method.preset.task
            known = [task.type, dict(task.settings), dict(dataset.label_ids)]
            facts = json.dumps(known, sort_keys=True, default=str)
            self._detector_oracle = DetectorOracle(
                self._perception.task, dataset.category_of, facts, oracle_cache, method.preset.examine_view
            )
            self._perception.sensing = self._detector_oracle
        elif method.oracle:
            self._box_oracle = Oracle()
            self._perception.sensing = self._box_oracle

    def check(self, query: Query, budget: Budget) -> None:
        self._perception.task.examine((), query, budget)

    def run(self, frame: Frame, sample: Sample, budget: Budget, show: Callable[[float], None]) -> dict[str, Any]:
        if self._box_oracle is not None:
            self._box_oracle.true_boxes = self._dataset.boxes(sample.id)
        if self._detector_oracle is not None:
            rows = self._dataset.objects(sample.id)
            self._detector_oracle.frame = frame
            self._detector_oracle.objects = [TrueObject(row["category_id"], Box(*row["bbox"])) for row in rows]
            self._detector_oracle.show = show
            with suppress(Exception):  # the loop meets the same error and says it in the result
                self._detector_oracle.search(sample.query, budget)  # not part of the time of the frame
        with failures_told_by_caller():  # the report names the first
            return result_to_item(sample, self._perception.perceive(frame, sample.query, budget))


class InteractiveRunner:
    """Runs a policy alone: clicks correct the mask in the regions that it marks."""

    def __init__(self, method: Method, dataset: Dataset, corrector: Corrector) -> None:
        self._dataset = dataset
        self._policy = ErrorOracle() if method.oracle else method.preset.build_policy()
        self._corrector = corrector

    def check(self, query: Query, budget: Budget) -> None:
        """Check nothing: a policy that does not understand the question raises with the first frame."""

    def run(self, frame: Frame, sample: Sample, budget: Budget, show: Callable[[float], None]) -> dict[str, Any]:
        row = self._dataset.annotations[sample.id][0]
        truth = decode_segmentation(row["segmentation"], frame.height, frame.width)
        if truth is None:
            raise InvalidInput(f"{sample.name}: has no mask")
        start = time.perf_counter()
        ious, regions = interact(frame, truth, Box(*row["bbox"]), self._policy, self._corrector, budget)
        timings = {"total": (time.perf_counter() - start) * 1e3}
        cost = Cost(views=1 + len(regions), pixels=frame.width * frame.height)
        result = Result(frame.width, frame.height, sample.query, regions=tuple(regions), timings_ms=timings, cost=cost)
        return {**result_to_item(sample, result), "ious": ious}
