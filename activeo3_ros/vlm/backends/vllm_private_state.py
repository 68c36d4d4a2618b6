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

"""Keeps several engines of one process apart, where vLLM has state that all of them share.

Reaches for: `_all_instances` of `vllm.compilation.cuda_graph.CUDAGraphWrapper` and of
    `vllm.compilation.breakable_cudagraph.BreakableCUDAGraphWrapper`; `engine_core.shutdown` of an `LLMEngine`.
Tried with: vLLM 0.22.1 on a GPU; 0.25.1, 0.27.1, 0.29.0 and 0.32.0 on CPUs.
Gains: no time, so it is no candidate for the public way: a policy and a task model of their own run side by side, and
    a closed engine frees the device.
Without it: one engine in a process works; the start of a second one clears the CUDA graphs of the first.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GRAPHS = (("cuda_graph", "CUDAGraphWrapper"), ("breakable_cudagraph", "BreakableCUDAGraphWrapper"))

_in_use: list[Any] = []
_retired: list[Any] = []
_cores = threading.RLock()  # garbage collection within may close an engine
"""The cores of all engines of this process. They share state that goes with the first that is shut down, so a closed
one waits, with its memory, until no other is in use."""


def register_core(engine: Any) -> None:
    """Count an `LLMEngine` as in use."""
    with _cores:
        _in_use.append(getattr(engine, "engine_core", None))


def retire_core(engine: Any) -> None:
    """Shut the core of an `LLMEngine` down, with the last one of the process that is in use."""
    core = getattr(engine, "engine_core", None)
    with _cores:
        _in_use.remove(core)
        _retired.append(core)
        while _retired and not _in_use:
            shutdown = getattr(_retired.pop(), "shutdown", None)
            if shutdown is not None:
                shutdown()


@contextmanager
def graphs_kept() -> Iterator[None]:
    """Spare the CUDA graphs of other engines: vLLM clears all of a process when it has measured its own."""
    kept = []
    for module, name in GRAPHS:
        try:
            known = getattr(importlib.import_module(f"vllm.compilation.{module}"), name)._all_instances
        except (ImportError, AttributeError):
            continue
        kept.append((known, list(known)))
        known.clear()
    try:
        yield
    finally:
        for known, instances in kept:
            known.update(instances)
