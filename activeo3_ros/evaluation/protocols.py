"""How a method is run on a sample: through the loop, or through the protocol of interactive segmentation."""

from __future__ import annotations

import time
from typing import Any, Protocol

from ..codecs.result_json import to_json
from ..core import Box, Budget, Cost, Frame, InvalidInput, Query, Result, Status
from ..presets import SENSING_TYPES
from .datasets import Dataset, Sample
from .ground_truth_masks import true_mask
from .interactive import Corrector, ErrorOracle, GrabCutCorrector, SamCorrector, interact
from .methods import Method
from .oracle import Oracle


class Runner(Protocol):
    """The loaded models of methods that differ in their budget only."""

    def check(self, query: Query, budget: Budget) -> None:
        """Raises UnsupportedQuery if the models do not understand the query."""

    def run(self, frame: Frame, sample: Sample, dataset: Dataset, budget: Budget) -> dict[str, Any]:
        """What goes into the file of results of a sample."""


def make_runner(method: Method, dataset: Dataset, sam: str) -> Runner:
    """Load the models of a method. sam: directory of SAM's weights for interactive segmentation, "" for GrabCut."""
    if dataset.interactive:
        return InteractiveRunner(method, SamCorrector(sam) if sam else GrabCutCorrector())
    return PerceptionRunner(method)


class PerceptionRunner:
    """Runs the loop; only the oracle gets to see the truth."""

    def __init__(self, method: Method) -> None:
        self._perception = method.preset.build()
        self._oracle = Oracle() if method.oracle else None
        if self._oracle is not None:
            self._perception.sensing = self._oracle

    def check(self, query: Query, budget: Budget) -> None:
        self._perception.task.examine((), query, budget)

    def run(self, frame: Frame, sample: Sample, dataset: Dataset, budget: Budget) -> dict[str, Any]:
        if self._oracle is not None:
            self._oracle.truth = dataset.boxes(sample.id)
        return item_of(sample, self._perception.perceive(frame, sample.query, budget))


class InteractiveRunner:
    """Runs a policy alone: what it marks is corrected by clicks."""

    def __init__(self, method: Method, corrector: Corrector) -> None:
        self._policy = ErrorOracle() if method.oracle else method.preset.sensing.build(SENSING_TYPES)
        self._corrector = corrector

    def check(self, query: Query, budget: Budget) -> None:
        """Whether a policy understands the question shows with the first picture."""

    def run(self, frame: Frame, sample: Sample, dataset: Dataset, budget: Budget) -> dict[str, Any]:
        row = dataset.annotations[sample.id][0]
        truth = true_mask(row["segmentation"], frame.height, frame.width)
        if truth is None:
            raise InvalidInput(f"{sample.name}: has no mask")
        start = time.perf_counter()
        ious, regions = interact(frame, truth, Box(*row["bbox"]), self._policy, self._corrector, budget)
        timings = {"total": (time.perf_counter() - start) * 1e3}
        cost = Cost(views=1 + len(regions), pixels=frame.width * frame.height)
        result = Result(frame.width, frame.height, sample.query, regions=tuple(regions), timings_ms=timings, cost=cost)
        return {**item_of(sample, result), "ious": ious}


def item_of(sample: Sample, result: Result) -> dict[str, Any]:
    """The content of a file of results."""
    return {"sample": sample.id, **to_json(result, sample.name)}


def failed_item(sample: Sample, error: Exception) -> dict[str, Any]:
    """For a frame that cannot be read."""
    return item_of(sample, Result(0, 0, sample.query, Status.FAILED, str(error)))
