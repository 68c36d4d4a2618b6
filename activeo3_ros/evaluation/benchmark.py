"""One benchmark from its data set to its report: the work, perhaps shared among processes, then the numbers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ..core import InvalidInput
from ..core.optional import require_package
from .datasets import Dataset
from .methods import ORACLE, Method
from .published import MEASURED, PublishedRow
from .report import Run, as_printed, text_difference, text_table, write_report
from .scoring import Difference, MethodScores, compare, score
from .work import Share, missing_items, run_in_processes, run_share, write_manifest

NEEDED = {"faster_coco_eval": "faster-coco-eval", "matplotlib": "matplotlib"}
LINES_OF_PROGRESS = 20
"""Where there is no terminal for a bar."""


def run_benchmark(
    args: argparse.Namespace,
    dataset: Dataset,
    methods: Sequence[Method],
    question: str,
    command: Sequence[str],
    published: Sequence[PublishedRow] = (),
    compared: str = "AR small",
    columns: Sequence[tuple[str, str]] = (("APs", "AP small"), ("ARs", "AR small")),
) -> bool:
    """Compute what is missing, then score and report; whether everything was there to be scored.

    args: `out`, `workers`, `bootstrap`, `seed`, `max_dets`. A process that is one of several (RANK, WORLD_SIZE) only
    computes its share; the same command without them then scores. compared: the metric of the paired differences.
    columns: published metrics, each with ours that stands under it.
    """
    for package, requirement in NEEDED.items():  # before hours of work, not after them
        require_package(package, "to score and report", requirement)
    share = Share.from_environment()
    if share.world_size > 1:
        share.use_one_gpu()
    if share.rank == 0:
        write_manifest(args.out, dataset, methods, args.seed)
    if args.workers > 1 and share.world_size == 1:
        if next(missing_items(args.out, dataset, methods), None) is not None:
            run_in_processes(args.workers, command)
    else:
        with _progress(f"process {share.rank} of {share.world_size}" if share.world_size > 1 else "frames") as show:
            run_share(args.out, dataset, methods, share, show, getattr(args, "sam", ""))
        if share.world_size > 1:
            return True  # whoever started the processes scores
    missing = sum(1 for _ in missing_items(args.out, dataset, methods))
    if missing:
        print(f"{missing} items are still to be computed; run the same command again", file=sys.stderr)
        return False
    scores = score(args.out, dataset, methods, args.bootstrap, args.seed, args.max_dets)
    differences = paired_differences(scores, compared)
    rows = beside_published(scores, published, columns)
    run = Run(question, ["activeo3", *command], args.seed, args.workers, args.bootstrap)
    write_report(args.out, run, dataset, scores, differences, rows)
    print(text_table(scores))
    for difference in differences:
        print(text_difference(difference))
    for row in rows:
        print(f"{row.method}: {', '.join(f'{k} {v}' for k, v in row.numbers.items())}  [{row.origin}]")
    print(f"report: {args.out / 'report.html'}; numbers: {args.out / 'metrics.json'}, {args.out / 'metrics.csv'}")
    return True


def paired_differences(scores: Sequence[MethodScores], metric: str) -> list[Difference]:
    """The first preset, at each number of regions, against each other method.

    Of a method that was run with several budgets, against the one with as many regions and the one whose pixels are
    nearest: tiles and crops of another shape cost less for the same number.
    """
    first = scores[0].method.name
    judged = [s for s in scores if metric in s.quality]
    differences = []
    for own in judged:
        if own.method.name != first or (len(scores) > 1 and not own.method.regions):
            continue
        rivals: dict[str, list[MethodScores]] = {}
        for other in judged:
            if other.method.name not in (first, ORACLE):
                rivals.setdefault(other.method.name, []).append(other)
        for budgets in rivals.values():
            nearest = min(budgets, key=partial(_pixels_apart, own))
            same = [s for s in budgets if s.method.regions == own.method.regions]
            chosen = {s.method.id: s for s in (*same, nearest)}
            differences += [compare(own, rival, metric) for rival in chosen.values()]
    return differences


def _pixels_apart(a: MethodScores, b: MethodScores) -> float:
    return abs(a.cost["pixels"] - b.cost["pixels"])


def beside_published(
    scores: Sequence[MethodScores], published: Sequence[PublishedRow], columns: Sequence[tuple[str, str]]
) -> list[PublishedRow]:
    """Published rows and ours in one list, each with its origin; nothing if nothing was published."""
    if not published:
        return []
    numbers = [{theirs: as_printed(theirs, s.quality[ours]) for theirs, ours in columns} for s in scores]
    return [*published, *(PublishedRow(s.method.id, row, MEASURED) for s, row in zip(scores, numbers, strict=True))]


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with rate and time left on a terminal, a line now and then elsewhere."""
    with tqdm(desc=what, unit="frame", file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
        shown = 0

        def show(done: int, total: int) -> None:
            nonlocal shown
            bar.total = total
            if not bar.disable:
                bar.update(done - bar.n)
            elif (done - shown) * LINES_OF_PROGRESS >= total and done:
                print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)
                shown = done

        yield show


def check_out(out: Path) -> None:
    """Make the directory of results. Raises InvalidInput if it cannot be one."""
    if out.exists() and not out.is_dir():
        raise InvalidInput(f"--out {out} is a file; give a directory")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"--out {out}: cannot be made: {error.strerror}") from error
