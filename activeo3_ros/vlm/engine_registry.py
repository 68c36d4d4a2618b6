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

"""Starts the engine of a preset's `engine` settings; components with the same settings share one."""

from __future__ import annotations

import importlib
import json
import platform
import threading
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..core.errors import InvalidInput
from ..core.optional import has_package, installed_version
from ..settings import check_names, check_settings, settings_of
from .backends.vllm_versions import version_problem
from .dynamic_batching import DynamicBatcher, SharedEngine
from .engine import Engine, Prompt, Request

ENGINE_TYPES = {
    "transformers": "activeo3_ros.vlm.backends.transformers_engine:TransformersEngine",
    "vllm": "activeo3_ros.vlm.backends.vllm_engine:VllmEngine",
    "remote": "activeo3_ros.vlm.backends.remote_engine:RemoteEngine",
}
REMOTE = "remote"
AUTO = "auto"
"""The engine that `choose` recommends."""

WARM_UP_COUNTS = (1, 3)
"""How many requests at a time an engine answers before it is used: one view, and as many regions as presets choose."""

_engines: weakref.WeakValueDictionary[str, Engine] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def choose() -> tuple[str, str]:
    """Recommend an engine for this machine.

    Returns:
        A key of `ENGINE_TYPES`, and the reason for people.
    """
    if not has_package("torch"):
        return "remote", "torch is not installed, so the model has to run in a server elsewhere"
    import torch

    if not torch.cuda.is_available():
        return "transformers", "torch sees no CUDA device: small models run on the CPU, large ones belong into a server"
    if not has_package("vllm"):
        return "transformers", "vllm is not installed; it decodes a token about three times as fast on x86-64"
    if problem := version_problem(installed_version("vllm")):
        return "transformers", problem
    if platform.machine() not in ("x86_64", "AMD64"):
        return "transformers", f"vLLM is tried on x86-64 alone, this is {platform.machine()}"
    return "vllm", "it is installed, and there is a CUDA device"


def problems() -> dict[str, str]:
    """For each engine that runs a model in this process, the reason why it cannot do so here; "" where it can."""
    missing = next((f"{name} is not installed" for name in ("torch", "transformers") if not has_package(name)), "")
    chosen, reason = choose()
    return {"transformers": missing, "vllm": missing or ("" if chosen == "vllm" else reason)}


def shared_engine(settings: Mapping[str, Any]) -> Engine:
    """The engine with these settings, started at first use and freed with the last component that holds it.

    Args:
        settings: `type`, a key of `ENGINE_TYPES` or "auto", and the keyword arguments of that class. "auto" is the
            engine that `choose` recommends, which gets those of the settings that it has.

    Raises:
        InvalidInput: A type or a setting does not exist.
        EngineError: The engine cannot start.
    """
    if not isinstance(settings, Mapping):
        raise InvalidInput(f"'engine' must be a mapping of settings, got {settings!r}")
    key = json.dumps(settings, sort_keys=True, default=str)
    with _lock:
        engine = _engines.get(key)
        if engine is None:
            engine = _engines[key] = _build(dict(settings))
        return engine


def forget(engine: object) -> None:
    """No longer share an engine, because a call of it does not return; the next component gets another one.

    Threads that wait for it go on waiting, and its memory stays taken until that call returns.
    """
    with _lock:
        for key in [key for key, known in _engines.items() if known is engine]:
            del _engines[key]


def _build(settings: dict[str, Any]) -> Engine:
    kind = settings.pop("type", AUTO)
    if kind not in (AUTO, *ENGINE_TYPES):
        raise InvalidInput(f"unknown engine type {kind!r}; known are {AUTO}, {', '.join(ENGINE_TYPES)}")
    chosen = choose()[0] if kind == AUTO else kind
    allowed = {
        name for other in (ENGINE_TYPES if kind == AUTO else [kind]) for name in settings_of(load_engine_class(other))
    }
    check_names(
        f"engine {kind!r}", sorted(allowed), settings, "{owner} has no setting {name!r}; its settings are {known}"
    )
    given = {name: value for name, value in settings.items() if name in settings_of(load_engine_class(chosen))}
    if chosen == "remote" and "url" not in given:
        raise InvalidInput(
            f"no engine can run here: {choose()[1]}; install the extra `gpu`, or give the preset an engine of type "
            "`remote` with the url of a server; run: activeo3 doctor"
        )
    check_settings(f"engine {chosen!r}", load_engine_class(chosen), given)
    engine: Engine = load_engine_class(chosen)(**given)
    if chosen == "remote":  # a server is warm, and batches the requests of its clients itself
        return engine
    try:
        warm_up(engine)
    except Exception:
        engine.close()
        raise
    # vLLM batches continuously by itself.
    shared = SharedEngine(engine) if chosen == "vllm" else DynamicBatcher(engine)
    weakref.finalize(shared, engine.close)  # the device is free for the next engine when the last holder is gone
    return shared


def warm_up(engine: Engine) -> None:
    """Let an engine answer one request and then several, so that no frame waits for kernels to be compiled.

    Raises:
        EngineError: The engine cannot answer these, and so no frames.
    """
    side = 8 * engine.family.cell_px
    blank = np.zeros((side, side, 3), np.uint8)
    request = Request(blank, Prompt("What is to be seen?"), max_new_tokens=2)
    for count in WARM_UP_COUNTS:
        engine.generate([request] * count)


def load_engine_class(kind: str) -> Any:
    """The class of a key of `ENGINE_TYPES`."""
    module, _, name = ENGINE_TYPES[kind].partition(":")
    return getattr(importlib.import_module(module), name)
