"""Serialized messages to frames: pixels, stamp and header; rejections with the header wherever it can be read."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
from builtin_interfaces.msg import Time
from image_fixtures import BGR, bayer
from node_fixtures.client import image
from node_fixtures.fakes import picture
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image

from activeo3_ros.node.frame_decoder import FrameDecoder
from activeo3_ros.node.jobs import RejectedFrame

STAMP = Time(sec=5, nanosec=6)
STAMP_NS = 5_000_000_006


def decoder(kind: type = Image, max_pixels: int = 1_000_000) -> FrameDecoder:
    return FrameDecoder(kind, lambda: max_pixels)


def test_a_raw_image_becomes_a_frame_with_its_stamp_camera_and_header():
    message = image(picture(77), STAMP)
    decoded = decoder().decode("front", serialize_message(message))
    assert np.array_equal(decoded.frame.image, picture(77))
    assert (decoded.frame.stamp_ns, decoded.frame.frame_id, decoded.frame.camera) == (STAMP_NS, "optical", "front")
    assert decoded.header == message.header


def test_a_compressed_image_becomes_a_frame():
    data = cv2.imencode(".png", picture(77))[1].tobytes()
    decoded = decoder(CompressedImage).decode("front", serialize_message(CompressedImage(format="png", data=data)))
    assert np.array_equal(decoded.frame.image, picture(77))


def test_a_mosaic_in_a_compressed_image_becomes_colour_and_depth_is_rejected():
    data = cv2.imencode(".png", bayer(BGR, "rggb"))[1].tobytes()
    message = CompressedImage(format="bayer_rggb8; png compressed ", data=data)
    decoded = decoder(CompressedImage).decode("front", serialize_message(message))
    assert decoded.frame.image[4, 4].tolist() == BGR[4, 4].tolist()
    message.format = "16UC1; png compressed "
    with pytest.raises(RejectedFrame, match="depth"):
        decoder(CompressedImage).decode("front", serialize_message(message))


def test_a_jpeg_whose_scan_ends_early_is_rejected_with_its_header():
    data = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))[1].tobytes()
    message = CompressedImage(format="jpeg", data=data[: len(data) // 2] + b"\xff\xd9")
    message.header.stamp = STAMP
    with pytest.raises(RejectedFrame, match=r"a JPEG of .* is damaged") as rejected:
        decoder(CompressedImage).decode("front", serialize_message(message))
    assert rejected.value.header == message.header


def test_without_simplejpeg_a_jpeg_is_rejected_by_the_name_of_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    message = CompressedImage(format="jpeg", data=cv2.imencode(".jpg", picture(77))[1].tobytes())
    with pytest.raises(RejectedFrame, match="simplejpeg is needed to decode JPEG") as rejected:
        decoder(CompressedImage).decode("front", serialize_message(message))
    assert rejected.value.header == message.header


def test_bytes_that_are_no_message_are_rejected_without_a_header():
    with pytest.raises(RejectedFrame, match="the message could not be read") as rejected:
        decoder().decode("front", b"malformed")
    assert rejected.value.header is None


def test_an_image_that_contradicts_itself_is_rejected_with_its_header():
    message = image(picture(), STAMP)
    message.step = 7
    with pytest.raises(RejectedFrame, match="step is 7 bytes") as rejected:
        decoder().decode("front", serialize_message(message))
    assert rejected.value.header == message.header


def test_the_limit_on_pixels_is_read_at_each_frame():
    limit = [80 * 60]
    frames = FrameDecoder(Image, lambda: limit[0])
    data = serialize_message(image(picture(height=60, width=80)))
    frames.decode("front", data)
    limit[0] -= 1
    with pytest.raises(RejectedFrame, match="exceeds 4799 pixels"):
        frames.decode("front", data)


def test_the_newest_stamp_of_each_camera_is_known_even_where_its_image_is_rejected():
    frames, bad = decoder(), image(picture(), STAMP)
    bad.encoding = "nonsense"
    frames.decode("rear", serialize_message(image(picture(), Time(sec=1))))
    with pytest.raises(RejectedFrame):
        frames.decode("front", serialize_message(bad))
    assert frames.stamps_ns == {"rear": 1_000_000_000, "front": STAMP_NS}
