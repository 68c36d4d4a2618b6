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

"""Evidence: what all views of one frame say, weighed into one list of objects.

First the observations of one object are brought together, by three rules. A box that a crop's border cuts gives way to
a fuller box of the same object. Observations of one object in several views become one, with the best-supported box and
that box's own score. Two objects that one view shows apart stay two, however close they are: no object takes two
observations from one view. What the views read on one object is put to the vote.

Then each object is a `Hypothesis` with a log-odds of existence. Every view that shows its place is evidence, also where
it shows nothing: by the apparent size of the object and the detector's `Calibration`, a finding speaks for it as much
as its score is worth, and a miss against it as much as the detector would have found it. Views of about the same
magnification miss the same things and find the same false ones, so each of them counts less.

A calibration holds for pictures like those that it was measured on. Cars from above are not cars for a detector that
knows them from the side: it sees a few by luck, and a closer look at the same car shows it nothing. So a miss counts
less where closer looks confirm less of what a view reports than the calibration says (`Confirmations`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from .calibration import DEFAULT, Calibration
from .errors import PerceptionError
from .frame import KnownObject, View
from .geometry import Box, Boxes, areas, as_array, from_corners, intersections, iou, share_inside, to_corners
from .results import NO_SCORE, Finding, Findings, Track

MATCH_IOU = 0.5
"""Two boxes of one label in different views are one object from this overlap on, if both show it large."""
OTHER_LABEL_IOU = 0.7
"""The same for two boxes of different labels: a car in one view is a truck in the next, but a rider is no bicycle."""
MIN_MATCH_IOU = 0.15
"""The overlap that is enough for the smallest objects of one label, whose boxes jitter by as much as their size."""
CUT_MARGIN_PX = 3.0
"""A box that ends this close to the border of a crop, in crop pixels, may go on beyond it."""
MIN_TEXT_SCORE = 0.5
"""A text with less than this is not reported: its score times its share of the votes."""
SHARE_OF_TEXT = 0.7
"""A text that lies to this share inside another is a part of it, read in another view."""
MAX_OBSERVATIONS = 1000
"""Observations of one frame that are weighed, the best first: a broken model must not stop the node."""

SHOWN_SHARE = 0.9
"""A view looks at a place if it shows this share of it."""
CUT_WEIGHT = 0.5
"""What a box that its view cuts is worth as evidence: something is there, but not that it ends where the box does."""
CLOSER = 0.25
"""A view is a closer look than another from this many octaves of magnification on."""
PROBABILITY_LIMITS = (0.02, 0.98)
"""No single look makes an object surer, or less likely, than this."""
PRIOR_SHARE = 0.6
"""A box with this share of the detector's threshold as its score says nothing either way: the share of such boxes that
are objects is what is believed before any look."""
TRUE_WITHOUT_SCORE = 0.7
"""Probability that a finding of a model without scores is an object."""
DENIAL = 0.75
"""What a view reports is not an object if the log-odds from all views are this far below those of a box with the score
that the detector's threshold asks for: they speak clearly against it. Chosen on every second picture of coco128's train
half: as few objects as possible are lost for a gain of precision of 5 points."""
CONFIRMED = 0.5
"""What no view is sure enough of alone is an object if at least two views show it and the existence is above this."""
MIN_WEAK_SCORE = 0.2
"""One of these views must give at least this score."""

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Observation:
    """One finding with its place in the frame.

    Attributes:
        finding: The model's output, its box in view pixels.
        view: The view that shows it.
        box: The box in source pixels, clipped to the frame.
        disputed: Texts that were read there and of which none is reported, since the views disagree or are not sure.
        calibration: Of the detector that gave it.
        weak: Whether the view alone does not report it.
    """

    finding: Finding
    view: View
    box: Box
    disputed: tuple[str, ...] = ()
    calibration: Calibration = DEFAULT
    weak: bool = False

    @cached_property
    def support(self) -> float:
        """Weight of this observation's vote for a box: its score, less where the object was only a few pixels."""
        score = 1.0 if math.isnan(self.finding.score) else self.finding.score
        return score * min(1.0, math.sqrt(max(self.finding.box.area, 1e-6)) / self.calibration.legible_side_px)

    @cached_property
    def is_cut(self) -> bool:
        """Whether the box ends at a border of its view that is not a border of the frame."""
        view, box = self.view, self.box
        margin = CUT_MARGIN_PX / view.zoom
        window, (width, height) = view.window, view.source_size
        return (
            (window.x > 0 and box.x - window.x < margin)
            or (window.y > 0 and box.y - window.y < margin)
            or (window.right < width and window.right - box.right < margin)
            or (window.bottom < height and window.bottom - box.bottom < margin)
        )


def to_source_detections(
    findings: Sequence[Finding], view: View, calibration: Calibration = DEFAULT, weak: bool = False
) -> list[Observation]:
    """Map the findings of one view to source pixels and clip them to the frame.

    Args:
        findings: A model's output for the view, boxes in view pixels.
        view: The view.
        calibration: Of the detector that gave them.
        weak: Whether the view alone does not report them.

    Returns:
        The findings in their order, those without any pixel inside the frame left out.

    Raises:
        PerceptionError: A box is not finite; to leave it out would make a broken model's road look empty.
    """
    mapped = view.to_source(as_array(finding.box for finding in findings))
    if not np.isfinite(mapped).all():
        raise PerceptionError("the model gave a box whose coordinates are not finite numbers")
    limits = np.array(view.source_size * 2, np.float64)
    corners = np.clip(to_corners(mapped), 0.0, limits)
    rows = from_corners(corners).tolist()
    observations = [
        Observation(finding, view, Box(*row), calibration=calibration, weak=weak)
        for finding, row in zip(findings, rows, strict=True)
        if row[2] > 0 and row[3] > 0
    ]
    _ask_together(observations, view, calibration)
    return observations


def _ask_together(observations: Sequence[Observation], view: View, calibration: Calibration) -> None:
    """Note `support` and `is_cut` of the observations of one view: sooner for all of them than for each."""
    if not observations:
        return
    scores = np.array([o.finding.score for o in observations])
    sides = np.sqrt(np.maximum([o.finding.box.area for o in observations], 1e-6))
    support = np.where(np.isnan(scores), 1.0, scores) * np.minimum(1.0, sides / calibration.legible_side_px)
    corners = to_corners(as_array(o.box for o in observations))
    window, source = to_corners([view.window.as_tuple()])[0], np.array(view.source_size)
    distance = np.concatenate([corners[:, :2] - window[:2], window[2:] - corners[:, 2:]], axis=1)
    inner = np.concatenate([window[:2] > 0, window[2:] < source])
    is_cut = np.any(inner & (distance < CUT_MARGIN_PX / view.zoom), axis=1)
    for observation, supported, cut in zip(observations, support.tolist(), is_cut.tolist(), strict=True):
        vars(observation).update(support=supported, is_cut=cut)


def known_in(view: View, known: Sequence[KnownObject], seen_in: View) -> tuple[KnownObject, ...]:
    """Objects known from another view whose centre a view shows, with their boxes in its pixels."""
    rows = view.from_source(seen_in.to_source(as_array(each.box for each in known)))
    placed = [each._replace(box=Box(*row.tolist())) for each, row in zip(known, rows, strict=True)]
    return tuple(k for k in placed if 0 <= k.box.center[0] < view.width and 0 <= k.box.center[1] < view.height)


@dataclass(frozen=True)
class Hypothesis:
    """One object that the views of a frame may show.

    Attributes:
        seen: The best-supported observation of it, with the text that most views read on it.
        members: All observations of it, one a view.
        existence: Probability that it exists, from every view that shows its place, 0 to 1; NaN if only one does.
        is_denied: Whether the views together speak clearly against what one of them reports.
    """

    seen: Observation
    members: tuple[Observation, ...]
    existence: float = NO_SCORE
    is_denied: bool = False

    @property
    def is_reported(self) -> bool:
        """Whether it is an object of the frame."""
        if all(member.weak for member in self.members):
            whole = [member for member in self.members if not member.is_cut]
            best = max(member.finding.score for member in self.members)
            return len(whole) >= 2 and best >= MIN_WEAK_SCORE and self.existence > CONFIRMED
        # A detector that finds no object says nothing about a text that a reader read.
        return bool(self.seen.finding.text or self.seen.disputed) or not self.is_denied


@dataclass(frozen=True)
class FrameObject:
    """One object that a frame reports.

    Attributes:
        finding: Its label, score and text; the box in it is in pixels of some view.
        box: In source pixels.
        region: Index of the region whose view the box comes from, or `GLOBAL_VIEW`.
        existence: See `Detection`.
        disputed: See `Observation`.
        track: The object over several frames, None without a memory.
        carried: Whether no view of the frame shows it.
    """

    finding: Finding
    box: Box
    region: int
    existence: float = NO_SCORE
    disputed: tuple[str, ...] = ()
    track: Track | None = None
    carried: bool = False


def reported(found: Sequence[Hypothesis]) -> list[FrameObject]:
    """The objects of a frame without a memory, in the order of its hypotheses."""
    return [
        FrameObject(h.seen.finding, h.seen.box, h.seen.view.region, h.existence, h.seen.disputed)
        for h in found
        if h.is_reported
    ]


def observe(view: View, found: Findings, calibration: Calibration = DEFAULT) -> list[Observation]:
    """The observations of one view, weak ones too, as `to_source_detections` maps them."""
    reported = to_source_detections(found.objects, view, calibration)
    return reported + to_source_detections(found.weak, view, calibration, weak=True)


def strongest(observations: Sequence[Observation]) -> list[Observation]:
    """The `MAX_OBSERVATIONS` best observations, those that a view reports before the weak ones."""
    if len(observations) <= MAX_OBSERVATIONS:
        return list(observations)
    return sorted(observations, key=lambda o: (o.weak, -o.support, o.box.as_tuple()))[:MAX_OBSERVATIONS]


@dataclass(frozen=True)
class Confirmations:
    """How often closer looks confirm what a view reports.

    Attributes:
        expected: Number of confirmations that the calibration promises: how likely it is that there is an object, times
            how likely each look that magnifies it more than the best view of it is to find it.
        came: Number of these looks that found something.
    """

    expected: float = 0.0
    came: float = 0.0

    def __add__(self, other: Confirmations) -> Confirmations:
        return Confirmations(self.expected + other.expected, self.came + other.came)

    def times(self, factor: float) -> Confirmations:
        """The same, counted so much more or less."""
        return Confirmations(factor * self.expected, factor * self.came)

    @cached_property
    def found_share(self) -> float:
        """Share, 0 to 1, of what the calibration promises that the detector can be expected to find.

        The mean of the share given these counts, which are Poisson's, beside its mean before any look, when each share
        is as likely as another.
        """
        shares = np.linspace(0.05, 1.0, 20)
        log_likelihood = self.came * np.log(shares) - self.expected * shares
        likelihood = np.exp(log_likelihood - log_likelihood.max())
        return min(1.0, float(likelihood @ shares / likelihood.sum() / shares.mean()))


NO_CONFIRMATIONS = Confirmations()


def hypotheses(
    observations: Sequence[Observation],
    views: Sequence[View],
    calibration: Calibration | None,
    before: Confirmations = NO_CONFIRMATIONS,
) -> list[Hypothesis]:
    """Weigh what all views of one frame show.

    Args:
        observations: Of these views, in any order.
        views: All that were examined, also those that show nothing.
        calibration: Of the detector; None for a model whose misses say nothing: it is believed.
        before: What the camera's earlier frames say of how far the calibration holds.

    Returns:
        The hypotheses, best score first, also those that are not reported.
    """
    groups = associate(observations)
    seen = [_represent([o for o in group if not o.weak] or group) for group in groups]
    existence, denied = [NO_SCORE] * len(groups), [False] * len(groups)
    if calibration is not None and groups:
        looks = Looks.at(as_array(o.box for o in seen), groups, views, calibration)
        several = looks.looked.sum(axis=1) > 1
        # The objects of both may be the same: the counts are not added.
        told = max(before, sum(looks.confirmations, NO_CONFIRMATIONS), key=lambda each: each.expected)
        log_odds = prior_log_odds(calibration) + looks.log_odds(told.found_share, calibration.repeated_misses)
        existence = [p if more else NO_SCORE for p, more in zip(probability(log_odds).tolist(), several, strict=True)]
        denied = (several & (log_odds < _mean_log_odds(calibration, calibration.threshold) - DENIAL)).tolist()
    found = [Hypothesis(s, tuple(g), e, d) for s, g, e, d in zip(seen, groups, existence, denied, strict=True)]
    parts = _parts_of_text(seen)
    return sorted((h for h in found if id(h.seen) not in parts), key=lambda h: _rank(h.seen))


def _rank(seen: Observation) -> tuple[float, tuple[float, float, float, float]]:
    return -_finite(seen.finding.score), seen.box.as_tuple()


@dataclass(frozen=True, eq=False)
class Looks:
    """What `v` views say about `n` places.

    Attributes:
        zoom: `(v,)` binary logarithms of the views' magnifications.
        looked: `(n, v)`, whether a view shows the place or has an observation of it.
        found: `(n, v)`, whether the view speaks for an object there.
        finds: `(n, v)` probability that a view finds an object at the place if there is one; 0 where it does not look.
        speaks: `(n, v)` log-odds with which an observation speaks for an object; NaN where there is none.
        is_cut: `(n, v)`, whether its view cuts that observation.
        confirmations: Of each place.
    """

    zoom: Array
    looked: Mask
    found: Mask
    finds: Array
    speaks: Array
    is_cut: Mask
    confirmations: tuple[Confirmations, ...]

    @classmethod
    def at(
        cls, boxes: Boxes, observed: Sequence[Sequence[Observation]], views: Sequence[View], calibration: Calibration
    ) -> Looks:
        """Ask each view about each place.

        Args:
            boxes: `(n, 4)` places in source pixels.
            observed: For each place the observations of an object there, one a view.
            views: The views.
            calibration: Of the detector.
        """
        scale = np.array([view.zoom for view in views])
        index = {id(view): number for number, view in enumerate(views)}
        sides = np.sqrt(areas(boxes))[:, None] * scale
        members = [o for group in observed for o in group]
        rows = np.repeat(np.arange(len(observed)), [len(group) for group in observed])
        columns = np.array([index[id(o.view)] for o in members], np.intp)
        looked = share_of_view(boxes, views) >= SHOWN_SHARE
        looked[rows, columns] = True
        finds = np.where(looked, calibration.probability_found(sides.ravel()).reshape(sides.shape), 0.0)
        true = _probability_true(members, calibration)
        speaks = np.full(looked.shape, np.nan)
        speaks[rows, columns] = log_odds_of(true) - prior_log_odds(calibration)
        is_cut = np.zeros(looked.shape, bool)
        is_cut[rows, columns] = [o.is_cut for o in members]
        found = np.nan_to_num(speaks, nan=-1.0) > 0
        zoom = np.log2(scale)
        confirmations = _confirmations(members, rows, columns, true, zoom, finds, found)
        return cls(zoom, looked, found, finds, speaks, is_cut, confirmations)

    def evidence(self, found_share: float) -> Array:
        """`(n, v)` log-odds that each look adds, were it the only one.

        Args:
            found_share: See `Confirmations`.
        """
        missed = np.log(np.maximum(1 - found_share * self.finds, PROBABILITY_LIMITS[0]))
        speaks = np.nan_to_num(self.speaks)
        # A weak score says no more against an object than a miss does.
        told = np.where(self.is_cut, CUT_WEIGHT * np.maximum(speaks, 0), np.maximum(speaks, missed))
        return np.where(np.isnan(self.speaks), missed, told)

    def log_odds(self, found_share: float, repeated_misses: float) -> Array:
        """`(n,)` log-odds that all looks together add; the order of the views does not matter.

        Args:
            found_share: See `Confirmations`.
            repeated_misses: See `Calibration`.
        """
        alike = alike_zoom(self.zoom, self.zoom) - np.eye(len(self.zoom))
        same = np.where(self.found, (self.looked & self.found) @ alike, (self.looked & ~self.found) @ alike)
        return np.asarray((self.evidence(found_share) / (1 + repeated_misses * same)).sum(axis=1))


def alike_zoom(a: Array, b: Array) -> Array:
    """`(n, m)` how much views at two magnifications, as binary logarithms, miss the same: 1, 0 from an octave on."""
    return np.asarray(np.maximum(0.0, 1.0 - np.abs(a[:, None] - b[None, :])))


def share_of_view(boxes: Boxes, views: Sequence[View]) -> Array:
    """`(n, v)` share, 0 to 1, of each box in source pixels that each view shows."""
    shown = intersections(boxes, as_array(view.window for view in views))
    return np.asarray(shown / np.maximum(areas(boxes), 1e-9)[:, None])


def log_odds_of(probabilities: npt.ArrayLike, limits: tuple[float, float] = PROBABILITY_LIMITS) -> Array:
    """Log-odds of probabilities, within limits."""
    limited = np.clip(probabilities, *limits)
    return np.asarray(np.log(limited / (1 - limited)))


def probability(log_odds: npt.ArrayLike) -> Array:
    """Probabilities of log-odds."""
    return np.asarray(1 / (1 + np.exp(-np.clip(log_odds, -50, 50))))


def prior_log_odds(calibration: Calibration) -> float:
    """Log-odds of a box before any look says anything of it."""
    return _mean_log_odds(calibration, PRIOR_SHARE * calibration.threshold)


@lru_cache(maxsize=64)
def _mean_log_odds(calibration: Calibration, score: float) -> float:
    """Log-odds that a box with this score is an object, over all sizes alike."""
    sides = np.array(calibration.sides_px)
    return float(log_odds_of(calibration.probability_true(np.full(len(sides), score), sides).mean()))


def _probability_true(members: Sequence[Observation], calibration: Calibration) -> Array:
    """`(n,)` probabilities that observations, each by itself, are of an object."""
    if not members:
        return np.zeros(0)
    scores = np.array([o.finding.score for o in members], np.float64)
    sides = np.sqrt([o.finding.box.area for o in members])
    true = calibration.probability_true(np.nan_to_num(scores), sides)
    return np.where(np.isnan(scores), TRUE_WITHOUT_SCORE, true)


def _confirmations(
    members: Sequence[Observation],
    rows: Indices,
    columns: Indices,
    true: Array,
    zoom: Array,
    finds: Array,
    found: Mask,
) -> tuple[Confirmations, ...]:
    """The confirmations of each place that a view reports.

    Args:
        members: `m` observations.
        rows: `(m,)`, the place of each.
        columns: `(m,)`, the view of each.
        true: `(m,)` probability that each is of an object.
        zoom: `(v,)` binary logarithms of the views' magnifications.
        finds: `(n, v)` probability that a view finds an object at a place; 0 where it does not look.
        found: `(n, v)`, whether it speaks for one.
    """
    best: dict[int, int] = {}
    for number, (row, member) in enumerate(zip(rows.tolist(), members, strict=True)):
        if not member.weak and (row not in best or true[number] > true[best[row]]):
            best[row] = number
    told = [NO_CONFIRMATIONS] * len(finds)
    for row, number in best.items():
        is_closer = zoom > zoom[columns[number]] + CLOSER
        told[row] = Confirmations(float(true[number] * finds[row, is_closer].sum()), float(found[row, is_closer].sum()))
    return tuple(told)


def associate(observations: Sequence[Observation]) -> list[list[Observation]]:
    """Bring the observations of each object together.

    Args:
        observations: Of any view, in any order.

    Returns:
        The observations of each object, one a view. Weak ones join those that a view reports, never the reverse.
    """
    if not observations:
        return []
    pairs = _Pairs(observations)
    groups = pairs.groups
    for weak in (False, True):
        own = [index for index, o in enumerate(observations) if o.weak == weak]
        whole = [index for index in own if not observations[index].is_cut]
        for index in sorted(whole, key=lambda i: (-observations[i].support, observations[i].box.as_tuple())):
            pairs.join_or_found(index)
        for index in pairs.explain([index for index in own if observations[index].is_cut]):
            pairs.join_or_found(index)
    return [[observations[index] for index in group] for group in groups]


class _Pairs:
    """How well the observations of a frame fit each other."""

    def __init__(self, observations: Sequence[Observation]) -> None:
        self.views = [id(o.view) for o in observations]
        self.areas = [o.box.area for o in observations]
        self.boxes = [o.box.as_tuple() for o in observations]
        boxes = as_array(o.box for o in observations)
        self.overlap = iou(boxes, boxes)
        windows: dict[int, tuple[View, list[int]]] = {}
        for index, o in enumerate(observations):
            if o.is_cut:  # compared with the part of the others that its window shows
                windows.setdefault(id(o.view), (o.view, []))[1].append(index)
        for view, rows in windows.values():
            self.overlap[rows] = iou(boxes[rows], clip_to(boxes, view.window))
        # Few pairs overlap at all: the rest is asked of these.
        one, other = np.nonzero(self.overlap >= MIN_MATCH_IOU)
        overlap = self.overlap[one, other]
        numbers = {label: number for number, label in enumerate({o.finding.label for o in observations})}
        labels = np.array([numbers[o.finding.label] for o in observations])
        same_label = labels[one] == labels[other]
        sides, zooms = np.sqrt(self.areas), np.array([o.view.zoom for o in observations])
        edges = np.array([o.calibration.edge_tolerance_px for o in observations]) / zooms
        side, jitter = np.minimum(sides[one], sides[other]), np.maximum(edges[one], edges[other])
        # The part that jittering edges leave of a perfect overlap.
        tolerated = (np.maximum(0.0, side - jitter) / (side + jitter)) ** 2
        joins = overlap >= np.where(same_label, np.clip(tolerated, MIN_MATCH_IOU, MATCH_IOU), OTHER_LABEL_IOU)
        self.joins: list[list[int]] = [[] for _ in observations]
        for index, near in zip(one[joins].tolist(), other[joins].tolist(), strict=True):
            self.joins[index].append(near)
        self.explains = np.zeros(self.overlap.shape, bool)
        self.explains[one, other] = overlap >= np.where(same_label, MATCH_IOU, OTHER_LABEL_IOU)
        self.groups: list[list[int]] = []
        """The observations of each object, by their indices; the first of them founded it."""
        self._founded: dict[int, int] = {}

    def join_or_found(self, index: int) -> None:
        """Add an observation to the object that it overlaps most, or let it be a new one."""
        founded = self._founded
        near = [(-self.overlap[index, other], founded[other]) for other in self.joins[index] if other in founded]
        for _, number in sorted(near):
            if not self._has_view(self.groups[number], index):
                self.groups[number].append(index)
                return
        founded[index] = len(self.groups)
        self.groups.append([index])

    def explain(self, cut: Sequence[int]) -> list[int]:
        """Give each cut observation to the object that it is a part of, best fits first; return those that are left.

        An object takes one observation from a view at most: the view that shows a second one shows a second object.
        """
        groups, founders = self.groups, list(self._founded)
        pairs = []
        for index in cut:
            fits = self.explains[index, founders] if founders else ()
            pairs += [(-self.overlap[index, founders[n]], index, n) for n in np.flatnonzero(fits).tolist()]
        explained: set[int] = set()
        for _, index, number in sorted(pairs, key=lambda pair: (pair[0], self.boxes[pair[1]], pair[2])):
            if index not in explained and not self._has_view(groups[number], index):
                groups[number].append(index)
                explained.add(index)
        left = [index for index in cut if index not in explained]
        return sorted(left, key=lambda index: (-self.areas[index], self.boxes[index]))

    def _has_view(self, group: Sequence[int], index: int) -> bool:
        return any(self.views[member] == self.views[index] for member in group)


def same_text(a: str, b: str) -> bool:
    """Whether two texts have the same letters and digits, whatever their case, spaces and punctuation."""
    return _symbols(a) == _symbols(b)


def _symbols(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold())) or text


def _finite(score: float) -> float:
    return -1.0 if math.isnan(score) else score


def clip_to(boxes: Boxes, window: Box) -> Boxes:
    """The part of each box inside a window, as `(n, 4)` boxes."""
    corners = to_corners(boxes)
    low = np.clip(corners[:, :2], (window.x, window.y), (window.right, window.bottom))
    high = np.clip(corners[:, 2:], (window.x, window.y), (window.right, window.bottom))
    return np.concatenate([low, high - low], axis=1)


def _represent(members: Sequence[Observation]) -> Observation:
    """The observation whose box the others support most, whole if any is, with the text that most of them read."""
    chosen = members[0]
    if len(members) > 1:
        voters = [o for o in members if not o.is_cut] or list(members)
        boxes, support = as_array(o.box for o in voters), np.array([o.support for o in voters])
        chosen = voters[int(np.argmax((iou(boxes, boxes) @ support) * support))]
    read = read_texts(members)
    if not read:
        return chosen
    finding, disputed = with_text(chosen.finding, read)
    return replace(chosen, finding=finding, disputed=disputed)


@dataclass(frozen=True)
class ReadText:
    """A text that one view read on an object.

    Attributes:
        text: What it read.
        score: The reader's, 0 to 1; NaN if none.
        zoom: Magnification of the view, its pixels per source pixel.
    """

    text: str
    score: float
    zoom: float


def read_texts(members: Sequence[Observation]) -> list[ReadText]:
    """The texts that observations of one object read."""
    return [ReadText(o.finding.text, o.finding.text_score, o.view.zoom) for o in members if o.finding.text]


def with_text(finding: Finding, read: Sequence[ReadText]) -> tuple[Finding, tuple[str, ...]]:
    """Put what views read on an object to the vote.

    A vote weighs as much as its score. The text's score is the best of its votes times their share of all. A model that
    gives no score is believed where it was magnified most.

    Returns:
        The finding with the text that most votes are for, or with none if that is not sure enough, and in that case the
        texts that were read.
    """
    votes = sorted(read, key=lambda vote: -vote.zoom)
    if not votes:
        return finding, ()
    best = votes[0]
    if math.isnan(best.score):
        return replace(finding, text=best.text, text_score=best.score), ()
    weights: dict[str, float] = {}
    for vote in votes:
        key = _symbols(vote.text)
        weights[key] = weights.get(key, 0.0) + vote.score
    winner = max(weights, key=lambda key: weights[key])
    best = max((vote for vote in votes if _symbols(vote.text) == winner), key=lambda vote: vote.score)
    score = best.score * weights[winner] / sum(weights.values())
    if score < MIN_TEXT_SCORE:
        texts = tuple(dict.fromkeys(vote.text for vote in votes))
        return replace(finding, text="", text_score=NO_SCORE), texts
    # A finding that is nothing but a text is as sure as the text.
    own = score if finding.score == finding.text_score else finding.score
    return replace(finding, text=best.text, text_score=score, score=own), ()


def _parts_of_text(objects: Sequence[Observation]) -> set[int]:
    """The ids of pieces of text that lie in a longer one of the same label: another view split or cut the line."""
    texts = [o for o in objects if o.finding.text or o.disputed]
    if len(texts) < 2:
        return set()
    boxes = as_array(o.box for o in texts)
    inside = share_inside(boxes, boxes) >= SHARE_OF_TEXT
    parts = set()
    for part, whole in zip(*np.nonzero(inside), strict=True):
        a, b = texts[part], texts[whole]
        if part != whole and a.box.area < b.box.area and a.view is not b.view and a.finding.label == b.finding.label:
            shorter, longer = _symbols(a.finding.text), _symbols(b.finding.text)
            if b.finding.text and shorter in longer:
                parts.add(id(a))
    return parts
