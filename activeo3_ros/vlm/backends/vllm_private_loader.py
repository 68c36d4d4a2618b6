"""Widens the vision tower's layers while vLLM loads a model, before they are compiled.

Reaches for: `DefaultModelLoader` (a subclass) and `register_model_loader` of `vllm.model_executor.model_loader`, and
    the attribute `visual` of the loaded model.
Tried with: vLLM 0.22.1 on a GPU; 0.25.1, 0.27.1, 0.29.0 and 0.32.0 on CPUs, where nothing is widened.
Gains: the fast matrix kernels for Qwen2.5-VL's vision tower (see `alignment`).
Without it: vLLM's own loader of safetensors, and the tower at the width of its checkpoint.
"""

from __future__ import annotations

import copy
import functools
import importlib
from typing import Any

from .alignment import align_feed_forward
from .vllm_versions import private

PUBLIC_LOADER = "safetensors"


def loader_settings(version: str) -> dict[str, Any]:
    """Settings for `LLM` that choose the loader.

    vLLM keeps compiled code by its configuration, and takes code that was compiled for another width without noticing
    until it fails; `additional_config` is part of that key.
    """
    name = private(_aligning_loader, version, "the vision tower keeps its width, which is slower")
    return {"load_format": name, "additional_config": {"loader": name}} if name else {"load_format": PUBLIC_LOADER}


@functools.cache
def _aligning_loader() -> str:
    loading = importlib.import_module("vllm.model_executor.model_loader")
    name = "activeo3_safetensors"

    class AligningLoader(loading.DefaultModelLoader):  # type: ignore[misc, name-defined]
        def __init__(self, config: Any) -> None:
            config = copy.copy(config)
            config.load_format = PUBLIC_LOADER
            super().__init__(config)

        def load_model(self, *args: Any, **named: Any) -> Any:
            model = super().load_model(*args, **named)
            if next(model.parameters()).is_cuda:  # on CPUs vLLM has packed the weights already
                align_tower(model)
            return model

    loading.register_model_loader(name)(AligningLoader)
    return name


def align_tower(model: Any) -> None:
    """Widen the vision tower alone: the language model's layers may hold 8-bit weights in a layout of their own."""
    if hasattr(model, "visual"):
        align_feed_forward(model.visual)
