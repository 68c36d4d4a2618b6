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

"""Runs Qwen2.5-VL, Qwen3-VL and Qwen3.5 with transformers: the reference engine, on CPUs and on any CUDA device.

Everything comes from a local directory: nothing is downloaded, no code from a checkpoint is run, and only safetensors
files are read.
"""

from __future__ import annotations

import codecs
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ...assets.devices import torch_device
from ...assets.weights import local_model, model_type
from ...core.errors import EngineError, OutOfMemory
from ...core.frame import Image
from ...core.optional import require_package
from ...settings import validated, within
from ..engine import Reply, Request, Token, tell
from ..families import IMAGE_TOKEN, family_named
from .alignment import align_feed_forward
from .attention import best_attention, loading_name, put_in_varlen
from .preprocessing import PixelFormat, image_in_cells, patches, pixel_format, prompt_ids
from .token_bytes import TokenBytes

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Attention = Literal["auto", "flash_attention_2", "varlen", "sdpa", "eager"]
Cache = Literal["dynamic", "static"]


class TransformersEngine:
    """One model in this process, greedy decoding, one batch at a time."""

    @validated
    def __init__(
        self,
        model: str | Path,
        device: str = "auto",
        dtype: Dtype = "auto",
        attention: Attention = "auto",
        cache: Cache = "dynamic",
        max_batch: Annotated[int, within(1, 1024)] = 32,
    ) -> None:
        """Load the model.

        Args:
            model: A directory with a checkpoint, or the hub id of one that `activeo3 prefetch` brought here.
            device: "auto" for the first CUDA device, else the CPU; or a name that torch knows, such as "cuda:1".
            dtype: "auto" for bfloat16 on CUDA devices that have it, float16 on older ones, float32 on a CPU.
            attention: Of the vision tower and the language model; "auto" takes the fastest that is installed.
            cache: "dynamic" grows with the answer; "static" is compiled on CUDA, which makes a token more than twice
                as fast but takes most of a minute for each new number of views and length of prompt: see
                docs/results/vlm.md.
            max_batch: Requests answered at a time; more wait.

        Raises:
            InvalidInput: A setting is out of its range.
            MissingPackageError: torch or transformers is not installed.
            EngineError: The checkpoint is missing or unusable.
        """
        self._torch = require_package("torch", "to run a vision-language model", "activeo3_ros[gpu]")
        transformers = require_package("transformers", "to run a vision-language model", "activeo3_ros[gpu]")
        directory = local_model(model)
        self._directory = directory
        self.family = family_named(model_type(directory))
        self.device = torch_device(device)
        self._dtype = self._dtype_for(dtype)
        self._attention = best_attention(attention, self.device, self._dtype)
        self._static = cache == "static"
        self._max_batch = max_batch
        self._lock = threading.Lock()
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
            self.model = transformers.AutoModelForImageTextToText.from_pretrained(
                directory,
                dtype=self._dtype,
                device_map=None if self.device.type == "cpu" else str(self.device),
                attn_implementation=loading_name(self._attention),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
            ).eval()
        except self._torch.cuda.OutOfMemoryError as error:
            raise OutOfMemory(f"{directory}: the weights do not fit into the memory of {self.device}") from error
        except Exception as error:  # transformers, tokenizers and safetensors have no common class of error
            raise EngineError(f"{directory}: cannot be loaded: {_first_line(error)}") from error
        if self._attention == "varlen":
            put_in_varlen(self.model)
        if self.device.type == "cuda":
            align_feed_forward(self.model.model.visual)
        self._adopt()

    @classmethod
    def from_parts(
        cls, model: Any, tokenizer: Any, spec: PixelFormat | None = None, cache: str = "dynamic"
    ) -> TransformersEngine:
        """An engine around a model and a tokenizer that are loaded already, as a trainer or a benchmark has them.

        Args:
            model: Of transformers.
            tokenizer: Of the same checkpoint.
            spec: The pixel format; None for that of the model's directory.
            cache: As in the constructor.
        """
        engine = cls.__new__(cls)
        engine._torch = require_package("torch", "to run a vision-language model", "activeo3_ros[gpu]")
        engine.model, engine.tokenizer = model, tokenizer
        engine.family = family_named(model.config.model_type)
        engine.device = model.device
        engine._directory = Path(getattr(model, "name_or_path", "") or "model")
        engine._dtype, engine._attention = model.dtype, str(model.config._attn_implementation)
        engine._static, engine._max_batch = cache == "static", 32
        engine._lock = threading.Lock()
        engine._adopt(spec)
        return engine

    def _adopt(self, spec: PixelFormat | None = None) -> None:
        """Take the ids of special tokens and the pixel format from the model and its tokenizer."""
        config = self.model.config
        vision = config.vision_config
        self._image_id = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        if self._image_id != config.image_token_id:
            raise EngineError(
                f"{self._directory}: the tokenizer's id of {IMAGE_TOKEN} is {self._image_id}, the model's is "
                f"{config.image_token_id}; take both from one checkpoint"
            )
        self._ends = _end_ids(self.model, self.tokenizer)
        self._pad_id = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self._ends[0]
        self._spec = spec or pixel_format(self._directory, vision)
        if self._spec.patch_px * self._spec.merge != self.family.cell_px:
            raise EngineError(
                f"{self._directory}: its cells are {self._spec.patch_px * self._spec.merge} px, those of "
                f"{self.family.name} are {self.family.cell_px} px"
            )

    def _dtype_for(self, name: str) -> torch.dtype:
        torch = self._torch
        if name == "auto":
            if self.device.type != "cuda":
                return torch.float32
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return getattr(torch, name)

    def describe(self) -> str:
        dtype = str(self._dtype).removeprefix("torch.")
        cache = "static" if self._static else "dynamic"
        return f"{self._directory.name} on {self.device} with transformers, {dtype}, {self._attention}, {cache} cache"

    def close(self) -> None:
        self.model = None
        if self.device.type == "cuda":
            self._torch.cuda.empty_cache()

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        replies: list[Reply] = []
        with self._lock:
            for start in range(0, len(requests), self._max_batch):
                replies += self._generate(requests[start : start + self._max_batch])
        return replies

    def _generate(self, requests: Sequence[Request]) -> list[Reply]:
        try:
            return self._generate_batch(requests)
        except self._torch.cuda.OutOfMemoryError as error:
            sizes = ", ".join(f"{request.image.shape[1]}x{request.image.shape[0]}" for request in requests)
            message = f"{self.device} is out of memory for {len(requests)} requests ({sizes} px)"
            error.__traceback__ = None  # its frames hold the tensors that were just too many
        # Outside of the handler, which holds on to the error.
        self._torch.cuda.empty_cache()
        raise OutOfMemory(f"{message}; ask for fewer or smaller views, or free memory on the device")

    def _generate_batch(self, requests: Sequence[Request]) -> list[Reply]:
        torch = self._torch
        shown = [[image_in_cells(image, self.family) for image in request.images] for request in requests]
        images = [image for own in shown for image in own]
        prompts = [
            prompt_ids(self.tokenizer, request.prompt, self.family, self._cells(own), self._image_id, request.turns)
            for request, own in zip(requests, shown, strict=True)
        ]
        longest, limit = max(map(len, prompts)), max(request.max_new_tokens for request in requests)
        ids = torch.full((len(prompts), longest), self._pad_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        pixels, grids = patches(images, self._spec, self.device)
        follower = _Follower(self.tokenizer, requests, longest, set(self._ends))
        with torch.inference_mode():
            sequences = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                mm_token_type_ids=(ids == self._image_id).long(),
                pixel_values=pixels.to(self._dtype),
                image_grid_thw=grids,
                generation_config=self._generation_config(limit),
                logits_processor=[follower.note_probabilities],
                stopping_criteria=[follower.finished],
            )
        written = sequences[:, longest:].tolist()
        probabilities = follower.probabilities()
        return [
            follower.reply(row, written[row], probabilities[row], (own[0].shape[1], own[0].shape[0]), len(prompts[row]))
            for row, own in enumerate(shown)
        ]

    def _cells(self, images: Sequence[Image]) -> list[int]:
        """The number of tokens of each image."""
        cell = self.family.cell_px
        return [(image.shape[0] // cell) * (image.shape[1] // cell) for image in images]

    def _generation_config(self, limit: int) -> Any:
        from transformers import GenerationConfig

        settings: dict[str, Any] = {"cache_implementation": "static"} if self._static else {}
        return GenerationConfig(
            max_new_tokens=limit, do_sample=False, eos_token_id=self._ends, pad_token_id=self._pad_id, **settings
        )


class _Follower:
    """Records the probability of each token of a batch while it is decoded, and the answers that are complete."""

    def __init__(self, tokenizer: Any, requests: Sequence[Request], prompt_length: int, ends: set[int]) -> None:
        self._requests = requests
        self._prompt_length = prompt_length
        self._ends = ends
        self._steps: list[torch.Tensor] = []
        self._bytes = TokenBytes(tokenizer)
        self._texts = ["" for _ in requests]
        self._decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in requests]
        self._done = [False for _ in requests]
        self._lengths = [0 for _ in requests]

    def note_probabilities(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """A logits processor that changes nothing: the greedy token's probability is 1 / sum(exp(l - max l))."""
        values = scores.float()
        self._steps.append((values - values.max(dim=-1, keepdim=True).values).exp().sum(dim=-1).reciprocal())
        return scores

    def finished(self, ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """A stopping criterion: `(batch,)` bool, True for an answer with one of its stop texts or all of its tokens."""
        import torch

        for row, token in enumerate(ids[:, -1].tolist()):
            if self._done[row]:
                continue
            self._lengths[row] += 1
            request = self._requests[row]
            before = len(self._texts[row])
            self._texts[row] += self._decoders[row].decode(self._bytes[token])
            recent = self._texts[row][max(0, before - 32) :]
            complete = any(stop in recent for stop in request.prompt.stop)
            self._done[row] = complete or token in self._ends or self._lengths[row] >= request.max_new_tokens
            tell(request, self._texts[row])
        return torch.tensor(self._done, device=ids.device)

    def probabilities(self) -> list[list[float]]:
        """For each request, the probability of each token."""
        import torch

        return torch.stack(self._steps, dim=1).tolist() if self._steps else [[] for _ in self._requests]

    def reply(
        self, row: int, ids: list[int], probabilities: list[float], size: tuple[int, int], prompt_tokens: int
    ) -> Reply:
        request = self._requests[row]
        ids = ids[: self._lengths[row]]
        ended = bool(ids) and ids[-1] in self._ends
        tokens = [
            Token(text, probability, token)
            for text, probability, token in zip(self._bytes.texts(ids), probabilities, ids, strict=False)
        ]
        text = request.prompt.prefix + "".join(token.text for token in tokens)
        stopped = any(stop in text[len(request.prompt.prefix) :] for stop in request.prompt.stop)
        return Reply(text, tuple(tokens), size, prompt_tokens, finished=ended or stopped)


def _end_ids(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    ids = [
        token
        for token in [*ids, tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
        if token is not None
    ]
    return list(dict.fromkeys(ids))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
