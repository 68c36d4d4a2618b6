"""The messages of this package as rclpy has them, for the codecs."""

from __future__ import annotations

from array import array

import geometry_msgs.msg

from activeo3_ros import msg

from ..codecs.result_message import MessageLibrary

RCLPY = MessageLibrary(msg, lambda data: array("B", data), geometry_msgs.msg)
"""Makes the messages that rclpy publishes."""
