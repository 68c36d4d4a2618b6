"""Video topics of bags: the frames of an undisturbed stream at the stamps of their messages, or the reason."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bag_fixtures import write_humble_db3, write_mcap
from packet_fixtures import FRAME_ID, GROUP, START_NS, STEP_NS, STREAMS, shown, stream
from rosbags.rosbag2 import StoragePlugin, Writer

from activeo3_ros.bags.frames import BagFrames, read_frames
from activeo3_ros.bags.messages import camera_of, serialize_video, video_packet
from activeo3_ros.bags.offline import choose_topics
from activeo3_ros.bags.reading import Bag, DamagedMessage
from activeo3_ros.bags.writing import BagWriter
from activeo3_ros.codecs.result_cdr import typestore
from activeo3_ros.codecs.video_packets import DEFINITIONS, PACKET_TYPE, VIDEO_TYPE, VIDEO_TYPES, VideoPacket
from activeo3_ros.core import InvalidInput
from activeo3_ros.evaluation.datasets import coco_of_bag
from activeo3_ros.evaluation.sequence_truth import mot_of_bag

INTERFACES = Path(__file__).resolve().parents[1] / "interfaces"
TOPIC = "/front/image_raw/ffmpeg"


def messages(packets: tuple[VideoPacket, ...], kind: str) -> list[tuple[int, bytes]]:
    """Times of recording, one after the other as sent, and bytes."""
    return [(START_NS + n * STEP_NS, serialize_video(each, kind, (128, 96))) for n, each in enumerate(packets)]


def write(path: Path, packets: tuple[VideoPacket, ...], kind: str) -> Path:
    """By the suffix: our MCAP, an SQLite bag with definitions, or one as Humble writes it without."""
    recorded = messages(packets, kind)
    if path.suffix == ".mcap":
        with BagWriter(path) as writer:
            writer.add_topic(TOPIC, kind)
            for time_ns, cdr in recorded:
                writer.write(TOPIC, time_ns, cdr)
    elif path.suffix == ".db3":
        write_humble_db3(path, recorded, TOPIC, kind)
    else:
        with Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as bag:
            connection = bag.add_connection(TOPIC, kind, typestore=typestore())
            for time_ns, cdr in recorded:
                bag.write(connection, time_ns, cdr)
    return path


def read(path: Path, order: list[int] | None = None) -> dict[int, np.ndarray | str]:
    """Picture or error by stamp, asked for in an order of the messages by stamp."""
    with Bag(path) as bag:
        entries, _ = bag.index([TOPIC])
        frames, found = BagFrames(bag), {}
        for entry in entries if order is None else [entries[number] for number in order]:
            try:
                frame = frames.frame(entry)
            except (InvalidInput, DamagedMessage) as error:
                found[entry.stamp_ns] = str(error)
                continue
            assert (frame.stamp_ns, frame.frame_id, frame.camera) == (entry.stamp_ns, FRAME_ID, "front")
            found[entry.stamp_ns] = frame.image
        return found


def check_equal(found: dict[int, np.ndarray | str], expected: dict[int, np.ndarray]) -> None:
    assert {stamp for stamp, image in found.items() if isinstance(image, str)} == set()
    assert all(np.array_equal(image, expected[stamp]) for stamp, image in found.items())


@pytest.mark.parametrize("name", ["a.mcap", "a.db3", "bag"])
@pytest.mark.parametrize("kind", VIDEO_TYPES, ids=["foxglove", "ffmpeg"])
@pytest.mark.parametrize("codec", STREAMS)
def test_every_message_gives_the_frame_of_its_stamp(tmp_path, codec, kind, name):
    packets = stream(codec, numbered=kind == PACKET_TYPE)
    path = write(tmp_path / name, packets, kind)
    found = read(path)
    assert len(found) == len(packets)
    check_equal(found, shown(packets))
    with Bag(path) as bag:
        assert choose_topics(bag, ()) == (TOPIC,)
        if name != "a.db3":
            assert "uint8[] data" in bag.topics[TOPIC].definition


def test_frames_may_be_asked_for_in_any_order_and_left_out(tmp_path):
    packets = stream("h265 with B-frames", 100)
    path, expected = write(tmp_path / "a.mcap", packets, VIDEO_TYPE), shown(packets)
    for order in (list(range(0, 100, 7)), [95, 96, 3, 90], random.Random(0).sample(range(100), 12)):
        found = read(path, order)
        assert len(found) == len(order)
        check_equal(found, expected)


def test_a_frame_far_ahead_is_found_from_a_key_frame_before_it(tmp_path):
    packets = stream("h264", 200)
    path = write(tmp_path / "a.mcap", packets, VIDEO_TYPE)
    reads: list[object] = []
    with Bag(path) as bag:
        entries, _ = bag.index([TOPIC])
        read_one = bag.read
        bag.read = lambda entry: (reads.append(entry), read_one(entry))[1]
        image = BagFrames(bag).frame(entries[180]).image
    assert np.array_equal(image, shown(packets)[entries[180].stamp_ns])
    assert len(reads) < 6 * GROUP


def test_messages_that_are_lost_or_damaged_cost_the_frames_that_need_them(tmp_path):
    packets = stream("h264")
    kept = tuple(packet for number, packet in enumerate(packets) if number != 10)
    path, expected = write(tmp_path / "a.mcap", kept, VIDEO_TYPE), shown(packets)
    found = read(path)
    assert [stamp for stamp, image in found.items() if isinstance(image, str) and "pictures are missing" in image] == [
        packets[number].stamp_ns for number in range(11, 16)
    ]
    good = {stamp: image for stamp, image in found.items() if not isinstance(image, str)}
    check_equal(good, expected)
    assert len(good) == len(kept) - 5


def test_a_message_that_is_not_whole_costs_the_frames_that_need_it(tmp_path):
    packets = stream("h264")
    recorded = messages(packets, VIDEO_TYPE)
    recorded[10] = recorded[10][0], recorded[10][1][:60]
    found = read(write_mcap(tmp_path / "a.mcap", recorded, topic=TOPIC, kind=VIDEO_TYPE))
    errors = {(stamp - START_NS) // STEP_NS: image for stamp, image in found.items() if isinstance(image, str)}
    assert sorted(errors) == list(range(10, 16))
    assert "is not a whole foxglove_msgs/msg/CompressedVideo" in errors[10]
    assert errors[11] == "waits for a key frame: packets were lost"


def test_a_codec_that_is_not_known_is_told_for_each_frame(tmp_path):
    packets = tuple(replace(packet, codec="vp9") for packet in stream("h264", 3))
    assert set(read(write(tmp_path / "a.mcap", packets, VIDEO_TYPE)).values()) == {
        "unsupported video codec 'vp9'; supported are h264, h265 (hevc) and av1"
    }


def test_frames_are_read_in_the_order_of_recording_too(tmp_path):
    packets = stream("h264 with B-frames")
    expected = shown(packets)
    frames = list(read_frames(write(tmp_path / "a.mcap", packets, PACKET_TYPE), TOPIC))
    assert [frame.stamp_ns for frame in frames] == [packet.stamp_ns for packet in packets]
    assert all(np.array_equal(frame.image, expected[frame.stamp_ns]) for frame in frames)


@pytest.mark.parametrize("kind", VIDEO_TYPES)
def test_a_packet_is_read_as_it_was_written_and_a_part_of_it_is_none(kind):
    packet = VideoPacket(START_NS + 7, "optical", "h264;yuv420p", bytes(range(50)), 9 if kind == PACKET_TYPE else None)
    cdr = serialize_video(packet, kind)
    assert video_packet(cdr, kind) == packet
    for length in range(len(cdr)):
        with pytest.raises(InvalidInput, match="is not a whole"):
            video_packet(cdr[:length], kind)


@pytest.mark.parametrize("kind", VIDEO_TYPES)
def test_the_definitions_are_those_of_the_packages(kind):
    package, _, name = kind.split("/")
    fields = (INTERFACES / package / "msg" / f"{name}.msg").read_text(encoding="utf-8").splitlines()
    assert [" ".join(field.split()) for field in fields if field] == DEFINITIONS[kind].splitlines()


@pytest.mark.parametrize("transport", ["compressed", "ffmpeg", "foxglove"])
def test_a_camera_is_named_without_its_transport(transport):
    assert camera_of(f"/front/left/image_raw/{transport}") == "front/left"
    assert camera_of(f"/{transport}") == transport


def test_the_truth_of_a_bag_is_judged_on_the_frames_of_its_video(tmp_path):
    packets = stream("h264 with B-frames")
    wanted = [20, 3, 11]
    images = [{"id": n, "stamp": START_NS + n * STEP_NS, "width": 128, "height": 96} for n in wanted]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 9, 9]} for n in wanted]
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"images": images, "categories": [{"id": 1, "name": "car"}], "annotations": boxes}))
    with Bag(write(tmp_path / "a.mcap", packets, PACKET_TYPE)) as bag:
        dataset, missing = coco_of_bag(truth, bag, [TOPIC], None)
        frames = {sample.stamp_ns: sample.load().image for sample in dataset.samples}
    assert (len(frames), missing) == (3, 0)
    check_equal(frames, shown(packets))


def test_the_frames_of_a_sequence_are_those_of_its_video_by_their_numbers(tmp_path):
    packets = stream("h265 with B-frames")
    (tmp_path / "gt.txt").write_text("1,1,5,5,10,10,1,3,1\n20,1,5,5,10,10,1,3,1\n")
    with Bag(write(tmp_path / "bag", packets, VIDEO_TYPE)) as bag:
        (sequence,) = mot_of_bag(tmp_path / "gt.txt", bag, TOPIC).sequences
        frames = list(sequence.read())
    check_equal({frame.stamp_ns: frame.image for frame in frames}, shown(packets))
    assert [frame.stamp_ns for frame in frames] == [START_NS + n * STEP_NS for n in range(len(packets))]
