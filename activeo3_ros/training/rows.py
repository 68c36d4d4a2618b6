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

"""Training data: an indexed, shuffled, resumable set of questions about pictures, with the targets of each.

A data set is a directory: `rows.jsonl` (one question a line, already shuffled), `problems.jsonl` (the entries left out,
with reasons), `provenance.json` (source files with checksums, rule, seed). Pictures stay in their files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..codecs.image_files import read_image
from ..core.errors import InvalidInput
from ..core.frame import Frame
from ..core.geometry import Box, mask_of
from ..core.query import Query
from .rewards import Mask


@dataclass(frozen=True)
class Row:
    """One question about one picture, with its targets in pixels of the picture, origin at its top left corner.

    A subclass may get its picture from elsewhere than a file: it overrides `frame`.

    Attributes:
        image: Path of the picture; rows of equal `image` share one picture.
        width: Of the picture, pixels.
        height: Of the picture, pixels.
        classes: The classes asked for.
        boxes: `x, y, width, height` of each target.
        labels: The class of each target, one for each of `boxes`.
        polygons: For each target, its outlines as `x, y, x, y, …`; empty where only the box is known.
    """

    image: str
    width: int
    height: int
    classes: tuple[str, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    labels: tuple[str, ...]
    polygons: tuple[tuple[tuple[float, ...], ...], ...] = ()

    @property
    def query(self) -> Query:
        """The classes asked for, as the loop takes them."""
        return Query(classes=self.classes)

    def frame(self) -> Frame:
        """Read the picture.

        Returns:
            The picture at its full size.

        Raises:
            InvalidInput: It cannot be read, or has another size than the row says.
        """
        image = read_image(self.image)
        if (image.shape[1], image.shape[0]) != (self.width, self.height):
            raise InvalidInput(
                f"{self.image} is {image.shape[1]} x {image.shape[0]}, its annotation says {self.width} x {self.height}"
            )
        return Frame(image)

    def mask(self) -> Mask:
        """Draw the targets.

        Returns:
            `(height, width)` bool, the pixels of all targets; of their boxes where no outlines are known.
        """
        mask = (
            mask_of(self.boxes, self.width, self.height)
            if not any(self.polygons)
            else np.zeros((self.height, self.width), bool)
        )
        for box, outlines in zip(self.boxes, self.polygons, strict=False):
            if not outlines:
                mask |= mask_of([box], self.width, self.height)
            painted = np.zeros((self.height, self.width), np.uint8)
            points = [np.rint(np.array(outline).reshape(-1, 2)).astype(np.int32) for outline in outlines]
            mask |= cv2.fillPoly(painted, points, 1).astype(bool) if points else False
        return mask


def check_row(row: Row) -> Row:
    """Check a row and clip its boxes to the picture.

    Args:
        row: As an annotation has it.

    Returns:
        The row with its boxes inside the picture.

    Raises:
        InvalidInput: It cannot be used; the message says why.
    """
    if row.width < 1 or row.height < 1:
        raise InvalidInput(f"the picture has {row.width} x {row.height} pixels")
    if not row.classes or any(not name.strip() for name in (*row.classes, *row.labels)):
        raise InvalidInput("a class has no name")
    if len(row.boxes) != len(row.labels):
        raise InvalidInput(f"{len(row.boxes)} boxes have {len(row.labels)} labels")
    clipped = []
    for box in row.boxes:
        if len(box) != 4 or not all(math.isfinite(value) for value in box) or box[2] <= 0 or box[3] <= 0:
            raise InvalidInput(f"box {list(box)} is no x, y, width, height with a positive size")
        inside = Box(*map(float, box)).clipped(row.width, row.height)
        if inside.width <= 0 or inside.height <= 0:
            raise InvalidInput(f"box {list(box)} lies outside of the picture, {row.width} x {row.height}")
        clipped.append(inside.as_tuple())
    return Row(row.image, row.width, row.height, row.classes, tuple(clipped), row.labels, row.polygons)


def write_rows(
    out: Path, rows: Sequence[Row], problems: Sequence[dict[str, Any]], provenance: dict[str, Any], seed: int
) -> None:
    """Write a data set, its rows shuffled.

    Args:
        out: Directory of the data set, made where it is missing.
        rows: The usable rows.
        problems: The entries left out, each with a `reason`.
        provenance: Facts for `provenance.json`; seed and counts are added.
        seed: Of the order.

    Raises:
        InvalidInput: There is no row.
    """
    if not rows:
        raise InvalidInput(
            f"no usable row for {out}: {len(problems)} were left out, the first because {_first(problems)}"
        )
    out.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(seed).permutation(len(rows))
    _write_lines(out / "problems.jsonl", problems)
    _write_lines(out / "rows.jsonl", (asdict(rows[index]) for index in order))
    facts = {**provenance, "seed": seed, "rows": len(rows), "left_out": len(problems)}
    (out / "provenance.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_rows(directory: Path) -> list[Row]:
    """Read a data set.

    Args:
        directory: As `activeo3 train data` wrote it.

    Returns:
        The rows in their order.

    Raises:
        InvalidInput: A row is damaged, or there is none; the message names file and line.
    """
    path = directory / "rows.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror}); build the data set first") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(check_row(_from_dict(json.loads(line))))
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidInput(f"{path}:{number}: {error}") from error
    if not rows:
        raise InvalidInput(f"{path} holds no row; build the data set again")
    return rows


def _from_dict(values: dict[str, Any]) -> Row:
    return Row(
        str(values["image"]),
        int(values["width"]),
        int(values["height"]),
        tuple(map(str, values["classes"])),
        tuple(tuple(map(float, box)) for box in values["boxes"]),  # type: ignore[misc]
        tuple(map(str, values["labels"])),
        tuple(tuple(tuple(map(float, outline)) for outline in outlines) for outlines in values.get("polygons", ())),
    )


def _write_lines(path: Path, values: Iterable[Any]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for value in values:
            file.write(json.dumps(value, ensure_ascii=False) + "\n")


def _first(problems: Sequence[dict[str, Any]]) -> str:
    return str(problems[0]["reason"]) if problems else "the source holds none"
