"""The node in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ament_index_python.packages import get_package_prefix

FAKE_NODE = [sys.executable, str(Path(__file__).parent / "fake_node.py")]
STOP_S = 30.0
"""What a process that was asked to end may take for it on a busy machine."""


def real_node() -> list[str]:
    """The installed executable, as `ros2 run` starts it."""
    return [str(Path(get_package_prefix("activeo3_ros")) / "lib" / "activeo3_ros" / "perception_node")]


def end(process: subprocess.Popen[Any]) -> int:
    """Ask a process to end; its exit code.

    Raises:
        subprocess.TimeoutExpired: It did not, and was killed.
    """
    process.terminate()
    try:
        return process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


class NodeProcess:
    """A node that runs while the `with` block does. `text`: its output so far."""

    def __init__(
        self,
        command: list[str] | None = None,
        node_name: str = "activeo3",
        environment: Mapping[str, str] | None = None,
        **parameters: Any,
    ) -> None:
        """command: default the node with fake presets. environment: default that of the tests.

        parameters: values as on the command line.
        """
        self._environment = os.environ if environment is None else environment
        self._command = list(command or FAKE_NODE)
        if command is None:
            parameters.setdefault("preset", "fake")
        self._command += ["--ros-args", "-r", f"__node:={node_name}"]
        for name, value in parameters.items():
            self._command += ["-p", f"{name}:={_shown(value)}"]

    def __enter__(self) -> NodeProcess:
        self._log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self._command,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=self._environment,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.terminate()  # a process that is killed leaves its shared memory behind
        self.kill()
        if kind is not None:
            print(self.text)
        self._log.close()

    @property
    def text(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def terminate(self) -> tuple[int, float]:
        """Ask it to end; its exit code and how many seconds it took."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S), time.monotonic() - start

    def kill(self) -> None:
        if self.running:
            self.process.kill()
            self.process.wait(STOP_S)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(value)}]"
    return str(value)
