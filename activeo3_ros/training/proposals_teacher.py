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

"""The teacher of gain maps: a detector looks at a picture at many magnifications, once.

What it finds where at which magnification is kept as a small record, so that scenes can be composed of the picture at
any size without asking it again. With labels the objects are the labelled ones; without, they are what the detector
finds at full resolution, each with the probability that it is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..core.calibration import Calibration
from ..core.frame import Frame, Image
from ..core.geometry import Boxes, areas, iou, non_maximum_suppression
from ..core.interfaces import Detector
from ..core.results import DetectedBoxes
from ..detectors.checks import checked_images
from ..evaluation.calibration_looks import Look, each_once, look_at
from ..evaluation.item_files import write_atomically

logger = logging.getLogger(__name__)

Array = npt.NDArray[np.float64]

SMALLEST_SHOWN_PX = 64.0
"""Longer side of a picture, in detector pixels, at the smallest magnification: as a tile of a mosaic."""
SCALE_STEP = math.sqrt(2)
MAX_SCALE, MAX_ZOOM = 3.0, 8.0
"""Detector pixels for a source pixel, and magnification against the view, beyond which nothing is looked at."""
TILE_OVERLAP = 0.3
SMALL_LOOKS = 2
"""Looks at a picture that fits into the detector's input, at places chosen at random."""
FOUND_IOU = 0.5
UNCONFIRMED = 0.5
"""An object that only one magnification shows is believed half as much as its score says."""
STORED_SIDE_PX = 1024
"""Longer side of the picture that is kept: views are smaller."""
STORED_QUALITY = 95
VERSION = 1
"""Of the records; others are looked at anew."""


@dataclass(frozen=True, eq=False)
class LookedPicture:
    """A picture and what a detector finds in it at each magnification.

    Attributes:
        picture: `(h, w, 3)` uint8 BGR, at most `STORED_SIDE_PX` long.
        size: Width and height of the original, pixels.
        scales: `(s,)` detector pixels for a pixel of the original, rising.
        boxes: `(n, 4)` objects in pixels of the original.
        class_ids: `(n,)` their classes.
        weight: `(n,)` probability that each is there.
        found: `(n, s)` share of the looks at each magnification that found it.
        classes: Ids of the classes whose objects are known; none for all.
        is_frame: Whether it is a frame of a camera, which sees no mosaics.
        share: How often scenes are made of it, against others: less where many look the same.
    """

    picture: Image
    size: tuple[int, int]
    scales: Array
    boxes: Boxes
    class_ids: npt.NDArray[np.intp]
    weight: Array
    found: Array
    classes: tuple[int, ...] = ()
    is_frame: bool = False
    share: float = 1.0

    def found_at(self, scale: float) -> Array:
        """`(n,)` share of looks at a magnification, in detector pixels for a pixel of the original, that find each."""
        place = float(np.interp(math.log(scale), np.log(self.scales), np.arange(len(self.scales))))
        low = math.floor(place)
        high = min(low + 1, len(self.scales) - 1)
        share = place - low
        return np.asarray((1 - share) * self.found[:, low] + share * self.found[:, high])


class Teacher:
    """Looks at pictures with one detector."""

    def __init__(self, detector: Detector, label: str, threshold: float, calibration: Calibration) -> None:
        """Choose the detector.

        Args:
            detector: The detector.
            label: Its name in messages.
            threshold: Score from which it reports an object.
            calibration: How far it can be believed.
        """
        self.detector, self.label, self.threshold, self.calibration = detector, label, threshold, calibration
        self.canvas = detector.input_size.width, detector.input_size.height
        self.images = 0
        """Images that the detector was asked about."""

    def look(self, picture: Image, labels: tuple[Boxes, npt.NDArray[np.intp]] | None = None) -> LookedPicture:
        """Look at a picture at all magnifications.

        Args:
            picture: `(h, w, 3)` uint8 BGR, at full resolution.
            labels: `(n, 4)` boxes in its pixels and their `(n,)` class ids, where they are known.
        """
        frame = Frame(picture)
        random = np.random.default_rng(int(hashlib.sha256(picture.tobytes()).hexdigest()[:8], 16))
        scales = look_scales(frame.width, frame.height, self.canvas)
        looks = [self._looks(frame, scale, random) for scale in scales]
        answers = [self._detect(each) for each in looks]
        boxes, class_ids, weight = (
            (*labels, np.ones(len(labels[0]))) if labels is not None else self._objects(scales, looks, answers)
        )
        found = [
            self._found(boxes, class_ids, seen, answer, scale)
            for seen, answer, scale in zip(looks, answers, scales, strict=True)
        ]
        return LookedPicture(
            stored(picture),
            (frame.width, frame.height),
            np.array(scales),
            boxes,
            class_ids,
            weight,
            np.stack(found, axis=1),
        )

    def _looks(self, frame: Frame, scale: float, random: np.random.Generator) -> list[Look]:
        """Canvases that show the picture at one magnification: anywhere on one, or cut into tiles that overlap."""
        spare = [side - length * scale for side, length in zip(self.canvas, (frame.width, frame.height), strict=True)]
        if min(spare) >= -1:
            places = random.uniform(0, 1, (SMALL_LOOKS, 2)) * np.maximum(spare, 0)
            return [look_at(frame, scale, (-x, -y), self.canvas) for x, y in places.tolist()]
        axes = [
            np.linspace(0, -left, math.ceil(-left / (side * (1 - TILE_OVERLAP))) + 1).tolist()
            if left < 0
            else [-left / 2]
            for left, side in zip(spare, self.canvas, strict=True)
        ]
        return [look_at(frame, scale, (x, y), self.canvas) for y in axes[1] for x in axes[0]]

    def _detect(self, looks: Sequence[Look]) -> list[DetectedBoxes]:
        """What each look reports, each object once, boxes in pixels of the picture; what a border cuts is left out."""
        found: list[DetectedBoxes] = []
        step = max(1, int(getattr(self.detector, "batch_size", 1)))
        for start in range(0, len(looks), step):
            batch = looks[start : start + step]
            answers = checked_images(self.detector, self.label, [look.image for look in batch], self.threshold)
            for look, answer in zip(batch, answers, strict=True):
                once = each_once(answer, self.calibration)
                boxes = look.to_picture(once.boxes)
                whole = look.shows_whole(boxes) & (areas(boxes) > 0)
                found.append(DetectedBoxes(boxes[whole], once.scores[whole], once.class_ids[whole]))
        self.images += len(looks)
        return found

    def _found(
        self,
        boxes: Boxes,
        class_ids: npt.NDArray[np.intp],
        looks: Sequence[Look],
        answers: Sequence[DetectedBoxes],
        scale: float,
    ) -> Array:
        """`(n,)` share of the looks that show each object whole which found it."""
        shown, hits = np.zeros(len(boxes)), np.zeros(len(boxes))
        for look, answer in zip(looks, answers, strict=True):
            whole = look.shows_whole(boxes)
            shown += whole
            hits += whole & are_found(boxes, class_ids, answer)
        return hits / np.maximum(shown, 1)

    def _objects(
        self, scales: Sequence[float], looks: Sequence[Sequence[Look]], answers: Sequence[Sequence[DetectedBoxes]]
    ) -> tuple[Boxes, npt.NDArray[np.intp], Array]:
        """What the detector finds at all magnifications, each object once, with the probability that it is there."""
        parts = [(level, answer) for level, each in enumerate(answers) for answer in each]
        boxes = np.concatenate([np.empty((0, 4)), *(answer.boxes for _, answer in parts)])
        scores = np.concatenate([np.empty(0), *(answer.scores.astype(np.float64) for _, answer in parts)])
        class_ids = np.concatenate([np.empty(0, np.intp), *(answer.class_ids for _, answer in parts)])
        level = np.concatenate([np.empty(0, np.intp), *(np.full(len(a.boxes), n, np.intp) for n, a in parts)])
        sides = np.sqrt(areas(boxes)) * np.array(scales)[level]
        believed = self.calibration.probability_true(scores, sides)
        seeds = non_maximum_suppression(boxes, believed, FOUND_IOU)
        same = (iou(boxes[seeds], boxes) >= FOUND_IOU) & (class_ids[seeds][:, None] == class_ids[None])
        levels = np.array([len(set(level[row].tolist())) for row in same], np.intp)
        weight = believed[seeds] * np.where(levels >= 2, 1.0, UNCONFIRMED)
        return boxes[seeds], class_ids[seeds], weight


def are_found(boxes: Boxes, class_ids: npt.NDArray[np.intp], detected: DetectedBoxes) -> npt.NDArray[np.bool_]:
    """`(n,)` bool, whether a detection of its class overlaps each object by `FOUND_IOU`; boxes in the same pixels."""
    same = (iou(boxes, detected.boxes) >= FOUND_IOU) & (class_ids[:, None] == detected.class_ids[None])
    return np.asarray(same.any(axis=1))


def look_scales(width: int, height: int, canvas: tuple[int, int]) -> list[float]:
    """Magnifications at which a picture is looked at, in detector pixels for one of its own, rising."""
    longest = max(width, height)
    smallest = min(SMALLEST_SHOWN_PX, *canvas) / longest
    whole = min(canvas) / longest
    largest = max(whole, min(MAX_SCALE, MAX_ZOOM * whole))
    steps = max(1, math.ceil(math.log(largest / smallest, SCALE_STEP)))
    return [float(each) for each in np.geomspace(smallest, largest, steps + 1)]


def stored(picture: Image) -> Image:
    """A picture as it is kept: no longer than `STORED_SIDE_PX`."""
    height, width = picture.shape[:2]
    share = STORED_SIDE_PX / max(width, height)
    if share >= 1:
        return picture
    size = max(1, round(width * share)), max(1, round(height * share))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


class LookCache:
    """Records of pictures on disk, by content: what was looked at is not looked at again, also after a kill."""

    def __init__(self, directory: Path, facts: Sequence[object], max_bytes: int) -> None:
        """Use a directory.

        Args:
            directory: Where the records lie; made if there is none.
            facts: What a record depends on besides the picture and its labels, such as the detector.
            max_bytes: The oldest records are removed until all together have no more.
        """
        self.directory, self._facts, self._max_bytes = directory, json.dumps([VERSION, *facts]), max_bytes
        self._pruning = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)

    def look(
        self,
        teacher: Teacher,
        picture: Image,
        labels: tuple[Boxes, npt.NDArray[np.intp]] | None = None,
    ) -> LookedPicture:
        """The record of a picture; the teacher looks at it where there is none."""
        path = self.directory / f"{self._key(picture, labels)}.npz"
        kept = read_record(path) if path.is_file() else None
        if kept is not None:
            os.utime(path)
            return kept
        record = teacher.look(picture, labels)
        write_record(path, record)
        with self._pruning:
            self._prune(keep=path)
        # As it will be read again: what was killed and resumed sees the same pixels.
        again = read_record(path)
        assert again is not None
        return again

    def _key(self, picture: Image, labels: tuple[Boxes, npt.NDArray[np.intp]] | None) -> str:
        digest = hashlib.sha256(self._facts.encode())
        digest.update(str(picture.shape).encode() + picture.tobytes())
        for array in labels or ():
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:32]

    def _prune(self, keep: Path) -> None:
        records = sorted(self.directory.glob("*.npz"), key=lambda path: path.stat().st_mtime)
        total = sum(path.stat().st_size for path in records)
        for path in records:
            if total <= self._max_bytes or path == keep:
                continue
            total -= path.stat().st_size
            path.unlink(missing_ok=True)


def write_record(path: Path, record: LookedPicture) -> None:
    """Write a record; a kill leaves either all of it or nothing."""
    encoded = cv2.imencode(".jpg", record.picture, [cv2.IMWRITE_JPEG_QUALITY, STORED_QUALITY])[1]
    content = io.BytesIO()
    np.savez(
        content,
        picture=encoded,
        size=np.array(record.size),
        scales=record.scales,
        boxes=record.boxes,
        class_ids=record.class_ids,
        weight=record.weight,
        found=record.found,
    )
    write_atomically(path, content.getvalue())


def read_record(path: Path) -> LookedPicture | None:
    """Read a record; None where it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as values:
            picture = cv2.imdecode(values["picture"], cv2.IMREAD_COLOR)
            if picture is None:
                raise ValueError("its picture cannot be decoded")
            width, height = values["size"].tolist()
            arrays = [values[name] for name in ("scales", "boxes", "class_ids", "weight", "found")]
            return LookedPicture(np.asarray(picture, np.uint8), (width, height), *arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s: is damaged and is made anew: %s", path, error)
        return None
