"""The records of an MCAP file by their places, read through the library `mcap`.

The library parses records, checks the checksums of chunks and decompresses LZ4. Ours is what it leaves out: the
checksum of the summary, chunks of several Zstandard frames, chunks that the end of the file cuts, and a limit to the
memory that a damaged size can ask for.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from io import BytesIO
from typing import BinaryIO

import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.reader import SeekingReader
from mcap.records import Channel, Chunk, ChunkIndex, Footer, MessageIndex, Metadata
from mcap.stream_reader import CRCValidationError, StreamReader, get_chunk_data_stream
from mcap.summary import Summary

from .compression import head_of
from .storage import CDR_HEAD_BYTES, Found

MAGIC = b"\x89MCAP0\r\n"
RECORD_HEAD = struct.Struct("<BQ")
"""Opcode and length."""
MESSAGE_HEAD = struct.Struct("<HIQQ")
"""Channel, sequence number, log time, publish time."""
FOOTER_LENGTH = 20
FOOTER_BYTES = RECORD_HEAD.size + FOOTER_LENGTH + len(MAGIC)
MAX_CHUNK_BYTES = 2 << 30
"""A chunk that claims more is damaged."""

UNREADABLE = (
    McapError,
    ValueError,
    struct.error,
    EOFError,
    MemoryError,
    OverflowError,
    RuntimeError,
    zstandard.ZstdError,
)
"""What the libraries raise for damaged bytes."""


class DamagedChunk(Exception):
    """A chunk is damaged; the message says where it is and what is wrong with it."""


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

    def summary(self) -> Summary | None:
        """The index at the end of the file; None if it is missing, fails its checksum or cannot be read."""
        tail = self.bytes_at(self.size - FOOTER_BYTES, FOOTER_BYTES)
        if len(tail) < FOOTER_BYTES or RECORD_HEAD.unpack_from(tail) != (Opcode.FOOTER, FOOTER_LENGTH):
            return None
        footer = Footer.read(ReadDataStream(BytesIO(tail[RECORD_HEAD.size :])))
        start, end = footer.summary_start, self.size - FOOTER_BYTES
        if not 0 < start <= end or not tail.endswith(MAGIC):
            return None
        checksum = zlib.crc32(self.bytes_at(start, end - start) + tail[: RECORD_HEAD.size + 16])
        if footer.summary_crc not in (0, checksum):
            return None
        try:
            self._file.seek(-len(MAGIC), os.SEEK_END)  # it wants to see that one first
            return SeekingReader(self._file).get_summary()
        except UNREADABLE:
            return None

    def metadata(self, name: str) -> dict[str, str] | None:
        """The notes that lie before the first chunk under a name; None if there are none."""
        self._file.seek(0)
        try:
            for record in StreamReader(self._file, emit_chunks=True).records:
                if isinstance(record, Chunk):
                    return None
                if isinstance(record, Metadata) and record.name == name:
                    return dict(record.metadata)
        except UNREADABLE:
            pass
        return None

    def message_index(self, at: int) -> tuple[MessageIndex, int] | None:
        """The message index at a place, and where the next record begins; None if there is none."""
        head = self.bytes_at(at, RECORD_HEAD.size)
        if len(head) < RECORD_HEAD.size:
            return None
        opcode, length = RECORD_HEAD.unpack(head)
        start, end = at + RECORD_HEAD.size, at + RECORD_HEAD.size + length
        if opcode != Opcode.MESSAGE_INDEX or end > self.size:
            return None
        try:
            return MessageIndex.read(ReadDataStream(BytesIO(self.bytes_at(start, length)))), end
        except UNREADABLE:
            return None

    def chunk(self, at: int, end: int) -> bytes:
        """The records of a chunk, uncompressed; of one that the end of the file cuts, those that are still there.

        Args:
            at: Where the record of the chunk begins.
            end: Where it ends.

        Raises:
            DamagedChunk: It is no chunk, is damaged, or is cut and compressed.
        """
        where = f"the chunk at byte {at}"
        stored = self.bytes_at(at, end - at if end - at <= MAX_CHUNK_BYTES else 0)
        stream = ReadDataStream(BytesIO(stored))
        try:
            is_chunk = stream.read1() == Opcode.CHUNK and stream.read8() >= 0
            chunk = Chunk.read(stream)
        except UNREADABLE as error:
            raise DamagedChunk(f"{where} is damaged") from error
        head_bytes = stream.count - len(chunk.data)
        if not is_chunk or stream.count != len(stored):
            raise DamagedChunk(f"{where} is damaged")
        if len(stored) < end - at:
            if chunk.compression or head_bytes + chunk.uncompressed_size != end - at:
                raise DamagedChunk(f"{where} is cut off")
            return bytes(chunk.data)
        try:
            if chunk.compression == "zstd":  # the library stops after the first frame
                frames = zstandard.ZstdDecompressor().stream_reader(chunk.data, read_across_frames=True)
                chunk.data = frames.read(min(chunk.uncompressed_size, MAX_CHUNK_BYTES))
                chunk.compression = ""
            records, length = get_chunk_data_stream(chunk, validate_crc=True)
        except CRCValidationError as error:
            raise DamagedChunk(f"{where} fails its checksum") from error
        except UNREADABLE as error:
            raise DamagedChunk(f"{where} cannot be decompressed") from error
        if length != chunk.uncompressed_size and not chunk.uncompressed_crc:
            raise DamagedChunk(f"{where} is damaged")
        return bytes(records.read(length))


def records_in(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Opcode, start and end of each record in a chunk, up to one that is not whole."""
    at = 0
    while at + RECORD_HEAD.size <= len(data):
        opcode, length = RECORD_HEAD.unpack_from(data, at)
        start, at = at + RECORD_HEAD.size, at + RECORD_HEAD.size + length
        if at > len(data):
            return
        yield opcode, start, at


def messages_in(chunk: bytes, place: tuple[int, int], names: Mapping[int, str], topics: Collection[str]) -> list[Found]:
    """The messages of some topics in the records of a chunk.

    Args:
        chunk: The records, uncompressed.
        place: Start and end of the chunk in the file.
        names: The topic of each channel.
        topics: The topics that are wanted.
    """
    found = []
    for opcode, start, end in records_in(chunk):
        data = start + MESSAGE_HEAD.size
        if opcode != Opcode.MESSAGE or data > end:
            continue
        channel, _, log_time, _ = MESSAGE_HEAD.unpack_from(chunk, start)
        topic = names.get(channel, "")
        if topic in topics:
            head = head_of(partial(_first_bytes, chunk, data, end), CDR_HEAD_BYTES)
            found.append(Found(topic, log_time, head, (*place, data, end)))
    return found


def place_of(chunk: ChunkIndex) -> tuple[int, int]:
    """Where a chunk begins and ends."""
    return chunk.chunk_start_offset, chunk.chunk_start_offset + chunk.chunk_length


def count_by_topic(
    counts: Mapping[int, int], channels: Mapping[int, Channel], topics: Collection[str]
) -> dict[str, int]:
    """Numbers of messages by topic from those by channel."""
    by_topic = dict.fromkeys(topics, 0)
    for number, count in counts.items():
        if number in channels and channels[number].topic in by_topic:
            by_topic[channels[number].topic] += count
    return by_topic


def _first_bytes(chunk: bytes, start: int, end: int, count: int) -> bytes:
    return chunk[start : min(end, start + count)]
