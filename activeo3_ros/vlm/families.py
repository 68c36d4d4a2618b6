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

"""The families of Qwen vision-language models: their image sizes, coordinates and chat template.

Qwen2.5-VL writes coordinates in pixels of the image as the model gets it, after its resizing to whole patches; Qwen3-VL
and Qwen3.5 write them in thousandths of the image's sides, whatever its size. The template of Qwen3.5 begins an answer
without thoughts with an empty pair of their tags.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.budget import MAX_VIEW_PIXELS
from ..core.errors import InvalidInput
from ..core.frame import View
from ..core.geometry import Box, from_corners, to_corners

MAX_ASPECT = 200
"""Qwen's image processors refuse a longer strip."""
IMAGE_TOKEN = "<|image_pad|>"


@dataclass(frozen=True)
class Family:
    """One generation of models.

    Attributes:
        name: The `model_type` of a model's config.json.
        cell_px: Side of the square of pixels that becomes one token; both sides of an image are multiples of it.
        thousandths: Whether coordinates run from 0 to 1000 instead of over the pixels of the model's input.
        no_thoughts: What the chat template writes at the beginning of an answer that is to have no thoughts.
    """

    name: str
    cell_px: int
    thousandths: bool
    no_thoughts: str = ""

    def fit(self, width: float, height: float, max_pixels: int, shorter_side: int | None = None) -> tuple[int, int]:
        """The size, in whole cells, at which the model should see an image.

        Args:
            width: Of the image, in any unit.
            height: Of the image, in the same unit.
            max_pixels: Of the result, which has at least one cell.
            shorter_side: Of the result at most, in pixels; None for as large as `max_pixels` allows.

        Returns:
            Width and height in pixels, near to the aspect of the image.
        """
        cell = self.cell_px
        aspect = min(max(width / height, 1 / MAX_ASPECT), MAX_ASPECT)
        scale = math.sqrt(max_pixels / (aspect * cell * cell))
        if shorter_side is not None:
            scale = min(scale, shorter_side / cell / min(aspect, 1.0))
        columns, rows = max(1, round(scale * aspect)), max(1, round(scale))
        while columns * rows * cell * cell > max_pixels and columns * rows > 1:
            # Take from the side that this brings nearer to the aspect.
            fewer_columns = rows == 1 or (columns > 1 and columns / rows > aspect)
            columns, rows = (columns - 1, rows) if fewer_columns else (columns, rows - 1)
        longest = MAX_ASPECT - 1
        return min(columns, rows * longest) * cell, min(rows, columns * longest) * cell

    def extent(self, input_size: tuple[int, int]) -> tuple[float, float]:
        """The largest x and y that the model writes, for an image seen at `input_size` (width, height in pixels)."""
        return (1000.0, 1000.0) if self.thousandths else (float(input_size[0]), float(input_size[1]))

    def to_view(
        self, corners: npt.ArrayLike, input_size: tuple[int, int], view_size: tuple[int, int]
    ) -> npt.NDArray[np.float64]:
        """Convert the model's coordinates to pixels of the view.

        Args:
            corners: `(n, 4)`, `x1, y1, x2, y2` as the model writes them.
            input_size: Width and height at which the model saw the view, in pixels.
            view_size: Width and height of the view, in pixels.

        Returns:
            `(n, 4)` boxes `x, y, width, height` in pixels of the view.
        """
        scale = np.array(view_size, np.float64) / self.extent(input_size)
        return from_corners(np.asarray(corners, np.float64).reshape(-1, 4) * np.tile(scale, 2))

    def from_view(self, box: Box, input_size: tuple[int, int], view: View) -> tuple[int, int, int, int]:
        """Convert a box in pixels of the view to rounded corners `x1, y1, x2, y2` in the model's coordinates."""
        scale = np.array(self.extent(input_size)) / (view.width, view.height)
        x1, y1, x2, y2 = np.rint(to_corners([box.as_tuple()])[0] * np.tile(scale, 2)).astype(int).tolist()
        return x1, y1, x2, y2


QWEN2_5_VL = Family("qwen2_5_vl", cell_px=28, thousandths=False)
QWEN3_VL = Family("qwen3_vl", cell_px=32, thousandths=True)
QWEN3_VL_MOE = Family("qwen3_vl_moe", cell_px=32, thousandths=True)
QWEN3_5 = Family("qwen3_5", cell_px=32, thousandths=True, no_thoughts="<think>\n\n</think>\n\n")
QWEN3_5_MOE = Family("qwen3_5_moe", cell_px=32, thousandths=True, no_thoughts=QWEN3_5.no_thoughts)
FAMILIES = {family.name: family for family in (QWEN2_5_VL, QWEN3_VL, QWEN3_VL_MOE, QWEN3_5, QWEN3_5_MOE)}
"""By the `model_type` of a model's config.json."""


def family_named(model_type: str) -> Family:
    """The family of a `model_type`.

    Raises:
        InvalidInput: The coordinates of this type of model are not known.
    """
    if model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise InvalidInput(f"unknown family {model_type!r}: its coordinates are not known; known are {known}")
    return FAMILIES[model_type]


def whole_cell_size(
    width: int, height: int, family: Family, min_pixels: int = 0, max_pixels: int = MAX_VIEW_PIXELS
) -> tuple[int, int]:
    """Width and height to which the models' own tools resize a picture that is not in whole cells.

    The tools are qwen-vl-utils where it can be imported, else transformers, with the same sizes; strips too long for
    both are fitted.

    Args:
        width: Of the picture, pixels.
        height: Of the picture, pixels.
        family: Of the model.
        min_pixels: A smaller picture is enlarged to as many.
        max_pixels: A larger picture is shrunk to as many.
    """
    if max(width, height) >= MAX_ASPECT * min(width, height):
        return family.fit(width, height, min(max(width * height, min_pixels, family.cell_px**2), max_pixels))
    limits = {"factor": family.cell_px, "min_pixels": max(min_pixels, family.cell_px**2), "max_pixels": max_pixels}
    high, wide = _smart_resize()(height, width, **limits)
    return int(wide), int(high)


@functools.cache
def _smart_resize() -> Any:
    try:
        # Imports torchvision at its top, which not every machine has.
        return importlib.import_module("qwen_vl_utils.vision_process").smart_resize
    except ImportError:
        models = "transformers.models.qwen2_vl.image_processing"
        try:
            return importlib.import_module(f"{models}_pil_qwen2_vl").smart_resize
        except ImportError:  # before transformers 5
            return importlib.import_module(f"{models}_qwen2_vl").smart_resize


def conversation(
    system: str,
    before: str,
    after: str,
    prefix: str,
    image: str = IMAGE_TOKEN,
    start: str = "",
    turns: Sequence[tuple[str, str]] = (),
) -> str:
    """A conversation in ChatML, up to the answer of the model.

    Args:
        system: The system's message.
        before: The user's message before the picture.
        after: The user's message after the picture.
        prefix: The forced beginning of the answer.
        image: The placeholder of the picture, one image token or as many as it needs.
        start: What the template writes at the beginning of every answer (`Family.no_thoughts`).
        turns: The model's earlier answers, each with the whole message that followed it.
    """
    parts = [f"<|im_start|>system\n{system}<|im_end|>\n", _user(f"{before}{picture(image)}{after}")]
    for answer, message in turns:
        parts += [f"<|im_start|>assistant\n{start}{answer}<|im_end|>\n", _user(message)]
    return "".join([*parts, f"<|im_start|>assistant\n{start}{prefix}"])


def picture(image: str = IMAGE_TOKEN) -> str:
    """The placeholder of a picture with the tokens around it."""
    return f"<|vision_start|>{image}<|vision_end|>"


def _user(message: str) -> str:
    return f"<|im_start|>user\n{message}<|im_end|>\n"


CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""`conversation` as a Jinja template, for checkpoints that bring none for pictures."""
