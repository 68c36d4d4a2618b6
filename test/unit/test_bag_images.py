"""Image messages of a bag are read as the node reads them, and the cameras of topics are told apart."""

from __future__ import annotations

import pytest
from bag_fixtures import compressed_message, picture, raw_cdr

from activeo3_ros.bags.messages import (
    COMPRESSED_TYPE,
    IMAGE_TYPE,
    camera_of,
    check_cameras_differ,
    image_message,
    serialize_image,
)
from activeo3_ros.core import InvalidInput

STRINGS = {
    b"optical\0": "optical",
    b"opt\xff\xfeic\0": "opt��ic",
    b"\xe4\xb8\xff\0": "��",
    b"\xed\xa0\x80\0": "���",
    b"opt\0ic\0": "opt",  # rclpy ends at the first NUL
    b"optical": "optical",  # some writers leave the NUL out
    b"\0": "",
    b"": "",
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("stored", STRINGS)
def test_a_string_is_read_as_rclpy_reads_it(stored: bytes, order: str):
    message = image_message(raw_cdr(stored, order=order), IMAGE_TYPE)
    assert (message.header.frame_id, message.header.stamp.sec, message.encoding) == (STRINGS[stored], 5, "bgr8")
    assert message.data.tolist() == [1, 2, 3]
    assert image_message(raw_cdr(b"\0", stored), IMAGE_TYPE).encoding == STRINGS[stored]


@pytest.mark.parametrize("kind", [IMAGE_TYPE, COMPRESSED_TYPE])
def test_a_message_that_is_cut_off_is_told_in_words(kind: str):
    image = picture(1)
    cdr = serialize_image(image, 5, "optical") if kind == IMAGE_TYPE else compressed_message(image, 5)
    image_message(cdr, kind)
    for length in range(0, len(cdr), 97):
        with pytest.raises(InvalidInput, match=rf"a message of {length} bytes is not a whole {kind}"):
            image_message(cdr[:length], kind)


@pytest.mark.parametrize(
    ("topic", "camera"),
    [
        ("/front/left/image_raw/compressed", "front/left"),
        ("/front/image_raw", "front"),
        ("/image_raw", "image_raw"),
        ("/compressed", "compressed"),
        ("//front//image", "front"),
    ],
)
def test_a_camera_is_named_as_its_topic_begins(topic: str, camera: str):
    assert camera_of(topic) == camera


def test_two_topics_of_one_camera_are_refused_by_name():
    check_cameras_differ(["/front/image_raw", "/rear/image_raw", "/front/image_raw"])
    with pytest.raises(
        InvalidInput, match="/cam/image_raw/compressed and /cam/image_rect/compressed are both of camera"
    ):
        check_cameras_differ(["/cam/image_raw/compressed", "/cam/image_rect/compressed"])
