"""Finds the weights of large models on this machine. Never downloads: `activeo3 prefetch` does (see `downloads`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .cache import AssetError, cache_directory

SHIPPED_MODELS = Path(__file__).parent.parent / "models"
"""The small models that come with the module."""


def model_directory(model_id: str) -> Path:
    """The directory into which `activeo3 prefetch` puts the model with a hub id such as "zzzmmz/ACTIVE-o3"."""
    return cache_directory() / "models" / model_id.replace("/", "--")


def local_model(model: str) -> Path:
    """The directory of a model: a path, the name of one in `activeo3_ros/models/`, or the hub id of a prefetched one.

    Raises AssetError, with the command that gets it, if there is none.
    """
    if not model:
        raise AssetError(
            "no model is named: give a directory, or the hub id of one that `activeo3 prefetch` brought here"
        )
    path = Path(model).expanduser()
    candidates = [path, SHIPPED_MODELS / model, model_directory(model)]
    for candidate in candidates:
        if (candidate / "config.json").is_file():
            return candidate
    if path.is_dir():
        raise AssetError(f"{path} holds no model: it has no config.json")
    raise AssetError(
        f"the model {model!r} is neither a directory nor in {cache_directory() / 'models'}; "
        f"run: activeo3 prefetch active_o3 --model {model}"
    )


def model_of(settings: Mapping[str, Any]) -> str:
    """The model that a component with these settings loads into this process; "" for none, or one behind a server."""
    engine = settings.get("engine", settings)
    if not isinstance(engine, Mapping) or engine.get("type") == "remote":
        return ""
    return str(engine.get("model", ""))


def model_type(directory: Path) -> str:
    """The `model_type` in a checkpoint's config.json, "" if there is none.

    Raises:
        AssetError: The file cannot be read.
    """
    path = directory / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return str(values.get("model_type", ""))
    except (OSError, ValueError, AttributeError) as error:
        raise AssetError(f"{path}: not a readable configuration: {str(error).splitlines()[0]}") from error
