"""A `.db3` file of ROS 2: the tables `topics` and `messages`, as every distribution writes them, read by SQLite itself.

The reader of rosbags is not used: it fetches every picture in order to list the messages, has no access to a single
one, and ends at the first damaged page. Ours is the salvage around damaged pages, row after row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path

from .compression import FIRST_BLOCK_BYTES, head_of
from .compression import MAGIC as COMPRESSED
from .storage import CDR_HEAD_BYTES, DamagedMessage, FileIndex, Found, Topic

MAX_LISTED_IDS = 10_000_000
"""A damaged file can claim any largest id; beyond this it is not believed."""

ROWS = (
    f"SELECT id, topic_id, timestamp, substr(data, 1, CASE substr(data, 1, {len(COMPRESSED)}) "
    f"WHEN x'{COMPRESSED.hex()}' THEN {FIRST_BLOCK_BYTES} ELSE {CDR_HEAD_BYTES} END) FROM messages"
)
"""Id, topic, time and first bytes of each message."""
UNREADABLE = (sqlite3.Error, UnicodeDecodeError, MemoryError, OverflowError, SystemError, TypeError)
"""Exceptions of the library for a damaged page; a damaged name even breaks its own error message."""


class SqliteFile:
    """One `.db3` file, opened read-only. A message's place is its id."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            OSError: It cannot be opened. Damage is no error.
        """
        # Immutable: a bag on a read-only disk can be read, and no journal is left beside it.
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        self._connection = sqlite3.connect(uri, uri=True)
        # Damaged text is damage to report, not an exception out of the middle of a query.
        self._connection.text_factory = lambda raw: raw.decode("utf-8", "replace")

    def topics(self) -> list[Topic]:
        """The topics that the file names."""
        return [Topic(name, kind) for _, name, kind in self._topics()]

    def index(self, topics: Collection[str]) -> FileIndex:
        """Where the messages of some topics lie."""
        index = FileIndex()
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
        """Close the file."""
        self._connection.close()

    def _topics(self) -> list[tuple[int, str, str]]:
        try:
            rows = self._connection.execute("SELECT id, name, type FROM topics").fetchall()
        except UNREADABLE:
            return []
        return [row for row in rows if isinstance(row[1], str) and isinstance(row[2], str)]

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
