"""Data sets: frames, a query for each, and the ground truth as COCO annotations."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..bags.messages import camera_of, frame_from_cdr
from ..bags.reading import Bag, DamagedMessage, Entry
from ..codecs.image_files import read_image
from ..core import Frame, InvalidInput, Query
from ..core.geometry import Boxes


@dataclass(frozen=True)
class Sample:
    """A frame and a query.

    Attributes:
        id: Its image in the ground truth, and the name of its file of results.
        name: For people.
        query: The query.
        load: Decodes the frame; raises InvalidInput if it cannot be read.
        choices: For multiple choice, the options, the right one first.
    """

    id: int
    name: str
    query: Query
    load: Callable[[], Frame]
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Samples with their ground truth.

    Attributes:
        name: Name of the data set.
        samples: Sorted by id.
        truth: COCO annotations (`images`, `annotations`, `categories`); every sample has an image of its id there.
        label_ids: Category of each label of a result, in lower case.
        facts: Origin and rules of the data set, for manifest and report.
        interactive: Whether methods are judged by interactive segmentation instead of detection.
    """

    name: str
    samples: Sequence[Sample]
    truth: Mapping[str, Any]
    label_ids: Mapping[str, int]
    facts: Mapping[str, Any] = field(default_factory=dict)
    interactive: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "samples", tuple(sorted(self.samples, key=lambda sample: sample.id)))

    @cached_property
    def annotations(self) -> dict[int, list[dict[str, Any]]]:
        """The annotations of each image that has some, by the id of the image."""
        found: dict[int, list[dict[str, Any]]] = {}
        for annotation in self.truth["annotations"]:
            found.setdefault(annotation["image_id"], []).append(annotation)
        return found

    def boxes(self, sample_id: int) -> Boxes:
        """`(n, 4)` true boxes `x, y, width, height` of a sample in source pixels, without crowds."""
        rows = [row["bbox"] for row in self.annotations.get(sample_id, []) if not row.get("iscrowd")]
        return np.array(rows, np.float64).reshape(-1, 4)


def read_coco(path: Path) -> dict[str, Any]:
    """Read and check a file of COCO annotations.

    Args:
        path: The JSON file.

    Returns:
        Its images, annotations and categories; `area` is set from the box and `iscrowd` to 0 where they are missing.

    Raises:
        InvalidInput: The file cannot be read, or an entry is wrong; names the file and the entry.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise InvalidInput(f"{path}: COCO annotations are an object, got {type(data).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            raise InvalidInput(f"{path}: has no list {key!r}; COCO annotations need images, annotations and categories")
    try:
        images = _unique(path, "image", [row["id"] for row in data["images"]])
        categories = _unique(path, "category", [row["id"] for row in data["categories"]])
        for row in data["categories"]:
            if not str(row["name"]).strip():
                raise InvalidInput(f"{path}: category {row['id']} has no name")
        annotations = []
        for number, row in enumerate(data["annotations"]):
            where = f"{path}: annotation {row.get('id', number)}"
            if row["image_id"] not in images:
                raise InvalidInput(f"{where} is of the image {row['image_id']}, which does not exist")
            if row["category_id"] not in categories:
                raise InvalidInput(f"{where} has the category {row['category_id']}, which does not exist")
            box = [float(value) for value in row["bbox"]]
            if len(box) != 4 or not np.isfinite(box).all() or box[2] < 0 or box[3] < 0:
                raise InvalidInput(f"{where} has the box {row['bbox']}; a box is x, y, width, height in pixels")
            annotations.append(
                {
                    **row,
                    "id": number + 1,
                    "bbox": box,
                    "area": float(row.get("area", box[2] * box[3])),
                    "iscrowd": int(row.get("iscrowd", 0)),
                }
            )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{path}: an entry is not as COCO has it: {type(error).__name__} {error}") from error
    return {"images": data["images"], "annotations": annotations, "categories": data["categories"]}


def coco_of_images(path: Path, images: Path, query: Query | None, renamed: Mapping[str, str]) -> Dataset:
    """Make a data set of the pictures that COCO annotations name by `file_name`.

    Args:
        path: File of the annotations.
        images: Directory of the pictures.
        query: Query of every sample; None asks for all categories.
        renamed: Category that a further label counts as.

    Returns:
        The data set.

    Raises:
        InvalidInput: The annotations are wrong, or a picture is missing.
    """
    truth = read_coco(path)
    asked = query or Query(classes=tuple(row["name"] for row in truth["categories"]))
    samples = []
    for row in truth["images"]:
        if not row.get("file_name"):
            raise InvalidInput(f"{path}: image {row['id']} has no file_name; annotations of a bag need --bag")
        file = images / row["file_name"]
        if not file.is_file():
            raise InvalidInput(f"{file} is missing, which {path} names")
        samples.append(Sample(int(row["id"]), row["file_name"], asked, image_loader(file)))
    facts = {"truth": path.name, "images": str(images.name), "query": asked.text or list(asked.classes)}
    return Dataset(path.stem, samples, truth, label_ids(truth, renamed), facts)


def coco_of_bag(
    path: Path, bag: Bag, topics: Sequence[str], query: Query | None, renamed: Mapping[str, str]
) -> tuple[Dataset, int]:
    """Make a data set of the frames of a bag that COCO annotations name by `stamp`.

    Args:
        path: File of the annotations. Its images have a `stamp` in nanoseconds and may have a `topic`.
        bag: The open bag; it stays open as long as the data set is used.
        topics: Topics with pictures.
        query: Query of every sample; None asks for all categories.
        renamed: Category that a further label counts as.

    Returns:
        The data set, and the number of annotated images that are not in the bag.

    Raises:
        InvalidInput: The annotations are wrong, or none of their stamps is in the bag.
    """
    truth = read_coco(path)
    asked = query or Query(classes=tuple(row["name"] for row in truth["categories"]))
    entries, _ = bag.index(topics)
    by_stamp: dict[tuple[str, int], Entry] = {(entry.topic, entry.stamp_ns): entry for entry in entries}
    samples, found = [], []
    for row in truth["images"]:
        try:
            stamp = int(row["stamp"])
        except (KeyError, TypeError, ValueError):
            raise InvalidInput(
                f"{path}: image {row['id']} has no stamp in nanoseconds, which frames of a bag need"
            ) from None
        for topic in topics if row.get("topic") is None else [row["topic"]]:
            entry = by_stamp.get((topic, stamp))
            if entry is not None:
                samples.append(Sample(int(row["id"]), f"{topic} {stamp}", asked, _bag_loader(bag, entry)))
                found.append(row["id"])
                break
    if not samples:
        raise InvalidInput(f"{path}: none of its {len(truth['images'])} stamps is in {bag.path} on {', '.join(topics)}")
    missing = len(truth["images"]) - len(found)
    kept = set(found)
    truth["images"] = [row for row in truth["images"] if row["id"] in kept]
    truth["annotations"] = [row for row in truth["annotations"] if row["image_id"] in kept]
    facts = {
        "truth": path.name,
        "bag": bag.path.name,
        "topics": list(topics),
        "query": asked.text or list(asked.classes),
    }
    return Dataset(path.stem, samples, truth, label_ids(truth, renamed), facts), missing


def label_ids(truth: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, int]:
    """Map labels to categories.

    Args:
        truth: COCO annotations.
        renamed: Name of the category that a further label counts as.

    Returns:
        Id of the category of each label, in lower case: of the categories' own names, and of the renamed labels.

    Raises:
        InvalidInput: A label is to count as a category that does not exist.
    """
    by_name = {str(row["name"]).lower(): int(row["id"]) for row in truth["categories"]}
    for label, name in renamed.items():
        if name.lower() not in by_name:
            raise InvalidInput(f"there is no category {name!r} to count {label!r} as; there are {', '.join(by_name)}")
    return {**by_name, **{label.lower(): by_name[name.lower()] for label, name in renamed.items()}}


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InvalidInput: It does not exist, or cannot be read as JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(f"{path}: cannot be read as JSON: {error}") from error


def _unique(path: Path, kind: str, ids: Sequence[int]) -> set[int]:
    if len(set(ids)) != len(ids):
        raise InvalidInput(f"{path}: two entries have the same {kind} id")
    return set(ids)


def image_loader(file: Path) -> Callable[[], Frame]:
    """Make the `load` of a sample that is a picture in a file."""
    return lambda: Frame(read_image(file))


def _bag_loader(bag: Bag, entry: Entry) -> Callable[[], Frame]:
    def load() -> Frame:
        try:
            return frame_from_cdr(bag.read(entry), bag.topics[entry.topic].type, camera_of(entry.topic))
        except DamagedMessage as error:
            raise InvalidInput(f"{bag.path}: {error}") from error

    return load
