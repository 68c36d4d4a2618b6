"""Message classes: ours as the codecs take them, and any class by its name."""

from __future__ import annotations

import importlib
from array import array
from typing import Any

from activeo3_ros import msg

from ..codecs.result_message import MessageLibrary

RCLPY = MessageLibrary(msg, lambda data: array("B", data))
"""Makes the messages that rclpy publishes."""


def message_class(name: str) -> Any:
    """The Python class of a message type.

    Args:
        name: Such as `sensor_msgs/msg/Image`.

    Raises:
        ImportError: Its package is not installed.
        AttributeError: The package has no such type.
    """
    package, _, message = name.partition("/msg/")
    return getattr(importlib.import_module(f"{package}.msg"), message)
