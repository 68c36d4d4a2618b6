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

"""Loads a model that transformers knows, with its processor, from this machine only and from safetensors only."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.errors import EngineError, OutOfMemory
from ..core.optional import MissingPackageError, require_package
from .cache import AssetError
from .weights import local_model


def load_pretrained(model: str | Path, auto_class: str, device: Any, purpose: str) -> tuple[Any, Any]:
    """Load a model with its processor; arguments and errors as in `load_model`.

    Returns:
        The processor, and the model on `device`, ready to run.
    """
    processor = load_processor(model, "AutoProcessor", purpose)
    return processor, load_model(model, auto_class, device, purpose)


def load_processor(model: str | Path, auto_class: str, purpose: str) -> Any:
    """Load what prepares the input of a model.

    Args:
        model: A directory or a hub id, see `local_model`.
        auto_class: Name of the class of transformers that finds the right one, such as "AutoTokenizer".
        purpose: Completes "is needed …" in the message where transformers is missing.

    Raises:
        MissingPackageError: transformers is not installed.
        AssetError: The model is not on this machine.
        EngineError: It cannot be loaded.
    """
    transformers = require_package("transformers", purpose, "activeo3_ros[gpu]")
    directory = local_model(model)
    found = getattr(transformers, auto_class)
    return _loaded(directory, lambda: found.from_pretrained(directory, local_files_only=True, trust_remote_code=False))


def load_model(model: str | Path, auto_class: str, device: Any, purpose: str, dtype: Any = None) -> Any:
    """Load a model.

    Args:
        model: A directory or a hub id, see `local_model`.
        auto_class: Name of the class of transformers that finds the right one.
        device: A `torch.device`.
        purpose: Completes "is needed …" in the message where transformers is missing.
        dtype: The `torch.dtype` of its weights; None for that of the file.

    Returns:
        The model on `device`, ready to run.

    Raises:
        MissingPackageError: transformers, or a package that this model needs besides, is not installed.
        AssetError: The weights are not on this machine, or not in a format that can hold no code.
        EngineError: They cannot be loaded, or are those of another model.
        OutOfMemory: They do not fit into the memory of the device.
    """
    transformers = require_package("transformers", purpose, "activeo3_ros[gpu]")
    directory = local_model(model)
    _require_safetensors(directory)
    found = getattr(transformers, auto_class)
    # What a file lacks, transformers fills with random numbers and lists in a long warning: here it is one error.
    with _without_report():
        loaded, report = _loaded(
            directory,
            lambda: found.from_pretrained(
                directory,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **({} if dtype is None else {"dtype": dtype}),
            ),
        )
    missing = sorted([*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])])
    if missing:
        raise EngineError(
            f"{directory}: its weights are not those of a {type(loaded).__name__}: {len(missing)} tensors are missing "
            f"or of another shape, such as {missing[0]}"
        )
    return _loaded(directory, lambda: loaded.eval().to(device))


@contextmanager
def _without_report() -> Iterator[None]:
    """Keep transformers from listing tensors, such as those of a file that a model lacks or does not use."""
    log = logging.getLogger("transformers")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _require_safetensors(directory: Path) -> None:
    if any(directory.glob("*.safetensors")):
        return
    others = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.h5") for path in directory.glob(pattern))
    if others:
        raise AssetError(
            f"{directory} has its weights as {others[0]} alone, a format that can hold code; convert them to "
            "safetensors on a machine that may run them (save_pretrained does)"
        )
    raise AssetError(f"{directory} is not whole: model.safetensors is missing; run: activeo3 prefetch again")


def _loaded(directory: Path, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except Exception as error:  # transformers has no common class of error
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which need not be installed
            raise OutOfMemory(f"{directory}: the weights do not fit into the memory of the device") from error
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        if isinstance(error, ImportError):  # such as timm, which the backbones of some models are from
            asked = re.search(r"pip install ([\w.-]*\w)", str(error))
            install = f"run: pip install {asked[1]}" if asked else "install it"
            raise MissingPackageError(f"{directory}: {reason.partition('. ')[0]}; {install}") from error
        raise EngineError(f"{directory}: cannot be loaded: {reason}") from error
