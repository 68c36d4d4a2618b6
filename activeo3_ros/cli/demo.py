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

"""`activeo3 demo`: camera frames through separate ROS 2 processes, on real pictures, compared with baselines."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from ..assets.packages import MOTORWAY_PICTURE, TERRAIN_PICTURE, require
from ..bags.frames import read_frames
from ..codecs.image_files import Picture, read_image
from ..core import Frame, Query, Result, Status
from ..demo import report, ros_run
from ..demo.camera_path import film
from ..demo.comparison import METHODS, compare, summarize
from ..demo.processes import ProcessDied
from .argument_types import whole_number
from .main import FAILURE, SUCCESS
from .options import add_force_argument, check_not_overwritten
from .prefetch import prefetch_with_progress
from .progress import progress

PICTURES = (MOTORWAY_PICTURE, TERRAIN_PICTURE)
FRAME_SIZE = (1920, 1080)
"""Width and height in pixels."""
FOLDERS = ("frames", "logs")
FILES = ("camera.mcap", "results.mcap", "summary.json", "comparison.jpg", "film.mp4")
PRESET = "embedded"
QUERY = Query(classes=("car", "truck", "bus", "motorcycle"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/demo"),
        metavar="DIR",
        help="where film, results and pictures go (default: %(default)s)",
    )
    add_force_argument(parser)
    parser.add_argument(
        "--frames", type=whole_number(2, 1000), default=24, metavar="N", help="frames to film (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Film the pictures, play the film to a node, record its results, compare with baselines, report."""
    out: Path = args.out
    bag, recording = out / "camera.mcap", out / "results.mcap"
    check_not_overwritten((out / name for name in (*FOLDERS, *FILES)), args.force)
    ros_run.node_executable()
    prefetch_with_progress("demo")
    _clear(out)

    with progress("film the pictures", args.frames) as show:
        stamps = ros_run.write_bag(bag, _film(args.frames, show))
    try:
        with progress("play, perceive, record", args.frames) as show:
            ros_run.run(bag, recording, out / "logs", PRESET, QUERY.classes, show)
    except ProcessDied as error:
        return _fail(error)
    published = ros_run.read_results(recording)
    counts = ros_run.count_frames(stamps, published)
    if not counts.processed:
        return _fail(_reason_for_no_frame(published, out / "logs"))

    def frames() -> Iterator[Frame]:
        return read_frames(bag, ros_run.IMAGE_TOPIC)

    with progress("compare with a whole view and a grid", args.frames * len(METHODS)) as show:
        results = compare(frames, QUERY, show)
    outcomes = {name: summarize(found) for name, found in results.items()}
    with progress("draw", args.frames) as show:
        report.write_pictures(out / "frames", out / "film.mp4", frames(), published, show)
    first = next(frames())
    report.write_comparison(out / "comparison.jpg", first, [found[0] for found in results.values()])
    report.write_summary(out / "summary.json", counts, outcomes, _node_figures(published, stamps, results[PRESET]))
    print(report.table(counts, outcomes))
    print(
        f"\nlook at {out / 'comparison.jpg'} and {out / 'frames'}/; figures: {out / 'summary.json'}; bag: {recording}"
    )
    return SUCCESS


def _film(count: int, show: Callable[[int], None]) -> Iterator[Picture]:
    """`count` frames, divided among the pictures."""
    done = 0
    for index, picture in enumerate(PICTURES):
        share = (count + index) // len(PICTURES)
        for frame in film(read_image(require(picture)), share, FRAME_SIZE):
            yield frame
            done += 1
            show(done)


def _node_figures(published: dict[int, Result], stamps: list[int], by_core: list[Result]) -> dict[str, object]:
    """The outcome of the node, and the number of frames in which its result equals that of the core without ROS."""
    processed = [r for r in published.values() if r.status is not Status.FAILED]
    pairs = [(published[stamp], result) for stamp, result in zip(stamps, by_core, strict=True) if stamp in published]
    return {
        "query_classes": list(QUERY.classes),
        "node": {
            "preset": PRESET,
            **asdict(summarize(processed)),
            "frames_as_the_core_has_them": sum(report.agree(a, b) for a, b in pairs),
        },
    }


def _reason_for_no_frame(published: dict[int, Result], logs: Path) -> str:
    reasons = sorted({result.status_message for result in published.values()})
    return f"no frame was processed: {'; '.join(reasons) or 'no result came'}; the logs are in {logs}"


def _fail(reason: object) -> int:
    print(f"activeo3 demo: {reason}", file=sys.stderr)
    return FAILURE


def _clear(out: Path) -> None:
    """Remove the files of an earlier demo, and nothing else."""
    out.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)
    for name in FILES:
        (out / name).unlink(missing_ok=True)
