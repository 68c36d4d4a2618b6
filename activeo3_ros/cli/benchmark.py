"""`activeo3 benchmark`: the benchmarks of the paper, and one that needs no data set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core import InvalidInput
from ..evaluation import official_datasets as official
from ..evaluation.benchmark import check_out, run_benchmark
from ..evaluation.composite import composite
from ..evaluation.datasets import Dataset
from ..evaluation.interactive import ZOOMS
from ..evaluation.methods import choose_methods
from ..evaluation.published import ROWS
from ..evaluation.scoring import CORRECTED
from .evaluate import add_run_arguments
from .main import FAILURE, SUCCESS, whole_number


@dataclass(frozen=True)
class Benchmark:
    """A benchmark by its name. load: from the root directory and the arguments. compared: metric of the differences.

    columns: published metrics, each with ours that stands under it.
    presets, regions: what is run unless the user says so.
    """

    load: Callable[[Path, argparse.Namespace], Dataset]
    question: str
    compared: str = "AR small"
    needs_root: bool = True
    columns: Sequence[tuple[str, str]] = (("APs", "AP small"), ("ARs", "AR small"))
    presets: tuple[str, ...] = ("embedded",)
    regions: int | None = None


AT_LOW_OVERLAP = (("APs", "AP10 small"), ("ARs", "AR10 small"))
"""The paper judges SODA at an IoU of 0.1."""

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
        compared=f"{CORRECTED} {ZOOMS}",
        columns=tuple((f"mIoU {zooms}", f"{CORRECTED} {zooms}") for zooms in range(ZOOMS + 1)),
        presets=("centre_crop",),  # the embedded policy knows no such question
        regions=ZOOMS,
    ),
    "vstar": Benchmark(
        lambda root, args: official.vstar(root, args.samples, args.seed, args.with_choices),
        "Who answers the questions of V*Bench?",
        compared="accuracy",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the user may choose."""
    parser.add_argument("name", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--root", type=Path, metavar="DIR", help="where the official files are")
    parser.add_argument(
        "--samples", type=whole_number(1, 100_000), metavar="N", help="how many (default: the benchmark's own number)"
    )
    parser.add_argument(
        "--with-choices", action="store_true", help="vstar: ask with the lettered options, as language models need it"
    )
    parser.add_argument(
        "--sam", default="", metavar="DIR", help="thinobjects: weights of SAM that make the masks (default: GrabCut)"
    )
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Make the subset, run what is missing, score, report."""
    benchmark = BENCHMARKS[args.name]
    if benchmark.needs_root and args.root is None:
        raise InvalidInput(
            f"{args.name} needs --root DIR, where its official files are; docs/reference/benchmarks.md says which"
        )
    check_out(args.out)
    dataset = benchmark.load(args.root, args)
    regions = args.regions or (None if benchmark.regions is None else [benchmark.regions])
    methods = choose_methods(args.preset or benchmark.presets, regions, args.baselines)
    complete = run_benchmark(
        args,
        dataset,
        methods,
        benchmark.question,
        sys.argv[1:],
        ROWS.get(args.name, ()),
        benchmark.compared,
        benchmark.columns,
    )
    return SUCCESS if complete else FAILURE
