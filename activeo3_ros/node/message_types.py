"""Message classes by their names; needs no messages of this package."""

from __future__ import annotations

import importlib
import re
from typing import Any

MESSAGE_TYPE = re.compile(r"([a-zA-Z]\w*)/msg/([a-zA-Z]\w*)", re.ASCII)


def message_class(name: str) -> Any:
    """The Python class of a message type.

    Args:
        name: Such as `sensor_msgs/msg/Image`.

    Raises:
        ImportError: Its package is not installed, or the name is none of a message type.
        AttributeError: The package has no such type.
    """
    match = MESSAGE_TYPE.fullmatch(name)
    if match is None:
        raise ImportError(f"{name!r} is not the name of a message type of ROS 2")
    package, message = match.groups()
    return getattr(importlib.import_module(f"{package}.msg"), message)
