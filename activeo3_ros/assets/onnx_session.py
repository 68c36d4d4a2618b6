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

"""Runs an ONNX model with onnxruntime, on the CPU or on the execution providers that a setting names."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy.typing as npt

from ..core.errors import InvalidInput, OutOfMemory, PerceptionError
from ..core.optional import installed_version, require_package
from ..settings import did_you_mean, validated, within
from .cache import cache_directory, sha256_of

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

Threads = Annotated[int, within(1, 64)] | None
"""CPU threads for one run of a model; None for `default_threads`."""

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
"""onnxruntime's name of each execution provider that a setting may name."""
PACKAGES = {"cuda": "onnxruntime-gpu", "tensorrt": "onnxruntime-gpu", "openvino": "onnxruntime-openvino"}
"""The build of onnxruntime that has a provider."""
DEVICES = {"cuda": r"\d+", "tensorrt": r"\d+", "openvino": r"gpu|npu"}
"""The devices that may stand behind a provider's name and a colon, as patterns."""
NO_MEMORY = re.compile(r"fail\w* to allocate|out of memory|bad[_ ]alloc|bad allocation|available memory of", re.I)
"""How onnxruntime and its providers say that memory is short."""


def disable_telemetry() -> None:
    """Keep onnxruntime from writing an identifier of the machine and sending events, unless the user wants it.

    It reads the variable when it is first imported, by whichever library.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


disable_telemetry()


class ModelError(PerceptionError):
    """A model file cannot be loaded, or the model cannot process what it was given."""


class Tensor(NamedTuple):
    """An input or output of a model: its name, its sizes (None where the graph leaves one free) and its element type.

    The type is onnxruntime's, such as "float16" or "int64".
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name} {shape_text(self.shape)} {self.dtype}"


def shape_text(shape: Sequence[int | None]) -> str:
    """A shape in messages, such as "(?, 84, 8400)"."""
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"


def default_threads() -> int:
    """The CPUs that this process may use, at most 4: small models gain little from more."""
    return min(4, len(os.sched_getaffinity(0)))


class OnnxSession:
    """A loaded model. `run` may be called from several threads.

    Attributes:
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        input_tensors: The inputs with their shapes and types.
        output_tensors: The outputs with their shapes and types, as far as the graph says.
        metadata: The texts that the exporter put into the file, by key.
        provider: The short name of the execution provider that really runs it; operators that it lacks run on the CPU.
    """

    @validated
    def __init__(
        self, path: Path, threads: Threads = None, providers: Sequence[str] = ("cpu",), custom_ops: Path | None = None
    ) -> None:
        """Load a model.

        Args:
            path: The .onnx file. Weights in files of their own must lie beside it.
            threads: CPU threads for one run; None for `default_threads`.
            providers: Execution providers by short name, the preferred one first; "cuda:1" is the second device,
                "openvino:gpu" and "openvino:npu" are Intel's, "openvino" alone runs on the CPU.
            custom_ops: A library of operators that are not onnxruntime's own; it is loaded into this process.

        Raises:
            MissingPackageError: onnxruntime is not installed.
            InvalidInput: A provider is unknown or not in this onnxruntime, or there is no such library.
            ModelError: The file is not a model, or none of the providers starts.
            OutOfMemory: It does not fit into memory.
        """
        runtime = require_package("onnxruntime", "to run models in the ONNX format")
        self._path = path
        chosen = _check_providers(providers, runtime.get_available_providers())
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or default_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what fails is raised, and told once
        # Threads that spin between runs take the CPU from whatever else a robot does.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if custom_ops is not None:
            _register(custom_ops, options)
        if not path.is_file():
            raise ModelError(f"{path}: {'is a directory' if path.is_dir() else 'does not exist'}; give an .onnx file")
        with_settings = [
            (PROVIDERS[name], _provider_settings(name, device, path, options.intra_op_num_threads))
            for name, device in chosen
        ]
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=with_settings)
        except Exception as error:  # onnxruntime's own classes derive from Exception directly
            raise self._error(error, "cannot be loaded as an ONNX model: ") from error
        self.provider = self._running([name for name, _ in chosen])
        self.input_tensors = tuple(_tensor(node) for node in self._session.get_inputs())
        self.output_tensors = tuple(_tensor(node) for node in self._session.get_outputs())
        self.inputs: tuple[str, ...] = tuple(each.name for each in self.input_tensors)
        self.outputs: tuple[str, ...] = tuple(each.name for each in self.output_tensors)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """Run the model once.

        Args:
            feeds: One array for each input, by name.
            outputs: Names of the outputs to compute; None for all.

        Returns:
            The outputs, in that order.

        Raises:
            ModelError: The model refuses the input.
            OutOfMemory: The run needs more memory than there is.
        """
        try:
            results: list[Array] = self._session.run(None if outputs is None else list(outputs), dict(feeds))
        except Exception as error:
            raise self._error(error) from error
        return results

    def _running(self, asked: Sequence[str]) -> str:
        """The provider that runs; onnxruntime falls back to the CPU in silence. Raises ModelError where none may."""
        short = {long: name for name, long in PROVIDERS.items()}
        started = [short.get(long, long) for long in self._session.get_providers()]
        running = next((name for name in asked if name in started), None)
        if running is None:
            raise ModelError(
                f"{self._path}: none of the providers {', '.join(asked)} starts on this machine, only "
                f"{', '.join(started)}; check its driver and libraries, or add cpu to providers"
            )
        if running != asked[0]:
            logger.warning("%s runs on %s: %s does not start on this machine", self._path, running, asked[0])
        elif running != "cpu":
            logger.info("%s runs on %s", self._path, running)
        return running

    def _error(self, error: Exception, doing: str = "") -> PerceptionError:
        """An error of onnxruntime as one of ours, in one line."""
        if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
            needs = re.search(r"(?:size|bytes of|requested bytes) (\d+)", str(error))
            amount = f" ({int(needs[1]) / 1e9:.1f} GB at once)" if needs else ""
            return OutOfMemory(
                f"{self._path}: needs more memory than there is{amount}; use a smaller model or input, or free memory"
            )
        return ModelError(f"{self._path}: {doing}{_first_line(error)}")


def _check_providers(names: Sequence[str], available: Sequence[str]) -> list[tuple[str, str]]:
    """Short names and devices of providers. Raises InvalidInput for one that is unknown or not there."""
    if not names:
        raise InvalidInput(f"providers must name at least one of {', '.join(PROVIDERS)}, got none")
    here = [name for name, long in PROVIDERS.items() if long in available]
    chosen = []
    for each in names:
        name, colon, device = each.partition(":")
        has_device = name in DEVICES and re.fullmatch(DEVICES[name], device)
        if name not in PROVIDERS or (colon and not has_device):
            raise InvalidInput(
                f"providers: unknown provider {each!r}; known are {', '.join(PROVIDERS)}, with a device as in cuda:1, "
                f"openvino:gpu or openvino:npu{did_you_mean(name, PROVIDERS)}"
            )
        if name not in here:
            raise InvalidInput(
                f"providers: {name!r} is not in the onnxruntime that is installed, which has {', '.join(here)}; "
                f"install {PACKAGES.get(name, 'onnxruntime')} instead of onnxruntime, or name another"
            )
        chosen.append((name, device))
    return chosen


def _register(library: Path, options: Any) -> None:
    """Load a library of custom operators. Raises InvalidInput where it cannot be loaded."""
    if not library.is_file():
        raise InvalidInput(f"custom_ops: {library} does not exist; give the path of a shared library")
    try:
        options.register_custom_ops_library(str(library))
    except Exception as error:
        raise InvalidInput(f"custom_ops: {library} is no library of ONNX operators: {_first_line(error)}") from error


def _provider_settings(name: str, device: str, path: Path, threads: int) -> dict[str, str]:
    """What onnxruntime is told for a provider."""
    if name == "cpu":
        return {}
    if name == "openvino":
        settings = {"device_type": device.upper() or "CPU", "cache_dir": str(cache_directory() / "openvino")}
        return settings if device else {**settings, "num_of_threads": str(threads)}
    settings = {"device_id": device or "0"}
    if name == "tensorrt":
        engines = engine_directory(path, int(device or 0))
        engines.mkdir(parents=True, exist_ok=True)
        settings |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(engines),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(engines),
        }
    return settings


def engine_directory(path: Path, device: int = 0) -> Path:
    """Where the TensorRT engines of a model are cached: by its contents, the device, and the versions that built them.

    Args:
        path: The .onnx file.
        device: Index of the GPU.
    """
    versions = f"{installed_version('onnxruntime-gpu') or installed_version('onnxruntime')}-{_tensorrt_version()}"
    key = f"{sha256_of(path)[:16]}-{_device_name(device)}-{versions}"
    return cache_directory() / "tensorrt" / re.sub(r"[^\w.-]+", "_", key)


def _device_name(device: int) -> str:
    """The name of a GPU, from the driver; that of the board on a Jetson."""
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    if device < len(gpus):
        found = re.search(r"^Model:\s*(.+)$", gpus[device].read_text(), re.M)
        return found[1].strip() if found else "unknown"
    board = Path("/proc/device-tree/model")
    return board.read_text().rstrip("\0 \n") if board.is_file() else "unknown"


def _tensorrt_version() -> str:
    """The version of the TensorRT library that this process loads, "" for none."""
    import ctypes

    for library in ("libnvinfer.so.10", "libnvinfer.so.8", "libnvinfer.so"):
        try:
            return str(ctypes.CDLL(library).getInferLibVersion())
        except (OSError, AttributeError):
            continue
    return ""


def _tensor(node: Any) -> Tensor:
    """An input or output as onnxruntime describes it; a size that is a name or missing is free."""
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in node.shape)
    dtype = node.type.removeprefix("tensor(").removesuffix(")")
    return Tensor(node.name, shape, {"float": "float32", "double": "float64"}.get(dtype, dtype))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
