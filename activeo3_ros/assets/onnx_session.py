"""Runs an ONNX model on the CPU with onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy.typing as npt

from ..core.errors import PerceptionError
from ..core.optional import require_package
from ..settings import validated, within

Array = npt.NDArray[Any]

Threads = Annotated[int, within(1, 64)] | None
"""CPU threads for one run of a model; None for `default_threads`."""


def disable_telemetry() -> None:
    """Keep onnxruntime from writing an identifier of the machine and sending events, unless the user wants it.

    It reads the variable when it is first imported, by whichever library.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


disable_telemetry()


class ModelError(PerceptionError):
    """A model file cannot be loaded, or the model cannot process what it was given."""


def default_threads() -> int:
    """The CPUs that this process may use, at most 4: small models gain little from more."""
    return min(4, len(os.sched_getaffinity(0)))


class OnnxSession:
    """A loaded model. `run` may be called from several threads."""

    @validated
    def __init__(self, path: Path, threads: Threads = None) -> None:
        """Load a model.

        Args:
            path: The .onnx file.
            threads: CPU threads for one run; None for `default_threads`.

        Raises:
            MissingPackageError: onnxruntime is not installed.
            ModelError: The file is not a model.
        """
        runtime = require_package("onnxruntime", "to run models on the CPU")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or default_threads()
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
        """Run the model once.

        Args:
            feeds: One array for each input, by name.
            outputs: Names of the outputs to compute; None for all.

        Returns:
            The outputs, in that order.

        Raises:
            ModelError: The model refuses the input.
        """
        try:
            results: list[Array] = self._session.run(None if outputs is None else list(outputs), dict(feeds))
        except Exception as error:
            raise ModelError(f"{self._path}: {_first_line(error)}") from error
        return results


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
