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

"""An `.mcap` file. The library `mcap` reads it while it is healthy; `salvage_mcap` takes over where it is not.

Ours here is random access to messages in the order of their stamps with one chunk in memory, for which the library has
no call: it gives messages in the order of recording, and reads every chunk that it passes. A 100 GB bag is indexed
without that: the message indexes say where messages lie, and a message's first bytes have its stamp. So of a chunk that
is not compressed only those bytes are read until one of its messages is wanted: then all of it, for its checksum.

Stamps that rise with the recording are believed. Where they do not, and at both ends of the file, where a false one
would move everything else, the chunk is read and checked at once.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from itertools import pairwise
from pathlib import Path

from mcap.opcode import Opcode
from mcap.records import Channel, ChunkIndex
from mcap.summary import Summary

from .compression import MAGIC as COMPRESSED
from .mcap_records import RECORD_HEAD, McapRecords, count_by_topic, messages_in, place_of
from .salvage_mcap import McapSalvage
from .storage import CDR, CDR_HEAD_BYTES, DEFINITION_LANGUAGE, DamagedMessage, FileIndex, Found, Topic, header_stamp_ns

HEADS = struct.Struct("<BQHIQQ")
"""The head of a record and that of a message: opcode, length, channel, sequence number, log time, publish time."""
CHUNK_HEAD_BYTES = 40
"""A chunk before its records, without the name of its compression."""


class McapFile:
    """One `.mcap` file.

    A message's place is: start and end of its chunk in the file, start and end of its data in the chunk's records. For
    a message outside of any chunk it is -1, -1, start and end in the file.
    """

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            OSError: It cannot be opened. Damage is no error.
        """
        self._file = path.open("rb")
        self._records = McapRecords(self._file)
        self._summary = self._records.summary()
        self._salvage = McapSalvage(self._records, self._summary)
        self._chunk_held: tuple[int, bytes] = (-1, b"")

    def topics(self) -> list[Topic]:
        """The topics of all channels; a channel without schema has no type."""
        return [self._topic_of(channel) for channel in self._salvage.channels.values()]

    def metadata(self, name: str) -> dict[str, str] | None:
        """The notes that lie before the first chunk under a name; None if there are none."""
        return self._records.metadata(name)

    def index(self, topics: Collection[str]) -> FileIndex:
        """Where the messages of some topics lie: by the index of the file, or salvaged where that does not hold."""
        index = None
        counts = self._salvage.counts()
        if self._summary is not None and counts is not None:
            index = self._indexed(self._summary, counts, topics)
        return self._salvage.index(topics) if index is None else index

    def read(self, place: tuple[int, ...]) -> bytes:
        """The bytes of a message as they are stored. Raises DamagedMessage."""
        at, chunk_end, start, end = place
        if at < 0:
            return self._records.bytes_at(start, end - start)
        if self._chunk_held[0] != at:
            self._chunk_held = (-1, b"")  # free its memory first
            self._chunk_held = at, self._records.chunk(at, chunk_end)
        return self._chunk_held[1][start:end]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _indexed(self, summary: Summary, counts: dict[int, int], topics: Collection[str]) -> FileIndex | None:
        """None if a chunk that is read is damaged, or the index contradicts itself."""
        found: dict[tuple[int, int], list[Found]] = {}
        unread = set()
        try:
            for chunk in sorted(summary.chunk_indexes, key=place_of):
                messages = self._by_message_index(chunk, topics)
                if messages is None:
                    messages = self._by_reading(place_of(chunk), topics)
                else:
                    unread.add(place_of(chunk))
                found[place_of(chunk)] = messages
            for place in _doubtful(message for messages in found.values() for message in messages) & unread:
                found[place] = self._by_reading(place, topics)
        except DamagedMessage:
            return None
        index = FileIndex([message for messages in found.values() for message in messages])
        index.expected = count_by_topic(counts, self._salvage.names, topics)
        return index if index.counts(topics) == index.expected else None

    def _by_message_index(self, chunk: ChunkIndex, topics: Collection[str]) -> list[Found] | None:
        """The messages of a chunk; None if it or they are compressed, or if the index does not fit it."""
        if chunk.compression:
            return None
        found = []
        start, end = place_of(chunk)
        records_at = start + RECORD_HEAD.size + CHUNK_HEAD_BYTES
        for channel, index_at in chunk.message_index_offsets.items():
            if self._topic(channel) not in topics:
                continue
            index = self._records.message_index(index_at)
            if index is None or index[0].channel_id != channel:
                return None
            for log_time, offset in index[0].records:
                at = records_at + offset
                data = at + HEADS.size
                stored = self._records.bytes_at(at, data - at + CDR_HEAD_BYTES)
                if len(stored) < data - at:
                    return None
                opcode, length, its_channel, _, its_time, _ = HEADS.unpack_from(stored)
                head, data_end = stored[data - at :], at + RECORD_HEAD.size + length
                is_it = (opcode, its_channel, its_time) == (Opcode.MESSAGE, channel, log_time)
                if not (is_it and data <= data_end <= end) or head.startswith(COMPRESSED):
                    return None
                place = (start, end, data - records_at, data_end - records_at)
                found.append(Found(self._topic(channel), log_time, head[: data_end - data], place))
        return sorted(found, key=lambda message: message.place)

    def _by_reading(self, place: tuple[int, int], topics: Collection[str]) -> list[Found]:
        """The messages of a chunk, after its checksum. Raises DamagedMessage."""
        return list(messages_in(self._records.chunk(*place), place, self._salvage.names, topics))

    def _topic_of(self, channel: Channel) -> Topic:
        encoding = channel.message_encoding or CDR
        schema = self._salvage.schemas.get(channel.schema_id)
        if schema is None:
            return Topic(channel.topic, "", encoding)
        is_msg = schema.encoding == DEFINITION_LANGUAGE
        definition = schema.data.decode("utf-8", "replace") if is_msg else ""
        return Topic(channel.topic, schema.name, encoding, definition)

    def _topic(self, channel: int) -> str:
        return self._salvage.names.get(channel, "")


def _doubtful(found: Iterable[Found]) -> set[tuple[int, int]]:
    """The chunks whose messages' stamps do not rise with the recording, and the first and last of each topic."""
    by_topic: dict[str, list[tuple[int | None, tuple[int, int]]]] = {}
    for message in found:
        chunk = (message.place[0], message.place[1])
        by_topic.setdefault(message.topic, []).append((header_stamp_ns(message.head), chunk))
    chunks = {messages[index][1] for messages in by_topic.values() for index in (0, -1)}
    for messages in by_topic.values():
        chunks.update(chunk for stamp, chunk in messages if stamp is None)
        for (earlier, first), (later, second) in pairwise(messages):
            if earlier is not None and later is not None and earlier > later:
                chunks.update((first, second))
    return chunks
