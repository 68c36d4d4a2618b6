"""`activeo3 replay`: the same results every time, for every frame, in files that other tools read."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from bag_fixtures import (
    START_NS,
    STEP_NS,
    compressed_message,
    picture,
    raw_cdr,
    raw_messages,
    write_humble_db3,
    write_mcap,
)
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from packet_fixtures import stream
from rosbags.highlevel import AnyReader

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.packages import CENTERNET, MOTORWAY_PICTURE, require
from activeo3_ros.bags.messages import COMPRESSED_TYPE, IMAGE_TYPE, serialize_image, serialize_video
from activeo3_ros.bags.writing import BagWriter
from activeo3_ros.cli import main as cli
from activeo3_ros.codecs.image_files import read_image
from activeo3_ros.codecs.result_cdr import RESULT_TYPE
from activeo3_ros.codecs.video_packets import PACKET_TYPE, VIDEO_TYPE

pytestmark = pytest.mark.usefixtures("models")


@pytest.fixture(scope="module")
def models() -> None:
    try:
        require(CENTERNET)
    except AssetError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def motorway():
    try:
        return cv2.resize(read_image(require(MOTORWAY_PICTURE)), (640, 348), interpolation=cv2.INTER_AREA)
    except AssetError as error:
        pytest.skip(str(error))


def replay(bag: Path, out: Path, *options: str) -> int:
    return cli.main(["replay", str(bag), "--out", str(out), "--preset", "full_frame", *options])


def hash_of(printed: str) -> str:
    return printed.rpartition("sha256 without times: ")[2].strip()


def results(path: Path) -> list:
    """Read by mcap-ros2-support, with nothing but the definitions in the file."""
    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        return [(c.topic, m) for _, c, _, m in reader.iter_decoded_messages() if c.topic.startswith("/activeo3/")]


def stamp(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def test_two_replays_give_the_same_results_apart_from_times(tmp_path: Path, motorway, capsys):
    bag = write_mcap(tmp_path / "a.mcap", [(START_NS, serialize_image(motorway, START_NS, "optical"))] * 2)
    options = ("--preset", "embedded", "--classes", "car,truck", "--masks")
    assert replay(bag, tmp_path / "1.mcap", *options) == 0
    first = hash_of(capsys.readouterr().out)
    assert replay(bag, tmp_path / "2.mcap", *options) == 0
    assert hash_of(capsys.readouterr().out) == first
    assert len(first) == 64
    (_, message), _ = results(tmp_path / "1.mcap")
    assert len(message.detections) > 5
    assert message.regions
    assert message.query == "car, truck"


def test_with_a_memory_objects_keep_their_ids_and_two_replays_are_the_same(tmp_path: Path, motorway, capsys):
    stamps = [START_NS + number * STEP_NS for number in range(3)]
    bag = write_mcap(tmp_path / "a.mcap", [(stamp, serialize_image(motorway, stamp, "optical")) for stamp in stamps])
    options = ("--preset", "embedded", "--classes", "car,truck", "--memory")
    assert replay(bag, tmp_path / "1.mcap", *options) == 0
    first = hash_of(capsys.readouterr().out)
    assert replay(bag, tmp_path / "2.mcap", *options) == 0
    assert hash_of(capsys.readouterr().out) == first
    frames = [message for topic, message in results(tmp_path / "1.mcap") if topic.endswith("/result")]
    ids = [{found.track_id for found in message.detections} for message in frames]
    assert all(track_id.startswith("camera:") for track_id in set.union(*ids))
    assert len(ids[0] & ids[2]) > 5


def test_what_memory_cannot_hold_is_counted_and_told(tmp_path, motorway, capsys, monkeypatch):
    monkeypatch.setattr("activeo3_ros.core.scene.MAX_HYPOTHESES", 2)
    bag = write_mcap(tmp_path / "road.mcap", [(START_NS, serialize_image(motorway, START_NS, "optical"))])
    assert replay(bag, tmp_path / "all.mcap", "--preset", "embedded", "--classes", "car,truck", "--memory") == 0
    told = re.search(r"^memory: (\d+) of the least likely objects were forgotten", capsys.readouterr().out, re.M)
    assert told is not None and int(told[1]) > 2


def test_every_frame_has_a_result_with_its_own_header_whatever_the_order_of_recording(tmp_path: Path):
    shuffled = [raw_messages(6)[i] for i in (3, 0, 5, 1, 4, 2)]
    bag = write_mcap(tmp_path / "a.mcap", [(START_NS + i, cdr) for i, (_, cdr) in enumerate(shuffled)])
    assert replay(bag, tmp_path / "r.mcap") == 0
    with (tmp_path / "r.mcap").open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        found = [m for _, _, _, m in reader.iter_decoded_messages(log_time_order=False)]
    assert [stamp(m) for m in found] == [START_NS + i * STEP_NS for i in range(6)]
    assert {m.header.frame_id for m in found} == {"optical"}
    assert {(m.camera, m.image_width, m.image_height, m.status) for m in found} == {("camera", 64, 48, 0)}


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_compressed_pictures_of_humble_are_replayed(tmp_path: Path, suffix: str):
    topic = "/front/image_raw/compressed"
    messages = [(START_NS + i, compressed_message(picture(i), START_NS + i * STEP_NS, suffix)) for i in range(3)]
    bag = write_humble_db3(tmp_path / "a.db3", messages, topic, COMPRESSED_TYPE)
    assert replay(bag, tmp_path / "r.mcap") == 0
    assert [(name, m.camera, m.status) for name, m in results(tmp_path / "r.mcap")] == [
        ("/activeo3/front/result", "front", 0)
    ] * 3


@pytest.mark.parametrize(("suffix", "kind"), [(".mcap", PACKET_TYPE), (".db3", VIDEO_TYPE)])
def test_a_video_is_replayed_frame_by_frame_with_the_stamp_of_each(tmp_path: Path, suffix: str, kind: str):
    topic, packets = "/front/image_raw/ffmpeg", stream("h264 with B-frames", numbered=kind == PACKET_TYPE)
    messages = [(START_NS + n * STEP_NS, serialize_video(packet, kind)) for n, packet in enumerate(packets)]
    write = write_mcap if suffix == ".mcap" else write_humble_db3
    bag = write(tmp_path / f"a{suffix}", messages, topic=topic, kind=kind)
    assert replay(bag, tmp_path / "r.mcap", "--with-images") == 0
    found = [m for name, m in results(tmp_path / "r.mcap") if name == "/activeo3/front/result"]
    assert [stamp(m) for m in found] == [packet.stamp_ns for packet in packets], "each at the time of its packet"
    assert {(m.camera, m.image_width, m.image_height, m.status, m.header.frame_id) for m in found} == {
        ("front", 128, 96, 0, "optical")
    }
    assert replay(tmp_path / "r.mcap", tmp_path / "again.mcap") == 0, "the copied packets are a video again"
    again = [(stamp(m), m.status) for _, m in results(tmp_path / "again.mcap")]
    assert again == [(stamp(m), 0) for m in found]


def test_a_frame_of_a_video_that_lacks_another_has_a_result_that_failed(tmp_path: Path, capsys):
    packets = stream("h264")
    messages = [(packet.stamp_ns, serialize_video(packet, VIDEO_TYPE)) for packet in packets[:10] + packets[11:]]
    bag = write_mcap(tmp_path / "a.mcap", messages, topic="/front/image_raw/foxglove", kind=VIDEO_TYPE)
    assert replay(bag, tmp_path / "r.mcap") == 0
    failed = [m for _, m in results(tmp_path / "r.mcap") if m.status != 0]
    assert [stamp(m) for m in failed] == [packet.stamp_ns for packet in packets[11:16]]
    says = "waits for a key frame: pictures are missing: picture 3 came, not 2"
    assert {(m.status_message, len(m.detections)) for m in failed} == {(says, 0)}
    assert f"5 frames failed: {says}" in capsys.readouterr().err
    assert replay(bag, tmp_path / "r.mcap", "--with-images", "--every", "2", "--force") == 2
    assert "--with-images does not go with --every for /front/image_raw/foxglove" in capsys.readouterr().err


def test_without_pyav_a_video_topic_says_what_to_install(tmp_path: Path, capsys, monkeypatch):
    messages = [(packet.stamp_ns, serialize_video(packet, VIDEO_TYPE)) for packet in stream("h264")]
    bag = write_mcap(tmp_path / "a.mcap", messages, topic="/front/image_raw/foxglove", kind=VIDEO_TYPE)
    monkeypatch.setitem(sys.modules, "av", None)
    assert replay(bag, tmp_path / "r.mcap") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("activeo3: av is needed to decode video topics") and "pip install 'av>=17'" in line


def test_several_cameras_go_to_topics_of_their_own_beside_their_pictures(tmp_path: Path):
    write_mcap(tmp_path / "bag" / "0.mcap", raw_messages(3), topic="/front/image_raw")
    write_mcap(tmp_path / "bag" / "1.mcap", raw_messages(2), topic="/rear/image_raw")
    both = ("--topic", "/front/image_raw", "--topic", "/rear/image_raw")
    assert replay(tmp_path / "bag", tmp_path / "r.mcap", *both, "--with-images") == 0
    with AnyReader([tmp_path / "r.mcap"]) as reader:  # rosbags, which finds our types in the file
        counts = {
            topic.name if hasattr(topic, "name") else name: topic.msgcount for name, topic in reader.topics.items()
        }
        connections = [c for c in reader.connections if c.msgtype == IMAGE_TYPE]
        copied = {cdr for _, _, cdr in reader.messages(connections)}
        decoded = [reader.deserialize(cdr, c.msgtype) for c, _, cdr in reader.messages() if "result" in c.topic]
    assert counts == {
        "/activeo3/front/result": 3, "/activeo3/rear/result": 2, "/front/image_raw": 3, "/rear/image_raw": 2,
    }  # fmt: skip
    assert copied == {cdr for _, cdr in raw_messages(3)}
    assert len(decoded) == 5


def test_the_results_are_indexed_and_describe_themselves_as_foxglove_needs_it(tmp_path: Path):
    """Without message definitions that are whole, an index and right checksums, Foxglove shows nothing of a file."""
    bag = write_mcap(tmp_path / "a.mcap", raw_messages(3))
    assert replay(bag, tmp_path / "r.mcap", "--with-images") == 0
    with (tmp_path / "r.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary, header = reader.get_summary(), reader.get_header()
        in_order = [(channel.topic, message.log_time) for _, channel, message in reader.iter_messages()]
    assert header.profile == "ros2"
    assert {channel.message_encoding for channel in summary.channels.values()} == {"cdr"}
    assert all(c.metadata["topic_type_hash"].startswith("RIHS01_") for c in summary.channels.values())
    assert [time for _, time in in_order] == sorted(time for _, time in in_order)
    assert summary.statistics.message_count == len(in_order) == 6
    assert sum(len(chunk.message_index_offsets) for chunk in summary.chunk_indexes) == 6
    for schema in summary.schemas.values():
        assert schema.encoding == "ros2msg"
        first, *others = re.split(r"^=+\nMSG: (\S+)\n", schema.data.decode(), flags=re.MULTILINE)
        defined = dict(zip(others[::2], others[1::2], strict=True))
        for text in (first, *defined.values()):
            used = re.findall(r"^(\w+/\w+)(?:\[.*\])? \w+", text, flags=re.MULTILINE)
            assert set(used) <= set(defined)


def test_a_picture_that_cannot_be_decoded_has_a_failed_result_not_an_empty_one(tmp_path: Path, capsys):
    good = compressed_message(picture(0), START_NS)
    bad = compressed_message(picture(1), START_NS + STEP_NS).replace(b"\xff\xd9", b"\0\0")
    bag = write_mcap(tmp_path / "a.mcap", [(START_NS, good), (START_NS, bad)], kind=COMPRESSED_TYPE)
    assert replay(bag, tmp_path / "r.mcap") == 0
    (_, first), (_, second) = results(tmp_path / "r.mcap")
    assert (first.status, second.status) == (0, 2)
    assert "cut off" in second.status_message
    assert "2 processed, 1 failed" in capsys.readouterr().out


def test_a_damaged_bag_is_replayed_as_far_as_it_goes(tmp_path: Path, capsys):
    written = raw_messages(6)
    bag = write_mcap(tmp_path / "a.mcap", written, chunk_bytes=9_000)  # a message a chunk
    content = bytearray(bag.read_bytes())
    content[content.index(written[2][1]) + 99] ^= 255
    bag.write_bytes(content)
    assert replay(bag, tmp_path / "r.mcap") == 0
    captured = capsys.readouterr()
    assert "1 selected frames are lost: the chunk at byte" in captured.err
    assert "6 selected, 5 processed, 0 failed, 1 unreadable" in captured.out


def test_a_replay_that_was_killed_resumes_to_the_same_hash(tmp_path: Path, capsys):
    bag = write_mcap(tmp_path / "a.mcap", raw_messages(40, width=640, height=480), chunk_bytes=1)
    assert replay(bag, tmp_path / "whole.mcap") == 0
    whole = hash_of(capsys.readouterr().out)

    out = tmp_path / "killed.mcap"
    child = start(bag, out)
    wait_for_results(child, out)
    child.kill()
    child.wait()
    assert replay(bag, out, "--resume") == 0
    printed = capsys.readouterr().out
    assert hash_of(printed) == whole
    assert 0 < int(printed.partition("processed, ")[2].split()[0]) < 40
    assert len(results(out)) == 40

    assert replay(bag, out, "--resume", "--every", "2") == 2
    assert "made from other settings (frames)" in capsys.readouterr().err


def test_ctrl_c_leaves_a_bag_that_can_be_read(tmp_path: Path):
    bag = write_mcap(tmp_path / "a.mcap", raw_messages(40, width=640, height=480))
    child = start(bag, tmp_path / "r.mcap")
    wait_for_results(child, tmp_path / "r.mcap")
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 130
    assert 0 < len(results(tmp_path / "r.mcap")) < 40


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--topic", "/nothing"], "has no topic '/nothing'; it has /camera/image_raw"),
        (["--start", "100"], "its 3 frames span 0.200 s"),
        (["--every", "0"], "must be 1 to"),
        (["--out", "results.bag"], "ends with .mcap"),
        (["--classes", "unicorn"], "unicorn"),
        (["--memory", "--resume"], "--resume does not go with --memory"),
        (["--depth", "/depth"], "--depth is for the positions of tracks, which need --memory"),
        (["--memory", "--depth", "/nothing"], "has no topic '/nothing'; it has /camera/image_raw"),
        (["--depth-tolerance", "2"], "must be 0 to 1, got 2"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(tmp_path: Path, options: list[str], says: str, capsys):
    bag = write_mcap(tmp_path / "a.mcap", raw_messages(3))
    try:
        code = replay(bag, tmp_path / "r.mcap", *options)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_topics_that_are_not_pictures_are_named_as_such(tmp_path: Path, capsys):
    bag = write_mcap(tmp_path / "a.mcap", raw_messages(1), kind="std_msgs/msg/Header", topic="/chatter")
    assert replay(bag, tmp_path / "r.mcap") == 2
    assert "has no topic with pictures; it has /chatter" in capsys.readouterr().err


def test_garbage_is_no_bag_with_pictures(tmp_path: Path, capsys):
    (tmp_path / "a.mcap").write_bytes(b"garbage" * 50)
    assert replay(tmp_path / "a.mcap", tmp_path / "r.mcap") == 2
    assert "cannot be read as a bag" in capsys.readouterr().err


def start(bag: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "activeo3_ros.cli", "replay", str(bag), "--out", str(out)]
    return subprocess.Popen(
        [*command, "--preset", "full_frame"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ.copy(),
    )


def wait_for_results(child: subprocess.Popen, out: Path) -> None:
    """Until the file holds a few results."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and child.poll() is None:
        if out.exists() and out.stat().st_size > 12_000:
            return
        time.sleep(0.01)
    pytest.fail("the replay wrote nothing")


def test_strings_that_are_not_utf_8_cost_no_frame(tmp_path: Path, capsys):
    cdr = [raw_cdr(b"optical\0"), raw_cdr(b"opt\xffic\0"), raw_cdr(b"optical\0", b"bgr\xff8\0")]
    bag = write_mcap(tmp_path / "a.mcap", [(START_NS + i, each) for i, each in enumerate(cdr)])
    assert replay(bag, tmp_path / "r.mcap") == 0
    assert "3 selected, 3 processed, 1 failed, 0 unreadable" in capsys.readouterr().out
    found = [message for _, message in results(tmp_path / "r.mcap")]
    assert [message.header.frame_id for message in found] == ["optical", "opt\ufffdic", "optical"]
    assert "unsupported encoding" in found[2].status_message


def sizes(path: Path) -> list[int]:
    return [message.image_width for _, message in results(path)]


def test_frames_of_one_stamp_keep_their_own_results_when_resumed(tmp_path: Path, capsys):
    """Their pictures are of different widths, so that each result can be told from the other."""
    widths = (64, 32, 48, 16)
    messages = [(START_NS + i, serialize_image(picture(i, width), START_NS, "")) for i, width in enumerate(widths)]
    bag = write_mcap(tmp_path / "a.mcap", messages)
    assert replay(bag, tmp_path / "whole.mcap") == 0
    whole = hash_of(capsys.readouterr().out)
    for kept in ({0}, {1}, {2, 3}, {0, 3}):  # of the earlier run: the others were lost
        out = tmp_path / "r.mcap"
        keep_results(tmp_path / "whole.mcap", out, kept)
        assert replay(bag, out, "--resume") == 0
        printed = capsys.readouterr().out
        assert f"{len(kept)} of them from the earlier run" in printed
        assert sizes(out) == list(widths)
        assert hash_of(printed) == whole


def test_frames_of_one_stamp_and_one_time_of_recording_are_perceived_anew(tmp_path: Path, capsys):
    widths = (64, 32, 48)
    bag = write_mcap(tmp_path / "a.mcap", [(START_NS, serialize_image(picture(1, w), START_NS, "")) for w in widths])
    assert replay(bag, tmp_path / "whole.mcap") == 0
    keep_results(tmp_path / "whole.mcap", tmp_path / "r.mcap", {1})
    capsys.readouterr()
    assert replay(bag, tmp_path / "r.mcap", "--resume") == 0
    assert "from the earlier run" not in capsys.readouterr().out
    assert sizes(tmp_path / "r.mcap") == list(widths)


def keep_results(whole: Path, out: Path, kept: set[int]) -> None:
    """Copy some results of a run, with its settings."""
    with whole.open("rb") as file:
        reader = make_reader(file)
        (metadata,) = reader.iter_metadata()
        messages = [message for _, _, message in reader.iter_messages()]
    with BagWriter(out) as writer:
        writer.add_metadata(metadata.name, metadata.metadata)
        writer.add_topic("/activeo3/camera/result", RESULT_TYPE)
        for number in kept:
            writer.write("/activeo3/camera/result", messages[number].log_time, messages[number].data)


@pytest.mark.parametrize("early", [0, START_NS - 3600 * 10**9])
def test_a_few_early_stamps_do_not_move_the_seconds_that_are_selected(tmp_path: Path, early: int, capsys):
    """A driver that starts before its clock is set stamps its first frames with zero."""
    times = [START_NS + i * 10**9 for i in range(10)]
    stamps = [early, early + 1, *times[2:]]
    messages = [(t, serialize_image(picture(1, 32), s, "")) for t, s in zip(times, stamps, strict=True)]
    bag = write_mcap(tmp_path / "a.mcap", messages)
    assert replay(bag, tmp_path / "r.mcap", "--start", "3", "--duration", "2") == 0
    assert [stamp(message) for _, message in results(tmp_path / "r.mcap")] == times[3:5]
    assert "its recording took 9.000 s; --start and --duration count" in capsys.readouterr().err


def test_frames_recorded_before_the_clock_was_set_do_not_move_the_seconds(tmp_path: Path, capsys):
    """With simulated time, stamps and recording both begin at zero."""
    times = [0, 10**8, *(START_NS + i * 10**9 for i in range(8))]
    bag = write_mcap(tmp_path / "a.mcap", [(t, serialize_image(picture(1, 32), t, "")) for t in times])
    assert replay(bag, tmp_path / "r.mcap", "--start", "3", "--duration", "2") == 0
    assert [stamp(message) for _, message in results(tmp_path / "r.mcap")] == times[5:7]
    assert "2 frames were recorded before the clock was set" in capsys.readouterr().err
    assert replay(bag, tmp_path / "all.mcap") == 0
    assert len(results(tmp_path / "all.mcap")) == 10


def test_a_long_gap_in_the_recording_is_told(tmp_path: Path, capsys):
    times = [START_NS, START_NS + 3600 * 10**9, START_NS + 3601 * 10**9]
    bag = write_mcap(tmp_path / "a.mcap", [(t, serialize_image(picture(1, 32), t, "")) for t in times])
    assert replay(bag, tmp_path / "r.mcap", "--duration", "2") == 0
    assert len(results(tmp_path / "r.mcap")) == 1
    assert "nothing was recorded for 3600.000 s after the first 1 frames" in capsys.readouterr().err
    assert replay(bag, tmp_path / "r2.mcap") == 0
    assert "nothing was recorded" not in capsys.readouterr().err


def test_two_topics_of_one_camera_are_refused(tmp_path: Path, capsys):
    topics = ["/cam/image_raw/compressed", "/cam/image_rect/compressed"]
    for number, topic in enumerate(topics):
        messages = [(START_NS, compressed_message(picture(number), START_NS))]
        write_mcap(tmp_path / "bag" / f"{number}.mcap", messages, topic=topic, kind=COMPRESSED_TYPE)
    assert replay(tmp_path / "bag", tmp_path / "r.mcap", "--topic", topics[0], "--topic", topics[1]) == 2
    assert "are both of camera 'cam'" in capsys.readouterr().err
    assert replay(tmp_path / "bag", tmp_path / "r.mcap", "--topic", topics[1]) == 0


def test_an_earlier_result_is_not_overwritten_without_force(tmp_path: Path, capsys):
    bag = write_mcap(tmp_path / "a.mcap", raw_messages(2))
    out = tmp_path / "r.mcap"
    out.write_bytes(b"of another program")
    assert replay(bag, out) == 2
    assert "r.mcap would be overwritten: go on from it with --resume, give another --out, or" in capsys.readouterr().err
    assert out.read_bytes() == b"of another program"
    assert replay(bag, out, "--force") == 0
    assert len(results(out)) == 2
