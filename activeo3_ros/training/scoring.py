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

"""Scores written sensing answers: parsed by the node's parser, run through the node's loop, rewarded term by term."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ..core import ActivePerception, Budget, Frame, Query, Status, View
from ..core.errors import PerceptionError
from ..core.geometry import Box, Boxes, iou
from ..core.interfaces import TaskModel
from ..core.results import Detection, Proposal, Region
from ..vlm.families import Family
from ..vlm.parsing import Answer, parse_answer
from .rewards import (
    Mask,
    Reward,
    RewardSettings,
    area_term,
    combine,
    coverage_term,
    detection_term,
    format_term,
    looks_term,
    negatives_term,
    overlap_term,
)
from .rollout_batcher import RolloutBatcher
from .rows import Row

logger = logging.getLogger(__name__)

CACHE_SIZE = 65_536
NO_PIXELS: Mask = np.zeros((0, 0), bool)
TERMS = ("format", "overlap", "area", "coverage", "task", "looks", "negatives")
BAD_CALLS = 3
"""So many calls in a row in which the task model failed on most of its examinations end the training."""


class TrainingError(PerceptionError):
    """Training cannot go on; the message says why and how to resume."""


@dataclass(frozen=True)
class Scored:
    """One answer with its reward.

    Attributes:
        row: The question.
        text: The answer as it was written.
        regions: `(n, 4)` of `x, y, width, height`, pixels of the picture.
        reward: The terms and their sum; without a task term if the task model failed.
        detections: Found in the regions, in pixels of the picture; None without a task model, and where it failed.
        failure: The message of the task model that failed, else "".
    """

    row: Row
    text: str
    regions: Boxes
    reward: Reward
    detections: tuple[Detection, ...] | None = None
    failure: str = ""


@dataclass(frozen=True)
class Examined:
    """The task model's detections in an answer's regions.

    Attributes:
        detections: In pixels of the picture.
        failure: Why it could not examine them, "" if it could.
    """

    detections: tuple[Detection, ...] = ()
    failure: str = ""


class GivenRegions:
    """A sensing policy that proposes given regions, so that training and evaluation run the loop itself.

    Its view is the picture as it is, which costs nothing, as no model gets it. Regions are in pixels of the picture.
    """

    def __init__(self, regions: Sequence[Region]) -> None:
        self._regions = regions

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return width, height

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        return Proposal(tuple(self._regions), used_view=False)


class Scorer:
    """Rewards sensing answers. Equal regions of one picture are examined once, also across calls."""

    def __init__(
        self,
        settings: RewardSettings,
        family: Family,
        budget: Budget,
        shorter_side: int | None = None,
        task: TaskModel | None = None,
        frame_of: Callable[[Row], Frame] = lambda row: row.frame(),
        batcher: RolloutBatcher | None = None,
        threads: int = 1024,
    ) -> None:
        """Make a scorer.

        Args:
            settings: Thresholds and weights of the terms.
            family: Of the policy's model, which reads its coordinates.
            budget: Of one frame.
            shorter_side: Of the policy's view, pixels; None for as large as the budget allows.
            task: Examines the regions; None for the heuristic terms alone.
            frame_of: Gives the picture of a row.
            batcher: The engine of the task model, to batch the requests of all answers.
            threads: Answers examined at a time, with a batcher.
        """
        self.settings, self.family, self.budget = settings, family, budget
        self.shorter_side, self.task, self.frame_of = shorter_side, task, frame_of
        self._batcher = batcher
        self._threads = threads
        self._cache: OrderedDict[tuple[object, ...], Examined] = OrderedDict()
        self._bad_calls = 0
        self._warned: set[str] = set()

    def view_size(self, row: Row) -> tuple[int, int]:
        """Width and height in pixels of the policy's view of a row's picture."""
        return self.family.fit(row.width, row.height, self.budget.view_pixels, self.shorter_side)

    def score(self, texts: Sequence[str], rows: Sequence[Row]) -> list[Scored]:
        """Score answers.

        Args:
            texts: The answers.
            rows: The question of each.

        Returns:
            One `Scored` for each answer, in their order.

        Raises:
            TrainingError: The task model fails on all of several pictures, or goes on failing on most of them.
        """
        parsed = [self._parse(text, row) for text, row in zip(texts, rows, strict=False)]
        examined: list[Examined] | None = None
        if self.task is not None and self.settings.weights.task:
            examined = self._examine(rows, [regions for _, regions in parsed])
        # Counting matched targets takes no pixels.
        drawn = {(row.image, row.classes): row for row in rows} if self.settings.coverage != "matched" else {}
        masks = {key: row.mask() for key, row in drawn.items()}
        return [
            self._scored(
                text,
                row,
                answer,
                regions,
                masks.get((row.image, row.classes), NO_PIXELS),
                examined[index] if examined is not None else None,
            )
            for index, (text, row, (answer, regions)) in enumerate(zip(texts, rows, parsed, strict=False))
        ]

    def _parse(self, text: str, row: Row) -> tuple[Answer, tuple[Region, ...]]:
        """The answer, and its regions in pixels of the view, as the policy's adapter reads them."""
        size = self.view_size(row)
        answer = parse_answer(text, self.family.extent(size))
        boxes = self.family.to_view([box.corners for box in answer.boxes], size, size)
        return answer, tuple(
            Region(Box(*each.tolist()), box.label) for each, box in zip(boxes, answer.boxes, strict=False)
        )

    def _to_source(self, row: Row) -> list[float]:
        """Factors of x, y, width, height that take pixels of the view to pixels of the picture."""
        width, height = self.view_size(row)
        return [row.width / width, row.height / height] * 2

    def _scored(
        self,
        text: str,
        row: Row,
        answer: Answer,
        regions: tuple[Region, ...],
        mask: Mask,
        examined: Examined | None,
    ) -> Scored:
        settings, size = self.settings, self.view_size(row)
        scale = np.array(self._to_source(row))
        in_view: Boxes = np.array([region.box.as_tuple() for region in regions], np.float64).reshape(-1, 4)
        in_source = in_view * scale
        # The node stops reading there; a policy that went on would only make its answers slow.
        tagged = answer.well_formed and text.rstrip().endswith("</answer>")
        terms = {
            "format": format_term(tagged, tagged, tagged and 0 < len(regions) <= self.budget.max_regions),
            "overlap": overlap_term(in_view, settings.max_pair_iou),
            "area": area_term(in_view, *size, settings.min_area, settings.max_area),
            "coverage": coverage_term(in_source[: self.budget.max_regions], row.boxes, mask, settings),
        }
        if settings.weights.negatives:
            terms["negatives"] = negatives_term(in_view, row.boxes) if tagged else 0.0
            if terms["negatives"]:  # else any region there would pay more than the right answer
                terms |= {"format": 1.0, "overlap": 1.0, "area": 1.0}
        if settings.weights.looks:  # an answer that cannot be read has saved nothing
            terms["looks"] = looks_term(in_view, max(1, self.budget.max_regions)) if tagged else 0.0
        detections = examined.detections if examined is not None and not examined.failure else None
        if detections is not None:
            terms["task"] = detection_term(
                [each.box.as_tuple() for each in detections],
                [each.score for each in detections],
                [each.label for each in detections],
                row.boxes,
                row.labels,
                settings.detection_iou,
            )
        failure = examined.failure if examined is not None else ""
        return Scored(row, text, in_source, combine(terms, settings.weights), detections, failure)

    def _examine(self, rows: Sequence[Row], regions: Sequence[tuple[Region, ...]]) -> list[Examined]:
        """Run the loop over the regions of each answer."""
        keys = [
            (row.image, row.classes, tuple(r.box.as_tuple() for r in mine[: self.budget.max_regions]))
            for row, mine in zip(rows, regions, strict=False)
        ]
        new = {key: index for index, key in enumerate(keys) if key not in self._cache and regions[index]}
        frames = {rows[index].image: self.frame_of(rows[index]) for index in new.values()}

        def examine(index: int) -> Examined:
            row = rows[index]
            scale = np.array(self._to_source(row))
            boxes = [Box(*(np.array(region.box.as_tuple()) * scale).tolist()) for region in regions[index]]
            policy = GivenRegions([Region(box, each.label) for box, each in zip(boxes, regions[index], strict=True)])
            assert self.task is not None
            loop = ActivePerception(policy, self.task, self.budget, examine_view=False)
            result = loop.perceive(frames[row.image], row.query)
            if result.status is Status.FAILED:
                return Examined(failure=" ".join(result.status_message.split()) or "it did not say why")
            return Examined(result.detections)

        made: dict[tuple[object, ...], Examined] = {}
        if new:
            wanted = list(new.items())

            def work(position: int) -> None:
                key, index = wanted[position]
                made[key] = examine(index)

            if self._batcher is not None:
                self._batcher.map(work, len(wanted), self._threads)
            else:
                for position in range(len(wanted)):
                    work(position)
        # Taken together before the cache lets any go; an answer in neither has no regions, hence no detections.
        examined = [made.get(key) or self._cache.get(key) or Examined() for key in keys]
        # A failure is not kept: the next examination may succeed.
        self._cache.update((key, each) for key, each in made.items() if not each.failure)
        while len(self._cache) > max(CACHE_SIZE, len(keys)):
            self._cache.popitem(last=False)
        self._note_failures(made.values(), examined, rows)
        return examined

    def _note_failures(self, made: Collection[Examined], examined: Sequence[Examined], rows: Sequence[Row]) -> None:
        """Warn of failures of the task model, once for each of its messages.

        Args:
            made: The examinations of this call.
            examined: The examination of each answer, made now or before.
            rows: The question of each answer.

        Raises:
            TrainingError: It failed on all of several pictures, or on most of its examinations some calls in a row.
        """
        if not made:
            return
        failed = sum(bool(each.failure) for each in made)
        self._bad_calls = self._bad_calls + 1 if 2 * failed > len(made) else 0
        if not failed:
            return
        messages = Counter(each.failure for each in examined if each.failure)
        for message, answers in messages.items():
            if message not in self._warned:
                self._warned.add(message)
                logger.warning(
                    "the task model failed on %d of %d answers, which get no task reward: %s",
                    answers,
                    len(examined),
                    message,
                )
        pictures = {row.image for row, each in zip(rows, examined, strict=True) if each.failure}
        everything = failed == len(made) and len(pictures) > 1  # one picture may be bad
        if not everything and self._bad_calls < BAD_CALLS:
            return
        often = f"{failed} of {len(made)} examinations"
        if not everything:
            often += f", and on more than half of them {BAD_CALLS} times in a row"
        one = f"leave out {pictures.pop()}, " if len(pictures) == 1 else ""
        raise TrainingError(
            f"the task model failed on {often}: {messages.most_common(1)[0][0]}; this is no reward, and nothing can be "
            f"learned from it: fix the task model, {one}or do without it (reward: {{weights: {{task: 0}}}}), and run "
            "the same command again (training goes on from its last checkpoint)"
        )


def region_statistics(scored: Sequence[Scored]) -> dict[str, float]:
    """Average the regions of answers, for logs.

    Args:
        scored: The answers.

    Returns:
        `regions/count`, the mean number; `regions/area`, the mean area as a share of the picture; `regions/max_iou`,
        the mean over answers of their largest overlap.
    """
    counts = [len(each.regions) for each in scored]
    shares = [float(box[2] * box[3] / (each.row.width * each.row.height)) for each in scored for box in each.regions]
    overlaps = [float(np.triu(iou(each.regions, each.regions), k=1).max()) for each in scored if len(each.regions) > 1]
    return {
        "regions/count": float(np.mean(counts)) if counts else 0.0,
        "regions/area": float(np.mean(shares)) if shares else 0.0,
        "regions/max_iou": float(np.mean(overlaps)) if overlaps else 0.0,
    }
