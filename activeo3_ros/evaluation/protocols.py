"""Protocols: how a method runs on a sample, through the loop or through interactive segmentation."""

from __future__ import annotations

import time
from typing import Any, Protocol

from ..core import Box, Budget, Cost, Frame, InvalidInput, Query, Result
from ..presets import SENSING_TYPES
from .datasets import Dataset, Sample
from .ground_truth_masks import decode_segmentation
from .interactive_segmentation import Corrector, ErrorOracle, GrabCutCorrector, SamCorrector, interact
from .item_files import result_to_item
from .methods import Method
from .oracle import Oracle


class Runner(Protocol):
    """The loaded models of methods that differ in their budget only."""

    def check(self, query: Query, budget: Budget) -> None:
        """Check that the models understand a query.

        Raises:
            UnsupportedQuery: They do not.
        """

    def run(self, frame: Frame, sample: Sample, dataset: Dataset, budget: Budget) -> dict[str, Any]:
        """Run the models on a sample.

        Args:
            frame: The decoded frame of the sample.
            sample: Its query and id.
            dataset: The ground truth, for oracles alone.
            budget: The budget of the method.

        Returns:
            The item of the sample, as `result_to_item` makes it.
        """


def make_runner(method: Method, dataset: Dataset, sam_weights: str) -> Runner:
    """Load the models of a method.

    Args:
        method: Its preset is built; its budget is not used.
        dataset: Chooses the protocol.
        sam_weights: Directory of SAM's weights for interactive segmentation, "" for GrabCut.

    Returns:
        A runner for all methods with the same models.
    """
    if dataset.interactive:
        return InteractiveRunner(method, SamCorrector(sam_weights) if sam_weights else GrabCutCorrector())
    return PerceptionRunner(method)


class PerceptionRunner:
    """Runs the loop; only the oracle gets the ground truth."""

    def __init__(self, method: Method) -> None:
        self._perception = method.preset.build()
        self._oracle = Oracle() if method.oracle else None
        if self._oracle is not None:
            self._perception.sensing = self._oracle

    def check(self, query: Query, budget: Budget) -> None:
        self._perception.task.examine((), query, budget)

    def run(self, frame: Frame, sample: Sample, dataset: Dataset, budget: Budget) -> dict[str, Any]:
        if self._oracle is not None:
            self._oracle.true_boxes = dataset.boxes(sample.id)
        return result_to_item(sample, self._perception.perceive(frame, sample.query, budget))


class InteractiveRunner:
    """Runs a policy alone: clicks correct the mask in the regions that it marks."""

    def __init__(self, method: Method, corrector: Corrector) -> None:
        self._policy = ErrorOracle() if method.oracle else method.preset.sensing.build(SENSING_TYPES)
        self._corrector = corrector

    def check(self, query: Query, budget: Budget) -> None:
        """Check nothing: a policy that does not understand the question raises with the first frame."""

    def run(self, frame: Frame, sample: Sample, dataset: Dataset, budget: Budget) -> dict[str, Any]:
        row = dataset.annotations[sample.id][0]
        truth = decode_segmentation(row["segmentation"], frame.height, frame.width)
        if truth is None:
            raise InvalidInput(f"{sample.name}: has no mask")
        start = time.perf_counter()
        ious, regions = interact(frame, truth, Box(*row["bbox"]), self._policy, self._corrector, budget)
        timings = {"total": (time.perf_counter() - start) * 1e3}
        cost = Cost(views=1 + len(regions), pixels=frame.width * frame.height)
        result = Result(frame.width, frame.height, sample.query, regions=tuple(regions), timings_ms=timings, cost=cost)
        return {**result_to_item(sample, result), "ious": ious}
