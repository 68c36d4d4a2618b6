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

"""Statistics of `calibration_looks`: a detector's `Calibration` with intervals, from pictures without labels.

Found by side: the share of tries in which an object was reported, in bins of half an octave, made monotone (isotonic
regression): a larger object is not found less often. Its 95 % interval is the wider of two: a bootstrap over groups of
pictures, since objects of one picture are found or missed together, and Wilson's, which still has a width where all are
found or none.

True by score and side: the share of boxes that the reference has too, smoothed between the scores and sides of the
grid, drawn towards the share at that score for all sizes where boxes are few, made monotone in the score.

Jitter: root mean square of the distance of an edge from the reference's, less the reference's own share of it.

Repeated misses: of the sizes where a tenth to nine tenths are found, how often the other look at the same magnification
misses an object that one look missed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..core.calibration import DEFAULT, Array, Calibration, log_side
from ..core.errors import InvalidInput
from ..core.frame import Image
from ..core.interfaces import Detector
from .calibration_looks import LOOKS, LOWEST_SCORE, PictureLooks, PictureRecord, Reference
from .metrics import COCO_IOUS, draw_images, interval

SIDES_PX = (4.0, 5.7, 8.0, 11.3, 16.0, 22.6, 32.0, 45.3, 64.0, 90.5, 128.0, 181.0, 256.0)
"""Sides of the curves: half an octave apart."""
SCORES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
MIN_TRIES = 10
"""A side with fewer is left out of the curves."""
MIN_ERRORS = 12
"""Edges from which a jitter is computed."""
PRIOR_BOXES = 5.0
"""Weight, in boxes, of the share at a score for all sizes."""
REPLICATES = 400
Z = 1.96
"""95 % of a normal distribution lie within so many standard deviations."""
HARD = (0.1, 0.9)
"""Shares found between which misses are compared."""
SMALL_SIDE_PX = 32.0
"""Hints and edges below this side count for the values that policies and merging use of small objects."""
CLASS_TOLD, LEGIBLE = 0.75, 0.9
"""Share of what it does at best from which a detector tells the class, and from which size no longer matters."""
SLOPES = (0.5, 8.0)
"""Logits for a doubling are kept between these: a step has no slope."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """A calibration and how sure it is.

    Attributes:
        calibration: The values.
        tries: `n` tries at each side.
        found_interval: `n` 95 % intervals of `calibration.found`.
        jitter_interval: `n` 95 % intervals of `calibration.jitter_px`; NaN where it is interpolated.
        half_found_interval: 95 % interval of `half_found_side_px`.
        repeated_interval: 95 % interval of `repeated_misses`; NaN where the default stands for it.
        pictures: Pictures looked at.
        objects: Sure objects in them.
        boxes: Boxes that the scores were judged with.
    """

    calibration: Calibration
    tries: tuple[int, ...]
    found_interval: tuple[Interval, ...]
    jitter_interval: tuple[Interval, ...]
    half_found_interval: Interval
    repeated_interval: Interval
    pictures: int
    objects: int
    boxes: int


class NothingSure(InvalidInput):
    """No picture shows anything that the detector is sure of: there is nothing to calibrate with."""


@dataclass
class DetectorCalibration:
    """Collects pictures and computes the calibration of one detector.

    Attributes:
        detector: The detector.
        threshold: Score from which an object counts as reported, 0 to 1.
        sure_score: Score from which the reference is sure of an object, at two magnifications.
        class_ids: Classes that count; None for all.
        seed: Of places, magnifications and bootstrap.
        looks: Looks at each picture.
    """

    detector: Detector
    threshold: float = 0.3
    sure_score: float = 0.5
    class_ids: Sequence[int] | None = None
    seed: int = 0
    records: list[PictureRecord] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        self.looks = PictureLooks(self.detector, self.threshold, self.sure_score, random, self.class_ids)

    def add(self, picture: Image, group: int, reference: Reference | None = None) -> PictureRecord:
        """Look at a picture.

        Args:
            picture: `(h, w, 3)` uint8 BGR, at full resolution.
            group: Pictures of one group resemble each other, as neighbouring frames of a recording do.
            reference: What is in the picture, where labels tell; None to ask the detector.
        """
        record = self.looks.record(picture, reference)
        self.records.append(record)
        self.groups.append(group)
        return record

    def measured(self, material: str = "") -> Measured:
        """Compute the calibration from the pictures so far.

        Args:
            material: What the pictures are, for `Calibration.measured`.

        Raises:
            NothingSure: There are too few sure objects.
        """
        objects = sum(record.sure for record in self.records)
        sums = np.stack([_sums(record) for record in self.records]) if self.records else np.zeros((0, len(SIDES_PX), 9))
        kept = np.flatnonzero(sums[:, :, TRIES].sum(axis=0) >= MIN_TRIES)
        if len(kept) < 2:
            raise NothingSure(
                f"the detector is sure of {objects} objects in {len(self.records)} pictures (score {self.sure_score:g} "
                "at two magnifications), which is too few to measure: give more pictures of what it detects, or a "
                "lower --sure"
            )
        return self._measured(sums[:, kept], np.array(SIDES_PX)[kept], objects, material)

    def _measured(self, sums: Array, sides: Array, objects: int, material: str) -> Measured:
        replicates = self._replicates(sums)
        total = sums.sum(axis=0)
        found, fit = monotone_share(total, FOUND), monotone_share(total, FIT)
        half, slope = half_side(sides, fit)
        halves = np.array([half_side(sides, monotone_share(each, FIT))[0] for each in replicates])
        founds = np.stack([monotone_share(each, FOUND) for each in replicates])
        low, high = np.percentile(founds, (2.5, 97.5), axis=0)
        total_shares = zip(found.tolist(), total[:, TRIES].tolist(), strict=True)
        wilson = [wilson_interval(share, tries / LOOKS) for share, tries in total_shares]
        jitter, jitters = _jitter(total), np.stack([_jitter(each) for each in replicates])
        known = total[:, EDGES] >= MIN_ERRORS
        jitter_bounds = np.where(known, np.nanpercentile(jitters, (2.5, 97.5), axis=0), np.nan)
        repeated, repeats = self._repeated_misses(sums, found)
        scores, by_side, per_score, boxes = self._claims(sides)
        small = sides <= SMALL_SIDE_PX
        edges = total[small, EDGES].sum()
        tolerance = math.sqrt(total[small, SQUARES].sum() / edges) if edges >= MIN_ERRORS else DEFAULT.edge_tolerance_px
        calibration = Calibration(
            sides_px=tuple(sides.tolist()),
            found=tuple(found.tolist()),
            scores=scores,
            true_share=tuple(tuple(row) for row in by_side.tolist()),
            jitter_px=tuple(jitter.tolist()),
            repeated_misses=repeated,
            measured=material or f"{len(self.records)} pictures",
            threshold=self.threshold,
            half_found_side_px=half,
            logits_per_doubling=slope,
            probability_per_score=per_score,
            class_side_px=crossing(sides, monotone_share(total, TOLD, HINTED), CLASS_TOLD),
            legible_side_px=crossing(sides, fit, LEGIBLE),
            edge_tolerance_px=tolerance,
        )
        return Measured(
            calibration,
            tuple(int(count) for count in total[:, TRIES]),
            tuple(
                (min(a, b_low), max(b, b_high))
                for a, b, (b_low, b_high) in zip(low.tolist(), high.tolist(), wilson, strict=True)
            ),
            tuple((float(a), float(b)) for a, b in jitter_bounds.T),
            interval(halves),
            interval(repeats) if len(repeats) else (math.nan, math.nan),
            len(self.records),
            objects,
            boxes,
        )

    def _replicates(self, sums: Array) -> Array:
        """`(r, n, k)` sums over bootstrap samples of groups."""
        groups = np.unique(self.groups)
        by_group = np.stack([sums[np.array(self.groups) == group].sum(axis=0) for group in groups])
        draws = draw_images(len(groups), REPLICATES, self.seed)
        counts = np.stack([np.bincount(draw, minlength=len(groups)) for draw in draws])
        return np.asarray(np.tensordot(counts, by_group, axes=1))

    def _repeated_misses(self, sums: Array, found: Array) -> tuple[float, Array]:
        """The share, and that of each bootstrap sample; the default and none if nothing was missed where it counts."""
        hard = (found >= HARD[0]) & (found <= HARD[1])
        total = sums[:, hard][:, :, [MISSED, MISSED_AGAIN]].sum(axis=(0, 1))
        if total[0] < MIN_TRIES:
            return DEFAULT.repeated_misses, np.empty(0)
        replicates = self._replicates(sums[:, hard][:, :, [MISSED, MISSED_AGAIN]]).sum(axis=1)
        usable = replicates[replicates[:, 0] > 0]
        return float(total[1] / total[0]), usable[:, 1] / usable[:, 0]

    def _claims(self, sides: Array) -> tuple[tuple[float, ...], Array, float, int]:
        """Scores of the grid, `(n, m)` shares that are true, probability for each unit of a low score, boxes."""
        score, side, true = (
            np.concatenate([getattr(record.claims, name) for record in self.records])
            for name in ("score", "side", "true")
        )
        at_score = hat_weights(score, np.array(SCORES))
        at_side = hat_weights(log_side(side), log_side(sides))
        count = at_side.T @ at_score
        hits = at_side.T @ (at_score * true[:, None])
        pooled = isotonic(_ratio(hits.sum(axis=0), count.sum(axis=0)), count.sum(axis=0))
        pooled[0] = 0.0
        rows = []
        for own_hits, own_count in zip(hits, count, strict=True):
            share = (own_hits + PRIOR_BOXES * pooled) / (own_count + PRIOR_BOXES)
            share[0] = 0.0  # the grid begins where there are no boxes
            rows.append(isotonic(share, own_count + PRIOR_BOXES))
        hint = (score >= LOWEST_SCORE) & (score < self.threshold) & (side < SMALL_SIDE_PX)
        squares = float((score[hint] ** 2).sum())
        slope = float((score[hint] * true[hint]).sum()) / squares if squares else 0.0
        return SCORES, np.clip(np.array(rows), 0, 1), slope or DEFAULT.probability_per_score, len(score)


TRIES, FOUND, FIT, HINTED, TOLD, EDGES, SQUARES, MISSED, MISSED_AGAIN = range(9)
"""Columns of the sums: tries; of them found; shares of COCO's overlaps reached; with any box at all; whose best box has
the right class; edges; their squared errors; tries that missed; tries that missed where the other look missed too."""


def _sums(record: PictureRecord) -> Array:
    """`(n, 9)` sums of one picture's tries by side."""
    tries = record.tries
    position = np.rint(np.interp(log_side(tries.side), log_side(SIDES_PX), np.arange(len(SIDES_PX)))).astype(np.intp)
    inside = (tries.side >= SIDES_PX[0] * 2**-0.25) & (tries.side < SIDES_PX[-1] * 2**0.25)
    missed = ~tries.found
    place = list(zip(tries.object.tolist(), tries.scale.tolist(), tries.look.tolist(), strict=True))
    missed_at = {each for each, is_missed in zip(place, missed.tolist(), strict=True) if is_missed}
    shown = set(place)
    paired = np.array([(number, scale, 1 - look) in shown for number, scale, look in place], bool)
    again = np.array([(number, scale, 1 - look) in missed_at for number, scale, look in place], bool)
    with_box = ~np.isnan(tries.class_told)
    columns = np.stack(
        [
            np.ones(len(tries.side)),
            tries.found,
            (tries.overlap[:, None] >= np.array(COCO_IOUS)).mean(axis=1),
            with_box,
            np.nan_to_num(tries.class_told),
            4.0 * tries.found,
            np.nan_to_num(tries.errors**2).sum(axis=1),
            missed & paired,
            missed & again,
        ],
        axis=1,
    ).astype(np.float64)
    sums = np.zeros((len(SIDES_PX), columns.shape[1]))
    np.add.at(sums, position[inside], columns[inside])
    return sums


def monotone_share(sums: Array, hits: int, of: int = TRIES) -> Array:
    """`(n,)` shares by side that never fall as the side grows, from `(n, k)` sums."""
    return isotonic(_ratio(sums[:, hits], sums[:, of]), sums[:, of])


def _jitter(sums: Array) -> Array:
    """`(n,)` standard deviations of an edge that never fall as the side grows; interpolated where few are known."""
    known = sums[:, EDGES] >= MIN_ERRORS
    if not known.any():
        return np.full(len(sums), DEFAULT.edge_tolerance_px)
    deviation = isotonic(np.sqrt(_ratio(sums[known, SQUARES], sums[known, EDGES])), sums[known, EDGES])
    places = np.arange(len(sums))
    return np.asarray(np.interp(places, places[known], deviation))


def _ratio(a: Array, b: Array) -> Array:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def isotonic(values: Array, weights: Array) -> Array:
    """The closest `(n,)` values that never fall, in weighted least squares: pools neighbours that violate it."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), np.maximum(weights, 1e-9).tolist(), strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, wa, na), (b, wb, nb) = blocks[-2:]
            blocks[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
    return np.array([value for value, _, count in blocks for _ in range(count)], np.float64)


def hat_weights(values: Array, nodes: Array) -> Array:
    """`(n, m)` shares of each of `n` values in the two of `m` rising nodes around it; beyond the ends in the last."""
    position = np.interp(values, nodes, np.arange(len(nodes)))
    return np.asarray(np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(len(nodes)))))


def wilson_interval(share: float, count: float) -> Interval:
    """Wilson's 95 % interval of a share that was seen in `count` independent tries."""
    middle = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def crossing(sides: Array, curve: Array, share_of_best: float) -> float:
    """The side at which a rising curve reaches a share of its best, interpolated; the first if it begins above."""
    wanted = share_of_best * curve[-1]
    after = int(np.argmax(curve >= wanted))
    if after == 0:
        return float(sides[0])
    low, high = curve[after - 1], curve[after]
    part = (wanted - low) / (high - low)
    return float(2 ** np.interp(part, (0, 1), log_side(sides[after - 1 : after + 1])))


def half_side(sides: Array, curve: Array) -> tuple[float, float]:
    """The side at which half of the best is reached, and logits for each doubling of the side around it."""
    lower, upper = crossing(sides, curve, 0.25), crossing(sides, curve, 0.75)
    doublings = math.log2(upper / lower)
    slope = 2 * math.log(3) / doublings if doublings > 0 else SLOPES[1]
    return crossing(sides, curve, 0.5), min(max(slope, SLOPES[0]), SLOPES[1])
