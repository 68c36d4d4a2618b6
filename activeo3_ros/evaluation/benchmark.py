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

"""One benchmark run: compute the missing items, in several processes if asked, then score and report."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from ..core import InvalidInput
from ..core.optional import require_package
from .datasets import Dataset
from .differences import Difference, paired_differences
from .gate import Gate, gate_line, gates
from .item_files import MANIFEST, REPORTS, missing_items, write_atomically, write_manifest
from .looking import looking_verdict, score_looking
from .methods import Method
from .metrics_files import metrics_to_csv, metrics_to_dict
from .published import PublishedRow, beside_published
from .report import report_html
from .scoring import MethodScores, score
from .settings import RunSettings
from .sharding import Shard, run_in_processes, run_shard
from .summary import notes_on, text_difference, text_table

NEEDED = {"faster_coco_eval": "faster-coco-eval", "matplotlib": "matplotlib", "jinja2": "jinja2"}
"""Packages of the scores and the report, and their names for pip."""
SMALL_OBJECTS = (("APs", "AP small"), ("ARs", "AR small"))
"""Published metrics, each with ours that stands under it."""

Progress = Callable[[str, int], AbstractContextManager[Callable[[float], None]]]
"""Shows progress, given a step and its total; the context gives a function of the number that is done."""
Compare = Callable[[Sequence[MethodScores], str], list[Difference]]
"""Gives paired differences of scores in one metric."""


def run_benchmark(
    settings: RunSettings,
    dataset: Dataset,
    methods: Sequence[Method],
    progress: Progress,
    published: Sequence[PublishedRow] = (),
    compared: str = "AR small",
    columns: Sequence[tuple[str, str]] = SMALL_OBJECTS,
) -> bool:
    """As `run_and_score`.

    Returns:
        Whether every item was there to be scored, and no method failed in every frame.
    """
    scores = run_and_score(settings, dataset, methods, progress, published, compared, columns)
    return scores is not None and not any(s.failed == len(dataset.samples) for s in scores)


def run_and_score(
    settings: RunSettings,
    dataset: Dataset,
    methods: Sequence[Method],
    progress: Progress,
    published: Sequence[PublishedRow] = (),
    compared: str = "AR small",
    columns: Sequence[tuple[str, str]] = SMALL_OBJECTS,
    compare: Compare = paired_differences,
) -> list[MethodScores] | None:
    """Compute the missing items, then score them, write the report and print its main numbers.

    A process that is one of several (RANK, WORLD_SIZE) computes its shard only; the same command without these
    variables then scores.

    Args:
        settings: Settings of the run.
        dataset: The data set.
        methods: Methods to run, those of the first preset first.
        progress: Shows the number of items that are done.
        published: Numbers of the paper.
        compared: Metric of the paired differences.
        columns: Published metrics, each with ours that stands under it.
        compare: Gives the paired differences in that metric.

    Returns:
        The scores, none in a process that is one of several; None where items are missing still.

    Raises:
        InvalidInput: The directory of results holds another run.
        MissingPackageError: A package of the scores or the report is not installed.
        PerceptionError: A process failed.
    """
    for package, requirement in NEEDED.items():  # before hours of work, not after them
        require_package(package, "to score and report", requirement)
    shard = Shard.from_environment()
    if shard.world_size > 1:
        shard.use_one_gpu()
    if shard.rank == 0:
        write_manifest(settings.out, dataset, methods, settings.seed)
    if settings.workers > 1 and shard.world_size == 1:
        if next(missing_items(settings.out, dataset, methods), None) is not None:
            run_in_processes(settings.workers, settings.command)
    else:
        step = f"process {shard.rank} of {shard.world_size}" if shard.world_size > 1 else "frames"
        with progress(step, len(shard.items(dataset, methods))) as show:
            run_shard(settings, dataset, methods, shard, show)
        if shard.world_size > 1:
            return []  # the command that started the processes scores
    missing = sum(1 for _ in missing_items(settings.out, dataset, methods))
    if missing:
        print(f"{missing} items are still to be computed; run the same command again", file=sys.stderr)
        return None
    return _score_and_report(settings, dataset, methods, published, compared, columns, compare)


def _score_and_report(
    settings: RunSettings,
    dataset: Dataset,
    methods: Sequence[Method],
    published: Sequence[PublishedRow],
    compared: str,
    columns: Sequence[tuple[str, str]],
    compare: Compare,
) -> list[MethodScores]:
    """Write `report.html`, `metrics.json` and `metrics.csv`, and print the main numbers."""
    out = settings.out
    if dataset.probes:
        scores = score_looking(out, dataset, methods, settings.replicates, settings.seed)
        saving: list[Gate] = []
    else:
        scores = score(out, dataset, methods, settings.replicates, settings.seed, settings.max_detections)
        saving = gates(out, dataset, methods, settings.replicates, settings.seed)
    verdicts = {s.method.id: looking_verdict(s, dataset) for s in scores} if dataset.probes else {}
    differences = compare(scores, compared)
    rows = beside_published(scores, published, columns)
    metrics = metrics_to_dict(settings, dataset, scores, differences, rows)
    if dataset.probes:
        metrics["looking"] = verdicts
    if saving:
        metrics["gates"] = [gate.to_json() for gate in saving]
    write_atomically(out / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    write_atomically(out / "metrics.csv", metrics_to_csv(scores))
    write_atomically(out / "report.html", report_html(settings, dataset, scores, differences, rows, verdicts, saving))
    print(text_table(scores))
    for difference in differences:
        print(text_difference(difference))
    for line in (*verdicts.values(), *map(gate_line, saving)):
        print(line)
    for row in rows:
        print(f"{row.method}: {', '.join(f'{k} {v}' for k, v in row.numbers.items())}  [{row.origin}]")
    for note in (*dataset.notes, *notes_on(scores)):
        print(note, file=sys.stderr)
    print(f"report: {out / 'report.html'}; numbers: {out / 'metrics.json'}, {out / 'metrics.csv'}")
    return scores


def make_results_directory(out: Path) -> None:
    """Make the directory of results.

    Raises:
        InvalidInput: It is a file, cannot be made, or has reports that are not of a benchmark.
    """
    if out.exists() and not out.is_dir():
        raise InvalidInput(f"--out {out} is a file; give a directory")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"--out {out}: cannot be made: {error.strerror}") from error
    foreign = [name for name in REPORTS if (out / name).exists() and not (out / MANIFEST).exists()]
    if foreign:
        raise InvalidInput(
            f"--out {out}: {', '.join(foreign)} would be overwritten, of which no {MANIFEST} says that it is of this "
            "command; give another --out"
        )
