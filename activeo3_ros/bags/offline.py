"""A bag run through the core: every selected frame, in the order of the stamps, the same results every time."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..codecs.result_cdr import RESULT_TYPE, canonical_cdr, from_cdr, result_message, to_cdr
from ..core import ActivePerception, Budget, InvalidInput, Query, Result, Status
from .reading import Bag, DamagedMessage, Entry, entries_between
from .writing import (
    IMAGE_TYPES,
    BagWriter,
    camera_of,
    frame_from_message,
    image_message,
    stamp_ns,
    topic_type,
)

SETTINGS = "activeo3_replay"
"""The metadata record in the file of results that says what they were made from."""
RESULT_TOPIC = "/activeo3/{camera}/result"
"""Where the node publishes: a replay writes to the same topic."""


@dataclass(frozen=True)
class Selection:
    """Which frames: the image topics, from and for how many seconds of the stamps, and every how many of each topic."""

    topics: tuple[str, ...] = ()
    start_s: float = 0.0
    duration_s: float | None = None
    every: int = 1


@dataclass
class ReplayOutcome:
    """What became of the selected frames, and where the time went, in seconds.

    reasons: why frames are unreadable. sha256: of the results without times.
    """

    processed: int = 0
    failed: int = 0
    unreadable: int = 0
    reasons: list[str] = field(default_factory=list)
    resumed: int = 0
    reading_s: float = 0.0
    perceiving_s: float = 0.0
    writing_s: float = 0.0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        return self.digest.hexdigest()


def image_topics(bag: Bag) -> list[str]:
    """The topics of a bag that hold pictures."""
    return [topic.name for topic in bag.topics.values() if topic.type in IMAGE_TYPES]


def choose_topics(bag: Bag, wanted: Sequence[str]) -> tuple[str, ...]:
    """The wanted topics, or the only image topic. Raises InvalidInput where that is not clear or not an image topic."""
    available = image_topics(bag)
    for topic in wanted:
        kind = topic_type(bag, topic)
        if kind not in IMAGE_TYPES:
            raise InvalidInput(
                f"{bag.path}: {topic} holds {kind or 'an unknown type'}, not pictures; topics with pictures: "
                f"{', '.join(available) or 'none'}"
            )
    if wanted:
        return tuple(dict.fromkeys(wanted))
    if not bag.topics:
        raise InvalidInput(f"{bag.path}: cannot be read as a bag: it is none, or nothing of its topics is left")
    if not available:
        raise InvalidInput(f"{bag.path}: has no topic with pictures; it has {', '.join(bag.topics)}")
    if len(available) > 1:
        raise InvalidInput(f"{bag.path}: has several topics with pictures; choose with --topic: {', '.join(available)}")
    return tuple(available)


def select(entries: Sequence[Entry], selection: Selection) -> list[Entry]:
    """The messages of a selection, in the order of their stamps."""
    return list(entries_between(entries, selection.start_s, selection.duration_s, selection.every))


def replay(
    bag: Bag,
    entries: Sequence[Entry],
    perception: ActivePerception,
    query: Query,
    budget: Budget,
    writer: BagWriter,
    recorded: Sequence[bytes] = (),
    with_images: bool = False,
    goes_on: Callable[[int, ReplayOutcome], bool] = lambda done, outcome: True,
) -> ReplayOutcome:
    """Perceive each message and write the results.

    recorded: results of an earlier run, which are not computed again. goes_on: called with the number of messages done;
    where it says False, the replay ends after that message.
    """
    outcome = ReplayOutcome()
    for topic in dict.fromkeys(entry.topic for entry in entries):
        writer.add_topic(RESULT_TOPIC.format(camera=camera_of(topic)), RESULT_TYPE)
        if with_images:
            writer.add_topic(topic, bag.topics[topic].type)
    old: dict[tuple[str, int], deque[bytes]] = {}
    for cdr in recorded:
        message = from_cdr(cdr)
        old.setdefault((message.camera, stamp_ns(message)), deque()).append(cdr)
    for number, entry in enumerate(entries):
        if not goes_on(number, outcome):
            break
        start = time.perf_counter()
        earlier = old.get((camera_of(entry.topic), entry.stamp_ns))
        try:
            image = bag.read(entry) if with_images or not earlier else b""
        except DamagedMessage as error:
            outcome.unreadable += 1
            outcome.reasons.append(str(error))
            continue
        outcome.reading_s += time.perf_counter() - start
        if earlier:
            cdr = earlier.popleft()
            result = from_cdr(cdr)
            outcome.resumed += 1
        else:
            result = _perceive(image, bag.topics[entry.topic].type, entry, perception, query, budget, outcome)
            if result is None:
                continue
            cdr = to_cdr(result)
        start = time.perf_counter()
        outcome.processed += 1
        outcome.failed += result.status == Status.FAILED
        outcome.digest.update(canonical_cdr(result))
        if with_images:
            writer.write(entry.topic, entry.log_time_ns, image)
        writer.write(RESULT_TOPIC.format(camera=camera_of(entry.topic)), entry.log_time_ns, cdr)
        outcome.writing_s += time.perf_counter() - start
    return outcome


def _perceive(
    image: bytes,
    message_type: str,
    entry: Entry,
    perception: ActivePerception,
    query: Query,
    budget: Budget,
    outcome: ReplayOutcome,
) -> Any:
    """The `PerceptionResult` for one image message; None if not even its header can be read."""
    camera = camera_of(entry.topic)
    start = time.perf_counter()
    try:
        message = image_message(image, message_type)
    except InvalidInput as error:
        outcome.unreadable += 1
        outcome.reasons.append(str(error))
        return None
    try:
        frame = frame_from_message(message, message_type, camera)
    except InvalidInput as error:
        width, height = getattr(message, "width", 0), getattr(message, "height", 0)
        result = Result(width, height, query, Status.FAILED, str(error))
        outcome.reading_s += time.perf_counter() - start
    else:
        decoded = time.perf_counter()
        outcome.reading_s += decoded - start
        result = perception.perceive(frame, query, budget)
        outcome.perceiving_s += time.perf_counter() - decoded
    return result_message(result, camera, stamp_ns(message), message.header.frame_id)


def read_recorded(path: Path, settings: dict[str, str]) -> list[bytes]:
    """The results of an earlier run that was cut short, in the order of their stamps; none if there is no file.

    Raises InvalidInput if the file is not from a run with the same settings.
    """
    if not path.exists():
        return []
    from .mcap_storage import McapFile

    file = McapFile(path)
    found = file.metadata(SETTINGS)
    file.close()
    if found != settings:
        differing = sorted(key for key in settings if (found or {}).get(key) != settings[key])
        raise InvalidInput(
            f"{path}: cannot be resumed, it was made from other settings ({', '.join(differing) or 'unknown'}); "
            "give another --out or leave --resume away"
        )
    with Bag(path) as bag:
        topics = [topic.name for topic in bag.topics.values() if topic.type == RESULT_TYPE]
        entries, _ = bag.index(topics)
        return list(_readable(bag, entries))


def _readable(bag: Bag, entries: Sequence[Entry]) -> Iterator[bytes]:
    """The messages that are not damaged; what was computed from the others is computed again."""
    for entry in entries:
        try:
            yield bag.read(entry)
        except DamagedMessage:
            continue
