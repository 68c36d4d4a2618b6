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

"""Builds training rows from published data sets, by the rules of the ACTIVE-o3 paper (arXiv 2505.21457).

They are COCO files, or folders of pictures and masks. A question is one picture and one class of it. An entry that
cannot be used is listed with its reason, never dropped silently.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..codecs.image_files import SUFFIXES, read_image
from ..core.errors import InvalidInput
from ..evaluation.subset_rules import IGNORED_NAMES, counted_instances, dense_instances, small_instances
from .rows import Row, check_row, write_rows

Select = Callable[[Mapping[str, Any], Mapping[str, Any], Sequence[Mapping[str, Any]]], Sequence[Mapping[str, Any]]]
"""Gives the annotations that fit a rule: from the entry of a picture, that of a class, and its annotations there."""


@dataclass(frozen=True)
class Recipe:
    """A rule that makes rows of a data set.

    Attributes:
        description: One line for people.
        rows: At most so many pictures are kept.
        select: Gives the annotations of a picture and a class that fit the rule.
        is_exhaustive: Whether a class without annotations in a picture is not in it. Else only what the entry of the
            picture names in `neg_category_ids`, as LVIS does.
    """

    description: str
    rows: int
    select: Select
    is_exhaustive: bool = True


def _everything(
    picture: Mapping[str, Any], category: Mapping[str, Any], members: Sequence[Mapping[str, Any]]
) -> Sequence[Mapping[str, Any]]:
    return members


RECIPES = {
    "coco": Recipe("any COCO file", 10_000_000, _everything),
    "lvis-small": Recipe("LVIS, instances below 100 square pixels", 10_000, small_instances, False),
    "lvis-dense": Recipe("LVIS, more than 15 instances of the class", 10_000, dense_instances, False),
    "soda-a": Recipe("SODA-A, aerial pictures, polygons as boxes", 1_000, counted_instances),
    "soda-d": Recipe("SODA-D, driving", 1_000, counted_instances),
}
THIN_OBJECTS = "thin-objects"
BAG = "bag"
KINDS = (*RECIPES, THIN_OBJECTS, BAG)


def build(
    kind: str,
    annotations: Path,
    images: Path,
    out: Path,
    seed: int = 0,
    rows: int | None = None,
    per_class: int | None = None,
    negatives: int = 0,
) -> tuple[int, int]:
    """Build the rows of a published data set and write them.

    Args:
        kind: Key of `RECIPES`, or `THIN_OBJECTS`.
        annotations: The COCO file; for thin objects the folder of masks.
        images: The folder of pictures.
        out: Directory of the rows.
        seed: Of the choice and the order.
        rows: At most so many pictures, None for the recipe's number.
        per_class: At most so many questions of one class, None for all.
        negatives: So many further rows, as far as there are, that ask for a class which is not in the picture.

    Returns:
        The number of rows written, and of problems listed.

    Raises:
        InvalidInput: The source cannot be read, no row comes of it, or it does not say what is not in its pictures.
    """
    if negatives and kind == THIN_OBJECTS:
        raise InvalidInput(f"{THIN_OBJECTS} has one class, which is in every picture; leave out --negatives")
    document: dict[str, Any] = {}
    if kind == THIN_OBJECTS:
        found, limit, sources = list(_thin_objects(annotations, images)), 10_000_000, [annotations]
    elif kind in RECIPES:
        document = _read_coco(annotations)
        found, limit, sources = (
            list(coco_rows(document, annotations, images, RECIPES[kind].select)),
            RECIPES[kind].rows,
            [annotations],
        )
    else:
        raise InvalidInput(f"unknown kind of data {kind!r}; known are {', '.join((*RECIPES, THIN_OBJECTS))}")
    good = [row for row in found if isinstance(row, Row)]
    problems = [row for row in found if not isinstance(row, Row)]
    good = limit_rows(good, rows or limit, per_class, seed)
    if negatives:
        good += negative_rows(
            _read_coco(annotations), annotations, images, negatives, RECIPES[kind].is_exhaustive, seed
        )
    provenance = {
        "kind": kind,
        "rule": RECIPES[kind].description if kind in RECIPES else "ThinObjects, one mask a picture",
        "annotations": str(annotations),
        "sha256": [digest(path) for path in sources if path.is_file()],
        "images": str(images),
    }
    write_rows(out, good, problems, provenance, seed)
    return len(good), len(problems)


def limit_rows(rows: list[Row], pictures: int, per_class: int | None, seed: int) -> list[Row]:
    """Choose some of the rows.

    Args:
        rows: All rows.
        pictures: At most so many pictures.
        per_class: At most so many questions of one class, None for all.
        seed: Of the choice.

    Returns:
        The rows chosen, in the order of the choice.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    seen: set[str] = set()
    asked: dict[tuple[str, ...], int] = defaultdict(int)
    kept = []
    for index in order:
        row = rows[index]
        if (row.image not in seen and len(seen) >= pictures) or (per_class and asked[row.classes] >= per_class):
            continue
        seen.add(row.image)
        asked[row.classes] += 1
        kept.append(row)
    return kept


def negative_rows(
    document: dict[str, Any], annotations: Path, images: Path, count: int, is_exhaustive: bool, seed: int
) -> list[Row]:
    """Make rows that ask for a class which is not in the picture: none of its regions is the right answer.

    Args:
        document: With the lists `images`, `annotations` and `categories`.
        annotations: Its file, for messages.
        images: The folder of pictures.
        count: At most so many rows, one a picture.
        is_exhaustive: Whether a class without annotations in a picture is not in it.
        seed: Of the choice.

    Returns:
        The rows, in the order of the choice.

    Raises:
        InvalidInput: The file says of no picture that is there what is not in it.
    """
    names = {each.get("id"): _name(each) for each in document["categories"]}
    asked = {key for key, name in names.items() if name and name.lower() not in IGNORED_NAMES}
    present: dict[Any, set[Any]] = defaultdict(set)
    for each in document["annotations"]:  # also crowds and what is to be ignored: it is in the picture
        present[each.get("image_id")].add(each.get("category_id"))
    random = np.random.default_rng(seed)
    rows: list[Row] = []
    for index in random.permutation(len(document["images"])):
        picture = document["images"][index]
        path = images / _file_name(picture)
        if not path.is_file():
            continue
        try:
            verified = picture.get("neg_category_ids")
            known = asked if is_exhaustive and verified is None else asked.intersection(verified or ())
            absent = sorted(known - present[picture.get("id")], key=str)
            if not absent:
                continue
            name = names[absent[int(random.integers(len(absent)))]]
            rows.append(check_row(Row(str(path), int(picture["width"]), int(picture["height"]), (name,), (), ())))
        except (InvalidInput, KeyError, TypeError, ValueError):
            continue  # a picture that cannot be used; those with annotations are listed among the problems
        if len(rows) == count:
            break
    if not rows:
        raise InvalidInput(
            f"{annotations}: says of no picture which class is not in it (LVIS has neg_category_ids); "
            "leave out --negatives"
        )
    return rows


def _read_coco(annotations: Path) -> dict[str, Any]:
    document = _read_json(annotations)
    for key in ("images", "annotations", "categories"):
        if not isinstance(document.get(key), list):
            raise InvalidInput(f"{annotations}: is no COCO file: it has no list {key!r}")
        for place, entry in enumerate(document[key], 1):
            if not isinstance(entry, dict):
                raise InvalidInput(f"{annotations}: entry {place} of {key!r} is no object: {str(entry)[:100]}")
    return document


def _name(category: Mapping[str, Any]) -> str:
    return str(category.get("name") or "").replace("_", " ").strip()


def _file_name(picture: Mapping[str, Any]) -> str:
    return str(picture.get("file_name") or str(picture.get("coco_url", "")).rpartition("/")[2])


def coco_rows(
    document: dict[str, Any], annotations: Path, images: Path, select: Select
) -> Iterator[Row | dict[str, Any]]:
    """Read the rows of a COCO document.

    Args:
        document: With the lists `images`, `annotations` and `categories`.
        annotations: Its file, for messages.
        images: The folder of pictures.
        select: The rule of a recipe.

    Yields:
        One row, or one problem, for each picture and class.
    """
    names = {each.get("id"): _name(each) for each in document["categories"]}
    categories = {each.get("id"): each for each in document["categories"]}
    pictures = {each.get("id"): each for each in document["images"]}
    grouped: dict[tuple[Any, Any], list[dict[str, Any]]] = defaultdict(list)
    for each in document["annotations"]:
        if each.get("image_id") not in pictures:
            yield problem(
                annotations,
                each,
                f"annotation {each.get('id')} names picture {each.get('image_id')}, which is not listed",
            )
        elif each.get("category_id") not in names:
            yield problem(
                annotations, each, f"annotation {each.get('id')} has the unknown class {each.get('category_id')}"
            )
        elif not each.get("iscrowd"):
            grouped[each["image_id"], each["category_id"]].append(each)
    missing: set[str] = set()
    for (picture_id, category), members in grouped.items():
        picture = pictures[picture_id]
        name = _file_name(picture)
        path = images / name
        if str(path) in missing:
            continue
        if not name or not path.is_file():
            missing.add(str(path))
            yield problem(path, picture, "the picture is not there")
            continue
        try:
            chosen = select(picture, categories[category], members)
            if not chosen:
                continue
            boxes = tuple(_box(each) for each in chosen)
            row = check_row(
                Row(
                    str(path),
                    int(picture["width"]),
                    int(picture["height"]),
                    (names[category],),
                    boxes,
                    (names[category],) * len(boxes),
                    tuple(_outlines(each) for each in chosen),
                )
            )
        except (InvalidInput, KeyError, TypeError, ValueError) as error:
            yield problem(
                path, picture, f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
            )
            continue
        yield row


def _box(annotation: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """The box of an annotation, or the one around its polygon, as SODA-A has them."""
    if annotation.get("bbox"):
        x, y, width, height = map(float, annotation["bbox"])
        return x, y, width, height
    outline = annotation.get("poly") or [value for part in annotation.get("segmentation") or [] for value in part]
    if not outline:
        raise InvalidInput(f"annotation {annotation.get('id')} has neither a box nor a polygon")
    points = np.array(outline, np.float64).reshape(-1, 2)
    (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x0, y0, x1 - x0, y1 - y0


def _outlines(annotation: Mapping[str, Any]) -> tuple[tuple[float, ...], ...]:
    parts = annotation.get("segmentation") or ([annotation["poly"]] if annotation.get("poly") else [])
    return tuple(tuple(map(float, part)) for part in parts) if isinstance(parts, list) else ()


def _thin_objects(masks: Path, images: Path) -> Iterator[Row | dict[str, Any]]:
    """One row for each picture with a mask of the same name: the object to segment."""
    by_name = {path.stem: path for path in masks.iterdir() if path.suffix.lower() in SUFFIXES} if masks.is_dir() else {}
    if not by_name:
        raise InvalidInput(f"{masks} holds no masks")
    for path in sorted(p for p in images.iterdir() if p.suffix.lower() in SUFFIXES):
        if path.stem not in by_name:
            yield problem(path, {}, "the picture has no mask")
            continue
        try:
            mask = read_image(by_name[path.stem])[..., 0] > 127
            image = read_image(path)
            if mask.shape != image.shape[:2]:
                raise InvalidInput(
                    f"the mask is {mask.shape[1]} x {mask.shape[0]}, the picture {image.shape[1]} x {image.shape[0]}"
                )
            contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            if not contours:
                raise InvalidInput("the mask is empty")
            outlines = tuple(tuple(map(float, contour.ravel())) for contour in contours if len(contour) > 2)
            x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
            yield Row(
                str(path),
                image.shape[1],
                image.shape[0],
                ("object",),
                ((x, y, width, height),),
                ("object",),
                (outlines,),
            )
        except InvalidInput as error:
            yield problem(path, {}, str(error))


def problem(source: Path, entry: dict[str, Any], reason: str) -> dict[str, Any]:
    """Make a line of `problems.jsonl`.

    Args:
        source: The file of the entry.
        entry: With an `id`, if it has one.
        reason: Why it was left out.

    Returns:
        The line as a mapping.
    """
    return {"source": str(source), "id": entry.get("id"), "reason": reason}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: not readable as JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise InvalidInput(f"{path}: is no COCO file: it holds no JSON object")
    return values


def digest(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else hashlib.sha256(file.read()).hexdigest()
        )
