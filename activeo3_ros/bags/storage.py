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

"""The contract between a bag and its files: where its messages lie, and how one of them is read."""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

CDR_HEAD_BYTES = 12
"""Encapsulation (4 bytes), then seconds and nanoseconds of a `std_msgs/Header`."""


class DamagedMessage(Exception):
    """A message, or the chunk that holds it, cannot be read; says why, and where it lies."""


CDR = "cdr"
"""The encoding of the messages of ROS 2."""
DEFINITION_LANGUAGE = "ros2msg"
"""The language of `.msg` files, as bags name it."""


@dataclass(frozen=True)
class Topic:
    """A topic of a bag.

    Attributes:
        name: Its name.
        type: The type of its messages, such as `sensor_msgs/msg/Image`; "" if the bag does not say.
        encoding: The encoding of its messages, such as `cdr`, `ros1`, `protobuf`.
        definition: The definition of its type and of all types in it, in the language of `.msg` files; "" if the bag
            has none.
    """

    name: str
    type: str
    encoding: str = CDR
    definition: str = ""

    def describe_type(self) -> str:
        """The type in words, with the encoding where it is not that of ROS 2."""
        kind = self.type or "of unknown type"
        return kind if self.encoding == CDR else f"{kind} in {self.encoding}"


class Found(NamedTuple):
    """A message that a file has.

    Attributes:
        topic: Name of its topic.
        log_time_ns: Time of its recording, nanoseconds.
        head: Its first `CDR_HEAD_BYTES`, decompressed; fewer if they are damaged.
        place: Where it lies, in the terms of its file.
    """

    topic: str
    log_time_ns: int
    head: bytes
    place: tuple[int, ...]


@dataclass
class FileIndex:
    """Where the messages of some topics lie in one file.

    Attributes:
        found: The messages that can be read.
        expected: The number of messages of each topic that the file says it has; None if it does not say, or cannot
            be believed.
        lost: The number of messages of each topic that are known to be damaged.
        reasons: The faults of the file in words.
    """

    found: list[Found] = field(default_factory=list)
    expected: dict[str, int] | None = None
    lost: dict[str, int] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def counts(self, topics: Collection[str]) -> dict[str, int]:
        """The number of messages of each topic, found or known to be lost."""
        counts = {name: self.lost.get(name, 0) for name in topics}
        for message in self.found:
            counts[message.topic] += 1
        return counts


class BagFile(Protocol):
    """One file of a bag, open for reading."""

    def topics(self) -> list[Topic]:
        """The topics that the file knows. Never raises for damage."""

    def index(self, topics: Collection[str]) -> FileIndex:
        """Where the messages of some topics lie. Never raises for damage."""

    def read(self, place: tuple[int, ...]) -> bytes:
        """The bytes of one message as they are stored.

        Raises:
            DamagedMessage: They fail a checksum, or cannot be read.
        """

    def close(self) -> None:
        """Close the file."""


def header_stamp_ns(head: bytes) -> int | None:
    """The stamp of a message that begins with a `std_msgs/Header`.

    Args:
        head: The first bytes of its CDR.

    Returns:
        Nanoseconds, or None if there is no such header.
    """
    if len(head) < CDR_HEAD_BYTES or head[0] != 0 or head[1] > 1:
        return None
    seconds, nanoseconds = struct.unpack("<iI" if head[1] == 1 else ">iI", head[4:CDR_HEAD_BYTES])
    return int(seconds) * 1_000_000_000 + int(nanoseconds) if nanoseconds < 1_000_000_000 else None
