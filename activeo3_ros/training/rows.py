"""Training data: an indexed, shuffled, resumable set of questions about pictures, with what is true of each.

A data set is a directory: `rows.jsonl` (one question a line, already shuffled), `problems.jsonl` (what was left out,
and
why), `provenance.json` (from which files, with their checksums, by which rule, with which seed). Pictures stay where
they
are; rows name them. Drawn scenes need no directory: a row of theirs is a seed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np

from ..codecs.image_files import read_image
from ..core.errors import InvalidInput
from ..core.frame import Frame
from ..core.geometry import Box, mask_of
from ..core.query import Query
from .rewards import Mask
from .scenes import FULL_HD, LABELS, SQUARE, Scene, draw_scene

SCENE_PREFIX = "scene:"
HELD_OUT_SEED = 10_000_000
"""Drawn scenes from this seed on are for evaluation only."""


@dataclass(frozen=True)
class Row:
    """One question about one picture.

    image: a path, or "scene:SEED:WIDTHxHEIGHT". classes: what is asked for. boxes: `x, y, width, height` in pixels of
    the
    picture, one for each of `labels`; polygons: for each, lists of `x, y, x, y, …`, empty where only the box is known.
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
        return Query(classes=self.classes)

    def frame(self) -> Frame:
        """The picture. Raises InvalidInput if it cannot be read or is not of the size that the row says."""
        image = scene_of(self.image).image if self.image.startswith(SCENE_PREFIX) else read_image(self.image)
        if (image.shape[1], image.shape[0]) != (self.width, self.height):
            raise InvalidInput(
                f"{self.image} is {image.shape[1]} x {image.shape[0]}, its annotation says {self.width} x {self.height}"
            )
        return Frame(image)

    def mask(self) -> Mask:
        """`(height, width)` pixels of all targets; of their boxes where no outlines are known."""
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


@lru_cache(maxsize=160)
def scene_of(name: str) -> Scene:
    """The scene that a row's image names."""
    try:
        _, seed, size = name.split(":")
        width, height = map(int, size.split("x"))
        return draw_scene(int(seed), (width, height))
    except ValueError as error:
        raise InvalidInput(f"{name!r} is no drawn scene: {error}; write scene:SEED:WIDTHxHEIGHT") from error


class SceneRows(Sequence[Row]):
    """One question for each of `count` drawn scenes, about the class of one of its small objects; made when asked
    for.
    """

    def __init__(self, count: int, first_seed: int = 0) -> None:
        self._count, self._first_seed = count, first_seed

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [scene_row(self._first_seed + i) for i in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        return scene_row(self._first_seed + index)


@lru_cache(maxsize=4096)
def scene_row(seed: int) -> Row:
    """The question about the scene of one seed; every third scene is square."""
    size = FULL_HD if seed % 3 else SQUARE
    name = f"{SCENE_PREFIX}{seed}:{size[0]}x{size[1]}"
    scene = scene_of(name)
    small = sorted({each.label for each in scene.objects if each.is_small}) or sorted(LABELS)
    label = str(np.random.default_rng([seed, 1]).choice(small))
    targets = scene.of(label)
    boxes, labels = tuple(each.box.as_tuple() for each in targets), tuple(each.label for each in targets)
    return Row(name, *size, (label,), boxes, labels)


def check_row(row: Row) -> Row:
    """The row with its boxes clipped to the picture. Raises InvalidInput, saying why, if it cannot be used."""
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
    """Write a data set, its rows shuffled by the seed. Raises InvalidInput if there is no row."""
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
    """The rows of a data set, in their order. Raises InvalidInput, with file and line, if one is damaged or none is
    there.
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
