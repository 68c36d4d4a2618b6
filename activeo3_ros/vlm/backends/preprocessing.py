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

"""Preprocesses requests: pictures into patches of the vision tower, on the model's device, and prompts into tokens.

Patches are equal, up to rounding, to those of transformers' image processors for images that need no resizing, without
the way through PIL and float64 on the CPU.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import EngineError
from ...core.frame import Image
from ..engine import Prompt, Turn
from ..families import Family, conversation, picture, whole_cell_size

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PixelFormat:
    """The input of a vision tower.

    Attributes:
        patch_px: Side of a patch, in pixels.
        merge: Patches a side that become one token.
        frames: Times that a patch is repeated, as if it were a video of one image.
        mean: Of RGB from 0 to 1.
        std: Of RGB from 0 to 1.
    """

    patch_px: int = 14
    merge: int = 2
    frames: int = 2
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


def patches(images: Sequence[Image], spec: PixelFormat, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The patches of images.

    Args:
        images: `(h, w, 3)` uint8 BGR, whose sides are multiples of `patch_px * merge`.
        spec: Of the model.
        device: To compute on.

    Returns:
        `(n, 3 * frames * patch_px**2)` float32 patches, in the order of the tokens that `merge` x `merge` of them make,
        as in Qwen2-VL's processor; and `(images, 3)` grids: 1, rows, columns of each image.
    """
    import torch

    rows = [image_patches(image, spec, device) for image in images]
    grids = [[1, image.shape[0] // spec.patch_px, image.shape[1] // spec.patch_px] for image in images]
    return torch.cat(rows), torch.tensor(grids, device=device)


def image_patches(image: Image, spec: PixelFormat, device: torch.device) -> torch.Tensor:
    """The patches of one image: see `patches`."""
    import torch

    side, merge = spec.patch_px, spec.merge
    mean, scale = _normalization(spec, device)
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device, non_blocking=True)
    pixels = (pixels.flip(2).permute(2, 0, 1).float() - mean) * scale
    high, wide = image.shape[0] // side, image.shape[1] // side
    tiled = pixels.reshape(3, high // merge, merge, side, wide // merge, merge, side).permute(1, 4, 2, 5, 0, 3, 6)
    repeated = tiled.unsqueeze(5).expand(-1, -1, -1, -1, -1, spec.frames, -1, -1)
    return repeated.reshape(high * wide, 3 * spec.frames * side * side)


@functools.lru_cache(16)
def _normalization(spec: PixelFormat, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """`(3, 1, 1)` each: mean of the values of a channel, 0 to 255, and the factor after its subtraction."""
    import torch

    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (spec.mean, spec.std))
    return mean.to(device), (1 / std).to(device)  # complete when this returns, whatever stream reads it


def image_in_cells(image: Image, family: Family) -> Image:
    """The image in whole cells; views that `Family.fit` sized pass through as they are."""
    import cv2

    height, width = image.shape[:2]
    cell = family.cell_px
    if height % cell == 0 and width % cell == 0:
        return image
    size = whole_cell_size(width, height, family)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def pixel_format(directory: Path, vision: Any) -> PixelFormat:
    """The pixel format of a checkpoint; values that it does not name are those of the published models.

    Args:
        directory: Of the checkpoint.
        vision: The configuration of its vision tower.

    Raises:
        EngineError: Its preprocessor_config.json cannot be read.
    """
    default, values = PixelFormat(), preprocessor_settings(directory)
    return PixelFormat(
        int(vision.patch_size),
        int(vision.spatial_merge_size),
        int(vision.temporal_patch_size),
        tuple(values.get("image_mean", default.mean)),
        tuple(values.get("image_std", default.std)),
    )


def preprocessor_settings(directory: Path) -> dict[str, Any]:
    """The settings of a checkpoint's image processor; none where it brings none.

    Raises:
        EngineError: Its preprocessor_config.json cannot be read.
    """
    path = directory / "preprocessor_config.json"
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path}: not readable as JSON: {(str(error) or repr(error)).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise EngineError(f"{path}: must hold a JSON object")
    return values


def request_text(prompt: Prompt, family: Family, turns: Sequence[Turn] = ()) -> str:
    """A conversation up to the answer, one image token for each picture."""
    said = [(turn.answer, f"{turn.before}{picture() if turn.image is not None else ''}{turn.after}") for turn in turns]
    start = "" if prompt.thinks else family.no_thoughts
    return conversation(prompt.system, prompt.before, prompt.after, prompt.prefix, start=start, turns=said)


def prompt_ids(
    tokenizer: Any, prompt: Prompt, family: Family, cells: Sequence[int], image_id: int, turns: Sequence[Turn] = ()
) -> list[int]:
    """The tokens of a conversation up to the answer, with one image token for each of the `cells` of each image."""
    ids: list[int] = tokenizer(request_text(prompt, family, turns), add_special_tokens=False).input_ids
    counts = iter(cells)
    return [token for each in ids for token in ([each] * next(counts) if each == image_id else [each])]
