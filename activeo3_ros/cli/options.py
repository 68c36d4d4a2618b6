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

"""Options that several subcommands share: the query, the preset and its budget, how a benchmark runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ..core import Budget, InvalidInput, Query
from ..core.budget import MAX_REGIONS
from ..evaluation.settings import RunSettings
from ..presets import Preset, preset_names
from .argument_types import class_names, number, whole_number, whole_numbers

LOOKING = "Does the answer follow the picture?"
"""Title of the report of counterfactual pictures."""
LOOKING_REGIONS = [0, 3]
"""Numbers of regions with them: none, whose zooming gap is that of one look, and as many as presets choose."""


def add_query_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the query: a question, class names, whether to make masks."""
    parser.add_argument("--query", help='what to find or to read, for example "the number on the police car"')
    parser.add_argument(
        "--classes", type=class_names, help="what to detect, separated by commas, for example car,person"
    )
    parser.add_argument(
        "--masks",
        action="store_true",
        help="also give the pixels of each object, by the preset's segmenter, or its detector where it names none; "
        "GrabCut cuts by colour: many get none",
    )


def add_preset_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the preset and the number of regions."""
    parser.add_argument(
        "--preset", default="embedded", help=f"{', '.join(preset_names())}, or a .yaml file (default: %(default)s)"
    )
    parser.add_argument(
        "--max-regions",
        type=whole_number(0, MAX_REGIONS),
        metavar="K",
        help=f"regions to examine closer, 0 to {MAX_REGIONS} (default: the preset's)",
    )


def add_part_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the part of a recording to take."""
    parser.add_argument("--every", type=whole_number(1, 1_000_000), default=1, metavar="N", help="take every Nth frame")
    parser.add_argument(
        "--start", type=number(0), default=0.0, metavar="S", help="seconds of recording after the first frame"
    )
    parser.add_argument("--duration", type=number(0), metavar="S", help="seconds of recording (default: to the end)")


def add_force_argument(parser: argparse._ActionsContainer) -> None:
    """Add the leave to overwrite."""
    parser.add_argument("--force", action="store_true", help="overwrite what an earlier run left in --out")


def check_not_overwritten(files: Iterable[Path], force: bool, otherwise: str = "") -> None:
    """Check that files which a command is going to write are not there yet.

    Args:
        files: Paths of the files.
        force: The user's leave to overwrite.
        otherwise: Another way out, in words that end with ", ".

    Raises:
        InvalidInput: One of them is there; the message names it.
    """
    there = () if force else [file for file in files if file.exists()]
    if there:
        more = f" and {len(there) - 1} more" if there[1:] else ""
        raise InvalidInput(
            f"{there[0]}{more} would be overwritten: {otherwise}give another --out, or overwrite with --force"
        )


def add_bootstrap(parser: argparse.ArgumentParser) -> None:
    """Add the number of replicates that intervals come from."""
    parser.add_argument(
        "--bootstrap",
        type=whole_number(10, 100_000),
        default=500,
        metavar="N",
        help="replicates (default: %(default)s)",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the seed of all that is drawn."""
    parser.add_argument(
        "--seed", type=whole_number(0, 2**31 - 1), default=0, metavar="N", help="(default: %(default)s)"
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of all benchmarks: methods, budgets, processes, scoring."""
    parser.add_argument(
        "--preset",
        action="append",
        metavar="P",
        help=f"{', '.join(preset_names())}, or a .yaml file; may be given several times (default: embedded)",
    )
    parser.add_argument(
        "--regions",
        type=whole_numbers(0, MAX_REGIONS),
        metavar="K,…",
        help="numbers of regions to try, such as 0,1,2,3 (default: the preset's)",
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="also run the fixed policies, two ways of slicing, and the oracle, with the first preset's models; "
        "the oracle examines some 240 views of each frame, once",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="directory of the results; those that are there already are not computed again",
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1, 512),
        default=1,
        metavar="N",
        help="processes, each with a GPU if there are any",
    )
    add_bootstrap(parser)
    add_seed(parser)
    parser.add_argument(
        "--max-dets",
        type=whole_number(1, 10_000),
        default=100,
        metavar="N",
        help="detections that count (default: %(default)s)",
    )
    parser.add_argument(
        "--counterfactual",
        action="store_true",
        help="ask each sample six times, with what it is about blurred, recoloured, swapped, and alone: does the model "
        "look? (default of --regions: 0,3)",
    )


def run_settings(args: argparse.Namespace, question: str) -> RunSettings:
    """The settings of a benchmark run.

    Args:
        args: With the arguments of `add_run_arguments`, and perhaps `sam`.
        question: Title of the report.

    Returns:
        Settings that repeat the command of this process.
    """
    return RunSettings(
        args.out, question, sys.argv[1:], args.seed, args.workers, args.bootstrap, args.max_dets,
        getattr(args, "sam", ""),
    )  # fmt: skip


def query_of(args: argparse.Namespace, preset: Preset) -> Query:
    """The user's query; the preset's own query if the user gives none."""
    masks = args.masks or preset.query.masks
    if args.query is None and args.classes is None:
        return replace(preset.query, masks=masks)
    return Query(args.query or "", args.classes or (), masks)


def budget_of(args: argparse.Namespace, preset: Preset) -> Budget:
    """The preset's budget with the user's number of regions."""
    return preset.budget if args.max_regions is None else replace(preset.budget, max_regions=args.max_regions)
