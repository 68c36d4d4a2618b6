"""The same results through rclpy's messages: what the node sends is what a robot, or a bag without ROS, reads."""

from __future__ import annotations

from activeo3_ros.msg import PerceptionResult
from builtin_interfaces.msg import Time
from hypothesis import given, settings
from rclpy.serialization import deserialize_message, serialize_message
from result_strategies import comparable, results
from std_msgs.msg import Header

from activeo3_ros.codecs.result_cdr import from_cdr
from activeo3_ros.codecs.result_message import ARRAY_TYPES, array_message, from_message, to_message
from activeo3_ros.node.message_library import RCLPY
from activeo3_ros.node.message_types import message_class

HEADER = Header(stamp=Time(sec=1, nanosec=7), frame_id="optical")


@settings(deadline=None)
@given(results())
def test_rclpy_and_rosbags_read_the_same_result(result):
    message = to_message(result, RCLPY, "front", HEADER, Time())
    sent = serialize_message(message)
    received = deserialize_message(sent, PerceptionResult)
    assert comparable(from_message(received)) == comparable(from_message(message))
    assert comparable(from_message(from_cdr(sent))) == comparable(from_message(message))


@settings(deadline=None, max_examples=20)
@given(results())
def test_the_lists_of_a_result_are_messages_of_their_own(result):
    message = to_message(result, RCLPY, "front", HEADER, Time())
    for name, array_type in ARRAY_TYPES.items():
        array = array_message(name, message, RCLPY)
        assert isinstance(array, message_class(f"activeo3_ros/msg/{array_type}"))
        assert str(getattr(array, name)) == str(getattr(message, name))  # as text, for NaN does not equal itself
        assert array.header == HEADER
