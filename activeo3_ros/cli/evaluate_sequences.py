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

"""The part of `activeo3 evaluate` for sequences: bags, videos and numbered pictures whose objects keep their ids."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ..bags.messages import camera_of
from ..bags.offline import choose_topics
from ..bags.reading import Bag
from ..core import InvalidInput, Query
from ..core.optional import require_package
from ..evaluation.benchmark import NEEDED, make_results_directory
from ..evaluation.datasets import Dataset, coco_of_bag, coco_of_images
from ..evaluation.methods import choose_methods
from ..evaluation.metrics import MAX_DETECTIONS
from ..evaluation.recorded_results import RecordedResults, read_results
from ..evaluation.sequence_report import notes_on_methods, text_comparison, text_table, write_reports
from ..evaluation.sequence_runs import (
    Results,
    SequenceMethod,
    judge_sequences,
    perceive_sequences,
    with_and_without_memory,
)
from ..evaluation.sequence_truth import (
    MOT_CLASSES,
    SequenceTruth,
    coco_by_stamps,
    coco_of_frames,
    coco_of_pictures,
    joined,
    mot_of_bag,
    mot_of_video,
)
from ..evaluation.settings import RunSettings
from ..evaluation.tracking_scores import check_installed
from . import argument_types
from .main import FAILURE, SUCCESS
from .options import run_settings
from .progress import PROGRESS_LINES, progress


def add_sequence_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for sequences."""
    group = parser.add_argument_group("sequences")
    group.add_argument(
        "--sequences",
        action="store_true",
        help="judge frames as sequences, with a memory and without; --mot and --results do, too",
    )
    group.add_argument(
        "--results",
        type=Path,
        action="append",
        metavar="BAG",
        help="judge the results that the node or activeo3 replay recorded, and perceive nothing; "
        "with several --mot one for each of them",
    )
    group.add_argument(
        "--video", type=Path, action="append", metavar="VIDEO", help="the video of each --mot, in their order"
    )
    group.add_argument(
        "--fps", type=argument_types.number(0.001, 1000), metavar="F", help="frames a second of --images as a sequence"
    )
    group.add_argument(
        "--mot-class",
        type=argument_types.numbered_class,
        action="append",
        default=[],
        metavar="NUMBER=NAME",
        help="name of a class of --mot (default: "
        f"{', '.join(f'{number}={name}' for number, name in MOT_CLASSES.items())}; objects of others are ignored)",
    )


def query_instead(args: argparse.Namespace) -> Query | None:
    """The user's query instead of the names of all categories; None if there is none."""
    return Query(args.query or "", args.classes or ()) if args.query or args.classes else None


def check_stills(args: argparse.Namespace) -> None:
    """Refuse what only sequences have, and several bags. Raises InvalidInput."""
    given = {"--video": args.video, "--fps": args.fps, "--mot-class": args.mot_class}
    if useless := [name for name, value in given.items() if value]:
        raise InvalidInput(f"{', '.join(useless)}: only sequences have that; add --sequences, or give --mot")
    if args.bag and len(args.bag) > 1:
        raise InvalidInput("--coco takes one --bag")


def annotated_bag(args: argparse.Namespace, stack: ExitStack) -> Dataset:
    """The frames of the bag that the annotations name by stamp; says how many of them it has not."""
    (path,) = args.bag
    bag = stack.enter_context(Bag(path))
    topics = choose_topics(bag, args.topic)
    dataset, missing = coco_of_bag(args.coco, bag, topics, query_instead(args), args.count_as)
    if missing:
        print(
            f"activeo3 evaluate: {missing} frames of {args.coco} are not in {path}; they are left out", file=sys.stderr
        )
    return dataset


def run_sequences(args: argparse.Namespace) -> int:
    """Load the truth, perceive the frames with a memory and without or read recorded results, score, report."""
    _check(args)
    check_reports()
    make_results_directory(args.out)
    with ExitStack() as stack:
        truth = _truth(args, stack)
        if args.results:
            recorded = [read_results(path) for path in args.results]
            methods = [SequenceMethod("recorded")]
            results = {methods[0].id: _recorded(truth, recorded)}
            question = "How good and how steady are the recorded results?"
            notes = [note for each in recorded for note in each.notes]
            return judge_and_report(run_settings(args, question), truth, methods, results, notes)
        query = query_instead(args) or Query(classes=tuple(truth.categories.values()))
        methods = with_and_without_memory(choose_methods(args.preset or ["embedded"], args.regions, False))
        settings = run_settings(args, "What does the memory do to what is found, when, and how steadily?")
        return perceive_and_judge(settings, truth, query, methods)


def perceive_and_judge(
    settings: RunSettings, truth: SequenceTruth, query: Query, methods: Sequence[SequenceMethod]
) -> int:
    """Perceive sequences with all methods, score and report; the exit code."""
    check_reports()
    if truth.has_ids:
        check_installed()
    frames = len(methods) * sum(len(sequence.frames) for sequence in truth.sequences)
    with progress("frames", frames, PROGRESS_LINES) as show:
        results = perceive_sequences(settings, truth, query, methods, show)
    return judge_and_report(settings, truth, methods, results)


def check_reports() -> None:
    """Check, before hours of work, that a report can be written. Raises MissingPackageError."""
    for package, requirement in NEEDED.items():
        require_package(package, "to score and report", requirement)


def judge_and_report(
    settings: RunSettings,
    truth: SequenceTruth,
    methods: Sequence[SequenceMethod],
    results: dict[str, Results],
    notes: Sequence[str] = (),
) -> int:
    """Score results, write the reports and print the main numbers; the exit code."""
    judged, comparisons = judge_sequences(settings, truth, methods, results)
    notes = list(dict.fromkeys([*truth.notes, *notes, *notes_on_methods(judged)]))
    write_reports(settings, truth, judged, comparisons, notes, results)
    print(text_table(judged))
    for comparison in comparisons:
        print(text_comparison(comparison))
    for note in notes:
        print(note, file=sys.stderr)
    print(f"report: {settings.out / 'report.html'}; numbers: {settings.out / 'metrics.json'}")
    return FAILURE if any(not sum(s.judged for s in each.sequences) for each in judged) else SUCCESS


def check_sequence_options(args: argparse.Namespace, kind: str) -> None:
    """Refuse options of runs that sequences do not have.

    Args:
        args: With the arguments of `add_run_arguments`.
        kind: What is judged, for the message.

    Raises:
        InvalidInput: One is given.
    """
    given = {
        "--baselines": args.baselines,
        "--counterfactual": args.counterfactual,
        "--workers": args.workers != 1,
        "--max-dets": args.max_dets != MAX_DETECTIONS[-1],
    }
    if useless := [name for name, value in given.items() if value]:
        raise InvalidInput(f"{', '.join(useless)}: has no effect on {kind}")


def _check(args: argparse.Namespace) -> None:
    """Refuse what does not go together, before anything is read. Raises InvalidInput."""
    kind = f"{'recorded results' if args.results else 'sequences'} with --{'coco' if args.coco else 'mot'}"
    check_sequence_options(args, kind)
    useless = {"--masks": args.masks}
    if args.results:
        for name in ("preset", "regions", "query", "classes", "images", "video", "fps"):
            useless[f"--{name}"] = getattr(args, name)
    elif args.images is None:
        useless["--fps"] = args.fps
    if args.coco:
        useless |= {"--mot-class": args.mot_class, "--video": args.video}
    if wrong := [name for name, value in useless.items() if value]:
        raise InvalidInput(f"{', '.join(wrong)}: has no effect on {kind}")
    truths = len(args.mot) if args.mot else 1
    for name in ("bag", "video", "results"):
        given = getattr(args, name)
        if given and len(given) != truths:
            raise InvalidInput(f"give as many --{name} as there are truths: {truths}, got {len(given)}")
    sources = [name for name in ("images", "bag", "video") if getattr(args, name)]
    if len(sources) > 1 or (not sources and not (args.coco and args.results)):
        hint = ", whose frames the numbers of --mot count" if args.results else ""
        raise InvalidInput(f"give one of --images, --bag and --video{hint}, got {' and '.join(sources) or 'none'}")
    if args.images and truths > 1:
        raise InvalidInput("--images is one sequence; give each further --mot a --video or a command of its own")


def _truth(args: argparse.Namespace, stack: ExitStack) -> SequenceTruth:
    if args.mot:
        classes = dict(args.mot_class) or MOT_CLASSES
        if args.bag:
            parts = []
            for path, file in zip(args.mot, args.bag, strict=True):
                bag = stack.enter_context(Bag(file))
                (topic,) = _one(choose_topics(bag, args.topic))
                parts.append(mot_of_bag(path, bag, topic, classes, args.count_as))
            return joined(parts)
        videos = args.video or [args.images]
        return joined(
            [
                mot_of_video(path, video, args.fps, classes, args.count_as)
                for path, video in zip(args.mot, videos, strict=True)
            ]
        )
    if args.bag:
        return coco_of_frames(args.coco, annotated_bag(args, stack))
    if args.images:
        dataset = coco_of_images(args.coco, args.images, query_instead(args), args.count_as)
        return coco_of_pictures(args.coco, dataset, args.images, args.fps)
    camera = camera_of(_one(args.topic)[0]) if args.topic else ""
    return coco_by_stamps(args.coco, camera, args.count_as)


def _one(topics: Sequence[str]) -> Sequence[str]:
    if len(topics) > 1:
        raise InvalidInput(f"the truth is that of one topic, got {', '.join(topics)}; give one --topic")
    return topics


def _recorded(truth: SequenceTruth, recorded: Sequence[RecordedResults]) -> Results:
    if len(recorded) == 1:
        return [recorded[0].of_sequence(sequence) for sequence in truth.sequences]
    return [each.of_sequence(sequence) for each, sequence in zip(recorded, truth.sequences, strict=True)]
