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

"""The loop: view the whole frame, propose regions, zoom into them, merge the findings of all views.

The method is ACTIVE-o3's (arXiv 2505.21457): one step proposes all regions at once, the next examines them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

from .budget import Budget, Cost
from .calibration import DEFAULT, Calibration
from .checks import blamed, check_findings, check_mask, check_masks, check_proposal, check_size
from .errors import Cancelled, ComponentError, PerceptionError, UnsupportedQuery
from .evidence import NO_CONFIRMATIONS, FrameObject, hypotheses, known_in, observe, reported, strongest
from .expectation import Expectation
from .frame import GLOBAL_VIEW, Frame, View
from .geometry import Box
from .interfaces import ExpectingPolicy, Segmenter, SensingPolicy, StreamingPolicy, StreamingTask, TaskModel
from .query import Query
from .results import Detection, Findings, Grounding, InstanceMask, Proposal, Region, Result, Status
from .scene import Scene

logger = logging.getLogger(__name__)

LOGGED_EVERY_S = 60.0
"""The same failure is logged no more often: a server that is gone fails each frame, and each result says so."""
BLAMES_COMPONENT = "blames_component"
"""Attribute of a log record: whether its message names the component that raised, and the place."""
_logged: dict[str, float] = {}

Observer = Callable[[str, Sequence[Region]], None]
"""Called before each step with its name and the regions chosen so far; it may raise `Cancelled`."""


class ActivePerception:
    """Perceives one frame at a time within a budget. One instance serves one thread.

    Attributes:
        sensing: The policy that proposes regions.
        task: The model that examines views.
        budget: What a frame may spend unless `perceive` is told otherwise.
        segmenter: Makes the masks that a query wants; None for those that the task model's findings bring, if it makes
            some.
        examine_view: Whether the task model examines the whole frame too, where the policy only chooses regions.
    """

    def __init__(
        self,
        sensing: SensingPolicy,
        task: TaskModel,
        budget: Budget = Budget(),
        segmenter: Segmenter | None = None,
        examine_view: bool = True,
    ) -> None:
        self.sensing = sensing
        self.task = task
        self.budget = budget
        self.segmenter = segmenter
        self.examine_view = examine_view
        self._examine_latency = LatencyEstimator()
        self._closing_latency = LatencyEstimator()
        """Of the stages after the last view, merging and masks; a deadline leaves time for them."""

    @property
    def concurrent(self) -> bool:
        """Whether frames of several cameras gain from being perceived at the same time, each in a thread of its own.

        True where each model may be called by several threads at once, which it then answers together.
        """
        models = [self.sensing, self.task, *([] if self.segmenter is None else [self.segmenter])]
        return all(getattr(model, "concurrent", False) for model in models)

    def for_another_thread(self) -> ActivePerception:
        """The same models for one more thread; only where they are `concurrent`."""
        return ActivePerception(self.sensing, self.task, self.budget, self.segmenter, self.examine_view)

    def load(self, query: Query) -> None:
        """Load the models that this query alone needs, so that its first frame need not wait for them.

        Args:
            query: The query of the coming frames.

        Raises:
            UnsupportedQuery: The models cannot serve it; the message lists the queries that they can serve.
        """
        self.task.examine((), query, self.budget)

    def perceive(
        self,
        frame: Frame,
        query: Query = Query(),
        budget: Budget | None = None,
        observer: Observer | None = None,
        scene: Scene | None = None,
    ) -> Result:
        """Perceive one frame.

        Args:
            frame: The image of one camera at full resolution.
            query: What to find; the default asks for everything that the models know.
            budget: What this frame may spend, `self.budget` if None.
            observer: Called before each step with its name ("sense", "examine", "merge", "segment") and the regions
                chosen so far, in source pixels.
            scene: The memory of the frame's camera: the frame is weighed together with those before, and becomes one of
                them. None perceives it alone.

        Returns:
            The objects, regions, masks and answer in source pixels. An error of a model is never raised: then the
            status is `FAILED` and `status_message` holds the reason.

        Raises:
            Cancelled: The observer raised it.
        """
        costs = CostTracker(budget or self.budget)
        try:
            return self._perceive(frame, query, costs, observer or _ignore, scene)
        except Cancelled:
            raise
        except UnsupportedQuery as error:
            return Result.failed(frame, query, str(error), costs.timings_ms(), costs.cost)
        except Exception as error:
            message = str(error) if isinstance(error, ComponentError) else f"{type(error).__name__}: {error}"
            _log_failure(frame, message, error)
            return Result.failed(frame, query, message, costs.timings_ms(), costs.cost)

    def _perceive(
        self, frame: Frame, query: Query, costs: CostTracker, observer: Observer, scene: Scene | None
    ) -> Result:
        budget = costs.budget
        observer("sense", ())
        with costs.stage("view"):
            with blamed("policy", self.sensing):
                size = self.sensing.view_size(frame.width, frame.height, budget.view_pixels)
            view = frame.view(frame.window, check_size(size, "policy", self.sensing))
        expected = None
        if scene is not None:
            with costs.stage("expect"):
                expected = scene.expect(frame, view, query)
        streaming = None if self._in_background(frame, scene) else self._streaming(budget)
        if streaming is not None:
            by_policy: list[View] = []
            proposal, planned, examined = self._sense_while_examining(*streaming, frame, view, query, costs, observer)
        else:
            proposal = self._propose(frame, view, query, costs, scene, expected)
            planned, examined, by_policy = self._examine_proposal(proposal, frame, view, query, costs, observer)
        zoomed = by_policy or [view for view, _ in examined if view.region != GLOBAL_VIEW]
        regions = _regions(proposal, view, zoomed)

        examined_ms = costs.elapsed_ms()
        observer("merge", regions)
        with costs.stage("merge"):
            objects, left_out = self._weigh(examined, scene)
            detections = tuple(map(_detection, objects))
            groundings = tuple(_grounding(o, index) for index, o in enumerate(objects) if o.finding.phrase)
            with blamed("task model", self.task):
                answer = self.task.answer(query, [found for _, found in examined], groundings)
        masks: tuple[InstanceMask, ...] = ()
        if query.masks and (self.segmenter is not None or self._task_makes_masks):
            observer("segment", regions)
            with costs.stage("segment"):
                if self.segmenter is None:
                    masks = self._own_masks(objects, [view for view, _ in examined])
                else:
                    with blamed("segmenter", self.segmenter):
                        masks = _masks(self.segmenter, frame, detections)
        self._closing_latency.update(1, costs.elapsed_ms() - examined_ms)

        skipped = planned - len(zoomed)
        result = Result(
            frame.width,
            frame.height,
            query,
            status=Status.COARSE if skipped else Status.COMPLETE,
            status_message=costs.explain(len(zoomed), planned) if skipped else "",
            regions=regions,
            detections=detections,
            groundings=groundings,
            masks=masks,
            answer=answer,
            reasoning=proposal.reasoning,
            timings_ms=costs.timings_ms(),
            cost=costs.cost,
            regions_age_ms=proposal.regions_age_ms,
            tracks=tuple(o.track for o in objects if o.track is not None),
        )
        notes = [
            left_out,
            "" if scene is None else scene.note,
            *proposal.notes,
            *(note for _, found in examined for note in found.notes),
        ]
        if query.masks:
            notes.append(self._missing_masks(detections, masks))
        notes += [_unsure(seen) for seen in objects if seen.disputed]
        return result.with_notes(notes)

    def _in_background(self, frame: Frame, scene: Scene | None) -> bool:
        """Whether the policy chooses in a thread of its own, for later frames."""
        background = scene is not None and scene.sensing is not None and frame.stamp_ns
        return bool(background and getattr(self.sensing, "concurrent", False))

    def _propose(
        self,
        frame: Frame,
        view: View,
        query: Query,
        costs: CostTracker,
        scene: Scene | None,
        expected: Expectation | None,
    ) -> Proposal:
        """The policy's proposal, with what memory expects in the frame where the policy can use that."""
        with costs.stage("sense"), blamed("policy", self.sensing):
            if scene is None or expected is None:
                proposal = self.sensing.propose(view, query, costs.budget)
            elif scene.sensing is not None and self._in_background(frame, scene):
                proposal = scene.sensing.propose(self.sensing, frame, view, query, costs.budget, scene.motion)
            elif isinstance(self.sensing, ExpectingPolicy):
                proposal = self.sensing.propose_expecting(view, query, costs.budget, expected)
            else:
                proposal = self.sensing.propose(view, query, costs.budget)
            return check_proposal(proposal, view, self.sensing)

    def _examine_proposal(
        self, proposal: Proposal, frame: Frame, view: View, query: Query, costs: CostTracker, observer: Observer
    ) -> tuple[int, list[tuple[View, Findings]], list[View]]:
        """Examine what a proposal asks for.

        Returns:
            The number of its regions, the views that were examined with their findings, and the crops that the policy
            has looked at itself, which nothing more is asked of.
        """
        budget = costs.budget
        if proposal.used_view:
            costs.count_view(view, proposal.tokens)
        with costs.stage("crop"):
            crops = [
                self._crop(frame, view.box_to_source(region.box), budget.crop_pixels, index)
                for index, region in enumerate(proposal.regions[: budget.max_regions])
            ]
            if proposal.known:
                crops = [crop.knowing(known_in(crop, proposal.known, view)) for crop in crops]
            by_policy = crops if proposal.regions_examined and proposal.findings is not None else []
            pending = [] if by_policy else list(crops)
            if proposal.findings is None and (self.examine_view or not crops):
                pending.insert(0, self._crop(frame, frame.window, budget.view_pixels, GLOBAL_VIEW))
        examined = [(view, proposal.findings)] if proposal.findings is not None else []
        examined += self._examine(view, pending, proposal, query, costs, observer, may_stop=bool(examined))
        for crop in by_policy:
            costs.count_view(crop, 0)  # its tokens are among those of the policy
        return len(crops), examined, by_policy

    def _streaming(self, budget: Budget) -> tuple[StreamingPolicy, StreamingTask] | None:
        """Policy and task model where regions are examined while others are still chosen, else None.

        Not under a deadline between whose calls of the task model the loop would decide anew.
        """
        sensing, task = self.sensing, self.task
        if not (isinstance(sensing, StreamingPolicy) and isinstance(task, StreamingTask)) or not sensing.streams:
            return None
        return (sensing, task) if not budget.deadline_ms or task.batch_size > budget.max_regions else None

    def _sense_while_examining(
        self,
        sensing: StreamingPolicy,
        task: StreamingTask,
        frame: Frame,
        view: View,
        query: Query,
        costs: CostTracker,
        observer: Observer,
    ) -> tuple[Proposal, int, list[tuple[View, Findings]]]:
        """Examine each region from when its box is known, and what else the proposal asks for in the end.

        Returns:
            The proposal, the number of its regions, and the views with their findings: all as if the proposal had been
            waited for. What was found in a region that it does not have is thrown away, and noted.
        """
        budget = costs.budget
        handed: list[tuple[View, Region | None]] = []
        ended: list[tuple[Proposal, float]] = []

        def hand(region: Region | None, index: int) -> View:
            with costs.stage("crop"):
                window, pixels = frame.window, budget.view_pixels
                if region is not None:
                    window, pixels = view.box_to_source(region.box), budget.crop_pixels
                handed.append((self._crop(frame, window, pixels, index), region))
            return handed[-1][0]

        def views() -> Iterator[View]:
            if self.examine_view:
                yield hand(None, GLOBAL_VIEW)
            begun: list[Region] = []
            for each in _as_chosen(sensing, view, query, costs):
                if isinstance(each, Proposal):
                    proposal = each
                elif len(begun) < budget.max_regions:
                    begun.append(each)
                    crop = hand(each, len(begun) - 1)
                    observer("examine", _regions(Proposal(tuple(begun)), view, [crop]))
                    yield crop
            if proposal.used_view:
                costs.count_view(view, proposal.tokens)
            chosen = proposal.regions[: budget.max_regions]
            late = [hand(region, index) for index, region in enumerate(chosen) if not _is_at(begun, index, region)]
            if not chosen and not self.examine_view:
                late.append(hand(None, GLOBAL_VIEW))
            if late:
                observer("examine", _regions(proposal, view, [crop for crop in late if crop.region != GLOBAL_VIEW]))
            ended.append((proposal, costs.elapsed_ms()))
            yield from late

        with blamed("task model", task):
            findings = task.examine_streaming(views(), query, budget)
        findings = check_findings(findings, len(handed), "task model", task)
        if not ended:
            raise ComponentError(f"the task model {type(task).__name__} did not wait for all views")
        proposal, ended_ms = ended[0]
        costs.add_stage("examine", costs.elapsed_ms() - ended_ms)
        chosen = proposal.regions[: budget.max_regions]
        examined = []
        for (seen, region), found in zip(handed, findings, strict=True):
            costs.count_view(seen, found.tokens)
            if region is None or _is_at(chosen, seen.region, region):
                examined.append((seen, found))
        if wasted := len(handed) - len(examined):
            note = f"regions examined for nothing, since the whole answer does not have them: {wasted}"
            proposal = replace(proposal, notes=(*proposal.notes, note))
        return proposal, len(chosen), sorted(examined, key=lambda each: each[0].region)

    def _weigh(self, examined: Sequence[tuple[View, Findings]], scene: Scene | None) -> tuple[list[FrameObject], str]:
        """The objects that the views of a frame, and memory, speak for, and a note on what was left out."""
        calibration: Calibration | None = getattr(self.task, "calibration", None)
        views = [view for view, _ in examined]
        observations = [seen for view, found in examined for seen in observe(view, found, calibration or DEFAULT)]
        weighed = strongest(observations)
        left_out = sum(not seen.weak for seen in observations) - sum(not seen.weak for seen in weighed)
        note = f"{left_out} of the models' findings were left out: more than a frame can weigh" if left_out else ""
        before = NO_CONFIRMATIONS if scene is None else scene.confirmations
        found = hypotheses(weighed, views, calibration, before)
        return (reported(found) if scene is None else scene.update(found, views, calibration)), note

    @property
    def _task_makes_masks(self) -> bool:
        return bool(getattr(self.task, "makes_masks", False))

    def _own_masks(self, objects: Sequence[FrameObject], views: Sequence[View]) -> tuple[InstanceMask, ...]:
        """The masks that came with the findings, each from the view whose box the object has."""
        by_region = {view.region: view for view in views}
        masks = []
        for index, seen in enumerate(objects):
            if seen.carried or seen.finding.mask is None:
                continue
            view, finding = by_region[seen.region], seen.finding
            box, mask = view.mask_to_source(check_mask(finding, view, self.task), finding.box)
            if mask.any():
                masks.append(InstanceMask(finding.label, finding.score, box, mask, seen.region, index))
        return tuple(masks)

    def _missing_masks(self, detections: Sequence[Detection], masks: Sequence[InstanceMask]) -> str:
        """A note about objects without the mask that was asked for, "" if each has one."""
        if self.segmenter is None and not self._task_makes_masks:
            return "this preset makes no masks"
        detections = [detection for detection in detections if not detection.carried]
        missing = len(detections) - len(masks)
        why = "no whole outline was found" if self.segmenter is not None else "the model gave none in its box"
        return f"{missing} of {len(detections)} objects have no mask: {why}" if missing > 0 else ""

    def _crop(self, frame: Frame, window: Box, max_pixels: int, region: int) -> View:
        """The full-resolution pixels of a window, at the size that the task model wants to see."""
        window = window.snapped(frame.width, frame.height)
        with blamed("task model", self.task):
            size = self.task.view_size(window.width, window.height, max_pixels)
        return frame.view(window, check_size(size, "task model", self.task), region)

    def _examine(
        self,
        global_view: View,
        pending: Sequence[View],
        proposal: Proposal,
        query: Query,
        costs: CostTracker,
        observe: Observer,
        may_stop: bool,
    ) -> list[tuple[View, Findings]]:
        """Views with their findings, in order, as many as the deadline allows, and at least one unless `may_stop`."""
        examined: list[tuple[View, Findings]] = []
        step = self.task.batch_size if costs.budget.deadline_ms else max(1, len(pending))
        for start in range(0, len(pending), step):
            batch = pending[start : start + step]
            estimate_ms = self._examine_latency.estimate_ms(len(batch)) + self._closing_latency.estimate_ms(1)
            if (examined or may_stop) and not costs.affords(estimate_ms):
                break
            observe("examine", _regions(proposal, global_view, [view for view in batch if view.region != GLOBAL_VIEW]))
            with costs.stage("examine") as took, blamed("task model", self.task):
                findings = self.task.examine(batch, query, costs.budget)
            findings = check_findings(findings, len(batch), "task model", self.task)
            self._examine_latency.update(len(batch), took[0])
            for view, found in zip(batch, findings, strict=True):
                examined.append((view, found))
                costs.count_view(view, found.tokens)
        return examined


def _regions(proposal: Proposal, view: View, crops: Sequence[View]) -> tuple[Region, ...]:
    """The proposed regions in source pixels, as they were really cropped, and how much larger than in the view."""
    proposed = [(crop, proposal.regions[crop.region]) for crop in crops]
    return tuple(Region(crop.window, region.label, region.score, crop.zoom / view.zoom) for crop, region in proposed)


def _as_chosen(sensing: StreamingPolicy, view: View, query: Query, costs: CostTracker) -> Iterator[Region | Proposal]:
    """The regions of a policy one by one, and at last its proposal, all checked."""
    with closing(sensing.propose_streaming(view, query, costs.budget)) as chosen:
        while True:
            with costs.stage("sense"), blamed("policy", sensing):
                each = next(chosen, None)
            if not isinstance(each, Region):
                break
            check_proposal(Proposal((each,)), view, sensing)
            yield each
    proposal = check_proposal(each, view, sensing)
    if proposal.findings is not None or proposal.known:
        raise ComponentError(f"the policy {type(sensing).__name__} gave findings with regions one by one")
    yield proposal


def _is_at(regions: Sequence[Region], index: int, region: Region) -> bool:
    """Whether the region at an index has the same box."""
    return index < len(regions) and regions[index].box == region.box


class CostTracker:
    """The running account of one frame: time by stage, views, pixels, tokens."""

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
            self.add_stage(name, took[0])

    def add_stage(self, name: str, milliseconds: float) -> None:
        """Add milliseconds to a stage."""
        self._stages[name] = self._stages.get(name, 0.0) + milliseconds

    def count_view(self, view: View, tokens: int) -> None:
        """Add one view that a model was given, and the tokens that it wrote for it."""
        self.cost += Cost(views=1, pixels=view.pixels, tokens=tokens, calls=1)

    def elapsed_ms(self) -> float:
        """Milliseconds since the frame began."""
        return (time.perf_counter() - self._start) * 1e3

    def affords(self, estimate_ms: float) -> bool:
        """Whether the deadline leaves so many milliseconds; always without a deadline."""
        deadline = self.budget.deadline_ms
        return not deadline or self.elapsed_ms() + estimate_ms <= deadline

    def explain(self, examined: int, planned: int) -> str:
        """The status message of a frame whose deadline stopped the zooming."""
        return f"the deadline of {self.budget.deadline_ms:g} ms left time for {examined} of {planned} regions"

    def timings_ms(self) -> dict[str, float]:
        """Milliseconds by stage, in the order in which they ran, and in total."""
        return {**self._stages, "total": self.elapsed_ms()}


class LatencyEstimator:
    """Estimates the latency of the next call: a moving average per view."""

    SHARE_OF_NEWEST = 0.3

    def __init__(self) -> None:
        self._per_view_ms = 0.0

    def update(self, views: int, milliseconds: float) -> None:
        """Take in the latency of a call with so many views."""
        per_view = milliseconds / views
        share = self.SHARE_OF_NEWEST if self._per_view_ms else 1.0
        self._per_view_ms += share * (per_view - self._per_view_ms)

    def estimate_ms(self, views: int) -> float:
        """Milliseconds that a call with so many views will take; 0 before the first one."""
        return self._per_view_ms * views


def _ignore(stage: str, regions: Sequence[Region]) -> None:
    """The observer of a caller that wants none."""


def _detection(seen: FrameObject) -> Detection:
    track_id = "" if seen.track is None else seen.track.track_id
    return Detection(
        seen.finding.label, seen.finding.score, seen.box, seen.region, track_id, seen.existence, seen.carried
    )


def _grounding(seen: FrameObject, detection: int) -> Grounding:
    return Grounding(seen.finding.phrase, seen.finding.score, seen.box, seen.region, seen.finding.text, detection)


def _masks(segmenter: Segmenter, frame: Frame, detections: Sequence[Detection]) -> tuple[InstanceMask, ...]:
    """The masks of the objects that the frame shows; of one that is carried nobody knows whether it does."""
    shown = [index for index, detection in enumerate(detections) if not detection.carried]
    seen = [detections[index] for index in shown]
    masks = check_masks(segmenter.segment(frame, seen), frame, seen, segmenter)
    if len(shown) == len(detections):
        return tuple(masks)
    shown += [len(detections)] * len(detections)  # what is linked to no object stays so
    return tuple(replace(mask, detection=shown[mask.detection]) if mask.detection >= 0 else mask for mask in masks)


def _unsure(seen: FrameObject) -> str:
    """The note on an object whose text is not reported."""
    texts = " or ".join(f"“{text}”" for text in seen.disputed)
    return f"a {seen.finding.label} at {seen.box.x:.0f}, {seen.box.y:.0f} may read {texts}: not sure enough to report"


@contextmanager
def failures_told_by_caller() -> Iterator[None]:
    """In this block nothing is logged of a failed frame: the caller tells the status message itself.

    A fault of this package is logged with its traceback all the same.
    """
    logger.addFilter(_is_our_fault)
    try:
        yield
    finally:
        logger.removeFilter(_is_our_fault)


def _is_our_fault(record: logging.LogRecord) -> bool:
    return record.exc_info is not None and not getattr(record, BLAMES_COMPONENT, False)


def _log_failure(frame: Frame, message: str, error: Exception) -> None:
    """With a traceback, but for an error that was raised on purpose: its message says all, the place nothing."""
    now = time.monotonic()
    if now - _logged.get(message, -math.inf) < LOGGED_EVERY_S:
        return
    if len(_logged) >= 100:
        _logged.clear()
    _logged[message] = now
    logger.error(
        "perception of a %d x %d frame failed (logged once in %.0f s): %s",
        frame.width,
        frame.height,
        LOGGED_EVERY_S,
        message,
        exc_info=_unexpected(error),
        extra={BLAMES_COMPONENT: isinstance(error, ComponentError)},
    )


def _unexpected(error: Exception) -> BaseException | None:
    """The error that nobody raised on purpose, if it is one or was caused by one."""
    if not isinstance(error, PerceptionError):
        return error
    return error.__cause__ if isinstance(error, ComponentError) else None
