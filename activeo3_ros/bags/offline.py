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

"""A bag run through the core: every selected frame, in the order of the stamps, the same results every time."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from rosbags.serde import SerdeError

from ..codecs.result_cdr import (
    RESULT_TYPE,
    TRACKS_TYPE,
    canonical_cdr,
    from_cdr,
    result_message,
    to_cdr,
    tracks_message,
)
from ..core import ActivePerception, Budget, InvalidInput, Query, Result, Scene, Status
from .frames import PICTURE_TYPES, BagFrames
from .geometry import RecordedGeometry
from .mcap_file import McapFile
from .messages import camera_of, image_message, stamp_ns
from .reading import Bag, DamagedMessage, Entry, topic_type
from .storage import CDR, Topic
from .writing import BagWriter

SETTINGS = "activeo3_replay"
"""The name of the metadata record of a file of results: the settings of its run."""
RESULT_TOPIC, TRACKS_TOPIC = "/activeo3/{camera}/result", "/activeo3/{camera}/tracks"
"""Where the node publishes: a replay writes to the same topics."""

CLOCK_LEAP_NS = 86_400 * 10**9
"""No recording pauses for so long: a clock was set."""


@dataclass(frozen=True)
class Selection:
    """The frames to replay.

    Attributes:
        topics: The image topics.
        start_s: Seconds of recording, counted from the first frame, after which frames are taken.
        duration_s: Seconds of recording for which frames are taken; None: to the end.
        every: Every how many frames of each topic one is taken.
    """

    topics: tuple[str, ...] = ()
    start_s: float = 0.0
    duration_s: float | None = None
    every: int = 1


@dataclass
class ReplayOutcome:
    """The selected frames by their outcome, and where the time went.

    Attributes:
        processed: Frames that have a result.
        failures: Those of them whose result says that perception failed, by the reason.
        unreadable: Frames without a result.
        reasons: Why frames are unreadable.
        resumed: Frames whose result is from the earlier run.
        forgotten: Objects that were forgotten because more were remembered than a scene can hold.
        reading_s: Seconds spent on reading and decoding.
        perceiving_s: Seconds spent in the core.
        writing_s: Seconds spent on serializing and writing results.
        digest: Of the results without times.
    """

    processed: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    reasons: list[str] = field(default_factory=list)
    resumed: int = 0
    forgotten: int = 0
    reading_s: float = 0.0
    perceiving_s: float = 0.0
    writing_s: float = 0.0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def failed(self) -> int:
        """The number of frames whose perception failed."""
        return self.failures.total()

    @property
    def sha256(self) -> str:
        """The digest in hexadecimal."""
        return self.digest.hexdigest()


def image_topics(bag: Bag) -> list[str]:
    """The image topics of a bag."""
    return [topic.name for topic in bag.topics.values() if _has_images(topic)]


def _has_images(topic: Topic) -> bool:
    return topic.type in PICTURE_TYPES and topic.encoding == CDR


def _describe(topics: Iterable[Topic]) -> str:
    """Topics with their types, and a hint where they are of another system than ROS 2."""
    topics = list(topics)
    described = ", ".join(f"{topic.name} ({topic.describe_type()})" for topic in topics)
    foreign = sorted({topic.encoding for topic in topics} - {CDR})
    hint = f"; only {', '.join(PICTURE_TYPES)} in {CDR} are read: convert the bag to ROS 2 first" if foreign else ""
    return described + hint


def choose_topics(bag: Bag, wanted: Sequence[str]) -> tuple[str, ...]:
    """The wanted topics, or the only image topic.

    Raises:
        InvalidInput: A wanted topic is missing or holds no images, or none is wanted and the bag has not exactly one.
    """
    available = image_topics(bag)
    for topic in wanted:
        topic_type(bag, topic)
        if topic not in available:
            raise InvalidInput(
                f"{bag.path}: holds no pictures of ROS 2 in {_describe([bag.topics[topic]])}; "
                f"topics with pictures: {', '.join(available) or 'none'}"
            )
    if wanted:
        return tuple(dict.fromkeys(wanted))
    if not bag.topics:
        raise InvalidInput(f"{bag.path}: cannot be read as a bag: it is none, or nothing of its topics is left")
    if not available:
        raise InvalidInput(f"{bag.path}: has no topic with pictures; it has {_describe(bag.topics.values())}")
    if len(available) > 1:
        raise InvalidInput(f"{bag.path}: has several topics with pictures; choose with --topic: {', '.join(available)}")
    return tuple(available)


def select(entries: Sequence[Entry], selection: Selection) -> list[Entry]:
    """The messages of a selection.

    Seconds are those of the recording: a single stamp that is zero or far too early would move all others.

    Args:
        entries: Messages in the order of their stamps.
        selection: Its topics are not regarded: `entries` are of these.
    """
    if not entries:
        return []
    begin_ns = recording_start_ns(entries) + round(selection.start_s * 1e9)
    end_ns = None if selection.duration_s is None else begin_ns + round(selection.duration_s * 1e9)
    by_topic: dict[str, int] = {}
    selected = []
    for entry in entries:
        if (selection.start_s and entry.log_time_ns < begin_ns) or (end_ns is not None and entry.log_time_ns >= end_ns):
            continue
        number = by_topic[entry.topic] = by_topic.get(entry.topic, -1) + 1
        if number % selection.every == 0:
            selected.append(entry)
    return selected


def recording_start_ns(entries: Sequence[Entry]) -> int:
    """When a recording began, nanoseconds; frames before a leap of the clock, as when it is first set, do not count.

    Args:
        entries: At least one message.
    """
    times = sorted(entry.log_time_ns for entry in entries)
    later = [after for before, after in pairwise(times[: len(times) // 2 + 1]) if after - before > CLOCK_LEAP_NS]
    return later[-1] if later else times[0]


def replay(
    bag: Bag,
    entries: Sequence[Entry],
    perception: ActivePerception,
    query: Query,
    budget: Budget,
    writer: BagWriter,
    recorded: Sequence[RecordedResult] = (),
    with_images: bool = False,
    memory: bool = False,
    geometry: RecordedGeometry | None = None,
    goes_on: Callable[[int, ReplayOutcome], bool] = lambda done, outcome: True,
) -> ReplayOutcome:
    """Perceive each message and write the results.

    Args:
        bag: The bag that has the messages.
        entries: Messages of image topics, in the order in which they are perceived.
        perception: Perceives a frame.
        query: The objects to find.
        budget: The limits for a frame.
        writer: Takes the results, each with the time of recording of its image.
        recorded: Results of an earlier run, which are not computed again.
        with_images: Whether the images are written beside their results.
        memory: Whether the frames of a camera are weighed together, as the node does. Results of an earlier run cannot
            be used then: each depends on all frames before it. Their tracks are written too.
        geometry: Gives the tracks bearings and positions; None: they have none.
        goes_on: Called with the number of messages done before each; where it says False, the replay ends.
    """
    outcome = ReplayOutcome()
    for topic in dict.fromkeys(entry.topic for entry in entries):
        writer.add_topic(RESULT_TOPIC.format(camera=camera_of(topic)), RESULT_TYPE)
        if memory:
            writer.add_topic(TRACKS_TOPIC.format(camera=camera_of(topic)), TRACKS_TYPE)
        if with_images:
            writer.add_topic(topic, bag.topics[topic].type)
    scenes = {entry.topic: Scene() for entry in entries} if memory else {}
    earlier, frames = _results_by_frame(recorded, entries), BagFrames(bag)
    for number, entry in enumerate(entries):
        if not goes_on(number, outcome):
            break
        start = time.perf_counter()
        known = earlier.get(_frame_key(entry))
        try:
            image = bag.read(entry) if with_images or known is None else b""
        except DamagedMessage as error:
            outcome.unreadable += 1
            outcome.reasons.append(str(error))
            continue
        outcome.reading_s += time.perf_counter() - start
        if known is not None:
            message, cdr, tracks = known.message, known.cdr, b""
            outcome.resumed += 1
        else:
            kind, scene = bag.topics[entry.topic].type, scenes.get(entry.topic)
            found = _perceive(image, kind, entry, frames, perception, query, budget, outcome, scene)
            if found is None:
                continue
            message, cdr, tracks = found[1], b"", b""
            if memory and found[0].status != Status.FAILED:
                tracks = _tracks(*found, entry.topic, geometry)
        start = time.perf_counter()
        outcome.processed += 1
        if message.status == Status.FAILED:
            outcome.failures[message.status_message] += 1
        outcome.digest.update(canonical_cdr(message))
        if with_images:
            writer.write(entry.topic, entry.log_time_ns, image)
        writer.write(RESULT_TOPIC.format(camera=camera_of(entry.topic)), entry.log_time_ns, cdr or to_cdr(message))
        if tracks:
            writer.write(TRACKS_TOPIC.format(camera=camera_of(entry.topic)), entry.log_time_ns, tracks)
        outcome.writing_s += time.perf_counter() - start
    outcome.forgotten = sum(scene.forgotten for scene in scenes.values())
    return outcome


FrameKey = tuple[str, int, int]
"""Camera, stamp and time of recording of a frame: a stamp alone may be that of several frames."""


@dataclass(frozen=True)
class RecordedResult:
    """A result of an earlier run.

    Attributes:
        log_time_ns: Time of recording, which is that of its image.
        cdr: Its bytes.
        message: The `PerceptionResult` in them.
    """

    log_time_ns: int
    cdr: bytes
    message: Any


def _frame_key(entry: Entry) -> FrameKey:
    return camera_of(entry.topic), entry.stamp_ns, entry.log_time_ns


def _results_by_frame(recorded: Sequence[RecordedResult], entries: Sequence[Entry]) -> dict[FrameKey, RecordedResult]:
    """The earlier result of each frame; none where frames have one key, which are then perceived anew."""
    frames = Counter(map(_frame_key, entries))
    by_frame = {(r.message.camera, stamp_ns(r.message), r.log_time_ns): r for r in recorded}
    return {key: result for key, result in by_frame.items() if frames[key] == 1}


def _perceive(
    image: bytes,
    message_type: str,
    entry: Entry,
    frames: BagFrames,
    perception: ActivePerception,
    query: Query,
    budget: Budget,
    outcome: ReplayOutcome,
    scene: Scene | None,
) -> tuple[Result, Any] | None:
    """The result for one image message and its `PerceptionResult`; None if not even its header can be read."""
    camera = camera_of(entry.topic)
    start = time.perf_counter()
    try:
        message = image_message(image, message_type)
    except InvalidInput as error:
        outcome.unreadable += 1
        outcome.reasons.append(str(error))
        return None
    try:
        frame = frames.frame(entry, message)
    except (InvalidInput, DamagedMessage) as error:
        width, height = getattr(message, "width", 0), getattr(message, "height", 0)
        result = Result(width, height, query, Status.FAILED, str(error))
        outcome.reading_s += time.perf_counter() - start
    else:
        decoded = time.perf_counter()
        outcome.reading_s += decoded - start
        result = perception.perceive(frame, query, budget, scene=scene)
        outcome.perceiving_s += time.perf_counter() - decoded
    return result, result_message(result, camera, stamp_ns(message), message.header.frame_id)


def _tracks(result: Result, message: Any, topic: str, geometry: RecordedGeometry | None) -> bytes:
    """The bytes of the `TrackArray` beside a `PerceptionResult`."""
    header, camera, depth = message.header, None, None
    if geometry is not None and result.tracks:
        camera, depth = geometry.of(topic, stamp_ns(message), header.frame_id, (result.width, result.height))
    return to_cdr(tracks_message(result, header, camera, depth), TRACKS_TYPE)


def read_recorded(path: Path, settings: dict[str, str]) -> list[RecordedResult]:
    """The results of an earlier run that was cut short.

    Args:
        path: The file of that run.
        settings: The settings of this run.

    Returns:
        The results in the order of their stamps; none if there is no file.

    Raises:
        InvalidInput: The file is not from a run with the same settings.
    """
    if not path.exists():
        return []
    file = McapFile(path)
    found = file.metadata(SETTINGS)
    file.close()
    if found != settings:
        differing = sorted(key for key in settings if (found or {}).get(key) != settings[key])
        raise InvalidInput(
            f"{path}: cannot be resumed, it was made from other settings ({', '.join(differing) or 'unknown'}); "
            "give another --out, or overwrite with --force in place of --resume"
        )
    with Bag(path) as bag:
        topics = [topic.name for topic in bag.topics.values() if topic.type == RESULT_TYPE]
        entries, _ = bag.index(topics)
        return list(_readable(bag, entries))


def _readable(bag: Bag, entries: Sequence[Entry]) -> Iterator[RecordedResult]:
    """The results that are not damaged; the others are computed again."""
    for entry in entries:
        try:
            cdr = bag.read(entry)
            message = from_cdr(cdr)
        except (DamagedMessage, SerdeError):
            continue
        yield RecordedResult(entry.log_time_ns, cdr, message)
