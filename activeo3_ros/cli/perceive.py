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

"""`activeo3 perceive`: run the loop on pictures and videos, and print its results."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from ..codecs.image_files import Picture, find_images, read_image, write_image
from ..codecs.picture import caption, draw
from ..codecs.result_json import to_json
from ..core import Box, Budget, Frame, InvalidInput, Result, Status
from ..core.budget import MAX_REGIONS
from ..core.loop import failures_told_by_caller
from ..core.scene import Scene
from ..presets import load_preset
from . import argument_types
from .main import BAD_INPUT, FAILURE, SUCCESS
from .options import (
    add_force_argument,
    add_part_arguments,
    add_preset_arguments,
    add_query_arguments,
    budget_of,
    check_not_overwritten,
    query_of,
)
from .perceive_video import Before, Perceive, frame_source, output_files, perceive_video, split_inputs

TITLES = {"regions": ("without regions", "with regions"), "memory": ("without a memory", "with a memory")}
"""What --compare compares, and the titles of both sides."""
MAX_NAMED = 12
"""Most classes that the line on nothing found names."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="a picture, a directory of pictures, or a video, known by its suffix"
    )
    add_query_arguments(parser)
    add_preset_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a picture or frame, one a line")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="save the annotated picture and the crop of each region; "
        "of a video NAME.annotated.mp4, and NAME.results.jsonl with a JSON object a frame",
    )
    add_force_argument(parser)
    videos = parser.add_argument_group("videos")
    videos.add_argument(
        "--fps",
        type=argument_types.number(0.001, 1000),
        metavar="F",
        help="take the pictures of a directory, in the order of their numbers, as a video of so many frames a second",
    )
    videos.add_argument(
        "--no-memory",
        dest="memory",
        action="store_false",
        help="perceive each frame of a video by itself; else objects are followed over frames and have a track_id",
    )
    videos.add_argument(
        "--compare",
        choices=TITLES,
        help="save NAME.compared.mp4 in place of the annotated video: each frame without regions, or without a memory, "
        "beside the same with them; takes up to twice the time",
    )
    add_part_arguments(videos)


def run(args: argparse.Namespace) -> int:
    """Perceive each picture and each video in turn; one that cannot be read does not stop the others."""
    preset = load_preset(args.preset)
    query, budget = query_of(args, preset), budget_of(args, preset)
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise InvalidInput(f"--out {args.out} is a file; give a directory")
    stills, moving = split_inputs(args.images, args.fps)
    _check_video_arguments(args, bool(moving), budget)
    paths, errors = find_images(stills)
    unreadable = {path: reason for path in moving if (reason := _why_no_video(path, args.fps))}
    videos = [path for path in dict.fromkeys(moving) if path not in unreadable]
    errors += unreadable.values()
    for error in errors:
        _complain(error)
    code = BAD_INPUT if errors else SUCCESS
    if not paths and not videos:
        return code

    stems = _unique_stems([*paths, *videos])
    if args.out is not None:
        earlier = [file for path in paths for file in _saved(args.out, stems[path])]
        earlier += [file for path in videos for file in output_files(args.out, stems[path], bool(args.compare))]
        check_not_overwritten(earlier, args.force)
    perception = preset.build()
    perception.load(query)

    def perceive(frame: Frame, scene: Scene | None = None) -> Result:
        with failures_told_by_caller():
            return perception.perceive(frame, query, budget, scene=scene)

    def before(frame: Frame, scene: Scene | None = None) -> Result:
        regions = 0 if args.compare == "regions" else budget.max_regions
        with failures_told_by_caller():
            return perception.perceive(frame, query, replace(budget, max_regions=regions), scene=scene)

    other = None
    if args.compare:
        other = Before(before, args.memory and args.compare != "memory", TITLES[args.compare])
    for path in tqdm(paths, unit="picture", leave=False, disable=len(paths) < 2 or not sys.stderr.isatty()):
        code = _perceive_picture(path, perceive, stems[path], args) or code
    for path in videos:
        code = _perceive_video(path, perceive, stems[path], args, other) or code
    return code


def _check_video_arguments(args: argparse.Namespace, has_videos: bool, budget: Budget) -> None:
    """Refuse what would have no effect. Raises InvalidInput."""
    if args.compare and args.out is None:
        raise InvalidInput("--compare writes a video: say with --out where")
    if args.compare == "memory" and not args.memory:
        raise InvalidInput("--compare memory: --no-memory has both sides without one")
    if args.compare == "regions" and not budget.max_regions:
        raise InvalidInput("--compare regions: with --max-regions 0 neither side has any")
    given = {
        "--compare": args.compare,
        "--fps": args.fps,
        "--start": args.start,
        "--duration": args.duration,
        "--every": args.every != 1,
    }
    useless = [name for name, value in given.items() if value]
    if useless and not has_videos:
        raise InvalidInput(f"{', '.join(useless)}: there is no video, and no directory that --fps makes one")


def _why_no_video(path: Path, fps: float | None) -> str:
    """Why a video cannot be opened, "" if it can: known before the models are loaded."""
    try:
        with ExitStack() as stack:
            frame_source(stack, path, fps)
    except InvalidInput as error:
        return str(error)
    return ""


def _perceive_picture(path: Path, perceive: Callable[[Frame], Result], stem: str, args: argparse.Namespace) -> int:
    """Perceive, print and save one picture; the exit code."""
    try:
        image = read_image(path)
    except InvalidInput as error:
        _complain(error)
        return BAD_INPUT
    result = perceive(Frame(image))
    if args.json:
        tqdm.write(json.dumps(to_json(result, str(path)), ensure_ascii=False))
    else:
        tqdm.write(describe(path, result))
    if args.out is not None:
        _save(args.out, stem, image, result)
    if result.status is Status.FAILED:
        _complain(f"{path}: {result.status_message}")
        return FAILURE
    return SUCCESS


def _perceive_video(path: Path, perceive: Perceive, stem: str, args: argparse.Namespace, before: Before | None) -> int:
    """Perceive, print and save one video; the exit code. Raises KeyboardInterrupt after an ordered end by Ctrl-C."""
    files = None if args.out is None else output_files(args.out, stem, bool(args.compare))
    try:
        with ExitStack() as stack:
            summary = perceive_video(frame_source(stack, path, args.fps), perceive, files, args, before)
    except InvalidInput as error:
        _complain(error)
        return BAD_INPUT
    if not args.json:
        tqdm.write(summary.describe(path))
    for reason, count in summary.failures.items():
        _complain(f"{path}: {count} frames failed: {reason}")
    for text in (*summary.notes, *summary.problems):
        _complain(f"{path}: {text}")
    if summary.is_interrupted:
        raise KeyboardInterrupt
    return FAILURE if summary.failures else BAD_INPUT if summary.problems else SUCCESS


def describe(path: Path, result: Result) -> str:
    """Describe a result in a few lines.

    Args:
        path: The picture.
        result: Its result, in source pixels.

    Returns:
        Text: size, status and cost; then the regions, the objects by class, the groundings, the answer, a note.
    """
    size, status = f"{result.width} x {result.height} px", result.status.name.lower()
    lines = [f"{path}: {size}, {status}, {result.cost.views} view(s), {result.timings_ms.get('total', 0.0):.0f} ms"]
    for number, region in enumerate(result.regions, start=1):
        reason = caption(region.label, region.score)
        lines.append(f"  region {number}: {_place(region.box)}, zoom {region.zoom:.1f}, {reason}")
    if result.status is not Status.FAILED:
        counts = Counter(detection.label for detection in result.detections)
        found = ", ".join(f"{count} {label}" for label, count in counts.most_common())
        lines.append(f"  found: {found or _nothing(result)}")
    for grounding in result.groundings:
        read = f", reads “{grounding.text}”" if grounding.text else ""
        lines.append(f"  {caption(grounding.phrase, grounding.score)}: {_place(grounding.box)}{read}")
    if result.answer is not None:
        lines.append(f"  answer: {result.answer}")
    if result.status_message and result.status is not Status.FAILED:
        lines.append(f"  note: {result.status_message}")
    return "\n".join(lines)


def _nothing(result: Result) -> str:
    """That nothing was found, and of which classes: of another one there may be something."""
    classes = result.query.classes
    if result.query.text or not classes:
        return "nothing"
    if len(classes) > MAX_NAMED:
        return f"nothing; only {len(classes)} classes were looked for"
    return f"nothing; only {', '.join(classes)} {'was' if len(classes) == 1 else 'were'} looked for"


def _place(box: Box) -> str:
    return f"{box.width:.0f} x {box.height:.0f} px at {box.x:.0f}, {box.y:.0f}"


def _unique_stems(paths: list[Path]) -> dict[Path, str]:
    """A distinct name for the output of each picture: the stem of its file, with a number where others have it too."""
    stems: dict[Path, str] = {}
    for path in paths:
        stem, number = path.stem, 1
        while stem in stems.values():
            number += 1
            stem = f"{path.stem}-{number}"
        stems.setdefault(path, stem)
    return stems


def _saved(directory: Path, stem: str) -> list[Path]:
    """The files of a picture that an earlier run saved."""
    files = [_annotated(directory, stem), *(_crop(directory, stem, number) for number in range(1, MAX_REGIONS + 1))]
    return [file for file in files if file.exists()]


def _annotated(directory: Path, stem: str) -> Path:
    return directory / f"{stem}.annotated.jpg"


def _crop(directory: Path, stem: str, number: int) -> Path:
    return directory / f"{stem}.region{number}.png"


def _save(directory: Path, stem: str, image: Picture, result: Result) -> None:
    for file in _saved(directory, stem):  # else the regions of an earlier run would stand beside those of this one
        file.unlink()
    write_image(_annotated(directory, stem), draw(image, result))
    for number, region in enumerate(result.regions, start=1):
        window = region.box.snapped(result.width, result.height)
        write_image(_crop(directory, stem, number), image[window.slices()])


def _complain(problem: object) -> None:
    tqdm.write(f"activeo3: {problem}", file=sys.stderr)
