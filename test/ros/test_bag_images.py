"""Image messages of a bag are read as rclpy reads them."""

from __future__ import annotations

import pytest
from bag_fixtures import raw_cdr
from hypothesis import given, settings
from hypothesis import strategies as st

from activeo3_ros.bags.messages import IMAGE_TYPE, image_message


@settings(deadline=None)
@given(st.binary(max_size=12), st.binary(max_size=12))
def test_rclpy_and_we_read_the_same(frame_id: bytes, encoding: bytes):
    serialization = pytest.importorskip("rclpy.serialization", reason="needs ROS 2")
    from sensor_msgs.msg import Image

    cdr = raw_cdr(frame_id, encoding)
    theirs, ours = serialization.deserialize_message(cdr, Image), image_message(cdr, IMAGE_TYPE)
    assert (ours.header.frame_id, ours.encoding) == (theirs.header.frame_id, theirs.encoding)
    assert (ours.step, ours.width, bytes(ours.data)) == (theirs.step, theirs.width, bytes(theirs.data))
