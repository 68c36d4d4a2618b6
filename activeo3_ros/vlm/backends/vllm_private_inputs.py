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

"""Gives vLLM pixels that were preprocessed on the device, past its own image processor.

Reaches for: `vllm.inputs.mm_input`; `MultiModalFlatField` (its `_reduce_data` is overridden), `MultiModalBatchedField`,
    `MultiModalFieldElem`, `MultiModalKwargsItem`, `MultiModalKwargsItems` and `PlaceholderRange` of
    `vllm.multimodal.inputs`; the engine argument `mm_device_do_normalize` (from 0.28 on).
Tried with: vLLM 0.22.1 on a GPU; 0.25.1, 0.27.1, 0.29.0 and 0.32.0 on CPUs.
Gains: no image is resized, copied or hashed on the CPU, and none between two steps of the model. Nothing in a frame of
    one camera. A frame of six took 2.2 to 2.5 times as long as one with it, and 3.0 times in a run without it: about
    17 %, which is not measured in one run yet.
Without it: pictures go through vLLM's image processor (`public_input`).
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.frame import Image
from ..engine import Prompt
from ..families import Family
from .preprocessing import request_text
from .vllm_versions import private

if TYPE_CHECKING:
    import torch


class PrivateInputs:
    """Builds requests as vLLM's own processors do."""

    def __init__(self) -> None:
        """Raises ImportError or AttributeError where this vLLM lacks a part."""
        inputs = importlib.import_module("vllm.multimodal.inputs")
        self._mm_input = importlib.import_module("vllm.inputs").mm_input
        self._element, self._item, self._items = (
            inputs.MultiModalFieldElem,
            inputs.MultiModalKwargsItem,
            inputs.MultiModalKwargsItems,
        )
        self._batched, self._placeholder = inputs.MultiModalBatchedField, inputs.PlaceholderRange
        self._on_device = _on_device_field()

    def engine_settings(self) -> dict[str, Any]:
        """Settings for `LLM`: from 0.28 on vLLM normalizes pixels unless told that it is done."""
        known = importlib.import_module("vllm.engine.arg_utils").EngineArgs.__dataclass_fields__
        return {"mm_device_do_normalize": False} if "mm_device_do_normalize" in known else {}

    def build(self, ids: list[int], image_id: int, pixels: torch.Tensor, rows: int, columns: int, name: str) -> Any:
        """One request with one image.

        Args:
            ids: Tokens of the prompt, with one image token for each cell of the image.
            image_id: The id of the image token.
            pixels: `(rows * columns, numbers of a patch)`, the patches of the image, on the device.
            rows: Of patches in the image.
            columns: Of patches in the image.
            name: Of the image; no two requests share one, since no two views are alike.
        """
        import torch

        item = {
            "pixel_values": self._element(data=pixels, field=self._on_device),
            "image_grid_thw": self._element(
                data=torch.tensor([1, rows, columns]), field=self._batched(keep_on_cpu=True)
            ),
        }
        place = self._placeholder(offset=ids.index(image_id), length=ids.count(image_id))
        return self._mm_input(
            prompt_token_ids=ids,
            mm_kwargs=self._items({"image": [self._item(item)]}),
            mm_hashes={"image": [name]},
            mm_placeholders={"image": [place]},
        )


def private_inputs(version: str) -> PrivateInputs | None:
    """Of the installed vLLM; None, after a warning, where pictures have to go through its own processor."""
    return private(PrivateInputs, version, "pictures go through vLLM's own image processor, which takes longer")


def public_settings(max_length: int, family: Family) -> dict[str, Any]:
    """Settings for `LLM` with which its processor resizes no image in whole cells, up to one that fills a request."""
    cell = family.cell_px**2  # the "edges" of Qwen's processors are areas
    return {"mm_processor_kwargs": {"size": {"shortest_edge": cell, "longest_edge": max_length * cell}}}


def public_input(prompt: Prompt, family: Family, image: Image) -> dict[str, Any]:
    """One request with one image, `(h, w, 3)` uint8 BGR, as vLLM's documentation has it."""
    pictures = importlib.import_module("PIL.Image")
    return {
        "prompt": request_text(prompt, family),
        "multi_modal_data": {"image": pictures.fromarray(np.ascontiguousarray(image[:, :, ::-1]))},
    }


@functools.cache
def _on_device_field() -> Any:
    """How vLLM joins the patches of several requests: as its own field does, but for memory that is on the device."""
    inputs = importlib.import_module("vllm.multimodal.inputs")

    class OnDeviceField(inputs.MultiModalFlatField):  # type: ignore[misc, name-defined]
        def _reduce_data(self, batch: list[Any], *, pin_memory: bool) -> Any:
            return super()._reduce_data(batch, pin_memory=False)  # only the CPU's memory can be pinned

    return OnDeviceField(slices=[slice(None)])
