"""Runs the model with vLLM in this process: the fast path on x86-64 machines with a CUDA device.

vLLM brings CUDA graphs and continuous batching over crops and cameras: what one thread asks joins, at the next step,
what others have asked. Its prefix cache keeps the part of a prompt that comes before the image. Views go to it as
patches that were made on the device, so no image processor of vLLM resizes or copies them on the CPU. What the form of
an answer determines is drafted (`vlm.backends.drafts`) and only checked by the model. Loading takes a minute or two, so
the node does it while it is configured.
"""

from __future__ import annotations

import copy
import functools
import gc
import importlib
import itertools
import math
import os
import re
import threading
import uuid
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ...assets.weights import local_model, model_type
from ...core.errors import EngineError, OutOfMemory
from ...core.frame import Image
from ...core.optional import has_package, require_package
from ...settings import validated, within
from ..continuous_batching import ContinuousBatching
from ..engine import Reply, Request, Token, aligned
from ..families import IMAGE_TOKEN, family_named, prompt_ids
from .alignment import align_feed_forward
from .drafts import VllmDrafts
from .preprocessing import image_in_cells, image_patches, pixel_format
from .token_bytes import TokenBytes

if TYPE_CHECKING:
    import torch

GRAPH_REQUESTS = (1, 2, 3, 4, 6, 8, 12, 16, 18, 24, 32, 48, 64)
"""Numbers of requests for which a decoding step is kept as a CUDA graph, up to `max_requests`: those of one camera and
of six, and steps between. Each takes some megabytes and a second or less of the start."""
GRAPH_TOKENS = 512
"""Tokens in one step, drafts included, from which a graph saves nothing worth its memory."""

VERSIONS = ((0, 22), (0, 32))
"""The first and the last vLLM whose inputs are known. Another may take pixels in another form: it would not fail, but
see something else."""

_in_use: list[Any] = []
_retired: list[Any] = []
_cores = threading.RLock()  # garbage collection within may close an engine
"""The cores of all engines of this process. They share state that goes with the first that is shut down, so one that is
closed waits, with its memory, until no other is in use."""

_stepping = threading.Lock()
"""vLLM keeps what a forward pass needs in variables of the process, and the intermediate results of all CUDA graphs in
one place: two engines that step at once would take each other's without any error."""


@dataclass(frozen=True)
class _Prepared:
    """A request as vLLM takes it, and width and height at which the model sees its image."""

    inputs: Any
    sampling: Any
    size: tuple[int, int]


class VllmEngine:
    """One model in this process, which many threads may ask at once."""

    @validated
    def __init__(
        self,
        model: str,
        memory_share: Annotated[float, within(0.05, 0.95)] = 0.5,
        quantization: Literal["", "fp8"] = "",
        max_length: Annotated[int, within(512, 128_000)] = 8192,
        max_requests: Annotated[int, within(1, 1024)] = 32,
        drafts: Annotated[int, within(0, 31)] = 7,
        structured: bool = False,
        compile_tower: bool = True,
    ) -> None:
        """model: a directory with a checkpoint, or the hub id of one that `activeo3 prefetch` brought here.

        memory_share: of the device's memory that vLLM may take, weights included, 0.05 to 0.95.
        quantization: "" for the checkpoint's own numbers, "fp8" for 8-bit weights.
        max_length: tokens of a request and its answer, 512 to 128000. max_requests: at a time, 1 to 1024.
        drafts: tokens of the form of an answer that a step checks at once, 0 to 31; 0 writes one token a step, which is
        faster only for long texts that are no lists of boxes, such as `reasoning: full`. The answer is the same.
        structured: hold the model to the form that a prompt asks for, so that every answer can be read.
        compile_tower: let PyTorch compile the vision tower of Qwen2.5-VL, which halves its time and adds half a minute
        to the first start. It is done where it was measured: on CUDA devices, with vLLM 0.22.

        Raises MissingPackage without vllm, EngineError if it cannot start or is of another version than `VERSIONS`.
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
        if problem := version_problem(self._vllm.__version__):
            raise EngineError(f"{problem}; install one of these, or run it as a server and use the engine `remote`")
        self._name = directory.name
        self._quantization, self._drafts, self._structured = quantization, drafts, structured
        self._compiled = compile_tower and self.device == "cuda" and self._vllm.__version__.startswith("0.22.")
        graphs = sorted({(1 + drafts) * count for count in (*GRAPH_REQUESTS, max_requests) if count <= max_requests})
        try:
            with _turn(self.device), _graphs_kept():
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
                    speculative_config={
                        "method": "custom_class",
                        "model": f"{VllmDrafts.__module__}.{VllmDrafts.__qualname__}",
                        "num_speculative_tokens": drafts,
                    }
                    if drafts
                    else None,
                    compilation_config={
                        "cudagraph_capture_sizes": [size for size in graphs if size <= GRAPH_TOKENS],
                        "compile_mm_encoder": self._compiled,
                    },
                    load_format=_loader(),
                    trust_remote_code=False,
                    disable_log_stats=True,
                    **_settings_of_version(),
                )
            self._engine = self._llm.llm_engine
            self._tokenizer = self._llm.get_tokenizer()
        except Exception as error:  # vLLM has no common class of error
            raise _explained(f"{directory}: vLLM cannot start", error) from error
        self._form = pixel_format(directory, self._engine.model_config.hf_config.vision_config)
        self._image_id = self._tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        self._bytes = TokenBytes(self._tokenizer)
        self._series, self._count = uuid.uuid4().hex, itertools.count()
        self._tokenizing = threading.Lock()  # a tokenizer serves one thread at a time
        self._batching = ContinuousBatching(_Steps(self._engine), functools.partial(_turn, self.device))
        with _cores:
            _in_use.append(self._engine.engine_core)

    def describe(self) -> str:
        numbers = self._quantization or "the checkpoint's numbers"
        drafts = f", {self._drafts} tokens drafted" if self._drafts else ""
        tower = ", the vision tower compiled" if self._compiled else ""
        return f"{self._name} with vLLM {self._vllm.__version__}, {numbers}{drafts}{tower}"

    def close(self) -> None:
        """Free the device; where this process has other engines of this class, with the last of them."""
        engine, self._llm, self._engine = self._engine, None, None
        if engine is not None:
            with _cores:
                _in_use.remove(engine.engine_core)
                _retired.append(engine.engine_core)
                while _retired and not _in_use:
                    _retired.pop().shutdown()
        del engine
        gc.collect()  # the parts of vLLM refer to each other; the next engine measures what memory is free
        torch = require_package("torch", "to free the memory of a model", "activeo3_ros[gpu]")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        if self._engine is None:
            raise EngineError(f"{self._name}: the engine is closed")
        try:
            outputs = self._answer(requests)
        except Exception as error:
            raise _explained("vLLM cannot answer", error) from error
        return [self._reply(request, *output) for request, output in zip(requests, outputs, strict=True)]

    def _answer(self, requests: Sequence[Request]) -> list[tuple[Any, tuple[int, int]]]:
        """For each request, what vLLM answers, and width and height at which the model saw the image."""
        prepared = self._prepare(requests)
        outputs = self._batching.generate(prepared)
        return [(output, each.size) for output, each in zip(outputs, prepared, strict=True)]

    def _prepare(self, requests: Sequence[Request]) -> list[_Prepared]:
        """In the thread that asks, while others' requests are answered."""
        import torch

        images = [image_in_cells(request.image, self.family) for request in requests]
        device = torch.device(self.device)
        dtype = self._engine.model_config.dtype
        pixels = [image_patches(image, self._form, device).to(dtype) for image in images]
        if device.type == "cuda":
            torch.cuda.current_stream().synchronize()  # vLLM reads them on a stream of its own
            for each in pixels:
                each.record_stream(_stream())
        return [
            _Prepared(
                self._input(request, image, patch, f"{self._series}-{next(self._count)}"),
                self._sampling(request),
                (image.shape[1], image.shape[0]),
            )
            for request, image, patch in zip(requests, images, pixels, strict=True)
        ]

    def _sampling(self, request: Request) -> Any:
        kinds = importlib.import_module("vllm.sampling_params")
        form = request.prompt.regex if self._structured else ""
        return self._vllm.SamplingParams(
            temperature=0,
            max_tokens=request.max_new_tokens,
            stop=list(request.prompt.stop) or None,
            include_stop_str_in_output=True,
            logprobs=0,  # of the chosen token alone
            flat_logprobs=True,
            structured_outputs=kinds.StructuredOutputsParams(regex=form) if form else None,
            output_kind=kinds.RequestOutputKind.FINAL_ONLY,
        )

    def _input(self, request: Request, image: Image, pixels: torch.Tensor, name: str) -> Any:
        """A request as vLLM's own processors would hand it on."""
        import torch

        inputs = importlib.import_module("vllm.multimodal.inputs")
        cell, patch = self.family.cell_px, self._form.patch_px
        height, width = image.shape[:2]
        with self._tokenizing:
            ids = prompt_ids(self._tokenizer, request.prompt, (height // cell) * (width // cell), self._image_id)
        grid = torch.tensor([1, height // patch, width // patch])
        item = {
            "pixel_values": inputs.MultiModalFieldElem(data=pixels, field=_on_device_field()),
            "image_grid_thw": inputs.MultiModalFieldElem(
                data=grid, field=inputs.MultiModalBatchedField(keep_on_cpu=True)
            ),
        }
        place = inputs.PlaceholderRange(offset=ids.index(self._image_id), length=ids.count(self._image_id))
        return importlib.import_module("vllm.inputs").mm_input(
            prompt_token_ids=ids,
            mm_kwargs=inputs.MultiModalKwargsItems({"image": [inputs.MultiModalKwargsItem(item)]}),
            mm_hashes={"image": [name]},  # no two views are alike: hashing them would be in vain
            mm_placeholders={"image": [place]},
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

    def __init__(self, engine: Any) -> None:
        self._engine = weakref.proxy(engine)  # it goes when its owner lets it go
        self._count = itertools.count()

    def add(self, request: _Prepared) -> str:
        name = str(next(self._count))
        inner = self._engine.add_request(name, request.inputs, request.sampling)
        # vLLM would decode each token once more beside its probability, which takes longer than all else that it does
        # with an answer; the texts are made once, when the answer is complete.
        states = getattr(getattr(self._engine, "output_processor", None), "request_states", {})
        processor = getattr(states.get(inner), "logprobs_processor", None)
        if processor is not None:
            processor.tokenizer = None
        return name

    def step(self) -> list[tuple[str, Any]]:
        return [(output.request_id, output) for output in self._engine.step() if output.finished]

    def abort(self, names: Sequence[str]) -> None:
        self._engine.abort_request(list(names))


@contextmanager
def _turn(device: str) -> Iterator[None]:
    """One step of one engine of this process, on vLLM's own stream of a CUDA device.

    Threads have streams of their own otherwise, which nothing keeps in order; and what is prepared on another waits for
    no step.
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


@contextmanager
def _graphs_kept() -> Iterator[None]:
    """Spare the CUDA graphs of other engines: vLLM clears all of the process when it has measured what its own take."""
    kept = []
    for module, name in (("cuda_graph", "CUDAGraphWrapper"), ("breakable_cudagraph", "BreakableCUDAGraphWrapper")):
        try:
            known = getattr(importlib.import_module(f"vllm.compilation.{module}"), name)._all_instances
        except (ImportError, AttributeError):
            continue  # of another version
        kept.append((known, list(known)))
        known.clear()
    try:
        yield
    finally:
        for known, instances in kept:
            known.update(instances)


def _align_tower(model: Any) -> None:
    """Of the vision tower alone: the language model's layers may hold 8-bit weights in a layout of their own."""
    if hasattr(model, "visual"):
        align_feed_forward(model.visual)


@functools.cache
def _loader() -> str:
    """The name that vLLM knows a loader of safetensors by; it aligns the vision tower before that is compiled."""
    loading = importlib.import_module("vllm.model_executor.model_loader")
    name = "activeo3_safetensors"

    class AligningLoader(loading.DefaultModelLoader):  # type: ignore[misc, name-defined]
        def __init__(self, config: Any) -> None:
            config = copy.copy(config)
            config.load_format = "safetensors"
            super().__init__(config)

        def load_model(self, *args: Any, **named: Any) -> Any:
            model = super().load_model(*args, **named)
            if next(model.parameters()).is_cuda:  # on CPUs vLLM has packed the weights already
                _align_tower(model)
            return model

    loading.register_model_loader(name)(AligningLoader)
    return name


def _settings_of_version() -> dict[str, Any]:
    """Settings that not every version has: from 0.28 on vLLM normalizes pixels unless told that it is done."""
    known = importlib.import_module("vllm.engine.arg_utils").EngineArgs.__dataclass_fields__
    return {"mm_device_do_normalize": False} if "mm_device_do_normalize" in known else {}


def version_problem(version: str) -> str:
    """Why a version of vLLM cannot be used; "" if it can, or if there is none that could be told."""
    if not version:
        return ""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is not None and VERSIONS[0] <= tuple(map(int, numbers.groups())) <= VERSIONS[1]:
        return ""
    first, last = (".".join(map(str, known)) for known in VERSIONS)
    return f"vLLM {version} is installed, and this engine knows the inputs of {first} to {last}"


@functools.cache
def _on_device_field() -> Any:
    """How vLLM joins the patches of several requests: as its own field does, but for memory that is on the device."""
    inputs = importlib.import_module("vllm.multimodal.inputs")

    class OnDeviceField(inputs.MultiModalFlatField):  # type: ignore[misc, name-defined]
        def _reduce_data(self, batch: list[Any], *, pin_memory: bool) -> Any:
            return super()._reduce_data(batch, pin_memory=False)  # only the CPU's memory can be pinned

    return OnDeviceField(slices=[slice(None)])


def _explained(what: str, error: Exception) -> EngineError:
    lines = (str(error).strip() or type(error).__name__).splitlines()
    # Settings that vLLM refuses come as a count of errors, and the reason on a line of its own.
    reasons = [line.strip().partition(" [type=")[0] for line in lines if line.strip().startswith("Value error, ")]
    message = f"{what}: {reasons[0].removeprefix('Value error, ') if reasons else lines[0]}"
    if "out of memory" in str(error).lower() or type(error).__name__ == "OutOfMemoryError":
        return OutOfMemory(f"{message}; lower memory_share, max_requests or the size of the views")
    if re.search("gpu.memory.utilization", message, re.IGNORECASE):
        return EngineError(f"{message} This is memory_share here; a policy and a task model of their own take it each")
    return EngineError(f"{message}; the engine `transformers` runs on more machines")
