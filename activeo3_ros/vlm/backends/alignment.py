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
        tower: with the layers of transformers (`gate_proj`, `up_proj`, `down_proj`) or of vLLM (`gate_up_proj`, both in
            one).

    Returns:
        The number of layers that were widened.
    """
    widened = 0
    for module in tower.modules():
        down = getattr(module, "down_proj", None)
        into = [getattr(module, name) for name in ("gate_proj", "up_proj", "gate_up_proj") if hasattr(module, name)]
        if down is None or not into or getattr(down, "weight", None) is None:
            continue
        width = int(down.weight.shape[1])
        wanted = -(-width // MULTIPLE) * MULTIPLE
        if wanted == width:
            continue
        for layer in into:
            _widen(layer, "weight", 0, width, wanted)
            _widen(layer, "bias", 0, width, wanted)
        _widen(down, "weight", 1, width, wanted)
        widened += 1
    return widened


def _widen(layer: Any, name: str, axis: int, width: int, wanted: int) -> None:
    """Give a parameter zeros at the end of an axis, where that holds two parts at the end of each of them."""
    import torch

    old = getattr(layer, name, None)
    if old is None:
        return
    shape = list(old.shape)
    parts, rest = divmod(shape[axis], width)
    assert not rest, f"{name} of shape {shape} does not fit to a width of {width}"
    shape[axis] = parts * wanted
    new = old.new_zeros(shape)
    for part in range(parts):
        new.narrow(axis, part * wanted, width).copy_(old.detach().narrow(axis, part * width, width))
    setattr(layer, name, torch.nn.Parameter(new, requires_grad=False))
