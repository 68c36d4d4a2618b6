"""From pictures to what the vision tower takes, on the device that the model runs on.

The same numbers as transformers' image processors give for images that need no resizing, without their way through
PIL and float64 on the CPU.
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
from ..families import Family, prepared_size

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PixelFormat:
    """How a model wants its pixels; mean and std are for RGB from 0 to 1."""

    patch_px: int = 14
    merge: int = 2
    frames: int = 2
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


def patches(images: Sequence[Image], form: PixelFormat, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """`(n, 3 * frames * patch_px**2)` float32 patches, and `(images, 3)` grids: 1, rows, columns of each image.

    Images are `(h, w, 3)` uint8 BGR whose sides are multiples of `patch_px * merge`. Patches come in the order of the
    tokens that `merge` x `merge` of them make, as Qwen2-VL's processor has it.
    """
    import torch

    rows = [image_patches(image, form, device) for image in images]
    grids = [[1, image.shape[0] // form.patch_px, image.shape[1] // form.patch_px] for image in images]
    return torch.cat(rows), torch.tensor(grids, device=device)


def image_patches(image: Image, form: PixelFormat, device: torch.device) -> torch.Tensor:
    """The patches of one image: see `patches`."""
    import torch

    side, merge = form.patch_px, form.merge
    mean, scale = _normalization(form, device)
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device, non_blocking=True)
    pixels = (pixels.flip(2).permute(2, 0, 1).float() - mean) * scale
    high, wide = image.shape[0] // side, image.shape[1] // side
    tiled = pixels.reshape(3, high // merge, merge, side, wide // merge, merge, side).permute(1, 4, 2, 5, 0, 3, 6)
    repeated = tiled.unsqueeze(5).expand(-1, -1, -1, -1, -1, form.frames, -1, -1)
    return repeated.reshape(high * wide, 3 * form.frames * side * side)


@functools.lru_cache(16)
def _normalization(form: PixelFormat, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """`(3, 1, 1)` each: what is taken off the values of a channel, 0 to 255, and what the rest is multiplied by."""
    import torch

    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (form.mean, form.std))
    return mean.to(device), (1 / std).to(device)  # complete when this returns, whatever stream reads it


def image_in_cells(image: Image, family: Family) -> Image:
    """The image in whole cells; views that `Family.fit` sized pass through as they are."""
    import cv2

    height, width = image.shape[:2]
    cell = family.cell_px
    if height % cell == 0 and width % cell == 0:
        return image
    size = prepared_size(width, height, family)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def pixel_format(directory: Path, vision: Any) -> PixelFormat:
    """What a checkpoint says about its pixels; what it does not say is as in the published models.

    vision: the configuration of its vision tower. Raises EngineError for a file that cannot be read.
    """
    path = directory / "preprocessor_config.json"
    default = PixelFormat()
    values: Any = {}
    if path.is_file():
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise EngineError(f"{path}: not readable as JSON: {(str(error) or repr(error)).splitlines()[0]}") from error
        if not isinstance(values, dict):
            raise EngineError(f"{path}: must hold a JSON object")
    return PixelFormat(
        int(vision.patch_size),
        int(vision.spatial_merge_size),
        int(vision.temporal_patch_size),
        tuple(values.get("image_mean", default.mean)),
        tuple(values.get("image_std", default.std)),
    )
