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

"""Chooses regions with a detector on a CPU: where does a zoom find most of what the small view misses?

The detector runs on the view with a low threshold, `possible_objects` makes objects with probabilities of its hints,
and `windows` chooses the windows that show most of these large enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from ..core.budget import Budget
from ..core.errors import UnsupportedQuery
from ..core.expectation import Expectation
from ..core.frame import View
from ..core.geometry import as_array
from ..core.query import Query
from ..core.results import DetectedBoxes, Finding, Proposal, Region
from ..detectors.centernet import CenterNet
from ..detectors.detector_task import DetectorTask, as_known, findings_from
from ..detectors.vocabulary import Target
from ..settings import validated, within
from .possible_objects import READ, PossibleObjects, existence, far_objects, hinted_objects, neighbours_of
from .remembered import compared_with_memory, found_before
from .windows import best_windows, window_pyramid

HALF_READ_SIDE_PX = 160.0
"""The side, in pixels of the crop, that an object needs for half of its texts to be read: letters are a small part of
it."""
READ_LOGITS_PER_DOUBLING = 1.4
"""How fast reading improves with each doubling of that side."""
READ_THRESHOLD = 0.1
"""The score from which an object may carry something to read: reading takes a zoom of its own."""


class DetectorProposals:
    """Proposes the windows with the highest expected gain."""

    @validated
    def __init__(
        self,
        hint_threshold: Annotated[float, within(0.01, 1)] = 0.03,
        max_magnification: Annotated[float, within(1, 16)] = 4.0,
        neighbours: Annotated[float, within(0, 10)] = 0.25,
        far_objects: Annotated[float, within(0, 10)] = 0.1,
        task: DetectorTask | None = None,
        reports: bool = True,
    ) -> None:
        """Load the detector.

        Args:
            hint_threshold: Score from which something in the view counts as a hint.
            max_magnification: Crop pixels for a source pixel beyond which there is nothing more to see.
            neighbours: Objects expected around each small object that is seen.
            far_objects: Objects expected far away, too small for the view to show, for each one that is seen.
            task: Its detector, classes and vocabulary are used; None for those of the embedded preset.
            reports: Whether what the detector finds in the view is a part of the result, as it is where the task model
                of the loop has the same detector; else it only chooses regions.
        """
        self.hint_threshold = hint_threshold
        self.max_magnification = max_magnification
        self.neighbours = neighbours
        self.far_objects = far_objects
        self.task = task or DetectorTask(CenterNet())
        self.reports = reports

    @property
    def concurrent(self) -> bool:
        """As of the task: this class keeps nothing of a frame, and views of several cameras may form one batch."""
        return self.task.concurrent

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return self.task.view_size(width, height, max_pixels)

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        return self.propose_expecting(view, query, budget, Expectation())

    def propose_expecting(self, view: View, query: Query, budget: Budget, expected: Expectation, /) -> Proposal:
        target, notes = self._resolve(query)
        [detected] = self.task.detect([view], self.hint_threshold, target)
        candidates = self.task.select(detected, target)
        if not self.reports:
            regions = self._regions_to_find(view, detected, target, budget, expected)
            return Proposal(regions, reasoning=_reasoning(regions), notes=notes)
        findings = findings_from(candidates, self.task.threshold, target.notes)
        hosts = self.task.select(detected, replace(target, classes=target.hosts)) if target.hosts else []
        known = tuple(as_known(each) for each in (*candidates, *hosts) if each.score >= self.task.threshold)
        if target.reading:
            findings = self.task.read(view.knowing(known), findings, target)
        if budget.max_regions == 0:
            return Proposal(findings=findings)
        to_read = self._objects_to_read(view, [*candidates, *hosts], target) if target.reading else None
        # What was read is read again until the looks agree; what was searched is not.
        regions = (
            self._regions(view, to_read, target, budget, Expectation())
            if to_read
            else self._regions_to_find(view, detected, target, budget, expected)
        )
        return Proposal(regions, findings, known if target.reading else (), reasoning=_reasoning(regions))

    def regions_from(self, view: View, detected: DetectedBoxes, target: Target, budget: Budget) -> tuple[Region, ...]:
        """The regions for a view in which the detector was asked already: its boxes from `hint_threshold` on."""
        return self._regions_to_find(view, detected, target, budget, Expectation())

    def _resolve(self, query: Query) -> tuple[Target, tuple[str, ...]]:
        """What to look for, and notes on it: all that the detector knows, where it only chooses regions for a model
        that knows more."""
        try:
            target = self.task.resolve(query)
        except UnsupportedQuery:
            if self.reports:
                raise
            note = f"the regions were chosen for all classes of {self.task.label}, which does not know the query"
            return self.task.resolve(Query()), (note,)
        return (target if self.reports else replace(target, reading="", hosts=())), ()

    def _regions_to_find(
        self, view: View, detected: DetectedBoxes, target: Target, budget: Budget, expected: Expectation
    ) -> tuple[Region, ...]:
        """The windows in which most objects are expected to be found, with what the detector gave for the view."""
        possible = self.objects_to_find(view, detected, target, expected)
        return self._regions(view, possible, target, budget, expected)

    def _regions(
        self, view: View, possible: PossibleObjects, target: Target, budget: Budget, expected: Expectation
    ) -> tuple[Region, ...]:
        longest = max(view.width, view.height)
        crop_side = max(self.task.view_size(longest, longest, budget.crop_pixels))
        smallest_side = crop_side / self.max_magnification * view.zoom
        pyramid = list(window_pyramid(possible, (view.width, view.height), crop_side, smallest_side))
        known_size = self.task.calibration.half_found_side_px, self.task.calibration.logits_per_doubling
        half_side, slope = (HALF_READ_SIDE_PX, READ_LOGITS_PER_DOUBLING) if target.reading else known_size
        found = found_before(possible, expected.zooms, half_side, slope)
        return best_windows(possible, pyramid, half_side, slope, budget.max_regions, found)

    def _objects_to_read(self, view: View, candidates: Sequence[Finding], target: Target) -> PossibleObjects | None:
        """Objects that may carry something to read, None if there are none; those that the view already reports are
        worth a zoom just the same."""
        candidates = [candidate for candidate in candidates if candidate.score >= READ_THRESHOLD]
        if target.free_text and not target.hosts:
            candidates += self.task.locate_text(view)
        if not candidates:
            return None
        boxes = as_array(candidate.box for candidate in candidates)
        exists = existence([candidate.score for candidate in candidates], self.task.calibration)
        return PossibleObjects.in_boxes(boxes, exists, READ)

    def objects_to_find(
        self, view: View, detected: DetectedBoxes, target: Target, expected: Expectation
    ) -> PossibleObjects:
        """Objects that the view hints at, those that may stand beside them, and those too far away for it."""
        class_ids = self.task.class_ids(target.classes, target)
        hints = hinted_objects(detected, class_ids, self.task.threshold, self.task.calibration)
        beside = neighbours_of(hints, self.neighbours)
        far = far_objects(hints, self.far_objects, (view.width, view.height))
        return PossibleObjects.joined([compared_with_memory(hints, expected.objects), beside, far])


def _reasoning(regions: Sequence[Region]) -> str:
    return "; ".join(f"{region.label}: {region.score:.2f} objects expected" for region in regions)
