"""`activeo3 play`: the bytes of a bag on real topics, in the rhythm of the recording, paused and looped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bag_fixtures import START_NS, STEP_NS, TOPIC, raw_messages, write_mcap

from activeo3_ros.bags.messages import IMAGE_TYPE
from activeo3_ros.bags.pacing import Pacer
from activeo3_ros.node.transports import PROFILES, TRANSPORTS, own_domain

COUNT = 5


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_bag_runs_at_its_rate_and_stands_still_while_paused():
    clock = Clock()
    pacer = Pacer(rate=2.0, now_s=clock)
    pacer.start_at(10**9)
    assert pacer.wait_s(3 * 10**9) == pytest.approx(1.0)
    clock.now += 0.5
    assert pacer.bag_time_ns() == 2 * 10**9
    pacer.pause(True)
    clock.now += 60
    assert pacer.wait_s(3 * 10**9) == float("inf")
    pacer.pause(False)
    assert pacer.bag_time_ns() == 2 * 10**9
    assert pacer.wait_s(3 * 10**9) == pytest.approx(0.5)


@pytest.fixture(scope="module")
def domain() -> Iterator[int]:
    """A ROS domain of our own, so that tests side by side do not hear one another."""
    rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
    number = own_domain()
    rclpy.init(domain_id=number)
    yield number
    rclpy.shutdown()


class Player:
    """The command in a process of its own, and a listener here."""

    def __init__(self, bag: Path, domain: int, *options: str, qos: Any = 100) -> None:
        import rclpy
        from rosgraph_msgs.msg import Clock as ClockMessage
        from sensor_msgs.msg import Image

        self.rclpy = rclpy
        self.node = rclpy.create_node("listener")
        self.heard: list[bytes] = []
        self.times: list[int] = []
        self.node.create_subscription(Image, TOPIC, self.heard.append, qos, raw=True)
        self.node.create_subscription(
            ClockMessage, "/clock", lambda m: self.times.append(m.clock.sec * 10**9 + m.clock.nanosec), 100
        )
        command = [sys.executable, "-m", "activeo3_ros.cli", "play", str(bag), "--wait", "30", *options]
        environment = {name: value for name, value in os.environ.items() if name not in (TRANSPORTS, *PROFILES)}
        environment["ROS_DOMAIN_ID"] = str(domain)
        self.log = bag.with_suffix(".log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log)

    def until(self, is_so: Callable[[], bool], timeout_s: float = 30.0) -> bool:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and not is_so():
            self.rclpy.spin_once(self.node, timeout_sec=0.05)
        return is_so()

    def pause(self, wanted: bool) -> None:
        from std_srvs.srv import SetBool

        client = self.node.create_client(SetBool, "/activeo3_player/pause")
        assert client.wait_for_service(20)
        answer = client.call_async(SetBool.Request(data=wanted))
        self.rclpy.spin_until_future_complete(self.node, answer, timeout_sec=20)
        assert answer.result().success

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.node.destroy_node()


@pytest.fixture
def play(tmp_path: Path, domain: int) -> Iterator[Callable[..., Player]]:
    players: list[Player] = []

    def start(*options: str, bag: Path | None = None, qos: Any = 100) -> Player:
        bag = bag or write_mcap(tmp_path / "a.mcap", raw_messages(COUNT))
        players.append(Player(bag, domain, *options, qos=qos))
        return players[-1]

    yield start
    for player in players:
        player.stop()


def test_a_bag_is_published_byte_for_byte_with_its_time(play: Callable[..., Player]):
    player = play("--clock", "100", "--rate", "0.5")
    assert player.until(lambda: len(player.heard) == COUNT)
    assert player.until(lambda: player.process.poll() is not None)
    assert player.process.returncode == 0
    assert player.heard == [cdr for _, cdr in raw_messages(COUNT)]
    assert player.times == sorted(player.times)
    assert START_NS <= player.times[0] <= player.times[-1] <= START_NS + (COUNT + 2) * STEP_NS


def test_a_paused_bag_waits_until_it_is_told_to_go_on(play: Callable[..., Player]):
    player = play("--paused")
    player.pause(True)  # it is there, and stays paused
    player.until(lambda: bool(player.heard), timeout_s=0.5)
    assert player.heard == []
    player.pause(False)
    assert player.until(lambda: len(player.heard) == COUNT)


def test_a_looped_bag_begins_again_until_it_is_interrupted(play: Callable[..., Player]):
    player = play("--loop", "--rate", "5")
    assert player.until(lambda: len(player.heard) > 2 * COUNT)
    assert player.heard[COUNT : 2 * COUNT] == player.heard[:COUNT]
    player.process.terminate()
    assert player.process.wait(60) == 130


FRAMES = 20


def test_frames_of_megabytes_arrive_at_best_effort_and_progress_is_shown_without_a_terminal(play, tmp_path: Path):
    """The default transports lose nearly all of them: the player sets its own, as the demo does."""
    if "fastrtps" not in pytest.importorskip("rclpy").get_rmw_implementation_identifier():
        pytest.skip("these are Fast DDS's transports")
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    bag = write_mcap(tmp_path / "large.mcap", raw_messages(FRAMES, width=1920, height=1080))
    player = play(bag=bag, qos=QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT))
    assert player.until(lambda: player.process.poll() is not None)
    player.until(lambda: len(player.heard) == FRAMES, timeout_s=2)
    assert len(player.heard) > 0.7 * FRAMES
    lines = player.log.read_text().splitlines()
    assert f"play: {FRAMES // 2} of {FRAMES}" in lines
    assert lines[-1] == f"{FRAMES} messages published, 0 could not be read"


def test_topics_that_ros_2_cannot_carry_are_left_out_by_name(play, tmp_path: Path):
    bag = tmp_path / "bag"
    bag.mkdir()
    write_mcap(bag / "0.mcap", raw_messages(COUNT))
    for number, (topic, kind, encoding) in enumerate(
        [
            ("/no/schema", "", "cdr"),
            ("/front-left/image", IMAGE_TYPE, "cdr"),
            ("/1st//image raw", IMAGE_TYPE, "cdr"),
            ("~/private", IMAGE_TYPE, "cdr"),
            ("/of/protobuf", "foxglove.CompressedImage", "protobuf"),
            ("/not/installed", "no_such_package/msg/Thing", "cdr"),
            ("/no/type", "sensor_msgs/msg/", "cdr"),
        ],
        start=1,
    ):
        write_mcap(bag / f"{number}.mcap", raw_messages(1), topic=topic, kind=kind, encoding=encoding)
    player = play(bag=bag)
    assert player.until(lambda: player.process.poll() is not None)
    assert player.process.returncode == 0
    assert player.heard == [cdr for _, cdr in raw_messages(COUNT)]
    log = player.log.read_text()
    for said in (
        "/no/schema is left out: the bag does not say its type",
        "/front-left/image is left out: ROS 2 does not allow its name: topic name must not contain characters other",
        "/1st//image raw is left out: ROS 2 does not allow its name",
        "~/private is left out: ROS 2 does not allow its name",
        "/of/protobuf is left out: its messages are foxglove.CompressedImage in protobuf, ROS 2 needs cdr",
        "/not/installed is left out: no_such_package/msg/Thing is not installed",
        "/no/type is left out: sensor_msgs/msg/ is not installed",
    ):
        assert said in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("topic", "kind", "says"),
    [
        ("/camera/image_raw", "", "/camera/image_raw: the bag does not say its type"),
        ("/clock", "rosgraph_msgs/msg/Clock", "/clock: --clock publishes it"),  # two clocks would contradict each other
    ],
)
def test_a_bag_of_which_nothing_can_be_published_is_one_line(play, tmp_path: Path, topic: str, kind: str, says: str):
    player = play("--clock", bag=write_mcap(tmp_path / "a.mcap", raw_messages(1), topic=topic, kind=kind))
    assert player.process.wait(60) == 2
    (line,) = player.log.read_text().splitlines()
    assert f"none of its topics can be published: {says}" in line


def test_the_recorder_overwrites_nothing(tmp_path: Path):
    (tmp_path / "a.mcap").write_bytes(b"earlier")
    command = [sys.executable, "-m", "activeo3_ros.node.recorder", "/words=std_msgs/msg/String", "--out"]
    finished = subprocess.run([*command, str(tmp_path / "a.mcap")], capture_output=True, text=True)
    assert finished.returncode == 2
    assert "a.mcap is there already; give another --out" in finished.stderr
    assert (tmp_path / "a.mcap").read_bytes() == b"earlier"
