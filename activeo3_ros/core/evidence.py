"""Merging: the findings of several overlapping views of one frame become one list of objects.

Three rules. A box that a crop's border cuts gives way to a fuller box of the same object. Observations of one object in
several views become one, with the best-supported box and that box's own score. Two objects that one view shows apart
stay two, however close they are: no object takes two observations from one view. What the views read on one object is
put to the vote.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .calibration import DEFAULT, Calibration
from .errors import PerceptionError
from .frame import KnownObject, View
from .geometry import Box, Boxes, as_array, iou, share_inside, to_corners
from .results import NO_SCORE, Finding

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


@dataclass(frozen=True)
class Observation:
    """One finding with its place in the frame.

    Attributes:
        finding: The model's output, its box in view pixels.
        view: The view that shows it.
        box: The box in source pixels, clipped to the frame.
        disputed: Texts that were read there and of which none is reported, since the views disagree or are not sure.
        calibration: Of the detector that gave it.
    """

    finding: Finding
    view: View
    box: Box
    disputed: tuple[str, ...] = ()
    calibration: Calibration = DEFAULT

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
    findings: Sequence[Finding], view: View, calibration: Calibration = DEFAULT
) -> list[Observation]:
    """Map the findings of one view to source pixels and clip them to the frame.

    Args:
        findings: A model's output for the view, boxes in view pixels.
        view: The view.
        calibration: Of the detector that gave them.

    Returns:
        The findings in their order, those without any pixel inside the frame left out.

    Raises:
        PerceptionError: A box is not finite; to leave it out would make a broken model's road look empty.
    """
    mapped = view.to_source(as_array(finding.box for finding in findings))
    if not np.isfinite(mapped).all():
        raise PerceptionError("the model gave a box whose coordinates are not finite numbers")
    observations = []
    for finding, row in zip(findings, mapped, strict=True):
        box = Box(*row.tolist()).clipped(*view.source_size)
        if box.width > 0 and box.height > 0:
            observations.append(Observation(finding, view, box, calibration=calibration))
    return observations


def known_in(view: View, known: Sequence[KnownObject], seen_in: View) -> tuple[KnownObject, ...]:
    """Objects known from another view whose centre a view shows, with their boxes in its pixels."""
    rows = view.from_source(seen_in.to_source(as_array(each.box for each in known)))
    placed = [each._replace(box=Box(*row.tolist())) for each, row in zip(known, rows, strict=True)]
    return tuple(k for k in placed if 0 <= k.box.center[0] < view.width and 0 <= k.box.center[1] < view.height)


def merge(observations: Sequence[Observation]) -> list[Observation]:
    """Merge the observations of all views of one frame.

    Args:
        observations: Of any view, in any order.

    Returns:
        One observation for each object, best score first, with the text that most views read on it.
    """
    whole = sorted((o for o in observations if not o.is_cut), key=lambda o: (-o.support, o.box.as_tuple()))
    objects: list[list[Observation]] = []
    for observation in whole:
        _join_or_found(objects, observation)
    for observation in _explain(objects, [o for o in observations if o.is_cut]):
        _join_or_found(objects, observation)
    merged = _without_parts_of_text(list(map(_represent, objects)))
    return sorted(merged, key=lambda o: (-_finite(o.finding.score), o.box.as_tuple()))


def same_text(a: str, b: str) -> bool:
    """Whether two texts have the same letters and digits, whatever their case, spaces and punctuation."""
    return _symbols(a) == _symbols(b)


def _symbols(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold())) or text


def _finite(score: float) -> float:
    return -1.0 if math.isnan(score) else score


def _clip(boxes: Boxes, window: Box) -> Boxes:
    """The part of each box inside a window, as `(n, 4)` boxes."""
    corners = to_corners(boxes)
    low = np.clip(corners[:, :2], (window.x, window.y), (window.right, window.bottom))
    high = np.clip(corners[:, 2:], (window.x, window.y), (window.right, window.bottom))
    return np.concatenate([low, high - low], axis=1)


def _join_or_found(objects: list[list[Observation]], observation: Observation) -> None:
    """Add an observation to the object that it overlaps most, or let it be a new one."""
    if objects:
        overlaps = _overlaps(observation, [members[0] for members in objects])
        for index in np.argsort(-overlaps, kind="stable"):
            if overlaps[index] < MIN_MATCH_IOU:
                break
            members = objects[index]
            if overlaps[index] >= _match_threshold(observation, members[0]) and not _has_view(
                members, observation.view
            ):
                members.append(observation)
                return
    objects.append([observation])


def _explain(objects: Sequence[list[Observation]], cut: Sequence[Observation]) -> list[Observation]:
    """Give each cut observation to the object that it is a part of, best fits first; return those that are left.

    An object takes one observation from a view at most: the view that shows a second one shows a second object.
    """
    pairs = [
        (overlap, index, members)
        for index, observation in enumerate(cut)
        if objects
        for overlap, members in zip(_overlaps(observation, [o[0] for o in objects]), objects, strict=True)
        if overlap >= _label_threshold(observation, members[0])
    ]
    explained: set[int] = set()
    for _, index, members in sorted(pairs, key=lambda pair: -pair[0]):
        if index not in explained and not _has_view(members, cut[index].view):
            members.append(cut[index])
            explained.add(index)
    left = [observation for index, observation in enumerate(cut) if index not in explained]
    return sorted(left, key=lambda o: (-o.box.area, o.box.as_tuple()))


def _has_view(members: Sequence[Observation], view: View) -> bool:
    return any(member.view is view for member in members)


def _overlaps(observation: Observation, others: Sequence[Observation]) -> npt.NDArray[np.float64]:
    """`(n,)` IoU of an observation with others; a cut one is compared with the part of them that its window shows."""
    boxes = as_array(other.box for other in others)
    return np.asarray(
        iou([observation.box.as_tuple()], _clip(boxes, observation.view.window) if observation.is_cut else boxes)[0]
    )


def _label_threshold(a: Observation, b: Observation) -> float:
    return MATCH_IOU if a.finding.label == b.finding.label else OTHER_LABEL_IOU


def _match_threshold(a: Observation, b: Observation) -> float:
    """The overlap from which two boxes are one object: the part that jittering edges leave of a perfect overlap."""
    if a.finding.label != b.finding.label:
        return OTHER_LABEL_IOU
    side = math.sqrt(min(a.box.area, b.box.area))
    jitter = max(each.calibration.edge_tolerance_px / each.view.zoom for each in (a, b))
    tolerated = (max(0.0, side - jitter) / (side + jitter)) ** 2
    return max(MIN_MATCH_IOU, min(MATCH_IOU, tolerated))


def _represent(members: Sequence[Observation]) -> Observation:
    """The observation whose box the others support most, whole if any is, with the text that most of them read."""
    if len(members) == 1:
        return _with_text(members[0], members)
    voters = [o for o in members if not o.is_cut] or list(members)
    boxes, support = as_array(o.box for o in voters), np.array([o.support for o in voters])
    chosen = voters[int(np.argmax((iou(boxes, boxes) @ support) * support))]
    return _with_text(chosen, members)


def _with_text(chosen: Observation, members: Sequence[Observation]) -> Observation:
    """The observation with the text that most votes of all members are for, or with none if that is not sure enough.

    A vote weighs as much as its score. The text's score is the best of its votes times their share of all. A model that
    gives no score is believed where it was magnified most.
    """
    votes = sorted((o for o in members if o.finding.text), key=lambda o: -o.view.zoom)
    if not votes:
        return chosen
    best = votes[0].finding
    if math.isnan(best.text_score):
        return replace(chosen, finding=replace(chosen.finding, text=best.text, text_score=best.text_score))
    weights: dict[str, float] = {}
    for vote in votes:
        key = _symbols(vote.finding.text)
        weights[key] = weights.get(key, 0.0) + vote.finding.text_score
    winner = max(weights, key=lambda key: weights[key])
    best = max((o.finding for o in votes if _symbols(o.finding.text) == winner), key=lambda finding: finding.text_score)
    score = best.text_score * weights[winner] / sum(weights.values())
    if score < MIN_TEXT_SCORE:
        texts = tuple(dict.fromkeys(o.finding.text for o in votes))
        return replace(chosen, finding=replace(chosen.finding, text="", text_score=NO_SCORE), disputed=texts)
    # A finding that is nothing but a text is as sure as the text.
    own = score if chosen.finding.score == chosen.finding.text_score else chosen.finding.score
    return replace(chosen, finding=replace(chosen.finding, text=best.text, text_score=score, score=own))


def _without_parts_of_text(objects: list[Observation]) -> list[Observation]:
    """Leave out pieces of text that lie in a longer one of the same label, as another view split or cut the line."""
    texts = [o for o in objects if o.finding.text or o.disputed]
    if len(texts) < 2:
        return objects
    boxes = as_array(o.box for o in texts)
    inside = share_inside(boxes, boxes) >= SHARE_OF_TEXT
    left_out = set()
    for part, whole in zip(*np.nonzero(inside), strict=True):
        a, b = texts[part], texts[whole]
        if part != whole and a.box.area < b.box.area and a.view is not b.view and a.finding.label == b.finding.label:
            shorter, longer = _symbols(a.finding.text), _symbols(b.finding.text)
            if b.finding.text and shorter in longer:
                left_out.add(id(a))
    return [o for o in objects if id(o) not in left_out]
