"""The planner's subscriber as a process beside the node: what it says of good, failed and old results."""

from __future__ import annotations

import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from activeo3_ros.msg import PerceptionResult
from builtin_interfaces.msg import Time
from loading import EXAMPLES
from node_fixtures.client import Client, wait_for
from node_fixtures.fakes import EMPTY, RAISES, picture
from node_fixtures.processes import NodeProcess, end


def stamp(age_s: float = 0.0) -> Time:
    """The time of an image that was taken so long ago."""
    nanoseconds = time.time_ns() - int(age_s * 1e9)
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


@pytest.fixture(scope="module")
def planner(tmp_path_factory):
    """A client of the node, and the lines that the planner prints of its results."""
    log = tmp_path_factory.mktemp("planner") / "log.txt"
    command = [sys.executable, str(EXAMPLES / "planner_subscriber.py"), "--ros-args", "-p", "max_age_s:=30.0"]
    with NodeProcess(autostart=True, memory=False) as node, Client() as client, log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd="/")
        try:
            client.connect()
            wait_for(lambda: client.node.count_subscribers("/activeo3/camera/result") == 2, what="the planner")

            def lines() -> list[str]:
                return log.read_text().splitlines()

            def react(grey: int, age_s: float = 0.0) -> str:
                before = len(lines())
                client.publish(picture(grey), stamp=stamp(age_s))
                return wait_for(lambda: lines()[before:], what=f"a line of the planner; {node.text}")[0]

            while not lines():  # the node's half of the match with the planner, which nothing here shows
                client.result_of(picture(EMPTY), stamp=stamp())
                time.sleep(1.0)
            yield react
        finally:
            end(process)


def test_it_names_the_objects_in_its_corridor(planner):
    assert set(planner(100).removeprefix("ahead: ").split(", ")) == {"thing"}


def test_an_empty_result_that_is_complete_is_a_clear_corridor(planner):
    assert planner(EMPTY) == "ahead: clear"


def test_a_failed_result_is_blindness_and_not_a_clear_corridor(planner):
    assert planner(RAISES).startswith("blind: the task model FakeTask raised RuntimeError: the engine broke")


def test_an_old_result_is_not_acted_on(planner):
    assert planner(100, age_s=60).startswith("too old: 6")


def test_it_says_when_small_objects_may_be_missing(capsys):
    import rclpy
    from loading import load_script

    rclpy.init()
    try:
        node = load_script(EXAMPLES / "planner_subscriber.py").Planner()
        result = PerceptionResult(status=PerceptionResult.STATUS_COARSE)
        result.header.stamp = stamp()
        node.on_result(result)
        node.destroy_node()
    finally:
        rclpy.shutdown()
    assert capsys.readouterr().out == "ahead: clear (small objects may be missing)\n"


def test_every_detected_object_is_cut_out_of_its_image(tmp_path):
    with NodeProcess(autostart=True, memory=False), Client() as client:
        command = [sys.executable, str(EXAMPLES / "crop_subscriber.py"), "--ros-args", "-p", f"directory:={tmp_path}"]
        process = subprocess.Popen(command, cwd="/")
        try:
            client.connect()
            wait_for(lambda: client.node.count_subscribers("/camera/image_raw") >= 2, 60, what="the example")
            sent = picture(100)
            crops = wait_for(
                lambda: client.result_of(sent, stamp=stamp()).detections and sorted(tmp_path.glob("*-0-thing.png")), 30
            )
        finally:
            end(process)
        box = client.results[-1].detections[0].box
    crop = cv2.imread(str(crops[0]))
    assert crop.shape[:2] == (int(box.y + box.height) - int(box.y), int(box.x + box.width) - int(box.x))
    assert np.array_equal(crop, sent[int(box.y) : int(box.y + box.height), int(box.x) : int(box.x + box.width)])


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "mono8", "mono16", "bayer_rggb8"])
def test_cv_bridge_and_this_package_agree_on_an_image(encoding, monkeypatch):
    """Without cv_bridge both are this package; on a robot the first is the distribution's."""
    from image_fixtures import message, stored_as
    from loading import load_script

    example = load_script(EXAMPLES / "crop_subscriber.py")
    sent = message(stored_as(encoding), encoding)
    with_bridge = example.to_bgr(sent)
    monkeypatch.setattr(example, "CvBridge", None)
    assert np.array_equal(with_bridge, example.to_bgr(sent))
