"""`activeo3 evaluate`: compare presets and budgets with a ground truth."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ..bags.offline import choose_topics
from ..bags.reading import Bag
from ..core import InvalidInput, Query
from ..core.budget import MAX_REGIONS
from ..evaluation.benchmark import check_out, run_benchmark
from ..evaluation.datasets import Dataset, coco_of_bag, coco_of_images
from ..evaluation.methods import choose_methods
from ..presets import preset_names
from .main import FAILURE, SUCCESS, whole_number
from .options import names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the user may choose."""
    parser.add_argument("--coco", type=Path, required=True, metavar="FILE", help="the truth, as COCO annotations")
    parser.add_argument("--images", type=Path, metavar="DIR", help="where the pictures are that the truth names")
    parser.add_argument("--bag", type=Path, metavar="BAG", help="a bag whose frames the truth names by their stamps")
    parser.add_argument("--topic", action="append", default=[], metavar="T", help="a topic of the bag with pictures")
    parser.add_argument("--query", help="what to ask instead of the names of all categories")
    parser.add_argument("--classes", type=names, help="what to detect instead of all categories, separated by commas")
    parser.add_argument(
        "--count-as",
        type=_renaming,
        action="append",
        default=[],
        metavar="LABEL=CATEGORY",
        help="let a label of the model count as a category of the truth, for example truck=vehicle",
    )
    parser.add_argument("--masks", action="store_true", help="also make masks and judge them")
    add_run_arguments(parser)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """What all benchmarks have in common: methods, budgets, how to compute."""
    parser.add_argument(
        "--preset",
        action="append",
        metavar="P",
        help=f"{', '.join(preset_names())}, or a .yaml file; may be given several times (default: embedded)",
    )
    parser.add_argument(
        "--regions",
        type=_counts,
        metavar="K,…",
        help="numbers of regions to try, such as 0,1,2,3 (default: the preset's)",
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="also run the fixed policies, and the oracle, with the first preset's models",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="what is there already is not computed again"
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1, 512),
        default=1,
        metavar="N",
        help="processes, each with a GPU where there are some",
    )
    parser.add_argument(
        "--bootstrap",
        type=whole_number(10, 100_000),
        default=500,
        metavar="N",
        help="replicates (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=whole_number(0, 2**31 - 1), default=0, metavar="N", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--max-dets",
        type=whole_number(1, 10_000),
        default=100,
        metavar="N",
        help="detections that count (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Load the truth, run what is missing, score, report."""
    check_out(args.out)
    with ExitStack() as stack:
        dataset = _dataset(args, stack)
        if args.masks:
            samples = [replace(sample, query=replace(sample.query, masks=True)) for sample in dataset.samples]
            dataset = replace(dataset, samples=samples, facts={**dataset.facts, "masks": True})
        methods = choose_methods(args.preset or ["embedded"], args.regions, args.baselines)
        question = f"Which of {len(methods)} methods finds most in {dataset.name}, and what does it cost?"
        complete = run_benchmark(args, dataset, methods, question, sys.argv[1:])
    return SUCCESS if complete else FAILURE


def _dataset(args: argparse.Namespace, stack: ExitStack) -> Dataset:
    query = Query(args.query or "", args.classes or ()) if args.query or args.classes else None
    renamed = dict(args.count_as)
    if (args.bag is None) == (args.images is None):
        raise InvalidInput("give either --images DIR or --bag BAG beside --coco")
    if args.images is not None:
        return coco_of_images(args.coco, args.images, query, renamed)
    bag = stack.enter_context(Bag(args.bag))
    dataset, missing = coco_of_bag(args.coco, bag, choose_topics(bag, args.topic), query, renamed)
    if missing:
        print(
            f"activeo3 evaluate: {missing} frames of {args.coco} are not in {args.bag}; they are left out",
            file=sys.stderr,
        )
    return dataset


def _counts(text: str) -> tuple[int, ...]:
    parse = whole_number(0, MAX_REGIONS)
    return tuple(parse(part) for part in text.split(","))


def _renaming(text: str) -> tuple[str, str]:
    label, equals, category = text.partition("=")
    if not (label.strip() and equals and category.strip()):
        raise argparse.ArgumentTypeError(f"must be LABEL=CATEGORY, got {text!r}")
    return label.strip(), category.strip()
