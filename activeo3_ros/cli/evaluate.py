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

"""`activeo3 evaluate`: compare presets and budgets on the user's own ground truth."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from ..core import InvalidInput
from ..evaluation.benchmark import make_results_directory, run_benchmark
from ..evaluation.counterfactual import counterfactual
from ..evaluation.datasets import Dataset, coco_of_images, with_masks
from ..evaluation.looking import FOLLOWS
from ..evaluation.methods import choose_methods
from .argument_types import class_names, renamed_label
from .evaluate_sequences import add_sequence_arguments, annotated_bag, check_stills, query_instead, run_sequences
from .main import FAILURE, SUCCESS
from .options import LOOKING, LOOKING_REGIONS, add_run_arguments, run_settings
from .progress import PROGRESS_LINES, progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument("--coco", type=Path, metavar="FILE", help="the ground truth, as COCO annotations")
    truth.add_argument(
        "--mot",
        type=Path,
        action="append",
        metavar="FILE",
        help="the ground truth of a sequence, as a gt.txt of MOTChallenge; may be given several times",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="directory of the annotated pictures")
    parser.add_argument(
        "--bag",
        type=Path,
        action="append",
        metavar="BAG",
        help="bag of the annotated frames, which COCO annotations name by stamp; with --mot one for each of them",
    )
    parser.add_argument("--topic", action="append", default=[], metavar="T", help="a topic of the bag with pictures")
    parser.add_argument("--query", help="the query, instead of the names of all categories")
    parser.add_argument(
        "--classes", type=class_names, help="classes to detect instead of all categories, separated by commas"
    )
    parser.add_argument(
        "--count-as",
        type=renamed_label,
        action="append",
        default=[],
        metavar="LABEL=CATEGORY",
        help="count a label of the model as a category of the ground truth, for example truck=vehicle",
    )
    parser.add_argument("--masks", action="store_true", help="also make masks and score them")
    add_sequence_arguments(parser)
    add_run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Load the ground truth, compute the missing items, score, report."""
    if args.mot or args.results or args.sequences:
        return run_sequences(args)
    check_stills(args)
    make_results_directory(args.out)
    with ExitStack() as stack:
        dataset = _dataset(args, stack)
        if args.masks and args.counterfactual:
            raise InvalidInput("--masks: has no effect on --counterfactual, which judges boxes")
        if args.masks:
            dataset = with_masks(dataset, args.coco)
        regions, compared = args.regions, "AR small"
        if args.counterfactual:
            dataset, compared = counterfactual(dataset, args.seed), FOLLOWS
            regions = args.regions or LOOKING_REGIONS
        methods = choose_methods(args.preset or ["embedded"], regions, args.baselines)
        question = f"Which of {len(methods)} methods finds most in {dataset.name}, and what does it cost?"
        complete = run_benchmark(
            run_settings(args, LOOKING if args.counterfactual else question),
            dataset,
            methods,
            partial(progress, lines=PROGRESS_LINES),
            compared=compared,
        )
    return SUCCESS if complete else FAILURE


def _dataset(args: argparse.Namespace, stack: ExitStack) -> Dataset:
    query = query_instead(args)
    if (args.bag is None) == (args.images is None):
        raise InvalidInput("give either --images DIR or --bag BAG beside --coco")
    if args.images is not None:
        return coco_of_images(args.coco, args.images, query, args.count_as)
    return annotated_bag(args, stack)
