"""Runs the model with vLLM in this process: the fast path on x86-64 machines with a CUDA device.

vLLM brings CUDA graphs and continuous batching over crops and cameras; its prefix cache keeps the part of a prompt that
comes before the image. Loading takes about a minute, so the node does it while it is configured.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..optional import require_package
from ..perception.errors import InvalidInput
from .base import EngineError, OutOfMemory, Reply, Request, Token
from .qwen import conversation, family_named
from .weights import local_model, model_type


class VllmEngine:
    """One model in this process; the requests of one call are answered together."""

    device = "cuda"

    def __init__(
        self,
        model: str,
        memory_share: float = 0.5,
        quantization: str = "",
        max_length: int = 8192,
        max_requests: int = 32,
    ) -> None:
        """model: a directory with a checkpoint, or the hub id of one that `activeo3 prefetch` brought here.

        memory_share: of the device's memory that vLLM may take, weights included, 0.05 to 0.95.
        quantization: "" for the checkpoint's own numbers, "fp8" for 8-bit weights.
        max_length: tokens of a request and its answer, 512 to 128000. max_requests: at a time, 1 to 1024.

        Raises MissingPackage without vllm, EngineError if it cannot start.
        """
        for name, value, low, high in (
            ("memory_share", memory_share, 0.05, 0.95),
            ("max_length", max_length, 512, 128_000),
            ("max_requests", max_requests, 1, 1024),
        ):
            if not low <= value <= high:
                raise InvalidInput(f"{name} must be {low} to {high}, got {value}")
        if quantization not in ("", "fp8"):
            raise InvalidInput(f"quantization must be '' or 'fp8', got {quantization!r}")
        directory = local_model(model)
        self.family = family_named(model_type(directory))
        # Nothing is fetched or reported, and the model lives and dies with this process.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        self._vllm = require_package("vllm", "to run a model with vLLM", "activeo3_ros[vllm]")
        self._name, self._lock = directory.name, threading.Lock()
        self._quantization = quantization
        try:
            self._llm = self._vllm.LLM(
                model=str(directory),
                dtype="auto",
                max_model_len=max_length,
                max_num_seqs=max_requests,
                limit_mm_per_prompt={"image": 1, "video": 0},
                gpu_memory_utilization=memory_share,
                enable_prefix_caching=True,
                quantization=quantization or None,
                load_format="safetensors",
                trust_remote_code=False,
                disable_log_stats=True,
            )
        except Exception as error:  # vLLM has no common class of error
            raise _explained(f"{directory}: vLLM cannot start", error) from error

    def describe(self) -> str:
        numbers = self._quantization or "the checkpoint's numbers"
        return f"{self._name} with vLLM {self._vllm.__version__}, {numbers}"

    def close(self) -> None:
        self._llm = None

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        prompts = [self._prompt(request) for request in requests]
        settings = [
            self._vllm.SamplingParams(
                temperature=0,
                max_tokens=request.max_new_tokens,
                stop=list(request.prompt.stop) or None,
                include_stop_str_in_output=True,
                logprobs=0,  # of the chosen token alone
            )
            for request in requests
        ]
        try:
            with self._lock:
                outputs = self._llm.generate(prompts, settings, use_tqdm=False)
        except Exception as error:
            raise _explained("vLLM cannot answer", error) from error
        return [_reply(request, output) for request, output in zip(requests, outputs, strict=True)]

    def _prompt(self, request: Request) -> dict[str, Any]:
        from PIL import Image

        prompt = request.prompt
        picture = Image.fromarray(np.ascontiguousarray(request.image[:, :, ::-1]))
        return {
            "prompt": conversation(prompt.system, prompt.before, prompt.after, prompt.prefix),
            "multi_modal_data": {"image": picture},
        }


def _reply(request: Request, output: Any) -> Reply:
    written = output.outputs[0]
    tokens = []
    for token_id, entries in zip(written.token_ids, written.logprobs or [{}] * len(written.token_ids), strict=True):
        entry = entries.get(token_id)
        probability = math.exp(min(0.0, entry.logprob)) if entry is not None else math.nan
        tokens.append(Token((entry.decoded_token or "") if entry is not None else "", probability, int(token_id)))
    if "".join(token.text for token in tokens) != written.text:
        tokens = _aligned(tokens, written.text)
    size = request.image.shape[1], request.image.shape[0]
    return Reply(
        request.prompt.prefix + written.text,
        tuple(tokens),
        size,
        len(output.prompt_token_ids),
        finished=written.finish_reason != "length",
    )


def _aligned(tokens: Sequence[Token], text: str) -> list[Token]:
    """The tokens with the parts of the text that they wrote; unknown probabilities where the two do not fit together.

    vLLM leaves the end-of-answer token and what follows a stop text out of its text, but not out of its tokens.
    """
    aligned, rest = [], text
    for token in tokens:
        if rest.startswith(token.text):
            piece = token.text
        elif token.text.startswith(rest) or token.text.startswith("<|"):
            piece = rest if token.text.startswith(rest) else ""
        else:
            return [Token(text, id=tokens[0].id), *(Token("", id=other.id) for other in tokens[1:])]
        aligned.append(Token(piece, token.probability, token.id))
        rest = rest[len(piece) :]
    return aligned if not rest else [Token(text), *(Token("") for _ in tokens[1:])]


def _explained(what: str, error: Exception) -> EngineError:
    message = f"{what}: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    if "out of memory" in str(error).lower() or type(error).__name__ == "OutOfMemoryError":
        return OutOfMemory(f"{message}; lower memory_share, max_requests or the size of the views")
    return EngineError(f"{message}; the engine `transformers` runs on more machines")
