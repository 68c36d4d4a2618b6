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

"""`activeo3 benchmark`: the benchmarks of ACTIVE-o3 (arXiv 2505.21457), and one that needs no download."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..core import InvalidInput, Query
from ..evaluation import official_datasets as official
from ..evaluation.benchmark import SMALL_OBJECTS, make_results_directory, run_benchmark
from ..evaluation.composite_dataset import LABELS, composite
from ..evaluation.counterfactual import counterfactual
from ..evaluation.datasets import Dataset
from ..evaluation.interactive_segmentation import ZOOMS
from ..evaluation.looking import FOLLOWS
from ..evaluation.methods import BOX_ORACLE, ORACLE, OWN_REGIONS, choose_methods
from ..evaluation.moving_composite import moving_composite
from ..evaluation.published import ROWS
from ..evaluation.scoring import ACCURACY, CORRECTED_IOU
from ..evaluation.sequence_runs import with_and_without_memory
from .argument_types import whole_number
from .evaluate_sequences import check_sequence_options, perceive_and_judge
from .main import FAILURE, SUCCESS
from .options import LOOKING, LOOKING_REGIONS, add_run_arguments, run_settings
from .progress import PROGRESS_LINES, progress


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        load: Makes the data set from the root directory and the arguments.
        question: Title of the report.
        compared: Metric of the paired differences.
        needs_root: Whether the user has to give the directory of the official files.
        columns: Published metrics, each with ours that stands under it.
        presets: Presets to run unless the user chooses others.
        regions: Number of regions unless the user chooses others; None for the presets' own.
        oracle: The oracle among the baselines, "" for none.
        left_out: Baselines that make no sense here.
    """

    load: Callable[[Path, argparse.Namespace], Dataset]
    question: str
    compared: str = "AR small"
    needs_root: bool = True
    columns: Sequence[tuple[str, str]] = SMALL_OBJECTS
    presets: tuple[str, ...] = ("embedded",)
    regions: int | None = None
    oracle: str = ORACLE
    left_out: tuple[str, ...] = ()


SEQUENCES = 24
"""Of the moving composite, unless the user chooses another number."""
AT_LOW_OVERLAP = (("APs", "AP10 small"), ("ARs", "AR10 small"))
"""The paper evaluates SODA at an IoU of 0.1."""

BENCHMARKS: dict[str, Benchmark] = {
    "composite": Benchmark(
        lambda root, args: composite(args.samples or 60, args.seed),
        "Who finds the most small vehicles for the same pixels?",
        needs_root=False,
    ),
    "lvis-small": Benchmark(
        lambda root, args: official.lvis_small(root, args.samples, args.seed), "Who finds the small objects of LVIS?"
    ),
    "lvis-dense": Benchmark(
        lambda root, args: official.lvis_dense(root, args.samples, args.seed), "Who finds the crowded objects of LVIS?"
    ),
    "soda-a": Benchmark(
        lambda root, args: official.soda_a(root, args.samples, args.seed),
        "Who finds the small objects of SODA-A?",
        columns=AT_LOW_OVERLAP,
    ),
    "soda-d": Benchmark(
        lambda root, args: official.soda_d(root, args.samples, args.seed),
        "Who finds the small objects of SODA-D?",
        columns=AT_LOW_OVERLAP,
    ),
    "thinobjects": Benchmark(
        lambda root, args: official.thinobjects(root, args.samples, args.seed),
        "Who sees where a mask is wrong?",
        compared=f"{CORRECTED_IOU} {ZOOMS}",
        columns=tuple((f"mIoU {zooms}", f"{CORRECTED_IOU} {zooms}") for zooms in range(ZOOMS + 1)),
        presets=("centre_crop",),  # the embedded policy does not understand the question
        regions=ZOOMS,
        left_out=OWN_REGIONS,  # three clicks are not for twelve slices
    ),
    "vstar": Benchmark(
        lambda root, args: official.vstar(root, args.samples, args.seed, args.with_choices),
        "Who answers the questions of V*Bench?",
        compared=ACCURACY,
        oracle=BOX_ORACLE,  # its objects are in the question, and no detection bears their name
    ),
    "dtpqa": Benchmark(
        lambda root, args: official.dtpqa(root, args.samples, args.seed, args.with_choices),
        "How far does it see? The questions of DTPQA by distance",
        compared=ACCURACY,
        oracle="",  # it has no boxes
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("name", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--root", type=Path, metavar="DIR", help="directory of the official files")
    parser.add_argument(
        "--samples", type=whole_number(1, 100_000), metavar="N", help="number of samples (default: the benchmark's own)"
    )
    parser.add_argument(
        "--moving",
        action="store_true",
        help="composite: sequences instead of pictures, judged with a memory and without",
    )
    parser.add_argument(
        "--with-choices",
        action="store_true",
        help="vstar, dtpqa: ask with the lettered options, as language models need it",
    )
    parser.add_argument(
        "--sam", default="", metavar="DIR", help="thinobjects: weights of SAM that make the masks (default: GrabCut)"
    )
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Make the subset, compute the missing items, score, report."""
    benchmark = BENCHMARKS[args.name]
    if benchmark.needs_root and args.root is None:
        raise InvalidInput(
            f"{args.name} needs --root DIR, where its official files are; docs/reference/benchmarks.md says which"
        )
    if args.moving:
        return _run_moving(args)
    make_results_directory(args.out)
    dataset = benchmark.load(args.root, args)
    compared, question, published = benchmark.compared, benchmark.question, ROWS.get(args.name, ())
    regions = args.regions or (None if benchmark.regions is None else [benchmark.regions])
    if args.counterfactual:
        dataset, compared, question, published = counterfactual(dataset, args.seed), FOLLOWS, LOOKING, ()
        regions = args.regions or LOOKING_REGIONS
    methods = choose_methods(
        args.preset or benchmark.presets, regions, args.baselines, benchmark.oracle, benchmark.left_out
    )
    complete = run_benchmark(
        run_settings(args, question),
        dataset,
        methods,
        partial(progress, lines=PROGRESS_LINES),
        published,
        compared,
        benchmark.columns,
    )
    return SUCCESS if complete else FAILURE


def _run_moving(args: argparse.Namespace) -> int:
    """Perceive the sequences of the moving composite with a memory and without, score, report."""
    if args.name != "composite":
        raise InvalidInput(f"--moving: only composite has sequences, {args.name} has pictures")
    check_sequence_options(args, "composite --moving")
    make_results_directory(args.out)
    truth = moving_composite(args.samples or SEQUENCES, args.seed)
    methods = with_and_without_memory(choose_methods(args.preset or ["embedded"], args.regions, False))
    settings = run_settings(args, "How much sooner are small vehicles found with a memory, for the same pixels?")
    return perceive_and_judge(settings, truth, Query(classes=LABELS), methods)
