"""Without `ros2`: `activeo3 node`, `play` and `record` as processes of their own, on a video."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from bag_fixtures import picture
from video_fixtures import number_in, steady_times, write_video
from waiting import wait_for

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.bags.messages import COMPRESSED_TYPE, IMAGE_TYPE, frame_from_cdr
from activeo3_ros.bags.reading import Bag
from activeo3_ros.codecs.result_cdr import RESULT_TYPE, from_cdr
from activeo3_ros.codecs.video import VideoWriter
from activeo3_ros.node.transports import own_domain
from activeo3_ros.presets import load_preset

COUNT = 20
START_S = 30.0
END_S = 2.0
"""Seconds within which the node ends."""


class Commands:
    """Processes of `activeo3` in one ROS domain, and what each says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {**os.environ, "ROS_DOMAIN_ID": str(own_domain()), "PYTHONUNBUFFERED": "1"}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *arguments: object) -> str:
        """Start a command; returns its name."""
        name = f"{len(self._processes)}-{arguments[0]}"
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                ["activeo3", *map(str, arguments)],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return name

    def said(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def wait_until_said(self, name: str, pattern: str) -> None:
        wait_for(lambda: re.search(pattern, self.said(name)), START_S, f"{pattern!r} of {name}")

    def end(self, name: str, number: int | None = None) -> int:
        """The exit code of a command, after a signal if one is given."""
        if number is not None:
            self._processes[name].send_signal(number)
        return self._processes[name].wait(START_S)

    def stop(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        for name, process in self._processes.items():
            try:
                process.wait(START_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            print(f"--- {name}\n{self.said(name)}")


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    running = Commands(tmp_path)
    yield running
    running.stop()


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["activeo3", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def test_a_video_is_played_at_its_rate_and_recorded_whole(commands: Commands, tmp_path: Path):
    topic, kind = "/front/image_raw", IMAGE_TYPE
    clip = write_video(tmp_path / "clip.mp4", steady_times(COUNT))
    recorder = commands.start("record", "--topic", topic, "--topic", "/nobody", "--out", "live.mcap")
    commands.wait_until_said(recorder, "waiting for")
    before = time.time_ns()
    player = commands.start("play", clip, "--topic", topic, "--rate", 2, "--wait", 20)
    assert commands.end(player) == 0
    assert f"{COUNT} messages published, 0 could not be read" in commands.said(player)
    commands.wait_until_said(recorder, f"listening to {topic}, {kind}")
    assert commands.end(recorder, signal.SIGINT) == 0
    assert f"{topic}: {COUNT} messages, 0 lost before receipt" in commands.said(recorder)
    assert "/nobody: nobody published it" in commands.said(recorder)
    with Bag(tmp_path / "live.mcap") as bag:
        entries, damage = bag.index([topic])
        assert not damage
        frames = [frame_from_cdr(bag.read(entry), kind, "front") for entry in entries]
    assert [number_in(frame.image) for frame in frames] == list(range(COUNT))
    assert before < frames[0].stamp_ns < time.time_ns(), "stamped when it is published"
    assert frames[-1].stamp_ns - frames[0].stamp_ns > 0.9e9 * (COUNT - 1) / 20, "10 frames a second, twice as fast"


def test_with_a_clock_the_frames_are_stamped_by_the_video(commands: Commands, tmp_path: Path):
    times, topic = [0.0, 0.1, 0.15, 0.4], "/camera/image_raw/compressed"
    clip = write_video(tmp_path / "clip.mp4", times)
    recorder = commands.start("record", "--topic", topic, "--out", "live.mcap")
    commands.wait_until_said(recorder, "waiting for")
    assert commands.end(commands.start("play", clip, "--topic", topic, "--clock", "--wait", 20)) == 0
    assert commands.end(recorder, signal.SIGTERM) == 0
    with Bag(tmp_path / "live.mcap") as bag:
        assert bag.topics[topic].type == COMPRESSED_TYPE
        entries, _ = bag.index([topic])
    assert [entry.stamp_ns / 1e9 for entry in entries] == pytest.approx(times, abs=1e-4)


def test_the_node_says_what_it_hears_and_ends_with_0_within_two_seconds(commands: Commands, tmp_path: Path):
    try:
        load_preset("full_frame").build()
    except AssetError as error:
        pytest.skip(str(error))
    with VideoWriter(tmp_path / "clip.mp4") as writer:
        for number in range(COUNT):
            writer.write(picture(number), number / 10)
    (tmp_path / "mine.yaml").write_text("sensing: {type: full_frame}\ntask: {type: embedded}\n")
    options = ["--cameras", "front,rear", "--preset", "mine.yaml", "-p", "max_regions:=0", "-p", "log_period:=0.2"]
    node = commands.start("node", *options)
    commands.wait_until_said(node, r"listening to /front/image_raw \(reliable, volatile\); results on \S+front/result")
    commands.wait_until_said(node, "listening to /rear/image_raw ")
    results = commands.start("record", "--topic", "/activeo3/front/result", "--out", "results.mcap")
    commands.wait_until_said(results, "listening to /activeo3/front/result, activeo3_ros/msg/PerceptionResult")
    commands.start("play", "clip.mp4", "--topic", "/front/image_raw", "--loop")
    commands.wait_until_said(node, r"front: [1-9]\d* images came \(.*[1-9]\d* processed.*\); [\d.]+ frames a second")
    commands.wait_until_said(node, "rear: 0 images came; nothing has come on /rear/image_raw yet")
    wait_for(lambda: (tmp_path / "results.mcap").exists(), START_S, "a bag that begins with the first result")
    assert commands.end(results, signal.SIGINT) == 0
    with Bag(tmp_path / "results.mcap") as bag:
        assert bag.topics["/activeo3/front/result"].type == RESULT_TYPE
        entries, _ = bag.index(["/activeo3/front/result"])
        assert entries
        assert {from_cdr(bag.read(entry)).camera for entry in entries} == {"front"}
    asked = time.monotonic()
    assert commands.end(node, signal.SIGINT) == 0
    assert time.monotonic() - asked < END_S


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["node", "--preset", "none.yaml"], "none.yaml does not exist"),
        (["node", "-p", "max_region:=3"], "the node has no such parameter; did you mean 'max_regions'?"),
        (["node", "--cameras", "9a"], "camera '9a' cannot begin a topic's name"),
        (["play", "none.mp4"], "none.mp4: no such file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], says: str):
    finished = run(*arguments)
    assert finished.returncode == 2, finished.stderr
    (line,) = finished.stderr.splitlines()
    assert says in line


def test_nothing_recorded_is_no_success(commands: Commands, tmp_path: Path):
    recorder = commands.start("record", "--topic", "/nobody", "--out", "live.mcap")
    commands.wait_until_said(recorder, "waiting for /nobody; Ctrl-C ends the recording")
    assert commands.end(recorder, signal.SIGINT) == 2
    assert commands.said(recorder).splitlines()[-1] == "activeo3: live.mcap: nothing was recorded"
    assert list(tmp_path.glob("*.mcap*")) == list(tmp_path.glob(".*.mcap*")) == []


def test_a_silent_topic_ends_with_the_duration_and_leaves_the_older_bag(commands: Commands, tmp_path: Path):
    older = tmp_path / "live.mcap"
    older.write_bytes(b"an older recording")
    clip, topic = write_video(tmp_path / "clip.mp4", steady_times(2)), "/silent/image_raw"
    commands.wait_until_said(commands.start("play", clip, "--topic", topic, "--paused"), "paused; press Enter")
    recorder = commands.start("record", "--topic", topic, "--out", older.name, "--duration", 1, "--force")
    assert commands.end(recorder) == 2
    assert commands.said(recorder).splitlines()[-1] == "activeo3: live.mcap: nothing was recorded in 1 s"
    assert older.read_bytes() == b"an older recording" and list(tmp_path.glob(".*.mcap*")) == []
