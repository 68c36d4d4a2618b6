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

"""The door to a bag: its topics, its messages in the order of their stamps, and its losses.

A bag is a file (`.mcap`, `.db3`) or a directory of such files, as ROS 2 splits them, with a `metadata.yaml` that may be
missing. Well-kept libraries read the files: `mcap`, SQLite, `zstandard`. Our own code does only what they cannot:

- the order of the stamps, whatever the order of recording, with one chunk in memory: `Bag.index` finds place and stamp
  of each message of a topic, `Bag.read` gives the bytes of one, in any order;
- salvage of damaged files, with exact counts of the losses (`salvage_mcap`, `sqlite_file`).

Nothing that fails a checksum is ever delivered. MCAP has one checksum a chunk: a flipped bit costs the messages of its
chunk. SQLite has none: every message that it can still read is delivered. Damage in a part that `index` need not read
shows when a message there is read.

Files and messages that rosbag2 compressed are read too; a compressed file is unpacked into a temporary directory.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from ..codecs.image_files import natural_order
from ..codecs.result_cdr import typestore
from ..core import InvalidInput
from .compression import SUFFIX as COMPRESSED_SUFFIX
from .compression import decompress_file, decompress_message
from .mcap_file import McapFile
from .metadata import Metadata, read_metadata
from .sqlite_file import SqliteFile
from .storage import BagFile, DamagedMessage, Topic, header_stamp_ns

__all__ = ["Bag", "Damage", "DamagedMessage", "Entry", "Topic", "read_messages", "read_serialized"]

logger = logging.getLogger(__name__)

STORAGES: dict[str, type[McapFile] | type[SqliteFile]] = {".mcap": McapFile, ".db3": SqliteFile}
"""The reader of each kind of file, by the end of its name."""

ROS_1_SUFFIX, ROS_1_MAGIC = ".bag", b"#ROSBAG"
"""How the name of a bag of ROS 1 ends, and how it begins."""


@dataclass(frozen=True)
class Entry:
    """One message that was found.

    Attributes:
        topic: Name of its topic.
        stamp_ns: The stamp in its header, nanoseconds.
        log_time_ns: Time of its recording, nanoseconds.
        file: Number of its file in the bag.
        place: Where it lies in its file.
    """

    topic: str
    stamp_ns: int
    log_time_ns: int
    file: int
    place: tuple[int, ...]


@dataclass
class Damage:
    """The losses of a bag.

    Attributes:
        lost: Number of lost messages of each topic.
        is_exact: Whether no more can be missing than is known.
        reasons: The faults of the bag in words.
    """

    lost: dict[str, int] = field(default_factory=dict)
    is_exact: bool = True
    reasons: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Messages of all topics that are known to be lost."""
        return sum(self.lost.values())

    def __bool__(self) -> bool:
        return bool(self.count or self.reasons)

    def describe(self) -> str:
        """One line for people."""
        at_least = "" if self.is_exact else "at least "
        topics = ", ".join(f"{count} of {topic}" for topic, count in self.lost.items() if count)
        why = "; ".join(dict.fromkeys(self.reasons))
        return f"{at_least}{self.count} messages are lost{f' ({topics})' if topics else ''}{f': {why}' if why else ''}"


class Bag:
    """A bag opened for reading; a context manager.

    Attributes:
        path: The bag.
        files: Its files, in their order.
        topics: Its topics by their names, sorted.
    """

    def __init__(self, path: Path) -> None:
        """Open the files of a bag.

        Raises:
            InvalidInput: There is no bag, or it cannot be opened. Damage is no error.
        """
        self.path = path
        self._metadata = read_metadata(path) if path.is_dir() else Metadata()
        self._notes = [self._metadata.problem] if self._metadata.problem else []
        self.files = self._find_files()
        self._unpacked = TemporaryDirectory(prefix="activeo3-") if any(map(_is_compressed, self.files)) else None
        self._open_files: list[BagFile] = []
        try:
            for file in self.files:
                self._open_files.append(_open_file(self._unpack(file)))
        except BaseException:
            self.close()
            raise
        self.topics = self._merge_topics()

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files, and remove unpacked ones."""
        for file in self._open_files:
            file.close()
        if self._unpacked is not None:
            self._unpacked.cleanup()

    def index(self, topics: Sequence[str], by_header: bool = True) -> tuple[list[Entry], Damage]:
        """Find every readable message of some topics.

        Args:
            topics: Names of the topics.
            by_header: Whether the stamp is that of the message's header, and a message that has none is damaged; else
                it is the time of recording, and messages need no header.

        Returns:
            The messages in the order of their stamps, and the losses of these topics.
        """
        damage = Damage(dict.fromkeys(topics, 0), reasons=list(self._notes))
        entries: list[Entry] = []
        known_lost = Counter[str]()
        expected: Counter[str] | None = Counter()
        for number, (path, file) in enumerate(zip(self.files, self._open_files, strict=True)):
            part = file.index(topics)
            damage.reasons += [f"{path.name}: {reason}" for reason in part.reasons]
            known_lost.update(part.lost)
            for topic, log_time, head, place in part.found:
                stamp = header_stamp_ns(head) if by_header else log_time
                if stamp is None:
                    known_lost[topic] += 1
                    damage.reasons.append(f"{path.name}: a message has no header that can be read")
                else:
                    entries.append(Entry(topic, stamp, log_time, number, place))
            if part.expected is None:
                expected = None
            elif expected is not None:
                expected.update(part.expected)
        all_expected = self._metadata.expected(topics) or expected
        found = Counter(entry.topic for entry in entries)
        for topic in topics:
            if all_expected is None or all_expected[topic] < found[topic]:
                damage.is_exact = False
                damage.lost[topic] = known_lost[topic]
            else:
                damage.lost[topic] = all_expected[topic] - found[topic]
        entries.sort(key=lambda entry: (entry.stamp_ns, entry.topic, entry.log_time_ns, entry.file, entry.place))
        return entries, damage

    def read(self, entry: Entry) -> bytes:
        """The CDR bytes of a message.

        Raises:
            DamagedMessage: It fails a checksum, or cannot be read.
        """
        return decompress_message(self._open_files[entry.file].read(entry.place))

    def _unpack(self, file: Path) -> Path:
        if self._unpacked is None or not _is_compressed(file):
            return file
        unpacked, damage = decompress_file(file, Path(self._unpacked.name))
        self._notes += [f"{file.name} {damage}"] if damage else []
        return unpacked

    def _find_files(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        if not self.path.is_dir():
            raise InvalidInput(f"{self.path}: no such bag")
        named = [self.path / name for name in self._metadata.files]
        self._notes += [f"{file.name} is missing" for file in named if not file.is_file()]
        present = (f for f in self.path.iterdir() if _storage_suffix(f) in STORAGES and f.is_file())
        lying = sorted(present, key=natural_order)  # as ROS 2 numbers the files of a split bag
        lying = [f for f in lying if not (_is_compressed(f) and f.with_suffix("") in lying)]  # unpacked beside it
        files = [file for file in named if file.is_file()] or lying
        known = {_unpacked_name(file) for file in files}
        self._notes += [
            f"{file.name} is left out, metadata.yaml does not name it"
            for file in lying
            if _unpacked_name(file) not in known
        ]
        if not files:
            for of_ros_1 in sorted(self.path.glob(f"*{ROS_1_SUFFIX}")):
                _open_file(of_ros_1)
            raise InvalidInput(
                f"{self.path}: no bag in this directory (looked for {' '.join('*' + s for s in STORAGES)})"
            )
        return files

    def _merge_topics(self) -> dict[str, Topic]:
        topics: dict[str, Topic] = {}
        for topic in (topic for file in self._open_files for topic in file.topics()):
            if topic.name not in topics or not topics[topic.name].type:
                topics[topic.name] = topic
        for name, kind in self._metadata.types.items():
            topic = topics.get(name, Topic(name, kind))
            topics[name] = topic if topic.type else replace(topic, type=kind)  # MCAP allows channels without their type
        return dict(sorted(topics.items()))


def read_serialized(path: Path, topic: str) -> Iterator[tuple[int, str, bytes]]:
    """The messages of a topic in the order of recording. Damaged ones are left out, with a warning.

    Yields:
        Time of recording in nanoseconds, type and CDR bytes of each message.

    Raises:
        InvalidInput: There is no bag, or it has no such topic; then the message names its topics.
    """
    for time_ns, source, cdr in _read(path, topic):
        yield time_ns, source.type, cdr


def read_messages(path: Path, topic: str) -> Iterator[tuple[int, Any]]:
    """The messages of a topic in the order of recording, by the definition in the bag where it has one.

    Yields:
        Time of recording in nanoseconds, and message, of a class of rosbags.

    Raises:
        InvalidInput: As for `read_serialized`, and for a message that is not of the topic's type.
    """
    for time_ns, source, cdr in _read(path, topic):
        try:
            message = _store_of(source.type, source.definition).deserialize_cdr(cdr, source.type)
        except Exception as error:  # damaged bytes make the library raise whatever comes up
            raise InvalidInput(
                f"{path}: a message of {topic} at {time_ns} ns is not a whole {source.describe_type()}: {error}"
            ) from error
        yield time_ns, message


def _read(path: Path, topic: str) -> Iterator[tuple[int, Topic, bytes]]:
    with Bag(path) as bag:
        topic_type(bag, topic)
        entries, damage = bag.index([topic], by_header=False)
        if damage:
            logger.warning("%s: %s", path, damage.describe())
        for entry in entries:
            try:
                cdr = bag.read(entry)
            except DamagedMessage as error:
                logger.warning("%s: a message is lost: %s", path, error)
                continue
            yield entry.log_time_ns, bag.topics[topic], cdr


@lru_cache(maxsize=16)
def _store_of(message_type: str, definition: str) -> Typestore:
    """The type as it was when the bag was written: fields may have come or gone since."""
    if not definition.strip():
        return typestore()
    store = get_typestore(Stores.EMPTY)
    try:
        store.register(get_types_from_msg(definition, message_type))
        store.get_msgdef(message_type)
    except Exception:  # one without the types in it: the library raises whatever comes up
        return typestore()
    return store


def topic_type(bag: Bag, topic: str) -> str:
    """The type of a topic of a bag.

    Raises:
        InvalidInput: The bag has no such topic; the message names its topics.
    """
    if not bag.topics:
        raise InvalidInput(f"{bag.path}: cannot be read as a bag: it is none, or nothing of its topics is left")
    if topic not in bag.topics:
        raise InvalidInput(f"{bag.path}: has no topic {topic!r}; it has {', '.join(bag.topics)}")
    return bag.topics[topic].type


def _begins_as_ros_1(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(ROS_1_MAGIC)) == ROS_1_MAGIC
    except OSError:
        return False


def _open_file(path: Path) -> BagFile:
    if path.suffix == ROS_1_SUFFIX or _begins_as_ros_1(path):
        raise InvalidInput(
            f"{path}: is a bag of ROS 1; convert it with: rosbags-convert --src {path} --dst {path.with_suffix('')}"
        )
    if path.suffix not in STORAGES:
        raise InvalidInput(f"{path}: not a bag; a bag is a directory or a file that ends with {' or '.join(STORAGES)}")
    try:
        return STORAGES[path.suffix](path)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be opened: {error.strerror or error}") from error


def _is_compressed(path: Path) -> bool:
    """Whether it is a file that rosbag2 compressed as a whole."""
    return path.suffix == COMPRESSED_SUFFIX and Path(path.stem).suffix in STORAGES


def _unpacked_name(path: Path) -> str:
    return path.stem if _is_compressed(path) else path.name


def _storage_suffix(path: Path) -> str:
    return Path(path.stem).suffix if _is_compressed(path) else path.suffix
