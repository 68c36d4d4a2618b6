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

"""Finds the weights of large models on this machine. Never downloads: `activeo3 prefetch` does (see `downloads`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .cache import AssetError, cache_directory
from .resources import source_directory

TINY_PREFIX = "tiny/"
TINY_WEIGHTS = "research/activeo3_tiny/weights"
"""Where the source tree has the models tiny/policy and tiny/start, which are not installed."""


def model_directory(model_id: str) -> Path:
    """The directory into which `activeo3 prefetch` puts the model with a hub id such as "zzzmmz/ACTIVE-o3"."""
    return cache_directory() / "models" / model_id.replace("/", "--")


def local_model(model: str | Path) -> Path:
    """Find a model on this machine.

    Args:
        model: A directory; the hub id of a prefetched model; or "tiny/policy" or "tiny/start", of a source tree.

    Returns:
        The directory of the model.

    Raises:
        AssetError: It is not here; the message says how to get it.
    """
    if not model:
        raise AssetError(
            "no model is named: give a directory, or the hub id of one that `activeo3 prefetch` brought here"
        )
    path, model = Path(model).expanduser(), str(model)
    source = source_directory() if model.startswith(TINY_PREFIX) else None
    research = [source / TINY_WEIGHTS / model.removeprefix(TINY_PREFIX)] if source else []
    for candidate in (path, *research, model_directory(model)):
        if (candidate / "config.json").is_file():
            return candidate
    if path.is_dir():
        raise AssetError(f"{path} holds no model: it has no config.json")
    if model.startswith(TINY_PREFIX):
        raise AssetError(
            f"the model {model!r} comes with the source repository ({TINY_WEIGHTS}), not with an installed package; "
            "run from a source tree, or give the model's directory in a preset of your own"
        )
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
