"""MCAP files as the format allows them: every message is read, none is said to be lost, and the type is known."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import lz4.frame
import mcap.writer
import pytest
from bag_fixtures import TOPIC, raw_messages, write_humble_db3, write_mcap, write_metadata
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType, IndexType, Writer

from activeo3_ros.bags.messages import IMAGE_TYPE
from activeo3_ros.bags.reading import Bag
from activeo3_ros.codecs.image_files import natural_order
from activeo3_ros.codecs.result_cdr import typestore

COUNT = 12
SUMMARIES: dict[str, dict[str, Any]] = {
    "whole": {},
    "no statistics": {"use_statistics": False},
    "no chunk index": {"index_types": IndexType.MESSAGE},
    "no message index": {"index_types": IndexType.CHUNK},
    "no index at all": {"index_types": IndexType.NONE},
    "no schemas": {"repeat_schemas": False},
    "no channels": {"repeat_channels": False},
    "neither": {"repeat_schemas": False, "repeat_channels": False},
    "statistics alone": {"repeat_schemas": False, "repeat_channels": False, "index_types": IndexType.NONE},
    "no summary": {
        "repeat_schemas": False, "repeat_channels": False, "index_types": IndexType.NONE, "use_statistics": False,
        "use_summary_offsets": False,
    },
    "no checksums": {"enable_crcs": False},
    "a checksum of all data": {"enable_data_crcs": True},
}  # fmt: skip


def write_mixed(path: Path, written: list[tuple[int, bytes]], loose: set[int], **options: Any) -> Path:
    """A chunked file of which some messages lie outside of any chunk. loose: their numbers."""
    with path.open("wb") as file:
        writer = Writer(file, **{"chunk_size": 20_000, **options})
        writer.start(profile="ros2", library="test")
        definition, _ = typestore().generate_msgdef(IMAGE_TYPE, ros_version=2)
        channel = writer.register_channel(
            TOPIC, "cdr", writer.register_schema(IMAGE_TYPE, "ros2msg", definition.encode())
        )
        for number, (time_ns, cdr) in enumerate(written):
            if number in loose:
                writer._Writer__finalize_chunk()
                builder, writer._Writer__chunk_builder = writer._Writer__chunk_builder, None
                writer.add_message(channel, time_ns, cdr, time_ns)
                writer._Writer__chunk_builder = builder
            else:
                writer.add_message(channel, time_ns, cdr, time_ns)
        writer.finish()
    return path


def check_all_there(path: Path, written: list[tuple[int, bytes]]) -> None:
    with Bag(path) as bag:
        assert bag.topics[TOPIC].type == IMAGE_TYPE
        entries, damage = bag.index([TOPIC])
        assert [bag.read(entry) for entry in entries] == [cdr for _, cdr in written]
    assert not damage, damage.describe()
    assert damage.is_exact


@pytest.mark.parametrize("summary", SUMMARIES)
@pytest.mark.parametrize("compression", list(CompressionType))
def test_a_summary_may_leave_anything_out(tmp_path: Path, summary: str, compression: CompressionType):
    written = raw_messages(COUNT)
    check_all_there(write_mcap(tmp_path / "a.mcap", written, compression, **SUMMARIES[summary]), written)


@pytest.mark.parametrize("summary", SUMMARIES)
@pytest.mark.parametrize("loose", [{0}, {5, 6}, {COUNT - 1}, {0, 3, 11}])
def test_messages_may_lie_outside_of_the_chunks(tmp_path: Path, summary: str, loose: set[int]):
    written = raw_messages(COUNT)
    path = write_mixed(tmp_path / "a.mcap", written, loose, compression=CompressionType.ZSTD, **SUMMARIES[summary])
    check_all_there(path, written)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_summary_with_any_messages_outside_of_the_chunks(tmp_path: Path, data: st.DataObject):
    written = raw_messages(COUNT, width=32, height=24)
    options = data.draw(st.fixed_dictionaries({
        "compression": st.sampled_from(CompressionType),
        "use_statistics": st.booleans(), "repeat_schemas": st.booleans(), "repeat_channels": st.booleans(),
        "enable_crcs": st.booleans(), "use_summary_offsets": st.booleans(),
        "index_types": st.sampled_from([IndexType.ALL, IndexType.NONE, IndexType.CHUNK, IndexType.MESSAGE]),
    }))  # fmt: skip
    loose = data.draw(st.sets(st.integers(0, COUNT - 1), max_size=COUNT - 1))  # the writer puts the channel in a chunk
    check_all_there(write_mixed(tmp_path / "a.mcap", written, loose, **options), written)


def test_a_damaged_chunk_costs_no_message_outside_of_it(tmp_path: Path):
    written = raw_messages(COUNT)
    path = write_mixed(tmp_path / "a.mcap", written, {0, 11}, compression=CompressionType.NONE, use_statistics=False)
    content = bytearray(path.read_bytes())
    content[content.index(written[5][1]) + 500] ^= 1
    path.write_bytes(content)
    with Bag(path) as bag:
        entries, damage = bag.index([TOPIC])
        assert {written[0][1], written[11][1]} <= {bag.read(entry) for entry in entries}
    assert len(entries) + damage.count == COUNT


@pytest.mark.timeout(120)
@pytest.mark.parametrize("has_checksums", [True, False])
def test_random_damage_never_raises_hangs_or_doubles_a_message(tmp_path: Path, has_checksums: bool):
    """Without checksums a damaged index is believed as far as it can be read."""
    written = raw_messages(COUNT, width=16, height=12)
    path = write_mixed(tmp_path / "a.mcap", written, {0, 3, 11}, chunk_size=1500, enable_crcs=has_checksums)
    whole = path.read_bytes()
    generator = random.Random(8)
    for attempt in range(600):
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            start = len(damaged) * 2 // 3 if attempt % 2 else 0  # the summary is in the last third
            damaged[generator.randrange(start, len(damaged))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        with Bag(path) as bag:
            if TOPIC in bag.topics:
                entries, _ = bag.index([TOPIC])
                assert len({entry.place for entry in entries}) == len(entries) <= COUNT


def test_statistics_that_do_not_count_the_channels_are_not_believed(tmp_path: Path, monkeypatch):
    written = raw_messages(COUNT)
    write = mcap.writer.Statistics.write

    def without_channels(self: Any, stream: Any) -> None:
        self.channel_message_counts = {}
        write(self, stream)

    monkeypatch.setattr(mcap.writer.Statistics, "write", without_channels)
    check_all_there(write_mcap(tmp_path / "a.mcap", written), written)


def test_a_chunk_may_be_of_several_lz4_frames(tmp_path: Path, monkeypatch):
    compress = lz4.frame.compress
    monkeypatch.setattr(
        mcap.writer.lz4.frame, "compress", lambda records: compress(records[:1000]) + compress(records[1000:])
    )
    written = raw_messages(COUNT)
    check_all_there(write_mcap(tmp_path / "a.mcap", written, CompressionType.LZ4), written)


@pytest.mark.parametrize("name", ["rosbag2_2026_11_28-10_00_00_{}.mcap", "{}_rosbag2_2026_11_28-10_00_00.mcap"])
def test_files_of_a_split_bag_are_in_the_order_of_metadata_or_else_of_their_numbers(tmp_path: Path, name: str):
    """Up to Kilted the number comes last, since Lyrical first; it has no leading zeros."""
    written = raw_messages(COUNT)
    files = [write_mcap(tmp_path / name.format(number), [written[number]]) for number in range(COUNT)]
    with Bag(tmp_path) as bag:
        assert bag.files == files
    swapped = files[::-1]
    write_metadata(tmp_path, swapped, COUNT)
    with Bag(tmp_path) as bag:
        assert bag.files == swapped


def test_a_file_that_metadata_do_not_name_is_told(tmp_path: Path):
    written = raw_messages(COUNT)
    files = [write_mcap(tmp_path / f"bag_{number}.mcap", written[4 * number :][:4]) for number in range(3)]
    write_metadata(tmp_path, files[:2], 8)
    with Bag(tmp_path) as bag:
        entries, damage = bag.index([TOPIC])
    assert len(entries) == 8
    assert "bag_2.mcap is left out, metadata.yaml does not name it" in damage.describe()


@given(st.lists(st.text(alphabet="0123456789ab²٣_", min_size=1, max_size=6), max_size=6))
@settings(deadline=None)
def test_any_names_can_be_ordered(names: list[str]):
    ordered = sorted((Path(name) for name in names), key=natural_order)
    assert all(natural_order(one) <= natural_order(other) for one, other in itertools.pairwise(ordered))


@pytest.mark.parametrize("summary", ["whole", "no channels", "no summary"])
def test_a_topic_whose_name_is_not_utf8_is_read_as_a_db3_file_has_it(tmp_path: Path, summary: str):
    written = raw_messages(4)
    path = write_mcap(tmp_path / "a.mcap", written, topic="/camXa/image_raw", enable_crcs=False, **SUMMARIES[summary])
    path.write_bytes(path.read_bytes().replace(b"/camXa/", b"/cam\xe9a/"))
    other = write_humble_db3(tmp_path / "a.db3", written, topic="/camXa/image_raw")
    other.write_bytes(other.read_bytes().replace(b"/camXa/", b"/cam\xe9a/"))
    name = "/cam\ufffda/image_raw"
    for bag_path in (path, other):
        with Bag(bag_path) as bag:
            assert list(bag.topics) == [name]
            assert bag.topics[name].type == IMAGE_TYPE
            entries, damage = bag.index([name])
            assert [bag.read(entry) for entry in entries] == [cdr for _, cdr in written]
            assert not damage, damage.describe()
