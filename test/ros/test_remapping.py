"""Remapping a camera's topics: what the node listens to, and what it says of it."""

from __future__ import annotations

import pytest
from node_fixtures.inside import node_inside
from sensor_msgs.msg import CompressedImage

from activeo3_ros.node.camera_input import SOURCES


def listens_to(transport: str, *rules: str) -> tuple[str, ...]:
    """The topics of images that a node with the cameras front and rear subscribes to under these rules, in order."""
    with node_inside("fake", *rules, transport=transport, cameras=["front", "rear"]) as node:
        told = tuple(camera.topic for camera in node._cameras.values())
        image_types = {kind for kind, _ in SOURCES.values()}
        read = tuple(each.topic_name for each in node.subscriptions if each.msg_type in image_types)
        assert told == read, "diagnostics name another topic than the node reads"
        return told


@pytest.mark.parametrize(
    ("transport", "rules", "topic"),
    [
        ("raw", [], "/front/image_raw"),
        ("raw", ["front/image_raw:=/usb/image"], "/usb/image"),
        ("compressed", [], "/front/image_raw/compressed"),
        ("compressed", ["front/image_raw:=/usb/image"], "/usb/image/compressed"),
        ("compressed", ["front/image_raw/compressed:=/usb/jpeg"], "/usb/jpeg"),
        ("compressed", ["front/image_raw:=/usb/image", "front/image_raw/compressed:=/usb/jpeg"], "/usb/jpeg"),
    ],
)
def test_the_base_topic_moves_the_compressed_one_unless_that_has_a_rule(transport, rules, topic):
    assert listens_to(transport, *rules)[0] == topic


@pytest.mark.parametrize("transport", ["ffmpeg", "foxglove"])
def test_the_base_topic_moves_a_video_too(monkeypatch, transport):
    # In place of a type whose package is not installed.
    monkeypatch.setitem(SOURCES, transport, (SOURCES[transport][0] or CompressedImage, SOURCES[transport][1]))
    assert listens_to(transport)[0] == f"/front/image_raw/{transport}"
    assert listens_to(transport, "front/image_raw:=/usb/image")[0] == f"/usb/image/{transport}"


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_two_cameras_can_be_swapped(transport):
    rules = ["front/image_raw:=/rear/image_raw", "rear/image_raw:=/front/image_raw"]
    suffix = "/compressed" if transport == "compressed" else ""
    assert listens_to(transport, *rules) == (f"/rear/image_raw{suffix}", f"/front/image_raw{suffix}")
