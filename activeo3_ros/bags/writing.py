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

"""MCAP bags that ROS tools read: `ros2 bag play`, Foxglove, rosbags. Needs no ROS.

A bag is one file. Its messages are CDR as they travel, each type with its full definition, so that it can be opened
later without any of our packages.
"""

from __future__ import annotations

from pathlib import Path

from mcap.writer import CompressionType, Writer

from ..codecs.result_cdr import typestore
from ..core import InvalidInput

CHUNK_BYTES = 4 << 20


class BagWriter:
    """Writes one MCAP file; a context manager. Messages written before a crash can still be read."""

    def __init__(self, path: Path, chunk_bytes: int = CHUNK_BYTES) -> None:
        """Create the file and its directory.

        Args:
            path: The file.
            chunk_bytes: How much a crash may lose; every chunk is on its way to the disk as soon as it is full.

        Raises:
            OSError: The file cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        # Frames are noise to a compressor that has to keep up with a camera: it would cost time and save little.
        self._writer = Writer(self._file, chunk_size=chunk_bytes, compression=CompressionType.NONE)
        self._writer.start(profile="ros2", library="activeo3_ros")
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_topic(self, topic: str, message_type: str) -> None:
        """Announce a topic before its first message.

        Args:
            topic: Its name.
            message_type: A type that `typestore()` knows, such as `sensor_msgs/msg/Image`.

        Raises:
            InvalidInput: It knows no such type, so that the bag could not be read without the package of the type.
        """
        store = typestore()
        if message_type not in store.types:
            raise InvalidInput(
                f"{topic}: the definition of {message_type} is not known; those of ROS 2's common types and of this "
                "package are"
            )
        if message_type not in self._schemas:
            definition, _ = store.generate_msgdef(message_type, ros_version=2)
            self._schemas[message_type] = self._writer.register_schema(message_type, "ros2msg", definition.encode())
        self._channels[topic] = self._writer.register_channel(
            topic, "cdr", self._schemas[message_type], {"topic_type_hash": store.hash_rihs01(message_type)}
        )

    def write(self, topic: str, stamp_ns: int, cdr: bytes) -> None:
        """Append one message.

        Args:
            topic: An announced topic.
            stamp_ns: Time of its recording, at which it is to be played, nanoseconds.
            cdr: The serialized message.
        """
        self._writer.add_message(self._channels[topic], stamp_ns, cdr, stamp_ns)
        self._file.flush()

    def add_metadata(self, name: str, values: dict[str, str]) -> None:
        """Add notes under a name; readers find them at once if they lie before the first message."""
        self._writer.add_metadata(name, values)
        self._file.flush()

    def close(self) -> None:
        """Write the index and close the file."""
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._file.close()
