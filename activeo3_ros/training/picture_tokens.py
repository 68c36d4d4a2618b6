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

"""Tokens that stand for pictures: an answer must never hold one, and vLLM takes one for each image of a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core import InvalidInput

PICTURE_TOKENS = (
    "image_token_id", "video_token_id", "vision_token_id", "vision_start_token_id", "vision_end_token_id",
)  # fmt: skip
"""Keys of a model's configuration: tokens that stand for pictures, and those that begin and end them."""
LEAST_BIAS = -100.0
"""The lowest that servers of vLLM take; a token of such a bias has no chance."""


def picture_tokens(config: Any, *more: int) -> list[int]:
    """Find the tokens of a model that an answer must not hold.

    Args:
        config: The model's configuration of transformers.
        more: Tokens of this kind that the configuration does not name.

    Returns:
        Token ids that the model can write, sorted.
    """
    named = [getattr(config, name, None) for name in PICTURE_TOKENS]
    words = config.get_text_config().vocab_size
    return sorted({token for token in (*named, *more) if token is not None and token < words})


def without_pictures(given: Mapping[str, Any] | None, tokens: Sequence[int], vllm: bool) -> dict[str, Any]:
    """Add to TRL's `generation_kwargs` one setting, by which some tokens are never sampled.

    At a temperature of 1 any token comes up sooner or later. One that stands for a picture makes prompt and answer hold
    a picture more than there are, and the next forward pass ends the run.

    Args:
        given: The settings of the configuration.
        tokens: Ids of the tokens that are never sampled.
        vllm: Whether vLLM samples, instead of transformers.

    Returns:
        The settings given and `logit_bias` or `suppress_tokens`.

    Raises:
        InvalidInput: One of these two is given and has another form.
    """
    settings = dict(given or {})
    if vllm:  # TRL makes vLLM's SamplingParams of them
        biases = settings.get("logit_bias") or {}
        if not (isinstance(biases, Mapping) and all(str(token).isdecimal() for token in biases)):
            raise InvalidInput(f"grpo: generation_kwargs: logit_bias must map token ids to numbers, got {biases!r}")
        biases = {int(token): bias for token, bias in biases.items()}
        settings["logit_bias"] = {**biases, **dict.fromkeys(tokens, LEAST_BIAS)}
    else:  # transformers' GenerationConfig; a list given here replaces TRL's own, which is the image token alone
        barred = settings.get("suppress_tokens") or []
        if not (isinstance(barred, list) and all(type(token) is int and token >= 0 for token in barred)):
            raise InvalidInput(f"grpo: generation_kwargs: suppress_tokens must be a list of token ids, got {barred!r}")
        settings["suppress_tokens"] = sorted({*barred, *tokens})
    return settings


def one_token_an_image(ids: Sequence[int], image_token: int) -> list[int]:
    """Shorten each run of image tokens in a prompt to one token.

    Args:
        ids: The tokens of a prompt.
        image_token: The token that stands for a part of an image.

    Returns:
        The shortened prompt.
    """
    return [id for index, id in enumerate(ids) if id != image_token or index == 0 or ids[index - 1] != image_token]
