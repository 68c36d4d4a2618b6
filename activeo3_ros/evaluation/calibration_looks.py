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

"""One picture looked at many times: which objects a detector is sure of, and what it makes of them when they shrink.

No label is used. The detector is asked at full resolution first, at four magnifications and at shifted places: the
*reference*. An object that it reports with a high score at two magnifications or more is a *sure* object. Then the
picture is shrunk step by step, as the loop shrinks frames, and laid on the detector's canvas twice, at two places; each
sure object that such a look shows whole is a *try*, and each box in it a *claim* that is true where the reference has
something, and false where the reference, at any magnification, has nothing.

Assumed, and to be said wherever the figures are used: what the detector is sure of is a fair sample of what it can see
(it is the easier part), a shrunken object looks like a distant one (haze, blur and compression are missing), and what
the reference misses is not there (some of it is: a claim is then called false though it is right; and what the detector
takes for an object at every magnification counts as one).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from ..core.calibration import DEFAULT, Calibration
from ..core.frame import Frame, Image, View
from ..core.geometry import Box, Boxes, areas, iou, non_maximum_suppression, share_inside
from ..core.interfaces import Detector
from ..core.results import DetectedBoxes
from ..detectors.checks import checked_images

Array = npt.NDArray[np.float64]

CANVAS_GREY = 114
"""Grey level beside a picture that is smaller than the detector's input, as detectors pad their images."""
CUT_MARGIN_PX = 3.0
"""A box that ends this close to the border of a look beyond which the picture goes on may be cut."""
SAME_IOU, SMALLEST_SAME_IOU = 0.5, 0.15
"""Two boxes are one object from this overlap on; less is enough for small ones, whose edges jitter by their size."""
LOWEST_SCORE = 0.03
"""Boxes with less are not asked for."""
MAX_PICTURE = 2.0
"""Of a larger picture the part with most in it is taken, this many times the detector's input a side."""
MAX_MAGNIFICATION = 2.0
"""The whole of a small picture is enlarged no more than this: there is nothing more to see."""
TILINGS = ((0.75, 1), (1.0, 1), (1.6, 2), (2.4, 3))
"""Reference: magnification against the whole picture, and looks along each axis."""
SMALLEST_SIDE_PX = 3.5
"""Objects are not shrunk further."""
SCALES_WITHOUT_OBJECTS = 3
"""How often a picture is halved in which nothing is sure: what is found there counts too."""
LOOKS = 2
"""Looks at one magnification."""


@dataclass(frozen=True)
class Tries:
    """Sure objects in shrunken looks, one row a look.

    Attributes:
        side: `(n,)` apparent side, pixels of the detector's input.
        object: `(n,)` number of the object in its picture.
        scale: `(n,)` number of the magnification.
        look: `(n,)` 0 or 1, of the two looks at that magnification.
        found: `(n,)` bool, whether it was reported, as whatever class.
        overlap: `(n,)` IoU of the box that reported it, 0 for none.
        class_told: `(n,)` 1 if the best-scored box on it has its class, 0 if another, NaN if there is no box at all.
        errors: `(n, 4)` left, top, right, bottom edge of the box less the reference's, detector pixels, without the
            share of the difference that is the reference's own; NaN for none.
    """

    side: Array
    object: npt.NDArray[np.intp]
    scale: npt.NDArray[np.intp]
    look: npt.NDArray[np.intp]
    found: npt.NDArray[np.bool_]
    overlap: Array
    class_told: Array
    errors: Array

    @classmethod
    def joined(cls, parts: Sequence[Tries]) -> Tries:
        """All tries of several looks."""
        none, count = np.empty(0), np.empty(0, np.intp)
        nothing = cls(none, count, count, count, np.empty(0, bool), none, none, np.empty((0, 4)))
        return cls(*(np.concatenate([getattr(part, name.name) for part in (nothing, *parts)]) for name in fields(cls)))


@dataclass(frozen=True)
class Claims:
    """Boxes in shrunken looks: `(m,)` score, apparent side in detector pixels, whether the reference has it."""

    score: Array
    side: Array
    true: npt.NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: Sequence[Claims]) -> Claims:
        """All claims of several looks."""
        none = cls(np.empty(0), np.empty(0), np.empty(0, bool))
        return cls(*(np.concatenate([getattr(part, name.name) for part in (none, *parts)]) for name in fields(cls)))


@dataclass(frozen=True)
class Reference:
    """What is in a picture, in pixels of it.

    Attributes:
        sure: `(n, 4)` boxes of the objects that are shrunk.
        classes: `(n,)` their class ids.
        seen: `(m, 4)` boxes of all that is there, these too; a claim with none of them is false.
        precision: `(n,)` how exact the boxes of `sure` are: one box at a magnification `z` has `z ** 2`, several have
            the sum of theirs; none given: exact.
    """

    sure: Boxes
    classes: npt.NDArray[np.intp]
    seen: Boxes
    precision: Array | None = None


@dataclass(frozen=True)
class PictureRecord:
    """What one picture gave: sure objects, tries, claims, and calls of the detector."""

    sure: int
    tries: Tries
    claims: Claims
    images: int


@dataclass(frozen=True)
class Look:
    """A canvas of the size of the detector's input, with a part of a picture on it.

    Attributes:
        image: `(h, w, 3)` uint8 BGR, the canvas.
        view: The part of the picture.
        place: Where on the canvas it lies, x and y in pixels.
    """

    image: Image
    view: View
    place: tuple[int, int]

    def to_picture(self, boxes: Boxes) -> Boxes:
        """`(n, 4)` boxes on the canvas to pixels of the picture, clipped to what the look shows of it."""
        shown = np.array([self.view.width, self.view.height, self.view.width, self.view.height], np.float64)
        low = np.clip(boxes[:, :2] - self.place, 0, shown[:2])
        high = np.clip(boxes[:, :2] + boxes[:, 2:] - self.place, 0, shown[:2])
        return self.view.to_source(np.concatenate([low, high - low], axis=1))

    def shows_whole(self, boxes: Boxes) -> npt.NDArray[np.bool_]:
        """`(n,)` whether the look shows all of `(n, 4)` boxes in pixels of the picture, and a little around."""
        window, (width, height), margin = self.view.window, self.view.source_size, CUT_MARGIN_PX / self.view.zoom
        low = np.array([window.x + margin if window.x > 0 else 0, window.y + margin if window.y > 0 else 0])
        high = np.array(
            [
                window.right - margin if window.right < width else width,
                window.bottom - margin if window.bottom < height else height,
            ]
        )
        ends = boxes[:, :2] + boxes[:, 2:]
        return np.asarray(((boxes[:, :2] >= low - 1e-6) & (ends <= high + 1e-6)).all(axis=1))


def look_at(frame: Frame, scale: float, corner: tuple[float, float], canvas: tuple[int, int]) -> Look:
    """Lay a part of a picture on a canvas, resampled as the loop resamples frames.

    Args:
        frame: The picture.
        scale: Canvas pixels for a pixel of the picture.
        corner: Where the canvas begins, x and y in pixels of the scaled picture; it may lie outside.
        canvas: Width and height of the canvas, pixels.
    """
    spans = []
    for start, side, length in zip(corner, canvas, (frame.width, frame.height), strict=True):
        low, high = max(0.0, start / scale), min(float(length), (start + side) / scale)
        spans.append((low, max(low, high)))
    (x0, x1), (y0, y1) = spans
    window = Box(x0, y0, x1 - x0, y1 - y0).snapped(frame.width, frame.height)
    place = (
        min(max(0, round(window.x * scale - corner[0])), canvas[0] - 1),
        min(max(0, round(window.y * scale - corner[1])), canvas[1] - 1),
    )
    size = (
        min(max(1, round(window.width * scale)), canvas[0] - place[0]),
        min(max(1, round(window.height * scale)), canvas[1] - place[1]),
    )
    view = frame.view(window, size)
    image = np.full((canvas[1], canvas[0], 3), CANVAS_GREY, np.uint8)
    image[place[1] : place[1] + size[1], place[0] : place[0] + size[0]] = view.image
    return Look(image, view, place)


class PictureLooks:
    """Looks at pictures with one detector."""

    def __init__(
        self,
        detector: Detector,
        threshold: float,
        sure_score: float,
        random: np.random.Generator,
        class_ids: Sequence[int] | None = None,
    ) -> None:
        """Choose the detector.

        Args:
            detector: The detector.
            threshold: Score from which an object counts as reported.
            sure_score: Score from which the reference is sure of one.
            random: Chooses places and magnifications.
            class_ids: Classes that count; None for all.
        """
        self.detector, self.threshold, self.sure_score = detector, threshold, sure_score
        self.canvas = detector.input_size.width, detector.input_size.height
        self._lowest = min(LOWEST_SCORE, threshold)
        self._random = random
        self._class_ids = None if class_ids is None else np.array(class_ids, np.intp)
        self._images = 0

    def record(self, picture: Image, reference: Reference | None = None) -> PictureRecord:
        """Look at one picture.

        Args:
            picture: `(h, w, 3)` uint8 BGR, at full resolution.
            reference: What is in it, where that is known; None to ask the detector.
        """
        self._images = 0
        frame = Frame(picture) if reference else self._part(Frame(picture))
        whole = self._whole_scale(frame)
        known = reference or self._reference(frame, whole)
        tries: list[Tries] = []
        claims: list[Claims] = []
        for number, scale in enumerate(self.scales(frame, whole, known.sure)):
            looks = [look_at(frame, scale, self._corner(frame, scale, known.sure), self.canvas) for _ in range(LOOKS)]
            for index, (look, detected) in enumerate(zip(looks, self._detect(looks), strict=True)):
                tries.append(self._tries(look, detected, known, number, index))
                claims.append(self._claims(look, detected, known.seen))
        return PictureRecord(len(known.sure), Tries.joined(tries), Claims.joined(claims), self._images)

    def _part(self, frame: Frame) -> Frame:
        """The picture, or the part of a large one where the whole shows most."""
        width = min(frame.width, round(MAX_PICTURE * self.canvas[0]))
        height = min(frame.height, round(MAX_PICTURE * self.canvas[1]))
        if (width, height) == (frame.width, frame.height):
            return frame
        look = look_at(frame, self._whole_scale(frame), (0.0, 0.0), self.canvas)
        [detected] = self._detect([look])
        boxes = look.to_picture(detected.boxes)
        best, most = Box(0.0, 0.0, float(width), float(height)), -1.0
        centers = boxes[:, :2] + boxes[:, 2:] / 2
        for x, y in [(frame.width / 2, frame.height / 2), *centers.tolist()]:
            left = math.floor(min(max(x - width / 2, 0.0), frame.width - width))
            top = math.floor(min(max(y - height / 2, 0.0), frame.height - height))
            window = Box(float(left), float(top), float(width), float(height))
            within = share_inside(boxes, [window.as_tuple()])[:, 0] > 1 - 1e-6
            worth = float(detected.scores[within].sum())
            if worth > most:
                best, most = window, worth
        return Frame(np.ascontiguousarray(frame.image[best.slices()]))

    def _whole_scale(self, frame: Frame) -> float:
        return min(self.canvas[0] / frame.width, self.canvas[1] / frame.height, MAX_MAGNIFICATION)

    def scales(self, frame: Frame, whole: float, sure: Boxes) -> Iterator[float]:
        """Magnifications, each half of the one before, from the full resolution on."""
        scale = max(whole, min(1.0, 2 * whole)) * 2 ** -float(self._random.uniform(0, 1))
        largest = math.sqrt(areas(sure).max()) if len(sure) else SMALLEST_SIDE_PX * 2**SCALES_WITHOUT_OBJECTS / whole
        while largest * scale >= SMALLEST_SIDE_PX and min(frame.width, frame.height) * scale >= 1:
            yield scale
            scale /= 2

    def _corner(self, frame: Frame, scale: float, sure: Boxes) -> tuple[float, float]:
        """A random place: the whole picture anywhere on the canvas, or a sure object somewhere in its middle."""
        target = sure[self._random.integers(len(sure))] if len(sure) else None
        corner = []
        for axis, (side, length) in enumerate(zip(self.canvas, (frame.width, frame.height), strict=True)):
            spare = side - length * scale
            if spare >= 0:
                corner.append(-self._random.uniform(0, spare))
            elif target is None:
                corner.append(self._random.uniform(0, -spare))
            else:
                center = (target[axis] + target[axis + 2] / 2) * scale
                corner.append(float(np.clip(center - self._random.uniform(0.3, 0.7) * side, 0, -spare)))
        return corner[0], corner[1]

    def _reference(self, frame: Frame, whole: float) -> Reference:
        """What the detector reports of a picture at full resolution."""
        looks, scales = [], []
        for factor, along in TILINGS:
            scale = whole * factor
            for corner in self._tiles(frame, scale, along):
                looks.append(look_at(frame, scale, corner, self.canvas))
                scales.append(scale)
        boxes, scores, classes, seen_at = [np.empty((0, 4))], [np.empty(0)], [np.empty(0, np.intp)], [np.empty(0)]
        for look, scale, detected in zip(looks, scales, self._detect(looks), strict=True):
            mapped = look.to_picture(detected.boxes)
            kept = look.shows_whole(mapped) & (detected.scores >= min(self.threshold, self.sure_score))
            boxes.append(mapped[kept])
            scores.append(detected.scores[kept].astype(np.float64))
            classes.append(detected.class_ids[kept])
            seen_at.append(np.full(int(kept.sum()), scale))
        return self._clusters(
            np.concatenate(boxes), np.concatenate(scores), np.concatenate(classes), np.concatenate(seen_at)
        )

    def _tiles(self, frame: Frame, scale: float, along: int) -> list[tuple[float, float]]:
        axes = []
        for side, length in zip(self.canvas, (frame.width * scale, frame.height * scale), strict=True):
            spare = length - side
            axes.append(
                [spare * step / (along - 1) for step in range(along)] if along > 1 and spare > 0 else [spare / 2]
            )
        return [(x, y) for y in axes[1] for x in axes[0]]

    def _clusters(self, boxes: Boxes, scores: Array, classes: npt.NDArray[np.intp], scales: Array) -> Reference:
        """Group the boxes of all looks: class and magnification of each in `classes` and `scales`."""
        seeds = non_maximum_suppression(boxes, scores, SAME_IOU)
        overlaps = iou(boxes[seeds], boxes)
        sure: list[Array] = []
        sure_classes: list[int] = []
        precision: list[float] = []
        seen: list[Array] = []
        owner = overlaps.argmax(axis=0) if len(seeds) else np.empty(0, np.intp)
        for index, seed in enumerate(seeds):
            members = (owner == index) & (overlaps[index] >= SAME_IOU)
            certain = members & (scores >= self.sure_score) & (classes == classes[seed])
            if len(set(scales[certain])) >= 2:
                # An edge is off by so many pixels of the detector: the larger a look, the less in the picture.
                sure.append(np.average(boxes[certain], axis=0, weights=scales[certain] ** 2))
                sure_classes.append(int(classes[seed]))
                precision.append(float((scales[certain] ** 2).sum()))
            if len(set(scales[members & (scores >= self.threshold)])) >= 2:
                seen.append(boxes[seed])
        return Reference(
            np.array(sure).reshape(-1, 4),
            np.array(sure_classes, np.intp),
            np.array(seen).reshape(-1, 4),
            np.array(precision),
        )

    def _detect(self, looks: Sequence[Look]) -> list[DetectedBoxes]:
        """What the detector gives for each look, each object once, boxes on the canvas."""
        step = max(1, int(getattr(self.detector, "batch_size", 1)))
        found: list[DetectedBoxes] = []
        for start in range(0, len(looks), step):
            batch = [look.image for look in looks[start : start + step]]
            answers = checked_images(self.detector, type(self.detector).__name__, batch, self._lowest)
            found += [each_once(self._counting(answer), DEFAULT) for answer in answers]
        self._images += len(looks)
        return found

    def _counting(self, detected: DetectedBoxes) -> DetectedBoxes:
        """The boxes of the classes that count."""
        if self._class_ids is None:
            return detected
        kept = np.isin(detected.class_ids, self._class_ids)
        return DetectedBoxes(detected.boxes[kept], detected.scores[kept], detected.class_ids[kept])

    def _tries(self, look: Look, detected: DetectedBoxes, known: Reference, scale: int, number: int) -> Tries:
        sure, classes = known.sure, known.classes
        shown = np.flatnonzero(look.shows_whole(sure))
        zoom = look.view.zoom
        boxes = look.to_picture(detected.boxes)
        sides = np.sqrt(areas(sure[shown])) * zoom
        shown, sides = shown[sides >= SMALLEST_SIDE_PX], sides[sides >= SMALLEST_SIDE_PX]
        overlaps = iou(sure[shown], boxes)
        fits = overlaps >= same_iou(sides)[:, None]
        same_class = classes[shown][:, None] == detected.class_ids[None]
        partner = one_to_one(np.where(fits & (detected.scores >= self.threshold), overlaps + same_class, 0.0))
        found = partner >= 0
        errors = np.full((len(shown), 4), np.nan)
        matched = boxes[partner[found]]
        own = sure[shown[found]]
        errors[found, :2] = (matched[:, :2] - own[:, :2]) * zoom
        errors[found, 2:] = (matched[:, :2] + matched[:, 2:] - own[:, :2] - own[:, 2:]) * zoom
        if known.precision is not None:  # an edge is off by as many detector pixels in the reference's looks as here
            errors /= np.sqrt(1 + zoom**2 / known.precision[shown])[:, None]
        overlap = np.zeros(len(shown))
        overlap[found] = overlaps[found, partner[found]]
        best = np.where(fits, detected.scores[None], -1.0)
        hinted = best.max(axis=1, initial=-1.0) >= 0
        told = np.full(len(shown), np.nan)
        told[hinted] = same_class[hinted, best[hinted].argmax(axis=1)] if hinted.any() else 0.0
        count = len(shown)
        return Tries(
            sides, shown, np.full(count, scale, np.intp), np.full(count, number, np.intp), found, overlap, told, errors
        )

    def _claims(self, look: Look, detected: DetectedBoxes, seen: Boxes) -> Claims:
        """The boxes of a look that nothing cuts; a second box on an object that has one is neither true nor false."""
        boxes = look.to_picture(detected.boxes)
        inside = share_inside(detected.boxes, [[*look.place, look.view.width, look.view.height]])[:, 0] > 0.5
        sides = np.sqrt(areas(detected.boxes))
        overlaps = iou(seen, boxes)
        fits = overlaps >= same_iou(sides)[None]
        partner = one_to_one(np.where(fits, 1.0 + detected.scores[None], 0.0))
        true = np.zeros(len(boxes), bool)
        true[partner[partner >= 0]] = True
        again = fits.any(axis=0) & ~true
        kept = inside & look.shows_whole(boxes) & ~again
        return Claims(detected.scores[kept].astype(np.float64), sides[kept], true[kept])


def same_iou(sides_px: npt.ArrayLike, calibration: Calibration = DEFAULT) -> Array:
    """`(n,)` overlaps from which boxes of `(n,)` apparent sides are one object, as the merging of views has it."""
    sides, jitter = np.asarray(sides_px, np.float64), calibration.edge_tolerance_px
    tolerated = (np.maximum(0.0, sides - jitter) / np.maximum(sides + jitter, 1e-9)) ** 2
    return np.asarray(np.clip(tolerated, SMALLEST_SAME_IOU, SAME_IOU))


def each_once(detected: DetectedBoxes, calibration: Calibration) -> DetectedBoxes:
    """What a detector gives for one image, each object once."""
    boxes, scores, classes, _ = detected
    kept = non_maximum_suppression(boxes, scores, calibration.same_object_any_class_iou)
    chosen = [np.empty(0, np.intp)]
    for each in np.unique(classes[kept]):
        own = kept[classes[kept] == each]
        chosen.append(own[non_maximum_suppression(boxes[own], scores[own], calibration.same_object_iou)])
    order = np.concatenate(chosen)
    order = order[np.argsort(-scores[order], kind="stable")]
    return DetectedBoxes(boxes[order], scores[order], classes[order])


def one_to_one(worth: Array) -> npt.NDArray[np.intp]:
    """Pair rows with columns greedily, the best first.

    Args:
        worth: `(n, m)`; pairs with 0 or less are none.

    Returns:
        `(n,)` column of each row, -1 for none.
    """
    partner = np.full(worth.shape[0], -1, np.intp)
    rows, columns = np.nonzero(worth > 0)
    taken: set[int] = set()
    for index in np.argsort(-worth[rows, columns], kind="stable"):
        row, column = int(rows[index]), int(columns[index])
        if partner[row] < 0 and column not in taken:
            partner[row] = column
            taken.add(column)
    return partner
