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

"""The calls of the released demo script of ACTIVE-o3: the sizes of its pictures, its crops, its limit of tokens.

The setting `as_released` makes them in place of ours; docs/reference/released-calls.md compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..assets.weights import local_model, model_of
from ..core.budget import Budget
from ..core.errors import InvalidInput
from ..core.geometry import Box
from .backends.preprocessing import preprocessor_settings
from .engine import Prompt
from .families import QWEN2_5_VL, Family, whole_cell_size
from .imported_prompts import IMPORT, Wording

SHORTER_SIDE = 1024
"""Pixels: a smaller picture is enlarged to it before all else."""
MIN_CROP_PIXELS = 705_600
"""Pixels: 900 cells; a smaller crop is enlarged to them."""
MAX_PIXELS = 12_845_056
"""Pixels of any picture: the limit of the tools, and of the published models' processor."""
MAX_TOKENS = 1300
"""Of an answer."""
INSET_PX = 0.25
"""Keeps a box of whole source pixels from growing by another one where it is rounded outwards again."""


@dataclass(frozen=True)
class PixelLimits:
    """The limits of a checkpoint's image processor, which the script leaves as they are; least and most pixels."""

    least: int = 56 * 56
    most: int = MAX_PIXELS

    @staticmethod
    def of(settings: Mapping[str, Any]) -> PixelLimits:
        """Those of the model that a component loads; of the published models where it runs elsewhere.

        Args:
            settings: Of the component.

        Raises:
            EngineError: The checkpoint's preprocessor_config.json is damaged.
        """
        model = model_of(settings)
        values = preprocessor_settings(local_model(model)) if model else {}
        size = values.get("size") or {}
        least = values.get("min_pixels") or size.get("shortest_edge") or PixelLimits.least
        most = values.get("max_pixels") or size.get("longest_edge") or PixelLimits.most
        return PixelLimits(int(least), int(most))


def check_as_released(wording: Wording, family: Family) -> None:
    """Check that the calls of the script can be made.

    Raises:
        InvalidInput: The words are not the script's, or the model is of another family.
    """
    if not wording.released:
        raise InvalidInput(
            f"as_released needs the words of the released script, and these are {wording.used}; run: {IMPORT}"
        )
    if family != QWEN2_5_VL:
        raise InvalidInput(f"as_released: the script is made for {QWEN2_5_VL.name}, this model is {family.name}")


def view_size(width: int, height: int, max_pixels: int, limits: PixelLimits = PixelLimits()) -> tuple[int, int]:
    """Width and height of the view of a whole frame.

    Args:
        width: Of the frame, source pixels.
        height: Of the frame, source pixels.
        max_pixels: Of the budget.
        limits: Of the checkpoint.

    Raises:
        InvalidInput: The script would enlarge the frame first, or the budget is too small.
    """
    if min(width, height) < SHORTER_SIDE:
        raise InvalidInput(
            f"as_released: the script enlarges a picture of {width} x {height} px to {SHORTER_SIDE} px a side before "
            "it crops; give it enlarged"
        )
    size = whole_cell_size(width, height, QWEN2_5_VL, limits.least, limits.most)
    return _within_budget(size, max_pixels, "view_pixels")


def crop_size(width: float, height: float, max_pixels: int, limits: PixelLimits = PixelLimits()) -> tuple[int, int]:
    """Width and height of a crop. Arguments and errors as of `view_size`."""
    handed_on = whole_cell_size(round(width), round(height), QWEN2_5_VL, MIN_CROP_PIXELS, MAX_PIXELS)
    size = whole_cell_size(*handed_on, QWEN2_5_VL, limits.least, limits.most)
    return _within_budget(size, max_pixels, "crop_pixels")


def _within_budget(size: tuple[int, int], max_pixels: int, name: str) -> tuple[int, int]:
    if size[0] * size[1] > max_pixels:
        raise InvalidInput(
            f"as_released: the script shows this picture at {size[0]} x {size[1]} px, and the budget has {max_pixels}; "
            f"set {name}: {MAX_PIXELS}"
        )
    return size


def crop_box(
    corners: tuple[float, float, float, float], input_size: tuple[int, int], frame_size: tuple[int, int]
) -> Box | None:
    """The pixels that the script crops for a box, a little inside of their borders.

    Args:
        corners: `x1, y1, x2, y2` as the model writes them.
        input_size: Width and height at which the model saw the frame, pixels.
        frame_size: Width and height of the frame, source pixels.

    Returns:
        The box in source pixels; None where it is empty.
    """
    # Single precision, then cut off: it decides which pixel a border falls on.
    share = np.array(corners, np.float32).reshape(2, 2) / np.array(input_size, np.float32)
    (x1, y1), (x2, y2) = (share * np.array(frame_size, np.float32)).astype(int).tolist()
    x1, y1 = min(max(x1, 0), frame_size[0] - 1), min(max(y1, 0), frame_size[1] - 1)
    x2, y2 = min(max(x2, 0), frame_size[0]), min(max(y2, 0), frame_size[1])
    if x2 <= x1 or y2 <= y1:
        return None
    return Box(x1 + INSET_PX, y1 + INSET_PX, x2 - x1 - 2 * INSET_PX, y2 - y1 - 2 * INSET_PX)


def unhelped(prompt: Prompt) -> Prompt:
    """The same words without a forced beginning, stop texts or a grammar, which the script does not have."""
    return replace(prompt, prefix="", stop=(), regex="")


def token_limit(budget: Budget) -> int:
    """The limit of tokens of an answer.

    Raises:
        InvalidInput: The budget has fewer.
    """
    if budget.max_tokens < MAX_TOKENS:
        raise InvalidInput(
            f"as_released: the script lets the model write {MAX_TOKENS} tokens, and the budget has "
            f"{budget.max_tokens}; set max_tokens: {MAX_TOKENS}"
        )
    return MAX_TOKENS
