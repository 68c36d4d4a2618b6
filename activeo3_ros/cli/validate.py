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

"""`activeo3 validate`: judge a policy with its weights, with each choice of words, reasoning and engine."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..core import InvalidInput
from ..evaluation import official_datasets as official
from ..evaluation.benchmark import make_results_directory, run_and_score
from ..evaluation.datasets import Dataset
from ..evaluation.item_files import write_atomically
from ..evaluation.published import ROWS
from ..evaluation.scoring import ACCURACY
from ..evaluation.settings import RunSettings
from ..evaluation.validation import Part, Plan, judge, make_plan, overall
from ..presets import load_preset
from .argument_types import whole_number
from .benchmark import AT_LOW_OVERLAP
from .main import FAILURE, SUCCESS
from .options import add_bootstrap, add_seed
from .progress import PROGRESS_LINES, progress

VERDICT_TEXT, VERDICT_JSON = "verdict.txt", "verdict.json"
SODA_D_SAMPLES = 200
"""Frames of SODA-D unless the user chooses another number."""
ONLY_TASK_WORDS = (
    "the released script has no request for regions with targets: imported words are those of the task model alone here"
)


@dataclass(frozen=True)
class Data:
    """One data set of the validation.

    Attributes:
        option: With which the user gives its directory.
        metric: In which methods are compared.
        asks: Whether it asks questions instead of naming targets.
        load: Makes it from the directory and the arguments.
        columns: Published metrics, each with ours that stands under it.
    """

    option: str
    metric: str
    asks: bool
    load: Callable[[Path, argparse.Namespace], Dataset]
    columns: Sequence[tuple[str, str]] = ()


DATA: dict[str, Data] = {
    "pictures": Data("pictures", ACCURACY, True, lambda root, args: official.demo_pictures(root, args.seed)),
    "vstar": Data(
        "vstar", ACCURACY, True, lambda root, args: official.vstar(root, args.vstar_samples, args.seed, True)
    ),
    "soda-d": Data(
        "soda_d",
        AT_LOW_OVERLAP[0][1],
        False,
        lambda root, args: official.soda_d(root, args.soda_d_samples, args.seed),
        AT_LOW_OVERLAP,
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("preset", metavar="PRESET", help="a preset whose policy is a vision-language model")
    parser.add_argument(
        "--pictures", type=Path, metavar="DIR", help="the released demo's pictures, each with its question beside it"
    )
    parser.add_argument("--vstar", type=Path, metavar="DIR", help="V*Bench")
    parser.add_argument("--soda-d", type=Path, metavar="DIR", help="SODA-D")
    samples = whole_number(1, 100_000)
    parser.add_argument("--vstar-samples", type=samples, metavar="N", help="questions of V*Bench (default: all)")
    parser.add_argument(
        "--soda-d-samples",
        type=samples,
        default=SODA_D_SAMPLES,
        metavar="N",
        help="frames of SODA-D (default: %(default)s)",
    )
    parser.add_argument(
        "--engine", action="append", default=[], metavar="E", help="an engine to try (default: all that run here)"
    )
    parser.add_argument(
        "--out",
        "--output",
        dest="out",
        type=Path,
        required=True,
        metavar="DIR",
        help="directory of the reports and the verdict; results that are there already are not computed again",
    )
    add_bootstrap(parser)
    add_seed(parser)


def run(args: argparse.Namespace) -> int:
    """Load the data sets, run each choice on each of them, judge."""
    given = {name: root for name, data in DATA.items() if (root := getattr(args, data.option)) is not None}
    if not given:
        raise InvalidInput("nothing to validate with: give --pictures DIR, --vstar DIR or --soda-d DIR")
    _check_foreign(args.out)
    plan = make_plan(load_preset(args.preset), args.engine)
    datasets = {name: DATA[name].load(root, args) for name, root in given.items()}
    for name in datasets:
        make_results_directory(args.out / name)
    parts = []
    for name, data in DATA.items():
        if name in datasets:
            parts.append(_validate(args, name, datasets[name], plan.for_questions(data.asks)))
        else:
            parts.append(Part(name, data.metric, f"no --{data.option.replace('_', '-')} DIR"))
    _tell(args, plan, parts)
    results = [result for part in parts for result in (part.results or {}).values()]
    whole = all(part.results for part in parts if part.name in datasets)
    return SUCCESS if whole and not any(failed == count for _, failed, count in results) else FAILURE


def _check_foreign(out: Path) -> None:
    """Raise InvalidInput where the verdict would take the place of a file that is none."""
    if (out / VERDICT_TEXT).exists() and not (out / VERDICT_JSON).exists():
        raise InvalidInput(f"{out / VERDICT_TEXT} would be overwritten, and is of no validation; give another --output")


def _validate(args: argparse.Namespace, name: str, dataset: Dataset, plan: Plan) -> Part:
    """Run a data set, and judge it."""
    data, rows = DATA[name], ROWS.get(name, ())
    print(f"== {name}: {len(dataset.samples)} frames, {len(plan.methods)} methods", file=sys.stderr)
    settings = RunSettings(
        args.out / name, f"What is {args.preset} worth on {name}?", sys.argv[1:], args.seed, 1, args.bootstrap
    )
    scores = run_and_score(
        settings,
        dataset,
        list(plan.methods.values()),
        partial(progress, lines=PROGRESS_LINES),
        rows,
        data.metric,
        data.columns,
        plan.compare,
    )
    if not scores:
        return Part(name, data.metric, "results are still missing; run the same command again")
    part = judge(dataset, plan, scores, data.metric, rows, data.columns)
    return part if data.asks else replace(part, notes=(*part.notes, ONLY_TASK_WORDS))


def _tell(args: argparse.Namespace, plan: Plan, parts: Sequence[Part]) -> None:
    """Write the verdict as text and JSON, and print it."""
    choices = overall(parts)
    not_run = [f"{what}: not run: {reason}" for what, reason in plan.not_run.items()]
    lines = [line for part in parts for line in part.lines()]
    text = "\n".join([f"verdict on {args.preset}", *lines, *not_run, "in all", *(f"  {line}" for line in choices)])
    values = {
        "preset": args.preset,
        "parts": [part.to_json() for part in parts],
        "not_run": dict(plan.not_run),
        "in_all": choices,
    }
    write_atomically(args.out / VERDICT_JSON, json.dumps(values, indent=1) + "\n")
    write_atomically(args.out / VERDICT_TEXT, text + "\n")
    print(text)
    print(f"verdict: {args.out / VERDICT_TEXT}; reports: {args.out}/*/report.html")
