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

"""Chooses the device that a PyTorch model runs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import EngineError, InvalidInput

if TYPE_CHECKING:
    import torch


def torch_device(name: str) -> torch.device:
    """Find a device by its name.

    Args:
        name: "auto" for the first CUDA device, else the CPU; or a name that torch knows, such as "cuda:1".

    Raises:
        InvalidInput: torch does not know the name.
        EngineError: It is a CUDA device, and there is none.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidInput(f"device {name!r} is unknown: {str(error).splitlines()[0]}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise EngineError(f"device {name!r} was asked for, but torch sees no CUDA device; run: activeo3 doctor")
    return device
