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

"""Child processes that end with their parent, with their output and logs."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..core import PerceptionError

STOP_PATIENCE_S = 10.0
LAST_LINES = 8


class ProcessDied(PerceptionError):
    """A child process ended too early; the message has its last lines."""


@contextmanager
def _interrupted_later() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM until the end of a `with` block of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, frame: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for held_back in held:
            signal.raise_signal(held_back)


class ChildProcess:
    """One process: stderr goes to a log file, stdout is kept line by line in `lines`."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self.lines: list[str] = []
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(environment),
                cwd=log.parent,  # not where the user is: python -m would look there for our package first
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C reaches us alone, and we end the children in order
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """End it with SIGINT, after `STOP_PATIENCE_S` with SIGTERM, then with SIGKILL."""
        for request in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self.exit_code is None:
                self._process.send_signal(request)
            try:
                self._process.wait(STOP_PATIENCE_S)
                break
            except subprocess.TimeoutExpired:
                continue
        self._reader.join(STOP_PATIENCE_S)

    def last_lines(self) -> str:
        """The last lines of its log, or of its output if the log is empty."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() or self.lines
        return "\n".join(f"  {self.name}: {line}" for line in lines[-LAST_LINES:]) or f"  {self.name}: (said nothing)"

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))


class Processes:
    """The child processes of one run; the context manager ends all of them, whatever happens inside it."""

    def __init__(self, log_directory: Path, environment: Mapping[str, str]) -> None:
        self._log_directory = log_directory
        self._environment = environment
        self._children: list[ChildProcess] = []

    def __enter__(self) -> Processes:
        self._log_directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._children):
            child.stop()

    def start(self, name: str, command: Sequence[str], settings: Mapping[str, str] | None = None) -> ChildProcess:
        """Start a child process.

        Args:
            name: Names it in messages and its log file.
            command: Program and arguments.
            settings: Further environment variables of this process.

        Returns:
            The running process.
        """
        environment = {**self._environment, **(settings or {})}
        with _interrupted_later():  # an interruption in here would leave an unknown child behind
            child = ChildProcess(name, command, self._log_directory / f"{name}.log", environment)
            self._children.append(child)
        return child

    def check(self, may_end: ChildProcess | None = None) -> None:
        """Check that all child processes run.

        Args:
            may_end: A process that may have ended, with success.

        Raises:
            ProcessDied: Another process has ended, or this one has failed.
        """
        for child in self._children:
            code = child.exit_code
            if code is not None and not (child is may_end and code == 0):
                raise ProcessDied(
                    f"the process {child.name} ended with code {code}; its last lines:\n{child.last_lines()}"
                )
