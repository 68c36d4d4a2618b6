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

"""How the detectors of transformers look at an image: its library's image processor, and what that does as numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..assets.pretrained import load_processor
from ..core.errors import EngineError
from ..core.frame import Image, InputSize
from ..core.optional import has_package, require_package

SETTINGS = "preprocessor_config.json"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EdgeLimits(InputSize):
    """An input without padding: the shorter edge of an image is scaled to `height`, unless the longer passes `width`.

    As DETR has it; an upright image gets an upright input.
    """

    def view_size(self, width: float, height: float, max_pixels: int) -> tuple[int, int]:
        if width >= height:
            return super().view_size(width, height, max_pixels)
        flipped = super().view_size(height, width, max_pixels)
        return flipped[1], flipped[0]


def load_image_processor(directory: Path, purpose: str) -> Any:
    """Load the image processor of a model.

    Args:
        directory: Of the model.
        purpose: Completes "is needed …" in the message where a package is missing.

    Returns:
        A callable of the library; of RF-DETR, whose one needs torchvision, this module's where that is missing.

    Raises:
        MissingPackageError: A package that it needs is not installed.
        EngineError: It cannot be loaded.
    """
    if not has_package("torchvision") and _processor_type(directory).startswith("RfDetr"):
        return RfDetrImages.load(directory)
    processor = load_processor(str(directory), "AutoImageProcessor", purpose)
    if type(processor).__name__ == "Owlv2ImageProcessorPil":
        require_package("scipy", f"{purpose} that fits images as OWLv2 does")
    return processor


def input_size_of(processor: Any) -> InputSize:
    """The size at which a model looks at an image, from its image processor.

    Raises:
        EngineError: It says no size.
    """
    size = processor.size if isinstance(processor.size, Mapping) else vars(processor.size)
    limits = {name: int(value) for name, value in size.items() if value}
    if {"height", "width"} <= limits.keys():
        pads = type(processor).__name__.startswith("Owlv2")  # to a square, before it resizes
        return InputSize(limits["width"], limits["height"], keeps_aspect=pads)
    if {"max_height", "max_width"} <= limits.keys():
        return InputSize(limits["max_width"], limits["max_height"])
    longest = limits.get("longest_edge") or limits.get("shortest_edge")
    if longest is None:
        raise EngineError(f"the image processor {type(processor).__name__} has no size known here: {limits}")
    return EdgeLimits(longest, min(longest, limits.get("shortest_edge", longest)))


def normalisation_of(processor: Any) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    """What an image processor does to grey levels: times a scale, minus a mean, divided by a deviation.

    Returns:
        The scale; mean and deviation of red, green and blue.
    """
    scale = float(processor.rescale_factor) if processor.do_rescale else 1.0
    if not processor.do_normalize:
        return scale, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return scale, tuple(map(float, processor.image_mean)), tuple(map(float, processor.image_std))


@dataclass(frozen=True)
class RfDetrImages:
    """Fits images as the image processor of RF-DETR does: grey levels scaled, stretched bilinearly, normalised.

    Attributes:
        size: `height` and `width` of the input in pixels.
        image_mean: Of red, green and blue.
        image_std: Of red, green and blue.
        do_normalize: Whether to subtract the mean and divide by the deviation.
        rescale_factor: For grey levels.
    """

    size: Mapping[str, int]
    image_mean: Sequence[float] = IMAGENET_MEAN
    image_std: Sequence[float] = IMAGENET_STD
    do_normalize: bool = True
    do_rescale: bool = True
    rescale_factor: float = 1 / 255

    @classmethod
    def load(cls, directory: Path) -> RfDetrImages:
        """Read the settings of a model. Raises EngineError for one that needs the library's own processor."""
        settings = _settings(directory)
        size = settings.get("size")
        if not isinstance(size, dict) or not {"height", "width"} <= size.keys():
            raise EngineError(f"{directory / SETTINGS}: size {size} needs torchvision; run: pip install torchvision")
        names = {name for name in cls.__dataclass_fields__ if settings.get(name) is not None}
        return cls(**{name: settings[name] for name in names})

    def __call__(self, images: Sequence[Image], **_: Any) -> dict[str, Any]:
        """Fit images; returns `pixel_values` `(n, 3, h, w)`."""
        import torch

        size = self.size["height"], self.size["width"]
        factor = self.rescale_factor if self.do_rescale else 1.0
        planes = [torch.from_numpy(image).permute(2, 0, 1)[None].float() * factor for image in images]
        values = torch.cat([torch.nn.functional.interpolate(each, size, mode="bilinear") for each in planes])
        if self.do_normalize:
            mean, std = (torch.tensor(each)[:, None, None] for each in (self.image_mean, self.image_std))
            values = (values - mean) / std
        return {"pixel_values": values}


def _processor_type(directory: Path) -> str:
    return str(_settings(directory).get("image_processor_type", ""))


def _settings(directory: Path) -> dict[str, Any]:
    try:
        settings = json.loads((directory / SETTINGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise EngineError(f"{directory / SETTINGS}: not readable: {error}") from error
    return settings if isinstance(settings, dict) else {}
