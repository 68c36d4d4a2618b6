"""Runs an ONNX model on the CPU with onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ..core.errors import InvalidInput, PerceptionError
from ..core.optional import require_package

Array = npt.NDArray[Any]

MAX_THREADS = 64


class ModelError(PerceptionError):
    """A model file cannot be loaded, or the model cannot process what it was given."""


def default_threads() -> int:
    """The CPUs that this process may use, at most 4: small models gain little from more."""
    return min(4, len(os.sched_getaffinity(0)))


def checked_threads(threads: int | None) -> int:
    """The number of threads to use, None for the default. Raises InvalidInput if it is not 1 to 64."""
    if threads is None:
        return default_threads()
    if not 1 <= threads <= MAX_THREADS:
        raise InvalidInput(f"threads must be 1 to {MAX_THREADS}, got {threads}")
    return threads


class OnnxSession:
    """A loaded model. `run` may be called from several threads."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """path: the .onnx file. threads: CPU threads for one run, 1 to 64, see `default_threads`.

        Raises MissingPackageError without onnxruntime, ModelError for a file that is not a model.
        """
        runtime = require_package("onnxruntime", "to run models on the CPU")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = checked_threads(threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        # Threads that spin between runs take the CPU from whatever else a robot does.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes derive from Exception directly
            raise ModelError(f"{path}: cannot be loaded as an ONNX model: {_first_line(error)}") from error
        self._path = path
        self.inputs: tuple[str, ...] = tuple(node.name for node in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(node.name for node in self._session.get_outputs())

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """The outputs named, all if None, for one array for each input. Raises ModelError if the model refuses them."""
        try:
            results: list[Array] = self._session.run(None if outputs is None else list(outputs), dict(feeds))
        except Exception as error:
            raise ModelError(f"{self._path}: {_first_line(error)}") from error
        return results


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
