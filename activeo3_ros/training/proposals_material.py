"""Pictures to train gain maps with: from folders, videos, bags or COCO annotations, in the order of time or name.

The last part of each source is held out, with a gap before it, so that no picture is judged whose neighbour was
learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..bags.frames import BagFrames
from ..bags.offline import choose_topics
from ..bags.reading import Bag, DamagedMessage
from ..codecs.image_files import Picture, find_images, natural_order, read_image
from ..codecs.video import open_video
from ..core.errors import InvalidInput
from ..core.geometry import Boxes
from ..evaluation.datasets import Dataset, coco_of_images
from ..evaluation.ground_truth import label_key

HELD_OUT = 0.2
"""Share of a source's pictures, the last ones, that a head is judged on."""
GAP = 0.05
"""Share of the pictures between those and the ones that it learns from; neither sees them."""
FEWEST = 5
"""Pictures of a source."""

Labels = tuple[Boxes, npt.NDArray[np.intp]]
T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """Pictures in the order of time or name.

    Attributes:
        name: What they are, for people.
        count: How many there are, about.
        pictures: Reads them: name, picture and labels of each, labels None where there are none. Those that cannot be
            read are told to the function that it is given, and left out.
        classes: Names of the classes that are labelled; none where all objects may be found.
        is_recording: Whether they are frames of a camera, which sees no mosaics.
    """

    name: str
    count: int
    pictures: Callable[[Callable[[str], None]], Iterator[tuple[str, Picture, Labels | None]]]
    classes: tuple[str, ...] = ()
    is_recording: bool = False


def folder_source(paths: Sequence[str], max_pictures: int) -> Source:
    """Pictures in directories, evenly chosen in the order of their names.

    Raises:
        InvalidInput: There are too few.
    """
    found, errors = find_images(paths)
    if errors:
        raise InvalidInput(errors[0])
    files = evenly(sorted(found, key=lambda path: (str(path.parent), natural_order(path))), max_pictures)
    name = f"pictures of {', '.join(paths)}"
    _check_enough(name, len(files))

    def read(complain: Callable[[str], None]) -> Iterator[tuple[str, Picture, None]]:
        for file in files:
            try:
                picture = read_image(file)
            except InvalidInput as error:
                complain(str(error))
                continue
            yield file.name, picture, None

    return Source(name, len(files), read)


def video_source(path: Path, max_pictures: int) -> Source:
    """Frames of a video, evenly chosen.

    Raises:
        InvalidInput: It cannot be read, does not say how long it is, or has too few.
    """
    with open_video(path) as video:
        total = video.count()
    if total is None:
        raise InvalidInput(f"{path}: does not say how long it is; write it anew, with its duration, or give --images")
    every = max(1, -(-total // max_pictures))
    count = -(-total // every)
    _check_enough(str(path), count)

    def read(complain: Callable[[str], None]) -> Iterator[tuple[str, Picture, None]]:
        with open_video(path) as video:
            for frame in video.frames(every=every):
                yield f"{path.name} {frame.time_s:.2f} s", frame.image, None
            for problem in video.problems:
                complain(f"{path}: {problem}")

    return Source(path.name, count, read, is_recording=True)


def bag_source(path: Path, topic: str, max_pictures: int) -> Source:
    """Frames of a topic of a bag, evenly chosen.

    Raises:
        InvalidInput: It cannot be read, or has too few.
    """
    with Bag(path) as bag:
        entries, damage = bag.index([topic])
    chosen = evenly(entries, max_pictures)
    name = f"frames of {path.name}, {topic}"
    _check_enough(name, len(chosen))

    def read(complain: Callable[[str], None]) -> Iterator[tuple[str, Picture, None]]:
        if damage:
            complain(f"{path}: {damage.describe()}")
        with Bag(path) as bag:
            frames = BagFrames(bag)
            for number, entry in enumerate(chosen, start=1):
                try:
                    frame = frames.frame(entry)
                except (InvalidInput, DamagedMessage) as error:
                    complain(f"{path}: picture {number} of {len(chosen)} of {topic}: {error}")
                    continue
                yield f"{path.name} {number}", frame.image, None

    return Source(name, len(chosen), read, is_recording=True)


def bag_sources(path: Path, topics: Sequence[str], max_pictures: int) -> list[Source]:
    """The wanted topics of a bag, a source each, or the only one with pictures.

    Raises:
        InvalidInput: As `bag_source`, or a topic is missing.
    """
    with Bag(path) as bag:
        chosen = choose_topics(bag, topics)
    return [bag_source(path, topic, max(1, max_pictures // len(chosen))) for topic in chosen]


def labelled_source(annotations: Path, images: Path, names: Sequence[str], max_pictures: int) -> Source:
    """Pictures with COCO annotations, in the order of the file.

    Args:
        annotations: The file.
        images: Directory of the pictures.
        names: The detector's classes; annotations of others do not count.
        max_pictures: At most, chosen evenly.

    Raises:
        InvalidInput: The annotations are wrong, none of their classes is one of the detector's, or there are too few
            pictures.
    """
    dataset = coco_of_images(annotations, images, None)
    by_key = {label_key(name): index for index, name in enumerate(names)}
    known = {
        row["id"]: by_key[label_key(row["name"])]
        for row in dataset.truth["categories"]
        if label_key(row["name"]) in by_key
    }
    if not known:
        theirs = ", ".join(str(row["name"]) for row in dataset.truth["categories"][:5])
        raise InvalidInput(f"{annotations}: labels {theirs}, none of which the detector finds; leave out --annotations")
    samples = evenly(dataset.samples, max_pictures)
    _check_enough(str(annotations), len(samples))

    def read(complain: Callable[[str], None]) -> Iterator[tuple[str, Picture, Labels]]:
        for sample in samples:
            try:
                picture = sample.load().image
            except InvalidInput as error:
                complain(str(error))
                continue
            yield str(sample.id), picture, _labels(dataset, sample.id, known)

    classes = tuple(names[index] for index in sorted(set(known.values())))
    return Source(f"pictures of {annotations.name}, labelled", len(samples), read, classes)


def _labels(dataset: Dataset, sample_id: int, known: dict[int, int]) -> Labels:
    rows = [row for row in dataset.objects(sample_id) if row["category_id"] in known and not row["iscrowd"]]
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    class_ids = np.array([known[row["category_id"]] for row in rows], np.intp)
    kept = (boxes[:, 2:] > 0).all(axis=1)
    return boxes[kept], class_ids[kept]


def evenly(things: Sequence[T], count: int) -> list[T]:
    """At most so many of some things, at equal distances, in their order."""
    if len(things) <= count:
        return list(things)
    return [things[index] for index in np.linspace(0, len(things) - 1, count).round().astype(int).tolist()]


def split(things: Sequence[T]) -> tuple[list[T], list[T]]:
    """What is learned from, and the last part, which is held out; those between them belong to neither."""
    held_out = max(1, round(HELD_OUT * len(things)))
    gap = round(GAP * len(things))
    return list(things[: max(0, len(things) - held_out - gap)]), list(things[len(things) - held_out :])


def _check_enough(name: str, count: int) -> None:
    if count < FEWEST:
        raise InvalidInput(
            f"{name}: {count} picture{'' if count == 1 else 's'} {'is' if count == 1 else 'are'} too few to learn from "
            f"some and judge by others; give at least {FEWEST}"
        )
