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

"""One detector for several processes: what they say to each other over a socket of this machine.

A client connects and is told what the detector is. It hands over blocks of memory that both share, writes a frame into
one, and asks for boxes in windows of it; pixels never pass through the socket. Messages are msgpack, so that nothing in
them is code; each comes after its length. Only processes of the same user can open the socket.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import hashlib
import logging
import mmap
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..core import errors
from ..core.errors import EngineError, InvalidInput, PerceptionError
from ..core.frame import GLOBAL_VIEW, Frame, InputSize, View
from ..core.geometry import Box
from ..core.interfaces import Detector, OpenVocabularyDetector
from ..core.results import DetectedBoxes
from .checks import given
from .transformers_images import EdgeLimits

logger = logging.getLogger(__name__)

PROTOCOL = 1
"""Of the messages; both sides must have the same."""
MAX_MESSAGE_BYTES = 256 * 2**20
"""A longer message is none: masks of some hundred objects are the largest."""
MAX_BLOCKS, MAX_BLOCK_BYTES = 32, 2**30
"""That one client may hand over."""
INPUT_SIZES = {"size": InputSize, "edges": EdgeLimits}
NEVER_SMALLER = fcntl.F_SEAL_SHRINK
LENGTH = struct.Struct("!I")


class Welcome(msgspec.Struct, frozen=True, tag=True):
    """What the detector is: `identity` is a digest of all that its boxes depend on."""

    protocol: int
    label: str
    identity: str
    names: tuple[str, ...]
    batch_size: int
    fitting: str
    width: int
    height: int
    keeps_aspect: bool


class Memory(msgspec.Struct, frozen=True, tag=True):
    """A block of so many bytes, whose descriptor comes with it. Blocks count from 0."""

    bytes: int


class Look(msgspec.Struct, frozen=True, tag=True):
    """Find boxes in windows of a frame.

    Attributes:
        block: It holds the frame, `(height, width, 3)` uint8 BGR.
        number: Of the frame; another one says that the block was written anew.
        width: Of the frame, pixels.
        height: Of the frame, pixels.
        views: Window in whole source pixels, and size of the view.
        threshold: As `Detector.detect` takes it.
    """

    block: int
    number: int
    width: int
    height: int
    views: tuple[tuple[float, float, float, float, int, int], ...]
    threshold: float


class Boxes(msgspec.Struct, frozen=True):
    """`DetectedBoxes` of one view: float64, float32, int32, and one bit for each pixel of a mask."""

    boxes: bytes
    scores: bytes
    class_ids: bytes
    masks: bytes | None = None


class Found(msgspec.Struct, frozen=True, tag=True):
    """Boxes of each view."""

    views: tuple[Boxes, ...]


class Failure(msgspec.Struct, frozen=True, tag=True):
    """What was raised: the name of a class in `core.errors`, and its message."""

    kind: str
    message: str


Message = Welcome | Memory | Look | Found | Failure
_decoder = msgspec.msgpack.Decoder(Message)


class Connection:
    """One end of a socket; serves one thread."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def send(self, message: Message, descriptor: int | None = None) -> None:
        """Send a message, and an open file with it."""
        content = msgspec.msgpack.encode(message)
        data = LENGTH.pack(len(content)) + content
        if descriptor is None:
            self._socket.sendall(data)
            return
        sent = socket.send_fds(self._socket, [data], [descriptor])
        if sent < len(data):
            self._socket.sendall(data[sent:])

    def receive(self) -> tuple[Message, int | None]:
        """The next message, and the descriptor of the open file that came with it: the caller's to close.

        Raises:
            EOFError: The other end closed the socket.
            InvalidInput: What came is no message.
        """
        descriptors: list[int] = []
        try:
            (length,) = LENGTH.unpack(self._read(LENGTH.size, descriptors))
            if length > MAX_MESSAGE_BYTES:
                raise InvalidInput(f"a message of {length} bytes came; {MAX_MESSAGE_BYTES} are allowed")
            message = _decoder.decode(self._read(length, descriptors))
        except msgspec.MsgspecError as error:
            _close_all(descriptors)
            raise InvalidInput(f"what came is no message of this protocol: {error}") from error
        except BaseException:
            _close_all(descriptors)
            raise
        _close_all(descriptors[1:])
        return message, descriptors[0] if descriptors else None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for a message
        self._socket.close()

    def _read(self, count: int, descriptors: list[int]) -> bytes:
        data = bytearray()
        while len(data) < count:
            size = array.array("i").itemsize
            part, ancillary, _, _ = self._socket.recvmsg(count - len(data), socket.CMSG_SPACE(size))
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    descriptors += array.array("i", content[: len(content) - len(content) % size])
            if not part:
                raise EOFError("the other end closed the connection")
            data += part
        return bytes(data)


def _close_all(descriptors: Sequence[int]) -> None:
    for each in descriptors:
        os.close(each)


def encoded(found: DetectedBoxes) -> Boxes:
    """Boxes as they are sent."""
    masks = None if found.masks is None else np.packbits(np.asarray(found.masks, bool)).tobytes()
    return Boxes(
        np.ascontiguousarray(found.boxes, np.float64).tobytes(),
        np.ascontiguousarray(found.scores, np.float32).tobytes(),
        np.ascontiguousarray(found.class_ids, np.int32).tobytes(),
        masks,
    )


def decoded(sent: Boxes, size: tuple[int, int]) -> DetectedBoxes:
    """Boxes as `encoded` made them, of a view of `size` (width, height).

    Raises:
        ValueError: The parts do not fit each other.
    """
    boxes, scores = np.frombuffer(sent.boxes, np.float64).reshape(-1, 4), np.frombuffer(sent.scores, np.float32)
    masks = None
    if sent.masks is not None:
        pixels = len(scores) * size[0] * size[1]
        bits = np.unpackbits(np.frombuffer(sent.masks, np.uint8), count=pixels)
        masks = bits.astype(bool).reshape(len(scores), size[1], size[0])
    return DetectedBoxes(boxes, scores, np.frombuffer(sent.class_ids, np.int32).astype(np.intp), masks)


class DetectorServer:
    """Answers what the clients ask; each has a thread, so that a detector that batches calls batches theirs."""

    def __init__(self, detector: Detector, label: str, facts: str, path: Path) -> None:
        """Open the socket.

        Args:
            detector: Answers the clients.
            label: Its name, for messages.
            facts: All that its boxes depend on.
            path: Of the socket. One that a server left behind which is gone is taken away.

        Raises:
            InvalidInput: The detector reads words, another server has the socket, or the path cannot be one.
        """
        if isinstance(detector, OpenVocabularyDetector):
            raise InvalidInput(
                f"{label} takes its classes from the query; a detector that is served has its own classes"
            )
        size = detector.input_size
        fitting = next((name for name, kind in INPUT_SIZES.items() if type(size) is kind), None)
        if fitting is None:
            raise InvalidInput(f"{label} fits images in its own way ({type(size).__name__}), which no client knows")
        self._detector, self._label = detector, label
        self.welcome = Welcome(
            PROTOCOL,
            label,
            hashlib.sha256(facts.encode()).hexdigest(),
            tuple(detector.names),
            getattr(detector, "batch_size", 1),
            fitting,
            size.width,
            size.height,
            size.keeps_aspect,
        )
        self.path = path
        self.views_answered = 0
        self._one_at_a_time = contextlib.nullcontext() if detector.concurrent else threading.Lock()
        self._counting, self._starting = threading.Lock(), threading.Lock()
        self._clients: dict[Connection, threading.Thread] = {}
        self._listener = _listen(path)

    @property
    def clients(self) -> int:
        """Connected now; each thread of a process that asks is one."""
        return len(self._clients)

    def serve(self) -> None:
        """Answer clients until `close`."""
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:  # closed
                return
            connection = Connection(connected)
            thread = threading.Thread(target=self._serve_client, args=(connection,), daemon=True)
            with self._starting:  # who closes finds threads that run
                self._clients[connection] = thread
                thread.start()

    def close(self) -> None:
        """End, and take the socket away."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.path.unlink(missing_ok=True)
        with self._starting:
            clients = list(self._clients.items())
        for connection, thread in clients:
            connection.close()
            thread.join(5)

    def _serve_client(self, connection: Connection) -> None:
        client = _Client()
        try:
            connection.send(self.welcome)
            while True:
                message, descriptor = connection.receive()
                if isinstance(message, Memory) and descriptor is not None:
                    client.add(message, descriptor)
                elif isinstance(message, Look):
                    connection.send(self._answer(client, message))
                else:
                    raise InvalidInput(f"a client may not send {type(message).__name__}")
        except (EOFError, OSError):
            pass  # the client is gone
        except Exception as error:
            logger.warning("a client of the served detector was sent away: %s", error)
            with contextlib.suppress(OSError):
                connection.send(Failure("InvalidInput", str(error)))
        finally:
            self._clients.pop(connection, None)
            connection.close()

    def _answer(self, client: _Client, look: Look) -> Found | Failure:
        try:
            views = client.views(look)
            with self._one_at_a_time:
                found = given(self._detector, self._label, views, look.threshold)
            answer = Found(tuple(encoded(each) for each in found))
        except PerceptionError as error:
            return Failure(type(error).__name__, str(error))
        except Exception as error:  # of an answer that is none; clients check what it says
            return Failure("ComponentError", f"the detector {self._label!r} gave no valid result: {error}")
        with self._counting:
            self.views_answered += len(views)
        return answer


class _Client:
    """The blocks of a client, and the frames in them."""

    def __init__(self) -> None:
        self._blocks: list[mmap.mmap] = []
        self._frames: dict[int, tuple[int, Frame]] = {}

    def add(self, memory: Memory, descriptor: int) -> None:
        """Share a block. Raises InvalidInput where it is not as it says."""
        try:
            have = os.fstat(descriptor).st_size if _is_sealed(descriptor) else 0
            if len(self._blocks) >= MAX_BLOCKS or not 0 < memory.bytes <= min(have, MAX_BLOCK_BYTES):
                raise InvalidInput(f"block {len(self._blocks)} of {memory.bytes} bytes, in a file of {have}")
            self._blocks.append(mmap.mmap(descriptor, memory.bytes, mmap.MAP_SHARED, mmap.PROT_READ))
        finally:
            os.close(descriptor)

    def views(self, look: Look) -> list[View]:
        """The views that a client asks for. Raises InvalidInput where there is no such frame or window."""
        frame = self._frame(look)
        views = []
        for x, y, width, height, *size in look.views:
            window = Box(x, y, width, height)
            if window.clipped(frame.width, frame.height) != window or min(width, height, *size) <= 0:
                raise InvalidInput(f"the window {window.as_tuple()} at {size} of {frame.width} x {frame.height} px")
            views.append(frame.view(window, (size[0], size[1]), GLOBAL_VIEW))
        return views

    def _frame(self, look: Look) -> Frame:
        shape = look.height, look.width, 3
        number, frame = self._frames.get(look.block, (-1, None))
        if frame is not None and number == look.number and frame.image.shape == shape:
            return frame
        count = look.height * look.width * 3
        if not 0 <= look.block < len(self._blocks) or not 0 < count <= len(self._blocks[look.block]):
            raise InvalidInput(f"no frame of {look.width} x {look.height} px can be in block {look.block}")
        image = np.frombuffer(self._blocks[look.block], np.uint8, count).reshape(shape)
        self._frames[look.block] = look.number, Frame(image)
        return self._frames[look.block][1]


def _is_sealed(descriptor: int) -> bool:
    """Whether a file cannot shrink: reading memory that is gone would end this process."""
    try:
        return bool(fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & NEVER_SMALLER)
    except OSError:  # of a kind that has no seals
        return False


def check_can_listen(path: Path) -> None:
    """Refuse a socket that `DetectorServer` could not open, before a model is loaded for minutes.

    Raises:
        InvalidInput: Another server has it, or the path cannot be one.
    """
    _listen(path).close()
    path.unlink()


def _listen(path: Path) -> socket.socket:
    """Open a socket for this user alone. Raises InvalidInput where that cannot be."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and not _is_served(path):
            path.unlink()
        previous = os.umask(0o177)  # else others could connect before the mode is set
        try:
            listener.bind(str(path))
        finally:
            os.umask(previous)
        listener.listen()
    except OSError as error:
        listener.close()
        if path.is_socket():
            raise InvalidInput(f"another detector is served at {path}; end it, or give another --socket") from None
        raise InvalidInput(f"cannot open the socket {path}: {error.strerror or error}; give another --socket") from None
    return listener


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


@contextlib.contextmanager
def shared_block(size: int) -> Iterator[tuple[int, mmap.mmap]]:
    """The descriptor of new memory, open in the block, and the memory itself, which stays."""
    descriptor = os.memfd_create("activeo3-frame", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, NEVER_SMALLER)
        yield descriptor, mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def raised_by(failure: Failure) -> PerceptionError:
    """The error that a server tells of."""
    kind: Any = getattr(errors, failure.kind, None)
    known = isinstance(kind, type) and issubclass(kind, PerceptionError)
    return kind(failure.message) if known else EngineError(failure.message)
