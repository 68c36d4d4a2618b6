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

"""The records of an MCAP file by their places, read through the library `mcap`.

The library parses records, and decompresses and verifies chunks. Our own code adds the checksum of the summary, names
that are not UTF-8 (for one of which the library refuses the whole summary), chunks of several compressed frames, chunks
that the end of the file cuts, and a limit to the memory that a damaged size can ask for.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from io import BytesIO
from typing import BinaryIO

import lz4.frame
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, ChunkIndex, MessageIndex, Metadata, Schema, Statistics
from mcap.stream_reader import CRCValidationError, StreamReader, get_chunk_data_stream
from mcap.summary import Summary

from .compression import head_of
from .storage import DamagedMessage, Found

MAGIC = b"\x89MCAP0\r\n"
RECORD_HEAD = struct.Struct("<BQ")
"""Opcode and length."""
MESSAGE_HEAD = struct.Struct("<HIQQ")
"""Channel, sequence number, log time, publish time."""
FOOTER = struct.Struct("<BQQQI8s")
"""Opcode, length, start of the summary and of its offsets, checksum of the summary, magic."""
FOOTER_LENGTH = 20
MAX_CHUNK_BYTES = 2 << 30
"""A chunk that claims more is damaged."""
UNREADABLE = (McapError, ValueError, struct.error, MemoryError, OverflowError, RuntimeError, zstandard.ZstdError)
"""Exceptions of the libraries for damaged bytes."""


def _decompress_zstd(data: bytes, size: int) -> bytes:
    frames = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    return bytes(frames.read(size))


def _decompress_lz4(data: bytes, size: int) -> bytes:
    records = b""
    while data and len(records) < size:
        frame = lz4.frame.LZ4FrameDecompressor()
        records += frame.decompress(data, max_length=size - len(records))
        data = frame.unused_data or b""
    return records


DECOMPRESSORS = {"zstd": _decompress_zstd, "lz4": _decompress_lz4}
"""Decompress the frames of a chunk up to its size."""


class LenientStream(ReadDataStream):
    """Reads fields as the library does, with U+FFFD in place of what is not UTF-8, as all of a bag is read."""

    def read_prefixed_string(self) -> str:
        return self.read(self.read4()).decode("utf-8", "replace")


class McapRecords:
    """An open MCAP file. Places are in bytes from its beginning."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)

    def bytes_at(self, at: int, length: int) -> bytes:
        """Bytes of the file; fewer where it ends."""
        if not 0 <= at < self.size:  # a damaged number can name a place that no file has
            return b""
        self._file.seek(at)
        return self._file.read(max(0, min(length, self.size - at)))

    def record_at(self, at: int) -> tuple[int, int, int] | None:
        """Opcode, start and end of the record at a place; None where the file ends."""
        head = self.bytes_at(at, RECORD_HEAD.size)
        if len(head) < RECORD_HEAD.size:
            return None
        opcode, length = RECORD_HEAD.unpack(head)
        return opcode, at + RECORD_HEAD.size, at + RECORD_HEAD.size + length

    def summary(self) -> Summary | None:
        """The index at the end of the file, empty if the file was written without; None if it is cut off or damaged."""
        end = self.size - FOOTER.size
        tail = self.bytes_at(end, FOOTER.size)
        if len(tail) < FOOTER.size:
            return None
        opcode, length, start, _, checksum, magic = FOOTER.unpack(tail)
        if (opcode, length, magic) != (Opcode.FOOTER, FOOTER_LENGTH, MAGIC) or start > end:
            return None
        summary = self.bytes_at(start, end - start) if start else b""
        if checksum not in (0, zlib.crc32(summary + tail[: -len(MAGIC) - 4])):
            return None
        if not start:
            return Summary()
        return _summary_of(summary)

    def metadata(self, name: str) -> dict[str, str] | None:
        """The notes that lie before the first chunk under a name; None if there are none."""
        self._file.seek(0)
        try:
            for record in StreamReader(self._file, emit_chunks=True).records:
                if isinstance(record, Chunk):
                    break
                if isinstance(record, Metadata) and record.name == name:
                    return dict(record.metadata)
        except UNREADABLE:
            pass
        return None

    def message_index(self, at: int) -> tuple[MessageIndex, int] | None:
        """The message index at a place, and where the next record begins; None if there is none."""
        record = self.record_at(at)
        if record is None or record[0] != Opcode.MESSAGE_INDEX or record[2] > self.size:
            return None
        _, start, end = record
        try:
            return MessageIndex.read(ReadDataStream(BytesIO(self.bytes_at(start, end - start)))), end
        except UNREADABLE:
            return None

    def chunk(self, at: int, end: int) -> bytes:
        """The records of a chunk, uncompressed; of one that the end of the file cuts, those that are still there.

        Args:
            at: Where the record of the chunk begins.
            end: Where it ends.

        Raises:
            DamagedMessage: It is no chunk, is damaged, or is cut and compressed.
        """
        where = f"the chunk at byte {at}"
        stream = ReadDataStream(BytesIO(self.bytes_at(at, end - at if end - at <= MAX_CHUNK_BYTES else 0)))
        try:
            opcode, _, chunk = stream.read1(), stream.read8(), Chunk.read(stream)
        except UNREADABLE as error:
            raise DamagedMessage(f"{where} is damaged") from error
        is_cut, whole_length = end > self.size, stream.count - len(chunk.data) + chunk.uncompressed_size
        if opcode == Opcode.CHUNK and is_cut and not chunk.compression and whole_length == end - at:
            return bytes(chunk.data)
        if opcode != Opcode.CHUNK or stream.count != end - at:
            raise DamagedMessage(f"{where} is {'cut off' if is_cut else 'damaged'}")
        try:
            if chunk.compression in DECOMPRESSORS:
                # The library would stop after the first frame, and take as much memory as that claims.
                size = min(chunk.uncompressed_size, MAX_CHUNK_BYTES)
                chunk.data, chunk.compression = DECOMPRESSORS[chunk.compression](chunk.data, size), ""
            records, length = get_chunk_data_stream(chunk, validate_crc=True)
        except CRCValidationError as error:
            raise DamagedMessage(f"{where} fails its checksum") from error
        except UNREADABLE as error:
            known = chunk.compression in ("", *DECOMPRESSORS)
            how = "" if known else f": {chunk.compression[:20]!r} is no compression of MCAP"
            raise DamagedMessage(f"{where} cannot be decompressed{how}") from error
        if length != chunk.uncompressed_size and not chunk.uncompressed_crc:
            raise DamagedMessage(f"{where} is damaged")
        return bytes(records.read(length))


def _summary_of(data: bytes) -> Summary | None:
    """The summary in the records of its section; None if they are damaged."""
    summary, end = Summary(), 0
    try:
        for opcode, start, end in records_in(data):
            stream = LenientStream(BytesIO(data[start:end]))
            if opcode == Opcode.STATISTICS:
                summary.statistics = Statistics.read(stream)
            elif opcode == Opcode.SCHEMA:
                schema = Schema.read(stream)
                summary.schemas[schema.id] = schema
            elif opcode == Opcode.CHANNEL:
                channel = Channel.read(stream)
                summary.channels[channel.id] = channel
            elif opcode == Opcode.CHUNK_INDEX:
                summary.chunk_indexes.append(ChunkIndex.read(stream))
    except UNREADABLE:
        return None
    return summary if end == len(data) else None


def records_in(chunk: bytes) -> Iterator[tuple[int, int, int]]:
    """Opcode, start and end of each record in a chunk, up to one that is not whole."""
    at = 0
    while at + RECORD_HEAD.size <= len(chunk):
        opcode, length = RECORD_HEAD.unpack_from(chunk, at)
        start, at = at + RECORD_HEAD.size, at + RECORD_HEAD.size + length
        if at <= len(chunk):
            yield opcode, start, at


def messages_in(
    chunk: bytes, place: tuple[int, int], names: Mapping[int, str], topics: Collection[str]
) -> Iterator[Found]:
    """The messages of some topics in a chunk.

    Args:
        chunk: Its records, uncompressed.
        place: Its start and end in the file.
        names: The topic of each channel.
        topics: The topics that are wanted.
    """
    view = memoryview(chunk)
    for opcode, start, end in records_in(chunk):
        data = start + MESSAGE_HEAD.size
        if opcode == Opcode.MESSAGE and data <= end:
            channel, _, log_time, _ = MESSAGE_HEAD.unpack_from(chunk, start)
            topic = names.get(channel, "")
            if topic in topics:
                yield Found(topic, log_time, head_of(view[data:end]), (*place, data, end))


def place_of(chunk: ChunkIndex) -> tuple[int, int]:
    """Where a chunk begins and ends."""
    return chunk.chunk_start_offset, chunk.chunk_start_offset + chunk.chunk_length


def count_by_topic(counts: Mapping[int, int], names: Mapping[int, str], topics: Collection[str]) -> dict[str, int]:
    """Numbers of messages of some topics, from those of the channels. names: the topic of each channel."""
    by_topic = dict.fromkeys(topics, 0)
    for channel, count in counts.items():
        if names.get(channel) in by_topic:
            by_topic[names[channel]] += count
    return by_topic
