"""Child processes that do not outlive us, and whose last words are kept."""

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
    """A child ended before its time; the message has its last lines."""


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


class Child:
    """One process: its errors go to a log file, its output is kept line by line."""

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
        """Ask it to end, insist after `STOP_PATIENCE_S`."""
        for request in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self.exit_code is None:
                self._process.send_signal(request)
            try:
                self._process.wait(STOP_PATIENCE_S)
                break
            except subprocess.TimeoutExpired:
                continue
        self._reader.join(STOP_PATIENCE_S)

    def last_words(self) -> str:
        """The end of what it wrote."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() or self.lines
        return "\n".join(f"  {self.name}: {line}" for line in lines[-LAST_LINES:]) or f"  {self.name}: (said nothing)"

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))


class Processes:
    """Children of one run; a context manager that leaves none behind, whatever happens inside it."""

    def __init__(self, log_directory: Path, environment: Mapping[str, str]) -> None:
        self._log_directory = log_directory
        self._environment = environment
        self._children: list[Child] = []

    def __enter__(self) -> Processes:
        self._log_directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._children):
            child.stop()

    def start(self, name: str, command: Sequence[str], settings: Mapping[str, str] | None = None) -> Child:
        """settings: variables of this child's environment beside those of all."""
        environment = {**self._environment, **(settings or {})}
        with _interrupted_later():  # an interruption in here would leave a child that nobody knows of
            child = Child(name, command, self._log_directory / f"{name}.log", environment)
            self._children.append(child)
        return child

    def check(self, may_end: Child | None = None) -> None:
        """Raises ProcessDied if any child has ended; `may_end` may, but only with success."""
        for child in self._children:
            code = child.exit_code
            if code is not None and not (child is may_end and code == 0):
                raise ProcessDied(
                    f"the process {child.name} ended with code {code}; its last lines:\n{child.last_words()}"
                )
