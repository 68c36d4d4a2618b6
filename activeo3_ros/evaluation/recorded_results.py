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

"""Results that a node or a replay recorded in a bag, for judging them without perceiving again.

`PerceptionResult` is read where the bag has it, else `TrackArray`: a track has a box, a label and an existence, and no
score. Each result is that of the image whose stamp it copied; a frame that has none is told, never taken as empty.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bags.messages import stamp_ns
from ..bags.reading import Bag, read_messages
from ..codecs.result_cdr import RESULT_TYPE
from ..codecs.result_message import from_message
from ..core import Box, Detection, InvalidInput, Query, Result
from .sequence_truth import TrueSequence

TRACKS_TYPE = "activeo3_ros/msg/TrackArray"
NODE = "activeo3"
"""The node's own name: a topic of tracks does not say where the name of its camera begins."""


@dataclass
class RecordedResults:
    """The results in a bag.

    Attributes:
        path: The bag.
        results: That of each camera and stamp.
        notes: What of the bag could not be read, and what is there twice.
    """

    path: Path
    results: dict[tuple[str, int], Result] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def cameras(self) -> list[str]:
        """The names of the cameras."""
        return sorted({camera for camera, _ in self.results})

    def of_sequence(self, sequence: TrueSequence) -> list[Result | None]:
        """The result of each frame of a sequence, None where there is none.

        Raises:
            InvalidInput: There are several cameras and the sequence names none of them, frames of it have the same
                stamp, or none of them has a result.
        """
        camera = sequence.camera or (self.cameras[0] if len(self.cameras) == 1 else "")
        if camera not in self.cameras:
            told = f"of camera {camera!r}" if camera else "of one camera, and the truth does not say which"
            raise InvalidInput(
                f"{self.path}: sequence {sequence.name}: no results {told}; it has results of "
                f"{', '.join(self.cameras)}; choose one with --topic, such as /{self.cameras[0]}/image_raw"
            )
        stamps = Counter(frame.stamp_ns for frame in sequence.frames)
        if twice := [stamp for stamp, count in stamps.items() if count > 1]:
            raise InvalidInput(
                f"{self.path}: sequence {sequence.name}: {stamps[twice[0]]} frames have the stamp {twice[0]}, so that "
                "their results cannot be told apart"
            )
        found = [self.results.get((camera, frame.stamp_ns)) for frame in sequence.frames]
        if not any(found):
            raise InvalidInput(
                f"{self.path}: none of the {len(found)} frames of sequence {sequence.name} has a result: the results "
                f"have other stamps, such as {next(s for c, s in self.results if c == camera)}"
            )
        extra = sum(name == camera for name, _ in self.results) - sum(each is not None for each in found)
        if extra:
            self.notes.append(f"{extra} results of {camera} are of frames without truth, and are left out")
        return found


def read_results(path: Path) -> RecordedResults:
    """Read the results in a bag.

    Args:
        path: A bag with `PerceptionResult` messages, or with `TrackArray` messages alone.

    Raises:
        InvalidInput: There is no bag, it has no results, or one of them is damaged or holds what no result can.
    """
    with Bag(path) as bag:
        if not bag.topics:
            raise InvalidInput(f"{path}: cannot be read as a bag: it is none, or nothing of its topics is left")
        topics = [topic.name for topic in bag.topics.values() if topic.type == RESULT_TYPE]
        of_tracks = [topic.name for topic in bag.topics.values() if topic.type == TRACKS_TYPE]
        if not topics and not of_tracks:
            raise InvalidInput(
                f"{path}: has no results: no topic is of type {RESULT_TYPE} or {TRACKS_TYPE}; it has "
                f"{', '.join(bag.topics)}"
            )
        _, damage = bag.index(topics or of_tracks)
    recorded = RecordedResults(path)
    if damage:
        recorded.notes.append(f"{path}: {damage.describe()}")
    repeated: Counter[str] = Counter()
    for topic in topics or of_tracks:
        for _, message in read_messages(path, topic):
            where = f"{path}: {topic}: the result at {stamp_ns(message)} ns"
            camera = message.camera if topics else _camera_of_tracks(topic)
            key = camera, stamp_ns(message)
            result = _result(where, message) if topics else _result_of_tracks(message)
            _check(where, result)
            if key in recorded.results:
                repeated[camera] += 1
            else:
                recorded.results[key] = result
    recorded.notes += [
        f"{path}: {count} results of {camera} repeat a stamp; the first of each counts"
        for camera, count in repeated.items()
    ]
    if not recorded.results:
        raise InvalidInput(f"{path}: none of its results can be read")
    return recorded


def _camera_of_tracks(topic: str) -> str:
    """`front/left` of `/robot/activeo3/front/left/tracks`: the node's name comes before the camera's."""
    parts = [part for part in topic.split("/") if part]
    node = parts.index(NODE) if NODE in parts[:-2] else 0
    return "/".join(parts[node + 1 : -1])


def _result(where: str, message: Any) -> Result:
    try:
        return from_message(message)
    except ValueError as error:
        raise InvalidInput(f"{where} is damaged: {error}") from error


def _result_of_tracks(message: Any) -> Result:
    detections = tuple(
        Detection(
            track.label,
            math.nan,
            Box(track.box.x, track.box.y, track.box.width, track.box.height),
            track_id=track.track_id,
            existence=track.existence,
            carried=_nanoseconds(track.last_seen) < stamp_ns(message),
        )
        for track in message.tracks
    )
    return Result(0, 0, Query(), detections=detections)


def _nanoseconds(time: Any) -> int:
    """Nanoseconds of a `builtin_interfaces/Time`."""
    return int(time.sec) * 1_000_000_000 + int(time.nanosec)


def _check(where: str, result: Result) -> None:
    for found in result.detections:
        box = found.box.as_tuple()
        if not all(map(math.isfinite, box)) or found.box.width < 0 or found.box.height < 0:
            raise InvalidInput(f"{where} has the box {box} of {found.label!r}; a box has finite sides of 0 or more")
    twice = [name for name, count in Counter(f.track_id for f in result.detections if f.track_id).items() if count > 1]
    if twice:
        raise InvalidInput(f"{where} has the track id {twice[0]!r} twice")
