"""`activeo3 perceive`: run the loop on pictures and print its results."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from ..codecs.image_files import Picture, find_images, read_image, write_image
from ..codecs.picture import caption, draw
from ..codecs.result_json import to_json
from ..core import Box, Frame, InvalidInput, Result, Status
from ..core.budget import MAX_REGIONS
from ..core.loop import failures_told_by_caller
from ..presets import load_preset
from .main import BAD_INPUT, FAILURE, SUCCESS
from .options import (
    add_force_argument,
    add_preset_arguments,
    add_query_arguments,
    budget_of,
    check_not_overwritten,
    query_of,
)

MAX_NAMED = 12
"""Most classes that the line on nothing found names."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a picture, or a directory of pictures")
    add_query_arguments(parser)
    add_preset_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a picture, one a line")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="save the annotated picture and the crop of each region"
    )
    add_force_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Perceive each picture in turn; a picture that cannot be read does not stop the others."""
    preset = load_preset(args.preset)
    query, budget = query_of(args, preset), budget_of(args, preset)
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise InvalidInput(f"--out {args.out} is a file; give a directory")
    paths, errors = find_images(args.images)
    for error in errors:
        _complain(error)
    code = BAD_INPUT if errors else SUCCESS
    if not paths:
        return code

    stems = _unique_stems(paths)
    if args.out is not None:
        check_not_overwritten((file for stem in stems.values() for file in _saved(args.out, stem)), args.force)
    perception = preset.build()
    perception.load(query)
    for path in tqdm(paths, unit="picture", leave=False, disable=len(paths) == 1 or not sys.stderr.isatty()):
        try:
            image = read_image(path)
        except InvalidInput as error:
            _complain(error)
            code = code or BAD_INPUT
            continue
        with failures_told_by_caller():
            result = perception.perceive(Frame(image), query, budget)
        if args.json:
            tqdm.write(json.dumps(to_json(result, str(path)), ensure_ascii=False))
        else:
            tqdm.write(describe(path, result))
        if result.status is Status.FAILED:
            _complain(f"{path}: {result.status_message}")
            code = FAILURE
        if args.out is not None:
            _save(args.out, stems[path], image, result)
    return code


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
