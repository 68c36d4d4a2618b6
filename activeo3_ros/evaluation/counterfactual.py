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

"""Counterfactual pictures: each sample again with what it is about blurred, recoloured or replaced.

A model that looks answers differently when what it was asked about is no longer there, and the same when something else
is blurred. One that answers from the words of the question, or from what is usual, does not notice. Besides, each
sample is asked with its true region alone, enlarged: the best crop that there can be.

Every picture is made when it is loaded and is the same for the same data set and seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np

from ..core import Box, Frame, InvalidInput
from ..core.frame import Image
from ..core.geometry import as_array, intersections
from .datasets import Dataset, Probe, Sample

AS_IT_IS, BLURRED, RECOLOURED, SWAPPED, ELSEWHERE, BEST_CROP = (
    "as it is",
    "blurred",
    "recoloured",
    "swapped",
    "blurred elsewhere",
    "best crop",
)
VARIANTS = (AS_IT_IS, BLURRED, RECOLOURED, SWAPPED, ELSEWHERE, BEST_CROP)
MARGIN = 0.5
"""Of the best crop around the true boxes, as a share of their longer side."""
PLACES_TRIED = 200
"""To find one for `ELSEWHERE`, and one without objects to swap in."""


def counterfactual(dataset: Dataset, seed: int) -> Dataset:
    """Make the counterfactual samples of a data set.

    A question is about all its true boxes. Of a sample for detection one object is judged, drawn with the seed; its
    region is swapped for an object of another category, or where there is but one, for a part of another picture
    without objects. A sample without a true box, or of a picture whose size is not known, is left out, and so is a
    variant that a sample cannot have.

    Args:
        dataset: With questions, or with objects to detect.
        seed: Of the draws.

    Returns:
        A data set with up to six samples for each, and `probes`, one a sample.

    Raises:
        InvalidInput: The data set is judged by interactive segmentation, or no sample has a true box.
    """
    if dataset.interactive:
        raise InvalidInput(f"{dataset.name} is judged by clicks: it has no answers that a changed picture could change")
    boxed = [sample for sample in dataset.samples if len(dataset.boxes(sample.id))]
    if not boxed:
        raise InvalidInput(f"{dataset.name} has no true box: nothing could be blurred or swapped")
    sizes = _sizes(dataset, boxed)
    taken = [sample for sample in boxed if sample.id in sizes]
    if not taken:
        raise InvalidInput(f"{dataset.name}: none of its {len(boxed)} pictures with true boxes can be read")
    targets = {sample.id: _targets(dataset, sample, seed) for sample in taken}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    samples: list[Sample] = []
    probes: list[Probe] = []
    for origin, sample in enumerate(taken):
        size = sizes[sample.id]
        for variant, change, probe in _changes(dataset, taken, targets, origin, sizes, seed):
            number = len(samples) + 1
            frame_box = change.keywords.get("window") if variant == BEST_CROP else None
            boxes = [_shifted(box, frame_box) for box, _ in targets[sample.id]]
            wide, high = (frame_box.width, frame_box.height) if frame_box else size
            images.append({"id": number, "width": int(wide), "height": int(high), "file_name": sample.name})
            for box, category in zip(boxes, [category for _, category in targets[sample.id]], strict=True):
                row = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": 0}
                annotations.append({**row, "bbox": list(box.as_tuple()), "area": box.area})
            if not sample.choices:
                probe = replace(probe, box=boxes[0], category=targets[sample.id][0][1])
            probes.append(probe)
            load = partial(_load, sample.load, change)
            samples.append(replace(sample, id=number, name=f"{sample.name} ({variant})", load=load))
    truth = {"images": images, "annotations": annotations, "categories": dataset.truth["categories"]}
    facts = {**dataset.facts, "counterfactual": ", ".join(VARIANTS), "counterfactual_seed": seed}
    left_out = len(dataset.samples) - len(taken)
    notes = [*dataset.notes]
    if left_out:
        notes.append(f"{left_out} samples without a true box or a readable picture are not judged")
    return replace(dataset, samples=samples, truth=truth, facts=facts, notes=tuple(notes), probes=tuple(probes))


def _sizes(dataset: Dataset, samples: Sequence[Sample]) -> dict[int, tuple[int, int]]:
    """Width and height of each picture, pixels, by the id of its sample; without those that cannot be read."""
    stated = {row["id"]: (row.get("width"), row.get("height")) for row in dataset.truth["images"]}
    sizes: dict[int, tuple[int, int]] = {}
    for sample in samples:
        wide, high = stated[sample.id]
        if wide and high:
            sizes[sample.id] = int(wide), int(high)
            continue
        with suppress(InvalidInput):
            frame = sample.load()
            sizes[sample.id] = frame.width, frame.height
    return sizes


Target = tuple[Box, int]
"""A true box in source pixels, and its category."""


def _targets(dataset: Dataset, sample: Sample, seed: int) -> list[Target]:
    """What is changed: all boxes of a question, one object for detection."""
    rows = [(Box(*row["bbox"]), int(row["category_id"])) for row in dataset.objects(sample.id)]
    return rows if sample.choices else [random.Random(f"{seed} {sample.name}").choice(rows)]


def _changes(
    dataset: Dataset,
    taken: Sequence[Sample],
    targets: dict[int, list[Target]],
    origin: int,
    sizes: Mapping[int, tuple[int, int]],
    seed: int,
) -> list[tuple[str, partial[Image], Probe]]:
    """The variants that a sample can have: their names, how their pictures are made, and their probes."""
    sample = taken[origin]
    size = sizes[sample.id]
    boxes = [box for box, _ in targets[sample.id]]
    probe = partial(Probe, origin, name=sample.name)
    changes: list[tuple[str, partial[Image], Probe]] = [
        (AS_IT_IS, partial(_unchanged), probe(variant=AS_IT_IS)),
        (BLURRED, partial(blurred, boxes=boxes), probe(variant=BLURRED)),
        (RECOLOURED, partial(recoloured, boxes=boxes), probe(variant=RECOLOURED)),
    ]
    other = _partner(dataset, taken, targets, origin, sizes, seed)
    if other is not None:
        donor, window, option = other
        change = partial(swapped, boxes=boxes, donor=donor, window=window)
        changes.append((SWAPPED, change, probe(variant=SWAPPED, swapped_option=option)))
    all_boxes = [Box(*row) for row in dataset.boxes(sample.id).tolist()]
    chance = random.Random(f"{seed} elsewhere {sample.name}")
    places = [_free_place(all_boxes, box.width, box.height, size, chance) for box in boxes]
    if all(places):
        change = partial(blurred, boxes=[place for place in places if place])
        changes.append((ELSEWHERE, change, probe(variant=ELSEWHERE)))
    changes.append((BEST_CROP, partial(cropped, window=_around(boxes, size)), probe(variant=BEST_CROP)))
    return changes


def _partner(
    dataset: Dataset,
    taken: Sequence[Sample],
    targets: dict[int, list[Target]],
    origin: int,
    sizes: Mapping[int, tuple[int, int]],
    seed: int,
) -> tuple[Callable[[], Frame], Box, int] | None:
    """The sample to swap in: its loader, the window of its picture, and the option that it makes right, or -1."""
    sample = taken[origin]
    chance = random.Random(f"{seed} swap {sample.name}")
    others = [each for each in taken if each.id != sample.id]
    chance.shuffle(others)
    if sample.choices:
        wrong = sample.choices[1:]
        others = [each for each in others if each.choices and each.choices[0] != sample.choices[0]]
        others.sort(key=lambda each: each.choices[0] not in wrong)  # stable: those whose answer is an option come first
        if not others:
            return None
        right = others[0].choices[0]
        return others[0].load, targets[others[0].id][0][0], sample.choices.index(right) if right in wrong else -1
    box, category = targets[sample.id][0]
    for each in others:
        found = next((own for own, kind in targets[each.id] if kind != category), None)
        if found is not None:
            return each.load, found, -1
    for each in others:
        known = [Box(*row) for row in dataset.boxes(each.id).tolist()]
        free = _free_place(known, box.width, box.height, sizes[each.id], chance)
        if free is not None:
            return each.load, free, -1
    return None


def _free_place(
    boxes: Sequence[Box], width: float, height: float, size: tuple[int, int], chance: random.Random
) -> Box | None:
    """A place of that size in a picture that touches none of the boxes; None if none was found."""
    if width > size[0] or height > size[1]:
        return None
    for _ in range(PLACES_TRIED):
        place = Box(chance.uniform(0, size[0] - width), chance.uniform(0, size[1] - height), width, height)
        if not intersections([place.as_tuple()], as_array(boxes)).any():
            return place
    return None


def _around(boxes: Sequence[Box], size: tuple[int, int]) -> Box:
    """The window of the best crop, in whole pixels of a picture of that size."""
    left, top = min(box.x for box in boxes), min(box.y for box in boxes)
    right, bottom = max(box.right for box in boxes), max(box.bottom for box in boxes)
    more = MARGIN * max(right - left, bottom - top)
    return Box(left - more, top - more, right - left + 2 * more, bottom - top + 2 * more).snapped(*size)


def _shifted(box: Box, window: Box | None) -> Box:
    return box if window is None else Box(box.x - window.x, box.y - window.y, box.width, box.height)


def _load(load: Callable[[], Frame], change: Callable[[Image], Image]) -> Frame:
    frame = load()
    return replace(frame, image=change(frame.image))


def _unchanged(image: Image) -> Image:
    return image


def cropped(image: Image, window: Box) -> Image:
    """The window alone."""
    return np.ascontiguousarray(image[window.slices()])


def blurred(image: Image, boxes: Sequence[Box]) -> Image:
    """The picture with each box blurred so far that it shows nothing but the colours around it.

    Args:
        image: `(h, w, 3)`.
        boxes: In its pixels.
    """
    result = image.copy()
    for box in boxes:
        inner = box.snapped(image.shape[1], image.shape[0])
        side = max(inner.width, inner.height)
        outer = Box(inner.x - side, inner.y - side, inner.width + 2 * side, inner.height + 2 * side)
        outer = outer.snapped(image.shape[1], image.shape[0])
        # At a few pixels a side a wide blur costs nothing.
        scale = min(1.0, 32 / side)
        small = cv2.resize(result[outer.slices()], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        smooth = cv2.GaussianBlur(small, (0, 0), side * scale, borderType=cv2.BORDER_REFLECT)
        whole = cv2.resize(smooth, (int(outer.width), int(outer.height)), interpolation=cv2.INTER_LINEAR)
        x, y = int(inner.x - outer.x), int(inner.y - outer.y)
        result[inner.slices()] = whole[y : y + int(inner.height), x : x + int(inner.width)]
    return result


def recoloured(image: Image, boxes: Sequence[Box]) -> Image:
    """The picture with the colours of each box inverted: every shape stays, white becomes black, red becomes cyan.

    Args:
        image: `(h, w, 3)`.
        boxes: In its pixels.
    """
    inside = np.zeros(image.shape[:2], bool)
    for box in boxes:
        inside[box.snapped(image.shape[1], image.shape[0]).slices()] = True  # once, also where two boxes overlap
    return np.where(inside[:, :, np.newaxis], 255 - image, image)


def swapped(image: Image, boxes: Sequence[Box], donor: Callable[[], Frame], window: Box) -> Image:
    """The picture with each box replaced by a window of another picture, resized.

    Args:
        image: `(h, w, 3)`.
        boxes: In its pixels.
        donor: Loads the other picture.
        window: In pixels of that.
    """
    other = donor()
    patch = other.image[window.snapped(other.width, other.height).slices()]
    result = image.copy()
    for box in boxes:
        place = box.snapped(image.shape[1], image.shape[0])
        size = int(place.width), int(place.height)
        result[place.slices()] = cv2.resize(patch, size, interpolation=cv2.INTER_AREA)
    return result
