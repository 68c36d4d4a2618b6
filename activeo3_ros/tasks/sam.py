"""Instance masks with SAM (Kirillov et al. 2023), through transformers: from boxes, or from clicks.

SAM 2 loads the same way where torchvision is installed, which transformers' processor of it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engines.device import torch_device
from ..engines.pretrained import load_pretrained
from ..optional import require_package
from ..perception.errors import InvalidInput
from ..perception.frame import Frame, Image
from ..perception.geometry import Box
from ..perception.results import Detection, InstanceMask

Mask = npt.NDArray[np.bool_]


class Sam:
    """Segments what a box or clicks point to, in a full-resolution window around it: small things stay large."""

    concurrent = True

    def __init__(self, model: str = "facebook/sam-vit-base", margin: float = 0.5, device: str = "auto") -> None:
        """model: a directory, or the hub id of a SAM or SAM 2 that `activeo3 prefetch` brought here.

        margin: surroundings shown on each side of a box, as a share of its sides, 0 to 4. device: see `engines.device`.
        """
        if not 0 <= margin <= 4:
            raise InvalidInput(f"margin must be 0 to 4, got {margin}")
        self._torch = require_package("torch", "to run SAM", "activeo3_ros[gpu]")
        self.margin = margin
        self.device = torch_device(device)
        self._processor, self._model = load_pretrained(model, "AutoModelForMaskGeneration", self.device, "to run SAM")

    def segment(self, frame: Frame, detections: Sequence[Detection]) -> list[InstanceMask]:
        masks = []
        for detection in detections:
            box = detection.box.snapped(frame.width, frame.height)
            dx, dy = self.margin * box.width, self.margin * box.height
            window = Box(box.x - dx, box.y - dy, box.width + 2 * dx, box.height + 2 * dy)
            window = window.snapped(frame.width, frame.height)
            inside = Box(box.x - window.x, box.y - window.y, box.width, box.height)
            mask = self.mask(frame.image[window.slices()], box=inside)[inside.slices()]
            if mask.any():
                masks.append(InstanceMask(detection.label, detection.score, box, mask, detection.region))
        return masks

    def mask(
        self,
        image: Image,
        points: Sequence[tuple[float, float]] = (),
        positive: Sequence[bool] = (),
        box: Box | None = None,
    ) -> Mask:
        """`(h, w)` bool, the pixels of what clicks and a box point to in an `(h, w, 3)` uint8 BGR image.

        points: x, y in pixels of the image; positive: for each, whether it is on the object. Raises InvalidInput
        without any point or box.
        """
        if (not points and box is None) or len(points) != len(positive):
            raise InvalidInput(f"SAM needs a box, or points and a sign for each; got {len(points)} and {len(positive)}")
        prompts: dict[str, Any] = {}
        if points:
            prompts["input_points"] = [[[list(point) for point in points]]]
            prompts["input_labels"] = [[[int(sign) for sign in positive]]]
        if box is not None:
            prompts["input_boxes"] = [[[box.x, box.y, box.right, box.bottom]]]
        picture = np.ascontiguousarray(image[:, :, ::-1])
        inputs = self._processor(images=picture, return_tensors="pt", **prompts).to(self.device)
        sizes = {key: inputs.pop(key).cpu() for key in ("original_sizes", "reshaped_input_sizes") if key in inputs}
        with self._torch.inference_mode():
            outputs = self._model(**inputs, multimask_output=False)
        masks = self._processor.image_processor.post_process_masks(outputs.pred_masks.cpu(), *sizes.values())
        return np.asarray(masks[0].reshape(-1, *image.shape[:2])[0].numpy(), np.bool_)
