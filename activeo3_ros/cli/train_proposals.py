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

"""`activeo3 train proposals`: train where to look from a robot's own recordings, with labels or without."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..assets.cache import cache_directory
from ..codecs.image_files import Picture
from ..core import InvalidInput
from ..core.optional import require_package
from ..presets import Component, Preset, load_preset
from ..settings import settings_of
from ..training.proposals_material import (
    ALL,
    Labels,
    Source,
    bag_sources,
    folder_source,
    labelled_source,
    video_source,
)
from ..training.proposals_split import divided
from ..training.proposals_teacher import VERSION, LookCache, LookedPicture, Teacher
from ..training.threads import each_ahead
from .argument_types import number, part, whole_number
from .main import INTERRUPTED, SUCCESS
from .options import add_seed, check_not_overwritten
from .progress import progress

if TYPE_CHECKING:
    from ..training.proposals import TrainingSettings

DEFAULT_OUT = Path("gain_maps")
MOST_SCENES, SCENES_PER_PICTURE = 96, 8
"""Scenes that a head is judged on: of few held-out pictures more would tell no more."""
MINUTES = 25.0
INPUTS = {"both": (True, True), "view": (True, False), "boxes": (False, True)}
"""Whether the head sees the view, and whether it sees the boxes, by the value of the option."""
CACHE_BYTES = 2 * 10**9
"""Of the looks at pictures that are kept, together."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    source = parser.add_argument_group("pictures, of one or several kinds, with labels and without")
    source.add_argument(
        "--bag", type=Path, action="append", default=[], metavar="BAG", help="a recording of the camera"
    )
    source.add_argument("--topic", action="append", default=[], metavar="T", help="a topic of the bags with pictures")
    source.add_argument("--videos", type=Path, nargs="+", default=[], metavar="FILE", help="videos of the camera")
    source.add_argument("--images", nargs="+", default=[], metavar="DIR", help="pictures, or directories of them")
    source.add_argument(
        "--annotations",
        type=Path,
        nargs=2,
        action="append",
        default=[],
        metavar=("FILE", "DIR"),
        help="pictures with labels: a COCO file, or the .yaml of a YOLO data set, and the directory of its pictures",
    )
    source.add_argument(
        "--part",
        type=part,
        default=ALL,
        metavar="LOW:HIGH",
        help="part of each source to use, in the order of time or name; what is left can judge the head later, such as "
        "0:0.75 (default: 0:1, all of it)",
    )
    source.add_argument("--ignore-labels", action="store_true", help="take labelled pictures as if they had no labels")
    parser.add_argument(
        "--preset",
        default="embedded",
        help="its detector is the teacher; a name or a .yaml file (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=DEFAULT_OUT,
        metavar="DIR",
        help="for head, report, checkpoint (default: %(default)s)",
    )
    parser.add_argument(
        "--minutes",
        type=number(0.1, 10_000),
        default=MINUTES,
        metavar="M",
        help="choose --max-pictures and --steps, where they are not given, so that the head is ready in about so many "
        "minutes (default: %(default)s)",
    )
    parser.add_argument(
        "--max-pictures",
        type=whole_number(5, 100_000),
        metavar="N",
        help="pictures of each source that are looked at, chosen evenly (default: by --minutes)",
    )
    parser.add_argument("--steps", type=whole_number(1, 1_000_000), metavar="N", help="batches (default: by --minutes)")
    parser.add_argument(
        "--stage2",
        type=whole_number(0, 1_000_000),
        default=0,
        metavar="N",
        help="batches of a second stage, which rewards sampled sets of windows; its head is kept only where it finds "
        "more in the held-out pictures, by more than chance (default: %(default)s)",
    )
    add_seed(parser)
    parser.add_argument(
        "--afresh", action="store_true", help="start anew instead of going on from the checkpoint in --out"
    )
    parser.add_argument("--force", action="store_true", help="overwrite the head and the report in --out")
    parser.add_argument(
        "--jobs",
        type=whole_number(1, 256),
        default=1,
        metavar="N",
        help="pictures and scenes that are worked on at once; the head does not depend on it (default: %(default)s)",
    )
    parser.add_argument(
        "--inputs",
        choices=tuple(INPUTS),
        default="both",
        help="what the head sees: the view, the detector's boxes, or both (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Look at the pictures, train, write head and report, and say how to use it."""
    from ..training.proposals import CHECKPOINT, HEAD
    from ..training.proposals_report import REPORT

    require_package("matplotlib", "to draw the curves of the report")  # before minutes of work
    # The report comes last: a head without it is of a run that was stopped, which goes on.
    goes_on = (args.out / CHECKPOINT).is_file() and not (args.out / REPORT).exists() and not args.afresh
    check_not_overwritten([args.out / HEAD, args.out / REPORT], args.force or goes_on)
    preset = load_preset(args.preset)
    if preset.task.detector is None:
        raise InvalidInput(
            f"preset {preset.name!r}: its {preset.task.label} has no detector to learn from; name a preset whose task "
            "is a detector, such as embedded"
        )
    task: Any = _one_thread_each(preset.task, args.jobs).build()
    sources = _sources(args, task)
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        _plan(args, preset, task, sources)
        training, held_out = _looked(args, task, preset, sources)
        return _train(args, preset, task, sources, training, held_out)
    except KeyboardInterrupt:
        _complain("interrupted; the same command goes on from the last looks and the last checkpoint")
        return INTERRUPTED
    except OSError as error:
        if error.filename is not None:
            raise
        raise InvalidInput(  # of a file that was open, such as on a disk that is full
            f"{args.out} or {cache_directory()}: {error.strerror or error}; free some space, give the command again: "
            "it goes on where it was"
        ) from error


def _one_thread_each(task: Component, jobs: int) -> Component:
    """A task whose detector takes one thread a picture where several are worked on."""
    takes = "threads" in settings_of(task.detector_class) if task.detector_class is not None else False
    return replace(task, settings={**task.settings, "threads": 1}) if jobs > 1 and takes else task


def _sources(args: argparse.Namespace, task: Any) -> list[Source]:
    """What the user gives. Raises InvalidInput where that is nothing, or does not fit together."""
    if args.topic and not args.bag:
        raise InvalidInput("--topic chooses a topic of a --bag; there is none")
    if args.annotations and task.open_vocabulary:
        raise InvalidInput("--annotations needs a detector with classes of its own; give the pictures as --images")
    sources = [each for bag in args.bag for each in bag_sources(bag, args.topic, args.part)]
    sources += [video_source(video, args.part) for video in args.videos]
    sources += [
        labelled_source(annotations, images, task.detector.names, args.part) for annotations, images in args.annotations
    ]
    if args.images:
        sources.append(folder_source(args.images, args.part))
    if not sources:
        raise InvalidInput("nothing to learn from: give --bag, --videos, --images or --annotations")
    return sources


def _plan(args: argparse.Namespace, preset: Preset, task: Any, sources: Sequence[Source]) -> None:
    """Choose how many pictures and batches there are, where the user does not, and say how long it takes."""
    from ..training.proposals_plan import keep_plan, kept_plan, planned, timed_costs

    if args.max_pictures is not None and args.steps is not None:
        return
    asked = [args.minutes, args.max_pictures, args.steps, args.stage2, *(s.name for s in sources), *args.part]
    plan = None if args.afresh else kept_plan(args.out, asked)
    if plan is None:
        settings, teacher = _settings(args, MOST_SCENES), _teacher(task)
        looked, look_s = [], []
        for source in sources:
            _, picture, labels = next(source.pictures(_complain, 1), (None, None, None))
            if picture is None:
                raise InvalidInput(f"{source.name}: no picture could be read")
            started = time.monotonic()
            looked.append(teacher.look(picture, labels))
            look_s.append(time.monotonic() - started)
        costs = timed_costs(task, looked, look_s, preset.budget, preset.query, settings)
        available = [source.available for source in sources]
        plan = planned(args.minutes, costs, available, settings, args.max_pictures, args.steps)
        keep_plan(args.out, asked, plan)
    args.max_pictures, args.steps = plan.max_pictures, plan.steps
    again = f"--max-pictures {plan.max_pictures} --steps {plan.steps}"
    minutes = max(1, round(plan.seconds / 60))
    too_long = " at least" if plan.seconds > 60 * args.minutes else ""
    print(f"about {minutes} min{too_long}; for the same head again, give {again}", file=sys.stderr)


def _teacher(task: Any) -> Teacher:
    return Teacher(task.detector, task.label, task.threshold, task.calibration)


def _settings(args: argparse.Namespace, scenes: int) -> TrainingSettings:
    """How the head is trained; a plan has not chosen the steps yet."""
    from ..training.proposals import TrainingSettings

    view, boxes = INPUTS[args.inputs]
    return TrainingSettings(
        args.seed, args.steps or 0, validation_scenes=scenes, view=view, boxes=boxes, stage2_steps=args.stage2
    )


def _looked(
    args: argparse.Namespace, task: Any, preset: Preset, sources: Sequence[Source]
) -> tuple[list[LookedPicture], list[LookedPicture]]:
    """What the teacher finds in pictures to learn from, and in those that are held out."""
    teacher = _teacher(task)
    facts = [preset.task.facts, VERSION, task.calibration.measured, task.threshold]
    cache = LookCache(cache_directory() / "looks", [str(fact) for fact in facts], CACHE_BYTES)
    jobs = args.jobs if task.detector.concurrent else 1
    groups = []
    for source in sources:
        count = min(args.max_pictures, source.available)
        known = tuple(index for index, name in enumerate(task.detector.names) if name in source.classes)

        def look(each: tuple[str, Picture, Labels | None]) -> LookedPicture:
            return cache.look(teacher, each[1], None if args.ignore_labels else each[2])

        looked = []
        with progress(f"look at {source.name}", count, lines=10, unit="picture") as show:
            for record in each_ahead(look, source.pictures(_complain, args.max_pictures), jobs):
                known = () if args.ignore_labels or len(known) == len(task.detector.names) else known
                looked.append(replace(record, classes=known, is_frame=source.is_recording))
                show(len(looked))
        groups.append(looked)
    training, held_out, left_out = divided(groups)
    if left_out:
        _complain(f"{left_out} pictures are not learned from: they look like one that is held out")
    if not training or not held_out:
        raise InvalidInput("too few pictures could be read to learn from some and judge by others")
    return training, held_out


def _train(
    args: argparse.Namespace,
    preset: Preset,
    task: Any,
    sources: Sequence[Source],
    training: Sequence[LookedPicture],
    held_out: Sequence[LookedPicture],
) -> int:
    from ..training.proposals import ProposalsTrainer
    from ..training.proposals_report import gain_table, preset_lines, second_stage, write_report

    material = [f"{source.name}: {min(args.max_pictures, source.available)}" for source in sources]
    material.append(f"{len(training)} pictures to learn from, {len(held_out)} held out, the last of each source")
    settings = _settings(args, min(MOST_SCENES, SCENES_PER_PICTURE * len(held_out)))
    started = time.monotonic()
    trainer = ProposalsTrainer(
        task,
        preset.budget,
        preset.query,
        training,
        held_out,
        settings,
        {"material": material, "date": date.today().isoformat()},
        args.jobs,
    )
    with progress("train", settings.all_steps, lines=20, unit="step") as show:
        outcome = trainer.train(args.out, show, resume=not args.afresh)
    material.append(f"{time.monotonic() - started:.0f} s of training, seed {args.seed}")
    report = write_report(trainer, outcome, material, args.out)
    for row in gain_table(outcome):
        print(f"{row[0]:<38}" + "".join(f"{cell:>12}" for cell in row[1:]))
    if outcome.stages:
        print(second_stage(outcome))
    print(f"\nhead: {outcome.head}\nreport: {report}\nto use it, in a preset file:\n{preset_lines(outcome.head)}")
    return SUCCESS


def _complain(text: str) -> None:
    print(f"activeo3: {text}", file=sys.stderr)
