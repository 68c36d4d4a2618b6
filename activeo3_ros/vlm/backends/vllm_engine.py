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

"""Runs the model with vLLM in this process: the fast path on x86-64 machines with a CUDA device.

vLLM brings CUDA graphs and continuous batching over crops and cameras: a request joins, at the next step, those that
others have made. Its prefix cache keeps the part of a prompt that comes before the image. This module uses the public
interface of vLLM (`LLM`, `LLMEngine`, `SamplingParams`), and drafts of its own (`vllm_drafts`) that vLLM loads by name;
each reach into private parts is in a `vllm_private_*.py` of its own, with the public way that is taken without it.
Loading takes a minute or two, so the node does it while it is configured.
"""

from __future__ import annotations

import functools
import gc
import importlib
import itertools
import logging
import math
import os
import re
import threading
import uuid
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from ...assets.weights import local_model, model_type
from ...core.errors import EngineError, OutOfMemory
from ...core.frame import Image
from ...core.optional import has_package, require_package
from ...settings import validated, within
from ..continuous_batching import ContinuousBatching
from ..engine import Reply, Request, Token, aligned, tell
from ..families import IMAGE_TOKEN, family_named
from .preprocessing import image_in_cells, image_patches, pixel_format, prompt_ids
from .token_bytes import TokenBytes
from .vllm_drafts import speculative_config
from .vllm_private_inputs import private_inputs, public_input, public_settings
from .vllm_private_state import graphs_kept, register_core, retire_core
from .vllm_versions import version_problem

logger = logging.getLogger(__name__)

GRAPH_REQUESTS = (1, 2, 3, 4, 6, 8, 12, 16, 18, 24, 32, 48, 64)
"""Numbers of requests for which a decoding step is kept as a CUDA graph, up to `max_requests`: those of one camera and
of six, and steps between. Each takes some megabytes and a second or less of the start."""
GRAPH_TOKENS = 512
"""Tokens in one step, drafts included, from which a graph saves nothing worth its memory."""

TRIED_FAMILIES = ("qwen2_5_vl",)
"""Families that were run with vLLM itself."""

_stepping = threading.Lock()
"""vLLM keeps what a forward pass needs in variables of the process, and the intermediate results of all CUDA graphs in
one place: two engines that step at once would take each other's without any error."""


@dataclass(frozen=True)
class _Input:
    """A request as vLLM takes it, and width and height at which the model sees its image."""

    request: Request
    prompt: Any
    sampling: Any
    size: tuple[int, int]


class VllmEngine:
    """One model in this process, which many threads may ask at once."""

    @validated
    def __init__(
        self,
        model: str | Path,
        memory_share: Annotated[float, within(0.05, 0.95)] = 0.5,
        quantization: Literal["", "fp8"] = "",
        max_length: Annotated[int, within(512, 128_000)] = 8192,
        max_requests: Annotated[int, within(1, 1024)] = 32,
        drafts: Annotated[int, within(0, 31)] = 7,
        structured: bool = False,
        compile_tower: bool = True,
    ) -> None:
        """Start vLLM and load the model.

        Args:
            model: A directory with a checkpoint, or the hub id of one that `activeo3 prefetch` brought here.
            memory_share: Of the device's memory that vLLM may take, weights included.
            quantization: "" for the checkpoint's own numbers, "fp8" for 8-bit weights.
            max_length: Tokens of a request and its answer.
            max_requests: Answered at a time; more wait.
            drafts: Tokens that follow from the answer grammar and that a step checks at once; 0 writes one
                token a step, which is faster only for long texts that are no lists of boxes, such as
                `reasoning: full`. The answer is the same up to rounding: see `vlm.backends.drafts`.
            structured: Hold the model to the answer grammar of the prompt, so that every answer can be read.
            compile_tower: Let PyTorch compile the vision tower of Qwen2.5-VL, which halves its time and adds half a
                minute to the first start. It is done where it was measured: on CUDA devices, with vLLM 0.22.

        Raises:
            InvalidInput: A setting is out of its range.
            MissingPackageError: vLLM is not installed.
            EngineError: vLLM cannot start.
        """
        directory = local_model(model)
        self.family = family_named(model_type(directory))
        # Nothing is fetched or reported, and the model lives and dies with this process.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        if not has_package("flashinfer"):
            os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
        self._vllm = require_package("vllm", "to run a model with vLLM", "activeo3_ros[vllm]")
        self.device = "cuda" if importlib.import_module("torch").cuda.is_available() else "cpu"  # vLLM made for CPUs
        version = self._vllm.__version__
        if drafts and (problem := version_problem(version)):
            logger.warning("%s: nothing is drafted, it writes one token a step", problem)
            drafts = 0
        fast = self.family.name in TRIED_FAMILIES
        if not fast:
            logger.warning("models of type %s were not tried with vLLM: its public interface alone is used, nothing is "
                           "drafted and the vision tower is not compiled", self.family.name)  # fmt: skip
            drafts = 0
        self._name = directory.name
        self._quantization, self._drafts, self._structured = quantization, drafts, structured
        self._compiled = fast and compile_tower and self.device == "cuda" and version.startswith("0.22.")
        self._inputs = private_inputs(version) if fast else None
        graphs = sorted({(1 + drafts) * count for count in (*GRAPH_REQUESTS, max_requests) if count <= max_requests})
        try:
            with _turn(self.device), graphs_kept():
                self._llm = self._vllm.LLM(
                    model=str(directory),
                    dtype="auto",
                    max_model_len=max_length,
                    max_num_seqs=max_requests,
                    max_num_batched_tokens=max(max_length, 2048),
                    limit_mm_per_prompt={"image": 1, "video": 0},
                    gpu_memory_utilization=memory_share,
                    enable_prefix_caching=True,
                    mm_processor_cache_gb=0,  # a frame is seen once
                    # 8-bit weights of the language model; sides of the vision tower's layers do not suit 8-bit kernels.
                    quantization="fp8_per_tensor" if quantization else None,
                    quantization_config={"ignore": ["re:.*visual.*"]} if quantization else None,
                    speculative_config=speculative_config(drafts),
                    compilation_config={
                        "cudagraph_capture_sizes": [size for size in graphs if size <= GRAPH_TOKENS],
                        "compile_mm_encoder": self._compiled,
                    },
                    load_format="safetensors",
                    trust_remote_code=False,
                    disable_log_stats=True,
                    **(self._inputs.engine_settings() if self._inputs else public_settings(max_length, self.family)),
                )
            self._engine = self._llm.llm_engine
            self._tokenizer = self._llm.get_tokenizer()
        except Exception as error:  # vLLM has no common class of error
            raise _explained(f"{directory}: vLLM cannot start", error) from error
        if self._inputs:
            self._pixel_format = pixel_format(directory, self._engine.model_config.hf_config.vision_config)
        self._image_id = self._tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self._bytes = TokenBytes(self._tokenizer)
        self._series, self._count = uuid.uuid4().hex, itertools.count()
        self._tokenizing = threading.Lock()  # a tokenizer serves one thread at a time
        steps = _Steps(self._engine, None if self._inputs else self._tokenizing)
        self._batching = ContinuousBatching(steps, functools.partial(_turn, self.device))
        register_core(self._engine)

    def describe(self) -> str:
        numbers = self._quantization or "the checkpoint's numbers"
        drafts = f", {self._drafts} tokens drafted" if self._drafts else ""
        tower = ", the vision tower compiled" if self._compiled else ""
        public = "" if self._inputs else ", through its own image processor"
        return f"{self._name} with vLLM {self._vllm.__version__}, {numbers}{drafts}{tower}{public}"

    def close(self) -> None:
        """Free the device; where this process has other engines of this class, with the last of them."""
        engine, self._llm, self._engine = self._engine, None, None
        if engine is not None:
            retire_core(engine)
        del engine
        gc.collect()  # the parts of vLLM refer to each other; the next engine measures the memory that is free
        torch = require_package("torch", "to free the memory of a model", "activeo3_ros[gpu]")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """As `Engine.generate`."""
        if self._engine is None:
            raise EngineError(f"{self._name}: the engine is closed")
        if any(request.turns for request in requests):
            raise EngineError(
                f"{self._name}: the engine vllm takes one picture a request, a model that calls a zoom tool needs "
                "several; give its preset an engine of type transformers, or remote with a server of vLLM"
            )
        try:
            outputs = self._answer(requests)
        except Exception as error:
            raise _explained("vLLM cannot answer", error) from error
        return [self._reply(request, *output) for request, output in zip(requests, outputs, strict=True)]

    def _answer(self, requests: Sequence[Request]) -> list[tuple[Any, tuple[int, int]]]:
        """For each request, vLLM's output, and width and height at which the model saw the image."""
        inputs = self._preprocess(requests)
        outputs = self._batching.generate(inputs)
        return [(output, each.size) for output, each in zip(outputs, inputs, strict=True)]

    def _preprocess(self, requests: Sequence[Request]) -> list[_Input]:
        """Make the inputs of vLLM in the calling thread, while others' requests are answered."""
        images = [image_in_cells(request.image, self.family) for request in requests]
        prompts = (
            self._private_prompts(requests, images)
            if self._inputs
            else [
                public_input(request.prompt, self.family, image)
                for request, image in zip(requests, images, strict=True)
            ]
        )
        return [
            _Input(request, prompt, self._sampling(request), (image.shape[1], image.shape[0]))
            for request, image, prompt in zip(requests, images, prompts, strict=True)
        ]

    def _private_prompts(self, requests: Sequence[Request], images: Sequence[Image]) -> list[Any]:
        """The requests with pixels that were preprocessed on the device."""
        import torch

        assert self._inputs is not None
        device = torch.device(self.device)
        dtype = self._engine.model_config.dtype
        pixels = [image_patches(image, self._pixel_format, device).to(dtype) for image in images]
        if device.type == "cuda":
            torch.cuda.current_stream().synchronize()  # vLLM reads them on a stream of its own
            for each in pixels:
                each.record_stream(_stream())
        cell, patch = self.family.cell_px, self._pixel_format.patch_px
        prompts = []
        for request, image, patches in zip(requests, images, pixels, strict=True):
            height, width = image.shape[:2]
            with self._tokenizing:
                cells = (height // cell) * (width // cell)
                ids = prompt_ids(self._tokenizer, request.prompt, self.family, [cells], self._image_id)
            name = f"{self._series}-{next(self._count)}"
            prompts.append(self._inputs.build(ids, self._image_id, patches, height // patch, width // patch, name))
        return prompts

    def _sampling(self, request: Request) -> Any:
        kinds = importlib.import_module("vllm.sampling_params")
        grammar = request.prompt.regex if self._structured else ""
        kind = kinds.RequestOutputKind.FINAL_ONLY if request.on_text is None else kinds.RequestOutputKind.CUMULATIVE
        return self._vllm.SamplingParams(
            temperature=0,
            max_tokens=request.max_new_tokens,
            stop=list(request.prompt.stop) or None,
            include_stop_str_in_output=True,
            logprobs=0,  # of the chosen token alone
            flat_logprobs=True,
            structured_outputs=kinds.StructuredOutputsParams(regex=grammar) if grammar else None,
            output_kind=kind,
        )

    def _reply(self, request: Request, output: Any, size: tuple[int, int]) -> Reply:
        written = output.outputs[0]
        ids = [int(token) for token in written.token_ids]
        chances = [
            math.exp(min(0.0, entries[token].logprob)) if token in entries else math.nan
            for token, entries in zip(ids, written.logprobs or [{}] * len(ids), strict=True)
        ]
        with self._tokenizing:
            texts = self._bytes.texts(ids)
        tokens = [Token(*each) for each in zip(texts, chances, ids, strict=True)]
        return Reply(
            request.prompt.prefix + written.text,
            aligned(tokens, written.text),
            size,
            len(output.prompt_token_ids),
            finished=written.finish_reason != "length",
        )


class _Steps:
    """vLLM's engine, step by step."""

    def __init__(self, engine: Any, tokenizing: threading.Lock | None) -> None:
        """tokenizing: held while vLLM preprocesses a request; None where that is done already."""
        self._engine = weakref.proxy(engine)  # it goes when its owner lets it go
        self._tokenizing = tokenizing
        self._count = itertools.count()
        self._listened: dict[str, Request] = {}

    def add(self, request: _Input) -> str:
        name = str(next(self._count))
        if request.request.on_text is not None:
            self._listened[name] = request.request
        if self._tokenizing is None:
            self._engine.add_request(name, request.prompt, request.sampling)
        else:
            with _stepping, self._tokenizing:  # vLLM's processor changes the number of threads of the whole process
                self._engine.add_request(name, request.prompt, request.sampling)
        return name

    def step(self) -> list[tuple[str, Any]]:
        outputs = self._engine.step()
        for output in outputs:
            request = self._listened.get(output.request_id)
            if request is not None:
                tell(request, output.outputs[0].text)
            if output.finished:
                self._listened.pop(output.request_id, None)
        return [(output.request_id, output) for output in outputs if output.finished]

    def abort(self, names: Sequence[str]) -> None:
        for name in names:
            self._listened.pop(name, None)
        self._engine.abort_request(list(names))


@contextmanager
def _turn(device: str) -> Iterator[None]:
    """One step of one engine of this process, on vLLM's own stream of a CUDA device.

    Threads have streams of their own otherwise, which nothing keeps in order; and preprocessing on another stream waits
    for no step.
    """
    with _stepping:
        if device == "cuda":
            with importlib.import_module("torch").cuda.stream(_stream()):
                yield
        else:
            yield


@functools.cache
def _stream() -> Any:
    return importlib.import_module("torch").cuda.Stream()


def _explained(failure: str, error: Exception) -> EngineError:
    lines = (str(error).strip() or type(error).__name__).splitlines()
    # Settings that vLLM refuses come as a count of errors, and the reason on a line of its own.
    reasons = [line.strip().partition(" [type=")[0] for line in lines if line.strip().startswith("Value error, ")]
    message = f"{failure}: {reasons[0].removeprefix('Value error, ') if reasons else lines[0]}"
    if "out of memory" in str(error).lower() or type(error).__name__ == "OutOfMemoryError":
        return OutOfMemory(f"{message}; lower memory_share, max_requests or the size of the views")
    if re.search("gpu.memory.utilization", message, re.IGNORECASE):
        return EngineError(f"{message} This is memory_share here; a policy and a task model of their own take it each")
    return EngineError(f"{message}; the engine `transformers` runs on more machines")
