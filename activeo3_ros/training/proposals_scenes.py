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

"""Scenes for gain maps: small views composed of pictures that the teacher has looked at.

A scene is a part of one picture, or a mosaic of several, at the size of a view. The detector sees that view for real;
what a zoom into it would find is known from the records, at any magnification, without asking the detector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..core.budget import Budget
from ..core.frame import GLOBAL_VIEW, Frame, Image, View
from ..core.geometry import Box, Boxes
from ..core.query import Query
from ..core.results import DetectedBoxes, Region
from ..detectors.checks import checked_images
from ..detectors.detector_task import DetectorTask
from ..policies.gain_maps import HeadDescription
from ..policies.map_windows import MARGIN_PX
from .proposals_teacher import LookedPicture, are_found

Array = npt.NDArray[np.float64]

FRAME_SIZES = ((1280, 720), (1280, 960), (1920, 1080), (1920, 1200), (2560, 1440), (3840, 2160))
"""Width and height of the frames that mosaics stand for, pixels."""
TILES_ACROSS = (2, 3, 4, 4, 5, 6)
MOST_TILES = 30
TILE_SHARE = (0.6, 1.0)
"""Share of its cell that a picture of a mosaic fills."""
CROP_SHARE = (0.5, 1.0)
"""Share of a picture's sides that a scene of one picture shows."""
WHOLE_PICTURES = 0.3
"""How many of the scenes of one picture show all of it."""
CONTRAST, BRIGHTNESS = (0.7, 1.3), (-20.0, 20.0)
BACKGROUNDS = (114, 114, 60, 160)
DENSE_ZOOMS = np.geomspace(1.0, 16.0, 17)
"""Magnifications against the view at which a scene knows what would be found."""
MAX_MAGNIFICATION = 4.0
"""As the policy has it: crop pixels for a source pixel beyond which no window is proposed."""
ALL_CLASSES, PRESET_CLASSES = 0.4, 0.25
"""How often a scene is asked for all classes, and for those of the preset; else for a few of those that are there."""
MOST_ASKED = 6


@dataclass(frozen=True, eq=False)
class Scene:
    """A view, what the detector makes of it, and what zooming into it would find.

    Attributes:
        image: `(h, w, 3)` uint8 BGR, the view.
        frame_size: Width and height of the frame that it stands for, pixels.
        detected: The detector's boxes in it, from the hint threshold on.
        boxes: `(n, 4)` objects in view pixels.
        class_ids: `(n,)` their classes.
        weight: `(n,)` probability that each is there.
        found: `(n, m)` probability that a crop which shows each whole finds it, at each of `DENSE_ZOOMS`.
        is_reported: `(n,)` bool, whether the view itself reports it.
        asked: Ids of the classes that are asked for.
    """

    image: Image
    frame_size: tuple[int, int]
    detected: DetectedBoxes
    boxes: Boxes
    class_ids: npt.NDArray[np.intp]
    weight: Array
    found: Array
    is_reported: npt.NDArray[np.bool_]
    asked: tuple[int, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the view, pixels."""
        return self.image.shape[1], self.image.shape[0]

    @property
    def view(self) -> View:
        """The view as the loop gives it to a policy; the frame behind it has no pixels of its own."""
        width, height = self.frame_size
        frame = Frame(np.broadcast_to(np.zeros(1, np.uint8), (height, width, 3)))
        view = View(frame, Box(0, 0, width, height), GLOBAL_VIEW, self.size)
        vars(view)["image"] = self.image
        return view

    @property
    def largest_zoom(self) -> float:
        """Magnification against the view beyond which there is nothing more to see."""
        return MAX_MAGNIFICATION / self.view.zoom

    @property
    def new(self) -> Array:
        """`(n,)` worth of finding each object: those that are asked for and that the view does not report."""
        return self.weight * (np.isin(self.class_ids, self.asked) & ~self.is_reported)

    def found_at(self, zoom: float) -> Array:
        """`(n,)` probability that a crop of a magnification which shows each object whole finds it."""
        place = float(np.interp(math.log(zoom), np.log(DENSE_ZOOMS), np.arange(len(DENSE_ZOOMS))))
        low = min(math.floor(place), len(DENSE_ZOOMS) - 2)
        return np.asarray((1 - (place - low)) * self.found[:, low] + (place - low) * self.found[:, low + 1])

    def gain_of(self, regions: Sequence[Region], crop_size: tuple[int, int]) -> Array:
        """`(k,)` objects that each of some regions newly finds: those before it have found some of them.

        What one magnification finds, another finds too as far as it can: misses of one object are not independent.
        """
        known, gains = np.zeros(len(self.boxes)), []
        ends = self.boxes[:, :2] + self.boxes[:, 2:]
        for region in regions:
            box = region.box
            zoom = min(crop_size[0] / box.width, crop_size[1] / box.height)
            margin = MARGIN_PX / zoom / 4
            low = np.where(np.array([box.x, box.y]) > 1e-6, np.array([box.x, box.y]) + margin, -np.inf)
            corner = np.array([box.right, box.bottom])
            high = np.where(corner < np.array(self.size) - 1e-6, corner - margin, np.inf)
            shown = ((self.boxes[:, :2] >= low) & (ends <= high)).all(axis=1)
            now = np.maximum(known, np.where(shown, self.found_at(zoom), 0.0))
            gains.append(float(((now - known) * self.new).sum()))
            known = now
        return np.array(gains)

    def target(self, head: HeadDescription) -> npt.NDArray[np.float32]:
        """`(n, h, w)` objects that a crop of each magnification would newly find, by the cell of their centre."""
        columns, rows = (math.ceil(side / head.cell_px) for side in self.size)
        maps = np.zeros((len(head.zooms), rows, columns), np.float32)
        centers = ((self.boxes[:, :2] + self.boxes[:, 2:] / 2) / head.cell_px).astype(np.intp)
        centers = centers.clip(0, [columns - 1, rows - 1])
        for level, zoom in enumerate(head.zooms):
            if level and zoom > self.largest_zoom * 1.01:
                maps[level] = maps[level - 1]  # the policy never goes there: the crop would show no more
                continue
            np.add.at(maps[level], (centers[:, 1], centers[:, 0]), self.found_at(zoom) * self.new)
        return maps


class Composer:
    """Composes scenes of pictures for one detector."""

    def __init__(
        self,
        task: DetectorTask,
        pictures: Sequence[LookedPicture],
        budget: Budget,
        query: Query,
        mosaics: float,
        frame_mosaics: float,
        hint_threshold: float,
    ) -> None:
        """Choose the pictures.

        Args:
            task: Its detector sees the views.
            pictures: What scenes are made of.
            budget: Its pixels of a view are those of a scene.
            query: The preset's; its classes are asked for often.
            mosaics: Share of mosaics among the scenes of photographs.
            frame_mosaics: Of those of frames of a camera.
            hint_threshold: Score from which the detector's boxes count.
        """
        self.task, self.pictures, self.budget = task, pictures, budget
        self.mosaics, self.frame_mosaics = mosaics, frame_mosaics
        self.hint_threshold = hint_threshold
        self.classes = len(task.detector.names)
        target = task.resolve(query)
        self._preset = task.class_ids(target.classes, target)
        # Where nothing is, there is little to learn, and something.
        self._worth = np.array([each.share * (1.0 if each.weight.sum() > 0 else 0.25) for each in pictures])

    def scene(self, seed: Sequence[int]) -> Scene:
        """Compose one; the same seed gives the same scene."""
        random = np.random.default_rng(list(seed))
        first = self._draw(random, self._worth)
        mosaics = self.frame_mosaics if first.is_frame else self.mosaics
        is_mosaic = random.uniform() < mosaics and len(self.pictures) > 1
        canvas = self._mosaic(first, random) if is_mosaic else self._part(first, random)
        [detected] = checked_images(self.task.detector, self.task.label, [canvas.image], self.hint_threshold)
        boxes, class_ids, weight, found = canvas.objects()
        asked = self._asked(class_ids, list(first.classes) or list(range(self.classes)), random)
        strong = detected.scores >= self.task.threshold
        reported = DetectedBoxes(detected.boxes[strong], detected.scores[strong], detected.class_ids[strong])
        return Scene(
            canvas.image,
            canvas.frame_size,
            detected,
            boxes,
            class_ids,
            weight,
            found,
            are_found(boxes, class_ids, reported),
            tuple(asked),
        )

    def _draw(self, random: np.random.Generator, worth: Array) -> LookedPicture:
        return self.pictures[int(random.choice(len(self.pictures), p=worth / worth.sum()))]

    def _asked(self, present: npt.NDArray[np.intp], known: list[int], random: np.random.Generator) -> list[int]:
        """What a scene is asked for: classes whose objects are known in it."""
        chance = random.uniform()
        there = np.intersect1d(present, known)
        if chance < ALL_CLASSES:
            return known
        if chance < ALL_CLASSES + PRESET_CLASSES or not len(there):
            return [index for index in self._preset if index in known] or known
        count = int(random.integers(1, min(MOST_ASKED, len(there)) + 1))
        return sorted(random.choice(there, count, replace=False).tolist())

    def _part(self, looked: LookedPicture, random: np.random.Generator) -> _Canvas:
        """A part of one picture, as a frame of its own."""
        width, height = looked.size
        share = 1.0 if random.uniform() < WHOLE_PICTURES else random.uniform(*CROP_SHARE)
        wide, high = max(1.0, width * share), max(1.0, height * share)
        part = Box(random.uniform(0, width - wide), random.uniform(0, height - high), wide, high)
        frame_size = max(1, round(wide)), max(1, round(high))
        size = self.task.view_size(*frame_size, self.budget.view_pixels)
        canvas = _Canvas(size, frame_size, BACKGROUNDS[0])
        canvas.paste(looked, part, (0.0, 0.0), size[0] / wide, random)
        return canvas

    def _mosaic(self, first: LookedPicture, random: np.random.Generator) -> _Canvas:
        """Pictures beside each other, each in a cell of its own; of all of them the same classes are known."""
        same = np.array([(each.classes, each.is_frame) == (first.classes, first.is_frame) for each in self.pictures])
        frame_size = FRAME_SIZES[int(random.integers(len(FRAME_SIZES)))]
        size = self.task.view_size(*frame_size, self.budget.view_pixels)
        across = int(random.choice(TILES_ACROSS))
        down = min(max(1, round(across * size[1] / size[0] * 4 / 3)), MOST_TILES // across)
        canvas = _Canvas(size, frame_size, int(random.choice(BACKGROUNDS)))
        cell = size[0] / across, size[1] / down
        for index in range(across * down):
            looked = self._draw(random, self._worth * same)
            share = random.uniform(*TILE_SHARE)
            scale = share * min(side / length for side, length in zip(cell, looked.size, strict=True))
            spare = [max(0.0, side - length * scale) for side, length in zip(cell, looked.size, strict=True)]
            place = (
                index % across * cell[0] + random.uniform(0, spare[0]),
                index // across * cell[1] + random.uniform(0, spare[1]),
            )
            whole = Box(0.0, 0.0, float(looked.size[0]), float(looked.size[1]))
            canvas.paste(looked, whole, place, scale, random)
        return canvas


class _Canvas:
    """A view that is being composed, and the objects on it."""

    def __init__(self, size: tuple[int, int], frame_size: tuple[int, int], grey: int) -> None:
        self.image: Image = np.full((size[1], size[0], 3), grey, np.uint8)
        self.frame_size = frame_size
        self._parts: list[tuple[Boxes, npt.NDArray[np.intp], Array, Array]] = []

    def paste(
        self,
        looked: LookedPicture,
        part: Box,
        place: tuple[float, float],
        scale: float,
        random: np.random.Generator,
    ) -> None:
        """Paste a part of a picture, sometimes mirrored, in another light.

        Args:
            looked: The picture.
            part: In pixels of its original.
            place: Of the part's corner on the canvas, x and y in pixels.
            scale: Canvas pixels for a pixel of the original.
            random: Chooses mirror and light.
        """
        kept = looked.picture.shape[1] / looked.size[0]
        slices = Box(part.x * kept, part.y * kept, part.width * kept, part.height * kept).snapped(
            looked.picture.shape[1], looked.picture.shape[0]
        )
        x, y = (round(each) for each in place)
        width = min(max(1, round(part.width * scale)), self.image.shape[1] - x)
        height = min(max(1, round(part.height * scale)), self.image.shape[0] - y)
        if width < 1 or height < 1:
            return
        is_smaller = width < slices.width
        tile = cv2.resize(
            looked.picture[slices.slices()],
            (width, height),
            interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR,
        )
        is_mirrored = random.uniform() < 0.5
        lit = tile.astype(np.float32) * random.uniform(*CONTRAST) + random.uniform(*BRIGHTNESS)
        tile = np.clip(lit[:, ::-1] if is_mirrored else lit, 0, 255).astype(np.uint8)
        self.image[y : y + height, x : x + width] = tile
        boxes = (looked.boxes - [part.x, part.y, 0, 0]) * scale
        if is_mirrored:
            boxes[:, 0] = width - boxes[:, 0] - boxes[:, 2]
        centers = boxes[:, :2] + boxes[:, 2:] / 2
        inside = ((centers >= 0) & (centers <= [width, height])).all(axis=1)
        boxes[:, :2] += (x, y)
        found = np.stack([looked.found_at(scale * zoom) for zoom in DENSE_ZOOMS.tolist()], axis=1)
        self._parts.append((boxes[inside], looked.class_ids[inside], looked.weight[inside], found[inside]))

    def objects(self) -> tuple[Boxes, npt.NDArray[np.intp], Array, Array]:
        """Boxes in pixels of the canvas, classes, weights, and what finds them at each of `DENSE_ZOOMS`."""
        none = np.empty((0, 4)), np.empty(0, np.intp), np.empty(0), np.empty((0, len(DENSE_ZOOMS)))
        boxes, class_ids, weight, found = zip(none, *self._parts, strict=True)
        return np.concatenate(boxes), np.concatenate(class_ids), np.concatenate(weight), np.concatenate(found)
