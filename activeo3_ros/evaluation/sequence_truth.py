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

"""The truth of sequences: frames in their order, and objects that keep their id from frame to frame.

It is read from COCO annotations whose entries have a `track_id`, or from the files of MOTChallenge (`gt.txt`).
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..bags.frames import BagFrames
from ..bags.messages import camera_of
from ..bags.reading import Bag, DamagedMessage, Entry
from ..codecs.image_files import find_images, natural_order, read_image
from ..codecs.video import open_video
from ..core import Box, Frame, InvalidInput
from .datasets import Dataset, stamp_of
from .ground_truth import OWN_ID, label_ids, label_key, read_coco

MOT_COLUMNS = ("frame", "id", "x", "y", "width", "height", "conf", "class", "visibility")
MOT_CLASSES = {1: "person", 3: "car", 4: "bicycle", 5: "motorcycle"}
"""Names for the numbers of MOTChallenge's classes that are objects to find. The others (2 person on a vehicle, 7 static
person, 8 distractor, 9 to 11 occluders, 12 reflection, ...) count neither as found nor as false."""
TRACK_ID_KEYS = ("track_id", "instance_id")
"""Where COCO annotations of videos keep the id of the object."""
FIRST_STAMP_NS = 1
"""Of the first frame of a video: a stamp of 0 means none."""

FrameOrError = Frame | InvalidInput


@dataclass(frozen=True)
class TrackedObject:
    """One object in one frame.

    Attributes:
        id: The same in all frames of the sequence that show it; "" where the truth has no ids.
        category: Number of its category.
        box: In source pixels.
        is_ignored: Whether detections of it count neither as found nor as false.
    """

    id: str
    category: int
    box: Box
    is_ignored: bool = False


@dataclass(frozen=True)
class TrueFrame:
    """One frame of a sequence. name: for people; stamp_ns: of its image, nanoseconds; objects: what is in it."""

    name: str
    stamp_ns: int
    objects: tuple[TrackedObject, ...] = ()


@dataclass(frozen=True)
class TrueSequence:
    """The frames of one camera in the order of their stamps.

    Attributes:
        name: For people.
        camera: Name of the camera, by which results are found; "" for any.
        frames: All frames that are judged.
        read: Decodes these frames one after the other; an error in place of one that cannot be read. None where only
            recorded results are judged.
    """

    name: str
    camera: str
    frames: tuple[TrueFrame, ...]
    read: Callable[[], Iterator[FrameOrError]] | None = None


@dataclass(frozen=True)
class SequenceTruth:
    """Sequences with their truth.

    Attributes:
        sequences: At least one.
        categories: Name of each category by its number.
        label_ids: Category of each label of a result, by its `label_key`.
        facts: Where it is from.
        notes: What a user should know of the truth before the scores are read.
    """

    sequences: tuple[TrueSequence, ...]
    categories: Mapping[int, str]
    label_ids: Mapping[str, int]
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def category_of(self, label: str) -> int | None:
        """The category of a label of a result; None for a label that is no category."""
        return self.label_ids.get(label_key(label))

    @property
    def has_ids(self) -> bool:
        """Whether objects keep an id from frame to frame."""
        frames = (frame for sequence in self.sequences for frame in sequence.frames)
        return all(each.id or each.is_ignored for frame in frames for each in frame.objects)


def joined(parts: Sequence[SequenceTruth]) -> SequenceTruth:
    """The sequences of several truths as one; their categories are those of the first.

    Raises:
        InvalidInput: They have other categories.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.categories != first.categories:
            raise InvalidInput(
                f"the truths have different categories: {', '.join(first.categories.values())}; and "
                f"{', '.join(part.categories.values())}"
            )
    sequences = tuple(sequence for part in parts for sequence in part.sequences)
    names = Counter(sequence.name for sequence in sequences)
    if any(count > 1 for count in names.values()):
        sequences = tuple(
            TrueSequence(f"{number} {each.name}", each.camera, each.frames, each.read)
            for number, each in enumerate(sequences, start=1)
        )
    facts = {"truth": [part.facts for part in parts]} if len(parts) > 1 else first.facts
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return SequenceTruth(sequences, first.categories, first.label_ids, facts, notes)


# ---- MOTChallenge ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MotRow:
    """One line of a file of MOTChallenge; frame: counted from 1; is_judged: its `conf` is not 0."""

    frame: int
    id: int
    box: Box
    is_judged: bool
    category: int
    visibility: float


def read_mot(path: Path) -> list[MotRow]:
    """Read and check a `gt.txt` of MOTChallenge: `frame,id,x,y,width,height,conf,class,visibility` a line.

    Frames count from 1, boxes are pixels of the picture and may reach beyond it, a `conf` of 0 marks objects that are
    not judged.

    Raises:
        InvalidInput: The file cannot be read, or a line is wrong; names the file and the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InvalidInput(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read as text: {error}") from error
    rows: list[MotRow] = []
    seen: dict[tuple[int, int], int] = {}
    for number, cells in enumerate(csv.reader(text.splitlines()), start=1):
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{path}: line {number}"
        row = _mot_row(where, cells)
        other = seen.setdefault((row.frame, row.id), number)
        if other != number:
            raise InvalidInput(f"{where}: the id {row.id} is twice in frame {row.frame}, first in line {other}")
        rows.append(row)
    if not rows:
        raise InvalidInput(f"{path}: is empty, so there is nothing to judge by")
    return rows


def _mot_row(where: str, cells: Sequence[str]) -> MotRow:
    if len(cells) != len(MOT_COLUMNS):
        raise InvalidInput(
            f"{where} has {len(cells)} columns, not the {len(MOT_COLUMNS)} of MOTChallenge ({','.join(MOT_COLUMNS)})"
            "; it may be cut short, or be another file"
        )
    values = dict(zip(MOT_COLUMNS, (_finite(cell) for cell in cells), strict=True))
    for (name, value), cell in zip(values.items(), cells, strict=True):
        if value is None:
            raise InvalidInput(f"{where}: its {name} must be a finite number, got {cell.strip()!r}")
        if name in ("frame", "id", "class") and value != int(value):
            raise InvalidInput(f"{where}: its {name} must be a whole number, got {cell.strip()!r}")
    known = {name: value for name, value in values.items() if value is not None}
    if known["frame"] < 1:
        raise InvalidInput(f"{where}: frames count from 1, got {known['frame']:g}")
    if known["width"] <= 0 or known["height"] <= 0:
        raise InvalidInput(
            f"{where}: width and height must be more than 0 pixels, got {known['width']:g} x {known['height']:g}"
        )
    box = Box(known["x"], known["y"], known["width"], known["height"])
    frame, number, category = int(known["frame"]), int(known["id"]), int(known["class"])
    return MotRow(frame, number, box, known["conf"] != 0, category, known["visibility"])


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def mot_of_bag(
    path: Path,
    bag: Bag,
    topic: str,
    classes: Mapping[int, str] = MOT_CLASSES,
    renamed: Sequence[tuple[str, str]] = (),
) -> SequenceTruth:
    """The truth of the frames of a topic: frame n of the file is its nth message in the order of the stamps.

    Args:
        path: The `gt.txt`.
        bag: The open bag; it stays open as long as the frames are read.
        topic: The topic with pictures.
        classes: Names of the classes to find, by their numbers; objects of others are ignored.
        renamed: Further labels, each with the category that it counts as.

    Raises:
        InvalidInput: The file is wrong, it has frames beyond the bag, or messages of the bag are lost, so that no
            number can be told.
    """
    rows = read_mot(path)
    entries, damage = bag.index([topic])
    if damage.count or not damage.is_exact:
        raise InvalidInput(
            f"{bag.path}: {damage.describe()}, so the frames that {path} numbers cannot be told; give the truth in "
            "COCO's format, by stamps"
        )
    stamps = [(f"{topic} {entry.stamp_ns}", entry.stamp_ns) for entry in entries]
    facts = {"truth": path.name, "bag": bag.path.name, "topic": topic}
    read = partial(_read_bag, bag, tuple(entries))
    return _mot_truth(path, rows, camera_of(topic), f"{bag.path}, {topic}", stamps, read, classes, renamed, facts)


def mot_of_video(
    path: Path,
    video: Path,
    rate: float | None = None,
    classes: Mapping[int, str] = MOT_CLASSES,
    renamed: Sequence[tuple[str, str]] = (),
) -> SequenceTruth:
    """The truth of the frames of a video, or of the numbered pictures of a directory; the arguments as `mot_of_bag`.

    Args:
        path: The `gt.txt`.
        video: A video, or a directory of pictures whose names have numbers.
        rate: Frames a second of a directory of pictures.
        classes: See `mot_of_bag`.
        renamed: Likewise.

    Raises:
        InvalidInput: The file is wrong, it has frames beyond the video, or that cannot be read.
    """
    rows = read_mot(path)
    if video.is_dir():
        step_s = 1 / _rate(video, rate)
        stamps = [(f"{video.name} {n + 1}", _stamp(n * step_s)) for n in range(len(_pictures(video)))]
    else:
        with open_video(video) as opened:
            stamps = [(f"{video.name} {f.number + 1}", _stamp(f.time_s)) for f in opened.frames()]
            if opened.problems:
                raise InvalidInput(
                    f"{video}: {'; '.join(opened.problems)}, so the frames that {path} numbers cannot be told"
                )
    facts = {"truth": path.name, "video": video.name}
    read = partial(_read_video, video, rate)
    return _mot_truth(path, rows, "", str(video), stamps, read, classes, renamed, facts)


def _rate(directory: Path, rate: float | None) -> float:
    if rate is None:
        raise InvalidInput(f"{directory}: is a directory of pictures; say with --fps how many there are in a second")
    return rate


def _pictures(directory: Path) -> list[Path]:
    pictures, errors = find_images([directory])
    if errors:
        raise InvalidInput(errors[0])
    return sorted(pictures, key=natural_order)


def _stamp(time_s: float) -> int:
    return FIRST_STAMP_NS + round(time_s * 1e9)


def _read_bag(bag: Bag, entries: Sequence[Entry]) -> Iterator[FrameOrError]:
    frames = BagFrames(bag)
    for entry in entries:
        try:
            yield frames.frame(entry)
        except (DamagedMessage, InvalidInput) as error:
            yield InvalidInput(f"{bag.path}: {error}")


def _read_video(video: Path, rate: float | None) -> Iterator[FrameOrError]:
    if not video.is_dir():
        with open_video(video) as opened:
            for shown in opened.frames():
                yield Frame(shown.image, _stamp(shown.time_s), camera="video")
        return
    for number, picture in enumerate(_pictures(video)):
        try:
            yield Frame(read_image(picture), _stamp(number / _rate(video, rate)), camera="video")
        except InvalidInput as error:
            yield error


def _mot_truth(
    path: Path,
    rows: Sequence[MotRow],
    camera: str,
    source: str,
    stamps: Sequence[tuple[str, int]],
    read: Callable[[], Iterator[FrameOrError]],
    classes: Mapping[int, str],
    renamed: Sequence[tuple[str, str]],
    facts: Mapping[str, Any],
) -> SequenceTruth:
    last = max(row.frame for row in rows)
    if last > len(stamps):
        raise InvalidInput(f"{path}: has objects in frame {last}, but {source} has {len(stamps)} frames")
    names = dict.fromkeys(classes.values())
    numbers = {name: number for number, name in enumerate(names, start=1)}
    categories = [{"id": number, OWN_ID: number, "name": name} for name, number in numbers.items()]
    objects: dict[int, list[TrackedObject]] = {}
    for row in rows:
        name = classes.get(row.category)
        is_ignored = name is None or not row.is_judged
        category = 0 if name is None else numbers[name]
        objects.setdefault(row.frame, []).append(TrackedObject(str(row.id), category, row.box, is_ignored))
    if all(each.is_ignored for group in objects.values() for each in group):
        raise InvalidInput(
            f"{path}: none of its objects is judged: each has a conf of 0 or another class than "
            f"{', '.join(f'{number} ({name})' for number, name in classes.items())}"
        )
    frames = tuple(
        TrueFrame(name, stamp, tuple(objects.get(number, ()))) for number, (name, stamp) in enumerate(stamps, start=1)
    )
    ids = label_ids({"categories": categories}, renamed)
    name = path.parent.parent.name if path.parent.name == "gt" else path.stem
    return SequenceTruth(
        (TrueSequence(name, camera, frames, read),), {number: name for name, number in numbers.items()}, ids, facts
    )


# ---- COCO ------------------------------------------------------------------------------------------------------------


def coco_by_stamps(path: Path, camera: str = "", renamed: Sequence[tuple[str, str]] = ()) -> SequenceTruth:
    """The truth of frames that COCO annotations name by `stamp`, for results that were recorded; no frame is read.

    Each `topic` of the images is a sequence.

    Args:
        path: File of the annotations.
        camera: The camera of images without a `topic`; "" for any.
        renamed: Further labels, each with the category that it counts as.

    Raises:
        InvalidInput: The annotations are wrong, or two images are of one frame.
    """
    truth = read_coco(path)
    frames: dict[str, dict[int, Any]] = {}
    for row in truth["images"]:
        of_topic = frames.setdefault(str(row.get("topic") or ""), {})
        other = of_topic.setdefault(stamp_of(path, row), row)
        if other is not row:
            raise InvalidInput(f"{path}: the images {other[OWN_ID]} and {row[OWN_ID]} are one frame, {row['stamp']}")
    objects = _coco_objects(path, truth)
    sequences = tuple(
        TrueSequence(
            topic or path.stem,
            camera_of(topic) if topic else camera,
            tuple(
                TrueFrame(f"{topic} {stamp}".strip(), stamp, objects[row["id"]]) for stamp, row in sorted(of.items())
            ),
        )
        for topic, of in frames.items()
    )
    return _coco_truth(path, truth, sequences, label_ids(truth, renamed), {"truth": path.name})


def coco_of_frames(path: Path, dataset: Dataset) -> SequenceTruth:
    """The truth of the frames of a bag as a data set has them; each topic is a sequence.

    Args:
        path: File of the annotations, for messages.
        dataset: As `coco_of_bag` gives it.

    Raises:
        InvalidInput: Some annotations have a `track_id` and some have none, or two of a frame have the same.
    """
    objects = _coco_objects(path, dataset.truth)
    sequences = []
    for topic in dict.fromkeys(sample.topic for sample in dataset.samples):
        samples = sorted((s for s in dataset.samples if s.topic == topic), key=lambda sample: sample.stamp_ns)
        frames = tuple(TrueFrame(s.name, s.stamp_ns, objects[s.id]) for s in samples)
        read = partial(_loaded, [s.load for s in samples])
        sequences.append(TrueSequence(topic, camera_of(topic), frames, read))
    return _coco_truth(path, dataset.truth, tuple(sequences), dataset.label_ids, dataset.facts, dataset.notes)


def coco_of_pictures(path: Path, dataset: Dataset, images: Path, rate: float | None) -> SequenceTruth:
    """The truth of the numbered pictures of a directory as a data set has them: one sequence, in their order.

    Args:
        path: File of the annotations, for messages.
        dataset: As `coco_of_images` gives it.
        images: The directory.
        rate: Frames a second.

    Raises:
        InvalidInput: As `coco_of_frames`, and without a rate.
    """
    objects, step_s = _coco_objects(path, dataset.truth), 1 / _rate(images, rate)
    samples = sorted(dataset.samples, key=lambda sample: natural_order(Path(sample.name)))
    stamps = [_stamp(number * step_s) for number in range(len(samples))]
    frames = tuple(TrueFrame(s.name, stamp, objects[s.id]) for s, stamp in zip(samples, stamps, strict=True))
    read = partial(_loaded, [s.load for s in samples], stamps)
    return _coco_truth(
        path, dataset.truth, (TrueSequence(images.name, "", frames, read),), dataset.label_ids, dataset.facts,
        dataset.notes,
    )  # fmt: skip


def _loaded(loads: Sequence[Callable[[], Frame]], stamps: Sequence[int] = ()) -> Iterator[FrameOrError]:
    for number, load in enumerate(loads):
        try:
            frame = load()
            yield Frame(frame.image, stamps[number], camera="video") if stamps else frame
        except InvalidInput as error:
            yield error


def _coco_objects(path: Path, truth: Mapping[str, Any]) -> dict[int, tuple[TrackedObject, ...]]:
    """The objects of each image by its id; crowds are ignored."""
    found: dict[int, dict[str, TrackedObject]] = {row["id"]: {} for row in truth["images"]}
    for row in truth["annotations"]:
        if row["bbox"][2] <= 0 or row["bbox"][3] <= 0:
            continue  # COCO has such ones; no box can overlap them
        given = next((row[key] for key in TRACK_ID_KEYS if row.get(key) is not None), None)
        text = "" if given is None else str(given).strip()
        of_image = found[row["image_id"]]
        key = text or f"annotation {row['id']}"
        if key in of_image:
            raise InvalidInput(
                f"{path}: the track_id {text} is twice in one image, the second time in annotation {row[OWN_ID]}"
            )
        of_image[key] = TrackedObject(text, row["category_id"], Box(*row["bbox"]), bool(row["iscrowd"]))
    return {image: tuple(objects.values()) for image, objects in found.items()}


def _coco_truth(
    path: Path,
    truth: Mapping[str, Any],
    sequences: tuple[TrueSequence, ...],
    labels: Mapping[str, int],
    facts: Mapping[str, Any],
    notes: tuple[str, ...] = (),
) -> SequenceTruth:
    judged = [each for s in sequences for frame in s.frames for each in frame.objects if not each.is_ignored]
    with_id = sum(bool(each.id) for each in judged)
    if 0 < with_id < len(judged):
        raise InvalidInput(
            f"{path}: {with_id} of {len(judged)} annotations have a track_id; sequences need one for each, or none"
        )
    if judged and not with_id:
        notes = (*notes, f"{path.name} has no track_id, so that nothing can be said of ids and first detections")
    categories = {int(row["id"]): str(row["name"]) for row in truth["categories"]}
    return SequenceTruth(sequences, categories, labels, facts, notes)
