"""Decodes batches of short answers of Qwen2.5-VL fast: `generate` of transformers, less all that these do not need.

A small model's token costs transformers some milliseconds in Python, whatever the GPU. Here a step is the layers' bare
arithmetic over a cache of fixed size, which a CUDA graph replays. It knows greedy decoding and plain sampling, with one
picture a row; whatever does not fit, as `fits` finds out, still goes the original way.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from activeo3_ros.core.optional import require_package

logger = logging.getLogger(__name__)

INPUTS = {"attention_mask", "pixel_values", "image_grid_thw", "mm_token_type_ids"}
KNOWN_SETTINGS = {
    "bos_token_id", "cache_implementation", "disable_compile", "do_sample", "eos_token_id", "max_new_tokens", "min_p",
    "num_beams", "num_return_sequences", "pad_token_id", "repetition_penalty", "stop_strings", "suppress_tokens",
    "temperature", "top_k", "top_p", "transformers_version", "use_cache",
}  # fmt: skip
"""Of a generation config: those that `decode` follows, those that `fits` checks, and those that change no answer."""
HIDDEN = -1e9
"""Added to the attention scores of columns that hold nothing yet; with minus infinity a row of them would be NaN."""


def fits(model: Any, input_ids: Any, config: Any, inputs: Mapping[str, Any]) -> bool:
    """Whether `decode` does the same as `generate` with these arguments."""
    nn = require_package("torch.nn", "to train", "activeo3_ros[train]")
    text = model.config.text_config
    layers = model.model.language_model.layers
    return (
        {name for name, value in inputs.items() if value is not None} == INPUTS
        and len(inputs["image_grid_thw"]) == len(input_ids)
        and config is not None
        and set(config.to_diff_dict()) <= KNOWN_SETTINGS
        and config.max_new_tokens is not None
        and config.pad_token_id is not None
        and config.cache_implementation is None
        and (config.num_beams or 1) == 1
        and (config.num_return_sequences or 1) == 1
        and (config.repetition_penalty or model.generation_config.repetition_penalty or 1.0) == 1.0
        and config.min_p is None
        and (config.top_p or 1.0) == 1.0
        and (not config.do_sample or config.top_k == 0)
        and config.stop_strings is None
        and all(kind == "full_attention" for kind in text.layer_types)
        and text.rope_parameters["rope_type"] == "default"
        # Adapters, and weights that are spread over processes, are no plain layers.
        and all(
            type(each) is nn.Linear and type(each.weight) is nn.Parameter and each.weight.dim() == 2
            for each in (*_linears(layers), model.lm_head)
        )
    )


def _linears(layers: Any) -> list[Any]:
    return [
        each
        for layer in layers
        for each in (
            *(getattr(layer.self_attn, f"{name}_proj") for name in "qkvo"),
            *(getattr(layer.mlp, f"{name}_proj") for name in ("gate", "up", "down")),
        )
    ]


def decode(
    model: Any,
    input_ids: Any,
    config: Any,
    logits_processor: Sequence[Callable[..., Any]],
    stopping_criteria: Sequence[Callable[..., Any]],
    inputs: Mapping[str, Any],
) -> Any:
    """`(batch, tokens)`: the left-padded prompts and the answers, ended rows padded, as `generate` gives them."""
    torch = require_package("torch", "to train", "activeo3_ros[train]")
    from .qwen_speed import positions_of_one_picture

    with torch.no_grad():
        batch, prompt = input_ids.shape
        written = torch.full(
            (batch, prompt + config.max_new_tokens),
            int(config.pad_token_id),
            dtype=input_ids.dtype,
            device=input_ids.device,
        )
        written[:, :prompt] = input_ids
        ends = config.eos_token_id if isinstance(config.eos_token_id, (list, tuple)) else [config.eos_token_id]
        ends = torch.tensor([end for end in ends if end is not None], dtype=input_ids.dtype, device=input_ids.device)

        words = model.lm_head.weight.shape[0]
        barred = torch.tensor(
            [token for token in config.suppress_tokens or () if token < words],
            dtype=torch.long,
            device=input_ids.device,
        )

        types: list[Any] = []  # that products are computed in: under autocast not that of the weights
        hook = model.model.language_model.layers[0].self_attn.v_proj.register_forward_hook(
            lambda module, arguments, result: types.append(result.dtype)
        )
        seen = model(input_ids=input_ids, use_cache=True, logits_to_keep=1, **inputs)
        hook.remove()
        merge = model.config.vision_config.spatial_merge_size
        mask = inputs["attention_mask"]
        _, shift = positions_of_one_picture(
            input_ids, inputs["mm_token_type_ids"] == 1, inputs["image_grid_thw"], mask, merge
        )
        logits = seen.logits[:, -1]
        step = _Step(
            model, types[0], seen.past_key_values, mask, mask.sum(1, keepdim=True) + shift, config.max_new_tokens
        )
        del seen
        done = torch.zeros(batch, dtype=torch.bool, device=input_ids.device)
        for length in range(prompt + 1, prompt + config.max_new_tokens + 1):
            scores = logits.float().index_fill_(1, barred, -math.inf)  # the logits are not used again
            for process in logits_processor:
                scores = process(written[:, : length - 1], scores)
            if config.do_sample:
                # The largest of logits plus Gumbel noise is a sample of the softmax.
                noise = torch.empty_like(scores).exponential_().log_()
                token = (scores / (config.temperature or 1.0) - noise).argmax(-1)
            else:
                token = scores.argmax(-1)
            token = token.masked_fill(done, int(config.pad_token_id))
            written[:, length - 1] = token
            done = done | torch.isin(token, ends)
            for is_done in stopping_criteria:
                done = done | is_done(written[:, :length], None)
            # Asking the GPU makes it wait, so not at every token.
            asked = bool(stopping_criteria) or length % 8 == 0
            if length == written.shape[1] or (asked and bool(done.all())):
                return written[:, :length]
            logits = step(token)
        return written


class _Step:
    """One token more for each row: the language model's arithmetic on a cache of fixed size."""

    def __init__(self, model: Any, kind: Any, cache: Any, mask: Any, position: Any, new: int) -> None:
        """kind: type of the products. mask: `(batch, prompt)`, 1 where there is a token. position: `(batch, 1)`, of the
        first new token.
        """
        import torch

        self.inner, self.head = model.model.language_model, model.lm_head
        text = model.config.text_config
        batch, prompt = mask.shape
        columns = -(-(prompt + new) // 8) * 8  # attention is fast where rows of the mask are aligned
        rotary = self.inner.rotary_emb
        self.frequencies, self.scaling = rotary.inv_freq.float(), float(rotary.attention_scaling)
        self.heads, self.shared = text.num_key_value_heads, text.num_attention_heads // text.num_key_value_heads
        self.kept = []
        for layer in cache.layers:
            kept = layer.values.new_zeros(2, batch, self.heads, columns, layer.values.shape[-1], dtype=kind)
            kept[0, :, :, :prompt], kept[1, :, :, :prompt] = layer.keys, layer.values
            self.kept.append(kept)
        self.type = kind
        self.weights = {id(each): self._of_type(each) for each in (*_linears(self.inner.layers), self.head)}
        self.token = torch.zeros(batch, dtype=torch.long, device=mask.device)
        self.position = position.clone()
        self.column = torch.full((1,), prompt, dtype=torch.long, device=mask.device)
        self.mask = torch.full((batch, 1, 1, columns), HIDDEN, dtype=self.type, device=mask.device)
        self.mask[:, 0, 0, :prompt].masked_fill_(mask.bool(), 0)
        self.graph: Any = None
        self.logits: Any = None
        self._rehearse()

    def _rehearse(self) -> None:
        """Warm up by one step: kernels are loaded, which cannot be while a graph is recorded, and errors come here."""
        import torch

        with torch.autocast(self.token.device.type, enabled=False):
            self._forward()
        self.position -= 1
        self.column -= 1
        self.mask.index_fill_(3, self.column, HIDDEN)

    def _of_type(self, linear: Any) -> tuple[Any, Any]:
        bias = linear.bias
        return linear.weight.to(self.type), bias.to(self.type) if bias is not None else None

    def __call__(self, token: Any) -> Any:
        """`(batch, words)` logits of the token after a `(batch,)` token."""
        import torch

        self.token.copy_(token)
        with torch.autocast(token.device.type, enabled=False):
            return self._step()

    def _step(self) -> Any:

        if self.token.device.type != "cuda" or self.graph is False:
            return self._forward()
        if self.graph is None:
            try:
                self.graph, self.logits = _recorded(self._forward)
            except RuntimeError as error:
                logger.warning("decoding goes on without a CUDA graph: %s", str(error).splitlines()[0])
                self.graph = False
                return self._forward()
        self.graph.replay()
        return self.logits

    def _forward(self) -> Any:
        import torch
        from torch.nn import functional

        def linear(module: Any, value: Any) -> Any:
            return functional.linear(value.to(self.type), *self.weights[id(module)])

        def norm(module: Any, value: Any) -> Any:
            return functional.rms_norm(value, module.weight.shape, module.weight, module.variance_epsilon)

        batch = len(self.token)
        self.mask.index_fill_(3, self.column, 0)
        angles = self.position.float() * self.frequencies  # text is at the same place on all three axes
        angles = torch.cat([angles, angles], dim=-1)[:, None]
        cos, sin = angles.cos() * self.scaling, angles.sin() * self.scaling
        hidden = self.inner.embed_tokens(self.token)
        for layer, kept in zip(self.inner.layers, self.kept, strict=True):
            attention, wide = layer.self_attn, norm(layer.input_layernorm, hidden)
            query, key, value = (
                linear(getattr(attention, f"{name}_proj"), wide).view(batch, -1, kept.shape[-1]) for name in "qkv"
            )
            query, key = (each * cos + _turned(each) * sin for each in (query, key))
            kept[0].index_copy_(2, self.column, key.to(self.type)[:, :, None])
            kept[1].index_copy_(2, self.column, value[:, :, None])
            # The heads that share keys attend as if they were several tokens of one head.
            mixed = functional.scaled_dot_product_attention(
                query.to(self.type).view(batch, self.heads, self.shared, -1),
                kept[0],
                kept[1],
                self.mask.expand(-1, self.heads, self.shared, -1),
            )
            hidden = hidden + linear(attention.o_proj, mixed.reshape(batch, -1))
            wide = norm(layer.post_attention_layernorm, hidden)
            inner = functional.silu(linear(layer.mlp.gate_proj, wide)) * linear(layer.mlp.up_proj, wide)
            hidden = hidden + linear(layer.mlp.down_proj, inner)
        logits = linear(self.head, norm(self.inner.norm, hidden))
        self.position += 1
        self.column += 1
        return logits


@lru_cache
def _recording_stream(device: int) -> Any:
    """One for all graphs of a device: libraries keep memory for each stream that they were used on."""
    import torch

    return torch.cuda.Stream(device)


_recordings = 0


def _recorded(work: Callable[[], Any]) -> tuple[Any, Any]:
    """A CUDA graph of some work, and the tensor that holds its result after each replay."""
    import torch

    global _recordings
    _recordings += 1
    if _recordings % 16 == 0:  # the memory of graphs that are gone is only given back when it is asked for
        torch.cuda.empty_cache()
    graph, stream = torch.cuda.CUDAGraph(), _recording_stream(torch.cuda.current_device())
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            result = work()
        finally:
            graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph, result


def _turned(values: Any) -> Any:
    import torch

    first, second = values.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)
