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

"""The bag that a command writes: the name it may have, and how it takes the place of an older one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..bags.writing import CHUNK_BYTES, BagWriter
from ..core import InvalidInput


def check_bag_out(out: Path) -> None:
    """Check that a path can be that of a bag to write.

    Raises:
        InvalidInput: It is a directory, or does not end with .mcap.
    """
    if out.is_dir():
        raise InvalidInput(f"--out {out} is a directory; give a file, for example {out / 'results.mcap'}")
    if out.suffix != ".mcap":
        raise InvalidInput(f"--out {out}: bags are written as MCAP; give a name that ends with .mcap")


@contextmanager
def write_anew(out: Path, chunk_bytes: int = CHUNK_BYTES) -> Iterator[BagWriter]:
    """Write a bag that takes the place of an older one once it has begun.

    Args:
        out: The file.
        chunk_bytes: How much a crash may lose.

    Raises:
        InvalidInput: It cannot be written.
    """
    unfinished = _unfinished(out)
    with _named_in_errors(out), BagWriter(unfinished, chunk_bytes) as writer:
        os.replace(unfinished, out)
        yield writer


@contextmanager
def write_live(out: Path) -> Iterator[BagWriter]:
    """Write a bag that takes the place of an older one with its first message; without one nothing is left of it.

    Args:
        out: The file.

    Raises:
        InvalidInput: It cannot be written.
    """
    with _named_in_errors(out):
        try:
            with _LiveWriter(out) as writer:
                yield writer
        finally:
            _unfinished(out).unlink(missing_ok=True)


class _LiveWriter(BagWriter):
    def __init__(self, out: Path) -> None:
        super().__init__(_unfinished(out))
        self._out = out
        self._is_begun = False

    def write(self, topic: str, stamp_ns: int, cdr: bytes) -> None:
        if not self._is_begun:
            os.replace(_unfinished(self._out), self._out)
            self._is_begun = True
        super().write(topic, stamp_ns, cdr)


def _unfinished(out: Path) -> Path:
    return out.with_name(f".{out.name}.new")


@contextmanager
def _named_in_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInput(f"--out {out}: cannot be written: {error.strerror or error}") from error
