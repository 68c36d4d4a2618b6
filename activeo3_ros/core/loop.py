"""The loop: look at a small view, choose where to look closer, look closer, merge.

The method is ACTIVE-o3's (arXiv 2505.21457): one step proposes all regions at once, the next examines them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .budget import Budget, Cost
from .errors import Cancelled, UnsupportedQuery
from .evidence import Observation, merge, to_source_detections
from .frame import GLOBAL_VIEW, Frame, View
from .geometry import Box
from .query import Query
from .results import Detection, Findings, Grounding, InstanceMask, Proposal, Region, Result, Status

if TYPE_CHECKING:
    from .interfaces import Segmenter, SensingPolicy, TaskModel

logger = logging.getLogger(__name__)

LOGGED_EVERY_S = 60.0
"""The same failure is logged no more often: a server that is gone fails each frame, and each result says so."""
_logged: dict[str, float] = {}

Observer = Callable[[str, Sequence[Region]], None]
"""Called before each step with its name and the regions chosen so far; it may raise `Cancelled`."""


class ActivePerception:
    """Perceives one frame at a time within a budget. One instance serves one thread."""

    def __init__(
        self,
        sensing: SensingPolicy,
        task: TaskModel,
        budget: Budget = Budget(),
        segmenter: Segmenter | None = None,
        examine_view: bool = True,
    ) -> None:
        """examine_view: let the task model see the whole frame too, where the policy only chooses regions."""
        self.sensing = sensing
        self.task = task
        self.budget = budget
        self.segmenter = segmenter
        self.examine_view = examine_view
        self._pace = LatencyEstimator()
        self._closing = LatencyEstimator()
        """What comes after the last view, merging and masks, for a frame that has a deadline to keep."""

    @property
    def concurrent(self) -> bool:
        """Whether frames of several cameras gain from being perceived at the same time, each in a thread of its own.

        So it is where each model may be called by several threads at once, which it then answers together.
        """
        models = [self.sensing, self.task, *([] if self.segmenter is None else [self.segmenter])]
        return all(getattr(model, "concurrent", False) for model in models)

    def for_another_thread(self) -> ActivePerception:
        """The same models for one more thread; only where they are `concurrent`."""
        return ActivePerception(self.sensing, self.task, self.budget, self.segmenter, self.examine_view)

    def prepare(self, query: Query) -> None:
        """Load what a query needs beyond the models that every query needs, so that its first frame need not wait.

        Raises UnsupportedQuery, with what can be asked for, if the models cannot serve it.
        """
        self.task.examine((), query, self.budget)

    def perceive(
        self, frame: Frame, query: Query = Query(), budget: Budget | None = None, observer: Observer | None = None
    ) -> Result:
        """What is in the frame. Never raises for what a model does: then the result's status is FAILED and says why.

        Raises Cancelled if the observer does.
        """
        spending = CostTracker(budget or self.budget)
        try:
            return self._perceive(frame, query, spending, observer or _ignore)
        except Cancelled:
            raise
        except UnsupportedQuery as error:
            return Result.failed(frame, query, str(error), spending.timings_ms(), spending.cost)
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            _log_failure(frame, message)
            return Result.failed(frame, query, message, spending.timings_ms(), spending.cost)

    def _perceive(self, frame: Frame, query: Query, spending: CostTracker, observe: Observer) -> Result:
        budget = spending.budget
        observe("sense", ())
        with spending.stage("view"):
            size = self.sensing.view_size(frame.width, frame.height, budget.view_pixels)
            view = frame.view(frame.window, size)
        with spending.stage("sense"):
            proposal = self.sensing.propose(view, query, budget)
        if proposal.used_view:
            spending.count_view(view, proposal.tokens)

        with spending.stage("crop"):
            crops = [
                self._crop(frame, view.box_to_source(region.box), budget.crop_pixels, index)
                for index, region in enumerate(proposal.regions[: budget.max_regions])
            ]
            waiting = list(crops)
            if proposal.findings is None and (self.examine_view or not crops):
                waiting.insert(0, self._crop(frame, frame.window, budget.view_pixels, GLOBAL_VIEW))
        looks = [(view, proposal.findings)] if proposal.findings is not None else []
        looks += self._examine(view, waiting, proposal, query, spending, observe, may_stop=bool(looks))
        examined = [view for view, _ in looks if view.region != GLOBAL_VIEW]
        regions = _regions(proposal, view, examined)

        examined_ms = spending.elapsed_ms()
        observe("merge", regions)
        with spending.stage("merge"):
            objects = merge([sighting for seen, look in looks for sighting in to_source_detections(look.objects, seen)])
            detections = tuple(map(_detection, objects))
            groundings = tuple(_grounding(o) for o in objects if o.finding.phrase)
            answer = self.task.answer(query, [look for _, look in looks], groundings)
        masks: tuple[InstanceMask, ...] = ()
        if query.masks and self.segmenter is not None:
            observe("segment", regions)
            with spending.stage("segment"):
                masks = tuple(self.segmenter.segment(frame, detections))
        self._closing.update(1, spending.elapsed_ms() - examined_ms)

        skipped = len(crops) - len(examined)
        result = Result(
            frame.width,
            frame.height,
            query,
            status=Status.COARSE if skipped else Status.COMPLETE,
            status_message=spending.explain(len(examined), len(crops)) if skipped else "",
            regions=regions,
            detections=detections,
            groundings=groundings,
            masks=masks,
            answer=answer,
            reasoning=proposal.reasoning,
            timings_ms=spending.timings_ms(),
            cost=spending.cost,
        )
        missing = ("this preset makes no masks",) if query.masks and self.segmenter is None else ()
        return result.with_notes([*proposal.notes, *(note for _, look in looks for note in look.notes), *missing])

    def _crop(self, frame: Frame, window: Box, max_pixels: int, region: int) -> View:
        """The full-resolution pixels of a window, at the size that the task model wants to see."""
        window = window.snapped(frame.width, frame.height)
        return frame.view(window, self.task.view_size(window.width, window.height, max_pixels), region)

    def _examine(
        self,
        global_view: View,
        waiting: Sequence[View],
        proposal: Proposal,
        query: Query,
        spending: CostTracker,
        observe: Observer,
        may_stop: bool,
    ) -> list[tuple[View, Findings]]:
        """Findings at the views in their order, as many as the deadline allows, and at least one unless `may_stop`."""
        looks: list[tuple[View, Findings]] = []
        step = self.task.batch_size if spending.budget.deadline_ms else max(1, len(waiting))
        for start in range(0, len(waiting), step):
            batch = waiting[start : start + step]
            estimate_ms = self._pace.estimate_ms(len(batch)) + self._closing.estimate_ms(1)
            if (looks or may_stop) and not spending.affords(estimate_ms):
                break
            observe("examine", _regions(proposal, global_view, [view for view in batch if view.region != GLOBAL_VIEW]))
            with spending.stage("examine") as took:
                seen = self.task.examine(batch, query, spending.budget)
            self._pace.update(len(batch), took[0])
            for view, look in zip(batch, seen, strict=True):
                looks.append((view, look))
                spending.count_view(view, look.tokens)
        return looks


def _regions(proposal: Proposal, view: View, crops: Sequence[View]) -> tuple[Region, ...]:
    """The proposed regions in source pixels, as they were really cropped, and how much larger than in the view."""
    proposed = [(crop, proposal.regions[crop.region]) for crop in crops]
    return tuple(Region(crop.window, region.label, region.score, crop.zoom / view.zoom) for crop, region in proposed)


class CostTracker:
    """The running account of one frame."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.cost = Cost()
        self._start = time.perf_counter()
        self._stages: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[list[float]]:
        """Add the milliseconds of a `with` block to a stage; the list that it gives holds them afterwards."""
        took: list[float] = []
        start = time.perf_counter()
        try:
            yield took
        finally:
            took.append((time.perf_counter() - start) * 1e3)
            self._stages[name] = self._stages.get(name, 0.0) + took[0]

    def count_view(self, view: View, tokens: int) -> None:
        self.cost += Cost(views=1, pixels=view.pixels, tokens=tokens, calls=1)

    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self._start) * 1e3

    def affords(self, estimate_ms: float) -> bool:
        deadline = self.budget.deadline_ms
        return not deadline or self.elapsed_ms() + estimate_ms <= deadline

    def explain(self, examined: int, planned: int) -> str:
        return f"the deadline of {self.budget.deadline_ms:g} ms left time for {examined} of {planned} regions"

    def timings_ms(self) -> dict[str, float]:
        return {**self._stages, "total": self.elapsed_ms()}


class LatencyEstimator:
    """What one more view costs, from what recent ones cost."""

    SHARE_OF_NEWEST = 0.3

    def __init__(self) -> None:
        self._per_view_ms = 0.0

    def update(self, views: int, milliseconds: float) -> None:
        per_view = milliseconds / views
        share = self.SHARE_OF_NEWEST if self._per_view_ms else 1.0
        self._per_view_ms += share * (per_view - self._per_view_ms)

    def estimate_ms(self, views: int) -> float:
        return self._per_view_ms * views


def _ignore(stage: str, regions: Sequence[Region]) -> None:
    """The observer of a caller who does not want to know."""


def _detection(seen: Observation) -> Detection:
    return Detection(seen.finding.label, seen.finding.score, seen.box, seen.view.region)


def _grounding(seen: Observation) -> Grounding:
    return Grounding(seen.finding.phrase, seen.finding.score, seen.box, seen.view.region, seen.finding.text)


def _log_failure(frame: Frame, message: str) -> None:
    """With the traceback of the exception that is being handled."""
    now = time.monotonic()
    if now - _logged.get(message, -math.inf) < LOGGED_EVERY_S:
        return
    if len(_logged) >= 100:
        _logged.clear()
    _logged[message] = now
    logger.exception(
        "perception of a %d x %d frame failed (logged once in %.0f s)", frame.width, frame.height, LOGGED_EVERY_S
    )
