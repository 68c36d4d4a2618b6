"""Bags are read whole, in the order of the stamps; damaged ones lose the damaged part and say how much."""

from __future__ import annotations

import random
import tempfile
from functools import partial
from pathlib import Path

import mcap.writer
import pytest
import zstandard
from bag_fixtures import START_NS, STEP_NS, TOPIC, raw_messages, write_humble_db3, write_mcap, write_metadata
from mcap.reader import make_reader
from mcap.writer import CompressionType
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer

from activeo3_ros.bags.mcap_records import McapRecords
from activeo3_ros.bags.messages import IMAGE_TYPE
from activeo3_ros.bags.offline import Selection, select
from activeo3_ros.bags.reading import Bag, Damage, DamagedMessage
from activeo3_ros.bags.salvage_mcap import McapSalvage
from activeo3_ros.codecs.result_cdr import typestore
from activeo3_ros.core import InvalidInput

COUNT = 12
DAMAGED_BAGS = 500
"""Of each kind of storage: 1,000 together."""


def read(path: Path) -> tuple[list[tuple[int, bytes]], Damage]:
    """Stamp and bytes of every message that can be read, and the damage."""
    with Bag(path) as bag:
        if TOPIC not in bag.topics:
            return [], Damage(is_exact=False)
        entries, damage = bag.index([TOPIC])
        messages = []
        for entry in entries:
            try:
                messages.append((entry.stamp_ns, bag.read(entry)))
            except DamagedMessage as error:
                damage.lost[TOPIC] += 1
                damage.reasons.append(str(error))
        return messages, damage


@pytest.mark.parametrize("compression", list(CompressionType))
def test_an_mcap_file_gives_every_message(tmp_path: Path, compression: CompressionType):
    written = raw_messages(COUNT)
    messages, damage = read(write_mcap(tmp_path / "a.mcap", written, compression))
    assert [cdr for _, cdr in messages] == [cdr for _, cdr in written]
    assert not damage
    assert damage.is_exact


@pytest.mark.parametrize("options", [{"use_chunking": False}, {"use_statistics": False}, {"enable_crcs": False}])
def test_an_mcap_file_needs_no_chunks_statistics_or_checksums(tmp_path: Path, options: dict[str, bool]):
    written = raw_messages(COUNT)
    messages, damage = read(write_mcap(tmp_path / "a.mcap", written, **options))
    assert [cdr for _, cdr in messages] == [cdr for _, cdr in written]
    assert damage.is_exact
    assert damage.count == 0


def test_a_file_of_humble_gives_every_message(tmp_path: Path):
    written = raw_messages(COUNT)
    messages, damage = read(write_humble_db3(tmp_path / "a.db3", written))
    assert [cdr for _, cdr in messages] == [cdr for _, cdr in written]
    assert not damage


def test_messages_come_in_the_order_of_their_stamps_not_of_their_recording(tmp_path: Path):
    written = raw_messages(COUNT)
    random.Random(1).shuffle(written)
    late = [(START_NS + i, cdr) for i, (_, cdr) in enumerate(written)]
    messages, _ = read(write_mcap(tmp_path / "a.mcap", late))
    assert [stamp for stamp, _ in messages] == [START_NS + i * STEP_NS for i in range(COUNT)]


@pytest.mark.parametrize(("write", "suffix"), [(write_mcap, ".mcap"), (write_humble_db3, ".db3")])
def test_a_split_bag_is_one_bag_with_or_without_its_metadata(tmp_path: Path, write, suffix: str):
    written = raw_messages(COUNT)
    names = [f"bag_{number}{suffix}" for number in (0, 2, 10)]  # 10 comes after 2
    files = [write(tmp_path / name, written[4 * i : 4 * i + 4]) for i, name in enumerate(names)]
    messages, damage = read(tmp_path)
    assert [cdr for _, cdr in messages] == [cdr for _, cdr in written]
    assert damage.describe() == "0 messages are lost: metadata.yaml is missing"

    write_metadata(tmp_path, files, COUNT)
    assert not read(tmp_path)[1]

    files[1].unlink()
    messages, damage = read(tmp_path)
    assert len(messages) == COUNT - 4
    assert (damage.lost, damage.is_exact) == ({TOPIC: 4}, True)
    assert names[1] in damage.describe()


def test_a_bad_checksum_costs_the_messages_of_its_chunk_and_no_other(tmp_path: Path):
    written = raw_messages(COUNT)
    path = write_mcap(tmp_path / "a.mcap", written, chunk_bytes=20_000)  # 3 messages of 9 kB a chunk
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(written[5][1]) + 500] ^= 1
    path.write_bytes(damaged)
    messages, damage = read(path)
    assert [cdr for _, cdr in messages] == [cdr for _, cdr in written[:3] + written[6:]]
    assert (damage.lost, damage.is_exact) == ({TOPIC: 3}, True)
    assert "checksum" in damage.describe()


@pytest.mark.parametrize("number", [0, 5, COUNT - 1])
@pytest.mark.parametrize("bit", [1, 8, 30])
def test_a_damaged_stamp_moves_no_other_message(tmp_path: Path, number: int, bit: int):
    """The index at the end of the file is whole: nothing else says that this message's time is wrong."""
    written = raw_messages(COUNT)
    path = write_mcap(tmp_path / "a.mcap", written, chunk_bytes=9_000)  # a message a chunk
    damaged = bytearray(path.read_bytes())
    seconds = damaged.index(written[number][1]) + 4
    damaged[seconds + bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    with Bag(path) as bag:
        entries, damage = bag.index([TOPIC])
    right = [START_NS + i * STEP_NS for i in range(COUNT) if i != number]
    assert [entry.stamp_ns for entry in entries] == right
    assert (damage.lost, damage.is_exact) == ({TOPIC: 1}, True)
    assert "checksum" in damage.describe()


@pytest.mark.parametrize("compression", list(CompressionType))
def test_a_wrong_index_of_messages_is_not_believed(tmp_path: Path, compression: CompressionType):
    written = raw_messages(COUNT, width=16, height=12)
    path = write_mcap(tmp_path / "a.mcap", written, compression, chunk_bytes=1500)
    whole = path.read_bytes()
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
    for chunk in summary.chunk_indexes[:3]:
        at = next(iter(chunk.message_index_offsets.values()))
        for byte in range(at, at + chunk.message_index_length):
            damaged = bytearray(whole)
            damaged[byte] ^= 4
            path.write_bytes(damaged)
            messages, damage = read(path)
            assert [cdr for _, cdr in messages] == [cdr for _, cdr in written]
            assert damage.count == 0


def write_compressed(directory: Path, mode: CompressionMode, storage: StoragePlugin, written) -> Path:
    """As `ros2 bag record --compression-format zstd` leaves it: a directory, its files or messages compressed."""
    writer = Writer(directory, version=8, storage_plugin=storage)
    if mode != CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection(TOPIC, IMAGE_TYPE, typestore=typestore())
        for time_ns, cdr in written:
            writer.write(connection, time_ns, cdr)
    return directory


COMPRESSED = [(mode, storage) for mode in (CompressionMode.FILE, CompressionMode.MESSAGE) for storage in StoragePlugin]


@pytest.mark.parametrize(("mode", "storage"), COMPRESSED)
def test_a_bag_that_rosbag2_compressed_gives_every_message(tmp_path: Path, mode, storage):
    written = raw_messages(COUNT)
    bag = write_compressed(tmp_path / "bag", mode, storage, written)
    messages, damage = read(bag)
    assert [cdr for _, cdr in messages] == [cdr for _, cdr in written]
    assert not damage
    (bag / "metadata.yaml").unlink()
    messages, damage = read(bag)
    assert [cdr for _, cdr in messages] == [cdr for _, cdr in written]
    assert damage.describe() == "0 messages are lost: metadata.yaml is missing"
    (file,) = bag.iterdir()
    assert read(file)[0] == messages


HEALTHY = {
    "uncompressed MCAP": lambda path, written: write_mcap(path / "a.mcap", written),
    "MCAP with LZ4": lambda path, written: write_mcap(path / "a.mcap", written, CompressionType.LZ4),
    "MCAP with Zstandard": lambda path, written: write_mcap(path / "a.mcap", written, CompressionType.ZSTD),
    "MCAP without chunks": lambda path, written: write_mcap(path / "a.mcap", written, use_chunking=False),
    "SQLite of Humble": lambda path, written: write_humble_db3(path / "a.db3", written),
    **{
        f"{storage.name} with compressed {mode.name}": partial(
            lambda mode, storage, path, written: write_compressed(path / "bag", mode, storage, written), mode, storage
        )
        for mode, storage in [*COMPRESSED, *((CompressionMode.NONE, storage) for storage in StoragePlugin)]
    },
}


@pytest.mark.parametrize("kind", HEALTHY)
def test_rosbags_and_we_read_the_same_from_a_healthy_bag(tmp_path: Path, kind: str):
    path = HEALTHY[kind](tmp_path, raw_messages(COUNT))
    with Reader(path) as reader:
        expected = [(connection.topic, log_time, cdr) for connection, log_time, cdr in reader.messages()]
        types = {connection.topic: connection.msgtype for connection in reader.connections}
    with Bag(path) as bag:
        entries, damage = bag.index([TOPIC])
        assert [(entry.topic, entry.log_time_ns, bag.read(entry)) for entry in entries] == expected
        assert {topic.name: topic.type for topic in bag.topics.values()} == types
    assert not damage


@pytest.mark.parametrize("compression", list(CompressionType))
def test_nothing_is_salvaged_of_a_healthy_file(tmp_path: Path, monkeypatch, compression: CompressionType):
    path = write_mcap(tmp_path / "a.mcap", raw_messages(COUNT), compression)
    monkeypatch.setattr(McapSalvage, "index", None)
    assert len(read(path)[0]) == COUNT


def test_of_a_chunk_without_compression_only_the_stamps_are_read_until_a_message_is_wanted(tmp_path: Path, monkeypatch):
    path = write_mcap(tmp_path / "a.mcap", raw_messages(COUNT), chunk_bytes=9_000)  # a message a chunk
    chunks_read = []
    read_chunk = McapRecords.chunk
    monkeypatch.setattr(
        McapRecords, "chunk", lambda self, at, end: (chunks_read.append(at), read_chunk(self, at, end))[1]
    )
    with Bag(path) as bag:
        entries, _ = bag.index([TOPIC])
        assert len(chunks_read) == 2, "the first and the last, whose stamps the selection depends on"
        bag.read(entries[5])
    assert len(chunks_read) == 3


def test_a_chunk_may_be_of_several_zstandard_frames(tmp_path: Path, monkeypatch):
    def compress(records: bytes) -> bytes:
        parts = records[:1000], records[1000:]
        return b"".join(zstandard.ZstdCompressor().compress(part) for part in parts)

    monkeypatch.setattr(mcap.writer.zstandard, "compress", compress)
    written = raw_messages(COUNT)
    path = write_mcap(tmp_path / "a.mcap", written, CompressionType.ZSTD)
    messages, damage = read(path)
    assert [cdr for _, cdr in messages] == [cdr for _, cdr in written]
    assert not damage


def test_metadata_tell_the_type_of_a_channel_without_schema(tmp_path: Path):
    written = raw_messages(COUNT)
    path = write_mcap(tmp_path / "a.mcap", written, kind="")
    write_metadata(tmp_path, [path], COUNT)
    with Bag(tmp_path) as bag:
        assert bag.topics[TOPIC].type == IMAGE_TYPE
        assert len(bag.index([TOPIC])[0]) == COUNT


def test_without_statistics_the_losses_are_counted_by_the_message_indexes(tmp_path: Path):
    written = raw_messages(COUNT)
    path = write_mcap(tmp_path / "a.mcap", written, chunk_bytes=20_000, use_statistics=False)
    content = bytearray(path.read_bytes())
    content[content.index(written[5][1]) + 500] ^= 1
    path.write_bytes(content)
    _, damage = read(path)
    assert (damage.lost, damage.is_exact) == ({TOPIC: 3}, True)


@pytest.mark.parametrize(("mode", "storage"), COMPRESSED)
def test_a_damaged_compressed_bag_loses_the_damaged_part_and_says_how_much(tmp_path: Path, mode, storage):
    written = raw_messages(COUNT)
    bag = write_compressed(tmp_path / "bag", mode, storage, written)
    (file,) = (path for path in bag.iterdir() if path.suffix != ".yaml")
    has_checksums = (mode, storage) == (CompressionMode.FILE, StoragePlugin.MCAP)
    if has_checksums:  # rosbags writes none
        unpacked = write_mcap(tmp_path / "a.mcap", written, chunk_bytes=20_000)
        file.write_bytes(zstandard.ZstdCompressor().compress(unpacked.read_bytes()))
    whole = file.read_bytes()
    generator = random.Random(7)
    originals = {cdr for _, cdr in written}
    for attempt in range(60):
        damaged = bytearray(whole)
        if attempt % 3 == 0:
            del damaged[generator.randrange(len(damaged)) :]
        else:
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        file.write_bytes(damaged)
        messages, damage = read(bag)
        assert len(messages) + damage.count == COUNT, damage.describe()
        assert damage.is_exact
        if has_checksums:
            assert all(cdr in originals for _, cdr in messages)


def test_a_bag_whose_compression_is_unknown_is_refused(tmp_path: Path):
    bag = write_compressed(tmp_path / "bag", CompressionMode.FILE, StoragePlugin.MCAP, raw_messages(1))
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("zstd", "lzma"))
    with pytest.raises(InvalidInput, match="compressed as 'lzma'"):
        Bag(bag)


def test_unpacked_files_are_removed(tmp_path: Path, monkeypatch):
    bag = write_compressed(tmp_path / "bag", CompressionMode.FILE, StoragePlugin.MCAP, raw_messages(3))
    (tmp_path / "unpacked").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "unpacked"))
    with Bag(bag) as opened:
        assert opened.index([TOPIC])[0]
        assert list((tmp_path / "unpacked").iterdir())
    assert not list((tmp_path / "unpacked").iterdir())


def test_a_cut_off_recording_gives_its_whole_messages_and_says_that_more_may_be_missing(tmp_path: Path):
    written = raw_messages(COUNT)
    path = write_mcap(tmp_path / "a.mcap", written)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(written[7][1]) + 100])
    messages, damage = read(path)
    assert [cdr for _, cdr in messages] == [cdr for _, cdr in written[:7]]
    assert not damage.is_exact
    assert "ends in the middle" in damage.describe()

    write_metadata(tmp_path, [path], COUNT)  # this knows how many there were
    assert (read(tmp_path)[1].lost, read(tmp_path)[1].is_exact) == ({TOPIC: COUNT - 7}, True)


@pytest.mark.parametrize(("write", "suffix"), [(write_mcap, ".mcap"), (write_humble_db3, ".db3")])
def test_random_damage_never_raises_and_losses_are_counted(tmp_path: Path, write, suffix: str):
    written = raw_messages(COUNT, width=16, height=12)
    path = write(tmp_path / f"a{suffix}", written, **({"chunk_bytes": 1500} if suffix == ".mcap" else {}))
    write_metadata(tmp_path, [path], COUNT)
    whole = path.read_bytes()
    originals = {cdr for _, cdr in written}
    generator = random.Random(5)
    for _ in range(DAMAGED_BAGS):
        damaged = bytearray(whole)
        if generator.random() < 0.3:
            del damaged[generator.randrange(len(damaged)) :]
        else:
            for _ in range(generator.randint(1, 4)):
                damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        messages, damage = read(tmp_path)
        assert len(messages) + damage.count == COUNT
        assert damage.is_exact
        if suffix == ".mcap":  # SQLite has no checksums: what it delivers may be wrong
            assert all(cdr in originals for _, cdr in messages)


def test_without_metadata_a_single_flipped_bit_is_still_counted_right(tmp_path: Path):
    written = raw_messages(COUNT, width=16, height=12)
    path = write_mcap(tmp_path / "a.mcap", written, chunk_bytes=1500)
    whole = path.read_bytes()
    generator = random.Random(6)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        messages, damage = read(path)
        assert len(messages) + damage.count == COUNT, damage.describe()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "no such bag"),
        (lambda path: path.mkdir(), "no bag in this directory"),
        (lambda path: path.write_text("hello"), "not a bag"),
    ],
)
def test_a_path_without_a_bag_is_an_error_that_says_so(tmp_path: Path, make, says: str):
    make(tmp_path / "thing")
    with pytest.raises(InvalidInput, match=says):
        Bag(tmp_path / "thing")


@pytest.mark.parametrize("name", ["a.mcap", "a.db3"])
@pytest.mark.parametrize("content", [b"", b"\x89MCAP0\r\n", b"SQLite format 3\0", b"garbage" * 100])
def test_a_file_with_nothing_in_it_has_no_topics(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    with Bag(tmp_path / name) as bag:
        assert bag.topics == {}


def test_a_selection_takes_every_nth_frame_of_each_topic_between_two_times(tmp_path: Path):
    write_mcap(tmp_path / "a" / "0.mcap", raw_messages(COUNT))
    write_mcap(tmp_path / "a" / "1.mcap", raw_messages(COUNT), topic="/rear/image_raw")
    with Bag(tmp_path / "a") as bag:
        entries, _ = bag.index([TOPIC, "/rear/image_raw"])
    chosen = select(entries, Selection(start_s=0.2, duration_s=0.5, every=2))
    assert [(e.topic, (e.stamp_ns - START_NS) // STEP_NS) for e in chosen] == [
        (topic, step) for step in (2, 4, 6) for topic in (TOPIC, "/rear/image_raw")
    ]
