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

"""`activeo3 calibrate`: measure from pictures without labels how far a preset's detector can be believed."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..bags.frames import BagFrames
from ..bags.offline import choose_topics
from ..bags.reading import Bag, DamagedMessage, Entry
from ..codecs.image_files import Picture, find_images, read_image
from ..core import InvalidInput, Query
from ..core.interfaces import Detector, OpenVocabularyDetector
from ..core.optional import require_package
from ..detectors.calibration import SUFFIX, calibration_beside, calibration_text
from ..evaluation.detector_calibration import DetectorCalibration, Measured
from ..evaluation.environment import describe_environment
from ..evaluation.item_files import write_atomically
from ..evaluation.plots import calibration_figure
from ..presets import Preset, load_preset, preset_names
from .argument_types import class_names, number, whole_number
from .main import SUCCESS
from .options import add_seed, check_not_overwritten
from .progress import progress

BLOCKS = 20
"""Parts of a recording that are taken as independent of each other."""
ALL = "all"


@dataclass(frozen=True)
class Material:
    """Pictures to calibrate with.

    Attributes:
        name: What they are, for people, without their number.
        pictures: Name, way to load it, and group of each.
    """

    name: str
    pictures: Sequence[tuple[str, Callable[[], Picture], int]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("preset", metavar="PRESET", help="a preset by name, or a .yaml file: its detector is measured")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--images", nargs="+", metavar="DIR", help="pictures, or directories of them, like those of the camera"
    )
    source.add_argument("--bag", type=Path, metavar="BAG", help="a recording of the camera")
    parser.add_argument("--topic", action="append", default=[], metavar="T", help="a topic of the bag with pictures")
    parser.add_argument(
        "--classes",
        type=class_names,
        help="classes that count, separated by commas, or 'all' (default: those of the preset's query)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=f"the file to write (default: PRESET{SUFFIX} beside a preset file, else here); a figure lies beside it",
    )
    parser.add_argument("--force", action="store_true", help="overwrite an earlier calibration")
    parser.add_argument(
        "--max-pictures",
        type=whole_number(1, 100_000),
        default=300,
        metavar="N",
        help="pictures to look at most, chosen evenly (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds", type=number(1), default=900.0, metavar="S", help="time for it at most (default: %(default)g)"
    )
    parser.add_argument(
        "--sure",
        type=number(0.01, 1),
        default=0.5,
        metavar="SCORE",
        help="score from which the detector is sure of an object (default: %(default)g)",
    )
    add_seed(parser)


def run(args: argparse.Namespace) -> int:
    """Look at pictures as long as there is time, compute, write the file and its figure."""
    preset = load_preset(args.preset)
    _check_has_detector(preset)
    beside = _beside(args.preset)
    out: Path = args.out or beside or Path(preset.name + SUFFIX)
    figure = out.with_suffix(".png")
    check_not_overwritten([out, figure], args.force)
    if not out.parent.is_dir():
        raise InvalidInput(f"{out.parent}: no such directory; give another --out")
    require_package("matplotlib", "to draw the curves of a calibration")  # before minutes of work
    with _material(args) as material:
        task: Any = preset.task.build()
        wanted: tuple[str, ...] = args.classes or preset.query.classes
        classes = () if wanted == (ALL,) else wanted
        if classes:
            classes = task.resolve(Query(classes=classes)).classes
        detector, ids = looking_for(task.detector, classes)
        calibration = DetectorCalibration(detector, task.threshold, args.sure, ids, args.seed)
        _look(calibration, material, args.seconds)
    measured = calibration.measured(f"{len(calibration.records)} {material.name}")
    _write(out, figure, measured, _about(args, preset, measured, classes))
    print(table(measured))
    print(f"\ncalibration: {out}\nfigure: {figure}")
    if out != beside:
        print(f"to use it: task: {{type: {preset.task.type}, calibration: {out.absolute()}}} in a preset file")
    return SUCCESS


def table(measured: Measured) -> str:
    """The curve by side and the values that follow from it, as text."""
    own = measured.calibration
    lines = [f"{'side px':>8} {'tries':>6} {'found':>6} {'95 %':>12} {'edge std px':>12}"]
    for side, tries, found, (low, high), jitter in zip(
        own.sides_px, measured.tries, own.found, measured.found_interval, own.jitter_px, strict=True
    ):
        lines.append(f"{side:>8g} {tries:>6} {found:>6.2f} {low:>5.2f} to {high:.2f} {jitter:>12.1f}")
    low, high = measured.half_found_interval
    lines.append(f"half of its best from {own.half_found_side_px:.0f} px on ({low:.0f} to {high:.0f})")
    low, high = measured.repeated_interval
    if np.isfinite(low):
        lines.append(
            f"of what one look misses, a second at that zoom misses {own.repeated_misses:.2f} ({low:.2f} to {high:.2f})"
        )
    else:
        lines.append(f"too little was missed to compare two looks: {own.repeated_misses:.2f} is the stated default")
    lines.append(f"{measured.objects} sure objects in {measured.pictures} pictures, {measured.boxes} boxes judged")
    return "\n".join(lines)


def _beside(preset: str) -> Path | None:
    """Where a preset file reads its calibration without being told; None for a preset of the package."""
    path = Path(preset).expanduser()
    return None if preset in preset_names() else calibration_beside(path)


def _check_has_detector(preset: Preset) -> None:
    """Tell it before a large model is loaded: a language model has no detector.

    Raises:
        InvalidInput: The task has none.
    """
    if preset.task.detector is None:
        raise InvalidInput(
            f"preset {preset.name!r}: its {preset.task.label} has no detector that could be calibrated; name a preset "
            "whose task is a detector, such as embedded"
        )


def looking_for(detector: Detector, classes: Sequence[str]) -> tuple[Detector, list[int] | None]:
    """The detector that looks for some classes, and the ids of those that count there.

    Args:
        detector: Of fixed classes, or one that finds what words name.
        classes: Names; none for all.

    Returns:
        The detector, and None for all of its classes.

    Raises:
        InvalidInput: A detector of fixed classes lacks one.
    """
    if not classes:
        return detector, None
    if isinstance(detector, OpenVocabularyDetector):
        return detector.for_names(classes), None
    names = list(detector.names)
    unknown = [name for name in classes if name not in names]
    if unknown:
        raise InvalidInput(f"the detector has no class {unknown[0]!r}; it has {', '.join(names)}")
    return detector, [index for index, name in enumerate(names) if name in classes]


@contextmanager
def _material(args: argparse.Namespace) -> Iterator[Material]:
    """The pictures that the user gives, in an order that a time limit may cut."""
    random = np.random.default_rng(args.seed)
    if args.bag is None:
        if args.topic:
            raise InvalidInput("--topic chooses a topic of a --bag; there is none")
        paths, errors = find_images(args.images)
        for error in errors:
            _complain(error)
        if not paths:
            raise InvalidInput(f"no pictures in {', '.join(args.images)}")
        chosen = random.permutation(len(paths))[: args.max_pictures]
        name = f"pictures of {', '.join(args.images)}"
        yield Material(name, [(str(paths[i]), partial(read_image, paths[i]), int(i)) for i in chosen])
        return
    with Bag(args.bag) as bag:
        topics = choose_topics(bag, args.topic)
        entries, damage = bag.index(topics)
        if damage:
            _complain(f"{args.bag}: {damage.describe()}")
        if not entries:
            raise InvalidInput(f"{args.bag}: has no picture that can be read in {', '.join(topics)}")
        count = min(len(entries), args.max_pictures)
        evenly = random.permutation(np.linspace(0, len(entries) - 1, count).round().astype(int))
        name, frames = f"frames of {args.bag.name}, {', '.join(topics)}", BagFrames(bag)
        yield Material(
            name,
            [
                (f"{args.bag}: frame {i + 1}", partial(_frame, frames, entries[i]), int(i * BLOCKS // len(entries)))
                for i in evenly
            ],
        )


def _frame(frames: BagFrames, entry: Entry) -> Picture:
    return frames.frame(entry).image


def _look(calibration: DetectorCalibration, material: Material, seconds: float) -> None:
    """Look at the pictures while there is time; those that cannot be read are named and left out."""
    end = time.monotonic() + seconds
    total = len(material.pictures)
    with progress("look at pictures", total, lines=10, unit="picture") as show:
        for done, (name, load, group) in enumerate(material.pictures):
            if done and time.monotonic() > end:
                _complain(f"{seconds:g} s are over after {done} of {total} pictures; give more --seconds for all")
                break
            try:
                picture = load()
            except (InvalidInput, DamagedMessage) as error:
                text = str(error)
                _complain(text if name in text else f"{name}: {text}")
            else:
                calibration.add(picture, group)
            show(done + 1)
    if not calibration.records:
        raise InvalidInput(f"none of {total} pictures could be read")


def _about(args: argparse.Namespace, preset: Preset, measured: Measured, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "preset": preset.name,
        "detector": preset.task.type,
        "material": measured.calibration.measured,
        "pictures": measured.pictures,
        "sure_objects": measured.objects,
        "boxes": measured.boxes,
        "classes": list(classes) if classes else ALL,
        "sure_score": args.sure,
        "seed": args.seed,
        "date": date.today().isoformat(),
        "versions": describe_environment()["versions"],
        "command": shlex.join(["activeo3", *sys.argv[1:]]),
    }


def _write(out: Path, figure: Path, measured: Measured, about: dict[str, Any]) -> None:
    """Write both files, each whole or not at all."""
    rows = [
        {"found_interval": list(found), "jitter_interval": list(jitter), "tries": tries}
        for found, jitter, tries in zip(measured.found_interval, measured.jitter_interval, measured.tries, strict=True)
    ]
    intervals = {
        "half_found_side_px": list(measured.half_found_interval),
        "repeated_misses": list(measured.repeated_interval),
    }
    picture = calibration_figure(measured, f"{about['detector']}, preset {about['preset']}")
    write_atomically(out, calibration_text(measured.calibration, about, intervals, rows))
    write_atomically(figure, picture)


def _complain(problem: object) -> None:
    print(f"activeo3 calibrate: {problem}", file=sys.stderr)
