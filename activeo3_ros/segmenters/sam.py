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

"""Instance masks from boxes or clicks with SAM (Kirillov et al. 2023) or SAM 2 (Ravi et al. 2024), in transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from ..assets.devices import torch_device
from ..assets.pretrained import load_model, load_pretrained
from ..assets.weights import local_model, model_type
from ..core.errors import EngineError, InvalidInput
from ..core.frame import Frame, Image
from ..core.geometry import Box
from ..core.optional import require_package
from ..core.results import Detection, InstanceMask
from ..settings import validated, within

SAM2_TYPES = frozenset({"sam2", "sam2_video"})
"""The `model_type` of checkpoints of SAM 2; the published ones serve videos too."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of RGB from 0 to 1, with which SAM 2 was trained."""
Mask = npt.NDArray[np.bool_]
Prompts = dict[str, list[Any]]
"""`input_boxes`, `input_points` and `input_labels` of one object, nested as transformers' processors want them."""


class Sam:
    """Segments the object in a box or under clicks, in a full-resolution window around it: small objects stay large."""

    concurrent = True

    @validated
    def __init__(
        self,
        model: str | Path = "facebook/sam-vit-base",
        margin: Annotated[float, within(0, 4)] = 0.5,
        device: str = "auto",
    ) -> None:
        """Load the model.

        Args:
            model: A directory, or the hub id of a SAM or SAM 2 that `activeo3 prefetch` brought here.
            margin: Surroundings shown on each side of a box, as a share of its sides.
            device: "auto" for the first CUDA device, else the CPU; or a name that torch knows, such as "cuda:1".

        Raises:
            MissingPackageError: torch or transformers is not installed.
            AssetError: The weights are not on this machine.
            EngineError: They cannot be loaded.
        """
        self._torch = require_package("torch", "to run SAM", "activeo3_ros[gpu]")
        self.margin = margin
        self.device = torch_device(device)
        load = "AutoModelForMaskGeneration", self.device, "to run SAM"
        self._sam2 = model_type(local_model(model)) in SAM2_TYPES
        if self._sam2:
            self._model = load_model(model, *load)
            self._mean, self._std = _colours(local_model(model))
        else:
            self._processor, self._model = load_pretrained(model, *load)

    def segment(self, frame: Frame, detections: Sequence[Detection]) -> list[InstanceMask]:
        masks = []
        for index, detection in enumerate(detections):
            box = detection.box.snapped(frame.width, frame.height)
            dx, dy = self.margin * box.width, self.margin * box.height
            window = Box(box.x - dx, box.y - dy, box.width + 2 * dx, box.height + 2 * dy)
            window = window.snapped(frame.width, frame.height)
            inside = Box(box.x - window.x, box.y - window.y, box.width, box.height)
            mask = self.mask(frame.image[window.slices()], box=inside)[inside.slices()]
            if mask.any():
                masks.append(InstanceMask(detection.label, detection.score, box, mask, detection.region, index))
        return masks

    def mask(
        self,
        image: Image,
        points: Sequence[tuple[float, float]] = (),
        positive: Sequence[bool] = (),
        box: Box | None = None,
    ) -> Mask:
        """Segment one object in an image.

        Args:
            image: `(h, w, 3)` uint8 BGR.
            points: Clicks, x and y in pixels of the image.
            positive: For each click, whether it is on the object.
            box: Around the object, in pixels of the image.

        Returns:
            `(h, w)` bool, the pixels of the object.

        Raises:
            InvalidInput: There is neither a point nor a box, or a point lacks its sign.
        """
        if (not points and box is None) or len(points) != len(positive):
            raise InvalidInput(f"SAM needs a box, or points and a sign for each; got {len(points)} and {len(positive)}")
        prompts: Prompts = {}
        if points:
            prompts["input_points"] = [[[list(point) for point in points]]]
            prompts["input_labels"] = [[[int(sign) for sign in positive]]]
        if box is not None:
            prompts["input_boxes"] = [[[box.x, box.y, box.right, box.bottom]]]
        picture = np.ascontiguousarray(image[:, :, ::-1])
        masks = self._mask_of_sam2(picture, prompts) if self._sam2 else self._mask_of_sam(picture, prompts)
        return np.asarray(masks.reshape(-1, *image.shape[:2])[0].numpy(), np.bool_)

    def _mask_of_sam(self, picture: Image, prompts: Prompts) -> Any:
        """A bool tensor whose last two dimensions are those of an RGB picture."""
        inputs = self._processor(images=picture, return_tensors="pt", **prompts).to(self.device)
        sizes = {key: inputs.pop(key).cpu() for key in ("original_sizes", "reshaped_input_sizes") if key in inputs}
        with self._torch.inference_mode():
            outputs = self._model(**inputs, multimask_output=False)
        return self._processor.image_processor.post_process_masks(outputs.pred_masks.cpu(), *sizes.values())[0]

    def _mask_of_sam2(self, picture: Image, prompts: Prompts) -> Any:
        """As `_mask_of_sam`. It does the work of SAM 2's processor, which transformers has for torchvision alone: the
        whole picture becomes a square, its aspect lost, and the mask is stretched back.
        """
        torch = self._torch
        resize = torch.nn.functional.interpolate
        high, wide = picture.shape[:2]
        sides = self._model.config.vision_config.backbone_config.image_size
        pixels = torch.from_numpy(picture).to(self.device).permute(2, 0, 1)[None].float()
        pixels = resize(pixels, sides, mode="bilinear", antialias=True, align_corners=False).round() / 255
        scale = torch.tensor([sides[1] / wide, sides[0] / high])
        inputs = {name: torch.tensor(values) for name, values in prompts.items()}
        for name, times in (("input_points", 1), ("input_boxes", 2)):
            if name in inputs:
                inputs[name] = inputs[name].float() * scale.repeat(times)
        inputs = {name: values.to(self.device) for name, values in inputs.items()}
        with torch.inference_mode():
            outputs = self._model(
                pixel_values=(pixels - self._mean.to(self.device)) / self._std.to(self.device),
                **inputs,
                multimask_output=False,
            )
            return resize(outputs.pred_masks[0].float().cpu(), (high, wide), mode="bilinear", align_corners=False) > 0


def _colours(directory: Path) -> tuple[Any, Any]:
    """`(1, 3, 1, 1)` tensors: the mean and standard deviation that a checkpoint wants colours normalized with."""
    import torch

    path = directory / "preprocessor_config.json"
    values: Any = {}
    if path.is_file():
        try:
            values = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise EngineError(f"{path}: not readable as JSON: {(str(error) or repr(error)).splitlines()[0]}") from error
    mean, std = values.get("image_mean", IMAGENET[0]), values.get("image_std", IMAGENET[1])
    return torch.tensor(mean).view(1, 3, 1, 1), torch.tensor(std).view(1, 3, 1, 1)
