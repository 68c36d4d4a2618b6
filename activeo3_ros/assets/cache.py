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

"""The cache directory: where fetched and converted files lie, and how they get there whole.

Files are made in a workspace inside the cache directory, checked there and then moved into place, so that a file in the
cache is whole or absent, whenever the power goes. A lock keeps two processes apart; the system frees it when its holder
dies, and the next one clears away the workspace that it left.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core.errors import PerceptionError

CACHE_VARIABLE = "ACTIVEO3_CACHE"
WORKSPACE_PREFIX = ".unfinished-"

Progress = Callable[[str, int, int], None]
"""Called with the step that begins now, how many steps are done, and how many there are."""


class AssetError(PerceptionError):
    """Something that a preset needs is missing, damaged, or could not be fetched; the message says what to do."""


def cache_directory() -> Path:
    """The cache directory: `$ACTIVEO3_CACHE`, else `activeo3_ros` in `$XDG_CACHE_HOME`, else in `~/.cache`."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    # The XDG specification says to ignore a relative path.
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "activeo3_ros"


@contextmanager
def workspace(progress: Progress) -> Iterator[Path]:
    """A new directory in the cache, removed afterwards, for the only process that fetches.

    Raises:
        AssetError: The cache directory cannot be used.
    """
    cache = cache_directory()
    with disk_errors_explained():
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that is fetching", 0, 1)
            fcntl.flock(lock, fcntl.LOCK_EX)
        _remove(cache.glob(f"{WORKSPACE_PREFIX}*"))  # left by a process that was killed
        with disk_errors_explained():
            directory = Path(tempfile.mkdtemp(prefix=WORKSPACE_PREFIX, dir=cache))
        try:
            yield directory
        finally:
            _remove([directory])


def _remove(directories: Iterable[Path]) -> None:
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


def put_in_place(file: Path, target: Path) -> None:
    """Make a finished file visible under its name, all at once and for good."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
    os.replace(file, target)


@contextmanager
def disk_errors_explained() -> Iterator[None]:
    """Turn an OSError of the block into an AssetError."""
    try:
        yield
    except OSError as error:
        place = error.filename or cache_directory()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = f"free some space there or set {CACHE_VARIABLE} to a directory with at least 200 MB"
        else:
            advice = f"make it usable or set {CACHE_VARIABLE} to another directory"
        raise AssetError(f"{place}: {error.strerror or error}; {advice}, then run activeo3 prefetch again") from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while chunk := opened.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
