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

"""A data set without downloads: real vehicles, pasted small into large real scenes, so that their boxes are exact.

The vehicles are cut out of two road pictures of the package sahi (MIT licence, see `assets`); the scenes are parts of
the same pictures without vehicles. Vehicles stand in groups on the ground of the scene and shrink towards its horizon,
as on a road. Everything follows from the seed; nothing is stored.

It shows which of several policies makes better use of the same pixels. It does not show how well a method works on real
small objects, whose light, blur and noise are those of their scene.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..assets.packages import MOTORWAY_PICTURE, TERRAIN_PICTURE, PackagedFile, require
from ..codecs.image_files import Picture, read_image
from ..codecs.rle import Mask, encode_rle
from ..core import Box, Detection, Frame, Query
from ..core.geometry import as_array, share_inside
from ..segmenters.grabcut import GrabCut
from .datasets import Dataset, Sample

SCENE_SIZE = (1920, 1080)
"""Width and height in pixels."""
LABELS = ("car", "truck", "bus")
"""Labels that detectors give the vehicles. All count as one category: detectors disagree whether a jeep is a car."""
CATEGORY = "vehicle"
GROUPS = (1, 4)
VEHICLES_IN_GROUP = (1, 6)
SIDE_PX = (9.0, 46.0)
"""Square root of a vehicle's box area at the horizon and at the lower border, in pixels of the scene."""
SIDE_SCATTER = 0.25
"""Standard deviation of the logarithm of that."""
MAX_OVERLAP = 0.05
"""Share of a vehicle that another one may hide."""
MIN_SIDE_PX = 5
SOLID = 0.5
"""A pixel belongs to a vehicle from this opacity on."""


@dataclass(frozen=True)
class Source:
    """One picture with its vehicles and its empty part.

    Attributes:
        picture: The file.
        vehicles: Boxes to cut out, in pixels.
        scene: Box of a part without vehicles, in pixels.
        horizon: Upper end of the ground, as a share of the scene's height.
    """

    picture: PackagedFile
    vehicles: tuple[tuple[int, int, int, int], ...]
    scene: tuple[int, int, int, int]
    horizon: float


SOURCES = (
    Source(
        MOTORWAY_PICTURE,
        vehicles=((448, 309, 47, 32), (833, 308, 40, 37), (382, 278, 37, 26)),
        scene=(0, 366, 1068, 214),
        horizon=0.0,
    ),
    Source(
        TERRAIN_PICTURE,
        vehicles=(
            (224, 450, 218, 156),
            (497, 452, 125, 96),
            (636, 431, 82, 63),
            (724, 422, 69, 52),
            (789, 402, 47, 50),
        ),
        scene=(0, 0, 1024, 398),
        horizon=0.5,
    ),
)


@dataclass(frozen=True)
class Cutout:
    """A vehicle. image `(h, w, 3)` BGR, opacity `(h, w)` 0 to 1."""

    image: Picture
    opacity: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """A picture, the boxes of its vehicles in pixels, and their masks, each `(h, w)` bool of the whole picture."""

    image: Picture
    boxes: tuple[Box, ...]
    masks: tuple[Mask, ...]


def composite(count: int, seed: int, masks: bool = False) -> Dataset:
    """Make the data set.

    Args:
        count: Number of scenes.
        seed: The same seed gives the same scenes, whatever their number.
        masks: Whether to ask for masks as well.

    Returns:
        The data set, with boxes and masks.

    Raises:
        AssetError: The pictures were not prefetched.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    samples = []
    query = Query(classes=LABELS, masks=masks)
    for index in range(count):
        scene = make_scene(seed, index)
        images.append({"id": index + 1, "width": SCENE_SIZE[0], "height": SCENE_SIZE[1], "file_name": f"scene {index}"})
        for box, mask in zip(scene.boxes, scene.masks, strict=True):
            counts = encode_rle(mask).decode("ascii")
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": 1,
                    "bbox": list(box.as_tuple()),
                    "area": box.area,
                    "iscrowd": 0,
                    "segmentation": {"size": [SCENE_SIZE[1], SCENE_SIZE[0]], "counts": counts},
                }
            )
        samples.append(Sample(index + 1, f"scene {index}", query, _Loader(seed, index)))
    truth: dict[str, Any] = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": CATEGORY}]}
    facts = {
        "made from": "vehicles and scenes of two pictures of sahi 0.12.8 (MIT licence)",
        "scenes": count,
        "scene_seed": seed,
        "size": f"{SCENE_SIZE[0]} x {SCENE_SIZE[1]} px",
        "masks": masks,
    }
    return Dataset("composite", samples, truth, dict.fromkeys(LABELS, 1), facts)


@dataclass(frozen=True)
class _Loader:
    seed: int
    index: int

    def __call__(self) -> Frame:
        return Frame(make_scene(self.seed, self.index).image)


def make_scene(seed: int, index: int) -> Scene:
    """Compose one scene.

    Args:
        seed: Seed of the data set.
        index: Number of the scene.

    Returns:
        A scene of `SCENE_SIZE`.
    """
    generator = np.random.default_rng([seed, index])
    source = SOURCES[int(generator.integers(len(SOURCES)))]
    image = _background(source, generator)
    width, height = SCENE_SIZE
    boxes: list[Box] = []
    masks: list[Mask] = []
    for x, y in places_on(source, generator):
        depth = (y / height - source.horizon) / (1 - source.horizon)
        side = (SIDE_PX[0] + (SIDE_PX[1] - SIDE_PX[0]) * depth) * np.exp(generator.normal(0, SIDE_SCATTER))
        cutouts = vehicle_cutouts()
        vehicle = resized(cutouts[int(generator.integers(len(cutouts)))], float(side), bool(generator.integers(2)))
        tall, wide = vehicle.opacity.shape
        left, top = round(x - wide / 2), round(y - tall)
        solid = vehicle.opacity >= SOLID
        if left < 0 or top < 0 or left + wide > width or top + tall > height or min(tall, wide) < MIN_SIDE_PX:
            continue
        box = box_of(solid, left, top)
        if boxes and share_inside(as_array(boxes), as_array([box])).max() > MAX_OVERLAP:
            continue  # it would hide one that stands farther away
        patch = image[top : top + tall, left : left + wide].astype(np.float32)
        opacity = vehicle.opacity[..., None]
        image[top : top + tall, left : left + wide] = (patch * (1 - opacity) + vehicle.image * opacity).round()
        for mask in masks:
            mask[top : top + tall, left : left + wide] &= ~solid
        mask = np.zeros((height, width), bool)
        mask[top : top + tall, left : left + wide] = solid
        boxes.append(box)
        masks.append(mask)
    return Scene(image, tuple(boxes), tuple(masks))


def _background(source: Source, generator: np.random.Generator) -> Picture:
    """A random part of the picture's empty part, enlarged to the size of a scene."""
    scene = ground(source, generator, SCENE_SIZE)
    noise = 3 * generator.standard_normal(scene.shape, np.float32)  # enlarging takes a picture's grain away
    return np.asarray((scene * generator.uniform(0.85, 1.1) + noise).clip(0, 255), np.uint8)


def ground(source: Source, generator: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """A random part of a picture's empty part, enlarged to a size (width, height) of the shape of a scene.

    Args:
        source: The picture.
        generator: Chooses the part, and whether it is mirrored.
        size: Width and height in pixels.

    Returns:
        `(h, w, 3)` BGR.
    """
    x, y, width, height = source.scene
    part = read_source(source.picture)[y : y + height, x : x + width]
    wide = min(width, height * SCENE_SIZE[0] / SCENE_SIZE[1])
    left = generator.uniform(0, width - wide)
    part = part[:, round(left) : round(left + wide)]
    if generator.integers(2):
        part = part[:, ::-1]
    return cv2.resize(np.ascontiguousarray(part), size, interpolation=cv2.INTER_CUBIC).astype(np.float32)


def places_on(source: Source, generator: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Ground points of vehicles, the farthest first: groups, each a short row that leads into the depth."""
    width, height = SCENE_SIZE
    places = []
    for _ in range(int(generator.integers(GROUPS[0], GROUPS[1] + 1))):
        x = generator.uniform(0.05, 0.95) * width
        depth = generator.beta(1.2, 2.5)  # more groups are far away than near
        for _ in range(int(generator.integers(VEHICLES_IN_GROUP[0], VEHICLES_IN_GROUP[1] + 1))):
            scale = SIDE_PX[0] + (SIDE_PX[1] - SIDE_PX[0]) * depth
            ground = source.horizon + (1 - source.horizon) * depth
            places.append((x + generator.normal(0, 3.5 * scale), ground * height + generator.normal(0, 1.2 * scale)))
    lowest = source.horizon * height
    return iter(sorted(((x, y) for x, y in places if y > lowest + SIDE_PX[0]), key=lambda place: place[1]))


def resized(cutout: Cutout, side: float, mirrored: bool) -> Cutout:
    """A vehicle whose picture has this square root of an area, never larger than it is."""
    height, width = cutout.opacity.shape
    scale = min(1.0, side / np.sqrt(width * height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = cv2.resize(cutout.image, size, interpolation=cv2.INTER_AREA)
    opacity = cv2.resize(cutout.opacity, size, interpolation=cv2.INTER_AREA)
    step = -1 if mirrored else 1
    return Cutout(np.asarray(image[:, ::step], np.uint8), np.asarray(opacity[:, ::step], np.float32))


def box_of(solid: Mask, left: int, top: int) -> Box:
    """The box around a mask whose corner is at `left`, `top`."""
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    if not len(rows):
        return Box(left, top, 0, 0)
    return Box(
        float(left + columns[0]),
        float(top + rows[0]),
        float(columns[-1] - columns[0] + 1),
        float(rows[-1] - rows[0] + 1),
    )


@lru_cache(maxsize=1)
def vehicle_cutouts() -> tuple[Cutout, ...]:
    """The vehicles, separated from the road by GrabCut, without those that it cannot separate."""
    cutouts = []
    for source in SOURCES:
        frame = Frame(read_source(source.picture))
        detections = [Detection(CATEGORY, 1.0, Box(*map(float, box))) for box in source.vehicles]
        # Windows and bumpers are cut off here and there; `_filled` and the eye chose these vehicles.
        cutter = GrabCut(iterations=5, max_side=512, min_share=0.05, min_connected=0, max_gap=1)
        for mask in cutter.segment(frame, detections):
            opacity = cv2.GaussianBlur(_filled(mask.mask).astype(np.float32), (3, 3), 0)
            cutouts.append(Cutout(frame.image[mask.box.slices()].copy(), np.asarray(opacity, np.float32)))
    return tuple(cutouts)


def _filled(mask: Mask) -> Mask:
    """The largest part of a mask, without holes: windows are part of a car."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(filled, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return filled.astype(bool)


@lru_cache(maxsize=4)
def read_source(picture: PackagedFile) -> Picture:
    """Read a prefetched picture.

    Raises:
        AssetError: It was not prefetched; names the command that does.
    """
    return read_image(require(picture))
