"""Merging: the findings of several overlapping views of one frame become one list of objects.

Three rules. A box that a crop's border cuts gives way to a fuller box of the same object. Observations of one object in
several views become one, with the best-supported box and that box's own score. Two objects that one view shows apart
stay two, however close they are: no object takes two observations from one view.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .errors import PerceptionError
from .frame import View
from .geometry import Box, Boxes, as_array, iou, to_corners
from .results import Finding

MATCH_IOU = 0.5
"""Two boxes of one label in different views are one object from this overlap on, if both show it large."""
OTHER_LABEL_IOU = 0.7
"""The same for two boxes of different labels: a car in one view is a truck in the next, but a rider is no bicycle."""
MIN_MATCH_IOU = 0.15
"""The overlap that is enough for the smallest objects of one label, whose boxes jitter by as much as their size."""
EDGE_JITTER_PX = 2.0
"""How far the edge of a box may be off, in pixels of the view that it was seen in."""
CUT_MARGIN_PX = 3.0
"""A box that ends this close to the border of a crop, in crop pixels, may go on beyond it."""
LEGIBLE_SIDE_PX = 32.0
"""From this side on, in view pixels, more resolution no longer makes a box more trustworthy."""


@dataclass(frozen=True)
class Observation:
    """One finding with its place in the frame.

    Attributes:
        finding: The model's output, its box in view pixels.
        view: The view that shows it.
        box: The box in source pixels, clipped to the frame.
    """

    finding: Finding
    view: View
    box: Box

    @cached_property
    def support(self) -> float:
        """Weight of this observation's vote for a box: its score, less where the object was only a few pixels."""
        score = 1.0 if math.isnan(self.finding.score) else self.finding.score
        return score * min(1.0, math.sqrt(max(self.finding.box.area, 1e-6)) / LEGIBLE_SIDE_PX)

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


def to_source_detections(findings: Sequence[Finding], view: View) -> list[Observation]:
    """Map the findings of one view to source pixels and clip them to the frame.

    Args:
        findings: A model's output for the view, boxes in view pixels.
        view: The view.

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
            observations.append(Observation(finding, view, box))
    return observations


def merge(observations: Sequence[Observation]) -> list[Observation]:
    """Merge the observations of all views of one frame.

    Args:
        observations: Of any view, in any order.

    Returns:
        One observation for each object, best score first, with the text that was read where it was magnified most.
    """
    whole = sorted((o for o in observations if not o.is_cut), key=lambda o: (-o.support, o.box.as_tuple()))
    objects: list[list[Observation]] = []
    for observation in whole:
        _join_or_found(objects, observation)
    for observation in _explain(objects, [o for o in observations if o.is_cut]):
        _join_or_found(objects, observation)
    return sorted(map(_represent, objects), key=lambda o: (-_finite(o.finding.score), o.box.as_tuple()))


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
    jitter = EDGE_JITTER_PX / min(a.view.zoom, b.view.zoom)
    tolerated = (max(0.0, side - jitter) / (side + jitter)) ** 2
    return max(MIN_MATCH_IOU, min(MATCH_IOU, tolerated))


def _represent(members: Sequence[Observation]) -> Observation:
    """The observation whose box the others support most, whole if any is, with the text of the most magnified one."""
    if len(members) == 1:
        return members[0]
    voters = [o for o in members if not o.is_cut] or list(members)
    boxes, support = as_array(o.box for o in voters), np.array([o.support for o in voters])
    chosen = voters[int(np.argmax((iou(boxes, boxes) @ support) * support))]
    readings = [o.finding for o in sorted(members, key=lambda o: -o.view.zoom) if o.finding.text]
    if not readings or readings[0] is chosen.finding:
        return chosen
    finding = replace(chosen.finding, text=readings[0].text, text_score=readings[0].text_score)
    return replace(chosen, finding=finding)
