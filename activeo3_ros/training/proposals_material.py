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

"""Pictures to train gain maps with: from folders, videos, bags or annotations, in the order of time or name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..bags.frames import BagFrames
from ..bags.offline import choose_topics
from ..bags.reading import Bag, DamagedMessage
from ..codecs.image_files import Picture, find_images, natural_order, read_image
from ..codecs.video import open_video
from ..core.errors import InvalidInput
from ..core.geometry import Boxes
from ..evaluation.datasets import Dataset, coco_of_images
from ..evaluation.ground_truth import label_key
from . import yolo_labels

FEWEST = 5
"""Pictures of a source."""
ALL: tuple[float, float] = (0.0, 1.0)

Labels = tuple[Boxes, npt.NDArray[np.intp]]
T = TypeVar("T")
Complain = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """Pictures in the order of time or name.

    Attributes:
        name: What they are, for people.
        available: How many there are, about.
        pictures: Reads at most so many of them, evenly chosen: name, picture and labels of each, labels None where
            there are none. Those that cannot be read are told to the function that it is given, and left out.
        classes: Names of the classes that are labelled; none where all objects may be found.
        is_recording: Whether they are frames of a camera, which sees no mosaics.
    """

    name: str
    available: int
    pictures: Callable[[Complain, int], Iterator[tuple[str, Picture, Labels | None]]]
    classes: tuple[str, ...] = ()
    is_recording: bool = False


def folder_source(paths: Sequence[str], part: tuple[float, float] = ALL) -> Source:
    """Pictures in directories, in the order of their names.

    Args:
        paths: Pictures, or directories of them.
        part: Where the pictures to use begin and end, as shares of all.

    Raises:
        InvalidInput: There are too few.
    """
    found, errors = find_images(paths)
    if errors:
        raise InvalidInput(errors[0])
    files = part_of(sorted(found, key=lambda path: (str(path.parent), natural_order(path))), part)
    name = f"pictures of {', '.join(paths)}"
    _check_enough(name, len(files))

    def read(complain: Complain, most: int) -> Iterator[tuple[str, Picture, None]]:
        for file in evenly(files, most):
            try:
                picture = read_image(file)
            except InvalidInput as error:
                complain(str(error))
                continue
            yield file.name, picture, None

    return Source(name, len(files), read)


def video_source(path: Path, part: tuple[float, float] = ALL) -> Source:
    """Frames of a video.

    Raises:
        InvalidInput: It cannot be read, does not say how long it is, or has too few.
    """
    with open_video(path) as video:
        total = video.count()
    if total is None:
        raise InvalidInput(f"{path}: does not say how long it is; write it anew, with its duration, or give --images")
    low, high = (round(share * total) for share in part)
    _check_enough(str(path), high - low)

    def read(complain: Complain, most: int) -> Iterator[tuple[str, Picture, None]]:
        every = max(1, -(-(high - low) // most))
        with open_video(path) as video:
            for number, frame in enumerate(video.frames()):
                if number >= high:
                    break
                if number >= low and (number - low) % every == 0:
                    yield f"{path.name} {frame.time_s:.2f} s", frame.image, None
            for problem in video.problems:
                complain(f"{path}: {problem}")

    return Source(path.name, high - low, read, is_recording=True)


def bag_source(path: Path, topic: str, part: tuple[float, float] = ALL) -> Source:
    """Frames of a topic of a bag.

    Raises:
        InvalidInput: It cannot be read, or has too few.
    """
    with Bag(path) as bag:
        entries, damage = bag.index([topic])
    used = part_of(entries, part)
    name = f"frames of {path.name}, {topic}"
    _check_enough(name, len(used))

    def read(complain: Complain, most: int) -> Iterator[tuple[str, Picture, None]]:
        if damage:
            complain(f"{path}: {damage.describe()}")
        chosen = evenly(used, most)
        with Bag(path) as bag:
            frames = BagFrames(bag)
            for number, entry in enumerate(chosen, start=1):
                try:
                    frame = frames.frame(entry)
                except (InvalidInput, DamagedMessage) as error:
                    complain(f"{path}: picture {number} of {len(chosen)} of {topic}: {error}")
                    continue
                yield f"{path.name} {number}", frame.image, None

    return Source(name, len(used), read, is_recording=True)


def bag_sources(path: Path, topics: Sequence[str], part: tuple[float, float] = ALL) -> list[Source]:
    """The wanted topics of a bag, a source each, or the only one with pictures.

    Raises:
        InvalidInput: As `bag_source`, or a topic is missing.
    """
    with Bag(path) as bag:
        chosen = choose_topics(bag, topics)
    return [bag_source(path, topic, part) for topic in chosen]


def labelled_source(annotations: Path, images: Path, names: Sequence[str], part: tuple[float, float] = ALL) -> Source:
    """Pictures with annotations: COCO, in the order of the file, or YOLO, in the order of their names.

    Args:
        annotations: The COCO file, or the .yaml of a YOLO data set.
        images: Directory of the pictures.
        names: The detector's classes; annotations of others do not count.
        part: Where the pictures to use begin and end, as shares of all.

    Raises:
        InvalidInput: The annotations are wrong, none of their classes is one of the detector's, or there are too few
            pictures.
    """
    if annotations.suffix.lower() in yolo_labels.SUFFIXES:
        return _yolo_source(annotations, images, names, part)
    dataset = coco_of_images(annotations, images, None)
    known = _known(annotations, {row["id"]: str(row["name"]) for row in dataset.truth["categories"]}, names)
    samples = part_of(dataset.samples, part)
    _check_enough(str(annotations), len(samples))

    def read(complain: Complain, most: int) -> Iterator[tuple[str, Picture, Labels]]:
        for sample in evenly(samples, most):
            try:
                picture = sample.load().image
            except InvalidInput as error:
                complain(str(error))
                continue
            yield str(sample.id), picture, _labels(dataset, sample.id, known)

    classes = tuple(names[index] for index in sorted(set(known.values())))
    return Source(f"pictures of {annotations.name}, labelled", len(samples), read, classes)


def _yolo_source(path: Path, images: Path, names: Sequence[str], part: tuple[float, float]) -> Source:
    """As `labelled_source`."""
    theirs = yolo_labels.read_names(path)
    known = _known(path, theirs, names)
    files = part_of(yolo_labels.pictures_with_labels(images), part)
    _check_enough(str(images), len(files))

    def read(complain: Complain, most: int) -> Iterator[tuple[str, Picture, Labels]]:
        for file, labels in evenly(files, most):
            try:
                picture = read_image(file)
                boxes, numbers = yolo_labels.read_labels(labels, theirs, (picture.shape[1], picture.shape[0]))
            except InvalidInput as error:
                complain(str(error))
                continue
            kept = np.isin(numbers, list(known)) & (boxes[:, 2:] > 0).all(axis=1)
            yield file.name, picture, (boxes[kept], np.array([known[n] for n in numbers[kept].tolist()], np.intp))

    classes = tuple(names[index] for index in sorted(set(known.values())))
    return Source(f"pictures of {images.name} by {path.name}, labelled", len(files), read, classes)


def _known(annotations: Path, theirs: dict[int, str], names: Sequence[str]) -> dict[int, int]:
    """The detector's class of each category that it has. Raises InvalidInput where that is none."""
    by_key = {label_key(name): index for index, name in enumerate(names)}
    known = {number: by_key[label_key(name)] for number, name in theirs.items() if label_key(name) in by_key}
    if not known:
        first = ", ".join(list(theirs.values())[:5])
        raise InvalidInput(f"{annotations}: labels {first}, none of which the detector finds; leave out --annotations")
    return known


def _labels(dataset: Dataset, sample_id: int, known: dict[int, int]) -> Labels:
    rows = [row for row in dataset.objects(sample_id) if row["category_id"] in known and not row["iscrowd"]]
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    class_ids = np.array([known[row["category_id"]] for row in rows], np.intp)
    kept = (boxes[:, 2:] > 0).all(axis=1)
    return boxes[kept], class_ids[kept]


def part_of(things: Sequence[T], part: tuple[float, float]) -> list[T]:
    """Those from one share of all to another."""
    return list(things[round(part[0] * len(things)) : round(part[1] * len(things))])


def evenly(things: Sequence[T], count: int) -> list[T]:
    """At most so many of some things, at equal distances, in their order."""
    if len(things) <= count:
        return list(things)
    return [things[index] for index in np.linspace(0, len(things) - 1, count).round().astype(int).tolist()]


def _check_enough(name: str, count: int) -> None:
    if count < FEWEST:
        raise InvalidInput(
            f"{name}: {count} picture{'' if count == 1 else 's'} {'is' if count == 1 else 'are'} too few to learn from "
            f"some and judge by others; give at least {FEWEST}"
        )
