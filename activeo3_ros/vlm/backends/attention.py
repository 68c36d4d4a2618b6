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

"""Chooses the attention of a model, and adds one that transformers lacks: PyTorch's own variable-length attention.

The vision tower attends inside windows and images of different lengths. transformers' sdpa path makes one call for
each of them, some hundred a layer; a variable-length call does all at once. flash-attn has it, and PyTorch 2.10 and
later has it without that package, as `torch.nn.attention.varlen`.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

VARLEN = "flash_varlen_torch"
"""Its name in transformers, which passes lengths to attentions whose names begin with "flash"."""


def has_varlen() -> bool:
    """Whether this PyTorch has variable-length attention."""
    try:
        return importlib.util.find_spec("torch.nn.attention.varlen") is not None
    except ModuleNotFoundError:
        return False


def best_attention(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The attention to run with.

    Args:
        name: A setting of the engine `transformers`.
        device: That the model runs on.
        dtype: Of its numbers.

    Returns:
        `name`, or for "auto" the fastest that is installed for the device and the type of number.
    """
    import torch

    if name != "auto":
        return name
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        if importlib.util.find_spec("flash_attn") is not None:
            return "flash_attention_2"
        if has_varlen():
            return "varlen"
    return "sdpa"


def loading_name(name: str) -> str:
    """The attention to load a model with; `put_in_varlen` sets the variable-length one afterwards."""
    return "sdpa" if name == "varlen" else name


def put_in_varlen(model: Any) -> None:
    """Let the vision tower of a loaded model attend with one variable-length call a layer.

    The argument of `from_pretrained` will not do: it searches a package for names that begin with "flash".
    """
    from transformers import AttentionInterface

    AttentionInterface.register(VARLEN, _varlen)
    model.model.visual.config._attn_implementation = VARLEN


def _varlen(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention inside each sequence of a packed batch; query, key, value `(1, heads, tokens, head size)`."""
    import torch
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (tensor.squeeze(0).transpose(0, 1).contiguous() for tensor in (query, key, value))
    assert cu_seq_lens_q is not None, "only the vision tower, which gives its lengths, runs with this"
    lengths = cu_seq_lens_q.to(query.device, torch.int32)
    out = varlen_attn(query, key, value, lengths, lengths, int(max_length_q), int(max_length_q))
    return out.unsqueeze(0), None
