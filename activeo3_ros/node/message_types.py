# Copyright 2026 The activeo3_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

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
