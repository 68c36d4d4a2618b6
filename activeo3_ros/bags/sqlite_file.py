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

"""A `.db3` file of ROS 2: the tables `topics` and `messages`, as every distribution writes them, read by SQLite itself.

The reader of rosbags is not used: it fetches every picture in order to list the messages, has no access to a single
one, and ends at the first damaged page. Ours is the salvage around damaged pages, row after row.

A recording that was killed leaves its last messages in a log beside the file (`-wal`), or a journal of a change that
was not finished (`-journal`). SQLite merges either into the file: so it does that in a copy, and the user's files stay
as they are. A file without them is read where it lies.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..core import InvalidInput
from .compression import FIRST_BLOCK_BYTES, head_of
from .compression import MAGIC as COMPRESSED
from .storage import CDR, CDR_HEAD_BYTES, DEFINITION_LANGUAGE, DamagedMessage, FileIndex, Found, Topic

MAX_LISTED_IDS = 10_000_000
"""A damaged file can claim any largest id; beyond this it is not believed."""

ROWS = (
    f"SELECT id, topic_id, timestamp, substr(data, 1, CASE substr(data, 1, {len(COMPRESSED)}) "
    f"WHEN x'{COMPRESSED.hex()}' THEN {FIRST_BLOCK_BYTES} ELSE {CDR_HEAD_BYTES} END) FROM messages"
)
"""Id, topic, time and first bytes of each message."""
UNREADABLE = (sqlite3.Error, UnicodeDecodeError, MemoryError, OverflowError, SystemError, TypeError)
"""Exceptions of the library for a damaged page; a damaged name even breaks its own error message."""


LOGS = ("-wal", "-journal")
"""How the name of a file goes on beside which SQLite keeps changes that are not in it yet."""
LOCK_BYTES = (0x40000000, 512)
"""Start and length of the range that SQLite locks in a file that it has open."""
FLOCK = struct.Struct("hhqqi4x")
"""`struct flock` of 64-bit Linux: type, whence, start, length, process."""
COPY_ATTEMPTS = 5


class SqliteFile:
    """One `.db3` file, opened read-only. A message's place is its id."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            OSError: It cannot be opened. Damage is no error.
            InvalidInput: It has a log beside it, and there is no room for a copy of both.
        """
        path = path.resolve()  # the log lies beside the file, not beside a link to it
        self._notes = ["another process is writing it: what is not written yet is missing"] if _is_locked(path) else []
        self._copy = TemporaryDirectory(prefix="activeo3-") if _logs(path) else None
        # Immutable: a bag on a read-only disk can be read, and no journal is left beside it.
        uri = f"{path.as_uri()}?mode=ro&immutable=1"
        try:
            if self._copy is not None:
                uri, is_whole = _copy_with_logs(path, Path(self._copy.name))
                self._notes += [] if is_whole else ["it changed while it was copied"]
            self._connection = sqlite3.connect(uri, uri=True)
        except BaseException:
            self._remove_copy()
            raise
        # Damaged text is damage to report, not an exception out of the middle of a query.
        self._connection.text_factory = lambda raw: raw.decode("utf-8", "replace")

    def topics(self) -> list[Topic]:
        """The topics that the file names."""
        encodings = dict(self._query("SELECT name, serialization_format FROM topics"))
        definitions = dict(  # since Iron
            self._query(
                "SELECT topic_type, encoded_message_definition FROM message_definitions "
                f"WHERE encoding = '{DEFINITION_LANGUAGE}'"
            )
        )
        return [
            Topic(name, kind, encodings.get(name) or CDR, definitions.get(kind, "")) for _, name, kind in self._topics()
        ]

    def index(self, topics: Collection[str]) -> FileIndex:
        """Where the messages of some topics lie."""
        index = FileIndex(reasons=list(self._notes))
        wanted = {number: name for number, name, _ in self._topics() if name in topics}
        for number, topic_id, log_time, head in self._rows(index.reasons):
            if topic_id not in wanted:
                continue
            topic = wanted[topic_id]
            if isinstance(head, bytes) and isinstance(log_time, int) and isinstance(number, int):
                index.found.append(Found(topic, log_time, head_of(head), (number,)))
            else:
                index.lost[topic] = index.lost.get(topic, 0) + 1
        if not index.reasons:
            index.expected = index.counts(topics)
        return index

    def read(self, place: tuple[int, ...]) -> bytes:
        """The bytes of a message as they are stored. Raises DamagedMessage."""
        try:
            row = self._connection.execute("SELECT data FROM messages WHERE id = ?", place).fetchone()
        except UNREADABLE as error:
            raise DamagedMessage(f"message {place[0]} cannot be read: {error}") from error
        if row is None or not isinstance(row[0], bytes):
            raise DamagedMessage(f"message {place[0]} cannot be read")
        return row[0]

    def close(self) -> None:
        """Close the file, and remove the copy that was read."""
        self._connection.close()
        self._remove_copy()

    def _remove_copy(self) -> None:
        if self._copy is not None:
            self._copy.cleanup()

    def _topics(self) -> list[tuple[int, str, str]]:
        rows = self._query("SELECT id, name, type FROM topics")
        return [row for row in rows if isinstance(row[1], str) and isinstance(row[2], str)]

    def _query(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query; none where they cannot be read, or the file is older than the table."""
        try:
            return self._connection.execute(query).fetchall()
        except UNREADABLE:
            return []

    def _rows(self, reasons: list[str]) -> Iterator[tuple[object, ...]]:
        """Id, topic, time and first bytes of each message; where a page is damaged, row after row around it."""
        last = 0
        try:
            for row in self._connection.execute(f"{ROWS} ORDER BY id"):
                yield row
                last = row[0] if isinstance(row[0], int) else last
            return
        except UNREADABLE as error:
            reasons.append(f"damaged: {error}")
        for number in range(last + 1, self._largest_id() + 1):
            try:
                found = self._connection.execute(f"{ROWS} WHERE id = ?", (number,)).fetchone()
            except UNREADABLE:
                continue
            if found is not None:
                yield found

    def _largest_id(self) -> int:
        for query in ("SELECT max(id) FROM messages", "SELECT seq FROM sqlite_sequence WHERE name = 'messages'"):
            try:
                row = self._connection.execute(query).fetchone()
            except UNREADABLE:
                continue
            if row and isinstance(row[0], int) and 0 <= row[0] <= MAX_LISTED_IDS:
                return row[0]
        return 0


def _logs(path: Path) -> list[Path]:
    """The logs beside a file that hold something."""
    return [log for log in (path.with_name(path.name + end) for end in LOGS) if log.is_file() and log.stat().st_size]


def _copy_with_logs(path: Path, directory: Path) -> tuple[str, bool]:
    """Copy a file and its logs.

    Returns:
        URI of the copy, and whether the file and its logs stayed as they were meanwhile.

    Raises:
        InvalidInput: There is no room.
    """
    for _ in range(COPY_ATTEMPTS):
        before = _state(path)
        size, free = sum(size for _, size, _ in before), shutil.disk_usage(directory).free
        if size > free:
            raise InvalidInput(
                f"{path}: has a log of an unclean stop beside it and must be copied to be read: that takes {size} "
                f"bytes, and {directory.parent} has {free}; set TMPDIR to a larger disk"
            )
        for name, _, _ in before:
            shutil.copyfile(path.with_name(name), directory / name)
        if is_whole := _state(path) == before:
            break
    return (directory / path.name).as_uri(), is_whole


def _state(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change of a file and its logs."""
    return [(each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in (path, *_logs(path))]


def _is_locked(path: Path) -> bool:
    """Whether another process has locked the file, as a recorder does while it writes. Takes no lock."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, *LOCK_BYTES, 0)
        return bool(FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK)
    except (OSError, struct.error):  # a disk without locks, or another system
        return False
    finally:
        os.close(descriptor)
