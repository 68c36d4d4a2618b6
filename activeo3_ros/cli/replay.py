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

"""`activeo3 replay`: run a bag through the core and write the results as a bag."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from .. import __version__
from ..bags.geometry import RecordedGeometry
from ..bags.messages import check_cameras_differ
from ..bags.offline import (
    SETTINGS,
    ReplayOutcome,
    Selection,
    choose_topics,
    read_recorded,
    recording_start_ns,
    replay,
    select,
)
from ..bags.reading import Bag, Damage, Entry
from ..codecs.depth_message import DepthSettings
from ..codecs.video_packets import VIDEO_TYPES
from ..core import Budget, InvalidInput, Query
from ..core.loop import failures_told_by_caller
from ..core.position import DEPTH_ERROR
from ..presets import Preset, load_preset
from .argument_types import number
from .bag_output import check_bag_out, write_anew
from .interruption import Stop, stop_after_this_frame
from .main import FAILURE, SUCCESS
from .options import (
    add_force_argument,
    add_part_arguments,
    add_preset_arguments,
    add_query_arguments,
    budget_of,
    check_not_overwritten,
    query_of,
)
from .progress import progress

EACH_MESSAGE = 1
"""Bytes of a chunk of the results: each result is on its way to the disk before the next frame begins."""
CLOCK_TOLERANCE = 0.01
"""Share by which the time of the stamps may differ from that of the recording."""
LONG_GAP_S = 10.0
MOST_FAULTS = 3
"""Kinds of faults of calibration and depth that are told, those of most frames first."""
LINES_OF_PROGRESS = 10
"""Where there is no terminal for a bar."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("bag", type=Path, metavar="BAG", help="a directory of ROS 2, an .mcap or a .db3 file")
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="T",
        help="a topic with pictures, may be given several times (default: the only one in the bag)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results.mcap"), metavar="FILE", help="the bag to write (default: %(default)s)"
    )
    add_query_arguments(parser)
    add_preset_arguments(parser)
    add_part_arguments(parser)
    parser.add_argument("--with-images", action="store_true", help="copy the pictures beside their results")
    parser.add_argument(
        "--memory", action="store_true", help="weigh the frames of a camera together, as the node does; gives track ids"
    )
    parser.add_argument(
        "--depth",
        default="",
        metavar="T",
        help="with --memory: the topic with depth registered to the pictures, for the positions of tracks "
        "(default: the topic depth beside that of the pictures)",
    )
    parser.add_argument(
        "--depth-tolerance",
        type=number(0.0, 1.0),
        default=0.0,
        metavar="S",
        help="how far the stamps of a picture and its depth may be apart, seconds (default: %(default)s)",
    )
    parser.add_argument(
        "--depth-error",
        type=number(0.0, 0.5),
        default=DEPTH_ERROR,
        metavar="SHARE",
        help="standard deviation of the error that all depths of an object share, of the depth (default: %(default)s)",
    )
    over = parser.add_mutually_exclusive_group()
    over.add_argument("--resume", action="store_true", help="keep the results that an interrupted run left in --out")
    add_force_argument(over)


def run(args: argparse.Namespace) -> int:
    """Index the bag, perceive each selected frame in the order of the stamps, write, count and hash the results."""
    preset = load_preset(args.preset)
    query, budget = query_of(args, preset), budget_of(args, preset)
    if args.memory and args.resume:
        raise InvalidInput("--resume does not go with --memory: each result depends on all frames before; use --force")
    if args.depth and not args.memory:
        raise InvalidInput("--depth is for the positions of tracks, which need --memory")
    _check_out(args.bag, args.out)
    if not args.resume:
        check_not_overwritten([args.out], args.force, "go on from it with --resume, ")
    with Bag(args.bag) as bag:
        selection = Selection(choose_topics(bag, args.topic), args.start, args.duration, args.every)
        check_cameras_differ(selection.topics)
        _check_copied(bag, selection, args)
        start = time.perf_counter()
        entries, damage = bag.index(selection.topics)
        indexing_s = time.perf_counter() - start
        chosen = select(entries, selection)
        if damage:
            print(f"activeo3 replay: {args.bag}: {damage.describe()}", file=sys.stderr)
        if args.start or args.duration is not None:
            _compare_clocks(args.bag, entries)
        if not chosen:
            raise InvalidInput(f"{args.bag}: no frame to replay; {_describe_span(entries)}")
        geometry = _geometry(bag, selection.topics, args) if args.memory else None
        settings = _settings(args, preset, query, budget, chosen, selection)
        recorded = read_recorded(args.out, settings) if args.resume else []
        perception = preset.build()
        perception.task.examine((), query, budget)  # raises UnsupportedQuery before the first frame
        with stop_after_this_frame() as stop, failures_told_by_caller(), write_anew(args.out, EACH_MESSAGE) as writer:
            writer.add_metadata(SETTINGS, settings)
            with progress("replay", len(chosen), LINES_OF_PROGRESS) as show:
                outcome = replay(
                    bag, chosen, perception, query, budget, writer, recorded, args.with_images, args.memory, geometry,
                    goes_on=lambda done, _: _goes_on(show, done, stop),
                )  # fmt: skip
                show(outcome.processed + outcome.unreadable)
    outcome.reading_s += indexing_s
    for reason, count in outcome.failures.items():
        print(f"activeo3 replay: {args.bag}: {count} frames failed: {reason}", file=sys.stderr)
    if outcome.reasons:
        why = "; ".join(dict.fromkeys(outcome.reasons))
        print(f"activeo3 replay: {args.bag}: {outcome.unreadable} selected frames are lost: {why}", file=sys.stderr)
    for fault, images in geometry.faults.most_common(MOST_FAULTS) if geometry else ():
        print(f"activeo3 replay: {args.bag}: {images} frames without bearings or positions: {fault}", file=sys.stderr)
    _report(args.out, outcome, damage, len(chosen))
    if stop.is_wanted:
        raise KeyboardInterrupt
    return FAILURE if outcome.failed and outcome.failed == outcome.processed else SUCCESS


def _check_copied(bag: Bag, selection: Selection, args: argparse.Namespace) -> None:
    """Raise InvalidInput where copied pictures of a video could not be decoded."""
    videos = [topic for topic in selection.topics if bag.topics[topic].type in VIDEO_TYPES]
    if videos and args.with_images and args.every != 1:
        raise InvalidInput(
            f"--with-images does not go with --every for {videos[0]}: the pictures of a video depend on each other"
        )


def _geometry(bag: Bag, topics: Sequence[str], args: argparse.Namespace) -> RecordedGeometry:
    geometry = RecordedGeometry(bag, topics, DepthSettings(args.depth_tolerance, args.depth_error), args.depth)
    if geometry.damage:
        print(f"activeo3 replay: {args.bag}: {geometry.damage.describe()}", file=sys.stderr)
    return geometry


def _goes_on(show: Callable[[float], None], done: int, stop: Stop) -> bool:
    show(done)
    return not stop.is_wanted


def _describe_span(entries: Sequence[Entry]) -> str:
    if not entries:
        return "none of its messages can be read"
    seconds = _span_s([entry.log_time_ns for entry in entries])
    return f"its {len(entries)} frames span {seconds:.3f} s; see --start and --duration"


def _span_s(times_ns: Sequence[int]) -> float:
    return (max(times_ns) - min(times_ns)) / 1e9


def _compare_clocks(bag: Path, entries: Sequence[Entry]) -> None:
    """Say so where the seconds that are selected by may not be those that the user means."""
    if not entries:
        return
    start_ns, times = recording_start_ns(entries), sorted(entry.log_time_ns for entry in entries)
    early, times = bisect_left(times, start_ns), [time for time in times if time >= start_ns]
    stamps_s, recorded_s = _span_s([entry.stamp_ns for entry in entries]), _span_s(times)
    gap_s, after = max(((later - time) / 1e9, n) for n, (time, later) in enumerate(pairwise([*times, times[-1]]), 1))
    notes = []
    if early:
        notes.append(f"{early} frames were recorded before the clock was set")
    if abs(stamps_s - recorded_s) > 1 + CLOCK_TOLERANCE * recorded_s:
        notes.append(f"its stamps span {stamps_s:.3f} s, its recording took {recorded_s:.3f} s")
    if gap_s > max(LONG_GAP_S, recorded_s / 2):
        notes.append(f"nothing was recorded for {gap_s:.3f} s after the first {early + after} frames")
    if notes:
        print(
            f"activeo3 replay: {bag}: {'; '.join(notes)}; --start and --duration count seconds of the recording"
            f"{' after that' if early else ''}",
            file=sys.stderr,
        )


def _check_out(bag: Path, out: Path) -> None:
    check_bag_out(out)
    inside = [bag] if bag.is_file() else list(bag.glob("*")) if bag.is_dir() else []
    if out.exists() and any(out.samefile(file) for file in inside):
        raise InvalidInput(f"--out {out} is the bag to be replayed; give another file")


def _settings(
    args: argparse.Namespace,
    preset: Preset,
    query: Query,
    budget: Budget,
    chosen: Sequence[Entry],
    selection: Selection,
) -> dict[str, str]:
    """The settings that the results depend on: notes in their file, and compared by `--resume`."""
    frames = hashlib.sha256("\n".join(map(str, chosen)).encode()).hexdigest()
    components = {
        "sensing": preset.sensing.facts,
        "task": preset.task.facts,
        "segmenter": preset.segmenter.facts if preset.segmenter else None,
        "examine_view": preset.examine_view,
    }
    return {
        "bag": args.bag.name,
        "version": __version__,
        "preset": preset.name,
        "components": json.dumps(components, sort_keys=True, default=str),
        "query": json.dumps({"text": query.text, "classes": query.classes, "masks": query.masks}, sort_keys=True),
        "budget": json.dumps(asdict(budget), sort_keys=True),
        "topics": json.dumps(selection.topics),
        "frames": f"{len(chosen)} with the stamps {frames}",
        "with_images": str(args.with_images),
        "memory": str(args.memory),
        **({"depth": f"{args.depth}, {args.depth_tolerance} s, {args.depth_error}"} if args.memory else {}),
    }


def _report(out: Path, outcome: ReplayOutcome, damage: Damage, chosen: int) -> None:
    spent = outcome.reading_s + outcome.perceiving_s + outcome.writing_s
    share = 100 * outcome.reading_s / spent if spent else 0.0
    resumed = f", {outcome.resumed} of them from the earlier run" if outcome.resumed else ""
    print(f"frames: {chosen} selected, {outcome.processed} processed{resumed}, {outcome.failed} failed, "
          f"{outcome.unreadable} unreadable")  # fmt: skip
    print(f"lost before selection: {'' if damage.is_exact else 'at least '}{damage.count}")
    if outcome.forgotten:
        print(f"memory: {outcome.forgotten} of the least likely objects were forgotten: more than it holds")
    print(f"time: {spent:.1f} s, {share:.1f} % of it reading and decoding")
    print(f"results: {out}")
    print(f"sha256 without times: {outcome.sha256}")
