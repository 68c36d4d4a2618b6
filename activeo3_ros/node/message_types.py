"""Message classes by their names; needs no messages of this package."""

from __future__ import annotations

import importlib
from typing import Any


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
