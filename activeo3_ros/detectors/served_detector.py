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

"""A detector in another process, which `activeo3 serve` runs: several processes share one copy of it."""

from __future__ import annotations

import mmap
import socket
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from ..core.errors import EngineError
from ..core.frame import Frame, Image, View
from ..core.results import DetectedBoxes
from ..settings import validated, within
from .serving import (
    INPUT_SIZES,
    PROTOCOL,
    Connection,
    Failure,
    Found,
    Look,
    Memory,
    Welcome,
    decoded,
    raised_by,
    shared_block,
)

BLOCKS = 2
"""Frames of one thread that the server keeps: the one that is worked on, and one before it."""

SMALLEST_BLOCK_BYTES = 2**20


class ServedDetector:
    """Asks the detector of another process. Any number of threads may ask at once."""

    concurrent = True

    @validated
    def __init__(self, socket: str | Path, timeout_s: Annotated[float, within(0.1, 600)] = 30.0) -> None:
        """Connect to the server.

        Args:
            socket: The path that `activeo3 serve` was given.
            timeout_s: Longest wait for an answer, seconds; after that the frame fails, and the next one asks anew.

        Raises:
            EngineError: No detector is served there, or by another version of this package.
        """
        self._path, self._timeout_s = Path(socket).expanduser(), timeout_s
        self._threads = threading.local()
        self._welcome = self._session().welcome
        self.label = self._welcome.label
        self.names = self._welcome.names
        self.batch_size = self._welcome.batch_size
        size = INPUT_SIZES[self._welcome.fitting]
        self.input_size = size(self._welcome.width, self._welcome.height, self._welcome.keeps_aspect)

    @property
    def identity(self) -> str:
        """A digest of all that the boxes depend on."""
        return self._welcome.identity

    def detect(self, images: Sequence[Image], threshold: float) -> list[DetectedBoxes]:
        """As `Detector.detect`."""
        frames = [Frame(image) for image in images]
        return [self.detect_views([f.view(f.window, (f.width, f.height))], threshold)[0] for f in frames]

    def detect_views(self, views: Sequence[View], threshold: float) -> list[DetectedBoxes]:
        """As `detect` of their images, which the server cuts and resizes; views of several processes become one batch.

        Raises:
            EngineError: The server is gone, silent, or serves another detector by now.
            PerceptionError: As the detector raised it.
        """
        found: dict[int, DetectedBoxes] = {}
        for frame in dict.fromkeys(view.frame for view in views):
            members = [index for index, view in enumerate(views) if view.frame is frame]
            answer = self._ask(frame, [views[index] for index in members], threshold)
            if isinstance(answer, Failure):
                raise raised_by(answer)
            found.update(zip(members, answer, strict=True))
        return [found[index] for index in range(len(views))]

    def _ask(self, frame: Frame, views: Sequence[View], threshold: float) -> list[DetectedBoxes] | Failure:
        session = self._session()
        try:
            return session.look(frame, views, threshold)
        except (OSError, EOFError, ValueError) as error:
            self._threads.session = None  # an answer that comes late would be taken for the next one
            session.close()
            silent = f"gave no answer within {self._timeout_s:g} s" if isinstance(error, TimeoutError) else "is gone"
            raise EngineError(f"the detector served at {self._path} {silent}; look at its 'activeo3 serve'") from error

    def _session(self) -> _Session:
        """The connection of this thread."""
        session: _Session | None = getattr(self._threads, "session", None)
        if session is None:
            session = self._threads.session = _Session(self._path, self._timeout_s)
            known = getattr(self, "_welcome", session.welcome)
            if session.welcome != known:
                self._threads.session = None
                session.close()
                raise EngineError(
                    f"another detector than before is served at {self._path}: {session.welcome.label}; restart what "
                    "uses it"
                )
        return session


@dataclass(eq=False)
class _Block:
    """Memory that the server sees, and the frame that is in it."""

    memory: mmap.mmap
    frame: weakref.ref[Frame] | None = None
    number: int = 0


class _Session:
    """The connection of one thread, and the memory that it shares with the server."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(timeout_s)
        self._connection = Connection(connected)
        weakref.finalize(self, self._connection.close)  # also where a thread ends
        try:
            connected.connect(str(path))
            welcome, _ = self._connection.receive()
        except (OSError, EOFError, ValueError) as error:
            self.close()
            raise EngineError(
                f"no detector is served at {path} ({_reason(error)}); start one: activeo3 serve PRESET --socket {path}"
            ) from error
        if not isinstance(welcome, Welcome) or welcome.protocol != PROTOCOL:
            self.close()
            raise EngineError(f"{path} is served by another version of activeo3_ros; use one version for both")
        self.welcome = welcome
        self._blocks: list[_Block] = []  # in the order of the server
        self._frames = 0

    def look(self, frame: Frame, views: Sequence[View], threshold: float) -> list[DetectedBoxes] | Failure:
        """Boxes in views of one frame, or why there are none.

        Raises:
            OSError: The connection is of no more use.
            EOFError: The same.
            ValueError: The same.
        """
        block = self._block_of(frame)
        windows = tuple((w.x, w.y, w.width, w.height, *view.size) for view in views for w in [view.window])
        index = self._blocks.index(block)
        self._connection.send(Look(index, block.number, frame.width, frame.height, windows, float(threshold)))
        answer, _ = self._connection.receive()
        if isinstance(answer, Failure):
            return answer
        if not isinstance(answer, Found) or len(answer.views) != len(views):
            raise ValueError("the answer of another question")
        return [decoded(each, view.size) for each, view in zip(answer.views, views, strict=True)]

    def close(self) -> None:
        self._connection.close()

    def _block_of(self, frame: Frame) -> _Block:
        """The block that holds a frame; it is copied there once."""
        for block in self._blocks:
            if block.frame is not None and block.frame() is frame:
                return block
        size = frame.image.nbytes
        large_enough = [block for block in self._blocks if len(block.memory) >= size]
        if len(large_enough) < BLOCKS:
            block = self._new_block(size)
        else:
            block = min(large_enough, key=lambda block: block.number)
        self._frames += 1
        block.frame, block.number = weakref.ref(frame), self._frames
        np.copyto(np.frombuffer(block.memory, np.uint8, size).reshape(frame.image.shape), frame.image)
        return block

    def _new_block(self, size: int) -> _Block:
        size = max(SMALLEST_BLOCK_BYTES, 1 << (size - 1).bit_length())  # few sizes, whatever images come
        with shared_block(size) as (descriptor, memory):
            self._connection.send(Memory(size), descriptor)
        block = _Block(memory)
        self._blocks.append(block)
        return block


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
