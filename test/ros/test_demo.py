"""The demo, end to end: player, node and recorder, each a process of its own; real models, real pictures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from waiting import wait_for

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.packages import NEEDED_BY, require
from activeo3_ros.bags.reading import read_messages
from activeo3_ros.core import Query, Result, Status
from activeo3_ros.demo import ros_run
from activeo3_ros.demo.camera_path import camera_window, film, render_window
from activeo3_ros.demo.processes import ProcessDied, Processes
from activeo3_ros.demo.ros_run import RESULT_TOPIC, FrameCounts, count_frames
from activeo3_ros.node.transports import own_domain

FRAMES = 6


@pytest.fixture(scope="module")
def pictures_are_there():
    try:
        for asset in NEEDED_BY["demo"]:
            require(asset)
    except AssetError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def demo(pictures_are_there, tmp_path_factory):
    """The finished demo and its directory."""
    out = tmp_path_factory.mktemp("demo") / "out"
    finished = subprocess.run(
        ["activeo3", "demo", "--out", str(out), "--frames", str(FRAMES)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished, out


@pytest.fixture(scope="module")
def summary(demo):
    return json.loads((demo[1] / "summary.json").read_text())


def test_every_frame_is_accounted_for_and_most_are_processed(summary):
    frames = summary["frames"]
    assert frames["sent"] == FRAMES == frames["processed"] + frames["dropped"] + frames["failed"]
    assert frames["processed"] >= FRAMES - 1
    assert frames["failed"] == 0


def test_the_loop_finds_more_than_a_whole_view_and_spends_less_than_a_grid(summary):
    methods = summary["methods"]
    assert methods["embedded"]["objects"] > methods["full_frame"]["objects"]
    assert methods["full_frame"]["views_per_frame"] < methods["embedded"]["views_per_frame"]
    assert methods["embedded"]["views_per_frame"] < methods["grid"]["views_per_frame"] / 2
    assert all(method["failed"] == 0 for method in methods.values())


def test_the_node_publishes_what_the_core_finds(summary):
    assert summary["node"]["frames_as_the_core_has_them"] == summary["frames"]["processed"]


def test_the_recording_has_typed_results_that_any_tool_reads(demo, summary):
    messages = [message for _, message in read_messages(demo[1] / "results.mcap", RESULT_TOPIC)]
    assert len(messages) == summary["frames"]["processed"]
    assert {(m.camera, m.image_width, m.image_height, m.status) for m in messages} == {("camera", 1920, 1080, 0)}
    assert {m.header.frame_id for m in messages} == {"camera_optical_frame"}


def test_there_is_a_picture_of_every_processed_frame_and_a_comparison(demo, summary):
    _, out = demo
    pictures = sorted((out / "frames").iterdir())
    assert len(pictures) == summary["frames"]["processed"]
    assert cv2.imread(str(pictures[0])).shape == (1080, 1920, 3)
    assert cv2.imread(str(out / "comparison.jpg")).shape[1] == 1920
    assert cv2.VideoCapture(str(out / "film.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == len(pictures)


def test_it_ends_with_a_table_and_says_where_to_look(demo):
    finished, out = demo
    lines = finished.stdout.splitlines()
    assert lines[0].startswith(f"{FRAMES} frames sent: ")
    assert any(line.startswith("the active loop") for line in lines)
    assert lines[-1].startswith(f"look at {out / 'comparison.jpg'}")
    assert f"play, perceive, record: {FRAMES} of {FRAMES}" in finished.stderr


def test_an_interrupted_demo_leaves_no_process_behind(pictures_are_there, tmp_path):
    out = tmp_path / "out"
    with subprocess.Popen(
        ["activeo3", "demo", "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not children_of(process.pid) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        children = children_of(process.pid)
        assert children
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "activeo3: interrupted"
    assert "Traceback" not in errors
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def children_of(parent: int) -> list[int]:
    """Process ids of the children, by /proc."""
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def test_a_process_that_dies_is_named_with_its_last_lines(tmp_path):
    with Processes(tmp_path / "logs", os.environ) as processes:
        processes.start("talker", [sys.executable, "-c", "import time; time.sleep(60)"])
        dying = processes.start("node", [sys.executable, "-c", "raise SystemExit('no models here')"])
        while dying.exit_code is None:
            time.sleep(0.02)
        with pytest.raises(ProcessDied, match=r"the process node ended with code 1(.|\n)*no models here"):
            processes.check()
        dying_may_end_well = processes.start("player", [sys.executable, "-c", ""])
        while dying_may_end_well.exit_code is None:
            time.sleep(0.02)
        with pytest.raises(ProcessDied, match="node"):
            processes.check(may_end=dying_may_end_well)


def test_the_recorder_says_when_it_listens_and_keeps_all_that_comes_then(tmp_path):
    """Waiting for this line before the first frame is sent, the demo loses no result to a late start.

    The talker waits for its listener by itself: half a second can be too short for it on a very busy machine.
    """
    pytest.importorskip("rclpy")
    talks = (
        "import sys, time, rclpy\nfrom std_msgs.msg import String\nrclpy.init()\nnode = rclpy.create_node('talker')\n"
        "publisher = node.create_publisher(String, 'words', 10)\n"
        "while not publisher.get_subscription_count(): time.sleep(0.01)\n"
        "for line in sys.stdin: publisher.publish(String(data=line.strip()))"
    )
    bag = tmp_path / "words.mcap"
    command = [sys.executable, "-m", "activeo3_ros.node.recorder", "/words=std_msgs/msg/String", "--out", str(bag)]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(own_domain())}
    with Processes(tmp_path / "logs", environment) as processes:
        recorder = processes.start("recorder", command)
        time.sleep(1.0)
        assert recorder.lines == [], "nobody publishes yet"
        with subprocess.Popen(
            [sys.executable, "-c", talks], stdin=subprocess.PIPE, text=True, env=environment
        ) as talker:
            wait_for(lambda: recorder.lines == ["listening"], 30, "the recorder")
            assert talker.stdin is not None
            for word in ("one", "two"):
                print(word, file=talker.stdin, flush=True)
            wait_for(lambda: recorder.lines == ["listening", "/words", "/words"], 30, "the words")
    assert [message.data for _, message in read_messages(bag, "/words")] == ["one", "two"]


def test_frames_without_a_result_are_dropped_and_failed_ones_are_not_processed():
    complete = Result(1920, 1080, Query())
    failed = Result(1920, 1080, Query(), Status.FAILED, "no models")
    assert count_frames([1, 2, 3, 4], {1: complete, 2: failed, 4: complete}) == FrameCounts(4, 2, 1, 1)


@pytest.mark.parametrize(("width", "height"), [(1068, 580), (1024, 682), (300, 900)])
def test_the_camera_stays_in_the_picture_and_moves_smoothly(width, height):
    windows = [camera_window(width, height, step / 50, 16 / 9) for step in range(51)]
    for window in windows:
        assert window.x >= -1e-9
        assert window.y >= -1e-9
        assert window.right <= width + 1e-9
        assert window.bottom <= height + 1e-9
        assert window.width / window.height == pytest.approx(16 / 9)
    steps = [abs(b.x - a.x) for a, b in pairwise(windows)]
    assert max(steps) < 0.05 * width


def test_a_window_is_rendered_at_its_place():
    ramp = np.repeat(np.tile(np.arange(0, 200, 2, np.uint8), (50, 1))[..., None], 3, axis=2)
    window = camera_window(100, 50, 0.3, 2.0)
    shown = render_window(ramp, window, (400, 200))
    expected = 2 * (window.x + window.width / 2) - 1
    assert shown[100, 199:201].mean() == pytest.approx(expected, abs=1.5)


def test_a_film_has_as_many_frames_as_were_asked_for():
    assert [frame.shape for frame in film(np.zeros((60, 100, 3), np.uint8), 3, (64, 36))] == [(36, 64, 3)] * 3


def test_processes_that_exchange_nothing_are_started_again(monkeypatch, tmp_path, capsys):
    """With a fake run, because real processes seldom miss each other: the last attempt does not give up."""
    attempts = []

    def fake_run(*_, give_up):
        attempts.append(give_up)
        return not give_up

    monkeypatch.setattr(ros_run, "_run_once", fake_run)
    ros_run.run(tmp_path / "bag", tmp_path / "results", tmp_path, "embedded", (), lambda played: None)
    assert attempts == [True, True, False]
    assert capsys.readouterr().err.count("starting the three processes again") == 2
