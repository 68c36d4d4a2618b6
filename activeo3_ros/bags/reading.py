"""Bags as they lie on the disk, read so that a damaged one loses only what is damaged, and says how much.

A bag is a file (`.mcap`, `.db3`) or a directory of such files, as ROS 2 splits them, with a `metadata.yaml` that may be
missing. Reading has two steps: `Bag.index` finds where each message of a topic lies and what time its header has,
`Bag.read` gives its bytes. So messages can be taken in the order of their stamps, whatever order they were recorded in,
without holding more than one chunk in memory.

Nothing that fails a checksum is ever delivered. MCAP has one checksum a chunk: a flipped bit costs the messages of its
chunk. SQLite has none: what it can still read is delivered. Damage in a part that `index` need not read shows when a
message there is read.

Files and messages that rosbag2 compressed are read too; a compressed file is unpacked into a temporary directory.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeAlias

import yaml

from ..core import InvalidInput
from .compression import FORMAT, DamagedFrame, decompress_file, decompress_message
from .compression import SUFFIX as PACKED_SUFFIX

SUFFIXES = (".mcap", ".db3")
METADATA = "metadata.yaml"
CDR_HEAD_BYTES = 12
"""Encapsulation (4 bytes), then seconds and nanoseconds of a `std_msgs/Header`."""


@dataclass(frozen=True)
class Topic:
    """A topic of a bag. definition: the text of its type as the bag has it, "" if it has none."""

    name: str
    type: str
    definition: str = ""


@dataclass(frozen=True)
class Entry:
    """One message that was found. stamp_ns: of its header; log_time_ns: when it was recorded. place: for its file."""

    topic: str
    stamp_ns: int
    log_time_ns: int
    file: int
    place: tuple[int, ...]


@dataclass
class Damage:
    """What could not be read. lost: messages of each topic; is_exact: whether more may be missing than is known."""

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


Found: TypeAlias = tuple[str, int, bytes, tuple[int, ...]]
"""Topic, log time, first bytes and place of a message."""


@dataclass
class FileIndex:
    """What one file says about the topics that were asked for.

    found: the messages, in the order of their places. expected: how many messages of each topic the file
    says it has, None if it does not say or cannot be believed. lost: messages that are known to be damaged.
    """

    found: list[Found] = field(default_factory=list)
    expected: dict[str, int] | None = None
    lost: dict[str, int] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def counts(self, topics: Collection[str]) -> dict[str, int]:
        """How many messages of each topic were found or are known to be lost."""
        counts = {name: self.lost.get(name, 0) for name in topics}
        for name, *_ in self.found:
            counts[name] += 1
        return counts


class BagFile(Protocol):
    """One file of a bag."""

    def topics(self) -> list[Topic]:
        """The topics of which the file knows; never raises for damage."""

    def index(self, topics: Collection[str]) -> FileIndex:
        """Where the messages of some topics lie; never raises for damage."""

    def read(self, place: tuple[int, ...]) -> bytes:
        """The bytes of one message. Raises DamagedMessage."""

    def close(self) -> None:
        """Close the file."""


class DamagedMessage(Exception):
    """A message that was found cannot be read."""


class Bag:
    """A bag opened for reading; a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises InvalidInput if there is no bag."""
        self.path = path
        self._notes: list[str] = []
        self._metadata = self._read_metadata()
        self.files = self._find_files()
        self._unpacked = TemporaryDirectory(prefix="activeo3-") if any(map(is_packed, self.files)) else None
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
        """Close the files, and remove what was unpacked."""
        for file in self._open_files:
            file.close()
        if self._unpacked is not None:
            self._unpacked.cleanup()

    def index(self, topics: Sequence[str], by_header: bool = True) -> tuple[list[Entry], Damage]:
        """Every readable message of some topics in the order of their stamps, and what is lost of them.

        by_header: the stamp is that of the message's header, and a message that has none is damaged; else it is the
        time of recording, and messages need no header.
        """
        damage = Damage(dict.fromkeys(topics, 0), reasons=list(self._notes))
        entries: list[Entry] = []
        expected: dict[str, int] | None = dict.fromkeys(topics, 0)
        known_lost = dict.fromkeys(topics, 0)
        for number, file in enumerate(self._open_files):
            part = file.index(topics)
            damage.reasons += [f"{self.files[number].name}: {reason}" for reason in part.reasons]
            for topic, log_time, head, place in part.found:
                stamp = header_stamp_ns(head) if by_header else log_time
                if stamp is None:
                    known_lost[topic] += 1
                    damage.reasons.append(f"{self.files[number].name}: a message has no header that can be read")
                else:
                    entries.append(Entry(topic, stamp, log_time, number, place))
            for topic, count in part.lost.items():
                known_lost[topic] += count
            if part.expected is None:
                expected = None
            elif expected is not None:
                for topic in topics:
                    expected[topic] += part.expected.get(topic, 0)
        expected = self._expected_by_metadata(topics) or expected
        for topic in topics:
            found = sum(entry.topic == topic for entry in entries)
            if expected is None or expected[topic] < found:
                damage.is_exact = False
                damage.lost[topic] = known_lost[topic]
            else:
                damage.lost[topic] = expected[topic] - found
        entries.sort(key=lambda entry: (entry.stamp_ns, entry.topic, entry.log_time_ns, entry.file, entry.place))
        return entries, damage

    def read(self, entry: Entry) -> bytes:
        """The CDR bytes of a message. Raises DamagedMessage."""
        try:
            return decompress_message(self._open_files[entry.file].read(entry.place))
        except DamagedFrame as error:
            raise DamagedMessage(str(error)) from error

    def _unpack(self, file: Path) -> Path:
        if self._unpacked is None or not is_packed(file):
            return file
        unpacked, damage = decompress_file(file, Path(self._unpacked.name))
        self._notes += [f"{file.name} {damage}"] if damage else []
        return unpacked

    def _read_metadata(self) -> dict[str, Any]:
        path = self.path / METADATA
        if not self.path.is_dir():
            return {}
        if not path.is_file():
            self._notes.append(f"{METADATA} is missing")
            return {}
        try:
            information = yaml.safe_load(path.read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
            compression = str(information.get("compression_format") or FORMAT)
            if compression != FORMAT:
                raise InvalidInput(
                    f"{self.path}: is compressed as {compression!r}, only {FORMAT!r} is read; write it anew with: "
                    "ros2 bag convert"
                )
            return dict(information)
        except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, InvalidInput):
                raise
            self._notes.append(f"{METADATA} cannot be read")
            return {}

    def _find_files(self) -> list[Path]:
        if self.path.is_file():
            return [self.path]
        if not self.path.is_dir():
            raise InvalidInput(f"{self.path}: no such bag")
        named = [self.path / Path(str(name)).name for name in self._metadata.get("relative_file_paths") or []]
        missing = [file.name for file in named if not file.is_file()]
        self._notes += [f"{name} is missing" for name in missing]
        lying = sorted((f for f in self.path.iterdir() if _storage_suffix(f) in SUFFIXES and f.is_file()), key=_natural)
        lying = [f for f in lying if not (is_packed(f) and f.with_suffix("") in lying)]  # unpacked beside it
        files = [file for file in named if file.is_file()] or lying
        if not files:
            raise InvalidInput(
                f"{self.path}: no bag in this directory (looked for {' '.join('*' + s for s in SUFFIXES)})"
            )
        return files

    def _expected_by_metadata(self, topics: Sequence[str]) -> dict[str, int] | None:
        counts = dict.fromkeys(topics, 0)
        try:
            for row in self._metadata["topics_with_message_count"]:
                if row["topic_metadata"]["name"] in counts:
                    counts[row["topic_metadata"]["name"]] = int(row["message_count"])
        except (KeyError, TypeError, ValueError):
            return None
        return counts

    def _merge_topics(self) -> dict[str, Topic]:
        topics = {topic.name: topic for file in self._open_files for topic in file.topics()}
        try:
            for row in self._metadata.get("topics_with_message_count") or []:
                name, kind = str(row["topic_metadata"]["name"]), str(row["topic_metadata"]["type"])
                topics.setdefault(name, Topic(name, kind))
        except (KeyError, TypeError):
            self._notes.append(f"{METADATA} is not as ROS 2 writes it")
        return dict(sorted(topics.items()))


def header_stamp_ns(head: bytes) -> int | None:
    """The stamp of a message that begins with a `std_msgs/Header`, from its first bytes of CDR; None if it has none."""
    if len(head) < CDR_HEAD_BYTES or head[0] != 0 or head[1] > 1:
        return None
    seconds, nanoseconds = struct.unpack("<iI" if head[1] == 1 else ">iI", head[4:CDR_HEAD_BYTES])
    return int(seconds) * 1_000_000_000 + int(nanoseconds) if nanoseconds < 1_000_000_000 else None


def _open_file(path: Path) -> BagFile:
    # Imported here because each brings its own libraries with it.
    from .mcap_storage import McapFile
    from .sqlite_storage import SqliteFile

    kinds: dict[str, type[McapFile] | type[SqliteFile]] = {".mcap": McapFile, ".db3": SqliteFile}
    if path.suffix in kinds:
        try:
            return kinds[path.suffix](path)
        except OSError as error:
            raise InvalidInput(f"{path}: cannot be opened: {error.strerror or error}") from error
    raise InvalidInput(f"{path}: not a bag; a bag is a directory or a file that ends with {' or '.join(SUFFIXES)}")


def is_packed(path: Path) -> bool:
    """Whether it is a file that rosbag2 compressed as a whole."""
    return path.suffix == PACKED_SUFFIX and Path(path.stem).suffix in SUFFIXES


def _storage_suffix(path: Path) -> str:
    return Path(path.stem).suffix if is_packed(path) else path.suffix


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sorts `bag_2` before `bag_10`, as ROS 2 numbers the files of a split bag."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"(\d+)", path.name)]


def entries_between(entries: Sequence[Entry], start_s: float, duration_s: float | None, every: int) -> Iterator[Entry]:
    """Every `every`-th message of each topic, from `start_s` seconds after the first stamp of all, for `duration_s`."""
    if not entries:
        return
    begin = entries[0].stamp_ns + round(start_s * 1e9)
    end = None if duration_s is None else begin + round(duration_s * 1e9)
    seen: dict[str, int] = {}
    for entry in entries:
        if entry.stamp_ns < begin or (end is not None and entry.stamp_ns >= end):
            continue
        count = seen[entry.topic] = seen.get(entry.topic, 0) + 1
        if (count - 1) % every == 0:
            yield entry
