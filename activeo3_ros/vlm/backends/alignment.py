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

"""Widens layers whose size the matrix units of a GPU cannot take at full speed.

The feed-forward layers of Qwen2.5-VL's vision tower are 3,420 wide. A row of 3,420 bfloat16 numbers is not a multiple
of 16 bytes, so the fast kernels, which load 16 bytes at once, are not used for it. Widened with zeros to a multiple of
64 the layers compute the same sums, up to rounding: each gains the terms `act(0) * 0`, times zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MULTIPLE = 64


def align_feed_forward(tower: torch.nn.Module) -> int:
    """Widen all gated feed-forward layers whose width is not a multiple of `MULTIPLE`.

    Args:
        tower: With layers as transformers names them (`gate_proj`, `up_proj`, `down_proj`).

    Returns:
        The number of layers that were widened.
    """
    widened = 0
    for module in tower.modules():
        gate, up, down = (getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj"))
        if gate is None or up is None or down is None:
            continue
        more = -int(down.weight.shape[1]) % MULTIPLE
        if not more:
            continue
        for layer in (gate, up):
            _append_zeros(layer, "weight", 0, more)
            _append_zeros(layer, "bias", 0, more)
        _append_zeros(down, "weight", 1, more)
        widened += 1
    return widened


def _append_zeros(layer: Any, name: str, axis: int, count: int) -> None:
    """Give a parameter zeros at the end of an axis; nothing happens to a bias that is not there."""
    import torch

    old = getattr(layer, name, None)
    if old is not None:
        shape = list(old.shape)
        shape[axis] = count
        new = torch.cat([old.detach(), old.new_zeros(shape)], axis)
        setattr(layer, name, torch.nn.Parameter(new, requires_grad=False))
