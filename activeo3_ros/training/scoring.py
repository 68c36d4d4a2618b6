"""What a written sensing answer is worth: read by the project's parser, run through the project's loop, rewarded term
by term.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from ..core import ActivePerception, Budget, Frame, Query, Status, View
from ..core.errors import PerceptionError
from ..core.geometry import Box, Boxes, iou
from ..core.interfaces import TaskModel
from ..core.results import Detection, Proposal, Region
from ..vlm.dynamic_batching import Call, SharedEngine, answer_together
from ..vlm.engine import Engine, Reply, Request
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
    overlap_term,
)
from .rows import Row

logger = logging.getLogger(__name__)

CACHE_SIZE = 65_536
RUNNING_THREADS = 2
"""Of those that share an engine: enough to crop while another reads, too few to compete."""
NO_PIXELS: Mask = np.zeros((0, 0), bool)
TERMS = ("format", "overlap", "area", "coverage", "task")
GIVEN_UP = 7
"""A batch, its halves and its quarters: if none of them is answered, the engine is not asked the rest of hundreds."""
BAD_CALLS = 3
"""So many calls in a row in which the task model failed on most of what it was asked end the training."""


class TrainingError(PerceptionError):
    """Training cannot go on; the message says why and how to resume."""


@dataclass(frozen=True)
class Scored:
    """One answer with its reward. regions: `(n, 4)` in pixels of the picture.

    detections: None without a task model, and where it failed. failure: what it then said, else "". An answer that it
    failed on has no task term.
    """

    row: Row
    text: str
    regions: Boxes
    reward: Reward
    detections: tuple[Detection, ...] | None = None
    failure: str = ""


@dataclass(frozen=True)
class Examined:
    """What the task model found in an answer's regions. failure: why it could not look at them, "" if it could."""

    detections: tuple[Detection, ...] = ()
    failure: str = ""


class GivenRegions:
    """A sensing policy that proposes what was decided before: so a trainer or an evaluation uses the loop itself.

    Its view is the picture as it is, which costs nothing: nobody looks at it. The regions are in pixels of the picture.
    """

    def __init__(self, regions: Sequence[Region]) -> None:
        self._regions = regions

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return width, height

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        return Proposal(tuple(self._regions), used_view=False)


class RolloutBatcher(SharedEngine):
    """An engine that answers what many pieces of work ask of it in one batch.

    Each piece has a thread of its own, which runs until it asks; when all of them have asked or ended, their requests
    are answered together. Only a few run at a time: hundreds of threads that compete for the interpreter are several
    times slower than one after the other.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._turns = threading.Semaphore(RUNNING_THREADS)
        self._lock = threading.Lock()
        self._active = 0
        self._waiting: list[_Ticket] = []

    def map(self, work: Callable[[int], None], count: int, threads: int) -> None:
        """Do `work(0)` to `work(count - 1)`, at most `threads` at a time. Raises what the first of them does."""
        workers = min(threads, count)
        with self._lock:
            self._active += workers

        def run(worker: int) -> None:
            self._turns.acquire()
            try:
                for index in range(worker, count, workers):
                    work(index)
            finally:
                with self._lock:
                    self._active -= 1
                    batch = self._batch()
                self._serve(batch)
                self._turns.release()

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(run, range(workers)))

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        ticket = _Ticket(requests)
        with self._lock:
            inside = self._active > 0
            self._waiting.append(ticket)
            batch = self._batch()
        self._serve(batch)
        if inside:
            self._turns.release()
        ticket.done.wait()
        if inside:
            self._turns.acquire()
        if ticket.error is not None:
            raise ticket.error
        return ticket.replies

    def _batch(self) -> list[_Ticket]:
        """All that wait, once nobody is left who may still ask."""
        if len(self._waiting) < self._active:
            return []
        batch, self._waiting = self._waiting, []
        return batch

    def _serve(self, batch: Sequence[_Ticket]) -> None:
        if not batch:
            return
        answer_together(self.engine, batch, GIVEN_UP)
        for ticket in batch:
            ticket.done.set()


@dataclass
class _Ticket(Call):
    done: threading.Event = field(default_factory=threading.Event)


class Scorer:
    """Rewards sensing answers. Equal regions on one picture are examined once, also across calls."""

    def __init__(
        self,
        settings: RewardSettings,
        family: Family,
        budget: Budget,
        shorter_side: int | None = None,
        task: TaskModel | None = None,
        frame_of: Callable[[Row], Frame] = Row.frame,
        gathering: RolloutBatcher | None = None,
        threads: int = 1024,
    ) -> None:
        """task: None for the heuristic terms alone. gathering: the engine of the task model, to answer threads
        together.
        """
        self.settings, self.family, self.budget = settings, family, budget
        self.shorter_side, self.task, self.frame_of = shorter_side, task, frame_of
        self._gathering = gathering
        self._threads = threads
        self._cache: OrderedDict[tuple[object, ...], Examined] = OrderedDict()
        self._bad_calls = 0
        self._warned: set[str] = set()

    def view_size(self, row: Row) -> tuple[int, int]:
        """Width and height of the view that the policy gets of a row's picture."""
        return self.family.fit(row.width, row.height, self.budget.view_pixels, self.shorter_side)

    def score(self, texts: Sequence[str], rows: Sequence[Row]) -> list[Scored]:
        """One `Scored` for each answer to a row's question, in their order.

        Raises TrainingError if the task model fails on all of several pictures, or goes on failing on most of them.
        """
        read = [self._read(text, row) for text, row in zip(texts, rows, strict=False)]
        seen: list[Examined] | None = None
        if self.task is not None and self.settings.weights.task:
            seen = self._examine(rows, [regions for _, regions in read])
        # To count matched targets takes no pixels.
        drawn = {(row.image, row.classes): row for row in rows} if self.settings.coverage != "matched" else {}
        masks = {key: row.mask() for key, row in drawn.items()}
        return [
            self._scored(
                text,
                row,
                answer,
                regions,
                masks.get((row.image, row.classes), NO_PIXELS),
                seen[index] if seen is not None else None,
            )
            for index, (text, row, (answer, regions)) in enumerate(zip(texts, rows, read, strict=False))
        ]

    def _read(self, text: str, row: Row) -> tuple[Answer, tuple[Region, ...]]:
        """The answer, and its regions in pixels of the view, as the policy's adapter reads them."""
        size = self.view_size(row)
        answer = parse_answer(text, self.family.extent(size))
        boxes = self.family.to_view([box.corners for box in answer.boxes], size, size)
        return answer, tuple(
            Region(Box(*each.tolist()), box.label) for each, box in zip(boxes, answer.boxes, strict=False)
        )

    def _to_source(self, row: Row) -> list[float]:
        """What x, y, width, height in pixels of the view are multiplied with to be in pixels of the picture."""
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
        """What the task model finds in the regions of each answer, through the loop."""
        keys = [
            (row.image, row.classes, tuple(r.box.as_tuple() for r in mine[: self.budget.max_regions]))
            for row, mine in zip(rows, regions, strict=False)
        ]
        new = {key: index for index, key in enumerate(keys) if key not in self._cache and regions[index]}
        frames = {rows[index].image: self.frame_of(rows[index]) for index in new.values()}

        def look(index: int) -> Examined:
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

        looked: dict[tuple[object, ...], Examined] = {}
        if new:
            wanted = list(new.items())

            def work(position: int) -> None:
                key, index = wanted[position]
                looked[key] = look(index)

            if self._gathering is not None:
                self._gathering.map(work, len(wanted), self._threads)
            else:
                for position in range(len(wanted)):
                    work(position)
        # Taken together before the cache lets any go; what is in neither has no regions, where nothing is to be seen.
        seen = [looked.get(key) or self._cache.get(key) or Examined() for key in keys]
        # What failed is not kept: it may go well the next time.
        self._cache.update((key, each) for key, each in looked.items() if not each.failure)
        while len(self._cache) > max(CACHE_SIZE, len(keys)):
            self._cache.popitem(last=False)
        self._note_failures(looked.values(), seen, rows)
        return seen

    def _note_failures(self, looked: Collection[Examined], seen: Sequence[Examined], rows: Sequence[Row]) -> None:
        """Warn of what the task model failed on, of each of its messages once. Raises TrainingError if that is
        all of several pictures, or most of what it was asked for some calls in a row.

        looked: what was examined in this call. seen: what is known of each of its answers.
        """
        if not looked:
            return
        failed = sum(bool(each.failure) for each in looked)
        self._bad_calls = self._bad_calls + 1 if 2 * failed > len(looked) else 0
        if not failed:
            return
        said = Counter(each.failure for each in seen if each.failure)
        for message, answers in said.items():
            if message not in self._warned:
                self._warned.add(message)
                logger.warning(
                    "the task model failed on %d of %d answers, which get no task reward: %s",
                    answers,
                    len(seen),
                    message,
                )
        pictures = {row.image for row, each in zip(rows, seen, strict=True) if each.failure}
        everything = failed == len(looked) and len(pictures) > 1  # one picture may be bad
        if not everything and self._bad_calls < BAD_CALLS:
            return
        often = f"{failed} of {len(looked)} examinations"
        if not everything:
            often += f", and on more than half of them {BAD_CALLS} times in a row"
        one = f"leave out {pictures.pop()}, " if len(pictures) == 1 else ""
        raise TrainingError(
            f"the task model failed on {often}: {said.most_common(1)[0][0]}; this is no reward, and nothing can be "
            f"learned from it: mend the task model, {one}or do without it (reward: {{weights: {{task: 0}}}}), and run "
            "the same command again (training goes on from its last checkpoint)"
        )


def region_statistics(scored: Sequence[Scored]) -> dict[str, float]:
    """Means over answers, for logs: regions, their area as a share of the picture, their largest overlap."""
    counts = [len(each.regions) for each in scored]
    shares = [float(box[2] * box[3] / (each.row.width * each.row.height)) for each in scored for box in each.regions]
    overlaps = [float(np.triu(iou(each.regions, each.regions), k=1).max()) for each in scored if len(each.regions) > 1]
    return {
        "regions/count": float(np.mean(counts)) if counts else 0.0,
        "regions/area": float(np.mean(shares)) if shares else 0.0,
        "regions/max_iou": float(np.mean(overlaps)) if overlaps else 0.0,
    }
