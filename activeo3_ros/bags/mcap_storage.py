"""An `.mcap` file of a ROS 2 bag: read through its indices, or without them where those are damaged.

The indices say where each message lies, and a message's first bytes have its stamp. So of a chunk that is not
compressed only those bytes are read, until one of its messages is wanted: then all of it, for its checksum. Stamps that
rise with the recording are believed; where they do not, and at both ends of the file, where a false one would move
everything else, the chunk is read and checked at once.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import lz4.frame
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, ChunkIndex, Footer, MessageIndex, Metadata, Schema, Statistics

from .compression import head_of
from .reading import CDR_HEAD_BYTES, DamagedMessage, FileIndex, Found, Topic, header_stamp_ns

MAGIC = b"\x89MCAP0\r\n"
RECORD_HEAD = struct.Struct("<BQ")
MESSAGE_HEAD = struct.Struct("<HIQQ")
"""Channel, sequence number, log time, publish time."""
CHUNK_HEAD = struct.Struct("<QQQII")
"""First and last log time, size and checksum of the uncompressed records, length of the compression's name."""
FOOTER_BYTES = RECORD_HEAD.size + 20 + len(MAGIC)
MAX_CHUNK_BYTES = 2 << 30
"""A chunk that claims more than this is damaged."""
MAX_COMPRESSION_NAME = 16
CHUNK_PATTERN = re.compile(rb"\x06.{5}\x00{3}", re.DOTALL)
"""How the record of a chunk begins: its opcode, and a length whose highest bytes are zero."""
SCAN_BYTES = 16 << 20

Records: TypeAlias = "bytes | memoryview"
"""Bytes that are looked at where they are: a copy of every picture would cost as much as its checksum."""

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
"""What the libraries raise when bytes are not what they should be."""


class _Damaged(Exception):
    """A record is not what it should be; the message says what is wrong with it."""


@dataclass(frozen=True)
class _Summary:
    """What the end of a whole file says about it. counts: messages by channel, None if it does not say."""

    channels: dict[int, Channel]
    schemas: dict[int, Schema]
    chunks: list[ChunkIndex]
    counts: dict[int, int] | None


@dataclass(frozen=True)
class _Piece:
    """Records of the file. place: start and end of their chunk, or -1, -1 for a message that lies outside of any chunk.

    records: None if they are damaged. base: what to add to a position in the records. lost: messages by channel.
    """

    place: tuple[int, int]
    records: Records | None
    base: int = 0
    lost: dict[int, int] = field(default_factory=dict)


class McapFile:
    """One `.mcap` file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._size = path.stat().st_size
        self._channels: dict[int, Channel] = {}
        self._schemas: dict[int, Schema] = {}
        self._held: tuple[int, Records] = (-1, b"")
        self._reached_end = False
        self._summary = self._read_summary()
        if self._summary is not None:
            self._channels, self._schemas = dict(self._summary.channels), dict(self._summary.schemas)
        if not self._channels:
            for piece in self._pieces([]):
                for _ in self._messages(piece.records or b""):
                    pass  # on the way it learns the channels that the chunks hold

    def topics(self) -> list[Topic]:
        topics = []
        for channel in self._channels.values():
            schema = self._schemas.get(channel.schema_id)
            name, definition = (schema.name, schema.data.decode("utf-8", "replace")) if schema else ("", "")
            topics.append(Topic(channel.topic, name, definition))
        return topics

    def metadata(self, name: str) -> dict[str, str] | None:
        """What whoever wrote the file put before its first chunk under a name; None if there is nothing."""
        at = len(MAGIC)
        while at + RECORD_HEAD.size <= self._size:
            opcode, length = RECORD_HEAD.unpack(self._pread(at, RECORD_HEAD.size))
            if opcode not in (Opcode.HEADER, Opcode.SCHEMA, Opcode.CHANNEL, Opcode.METADATA):
                return None
            if opcode == Opcode.METADATA:
                try:
                    record = Metadata.read(_stream(self._pread(at + RECORD_HEAD.size, length)))
                except UNREADABLE:
                    return None
                if record.name == name:
                    return dict(record.metadata)
            at += RECORD_HEAD.size + length
        return None

    def index(self, topics: Collection[str]) -> FileIndex:
        quick = self._quick_index(topics)
        return self._whole_index(topics) if quick is None else quick

    def _quick_index(self, topics: Collection[str]) -> FileIndex | None:
        """Without reading what nobody asked for; None where the file has no such index, or one that contradicts it."""
        if self._summary is None or self._summary.counts is None:
            return None
        parts: dict[tuple[int, int], FileIndex] = {}
        unread = set()
        for chunk in sorted(self._summary.chunks, key=lambda chunk: chunk.chunk_start_offset):
            place = chunk.chunk_start_offset, chunk.chunk_start_offset + chunk.chunk_length
            part = self._indexed_part(chunk, topics)
            if part is not None:
                unread.add(place)
            parts[place] = part or self._checked_part(place, topics)
        for place in _doubtful([item for part in parts.values() for item in part.found]) & unread:
            parts[place] = self._checked_part(place, topics)
        whole = FileIndex()
        for part in parts.values():
            whole.found += part.found
            whole.reasons += part.reasons
            for name, count in part.lost.items():
                whole.lost[name] = whole.lost.get(name, 0) + count
        whole.expected = self._expected(topics, whole)
        return whole if whole.expected == whole.counts(topics) else None

    def _indexed_part(self, chunk: ChunkIndex, topics: Collection[str]) -> FileIndex | None:
        """The messages of a chunk by its message index; None if it is compressed or the index does not fit it."""
        start, end = chunk.chunk_start_offset, chunk.chunk_start_offset + chunk.chunk_length
        records_at = start + RECORD_HEAD.size + CHUNK_HEAD.size + 8
        if chunk.compression or end > self._size:
            return None
        part = FileIndex()
        for channel, index_at in chunk.message_index_offsets.items():
            if self._name(channel) not in topics:
                continue
            record = self._message_index(index_at)
            if record is None or record.channel_id != channel:
                return None
            for log_time, offset in record.records:
                at = records_at + offset
                record_head = self._pread(at, RECORD_HEAD.size + MESSAGE_HEAD.size)
                if len(record_head) < RECORD_HEAD.size + MESSAGE_HEAD.size:
                    return None
                opcode, length = RECORD_HEAD.unpack_from(record_head)
                its_channel, _, its_time, _ = MESSAGE_HEAD.unpack_from(record_head, RECORD_HEAD.size)
                data, data_end = at + len(record_head), at + RECORD_HEAD.size + length
                is_it = (opcode, its_channel, its_time) == (Opcode.MESSAGE, channel, log_time)
                if not (is_it and data <= data_end <= end):
                    return None
                head = head_of(partial(self._pread_up_to, data, data_end), CDR_HEAD_BYTES)
                where = (start, end, data - records_at, data_end - records_at)
                part.found.append((self._name(channel), log_time, head, where))
        part.found.sort(key=lambda item: item[3])
        return part

    def _checked_part(self, place: tuple[int, int], topics: Collection[str]) -> FileIndex:
        """The messages of a chunk, after its checksum."""
        part = FileIndex()
        self._add(self._piece(place, part.reasons), topics, part)
        return part

    def _whole_index(self, topics: Collection[str]) -> FileIndex:
        """By reading everything."""
        index = FileIndex()
        self._reached_end = False
        for piece in self._pieces(index.reasons):
            self._add(piece, topics, index)
        index.expected = self._expected(topics, index)
        return index

    def _add(self, piece: _Piece, topics: Collection[str], index: FileIndex) -> None:
        """Enter the messages of a piece into an index."""
        for channel, count in piece.lost.items():
            if self._name(channel) in topics:
                index.lost[self._name(channel)] = index.lost.get(self._name(channel), 0) + count
        records = piece.records
        if records is None:
            return
        for channel, log_time, start, end in self._messages(records):
            if self._name(channel) in topics:
                head = head_of(partial(_first_bytes, records[start:end]), CDR_HEAD_BYTES)
                where = (*piece.place, piece.base + start, piece.base + end)
                index.found.append((self._name(channel), log_time, head, where))

    def read(self, place: tuple[int, ...]) -> bytes:
        at, chunk_end, start, end = place
        if at < 0:
            return self._pread(start, end - start)
        if self._held[0] != at:
            try:
                self._held = at, self._read_chunk(at, chunk_end)
            except _Damaged as error:
                raise DamagedMessage(str(error)) from error
        return bytes(self._held[1][start:end])

    def close(self) -> None:
        self._file.close()

    def _expected(self, topics: Collection[str], index: FileIndex) -> dict[str, int] | None:
        expected = dict.fromkeys(topics, 0)
        if self._summary is not None and self._summary.counts is not None:
            for channel, count in self._summary.counts.items():
                if self._name(channel) in topics:
                    expected[self._name(channel)] += count
            return expected
        if not self._reached_end:
            return None
        return index.counts(topics)

    def _name(self, channel: int) -> str:
        known = self._channels.get(channel)
        return known.topic if known is not None else ""

    def _pread(self, at: int, length: int) -> bytes:
        """Bytes of the file, fewer at its end."""
        if at >= self._size:  # a damaged number can name a place that no file has
            return b""
        self._file.seek(at)
        return self._file.read(max(0, min(length, self._size - at)))

    def _pread_up_to(self, at: int, end: int, length: int) -> bytes:
        return self._pread(at, min(length, end - at))

    def _read_summary(self) -> _Summary | None:
        """What the end of the file says; None if it is missing or fails its checksum."""
        tail = self._pread(max(0, self._size - FOOTER_BYTES), FOOTER_BYTES)
        if len(tail) < FOOTER_BYTES or not tail.endswith(MAGIC):
            return None
        opcode, length = RECORD_HEAD.unpack_from(tail)
        footer = Footer.read(_stream(tail[RECORD_HEAD.size :]))
        start, end = footer.summary_start, self._size - FOOTER_BYTES
        if opcode != Opcode.FOOTER or length != 20 or not 0 < start <= end:
            return None
        summary = self._pread(start, end - start)
        checksum = zlib.crc32(tail[: RECORD_HEAD.size + 16], zlib.crc32(summary))
        if footer.summary_crc not in (0, checksum):
            return None
        try:
            return _parse_summary(summary)
        except UNREADABLE:
            return None

    def _pieces(self, reasons: list[str]) -> Iterator[_Piece]:
        if self._summary is not None and self._summary.chunks:
            yield from self._indexed_pieces(self._summary.chunks, reasons)
        else:
            yield from self._all_pieces(reasons)

    def _indexed_pieces(self, chunks: list[ChunkIndex], reasons: list[str]) -> Iterator[_Piece]:
        whole = True
        for chunk in sorted(chunks, key=lambda chunk: chunk.chunk_start_offset):
            piece = self._piece((chunk.chunk_start_offset, chunk.chunk_start_offset + chunk.chunk_length), reasons)
            whole = whole and piece.records is not None
            yield piece
        self._reached_end = whole

    def _piece(self, place: tuple[int, int], reasons: list[str]) -> _Piece:
        """A chunk that an index names."""
        try:
            return _Piece(place, self._read_chunk(*place))
        except _Damaged as error:
            reasons.append(str(error))
            return _Piece(place, None, lost=self._indexed_messages(place[1]))

    def _all_pieces(self, reasons: list[str]) -> Iterator[_Piece]:
        """Every chunk from the first byte on; where the bytes make no sense, on from the next whole chunk."""
        at = trusted = len(MAGIC)
        lost_track = has_chunks = False
        while at + RECORD_HEAD.size <= self._size:
            opcode, length = RECORD_HEAD.unpack(self._pread(at, RECORD_HEAD.size))
            start, end = at + RECORD_HEAD.size, at + RECORD_HEAD.size + length
            if opcode == Opcode.DATA_END and length == 4:
                self._reached_end = not lost_track
                if self._summary is None:
                    reasons.append("the index at its end is damaged or missing")
                return
            if opcode == Opcode.CHUNK:
                has_chunks = True
                try:
                    yield _Piece((at, end), self._read_chunk(at, end))
                    trusted = end
                except _Damaged as error:
                    reasons.append(str(error))
                    counts = self._indexed_messages(end)
                    lost_track = lost_track or not counts
                    yield _Piece((at, end), None, lost=counts)
                    trusted = end if counts else at + 1
                    end = trusted if counts else self._find_chunk(trusted)
            elif opcode == Opcode.MESSAGE and not has_chunks and end <= self._size:
                yield _Piece((-1, -1), self._pread(at, end - at), base=at)
            elif 0 < opcode < 0x80 and end <= self._size:
                self._learn(opcode, self._pread(start, min(length, SCAN_BYTES)))
            else:
                reasons.append(f"damaged at byte {at}")
                lost_track = True
                end = self._find_chunk(max(trusted, len(MAGIC)))
                trusted = end
            at = end
        reasons.append("it ends in the middle: what came after is lost")

    def _read_chunk(self, at: int, end: int) -> Records:
        """The records of a chunk, uncompressed; of one that the end of the file cuts, those that are still there."""
        record = memoryview(self._pread(at, min(end - at, MAX_CHUNK_BYTES)))
        where = f"the chunk at byte {at}"
        if len(record) < RECORD_HEAD.size + CHUNK_HEAD.size or record[0] != Opcode.CHUNK:
            raise _Damaged(f"{where} is damaged")
        _, _, size, checksum, name_length = CHUNK_HEAD.unpack_from(record, RECORD_HEAD.size)
        head_end = RECORD_HEAD.size + CHUNK_HEAD.size + name_length + 8
        if name_length > MAX_COMPRESSION_NAME or head_end > len(record) or size > MAX_CHUNK_BYTES:
            raise _Damaged(f"{where} is damaged")
        compression = bytes(record[head_end - 8 - name_length : head_end - 8])
        (stored_length,) = struct.unpack_from("<Q", record, head_end - 8)
        if at + head_end + stored_length != end:
            raise _Damaged(f"{where} is damaged")
        stored = record[head_end:]
        if end > self._size:
            if compression:
                raise _Damaged(f"{where} is cut off")
            return stored
        try:
            records = _decompress(compression, stored, size)
        except UNREADABLE as error:
            raise _Damaged(f"{where} cannot be decompressed") from error
        if checksum and zlib.crc32(records) != checksum:
            raise _Damaged(f"{where} fails its checksum")
        if not checksum and len(records) != size:
            raise _Damaged(f"{where} is damaged")
        return records

    def _indexed_messages(self, at: int) -> dict[int, int]:
        """How many messages of each channel the chunk that ends here held, as the records after it say."""
        counts: dict[int, int] = {}
        while (record := self._message_index(at)) is not None:
            counts[record.channel_id] = counts.get(record.channel_id, 0) + len(record.records)
            at += RECORD_HEAD.size + RECORD_HEAD.unpack(self._pread(at, RECORD_HEAD.size))[1]
        return counts

    def _message_index(self, at: int) -> MessageIndex | None:
        """The record of that kind at a place; None if there is none."""
        head = self._pread(at, RECORD_HEAD.size)
        if len(head) < RECORD_HEAD.size:
            return None
        opcode, length = RECORD_HEAD.unpack(head)
        if opcode != Opcode.MESSAGE_INDEX or at + RECORD_HEAD.size + length > self._size:
            return None
        try:
            record: MessageIndex = MessageIndex.read(_stream(self._pread(at + RECORD_HEAD.size, length)))
        except UNREADABLE:
            return None
        return record

    def _find_chunk(self, at: int) -> int:
        """Where the next whole chunk begins; the end of the file if there is none."""
        while at < self._size:
            window = self._pread(at, SCAN_BYTES)
            for match in CHUNK_PATTERN.finditer(window):
                start = at + match.start()
                end = start + RECORD_HEAD.size + RECORD_HEAD.unpack(match.group())[1]
                if end <= self._size and self._is_chunk(start, end):
                    return start
            at += max(1, len(window) - RECORD_HEAD.size + 1)
        return self._size

    def _is_chunk(self, start: int, end: int) -> bool:
        head = self._pread(start, RECORD_HEAD.size + CHUNK_HEAD.size + MAX_COMPRESSION_NAME + 8)
        if len(head) < RECORD_HEAD.size + CHUNK_HEAD.size + 8:
            return False
        name_length = CHUNK_HEAD.unpack_from(head, RECORD_HEAD.size)[4]
        at = RECORD_HEAD.size + CHUNK_HEAD.size + name_length
        if name_length > MAX_COMPRESSION_NAME or len(head) < at + 8:
            return False
        (stored,) = struct.unpack_from("<Q", head, at)
        if start + at + 8 + stored != end:  # before the costly checksum
            return False
        try:
            return bool(self._read_chunk(start, end))
        except _Damaged:
            return False

    def _messages(self, records: Records) -> Iterator[tuple[int, int, int, int]]:
        """Channel, log time, start and end of the data of each message in the records of a chunk."""
        at = 0
        while at + RECORD_HEAD.size <= len(records):
            opcode, length = RECORD_HEAD.unpack_from(records, at)
            start, end = at + RECORD_HEAD.size, at + RECORD_HEAD.size + length
            if end > len(records):
                return
            if opcode == Opcode.MESSAGE and length >= MESSAGE_HEAD.size:
                channel, _, log_time, _ = MESSAGE_HEAD.unpack_from(records, start)
                yield channel, log_time, start + MESSAGE_HEAD.size, end
            elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                self._learn(opcode, records[start:end])
            at = end

    def _learn(self, opcode: int, data: Records) -> None:
        """Remember a schema or channel, unless a whole index has told us all of them."""
        if self._summary is not None and self._summary.channels:
            return
        try:
            if opcode == Opcode.SCHEMA:
                schema = Schema.read(_stream(data))
                self._schemas.setdefault(schema.id, schema)
            elif opcode == Opcode.CHANNEL:
                channel = Channel.read(_stream(data))
                self._channels.setdefault(channel.id, channel)
        except UNREADABLE:
            pass


def _doubtful(found: Sequence[Found]) -> set[tuple[int, int]]:
    """The chunks whose messages' stamps do not rise with the recording, and the first and last of each topic."""
    by_topic: dict[str, list[tuple[int | None, tuple[int, int]]]] = {}
    for name, _, head, place in found:
        by_topic.setdefault(name, []).append((header_stamp_ns(head), (place[0], place[1])))
    chunks = {messages[index][1] for messages in by_topic.values() for index in (0, -1)}
    for messages in by_topic.values():
        chunks.update(chunk for stamp, chunk in messages if stamp is None)
        for (earlier, first), (later, second) in pairwise(messages):
            if earlier is not None and later is not None and earlier > later:
                chunks.update((first, second))
    return chunks


def _first_bytes(stored: Records, count: int) -> bytes:
    return bytes(stored[:count])


def _stream(data: Records) -> ReadDataStream:
    return ReadDataStream(BytesIO(data))


def _parse_summary(summary: bytes) -> _Summary:
    channels: dict[int, Channel] = {}
    schemas: dict[int, Schema] = {}
    chunks: list[ChunkIndex] = []
    counts: dict[int, int] | None = None
    at = 0
    while at + RECORD_HEAD.size <= len(summary):
        opcode, length = RECORD_HEAD.unpack_from(summary, at)
        stream = _stream(summary[at + RECORD_HEAD.size : at + RECORD_HEAD.size + length])
        if opcode == Opcode.CHANNEL:
            channel = Channel.read(stream)
            channels[channel.id] = channel
        elif opcode == Opcode.SCHEMA:
            schema = Schema.read(stream)
            schemas[schema.id] = schema
        elif opcode == Opcode.CHUNK_INDEX:
            chunks.append(ChunkIndex.read(stream))
        elif opcode == Opcode.STATISTICS:
            counts = dict(Statistics.read(stream).channel_message_counts)
        at += RECORD_HEAD.size + length
    return _Summary(channels, schemas, chunks, counts)


def _decompress(compression: bytes, data: Records, size: int) -> Records:
    if compression == b"":
        return data
    if compression == b"zstd":
        if zstandard.frame_content_size(data) not in (-1, size):  # else a damaged size would ask for all memory
            raise ValueError("the size of a compressed chunk contradicts itself")
        return bytes(zstandard.ZstdDecompressor().decompress(data, max_output_size=size))
    if compression == b"lz4":
        records = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=size)
        return bytes(records)
    raise ValueError(f"unknown compression {compression!r}")
