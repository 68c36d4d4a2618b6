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

"""`activeo3 train`: trains a policy that chooses regions, and builds the training rows for it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..core import InvalidInput
from ..training.builders import BAG, KINDS, build
from . import train_proposals
from .argument_types import whole_number
from .main import SUCCESS
from .options import add_force_argument, check_not_overwritten

MAX_ROWS = 10_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands `grpo`, `proposals` and `data` with their options."""
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    grpo = kinds.add_parser("grpo", help="train a policy by its rewards alone")
    grpo.add_argument("--config", type=Path, required=True, metavar="FILE", help="see config/training/")
    grpo.add_argument("--out", type=Path, metavar="DIR", help="where checkpoints go (default: what the file says)")
    grpo.add_argument("--afresh", action="store_true", help="start anew instead of going on from the last checkpoint")
    grpo.set_defaults(run_what=_grpo)
    proposals = kinds.add_parser("proposals", help="train where to look from recordings, with labels or without")
    train_proposals.add_arguments(proposals)
    proposals.set_defaults(run_what=train_proposals.run)
    data = kinds.add_parser("data", help="make training rows of a data set")
    data.add_argument("kind", choices=KINDS, help="by which rule")
    data.add_argument("--annotations", type=Path, help="COCO file; for thin-objects the folder of masks")
    data.add_argument("--images", type=Path, metavar="DIR", help="folder of the pictures; bag has none")
    data.add_argument("--bag", type=Path, metavar="BAG", help="for bag: with pictures, annotated by their stamps")
    data.add_argument("--results", type=Path, metavar="BAG", help="for bag: a replay's, its detections as the targets")
    data.add_argument("--topic", action="append", default=[], metavar="T", help="for bag: a topic with pictures")
    data.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the rows go")
    data.add_argument("--seed", type=whole_number(0, 2**31), default=0, help="of the choice and the order (default: 0)")
    data.add_argument("--rows", type=whole_number(1, MAX_ROWS), help="pictures at most (default: as in the paper)")
    data.add_argument(
        "--per-class", type=whole_number(1, MAX_ROWS), help="questions of one class at most, for test sets"
    )
    data.add_argument(
        "--negatives",
        type=whole_number(0, MAX_ROWS),
        default=0,
        metavar="N",
        help="so many further questions about a class that is not in the picture (default: 0)",
    )
    add_force_argument(data)
    data.set_defaults(run_what=_data)


def run(args: argparse.Namespace) -> int:
    """Train or build rows, and give the exit code."""
    return int(args.run_what(args))


def _grpo(args: argparse.Namespace) -> int:
    # Imported here: `activeo3 train data` needs none of the trainer's packages.
    from ..training.config import load_config
    from ..training.grpo import train

    policy = train(load_config(args.config, args.out), resume=not args.afresh)
    print(policy)
    return SUCCESS


def _data(args: argparse.Namespace) -> int:
    check_not_overwritten([args.out / name for name in ("rows.jsonl", "provenance.json")], args.force)
    choice = (args.out, args.seed, args.rows, args.per_class)
    if args.kind == BAG:
        from ..training.bag_rows import build_from_bag

        if args.bag is None or args.images is not None:
            raise InvalidInput("data from a bag needs --bag BAG and takes no --images")
        if args.negatives:
            raise InvalidInput("the annotations of a bag do not say what is not in its pictures; leave out --negatives")
        rows, problems = build_from_bag(args.bag, args.annotations, args.results, args.topic, *choice)
    else:
        if args.annotations is None or args.images is None or args.bag or args.results or args.topic:
            raise InvalidInput(f"{args.kind} needs --annotations and --images, and nothing of a bag")
        rows, problems = build(args.kind, args.annotations, args.images, *choice, args.negatives)
    if problems:
        print(f"activeo3: {problems} left out, listed in {args.out / 'problems.jsonl'}", file=sys.stderr)
    print(f"{args.out}: {rows} rows")
    return SUCCESS
