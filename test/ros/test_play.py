"""`activeo3 play`: the bytes of a bag on real topics, in the rhythm of the recording, paused and looped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bag_fixtures import START_NS, STEP_NS, TOPIC, raw_messages, write_mcap

from activeo3_ros.bags.pacing import Pacer
from activeo3_ros.node.transports import own_domain

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

    def __init__(self, bag: Path, domain: int, *options: str) -> None:
        import rclpy
        from rosgraph_msgs.msg import Clock as ClockMessage
        from sensor_msgs.msg import Image

        self.rclpy = rclpy
        self.node = rclpy.create_node("listener")
        self.heard: list[bytes] = []
        self.times: list[int] = []
        self.node.create_subscription(Image, TOPIC, self.heard.append, 100, raw=True)
        self.node.create_subscription(
            ClockMessage, "/clock", lambda m: self.times.append(m.clock.sec * 10**9 + m.clock.nanosec), 100
        )
        command = [sys.executable, "-m", "activeo3_ros.cli", "play", str(bag), "--wait", "30", *options]
        self.process = subprocess.Popen(command, env={**os.environ, "ROS_DOMAIN_ID": str(domain)})

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
        self.process.wait(20)
        self.node.destroy_node()


@pytest.fixture
def play(tmp_path: Path, domain: int) -> Iterator[Callable[..., Player]]:
    players: list[Player] = []

    def start(*options: str) -> Player:
        players.append(Player(write_mcap(tmp_path / "a.mcap", raw_messages(COUNT)), domain, *options))
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
    assert player.process.wait(20) == 130
