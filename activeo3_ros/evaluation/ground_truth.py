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

"""Ground truth as COCO annotations: checked entry by entry and normalised before any frame is processed.

After `read_coco` every id is a whole number, every name is text without spaces around it, every area is known. What
cannot be normalised without a guess is refused, and the message names the entry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..codecs.rle import decode_rle
from ..core import InvalidInput

Entry = Mapping[str, Any]

OWN_ID = "own_id"
"""Key under which an entry keeps its id as the file has it."""
WHOLE_NUMBER = re.compile(r"0|[1-9]\d{0,14}")
SLACK_PX = 1.5
"""Boxes may reach beyond the picture by so much: rounding."""


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InvalidInput: It does not exist, or cannot be read as JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InvalidInput(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(f"{path}: cannot be read as JSON: {error}") from error


def read_coco(path: Path) -> dict[str, Any]:
    """Read and check a file of COCO annotations.

    Ids may be whole numbers or texts: numbers stay, also where they are written as texts, and anything else is numbered
    in the order of the file; each entry keeps the id of the file under `OWN_ID`. Annotations are numbered anew.

    Args:
        path: The JSON file.

    Returns:
        Its images, annotations and categories. `area` is that of the box where it is missing or 0, `iscrowd` 0 where
        it is missing; `width` and `height` of an image are absent where they are unknown.

    Raises:
        InvalidInput: The file cannot be read, or an entry is wrong; names the file and the entry.
    """
    data = read_json(path)
    if not isinstance(data, dict):
        raise InvalidInput(f"{path}: COCO annotations are an object, got {type(data).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(data.get(key), list):
            raise InvalidInput(f"{path}: has no list {key!r}; COCO annotations need images, annotations and categories")
        if not data[key] and key != "annotations":
            raise InvalidInput(f"{path}: its list {key!r} is empty, so there is nothing to judge by")
    image_ids, category_ids = _ids(path, "image", data["images"]), _ids(path, "category", data["categories"])
    annotations = [
        _annotation(path, place, row, image_ids, category_ids) for place, row in enumerate(data["annotations"], start=1)
    ]
    boxes = np.array([row["bbox"] for row in annotations], float).reshape(-1, 4)
    if boxes.any() and (boxes[:, :2] + boxes[:, 2:]).max() <= 1:
        raise InvalidInput(f"{path}: its boxes are shares of the picture, 0 to 1; COCO's are in pixels")
    return {
        "images": [_image(path, row, image_ids) for row in data["images"]],
        "annotations": annotations,
        "categories": [_category(path, row, category_ids) for row in data["categories"]],
    }


def label_key(label: str) -> str:
    """A label or a name in the form that is compared: case, underscores and extra spaces do not count."""
    return " ".join(label.replace("_", " ").split()).casefold()


def label_ids(truth: Mapping[str, Any], renamed: Sequence[tuple[str, str]] = ()) -> dict[str, int]:
    """Map labels to categories.

    Args:
        truth: COCO annotations.
        renamed: Further labels, each with the name of the category that it counts as.

    Returns:
        Id of the category of each label, by its `label_key`: of the categories' own names, and of the renamed labels.

    Raises:
        InvalidInput: Two categories have one name, or a label is to count as several categories or as one that does
            not exist.
    """
    found: dict[str, Entry] = {}
    for row in truth["categories"]:
        other = found.setdefault(label_key(row["name"]), row)
        if other is not row:
            raise InvalidInput(
                f"the categories {_own_id(other)} {other['name']!r} and {_own_id(row)} {row['name']!r} have one name: "
                "case, underscores and spaces do not count; make them one category"
            )
    by_name = {key: int(row["id"]) for key, row in found.items()}
    counted: dict[str, int] = {}
    for label, name in renamed:
        if label_key(name) not in by_name:
            names = ", ".join(str(row["name"]) for row in truth["categories"])
            raise InvalidInput(f"there is no category {name!r} to count {label!r} as; there are {names}")
        category = by_name[label_key(name)]
        if counted.setdefault(label_key(label), category) != category:
            raise InvalidInput(f"{label!r} is to count as two categories, one of them {name!r}; choose one")
    return {**by_name, **counted}


def check_size(path: Path, image: Entry, size: tuple[int, int]) -> None:
    """Check that a picture has the size that the annotations say, or the sides swapped by its EXIF orientation.

    Args:
        path: File of the annotations, for messages.
        image: Entry of the image.
        size: Width and height of the upright picture, pixels.

    Raises:
        InvalidInput: It has another size.
    """
    stated = _stated_size(image)
    if stated not in (None, size, size[::-1]):
        raise InvalidInput(
            f"{_named(path, image)} is {stated[0]} x {stated[1]} pixels in the annotations, but the picture has "
            f"{size[0]} x {size[1]}, so boxes would not fit; give the pictures that were annotated, or scale the "
            "annotations"
        )


def check_boxes(path: Path, image: Entry, size: tuple[int, int], annotations: Sequence[Entry]) -> None:
    """Check that boxes are in the pixels of their upright picture.

    Args:
        path: File of the annotations, for messages.
        image: Entry of the image.
        size: Width and height of the upright picture, pixels.
        annotations: Those of the image.

    Raises:
        InvalidInput: A box lies outside the picture, or is of the picture before its EXIF orientation.
    """
    stated = _stated_size(image)
    for row in annotations:
        where = f"{_named(path, image)}: the box {row['bbox']} of annotation {_own_id(row)}"
        if stated not in (None, size) and reaches_outside(size, row) and not reaches_outside(stated, row):
            raise InvalidInput(
                f"{where} is of the picture as it is stored, {stated[0]} x {stated[1]}; boxes must be of the upright "
                f"picture, {size[0]} x {size[1]}"
            )
        if lies_outside(size, row):
            raise InvalidInput(
                f"{where} lies outside the picture, {size[0]} x {size[1]} pixels; "
                "a box is x, y, width, height in pixels"
            )


def lies_outside(size: tuple[int, int], annotation: Entry) -> bool:
    """Whether no part of a box lies in a picture of this width and height."""
    x, y, width, height = annotation["bbox"]
    return bool(x >= size[0] or y >= size[1] or x + width < 0 or y + height < 0)


def reaches_outside(size: tuple[int, int], annotation: Entry) -> bool:
    """Whether a box reaches beyond a picture of this width and height by more than rounding."""
    x, y, width, height = annotation["bbox"]
    return bool(min(x, y) < -SLACK_PX or x + width > size[0] + SLACK_PX or y + height > size[1] + SLACK_PX)


def check_masks(path: Path, truth: Mapping[str, Any]) -> dict[str, Any]:
    """Check the masks of all annotations that are scored.

    Args:
        path: File of the annotations, for messages.
        truth: As `read_coco` gives it.

    Returns:
        The annotations with every polygon in a list of polygons.

    Raises:
        InvalidInput: A segmentation is malformed, or no annotation has one; names the entry.
    """
    images = {row["id"]: row for row in truth["images"]}
    annotations = [
        row if row["iscrowd"] or not row.get("segmentation") else _with_mask(path, row, images[row["image_id"]])
        for row in truth["annotations"]
    ]
    if not any(row.get("segmentation") and not row["iscrowd"] for row in annotations):
        raise InvalidInput(f"{path}: no annotation has a 'segmentation', so masks cannot be scored; leave out --masks")
    return {**truth, "annotations": annotations}


def _stated_size(image: Entry) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (int(width), int(height)) if width and height else None


def _named(path: Path, image: Entry) -> str:
    name = f" ({image['file_name']})" if image.get("file_name") else ""
    return f"{path}: image {_own_id(image)}{name}"


def _own_id(row: Entry) -> Any:
    return row.get(OWN_ID, row.get("id"))


def _ids(path: Path, kind: str, rows: Sequence[Any]) -> dict[str, int]:
    """The new id of each entry by its id as text: the same if all are whole numbers, else the place in the list."""
    keys: list[str] = []
    for place, row in enumerate(rows, start=1):
        where = f"{path}: {kind} number {place} of the list"
        if not isinstance(row, Mapping):
            raise InvalidInput(f"{where} must be an object, got {row!r}")
        if "id" not in row:
            raise InvalidInput(f"{where} has no id")
        keys.append(_key(where, "id", row["id"]))
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise InvalidInput(f"{path}: two entries have the same {kind} id {key}")
        seen.add(key)
    if all(map(WHOLE_NUMBER.fullmatch, keys)):
        return {key: int(key) for key in keys}
    return {key: place for place, key in enumerate(keys, start=1)}


def _key(where: str, name: str, value: Any) -> str:
    """An id as text; 7, 7.0 and "7" are the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip():
        raise InvalidInput(f"{where}: its {name} must be a whole number or a text, got {value!r}")
    return str(value).strip()


def _image(path: Path, row: Entry, ids: Mapping[str, int]) -> dict[str, Any]:
    where = f"{path}: image {row['id']}"
    image = {**row, "id": ids[_key(where, "id", row["id"])], OWN_ID: row["id"]}
    for side in ("width", "height"):
        if image.get(side) in (None, 0, "", "0"):
            image.pop(side, None)
            continue
        value = _number(where, side, image[side])
        if value <= 0 or not value.is_integer():
            raise InvalidInput(f"{where}: its {side} must be a number of pixels, got {image[side]!r}")
        image[side] = int(value)
    if image.get("file_name") is not None:
        image["file_name"] = _key(where, "file_name", image["file_name"])
    return image


def _category(path: Path, row: Entry, ids: Mapping[str, int]) -> dict[str, Any]:
    where = f"{path}: category {row['id']}"
    if not str(row.get("name") or "").strip() and row.get("name") != 0:
        raise InvalidInput(f"{where} has no name")
    name = " ".join(_key(where, "name", row["name"]).split())
    return {**row, "id": ids[_key(where, "id", row["id"])], OWN_ID: row["id"], "name": name}


def _annotation(
    path: Path, place: int, row: Any, image_ids: Mapping[str, int], category_ids: Mapping[str, int]
) -> dict[str, Any]:
    where = f"{path}: annotation number {place} of the list"
    if not isinstance(row, Mapping):
        raise InvalidInput(f"{where} must be an object, got {row!r}")
    own_id = row.get("id", f"number {place} of the list")
    where = f"{path}: annotation {own_id}"
    for key in ("image_id", "category_id", "bbox"):
        if row.get(key) is None:
            raise InvalidInput(f"{where} has no {key!r}, which COCO annotations need")
    image, category = (_key(where, key, row[key]) for key in ("image_id", "category_id"))
    if image not in image_ids:
        raise InvalidInput(f"{where} is of the image {row['image_id']!r}, which does not exist")
    if category not in category_ids:
        raise InvalidInput(f"{where} has the category {row['category_id']!r}, which does not exist")
    box = [_number(where, "bbox", value) for value in row["bbox"]] if isinstance(row["bbox"], list) else []
    if len(box) != 4 or box[2] < 0 or box[3] < 0:
        raise InvalidInput(f"{where} has the box {row['bbox']}; a box is x, y, width, height in pixels")
    area = 0.0 if row.get("area") is None else _number(where, "area", row["area"])
    if area < 0:
        raise InvalidInput(f"{where} has the area {row['area']}; it is 0 or more square pixels")
    if row.get("distance_m") is None:
        row = {key: value for key, value in row.items() if key != "distance_m"}
    elif _number(where, "distance_m", row["distance_m"]) < 0:
        raise InvalidInput(f"{where} has the distance_m {row['distance_m']}; it is 0 or more metres")
    crowd = _number(where, "iscrowd", row.get("iscrowd") or 0)
    if crowd not in (0, 1):
        raise InvalidInput(f"{where}: its iscrowd must be 0 or 1, got {row['iscrowd']!r}")
    return {
        **row,
        "id": place,  # 0 is no id for the scores
        OWN_ID: own_id,
        "image_id": image_ids[image],
        "category_id": category_ids[category],
        "bbox": box,
        "area": area or box[2] * box[3],  # some tools write 0, and every object would be tiny
        "iscrowd": int(crowd),
    }


def _number(where: str, name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = np.nan
    if not np.isfinite(number):
        raise InvalidInput(f"{where}: its {name} needs finite numbers, got {value!r}")
    return number


def _with_mask(path: Path, row: Entry, image: Entry) -> dict[str, Any]:
    where, shape = f"{path}: annotation {_own_id(row)}", row["segmentation"]
    if isinstance(shape, Mapping):
        _check_run_lengths(where, shape, image)
        return dict(row)
    if not isinstance(shape, list):
        raise InvalidInput(f"{where}: its segmentation must be polygons or run lengths, got {shape!r:.60}")
    parts = shape if isinstance(shape[0], list) else [shape]
    for part in parts:
        numbers = [_number(where, "segmentation", value) for value in part] if isinstance(part, list) else []
        if len(numbers) == 4:
            raise InvalidInput(f"{where}: four numbers under 'segmentation', {part}, are a box and no polygon")
        if len(numbers) < 6 or len(numbers) % 2:
            raise InvalidInput(
                f"{where}: a polygon under 'segmentation' needs at least 6 numbers, x and y in turn, got {part!r:.60}"
            )
    points = np.array([float(value) for part in parts for value in part]).reshape(-1, 2)
    x, y, width, height = row["bbox"]
    low, high = points.min(axis=0), points.max(axis=0)
    if (low > [x + width + SLACK_PX, y + height + SLACK_PX]).any() or (high < [x - SLACK_PX, y - SLACK_PX]).any():
        raise InvalidInput(f"{where}: its polygon lies outside its own box {row['bbox']}; both are in pixels")
    return {**row, "segmentation": [[float(value) for value in part] for part in parts]}


def _check_run_lengths(where: str, shape: Entry, image: Entry) -> None:
    size, counts = shape.get("size"), shape.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        raise InvalidInput(f"{where}: the size of its run lengths must be height, width in pixels, got {size!r}")
    height, width = size
    stated = image.get("height", height), image.get("width", width)
    if (height, width) != stated:
        raise InvalidInput(
            f"{where}: its run lengths are of {height} x {width} pixels (height, width), the image has "
            f"{stated[0]} x {stated[1]}"
        )
    if isinstance(counts, str):
        try:
            decode_rle(counts.encode("latin-1"), height, width)
        except (ValueError, UnicodeEncodeError) as error:
            raise InvalidInput(f"{where}: its run lengths are damaged: {error}") from error
    elif not isinstance(counts, list) or not all(type(run) is int and run >= 0 for run in counts):
        raise InvalidInput(f"{where}: its run lengths must be whole numbers or COCO's text, got {counts!r:.60}")
    elif sum(counts) != height * width:
        raise InvalidInput(f"{where}: its run lengths cover {sum(counts)} of {height * width} pixels")
