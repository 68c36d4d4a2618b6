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

"""From images to the inputs of an ONNX detector: finds what the graph asks for, fits images into it, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from ..assets.onnx_session import Tensor
from ..core.errors import InvalidInput
from ..core.frame import Image, check_image
from ..core.geometry import Boxes, sample_grid

Letterbox = Literal["stretch", "top_left", "centre"]
"""How an image is fitted into the input: both axes stretched, or one factor for both and padding beside the image."""
SIDES_PX = (16, 8192)
"""The smallest and the largest side of an input."""
MAX_BATCH = 256
"""Most images that a graph may demand of one run."""
PIXEL_TYPES = ("float32", "float16", "float64", "uint8")
SIZES = "sizes"
MASK = "mask"
SHAPE = "shape"
FACTORS = "factors"


@dataclass(frozen=True)
class Preprocessing:
    """What is done to pixels: `(pixel * scale - mean) / std`.

    Attributes:
        scale: Factor from 0 to 255 to the range that the model was trained with.
        mean: One for each channel, in the order of `channels`, after scaling.
        std: As `mean`.
        channels: "rgb" or "bgr".
        letterbox: How an image is fitted into the input.
        padding: Grey level, 0 to 255, beside the image.
    """

    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: str = "rgb"
    letterbox: str = "stretch"
    padding: int = 114


class Placement(NamedTuple):
    """Where an image lies in the input: input pixels per image pixel along each axis, and its left and top edge.

    `width` and `height` are those of the image.
    """

    scale_x: float
    scale_y: float
    left: int
    top: int
    width: int
    height: int

    def to_image(self, corners: npt.ArrayLike) -> Boxes:
        """`(n, 4)` x1, y1, x2, y2 in pixels of the input to the same in pixels of the image, clipped to it."""
        corners = np.asarray(corners, np.float64).reshape(-1, 4)
        moved = (corners - [self.left, self.top] * 2) / ([self.scale_x, self.scale_y] * 2)
        return np.asarray(np.clip(moved, 0, [self.width, self.height] * 2))

    def resample(
        self,
        part: Callable[[slice, slice], npt.NDArray[np.float32]],
        shape: tuple[int, int],
        width: int,
        height: int,
        rows: slice,
        columns: slice,
    ) -> npt.NDArray[np.float32]:
        """A map over the whole input, of any resolution, at pixels of the image, by bilinear interpolation.

        Args:
            part: Gives the values of the map in rows and columns of its grid; asked for those that are needed.
            shape: Rows and columns of that grid.
            width: Of the input, pixels.
            height: Of the input, pixels.
            rows: Those of the image that are wanted.
            columns: As `rows`.

        Returns:
            One value for each of these pixels.
        """
        # The centre of pixel i lies at i + 0.5.
        x, y = np.arange(columns.start, columns.stop) + 0.5, np.arange(rows.start, rows.stop) + 0.5
        across = (x * self.scale_x + self.left) * (shape[1] / width)
        down = (y * self.scale_y + self.top) * (shape[0] / height)
        near_x, near_y = _cells_about(across, shape[1]), _cells_about(down, shape[0])
        return sample_grid(part(near_y, near_x), across - near_x.start, down - near_y.start)


def _cells_about(positions: npt.NDArray[np.float64], count: int) -> slice:
    """The cells of `count` between whose centres rising positions lie."""
    start = min(max(int(positions[0] - 0.5), 0), count - 1)
    return slice(start, max(start + 1, min(int(positions[-1] + 0.5) + 1, count)))


def fit(image: Image, width: int, height: int, letterbox: str, padding: int) -> tuple[Image, Placement]:
    """Scale an image onto a canvas; one that fits already is not resampled.

    Shrinking averages, so that small things do not flicker with the sampling; enlarging interpolates.

    Args:
        image: `(h, w, 3)` uint8 BGR.
        width: Of the canvas, pixels.
        height: Of the canvas, pixels.
        letterbox: See `Letterbox`.
        padding: Grey level beside the image.

    Returns:
        The `(height, width, 3)` uint8 canvas, and where the image lies on it.

    Raises:
        InvalidInput: The array is not such an image.
    """
    check_image(image, "the detector needs a")
    rows, columns = image.shape[:2]
    if rows < 1 or columns < 1:
        raise InvalidInput(f"the detector needs images of at least one pixel, got {columns} x {rows}")
    size = width, height
    if letterbox != "stretch":
        scale = min(width / columns, height / rows)
        size = max(1, round(columns * scale)), max(1, round(rows * scale))
    if size != (columns, rows):
        shrinks = size[0] * size[1] < columns * rows
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))
    left, top = (0, 0) if letterbox != "centre" else ((width - size[0]) // 2, (height - size[1]) // 2)
    placement = Placement(size[0] / columns, size[1] / rows, left, top, columns, rows)
    if size == (width, height):
        return image, placement
    canvas = np.full((height, width, 3), padding, np.uint8)
    canvas[top : top + size[1], left : left + size[0]] = image
    return canvas, placement


@dataclass(frozen=True)
class ModelInputs:
    """The inputs of a detector.

    Attributes:
        image: Name of the input that takes images.
        width: Of the image, pixels.
        height: Of the image, pixels.
        channels_last: Whether images are `(n, h, w, 3)` instead of `(n, 3, h, w)`.
        dtype: The element type of images.
        batch: Images that one run takes; None for any number.
        others: The kind and the type of each other input by name: `SIZES`, width and height; `SHAPE`, height and width;
            `FACTORS` of scaling, which are 1, so that boxes are in pixels of the input; `MASK` of the image's pixels.
    """

    image: str
    width: int
    height: int
    channels_last: bool
    dtype: str
    batch: int | None
    others: Mapping[str, tuple[str, str]]

    def feeds(self, canvases: Sequence[Image], preprocessing: Preprocessing) -> dict[str, npt.NDArray[Any]]:
        """The arrays of one run.

        Args:
            canvases: Each `(height, width, 3)` uint8 BGR.
            preprocessing: What is done to the pixels.
        """
        feeds: dict[str, npt.NDArray[Any]] = {self.image: self._pixels(np.stack(canvases), preprocessing)}
        for name, (kind, dtype) in self.others.items():
            if kind == MASK:
                feeds[name] = np.ones((len(canvases), self.height, self.width), dtype)
            else:
                pair = {SIZES: (self.width, self.height), SHAPE: (self.height, self.width), FACTORS: (1, 1)}[kind]
                feeds[name] = np.tile(np.array(pair, dtype), (len(canvases), 1))
        return feeds

    def _pixels(self, canvases: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> npt.NDArray[Any]:
        if preprocessing.channels == "rgb":
            canvases = canvases[..., ::-1]
        if self.dtype == "uint8":
            pixels: npt.NDArray[Any] = canvases
        else:
            pixels = canvases.astype(np.float32)
            if preprocessing.scale != 1:
                pixels *= np.float32(preprocessing.scale)
            if any(preprocessing.mean):
                pixels -= np.array(preprocessing.mean, np.float32)
            if preprocessing.std != (1.0, 1.0, 1.0):
                pixels /= np.array(preprocessing.std, np.float32)
            pixels = pixels.astype(self.dtype, copy=False)
        return np.ascontiguousarray(pixels if self.channels_last else pixels.transpose(0, 3, 1, 2))


def read_inputs(tensors: Iterable[Tensor], size: Sequence[int] | None, known_size: Sequence[int] | None) -> ModelInputs:
    """Find what the graph asks for.

    Args:
        tensors: The inputs of the graph.
        size: Width and height that the user sets, for a graph that leaves them free.
        known_size: The same from the file's metadata.

    Returns:
        The inputs.

    Raises:
        InvalidInput: No input or several take images, one is not understood, or the size is not known; the message
            says what was seen and the setting that decides.
    """
    tensors = list(tensors)
    seen = "; ".join(map(str, tensors)) or "none"
    images = [each for each in tensors if _takes_images(each)]
    if len(images) != 1:
        raise InvalidInput(f"{'no input takes' if not images else 'several inputs take'} colour images; inputs: {seen}")
    image = images[0]
    if image.dtype not in PIXEL_TYPES:
        raise InvalidInput(f"images must be of one of the types {', '.join(PIXEL_TYPES)}; inputs: {seen}")
    if (image.shape[0] or 1) > MAX_BATCH:
        raise InvalidInput(
            f"the graph takes no fewer than {image.shape[0]} images, more than {MAX_BATCH}; inputs: {seen}"
        )
    others = {each.name: _other_input(each, seen) for each in tensors if each is not image}
    channels_last = image.shape[1] != 3 and image.shape[3] == 3
    graph = (image.shape[2], image.shape[1]) if channels_last else (image.shape[3], image.shape[2])
    width, height = _input_size(graph, size, known_size, seen)
    return ModelInputs(image.name, width, height, channels_last, image.dtype, image.shape[0], others)


def _takes_images(tensor: Tensor) -> bool:
    if len(tensor.shape) != 4 or tensor.dtype.startswith(("int", "bool", "string")):
        return False
    return 3 in (tensor.shape[1], tensor.shape[3]) or tensor.shape[1] is None


def _other_input(tensor: Tensor, seen: str) -> tuple[str, str]:
    """The kind and the type of an input that takes no images. Raises InvalidInput for one that is not understood."""
    is_pair = tensor.dtype.startswith(("int", "float")) and len(tensor.shape) == 2 and tensor.shape[1] in (2, None)
    for word, kind in (("size", SIZES), ("im_shape", SHAPE), ("scale_factor", FACTORS)):
        if is_pair and word in tensor.name.lower():
            return kind, tensor.dtype
    if len(tensor.shape) == 3 and "mask" in tensor.name.lower():
        return MASK, tensor.dtype
    raise InvalidInput(f"the input {tensor.name!r} is not understood; export the model without it; inputs: {seen}")


def _input_size(
    graph: tuple[int | None, int | None], size: Sequence[int] | None, known: Sequence[int] | None, seen: str
) -> tuple[int, int]:
    low, high = SIDES_PX
    if size is not None and (len(size) != 2 or not all(low <= side <= high for side in size)):
        raise InvalidInput(f"input must be a width and a height of {low} to {high} pixels, got {list(size)}")
    if size is not None and any(side not in (None, given) for side, given in zip(graph, size, strict=True)):
        raise InvalidInput(f"input is {size[0]} x {size[1]}, but the graph fixes another size; inputs: {seen}")
    found = [side or (size[axis] if size else known[axis] if known else None) for axis, side in enumerate(graph)]
    if found[0] is None or found[1] is None:
        raise InvalidInput(f"the graph leaves the size of its input free: set input to [width, height]; inputs: {seen}")
    if not all(1 <= side <= high for side in found if side is not None):
        raise InvalidInput(f"an input of {found[0]} x {found[1]} pixels is larger than {high}; inputs: {seen}")
    return found[0], found[1]
