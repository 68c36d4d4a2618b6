"""Video topics between processes: a bag is played to the node, which perceives whole pictures with their own stamps."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from node_fixtures.client import Client
from node_fixtures.inside import node_inside
from node_fixtures.interfaces import environment_with
from node_fixtures.processes import NodeProcess
from packet_fixtures import FRAME_ID, START_NS, STEP_NS, stream
from waiting import wait_for

from activeo3_ros.bags.messages import serialize_video, video_packet
from activeo3_ros.bags.reading import Bag
from activeo3_ros.bags.writing import BagWriter
from activeo3_ros.codecs.video_packets import PACKET_TYPE, VIDEO_TYPE, VideoPacket
from activeo3_ros.core import InvalidInput
from activeo3_ros.node import camera_input

KINDS = {"ffmpeg": PACKET_TYPE, "foxglove": VIDEO_TYPE}
HASHES = {
    "ffmpeg": "RIHS01_648d84e0d33cbf76daf54b094d8f06154b8a24800a19c14371754df799fbaf79",
    "foxglove": "RIHS01_32039eafc3770e589c86c4dabff9c392ce9955ebffd43f5f60763011d43d8d1d",
}
"""Of the types: two sides with other fields do not have the same."""
ENDED = ("processed", "replaced", "stale", "failed", "rejected", "undecoded")


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return environment_with("foxglove_msgs", "ffmpeg_image_transport_msgs")


def write_bag(path: Path, topics: Mapping[str, Sequence[VideoPacket]], transport: str) -> Path:
    """Packets of cameras, recorded in the order of their sending."""
    messages = [
        (START_NS + number * STEP_NS, f"/{camera}/image_raw/{transport}", packet)
        for camera, packets in topics.items()
        for number, packet in enumerate(packets)
    ]
    with BagWriter(path) as writer:
        for camera in topics:
            writer.add_topic(f"/{camera}/image_raw/{transport}", KINDS[transport])
        for time_ns, topic, packet in sorted(messages, key=lambda message: message[0]):
            writer.write(topic, time_ns, serialize_video(packet, KINDS[transport], (128, 96)))
    return path


@contextmanager
def robot(
    environment: dict[str, str], transport: str, cameras: tuple[str, ...] = ("camera",)
) -> Iterator[tuple[NodeProcess, Client]]:
    parameters = {"autostart": True, "transport": transport, "cameras": list(cameras)}
    with NodeProcess(environment=environment, **parameters) as node, Client(cameras) as client:
        wait_for(client._is_active, 30, "the node to be active")
        for camera in cameras:
            wait_for(lambda camera=camera: client.node.count_publishers(f"/activeo3/{camera}/result"), 30, "results")
        yield node, client


def play(bag: Path, environment: dict[str, str], *options: str) -> None:
    """Publish a bag, with the installed command in a process of its own."""
    command = [sys.executable, "-P", "-m", "activeo3_ros.cli", "play", str(bag), "--wait", "30", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def perceived(client: Client) -> tuple[Any, Any]:
    """Status and result of a goal of the action."""
    handle = client.perceive(camera="camera")
    assert handle.accepted
    answer = client.outcome(handle)
    return answer.status, answer.result.result


def settled(client: Client, camera: str, received: int) -> dict[str, int]:
    """The counts of a camera once so many messages have ended."""
    wait_for(
        lambda: sum(client.counts(camera)[name] for name in ENDED) >= received, 20, f"{received} messages of {camera}"
    )
    return client.counts(camera)


def stamps(client: Client, camera: str = "camera") -> list[int]:
    headers = [result.header for result in client.results if result.camera == camera]
    assert {header.frame_id for header in headers} <= {FRAME_ID}
    return [header.stamp.sec * 10**9 + header.stamp.nanosec for header in headers]


@pytest.mark.timeout(400)  # the first time, the interfaces are built
@pytest.mark.parametrize(("transport", "codec"), [("ffmpeg", "h264 with B-frames"), ("foxglove", "h265")])
def test_each_picture_of_a_played_video_has_the_stamp_of_its_packet(environment, tmp_path, transport, codec):
    packets = stream(codec, numbered=transport == "ffmpeg")
    bag = write_bag(tmp_path / "a.mcap", {"camera": packets}, transport)
    with robot(environment, transport) as (node, client):
        (info,) = client.node.get_subscriptions_info_by_topic(f"/camera/image_raw/{transport}")
        play(bag, environment)
        assert str(info.topic_type_hash) == HASHES[transport]
        held_back = 3 if "B-frames" in codec else 0  # until the next packet
        counts = settled(client, "camera", len(packets) - held_back)
        assert counts["received"] == len(packets)
        assert counts["failed"] == counts["rejected"] == counts["undecoded"] == 0
        wait_for(lambda: len(stamps(client)) == counts["processed"])
        assert stamps(client) == sorted(stamps(client))
        assert set(stamps(client)) <= {packet.stamp_ns for packet in packets}
        assert {(result.image_width, result.image_height, result.status) for result in client.results} == {(128, 96, 0)}

        _, result = perceived(client)
        assert (result.header.frame_id, result.image_width, result.status) == (FRAME_ID, 128, 0)

        assert client.change_state("deactivate")
        counts = settled(client, "camera", len(packets))
        assert counts["stale"] <= held_back, "what the decoder held back is stale"
        assert client.change_state("activate")
        before = len(client.results)
        play(write_bag(tmp_path / "b.mcap", {"camera": packets[3:]}, transport), environment)
        counts = settled(client, "camera", 2 * len(packets) - 3 - held_back)
        assert counts["undecoded"] >= 3, "a new activation begins at a key frame"
        assert "waits for a key frame: the stream begins" in node.text
        assert all(result.status == 0 for result in client.results[before:])


@pytest.mark.timeout(400)
def test_packets_are_recorded_as_they_were_played_and_with_the_definition(environment, tmp_path):
    packets, topic, out = stream("av1", numbered=True), "/camera/image_raw/ffmpeg", tmp_path / "recorded.mcap"
    bag = write_bag(tmp_path / "a.mcap", {"camera": packets}, "ffmpeg")
    command = [sys.executable, "-P", "-m", "activeo3_ros.node.recorder", "--out", str(out), f"{topic}={PACKET_TYPE}"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as recorder:
        play(bag, environment)  # as soon as there is a subscriber
        recorder.send_signal(signal.SIGINT)
    with Bag(out) as recorded:
        assert "uint64 pts" in recorded.topics[topic].definition
        entries, _ = recorded.index([topic], by_header=False)
        found = [video_packet(recorded.read(entry), PACKET_TYPE) for entry in entries]
    assert found
    assert found == list(packets[-len(found) :])


@pytest.mark.timeout(400)
def test_a_lost_packet_costs_pictures_and_a_camera_with_a_wrong_codec_nothing_of_another(environment, tmp_path):
    packets = stream("h264")
    topics = {"front": packets[:10] + packets[11:], "rear": [replace(packet, codec="mpeg2video") for packet in packets]}
    bag = write_bag(tmp_path / "a.mcap", topics, "foxglove")
    with robot(environment, "foxglove", ("front", "rear")) as (node, client):
        play(bag, environment)
        front, rear = settled(client, "front", 23), settled(client, "rear", 24)
        assert front["undecoded"] == 5
        assert not {packet.stamp_ns for packet in packets[11:16]} & set(stamps(client, "front"))
        assert front["processed"] + front["replaced"] == 18
        assert rear["rejected"] + rear["replaced"] == 24 and rear["rejected"] > 0
        reason = "unsupported video codec 'mpeg2video'; supported are h264, h265 (hevc) and av1"
        failed = [result for result in client.results if result.camera == "rear"]
        assert {(result.status_message, result.header.frame_id) for result in failed} == {(reason, FRAME_ID)}
        told = (
            "front: a video packet was not decoded: waits for a key frame: pictures are missing: picture 3 came, not 2"
        )
        assert node.text.count("was not decoded") == node.text.count(told) == 1


@pytest.mark.parametrize("transport", ["ffmpeg", "foxglove"])
def test_a_missing_package_is_told_in_one_line_with_what_to_install(monkeypatch, transport):
    name = camera_input.SOURCES[transport][1]
    monkeypatch.setitem(camera_input.SOURCES, transport, (None, name))
    package = KINDS[transport].partition("/")[0]
    with (
        pytest.raises(InvalidInput, match=f"transport {transport} needs the package {package}; run: apt install ros-"),
        node_inside("fake", transport=transport),
    ):
        pass


def test_without_pyav_the_node_says_what_to_install(monkeypatch):
    from sensor_msgs.msg import CompressedImage

    monkeypatch.setitem(camera_input.SOURCES, "ffmpeg", (CompressedImage, "image_raw/ffmpeg"))
    monkeypatch.setitem(sys.modules, "av", None)
    with (
        pytest.raises(InvalidInput, match=r"av is needed for transport ffmpeg .* pip install 'av>=17'"),
        node_inside("fake", transport="ffmpeg"),
    ):
        pass
