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

"""Sequences without downloads: the vehicles and scenes of `composite_dataset` in motion, with exact boxes and ids.

The camera pans and shakes over a scene that is larger than the picture. Vehicles drive across it, come into the picture
at its sides, and pass behind walls that hide them for a while. Between them stand false structures, made of the same
vehicles in shuffled pieces, that are none. Everything follows from the seed; nothing is stored.

An object counts while at least half of it can be seen; while less of it can, it is ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..codecs.image_files import Picture
from ..core import Frame
from .composite_dataset import (
    CATEGORY,
    LABELS,
    MIN_SIDE_PX,
    SCENE_SIZE,
    SIDE_PX,
    SIDE_SCATTER,
    SOLID,
    SOURCES,
    Cutout,
    box_of,
    ground,
    places_on,
    resized,
    vehicle_cutouts,
)
from .sequence_truth import SequenceTruth, TrackedObject, TrueFrame, TrueSequence

FRAMES = 30
RATE = 10.0
"""Frames a second."""
MARGIN = 0.15
"""By how much the scene reaches beyond each side of the picture, in shares of the picture."""
MAX_PAN_PX = 8.0
"""Of the camera from frame to frame, to either side."""
SWAY_PX = (2.0, 8.0)
"""Least and largest amplitude of its slow motion up and down."""
SHAKE_PX = 0.7
"""Standard deviation of its fast motion, along each axis."""
SPEED_SIDES = (0.3, 2.0)
"""Of vehicles, in their sides a second."""
WALLS = 4
"""Vehicles in a sequence that a wall hides for a while."""
FALSE_STRUCTURES = 6
PIECES = 3
"""A false structure is shuffled in so many pieces along each axis."""
MIN_VISIBLE, MIN_SEEN = 0.5, 0.02
"""Share of a vehicle from which on it counts, and from which on it is ignored."""
NOISE = 3.0
"""Standard deviation of the noise of a frame, in grey levels."""


@dataclass(frozen=True)
class _Item:
    """Something on the ground of the scene.

    Attributes:
        cutout: Its picture.
        x: Of its left side at the start, pixels of the scene.
        y: Of its top.
        velocity: To the right, pixels a frame.
        id: Of a vehicle; "" for walls and false structures.
    """

    cutout: Cutout
    x: float
    y: float
    velocity: float = 0.0
    id: str = ""


def moving_composite(count: int, seed: int) -> SequenceTruth:
    """Make the sequences.

    Args:
        count: Number of sequences.
        seed: The same seed gives the same sequences, whatever their number.

    Raises:
        AssetError: The pictures were not prefetched.
    """
    sequences = tuple(_sequence(seed, index) for index in range(count))
    facts = {
        "made from": "vehicles and scenes of two pictures of sahi 0.12.8 (MIT licence)",
        "sequences": count,
        "scene_seed": seed,
        "size": f"{SCENE_SIZE[0]} x {SCENE_SIZE[1]} px",
        "frames": f"{FRAMES} a sequence, {RATE:g} a second",
    }
    return SequenceTruth(sequences, {1: CATEGORY}, {**dict.fromkeys(LABELS, 1), CATEGORY: 1}, facts)


def _sequence(seed: int, index: int) -> TrueSequence:
    stage = _Stage(seed, index)
    frames = tuple(
        TrueFrame(f"sequence {index} frame {number}", _stamp(number), tuple(stage.objects(number)))
        for number in range(FRAMES)
    )
    return TrueSequence(f"sequence {index}", "composite", frames, _Reader(seed, index))


def _stamp(number: int) -> int:
    return 1 + round(number / RATE * 1e9)


@dataclass(frozen=True)
class _Reader:
    seed: int
    index: int

    def __call__(self) -> Iterator[Frame]:
        stage = _Stage(self.seed, self.index)
        for number in range(FRAMES):
            yield Frame(stage.picture(number), _stamp(number), camera="composite")


class _Stage:
    """One scene with everything on it, and the path of the camera."""

    def __init__(self, seed: int, index: int) -> None:
        generator = np.random.default_rng([seed, index, 1])
        self._source = SOURCES[int(generator.integers(len(SOURCES)))]
        width, height = SCENE_SIZE
        self._size = round(width * (1 + 2 * MARGIN)), round(height * (1 + 2 * MARGIN))
        self._scene = ground(self._source, generator, self._size) * np.float32(generator.uniform(0.85, 1.1))
        self._noise_seed = int(generator.integers(2**31))
        self._camera = _camera_path(generator)
        self._items = self._set(generator)

    def _set(self, generator: np.random.Generator) -> list[_Item]:
        """Vehicles, walls and false structures, the farthest first."""
        vehicles = [item for item in self._vehicles(generator) if min(item.cutout.opacity.shape) >= MIN_SIDE_PX]
        hidden = generator.permutation(len(vehicles))[:WALLS]
        walls = [self._wall(vehicles[index], generator) for index in hidden.tolist()]
        free = list(places_on(self._source, generator))
        chosen = generator.permutation(len(free))[:FALSE_STRUCTURES]
        false = [self._standing(free[n][0], free[n][1], generator, is_false=True) for n in chosen.tolist()]
        return sorted([*vehicles, *walls, *false], key=lambda item: item.y + item.cutout.opacity.shape[0])

    def _vehicles(self, generator: np.random.Generator) -> Iterator[_Item]:
        for number, (x, y) in enumerate(places_on(self._source, generator), start=1):
            item = self._standing(x, y, generator)
            side = float(np.sqrt(item.cutout.opacity.size))
            speed = generator.uniform(*SPEED_SIDES) * side / RATE * generator.choice((-1, 1))
            yield _Item(item.cutout, item.x, item.y, float(speed), str(number))

    def _standing(self, x: float, y: float, generator: np.random.Generator, is_false: bool = False) -> _Item:
        """A vehicle, or what is left of one, that stands at a place of a picture, stretched to the larger scene."""
        width, height = SCENE_SIZE
        depth = (y / height - self._source.horizon) / (1 - self._source.horizon)
        side = (SIDE_PX[0] + (SIDE_PX[1] - SIDE_PX[0]) * depth) * np.exp(generator.normal(0, SIDE_SCATTER))
        cutouts = vehicle_cutouts()
        cutout = resized(cutouts[int(generator.integers(len(cutouts)))], float(side), bool(generator.integers(2)))
        cutout = _shuffled(cutout, generator) if is_false else cutout
        tall, wide = cutout.opacity.shape
        return _Item(cutout, x / width * self._size[0] - wide / 2, y / height * self._size[1] - tall)

    def _wall(self, vehicle: _Item, generator: np.random.Generator) -> _Item:
        """A wall in front of the way of a vehicle, which is behind it at some time of the sequence."""
        tall, wide = vehicle.cutout.opacity.shape
        size = max(2, round(wide * generator.uniform(1.0, 1.8))), max(2, round(tall * 1.3))
        x = vehicle.x + vehicle.velocity * generator.uniform(0, FRAMES)
        y = vehicle.y + tall * 1.05 - size[1]
        left = int(generator.integers(0, self._size[0] - size[0]))
        top = int(np.clip(y, 0, self._size[1] - size[1]))
        patch = self._scene[top : top + size[1], left : left + size[0]] * np.float32(0.55)
        return _Item(Cutout(np.asarray(patch.clip(0, 255), np.uint8), np.ones(size[::-1], np.float32)), x, y)

    def objects(self, number: int) -> Iterator[TrackedObject]:
        """The vehicles of a frame that can be seen, with their whole boxes."""
        owner = np.zeros((SCENE_SIZE[1], SCENE_SIZE[0]), np.int16)
        placed = []
        for index, item in enumerate(self._items, start=1):
            solid, left, top = self._solid(item, number)
            placed.append((item, solid, left, top))
            rows, columns, part = _inside(solid, left, top)
            owner[rows, columns][part] = index
        for index, (item, solid, left, top) in enumerate(placed, start=1):
            if not item.id:
                continue
            rows, columns, _ = _inside(solid, left, top)
            share = float((owner[rows, columns] == index).sum()) / max(1, int(solid.sum()))
            if share >= MIN_SEEN:
                box = box_of(solid, left, top).clipped(*SCENE_SIZE)
                yield TrackedObject(item.id, 1, box, share < MIN_VISIBLE)

    def picture(self, number: int) -> Picture:
        """The picture of a frame, `(h, w, 3)` uint8 BGR."""
        x, y = self._camera[number].tolist()
        shift = np.array([[1, 0, -x], [0, 1, -y]], np.float32)
        image = cv2.warpAffine(self._scene, shift, SCENE_SIZE, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        for item in self._items:
            cutout, left, top = self._shifted(item, number)
            rows, columns, opacity = _inside(cutout.opacity, left, top)
            _, _, pixels = _inside(cutout.image, left, top)
            if opacity.size:
                patch = image[rows, columns]
                image[rows, columns] = patch + (pixels - patch) * opacity[..., None]
        noise = np.roll(_noise(), np.random.default_rng([self._noise_seed, number]).integers(0, 500, 2), axis=(0, 1))
        return np.asarray((image + noise).round().clip(0, 255), np.uint8)

    def _solid(self, item: _Item, number: int) -> tuple[npt.NDArray[np.bool_], int, int]:
        cutout, left, top = self._shifted(item, number)
        return cutout.opacity >= SOLID, left, top

    def _shifted(self, item: _Item, number: int) -> tuple[Cutout, int, int]:
        """A cutout that is moved by less than a pixel, and the whole pixel of the picture where its corner is."""
        x, y = item.x + item.velocity * number - self._camera[number, 0], item.y - self._camera[number, 1]
        left, top = int(np.floor(x)), int(np.floor(y))
        shift = np.array([[1, 0, x - left], [0, 1, y - top]], np.float32)
        tall, wide = item.cutout.opacity.shape
        size = wide + 1, tall + 1
        image = cv2.warpAffine(item.cutout.image, shift, size, borderMode=cv2.BORDER_REPLICATE)
        opacity = cv2.warpAffine(item.cutout.opacity, shift, size)
        return Cutout(np.asarray(image, np.uint8), np.asarray(opacity, np.float32)), left, top


def _camera_path(generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """`(frames, 2)` of the picture's corner in the scene, pixels."""
    margin = np.array(SCENE_SIZE) * MARGIN
    time = np.arange(FRAMES) - (FRAMES - 1) / 2
    pan = generator.uniform(-MAX_PAN_PX, MAX_PAN_PX)
    amplitude, phase = generator.uniform(*SWAY_PX), generator.uniform(0, 2 * np.pi)
    sway = amplitude * np.sin(2 * np.pi * np.arange(FRAMES) / RATE + phase)
    path = margin + np.stack([pan * time, sway], axis=1) + generator.normal(0, SHAKE_PX, (FRAMES, 2))
    return np.asarray(path.clip(0, 2 * margin - 1))


def _shuffled(cutout: Cutout, generator: np.random.Generator) -> Cutout:
    """The pieces of a vehicle at places of each other, upside down: as sharp and as coloured, and no vehicle."""
    tall, wide = (side - side % PIECES for side in cutout.opacity.shape)
    if min(tall, wide) < PIECES:
        return Cutout(cutout.image[::-1].copy(), cutout.opacity[::-1].copy())
    image, opacity = cutout.image[:tall, :wide][::-1], cutout.opacity[:tall, :wide][::-1]
    order = generator.permutation(PIECES * PIECES)
    mixed, mask = np.empty_like(image), np.empty_like(opacity)
    high, broad = tall // PIECES, wide // PIECES
    for place, piece in enumerate(order.tolist()):
        to = (
            slice(place // PIECES * high, (place // PIECES + 1) * high),
            slice(place % PIECES * broad, (place % PIECES + 1) * broad),
        )
        come = (
            slice(piece // PIECES * high, (piece // PIECES + 1) * high),
            slice(piece % PIECES * broad, (piece % PIECES + 1) * broad),
        )
        mixed[to], mask[to] = image[come], opacity[come]
    return Cutout(mixed, mask)


def _inside(array: npt.NDArray[Any], left: int, top: int) -> tuple[slice, slice, npt.NDArray[Any]]:
    """The part of an array that lies in the picture, and the rows and columns of the picture where it lies."""
    tall, wide = array.shape[:2]
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = max(x0, min(left + wide, SCENE_SIZE[0])), max(y0, min(top + tall, SCENE_SIZE[1]))
    return slice(y0, y1), slice(x0, x1), array[y0 - top : y1 - top, x0 - left : x1 - left]


@lru_cache(maxsize=1)
def _noise() -> npt.NDArray[np.float32]:
    """`(h, w, 3)` noise that each frame moves to another place: drawing it anew takes longer than all the rest."""
    shape = (SCENE_SIZE[1], SCENE_SIZE[0], 3)
    return np.asarray(NOISE * np.random.default_rng(0).standard_normal(shape, np.float32))
