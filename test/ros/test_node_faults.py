"""Faults on a robot: afterwards the node answers, other cameras get results, and the counts are right."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from array import array

import pytest
from activeo3_ros.msg import DetectionArray, PerceptionResult
from builtin_interfaces.msg import Time
from node_fixtures.client import RELIABLE, Client, image
from node_fixtures.fakes import FINE, GARBAGE, HANGS, NAN_BOX, NO_MEMORY, RAISES, picture
from node_fixtures.processes import NodeProcess
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from waiting import wait_for

FAILED = PerceptionResult.STATUS_FAILED
CAMERAS = ("left", "right")


@pytest.fixture(scope="module")
def node():
    # Reliable and deep, unlike on a robot, so that each message that is sent is also received and can be counted.
    with NodeProcess(
        cameras=CAMERAS,
        autostart=True,
        inference_timeout=1.0,
        diagnostics_period=0.1,
        **{f"qos_overrides./{name}/image_raw.subscription.reliability": "reliable" for name in CAMERAS},
        **{f"qos_overrides./{name}/image_raw.subscription.depth": 1000 for name in CAMERAS},
    ) as node:
        yield node


@pytest.fixture(scope="module")
def client(node):
    with Client(CAMERAS) as client:
        client.connect()
        yield client


@pytest.fixture
def unharmed(node, client):
    """After the test: the node runs and answers, the other camera gets results, and the counts add up."""
    yield
    assert node.running
    assert client.get_state() == "active"
    wait_for(lambda: settled(client)["pending"] == 0)
    client.results.clear()
    assert client.result_of(picture(FINE), "right").status != FAILED
    assert client.result_of(picture(FINE), "left").status != FAILED
    settled(client)


def settled(client, camera: str = "left") -> dict[str, int]:
    """The counts of a camera when nothing is pending any more. They add up."""

    def quiet():
        client.diagnostics.clear()
        counts = client.counts(camera)
        return counts["pending"] == 0 and counts

    counts = wait_for(quiet)
    assert counts["received"] == sum(counts.values()) - counts["received"]
    return counts


def added(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What has been counted in between, without the zeros."""
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


@pytest.mark.parametrize(
    ("grey", "says"),
    [
        (RAISES, "RuntimeError: the engine broke"),
        (GARBAGE, "the task model FakeTask gave "),
        (NO_MEMORY, "MemoryError: no memory for 7 GB"),
        (NAN_BOX, "not finite"),
        (HANGS, "the task model FakeTask did not answer within 1 s"),
    ],
    ids=["raises", "garbage", "no memory", "a box of NaN", "hangs"],
)
def test_a_model_at_fault_fails_its_frame_only(client, unharmed, grey, says):
    lists = client.collect(DetectionArray, "left/detections")
    wait_for(lambda: client.result_of(picture(FINE), "left") and lists, what="the list of a frame that is fine")
    before = settled(client)
    result = client.result_of(picture(grey), "left", Time(sec=5, nanosec=6))
    assert (result.status, result.header.stamp) == (FAILED, Time(sec=5, nanosec=6))
    assert says in result.status_message
    assert not result.detections
    assert added(before, settled(client)) == {"received": 1, "failed": 1}
    # That of the frame before may come late.
    own = [each for each in lists if each.header.stamp == result.header.stamp]
    assert not own, "an empty list must not be mistaken for an empty road"
    wait_for(lambda: says in client.status()[2]["last_error"])


def test_a_storm_of_1000_malformed_messages(client, unharmed):
    before, other = settled(client), settled(client, "right")
    client.results.clear()
    malformed = image(picture())
    malformed.step = 7
    for number in range(1000):
        client.images["left"].publish(malformed)
        if number % 100 == 0:
            client.publish(picture(FINE), "right")
            time.sleep(0.02)
    wait_for(lambda: settled(client)["received"] == before["received"] + 1000, 30)
    counts = added(before, settled(client))
    assert set(counts) <= {"received", "rejected", "replaced"}
    assert counts["received"] == 1000
    rejections = wait_for(lambda: [r for r in client.results if r.camera == "left"])
    wait_for(lambda: len([r for r in client.results if r.camera == "left"]) >= counts["rejected"] * 0.9)
    assert {result.status for result in rejections} == {FAILED}
    assert "step is 7 bytes" in rejections[0].status_message
    assert added(other, settled(client, "right")).get("processed", 0) >= 5


def test_a_camera_that_stops_is_reported_until_it_returns(client, unharmed):
    client.result_of(picture(), "left")
    wait_for(lambda: client.status("left")[0] == 1 and "for 3" in client.status("left")[1], 10)
    assert client.result_of(picture(), "right").status != FAILED
    client.result_of(picture(), "left")
    wait_for(lambda: "nothing has come" not in client.status("left")[1])


def test_stamps_from_a_clock_far_ahead_are_reported_and_do_no_harm(client, unharmed):
    stamp = Time(sec=int(time.time()) + 3600)
    assert client.result_of(picture(), "left", stamp).header.stamp == stamp
    wait_for(lambda: "ahead of this node's clock" in client.status("left")[1])


def test_a_limit_of_age_drops_old_frames_and_says_that_the_clocks_may_disagree(client, unharmed):
    before = settled(client)
    assert client.set_parameters(max_frame_age=1.0)[0].successful
    now = time.time()
    client.publish(picture(), "left", Time(sec=int(now) - 100))
    wait_for(lambda: "older than max_frame_age" in client.status("left")[1])
    assert client.result_of(picture(), "left", Time(sec=int(now), nanosec=999_999_999)).status != FAILED
    assert added(before, settled(client)) == {"received": 2, "processed": 1, "stale": 1}
    assert client.set_parameters(max_frame_age=0.0)[0].successful


def test_parameter_changes_at_20_hz(client, unharmed):
    for number in range(40):
        assert client.set_parameters(max_regions=number % 3)[0].successful
        result = client.result_of(picture(), "left")
        assert len(result.regions) == min(number % 3, 2)
        time.sleep(0.03)
    assert client.set_parameters(max_regions=-1)[0].successful


def test_set_query_at_20_hz_and_every_result_tells_its_revision(client, unharmed):
    for number in range(40):
        answer = client.set_query(f"thing {number}")
        assert answer.success
        result = client.result_of(picture(), "left")
        assert (result.query, result.query_revision) == (f"thing {number}", answer.revision)
        time.sleep(0.03)
    assert client.set_query("").success


def test_a_subscriber_that_never_reads_holds_up_nobody(client, unharmed):
    listen = (
        "import rclpy, time; from activeo3_ros.msg import PerceptionResult;"
        "rclpy.init(); node = rclpy.create_node('deaf');"
        "node.create_subscription(PerceptionResult, '/activeo3/left/result', print, 1);"
        "print('ready', flush=True); time.sleep(1000)"
    )
    deaf = subprocess.Popen([sys.executable, "-c", listen], stdout=subprocess.PIPE, cwd="/")
    try:
        deaf.stdout.readline()
        wait_for(lambda: client.node.count_subscribers("/activeo3/left/result") > 1)
        deaf.send_signal(signal.SIGSTOP)
        for _ in range(60):
            client.result_of(picture(), "left")
    finally:
        deaf.kill()
        deaf.wait()


def test_time_that_jumps_backwards_as_when_a_bag_loops():
    with NodeProcess(autostart=True, use_sim_time=True, max_frame_age=1.0) as node, Client() as client:
        clock = client.node.create_publisher(Clock, "/clock", RELIABLE)
        client.connect()
        wait_for(lambda: clock.get_subscription_count())
        for second in (100, 101, 102, 50, 51, 100, 2**31 - 1, 50):  # 2038, the last second that a stamp can tell
            stamp = Time(sec=second)

            def seen(stamp=stamp):
                clock.publish(Clock(clock=stamp))
                client.publish(picture(), stamp=stamp)
                return [result for result in client.results if result.header.stamp == stamp]

            # A picture may overtake the clock, and is then perceived by the old time.
            wait_for(lambda seen=seen, second=second: [r for r in seen() if abs(r.completed.sec - second) <= 1])
            client.results.clear()
            result = wait_for(seen)[0]
            assert abs(result.completed.sec - second) <= 1
        assert node.running


@pytest.mark.timeout(240)
def test_10000_random_image_messages_over_dds(client, unharmed):
    fuzz_images(client, 10_000, seed=1)


def fuzz_images(client: Client, messages: int, seed: int) -> None:
    """Send random messages; each is counted once, and each result has the status that its message deserves."""
    choose = random.Random(seed)
    before = settled(client)
    fine_stamps = set()
    client.results.clear()
    for number in range(messages):
        message, fine = random_image(choose)
        message.header.stamp = Time(sec=number + 1)
        if fine:
            fine_stamps.add(number + 1)
        client.images["left"].publish(message)
        if number % 200 == 199 or number == messages - 1:  # never more on the way than the queues hold
            wait_for(lambda sent=number + 1: settled(client)["received"] == before["received"] + sent, 20)
    time.sleep(0.5)
    for result in client.results:
        assert (result.status != FAILED) == (result.header.stamp.sec in fine_stamps), result
    counts = added(before, settled(client))
    assert counts["received"] == messages
    assert set(counts) <= {"received", "processed", "replaced", "rejected"}
    assert counts["rejected"] > 0
    assert counts["processed"] > 0


def random_image(choose: random.Random) -> tuple[Image, bool]:
    """A message, and whether its fields agree."""
    width, height = choose.randint(1, 16), choose.randint(1, 16)
    message = image(picture(FINE, height, width), frame_id=choose.choice(["", "optical", "Ω" * 200]))
    message.is_bigendian = choose.randint(0, 255)
    wrong = choose.choice(["", "", "encoding", "step", "height", "width", "data"])
    if wrong == "encoding":
        message.encoding = "".join(choose.choice("bgr8mono16\n\"'") for _ in range(choose.randint(0, 30)))
        message.encoding += "?"
    elif wrong == "data":
        message.data = array("B", os.urandom((len(message.data) + choose.randint(1, 3000)) % 5000))
        if len(message.data) == message.step * message.height:
            message.data.append(0)
    elif wrong:
        limits = {"step": 3 * width, "height": height, "width": width}
        value = choose.choice([0, 2**32 - 1, choose.randint(0, 100_000)])
        setattr(message, wrong, value if value != limits[wrong] else value + 1)
        if wrong == "width" and 0 < value < width:  # rows with padding: fine
            wrong = ""
    return message, not wrong
