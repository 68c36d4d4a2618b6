"""Frames of drivers in other processes arrive at the node without any setting, and every one is accounted for."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest
from node_fixtures.client import RELIABLE, Client, image
from node_fixtures.fakes import picture
from node_fixtures.processes import NodeProcess
from rclpy.qos import ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image
from waiting import wait_for

DRIVER = """
import sys, time
from array import array
import rclpy
from sensor_msgs.msg import Image

frames, width, height = map(int, sys.argv[1:])
rclpy.init()
node = rclpy.create_node("driver")
publisher = node.create_publisher(Image, "/front/image_raw", 10)
def send(width, height):
    message = Image(height=height, width=width, encoding="bgr8", step=3 * width)
    message.data = array("B", bytes(3 * width * height))
    message.header.stamp = node.get_clock().now().to_msg()
    publisher.publish(message)
    time.sleep(0.2)

while not publisher.get_subscription_count():
    time.sleep(0.05)
time.sleep(2.0)  # as long as a driver takes to open its camera
send(80, 60)
for _ in range(frames):
    send(width, height)
send(80, 60)  # numbers tell of a loss only when a later frame arrives, and small ones do
print("sent", flush=True)
sys.stdin.read()
"""
"""An ordinary driver: rclpy's default quality of service, no profile, no word of this package."""


@contextlib.contextmanager
def driver(frames: int, width: int, height: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), *map(str, (frames, width, height))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def asked_for(client: Client, topic: str) -> list[ReliabilityPolicy]:
    """The reliability that each of the node's subscriptions to a topic asks for."""
    endpoints = client.node.get_subscriptions_info_by_topic(topic)
    return [ReliabilityPolicy(endpoint.qos_profile.reliability) for endpoint in endpoints]


@pytest.mark.timeout(90)
def test_most_raw_frames_of_an_ordinary_driver_arrive_and_every_one_is_accounted_for():
    """A best-effort subscription with a history of one lost 308 of 355 such frames."""
    with (
        NodeProcess(node_name="receiving", cameras=["front"], autostart=True, diagnostics_period=0.1) as node,
        Client((), "receiving") as client,
    ):
        wait_for(client._is_active, 30)
        with driver(25, 1280, 695) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "sent\n", node.text
            values = wait_for(lambda: accounted_for(client) == 27 and client.status("front")[2], 30)
    assert int(values["received"]) > 12, values
    assert values["quality_of_service"] == "reliable, volatile"


def accounted_for(client: Client) -> int:
    values = client.status("front")[2]
    lost = values["lost_before_receipt"]
    return int(values["received"]) + (int(lost) if lost.isdigit() else 0)


@pytest.mark.timeout(120)
def test_reliability_follows_the_publishers_and_no_frame_is_lost_or_taken_twice_meanwhile():
    """A sensor-data publisher comes and goes beside a reliable one; frames go on, one at a time, on two cameras."""
    cameras = ("front", "rear")
    with (
        NodeProcess(node_name="following", cameras=list(cameras), autostart=True, diagnostics_period=0.1) as node,
        Client(cameras, "following") as client,
    ):
        client.connect()
        sent = dict.fromkeys(cameras, 0)

        def publish_until(wanted: ReliabilityPolicy) -> None:
            """Frame after frame until all of the node's subscriptions to the front camera ask for it."""

            def chosen() -> bool:
                for camera in cameras:
                    client.result_of(picture(), camera)
                    sent[camera] += 1
                return asked_for(client, "/front/image_raw") == [wanted]

            wait_for(chosen, 30, f"{wanted}; {node.text}")

        publish_until(ReliabilityPolicy.RELIABLE)
        for _ in range(2):
            sensor = client.node.create_publisher(Image, "/front/image_raw", qos_profile_sensor_data)
            publish_until(ReliabilityPolicy.BEST_EFFORT)
            before = len(client.results)
            sensor.publish(image(picture()))
            sent["front"] += 1
            wait_for(lambda before=before: len(client.results) > before, what="the frame of the sensor")
            client.destroy(sensor)
            publish_until(ReliabilityPolicy.RELIABLE)

        for camera in cameras:
            wait_for(lambda camera=camera: client.counts(camera)["processed"] == sent[camera], what=f"{camera}: {sent}")
            counts = client.counts(camera)
            assert counts["received"] == sent[camera], (camera, counts)
            assert client.status(camera)[2]["lost_before_receipt"] == "0"
        assert "InvalidHandle" not in node.text


def test_a_reliability_that_is_set_wins_over_what_publishers_offer():
    override = {"qos_overrides./front/image_raw.subscription.reliability": "best_effort"}
    with (
        NodeProcess(node_name="decided", cameras=["front"], autostart=True, diagnostics_period=0.1, **override),
        Client(("front",), "decided") as client,
    ):
        client.connect()
        publisher = client.node.create_publisher(Image, "/front/image_raw", RELIABLE)
        for _ in range(3):
            client.result_of(picture(), "front")
            assert asked_for(client, "/front/image_raw") == [ReliabilityPolicy.BEST_EFFORT]
        assert client.status("front")[2]["quality_of_service"] == "best_effort, volatile"
        client.destroy(publisher)


@pytest.mark.timeout(90)
def test_where_frames_are_lost_both_counts_hold_and_the_log_says_once_what_to_set():
    """As it was by default: best effort, though the driver is reliable, and transports that hold no frame of 2.7 MB."""
    parameter = "qos_overrides./front/image_raw.subscription.reliability"
    environment = {**os.environ, "FASTDDS_BUILTIN_TRANSPORTS": "DEFAULT"}  # named, so that the node chooses none
    with (
        NodeProcess(
            node_name="losing",
            cameras=["front"],
            autostart=True,
            diagnostics_period=0.1,
            environment=environment,
            **{parameter: "best_effort"},
        ) as node,
        Client((), "losing") as client,
    ):
        wait_for(client._is_active, 30)
        with driver(25, 1280, 695) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "sent\n", node.text
            values = wait_for(lambda: accounted_for(client) == 27 and client.status("front")[2], 30)
            lost, in_transport = int(values["lost_before_receipt"]), int(values["lost_in_transport"])
            if lost < 5:
                pytest.skip("this machine's transports brought all")
            assert 0 < in_transport <= lost
            wait_for(lambda: "frames of /front/image_raw were lost" in node.text)
            assert f"Try in this order: do not set {parameter}; " in node.text
            assert node.text.count("frames of /front/image_raw were lost") == 1
