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

"""Data sets: frames, a query for each, and the ground truth as COCO annotations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..bags.frames import BagFrames
from ..bags.reading import Bag, DamagedMessage, Entry
from ..codecs.image_files import image_size, read_image
from ..core import Frame, InvalidInput, Query
from ..core.geometry import Box, Boxes
from .ground_truth import OWN_ID, check_boxes, check_masks, check_size, label_ids, label_key, reaches_outside, read_coco


@dataclass(frozen=True)
class Sample:
    """A frame and a query.

    Attributes:
        id: Its image in the ground truth, and the name of its file of results.
        name: For people.
        query: The query.
        load: Decodes the frame; raises InvalidInput if it cannot be read.
        choices: For multiple choice, the options, the right one first.
        topic: Of a frame of a bag, its topic.
        stamp_ns: Of a frame of a bag, the stamp in its header, nanoseconds.
        distance_m: Of what a question is about, metres from the camera; NaN where there is no such object.
    """

    id: int
    name: str
    query: Query
    load: Callable[[], Frame]
    choices: tuple[str, ...] = ()
    topic: str = ""
    stamp_ns: int = 0
    distance_m: float = math.nan


@dataclass(frozen=True)
class Probe:
    """What one sample of a counterfactual data set is.

    Attributes:
        origin: Index of the sample that it is made from, among those that were taken.
        variant: One of `counterfactual.VARIANTS`.
        name: Name of the original, after which the letters of its options are ordered.
        category: For detection, of the object that is judged; 0 for a question.
        box: For detection, of that object, in pixels of this picture.
        swapped_option: For a question, the option that is right of what was swapped in; -1 where none is.
    """

    origin: int
    variant: str
    name: str
    category: int = 0
    box: Box | None = None
    swapped_option: int = -1


@dataclass(frozen=True)
class Dataset:
    """Samples with their ground truth.

    Attributes:
        name: Name of the data set.
        samples: Sorted by id.
        truth: COCO annotations (`images`, `annotations`, `categories`); every sample has an image of its id there.
        label_ids: Category of each label of a result, by its `label_key`.
        facts: Origin and rules of the data set, for manifest and report.
        interactive: Whether methods are judged by interactive segmentation instead of detection.
        notes: What a user should know of the truth before the scores are read.
        probes: Of a counterfactual data set, what each sample is, in their order.
    """

    name: str
    samples: Sequence[Sample]
    truth: Mapping[str, Any]
    label_ids: Mapping[str, int]
    facts: Mapping[str, Any] = field(default_factory=dict)
    interactive: bool = False
    notes: tuple[str, ...] = ()
    probes: tuple[Probe, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", tuple(sorted(self.samples, key=lambda sample: sample.id)))

    @cached_property
    def annotations(self) -> dict[int, list[dict[str, Any]]]:
        """The annotations of each image that has some, by the id of the image."""
        found: dict[int, list[dict[str, Any]]] = {}
        for annotation in self.truth["annotations"]:
            found.setdefault(annotation["image_id"], []).append(annotation)
        return found

    def category_of(self, label: str) -> int | None:
        """The category of a label of a result; None for a label that is no category."""
        return self.label_ids.get(label_key(label))

    def objects(self, sample_id: int) -> list[dict[str, Any]]:
        """The annotations of a sample without crowds."""
        return [row for row in self.annotations.get(sample_id, []) if not row.get("iscrowd")]

    def boxes(self, sample_id: int) -> Boxes:
        """`(n, 4)` true boxes `x, y, width, height` of a sample in source pixels, without crowds."""
        return np.array([row["bbox"] for row in self.objects(sample_id)], np.float64).reshape(-1, 4)


def coco_of_images(path: Path, images: Path, query: Query | None, renamed: Sequence[tuple[str, str]] = ()) -> Dataset:
    """Make a data set of the pictures that COCO annotations name by `file_name`.

    Args:
        path: File of the annotations.
        images: Directory of the pictures.
        query: Query of every sample; None asks for all categories.
        renamed: Further labels, each with the category that it counts as.

    Returns:
        The data set.

    Raises:
        InvalidInput: The annotations are wrong, or a picture is missing or of another size than they say.
    """
    truth = read_coco(path)
    labels = label_ids(truth, renamed)
    asked = query or Query(classes=tuple(row["name"] for row in truth["categories"]))
    samples: list[Sample] = []
    owners: dict[Path, Any] = {}
    for row in truth["images"]:
        if not row.get("file_name"):
            raise InvalidInput(f"{path}: image {row[OWN_ID]} has no file_name; annotations of a bag need --bag")
        file = images / row["file_name"]
        if not file.is_file():
            raise InvalidInput(f"{file} is missing, which {path} names")
        if owners.setdefault(file, row[OWN_ID]) != row[OWN_ID]:
            raise InvalidInput(
                f"{path}: the images {owners[file]} and {row[OWN_ID]} are one file, {row['file_name']}; each would "
                "count the other's objects as false"
            )
        samples.append(Sample(row["id"], row["file_name"], asked, image_loader(file)))
    facts = {"truth": path.name, "images": str(images.name), "query": asked.text or list(asked.classes)}
    dataset = with_checked_sizes(Dataset(path.stem, samples, truth, labels, facts), path, list(owners))
    for stated, row in zip(truth["images"], dataset.truth["images"], strict=True):
        if row.get("width") and row.get("height"):
            check_boxes(path, stated, (row["width"], row["height"]), dataset.annotations.get(row["id"], []))
    return dataset


def with_checked_sizes(dataset: Dataset, path: Path, files: Sequence[Path]) -> Dataset:
    """Compare the sizes of the pictures with those in the truth; decodes none.

    Args:
        dataset: The data set.
        path: File of its annotations, for messages.
        files: The picture of each image of the truth, in that order.

    Returns:
        The data set with the size of every picture that can be read in its truth, and with notes.

    Raises:
        InvalidInput: A picture has another size.
    """
    images, outside = [], []
    for row, file in zip(dataset.truth["images"], files, strict=True):
        size = image_size(file)
        if size is None:  # its frame will fail, and say why
            images.append(row)
            continue
        annotations = dataset.annotations.get(row["id"], [])
        check_size(path, row, size)
        outside += [each for each in annotations if reaches_outside(size, each)]
        images.append({**row, "width": size[0], "height": size[1]})
    notes = list(dataset.notes)
    if outside:
        first = outside[0]
        notes.append(
            f"{len(outside)} of {len(dataset.truth['annotations'])} boxes reach beyond their picture, such as "
            f"{first['bbox']} of annotation {first.get(OWN_ID, first['id'])}; a box is x, y, width, height in pixels"
        )
    return replace(dataset, truth={**dataset.truth, "images": images}, notes=(*notes, *_notes_on(dataset)))


def with_masks(dataset: Dataset, path: Path) -> Dataset:
    """Ask for masks, and check those of the truth.

    Args:
        dataset: A data set of COCO annotations.
        path: Their file, for messages.

    Returns:
        The data set whose queries ask for masks.

    Raises:
        InvalidInput: A segmentation is malformed, or there is none.
    """
    samples = [replace(sample, query=replace(sample.query, masks=True)) for sample in dataset.samples]
    truth = check_masks(path, dataset.truth)
    return replace(dataset, samples=samples, truth=truth, facts={**dataset.facts, "masks": True})


def coco_of_bag(
    path: Path, bag: Bag, topics: Sequence[str], query: Query | None, renamed: Sequence[tuple[str, str]] = ()
) -> tuple[Dataset, int]:
    """Make a data set of the frames of a bag that COCO annotations name by `stamp`.

    Args:
        path: File of the annotations. Its images have a `stamp` in nanoseconds and may have a `topic`.
        bag: The open bag; it stays open as long as the data set is used.
        topics: Topics with pictures.
        query: Query of every sample; None asks for all categories.
        renamed: Further labels, each with the category that it counts as.

    Returns:
        The data set, and the number of annotated images that are not in the bag.

    Raises:
        InvalidInput: The annotations are wrong, none of their stamps is in the bag, one of them is that of several
            frames, or the first frame of a topic has another size than they say.
    """
    truth = read_coco(path)
    labels = label_ids(truth, renamed)
    asked = query or Query(classes=tuple(row["name"] for row in truth["categories"]))
    entries, _ = bag.index(topics)
    by_stamp: dict[tuple[str, int], list[Entry]] = {}
    for each in entries:
        by_stamp.setdefault((each.topic, each.stamp_ns), []).append(each)
    found: dict[Entry, dict[str, Any]] = {}
    for row in truth["images"]:
        stamp = stamp_of(path, row)
        named = topics if row.get("topic") is None else [row["topic"]]
        entry = _only_frame(path, row, bag, [each for topic in named for each in by_stamp.get((topic, stamp), [])])
        if entry is not None and found.setdefault(entry, row) is not row:
            raise InvalidInput(
                f"{path}: the images {found[entry][OWN_ID]} and {row[OWN_ID]} are one frame, {stamp} on {entry.topic}; "
                "each would count the other's objects as false"
            )
    if not found:
        raise InvalidInput(f"{path}: none of its {len(truth['images'])} stamps is in {bag.path} on {', '.join(topics)}")
    missing = len(truth["images"]) - len(found)
    kept = {row["id"] for row in found.values()}
    truth["images"] = [row for row in truth["images"] if row["id"] in kept]
    truth["annotations"] = [row for row in truth["annotations"] if row["image_id"] in kept]
    facts = {
        "truth": path.name,
        "bag": bag.path.name,
        "topics": list(topics),
        "query": asked.text or list(asked.classes),
    }
    dataset = Dataset(path.stem, (), truth, labels, facts)
    samples, seen, frames = [], set[str](), BagFrames(bag)
    for entry, row in found.items():
        load = _bag_loader(bag, frames, entry, path, row, dataset.annotations.get(row["id"], []))
        name = f"{entry.topic} {entry.stamp_ns}"
        samples.append(Sample(row["id"], name, asked, load, topic=entry.topic, stamp_ns=entry.stamp_ns))
        if entry.topic not in seen:
            seen.add(entry.topic)
            _check_first(load)
    return replace(dataset, samples=samples, notes=tuple(_notes_on(replace(dataset, samples=samples)))), missing


def stamp_of(path: Path, image: Mapping[str, Any]) -> int:
    """The stamp in nanoseconds of an image of the truth.

    Args:
        path: File of the annotations, for messages.
        image: Entry of the image.

    Raises:
        InvalidInput: It has none, or one that is no whole number.
    """
    if isinstance(image.get("stamp"), float):
        raise InvalidInput(
            f"{path}: image {image[OWN_ID]} has the stamp {image['stamp']!r}; write nanoseconds as a whole number, for "
            "one with a point or an exponent loses its last digits"
        )
    try:
        return int(image["stamp"])
    except (KeyError, TypeError, ValueError):
        raise InvalidInput(
            f"{path}: image {image[OWN_ID]} has no stamp in nanoseconds, which frames of a bag need"
        ) from None


def _only_frame(path: Path, image: Mapping[str, Any], bag: Bag, frames: Sequence[Entry]) -> Entry | None:
    """The frame that an image of the truth means; None where there is none. The same message twice is one frame.

    Raises:
        InvalidInput: Several frames have its stamp.
    """
    if len(frames) < 2:
        return frames[0] if frames else None
    topics = sorted({frame.topic for frame in frames})
    where = f"{path}: image {image[OWN_ID]}: {len(frames)} frames of {bag.path} have the stamp {image['stamp']}"
    if len(topics) > 1:
        raise InvalidInput(f"{where}, on {', '.join(topics)}; give the image a topic, or choose one with --topic")
    if len({_bytes_or_place(bag, frame) for frame in frames}) > 1:
        raise InvalidInput(f"{where} on {topics[0]}; which of them is meant cannot be known, so leave this image out")
    return frames[0]


def _bytes_or_place(bag: Bag, frame: Entry) -> object:
    """What tells a frame from others of its stamp: its bytes, or its place where those are damaged."""
    try:
        return bag.read(frame)
    except DamagedMessage:
        return frame.file, frame.place


def _check_first(load: Callable[[], Frame]) -> None:
    """Raise before the run what every frame of a topic would fail with; a damaged frame fails alone."""
    try:
        load()
    except _UnreadableFrame:
        pass


class _UnreadableFrame(InvalidInput):
    """A frame of a bag cannot be decoded."""


def _notes_on(dataset: Dataset) -> list[str]:
    """Notes on a truth without objects, and on the categories with objects that no query asks for."""
    has = {row["category_id"] for row in dataset.truth["annotations"] if not row.get("iscrowd")}
    if not has:
        return ["no object is annotated, so nothing but false detections can be found"]
    if not dataset.samples or any(not sample.query.classes for sample in dataset.samples):
        return []
    asked = {dataset.category_of(name) for sample in dataset.samples for name in sample.query.classes}
    names = [row["name"] for row in dataset.truth["categories"] if row["id"] in has - asked]
    return [f"not asked for, so every object of it counts as missed: {', '.join(names)}"] if names else []


def image_loader(file: Path) -> Callable[[], Frame]:
    """Make the `load` of a sample that is a picture in a file."""
    return lambda: Frame(read_image(file))


def _bag_loader(
    bag: Bag,
    frames: BagFrames,
    entry: Entry,
    path: Path,
    image: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
) -> Callable[[], Frame]:
    def load() -> Frame:
        try:
            frame = frames.frame(entry)
        except (DamagedMessage, InvalidInput) as error:
            raise _UnreadableFrame(f"{bag.path}: {error}") from error
        check_size(path, image, (frame.width, frame.height))
        check_boxes(path, image, (frame.width, frame.height), annotations)
        return frame

    return load
