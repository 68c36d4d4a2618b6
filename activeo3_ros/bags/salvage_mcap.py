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

"""Salvage of an MCAP file that is damaged or has no index: the messages that are left, and the number of those lost.

The library `mcap` ends at the first damage, takes a cut message for a whole one, and does not count the missing.
Here the file is read from its first byte on, and every chunk that the index names, wherever it lies: messages may lie
outside of chunks, and an index may leave out what it likes. A chunk that fails its checksum is lost, and counted by the
message indexes after it. Where bytes make no sense, reading goes on with the next chunk.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Collection
from io import BytesIO

from mcap.opcode import Opcode
from mcap.records import Channel, Schema
from mcap.summary import Summary

from .compression import FIRST_BLOCK_BYTES, head_of
from .mcap_records import (
    MAGIC,
    MESSAGE_HEAD,
    RECORD_HEAD,
    UNREADABLE,
    LenientStream,
    McapRecords,
    count_by_topic,
    messages_in,
    place_of,
    records_in,
)  # fmt: skip
from .storage import DamagedMessage, FileIndex, Found

CHUNK_PATTERN = re.compile(rb"\x06.{5}\x00{3}", re.DOTALL)
"""How the record of a chunk begins: its opcode, and a length whose highest bytes are zero."""
SCAN_BYTES = 16 << 20
TOLD_BY = (Opcode.SCHEMA, Opcode.CHANNEL)
"""The records that say which topics there are."""
NO_SCHEMA = 0
"""The schema of a channel that has none."""
NO_CHUNK = (-1, -1)
"""The place of the chunk of a message that lies in none."""


class McapSalvage:
    """Reads everything that is left of a file.

    Attributes:
        channels: The channels of the file by their numbers: those of its summary, or else those that were come across.
        schemas: The schemas, likewise.
        names: The topic of each channel.
    """

    def __init__(self, records: McapRecords, summary: Summary | None) -> None:
        self._records = records
        self._summary = summary or Summary()
        self._has_summary = summary is not None
        places = map(place_of, self._summary.chunk_indexes)
        self._chunks = sorted(place for place in places if place[1] - place[0] > RECORD_HEAD.size)
        self.channels, self.schemas = self._summary.channels, self._summary.schemas
        self.names = {number: channel.topic for number, channel in self.channels.items()}
        self._is_learning = not self._tells_all_channels()
        if self._is_learning:
            self.index(())

    def counts(self) -> dict[int, int] | None:
        """The number of messages of each channel, as the summary has it; None if it does not tell all of them."""
        statistics = self._summary.statistics
        if statistics is None or sum(statistics.channel_message_counts.values()) != statistics.message_count:
            return None
        return statistics.channel_message_counts

    def index(self, topics: Collection[str]) -> FileIndex:
        """Where the messages of some topics lie that are left, by reading everything."""
        index = FileIndex()
        entered: dict[int, int] = {}
        is_complete = self._scan(topics, index, entered)
        for place in self._chunks:
            if place[0] not in entered:  # damage before it hid it
                entered.update([place])
                is_complete = self._enter_chunk(*place, topics, index) and is_complete
        index.found = _without_strays(index.found, entered)
        counts = self.counts()
        if counts is not None:
            index.expected = count_by_topic(counts, self.names, topics)
        elif is_complete:
            index.expected = index.counts(topics)
        return index

    def _tells_all_channels(self) -> bool:
        """Whether the summary has every channel and schema that it speaks of."""
        statistics = self._summary.statistics
        spoken_of = {number for chunk in self._summary.chunk_indexes for number in chunk.message_index_offsets}
        return (
            bool(self.channels)
            and spoken_of <= self.channels.keys()
            and {channel.schema_id for channel in self.channels.values()} - {NO_SCHEMA} <= self.schemas.keys()
            and (statistics is None or statistics.channel_count <= len(self.channels))
        )

    def _scan(self, topics: Collection[str], index: FileIndex, entered: dict[int, int]) -> bool:
        """Fill an index from the first byte on; whether all was there up to the end of the data, or can be counted.

        Args:
            topics: Of the messages that are wanted.
            index: Takes the messages.
            entered: Takes start and end of each chunk.
        """
        records, known_ends = self._records, dict(self._chunks)
        at = trusted = len(MAGIC)
        is_complete = True
        while (record := records.record_at(at)) is not None:
            opcode, start, end = record
            if opcode == Opcode.DATA_END and end - start == 4:
                if not self._has_summary:
                    index.reasons.append("the index at its end is damaged or missing")
                return is_complete
            if opcode == Opcode.CHUNK or at in known_ends:
                end = known_ends.get(at, end)
                is_known = self._enter_chunk(at, end, topics, index)
                is_complete = is_complete and is_known
                if is_known or at in known_ends:
                    trusted = entered[at] = end
                else:
                    trusted = at + 1
                    end = self._find_chunk(trusted)
            elif opcode == Opcode.MESSAGE and start + MESSAGE_HEAD.size <= end <= records.size:
                self._enter_message(start, end, topics, index)
            elif 0 < opcode < 0x80 and opcode != Opcode.MESSAGE and end <= records.size:
                if opcode in TOLD_BY:
                    self._learn(opcode, records.bytes_at(start, min(end - start, SCAN_BYTES)))
            else:
                index.reasons.append(f"damaged at byte {at}")
                is_complete = False
                end = trusted = self._find_chunk(trusted)
            at = end
        if not self._has_summary:
            index.reasons.append("it ends in the middle: what came after is lost")
        return False

    def _enter_chunk(self, at: int, end: int, topics: Collection[str], index: FileIndex) -> bool:
        """Enter the messages of a chunk, or how many are lost with it; whether either is known."""
        try:
            chunk = self._records.chunk(at, end)
        except DamagedMessage as error:
            index.reasons.append(str(error))
            counts = self._count_by_message_indexes(end)
            for topic, count in count_by_topic(counts, self.names, topics).items():
                index.lost[topic] = index.lost.get(topic, 0) + count
            return bool(counts) and counts.keys() <= self.channels.keys()
        for opcode, start, record_end in records_in(chunk) if self._is_learning else ():
            self._learn(opcode, chunk[start:record_end] if opcode != Opcode.MESSAGE else b"")
        index.found += messages_in(chunk, (at, end), self.names, topics)
        return True

    def _enter_message(self, start: int, end: int, topics: Collection[str], index: FileIndex) -> None:
        """Enter a message that lies outside of any chunk."""
        data = start + MESSAGE_HEAD.size
        channel, _, log_time, _ = MESSAGE_HEAD.unpack(self._records.bytes_at(start, MESSAGE_HEAD.size))
        topic = self.names.get(channel, "")
        if topic in topics:
            head = head_of(self._records.bytes_at(data, min(end - data, FIRST_BLOCK_BYTES)))
            index.found.append(Found(topic, log_time, head, (*NO_CHUNK, data, end)))

    def _count_by_message_indexes(self, at: int) -> dict[int, int]:
        """How many messages of each channel the chunk that ends here held, as the records after it say."""
        counts: dict[int, int] = {}
        while (found := self._records.message_index(at)) is not None:
            index, at = found
            counts[index.channel_id] = counts.get(index.channel_id, 0) + len(index.records)
        return counts

    def _find_chunk(self, at: int) -> int:
        """Where the next chunk begins that the index names, or that is whole; the end of the file if there is none."""
        if self._chunks:
            return next((start for start, _ in self._chunks if start >= at), self._records.size)
        while at < self._records.size:
            window = self._records.bytes_at(at, SCAN_BYTES)
            for match in CHUNK_PATTERN.finditer(window):
                start = at + match.start()
                end = start + RECORD_HEAD.size + RECORD_HEAD.unpack(match.group())[1]
                if end <= self._records.size and self._is_chunk(start, end):
                    return start
            at += max(1, len(window) - RECORD_HEAD.size + 1)
        return self._records.size

    def _is_chunk(self, start: int, end: int) -> bool:
        try:
            return bool(self._records.chunk(start, end))
        except DamagedMessage:
            return False

    def _learn(self, opcode: int, data: bytes) -> None:
        """Remember a schema or channel, unless a whole summary has told all of them."""
        if not self._is_learning or opcode not in TOLD_BY:
            return
        stream = LenientStream(BytesIO(data))
        try:
            if opcode == Opcode.SCHEMA:
                schema = Schema.read(stream)
                self.schemas.setdefault(schema.id, schema)
            else:
                channel = Channel.read(stream)
                self.channels.setdefault(channel.id, channel)
                self.names.setdefault(channel.id, channel.topic)
        except UNREADABLE:
            pass


def _without_strays(found: list[Found], chunks: dict[int, int]) -> list[Found]:
    """Messages without those that seemed to lie outside of any chunk and lie in one: a damaged length led there."""
    starts = sorted(chunks)

    def is_stray(message: Found) -> bool:
        if message.place[:2] != NO_CHUNK:
            return False
        before = bisect(starts, message.place[2]) - 1
        return before >= 0 and message.place[2] < chunks[starts[before]]

    return [message for message in found if not is_stray(message)]
