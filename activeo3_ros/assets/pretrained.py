"""Loads a model that transformers knows, with its processor, from this machine only and from safetensors only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.errors import EngineError
from ..core.optional import require_package
from .weights import local_model


def load_pretrained(model: str, auto_class: str, device: Any, purpose: str) -> tuple[Any, Any]:
    """Load a model with its processor; arguments and errors as in `load_model`.

    Returns:
        The processor, and the model on `device`, ready to run.
    """
    transformers = require_package("transformers", purpose, "activeo3_ros[gpu]")
    directory = local_model(model)
    processor = _loaded(directory, lambda: transformers.AutoProcessor.from_pretrained(directory, local_files_only=True))
    return processor, load_model(model, auto_class, device, purpose)


def load_model(model: str, auto_class: str, device: Any, purpose: str) -> Any:
    """Load a model.

    Args:
        model: A directory or a hub id, see `local_model`.
        auto_class: Name of the class of transformers that finds the right one.
        device: A `torch.device`.
        purpose: Completes "is needed …" in the message where transformers is missing.

    Returns:
        The model on `device`, ready to run.

    Raises:
        MissingPackageError: transformers is not installed.
        AssetError: The weights are not on this machine.
        EngineError: They cannot be loaded.
    """
    transformers = require_package("transformers", purpose, "activeo3_ros[gpu]")
    directory = local_model(model)
    found = getattr(transformers, auto_class)
    loaded = _loaded(directory, lambda: found.from_pretrained(directory, local_files_only=True, use_safetensors=True))
    return loaded.eval().to(device)


def _loaded(directory: Path, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # transformers has no common class of error
        raise EngineError(f"{directory}: cannot be loaded: {(str(error) or repr(error)).splitlines()[0]}") from error
