"""Training rows of drawn scenes: one question a scene, made when it is asked for. A row is a seed, nothing is stored.

A training configuration names them:

    data: {rows: "activeo3_tiny.scene_rows:SceneRows", count: 4096, first_seed: 0}
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import overload

import numpy as np

from activeo3_ros.core import Frame, InvalidInput
from activeo3_ros.training.rows import Row

from .scenes import FULL_HD, LABELS, SQUARE, Scene, draw_scene

SCENE_PREFIX = "scene:"
HELD_OUT_SEED = 10_000_000
"""Scenes from this seed on are for evaluation only."""


class SceneRow(Row):
    """A question about a drawn scene, whose image is "scene:SEED:WIDTHxHEIGHT"."""

    def frame(self) -> Frame:
        return Frame(scene_of(self.image).image)


class SceneRows(Sequence[Row]):
    """One question for each of some drawn scenes, about the class of one of its small objects."""

    def __init__(self, count: int, first_seed: int = 0) -> None:
        """Choose the scenes.

        Args:
            count: Number of scenes, at least 1.
            first_seed: Seed of the first scene, at least 0; the others follow it.

        Raises:
            InvalidInput: One of them is no such number.
        """
        for name, value, least in (("count", count, 1), ("first_seed", first_seed, 0)):
            if type(value) is not int or value < least:
                raise InvalidInput(f"{name} of drawn scenes must be a whole number from {least}, got {value!r}")
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


@lru_cache(maxsize=160)
def scene_of(name: str) -> Scene:
    """The scene that a row's image names. Raises InvalidInput if it names none."""
    try:
        _, seed, size = name.split(":")
        width, height = map(int, size.split("x"))
        return draw_scene(int(seed), (width, height))
    except ValueError as error:
        raise InvalidInput(f"{name!r} is no drawn scene: {error}; write scene:SEED:WIDTHxHEIGHT") from error


@lru_cache(maxsize=4096)
def scene_row(seed: int) -> SceneRow:
    """The question about the scene of one seed; every third scene is square."""
    size = FULL_HD if seed % 3 else SQUARE
    name = f"{SCENE_PREFIX}{seed}:{size[0]}x{size[1]}"
    scene = scene_of(name)
    small = sorted({each.label for each in scene.objects if each.is_small}) or sorted(LABELS)
    label = str(np.random.default_rng([seed, 1]).choice(small))
    targets = scene.of(label)
    boxes, labels = tuple(each.box.as_tuple() for each in targets), tuple(each.label for each in targets)
    return SceneRow(name, *size, (label,), boxes, labels)
