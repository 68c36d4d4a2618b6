"""Chooses regions with a detector on a CPU: where would a closer look find most that the small view misses?

The detector looks at the view and names a hundred places, most with scores far below any that it would be believed
for. Those are hints: of a few pixels it sees that something is there long before it sees what, so the class of a small
hint says little. The hints, and what is too far to be seen at all, are *possible objects*, each with a probability. A
window is worth the objects that it makes large enough; windows are taken greedily, each valued by what it adds to the
ones before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt

from ..core.budget import Budget
from ..core.frame import View
from ..core.geometry import Box, Boxes, as_array, non_maximum_suppression
from ..core.query import Query
from ..core.results import Finding, Findings, Proposal, Region
from ..detectors.centernet import COCO_CLASSES, DetectedBoxes
from ..detectors.embedded import EmbeddedTask
from ..detectors.vocabulary import Target
from ..settings import validated, within

Array = npt.NDArray[np.float64]

HALF_SEEN_SIDE_PX = 18.0
"""The side, in pixels of the detector's input, that an object needs for half of what a look can give. Half are found at
11 px (benchmarks/detectability.py); a box that fits takes more."""
HALF_READ_SIDE_PX = 160.0
"""The same for reading what is written on an object: letters are a small part of it."""
DETECTION_SLOPE = 1.4
"""How fast detection improves with size: logits for each doubling of the side."""
ODDS_OF_SCORE = 2.0
"""Probability that something is where the detector gives a hint, for each unit of score. On real pictures 2 to 3 of 10
hints with a score of 0.1 to 0.15 were an object that slices find, half of those with 0.2 to 0.3."""
OTHER_CLASS = 0.8
"""What a small hint of another class counts beside one of a class that is asked for. Up to 16 px it was right 0.4 to
0.9 times as often, on those pictures and on composed scenes; from 0.6 to 1 the choice makes little difference."""
CLASS_SIDE_PX = 12.0
"""From this side on, in view pixels, a hint of another class counts less: the class is told by the area."""
SAME_HINT_IOU = 0.3
"""The detector names one place several times, as different classes: boxes that overlap more are one hint."""
READ_THRESHOLD = 0.1
"""The score from which an object may carry something to read: reading takes a zoom of its own."""
IMPROVABLE = 0.5
"""What a closer look at an object that the view already reports is worth, beside finding one that it misses."""
LADDER_RATIO = 1.3
"""How much larger each size of window is than the next."""
FAR_SIDES_PX = np.array([3.0, 5.0, 8.0])
"""Sides of the objects that the view is expected to miss, in view pixels."""
PRIOR_POSITION, PRIOR_DEVIATION = (0.5, 0.45), (0.25, 0.12)
"""Where the horizon and the middle of the scene are in a frame, and how sure that is, as shares of width and height."""
PRIOR_SLOPE = (5.0, 5.0)
"""How far objects move from the vanishing point as they grow: objects' sides, a standard deviation around none."""
SCATTER = (3.0, 1.0)
"""How far objects of one size lie beside the line, across and along the image's height, in their own sides."""
MIN_GAIN = 1e-3
"""A window from which fewer objects than this are expected is not worth a look."""
MARGIN_SHARE = 0.15
"""What a window should show around an object, as a share of its width and height."""


@dataclass(frozen=True)
class PossibleObjects:
    """Objects that may be there. center and size (width, height) `(n, 2)` in view pixels; probability `(n,)` that the
    object exists and has not been found; reason `(n,)` why we think so, an index into `REASONS`."""

    center: Array
    size: Array
    probability: Array
    reason: npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Rung:
    """The windows of one size. windows: `(n, 4)` in view pixels; zoom: how much a crop magnifies the view;
    shows: `(n, m)`, 1 where a window shows all of a possible object."""

    windows: Array
    zoom: float
    shows: npt.NDArray[np.float32]


REASONS = ("small object", "beside small objects", "far away", "to read")
SEEN, BESIDE, FAR, READ = range(len(REASONS))


class DetectorProposals:
    """Proposes the windows with the highest expected gain."""

    @validated
    def __init__(
        self,
        hint_threshold: Annotated[float, within(0.01, 1)] = 0.03,
        max_magnification: Annotated[float, within(1, 16)] = 4.0,
        neighbours: Annotated[float, within(0, 10)] = 0.25,
        far_objects: Annotated[float, within(0, 10)] = 0.1,
        task: EmbeddedTask | None = None,
    ) -> None:
        """Load the detector.

        Args:
            hint_threshold: Score from which something in the view counts as a hint.
            max_magnification: Crop pixels for a source pixel beyond which there is nothing more to see.
            neighbours: Objects expected around each small object that is seen.
            far_objects: Objects expected far away, too small for the view to show, for each one that is seen.
            task: Its detector, classes and vocabulary are used; None for those of the embedded task.
        """
        self.hint_threshold = hint_threshold
        self.max_magnification = max_magnification
        self.neighbours = neighbours
        self.far_objects = far_objects
        self.task = task or EmbeddedTask()

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return self.task.view_size(width, height, max_pixels)

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        target = self.task.vocabulary.resolve(query)
        seen = self.task.see(view, self.hint_threshold)
        candidates = self.task.findings(seen, target)
        look = Findings(tuple(f for f in candidates if f.score >= self.task.threshold), notes=target.notes)
        if budget.max_regions == 0:
            return Proposal(findings=look)
        to_read = self._to_read(view, candidates, target) if target.reading else None
        possible = to_read or self._to_find(view, seen, target)
        regions = self._choose_windows(
            view, possible, HALF_READ_SIDE_PX if target.reading else HALF_SEEN_SIDE_PX, budget
        )
        reasoning = "; ".join(f"{region.label}: {region.score:.2f} objects expected" for region in regions)
        return Proposal(regions, look, reasoning=reasoning)

    def _to_read(self, view: View, candidates: list[Finding], target: Target) -> PossibleObjects | None:
        """What may carry something to read, None if there is nothing of the kind; what the view already reports is
        worth a closer look just the same."""
        candidates = [candidate for candidate in candidates if candidate.score >= READ_THRESHOLD]
        if target.free_text:
            candidates += self.task.find_text(view, target)
        if not candidates:
            return None
        boxes = as_array(candidate.box for candidate in candidates)
        exists = np.minimum(1.0, ODDS_OF_SCORE * np.array([candidate.score for candidate in candidates], np.float64))
        return possible_objects(boxes, exists, READ)

    def _to_find(self, view: View, seen: DetectedBoxes, target: Target) -> PossibleObjects:
        """What the view hints at, what may stand beside it, and what is too far away for it."""
        hints = self._hints(seen, target)
        beside = self._beside(hints.center, hints.size, hints.probability)
        far = self._far_away(view, hints.center, hints.size, hints.probability)
        return PossibleObjects(
            np.concatenate([hints.center, beside.center, far.center]),
            np.concatenate([hints.size, beside.size, far.size]),
            np.concatenate([hints.probability, beside.probability, far.probability]),
            np.concatenate([hints.reason, beside.reason, far.reason]),
        )

    def _hints(self, seen: DetectedBoxes, target: Target) -> PossibleObjects:
        """What the view shows, of whatever class, and how probably it is asked for and not yet found."""
        scores, side = seen.scores.astype(np.float64), _side(seen.boxes[:, 2:])
        is_asked = np.isin(seen.class_ids, [COCO_CLASSES.index(name) for name in target.classes])
        of_other_class = OTHER_CLASS * (CLASS_SIDE_PX / np.maximum(side, CLASS_SIDE_PX)) ** 2
        exists = np.minimum(1.0, ODDS_OF_SCORE * scores) * np.where(is_asked, 1.0, of_other_class)
        kept = non_maximum_suppression(seen.boxes, exists, SAME_HINT_IOU)
        is_reported = is_asked & (scores >= self.task.threshold)
        unfound = np.where(is_reported, IMPROVABLE * exists, exists)
        return possible_objects(seen.boxes[kept], unfound[kept], SEEN)

    def _beside(self, center: Array, size: Array, exists: Array) -> PossibleObjects:
        """Objects come in groups: around each one that is seen, others of its size and smaller may be."""
        angles = np.arange(6) * (2 * math.pi / 6)
        # Groups on the ground are wide, not tall.
        offsets = np.stack([2.5 * np.cos(angles), 1.2 * np.sin(angles)], axis=1)
        spread = center[:, None] + offsets[None] * _side(size)[:, None, None]
        count = len(offsets)
        return PossibleObjects(
            spread.reshape(-1, 2),
            np.repeat(0.7 * size, count, axis=0),
            np.repeat(exists * self.neighbours / count, count),
            np.full(len(size) * count, BESIDE, np.intp),
        )

    def _far_away(self, view: View, center: Array, size: Array, exists: Array) -> PossibleObjects:
        """Where objects go as they get smaller: along the line on which what is seen shrinks towards the horizon.

        On a plane, each halving of the size doubles the depth that it spans, so the small ones are at least as many as
        the large ones that are seen.
        """
        frame_size = np.array([view.width, view.height], np.float64)
        mean, deviation = position_at_size(FAR_SIDES_PX, center, _side(size), exists, frame_size)
        steps = np.array([-1.2, -0.4, 0.4, 1.2])
        grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        weights = np.exp(-0.5 * (grid**2).sum(axis=1))
        points = (mean[:, None] + grid[None] * deviation[:, None]).reshape(-1, 2)
        count = self.far_objects * (1.0 + exists.sum()) / len(FAR_SIDES_PX)
        return PossibleObjects(
            points,
            np.repeat(np.stack([FAR_SIDES_PX, FAR_SIDES_PX], axis=1), len(grid), axis=0),
            np.tile(count * weights / weights.sum(), len(FAR_SIDES_PX)),
            np.full(len(points), FAR, np.intp),
        )

    def _choose_windows(
        self, view: View, possible: PossibleObjects, half_side: float, budget: Budget
    ) -> tuple[Region, ...]:
        """Greedily, the windows that add most to what the ones before will find."""
        ladder = list(self._candidate_windows(view, possible, budget))
        side = _side(possible.size)
        # What one size fails to show, the same size again fails to show too: only a larger one adds to what was found.
        found = detectability(side, half_side)
        closer = [detectability(side * rung.zoom, half_side) for rung in ladder]
        regions: list[Region] = []
        for _ in range(budget.max_regions):
            worth = [possible.probability * np.maximum(0.0, seen - found) for seen in closer]
            gains = [rung.shows @ gain.astype(np.float32) for rung, gain in zip(ladder, worth, strict=True)]
            best = max(range(len(ladder)), key=lambda n: gains[n].max(initial=0.0))
            window = int(np.argmax(gains[best]))
            if gains[best][window] <= MIN_GAIN:
                break
            shown = ladder[best].shows[window] > 0
            reason = np.bincount(possible.reason[shown], weights=worth[best][shown], minlength=len(REASONS))
            box = Box(*ladder[best].windows[window].tolist())
            regions.append(Region(box, REASONS[int(np.argmax(reason))], float(gains[best][window])))
            found = np.where(shown, np.maximum(found, closer[best]), found)
        return tuple(regions)

    def _candidate_windows(self, view: View, possible: PossibleObjects, budget: Budget) -> Iterator[Rung]:
        """Square windows around the possible objects, from half the view down to the smallest worth a look."""
        frame = np.array([view.width, view.height], np.float64)
        # A margin that would lie outside the frame cannot be shown, and nothing is cut off there.
        reach = (0.5 + MARGIN_SHARE) * possible.size
        start = np.maximum(possible.center - reach, 0.0).astype(np.float32)
        end = np.minimum(possible.center + reach, frame).astype(np.float32)
        longest = max(view.width, view.height)
        crop_side = max(self.task.view_size(longest, longest, budget.crop_pixels))
        smallest = min(longest / 2, crop_side / self.max_magnification * view.zoom)
        steps = max(1, math.ceil(math.log(longest / 2 / smallest, LADDER_RATIO)))
        for side in np.geomspace(longest / 2, smallest, steps + 1):
            size = np.minimum(side, frame)
            spacing = side / 5
            places = np.round(possible.center / spacing)
            _, first = np.unique(places[:, 0] + 1j * places[:, 1], return_index=True)
            low = np.clip(places[first] * spacing - size / 2, 0, frame - size)
            high = low + size
            x0, y0, x1, y1 = (low[:, :1], low[:, 1:], high[:, :1], high[:, 1:])
            shows = (start[:, 0] >= x0) & (start[:, 1] >= y0) & (end[:, 0] <= x1) & (end[:, 1] <= y1)
            windows = np.concatenate([low, np.broadcast_to(size, low.shape)], axis=1)
            yield Rung(windows, float(crop_side / size.max()), shows.astype(np.float32))


def possible_objects(boxes: Boxes, probability: Array, reason: int) -> PossibleObjects:
    """Objects with `(n, 4)` boxes in view pixels and their probabilities `(n,)`, all for one reason."""
    center, size = boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]
    return PossibleObjects(center, size, probability, np.full(len(boxes), reason, np.intp))


def _side(size: Array) -> Array:
    """`(n,)` sides of the squares of the same area as `(n, 2)` sizes."""
    return np.asarray(np.sqrt(size[:, 0] * size[:, 1]))


def detectability(side: Array, half_side: float) -> Array:
    """Probability that the detector finds an object of this side, in pixels of its input: logistic in log size."""
    doublings = np.log2(np.maximum(side, 1e-3) / half_side)
    return np.asarray(1.0 / (1.0 + np.exp(-DETECTION_SLOPE * doublings)))


def position_at_size(at: Array, center: Array, side: Array, weight: Array, size: Array) -> tuple[Array, Array]:
    """Where objects of sides `at` `(m,)` are expected: mean and standard deviation, both `(m, 2)`, in view pixels.

    Bayesian linear regression of the centre `(n, 2)` on the side `(n,)`, each object counting by its weight `(n,)`,
    in a view of `size` (width, height). Under perspective an object's distance from the vanishing point is
    proportional to its size, and so is the scatter. The prior, alone when nothing is seen, puts small things in the
    middle of the frame a little above half its height, where the horizon of a level camera is.
    """
    design, asked = np.stack([np.ones_like(side), side], axis=1), np.stack([np.ones_like(at), at], axis=1)
    mean, deviation = np.empty((len(at), 2)), np.empty((len(at), 2))
    for axis in range(2):
        prior_mean = np.array([PRIOR_POSITION[axis] * size[axis], 0.0])
        prior_precision = np.diag([(PRIOR_DEVIATION[axis] * size[axis]) ** -2.0, PRIOR_SLOPE[axis] ** -2.0])
        information = weight / (1.0 + SCATTER[axis] * side) ** 2
        precision = prior_precision + (design * information[:, None]).T @ design
        covariance = np.linalg.inv(precision)
        line = covariance @ (prior_precision @ prior_mean + design.T @ (information * center[:, axis]))
        mean[:, axis] = np.clip(asked @ line, 0, size[axis])
        spread = np.einsum("ij,jk,ik->i", asked, covariance, asked)
        deviation[:, axis] = np.sqrt(spread + (SCATTER[axis] * at) ** 2)
    return mean, deviation
