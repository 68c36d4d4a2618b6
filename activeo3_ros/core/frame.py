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

"""The image of one camera at one moment, and the views of it that models are given."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from .errors import InvalidInput
from .geometry import Box, Boxes, sample_grid

Image = npt.NDArray[np.uint8]

GLOBAL_VIEW = -1
"""The `region` of a finding from the view of the whole frame rather than from a zoomed region."""


def check_image(image: object, who_needs: str) -> None:
    """Check that a value is a `(h, w, 3)` uint8 array; it may be empty.

    Args:
        image: The value.
        who_needs: Begins the message of the error, such as "a frame needs a".

    Raises:
        InvalidInput: It is anything else.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InvalidInput(f"{who_needs} (height, width, 3) uint8 BGR image, got {got}; convert it first")


class KnownObject(NamedTuple):
    """An object that the policy saw in the view of the whole frame; its box is in pixels of the view that holds it."""

    label: str
    box: Box
    score: float


@dataclass(frozen=True, eq=False)  # holds an array: compared and hashed by identity
class View:
    """A model's input: a window of the frame, resampled once.

    Attributes:
        frame: The frame that it shows a part of.
        window: That part, in whole source pixels.
        region: Index of the region that asked for it, or `GLOBAL_VIEW`.
        size: Width and height of the view, pixels.
        known: Objects that the policy saw in the view of the whole frame and that this one shows, in its own pixels.
    """

    frame: Frame
    window: Box
    region: int
    size: tuple[int, int]
    known: tuple[KnownObject, ...] = ()

    @cached_property
    def image(self) -> Image:
        """`(h, w, 3)` uint8, BGR; resampled at first use, so not at all for a model that does that on its device."""
        return np.ascontiguousarray(_resample(self.frame.image[self.window.slices()], self.size))

    def knowing(self, known: tuple[KnownObject, ...]) -> View:
        """The same view, told of objects."""
        told = replace(self, known=known)
        if "image" in vars(self):
            vars(told)["image"] = self.image
        return told

    @property
    def source_size(self) -> tuple[int, int]:
        """Width and height of the frame, pixels."""
        return self.frame.width, self.frame.height

    @property
    def width(self) -> int:
        """Pixels."""
        return self.size[0]

    @property
    def height(self) -> int:
        """Pixels."""
        return self.size[1]

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height

    @cached_property
    def zoom(self) -> float:
        """Linear magnification: view pixels per source pixel."""
        return math.sqrt(self.pixels / self.window.area)

    def _scale(self) -> Boxes:
        """View pixels per source pixel for x, y, width, height; the two axes differ by the rounding of the size."""
        x, y = self.width / self.window.width, self.height / self.window.height
        return np.array([x, y, x, y], np.float64)

    def to_source(self, boxes: npt.ArrayLike) -> Boxes:
        """`(n, 4)` boxes in view pixels to `(n, 4)` boxes in source pixels."""
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        return np.asarray(boxes / self._scale() + [self.window.x, self.window.y, 0, 0])

    def from_source(self, boxes: npt.ArrayLike) -> Boxes:
        """`(n, 4)` boxes in source pixels to `(n, 4)` boxes in view pixels; they may lie outside the view."""
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        return np.asarray((boxes - [self.window.x, self.window.y, 0, 0]) * self._scale())

    def box_to_source(self, box: Box) -> Box:
        """One box in view pixels to source pixels."""
        return Box(*self.to_source([box.as_tuple()])[0].tolist())

    def mask_to_source(self, mask: npt.NDArray[np.bool_], box: Box) -> tuple[Box, npt.NDArray[np.bool_]]:
        """The mask of an object in view pixels to one in source pixels.

        Args:
            mask: `(h, w)` bool that covers `box.snapped(...)` of this view.
            box: Of the object, view pixels.

        Returns:
            The box in source pixels, grown to whole ones inside the frame, and the mask that covers it.
        """
        patch, target = box.snapped(*self.size), self.box_to_source(box).snapped(*self.source_size)
        scale_x, scale_y = self._scale()[:2].tolist()
        # The centre of pixel i lies at i + 0.5.
        x = (np.arange(target.width) + 0.5 + target.x - self.window.x) * scale_x - patch.x
        y = (np.arange(target.height) + 0.5 + target.y - self.window.y) * scale_y - patch.y
        return target, sample_grid(mask.astype(np.float32), x, y) >= 0.5


@dataclass(frozen=True, eq=False)  # holds an array: compared and hashed by identity
class Frame:
    """One image of one camera.

    Attributes:
        image: `(h, w, 3)` uint8, BGR as OpenCV has it.
        stamp_ns: Time of capture in nanoseconds.
        frame_id: The camera's optical frame, as in the image's header.
        camera: The camera's name.

    Raises:
        InvalidInput: The image is not such an array, or has no pixels.
    """

    image: Image
    stamp_ns: int = 0
    frame_id: str = ""
    camera: str = ""

    def __post_init__(self) -> None:
        check_image(self.image, "a frame needs a")
        if self.width < 1 or self.height < 1:
            raise InvalidInput(f"a frame needs at least one pixel, got {self.width} x {self.height}")

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.image.shape[1])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.image.shape[0])

    @property
    def window(self) -> Box:
        """The whole frame as a box."""
        return Box(0.0, 0.0, float(self.width), float(self.height))

    def view(self, window: Box, size: tuple[int, int], region: int = GLOBAL_VIEW) -> View:
        """Resample a window of the frame.

        Args:
            window: In source pixels; it is grown to whole pixels.
            size: Width and height of the view, pixels.
            region: Index of the region that asks for it, or `GLOBAL_VIEW`.
        """
        window = window.snapped(self.width, self.height)
        return View(self, window, region, size)


def _resample(image: Image, size: tuple[int, int]) -> Image:
    """The image at `size` (width, height).

    Shrinking halves by averaging for as long as it can, which is exact and ten times as fast as averaging over
    fractions of pixels, and interpolates what is left of less than a factor of two.
    """
    while all(have % 2 == 0 and have >= 2 * want for have, want in zip(image.shape[1::-1], size, strict=True)):
        halved = image.shape[1] // 2, image.shape[0] // 2
        image = np.asarray(cv2.resize(image, halved, interpolation=cv2.INTER_AREA), np.uint8)
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    if max(width / size[0], height / size[1]) >= 2:
        interpolation = cv2.INTER_AREA
    elif size[0] * size[1] < width * height:
        interpolation = cv2.INTER_LINEAR
    else:
        interpolation = cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=interpolation), np.uint8)


def fit_within(width: float, height: float, max_pixels: int, max_side: int | None = None) -> tuple[int, int]:
    """The largest size of the same aspect that keeps to a limit.

    Args:
        width: Of the original, pixels.
        height: Of the original, pixels.
        max_pixels: Most pixels of the result.
        max_side: Most pixels of its longer side; None sets no limit.

    Returns:
        Width and height in whole pixels, at least 1 x 1.
    """
    scale = math.sqrt(max_pixels / (width * height))
    if max_side is not None:
        scale = min(scale, max_side / max(width, height))
    fitted = max(1, round(width * scale)), max(1, round(height * scale))
    # Rounding both sides up can exceed the budget by a row, and a side that is held at 1 px by much more.
    if fitted[0] >= fitted[1]:
        return max(1, min(fitted[0], max_pixels // fitted[1])), fitted[1]
    return fitted[0], max(1, min(fitted[1], max_pixels // fitted[0]))


@dataclass(frozen=True)
class InputSize:
    """The size of a detector's input, and how an image is fitted into it.

    Attributes:
        width: Pixels.
        height: Pixels.
        keeps_aspect: Whether both axes of an image are scaled by one factor until it fits, with padding beside it;
            else each is stretched to the input.
    """

    width: int
    height: int
    keeps_aspect: bool = True

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise InvalidInput(f"a detector's input has at least one pixel, got {self.width} x {self.height}")

    def view_size(self, width: float, height: float, max_pixels: int) -> tuple[int, int]:
        """The size at which a window of the frame is best handed to the detector; its aspect stays.

        Args:
            width: Of the window, source pixels.
            height: Of the window, source pixels.
            max_pixels: Most pixels that the view may have.

        Returns:
            Width and height in pixels: a view that the detector need not resample where it keeps the aspect, and has to
            shrink along one axis alone where it stretches.
        """
        scales = self.width / width, self.height / height
        scale = min(scales) if self.keeps_aspect else max(scales)
        return fit_within(width, height, max_pixels, max(1, round(max(width, height) * scale)))
