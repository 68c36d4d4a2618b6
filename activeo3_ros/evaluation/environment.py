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

"""The machine and the versions that a run was made with."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from .. import __version__
from ..core.optional import installed_version

PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "onnxruntime",
    "faster-coco-eval",
    "trackeval",
    "torch",
    "transformers",
    "vllm",
)


def describe_environment() -> dict[str, str]:
    """Describe the machine, its system and GPUs, and the versions of the packages.

    Returns:
        Lines of text by `machine`, `system`, `graphics` and `versions`.
    """
    versions = {"activeo3_ros": __version__, "Python": platform.python_version()}
    versions |= {name: version for name in PACKAGES if (version := installed_version(name))}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "machine": f"{platform.machine()}, {_processor()}, {cores} cores",
        "system": f"{platform.system()} {platform.release()}",
        "graphics": _graphics(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )


def _graphics() -> str:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return "none used"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
