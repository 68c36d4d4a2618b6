"""The work of a benchmark as files: one for each method and sample, so that it can be stopped, resumed and shared.

    OUT/manifest.json                    what is to be done: the data set's rules, its samples, the methods
    OUT/items/METHOD/SAMPLE.json         what one method found in one sample

A file is written under another name and then renamed, so that it is whole or absent. Any number of processes can share
OUT, on one machine or on several with a common disk: each takes every WORLD_SIZE-th item, from its RANK on, the
variables that `torchrun` sets. Nothing is computed twice, except what was under way when a process was killed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from .. import __version__
from ..core import Frame, InvalidInput, PerceptionError
from .datasets import Dataset, Sample, read_json
from .methods import Method, same_models
from .protocols import failed_item, make_runner

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Share:
    """Which part of the work is this process's: every `world_size`-th item, from `rank` on."""

    rank: int = 0
    world_size: int = 1

    @staticmethod
    def from_environment() -> Share:
        """As `torchrun` and others say it in RANK and WORLD_SIZE; all of it where they do not. Raises InvalidInput."""
        values = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        try:
            share = Share(int(values[0]), int(values[1]))
        except ValueError:
            raise InvalidInput(
                f"RANK and WORLD_SIZE must be whole numbers, got {values[0]!r} and {values[1]!r}"
            ) from None
        if not 0 <= share.rank < share.world_size:
            raise InvalidInput(f"RANK must be 0 to WORLD_SIZE - 1, got {share.rank} of {share.world_size}")
        return share

    def use_one_gpu(self) -> None:
        """Let this process see one GPU, the LOCAL_RANK-th, before any library looks for them."""
        local = os.environ.get("LOCAL_RANK")
        if local is not None and "CUDA_VISIBLE_DEVICES" not in os.environ:
            os.environ["CUDA_VISIBLE_DEVICES"] = local


def write_manifest(out: Path, dataset: Dataset, methods: Sequence[Method], seed: int) -> None:
    """Say what is to be done. Raises InvalidInput if the directory holds other work."""
    manifest = {
        "benchmark": dataset.name,
        "version": __version__,
        "seed": seed,
        "dataset": dict(dataset.facts),
        "samples": [
            {"id": s.id, "name": s.name, "query": s.query.text, "classes": list(s.query.classes)}
            for s in dataset.samples
        ],
        "methods": {method.id: method.facts() for method in methods},
    }
    manifest = json.loads(json.dumps(manifest, default=str))
    path = out / MANIFEST
    if path.exists():
        before = read_json(path)
        differing = [key for key in manifest if key != "methods" and before.get(key) != manifest[key]]
        methods_before = before.get("methods", {})
        differing += [name for name, facts in manifest["methods"].items() if methods_before.get(name, facts) != facts]
        if differing:
            raise InvalidInput(
                f"{path} is of other work (it differs in {', '.join(differing)}); give another --out, or remove {out}"
            )
        manifest["methods"] = {**methods_before, **manifest["methods"]}
    out.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(manifest, indent=1) + "\n")


def run_share(
    out: Path,
    dataset: Dataset,
    methods: Sequence[Method],
    share: Share,
    show: Callable[[int, int], None],
    sam: str = "",
) -> None:
    """Compute what is missing of this process's share. show: called with how many items are done, of how many.

    sam: weights of SAM for interactive segmentation, "" for GrabCut.

    A frame that cannot be read counts as failed. Raises UnsupportedQuery before the first frame of a preset.
    """
    items = [(method, sample) for method in methods for sample in dataset.samples][share.rank :: share.world_size]
    missing = [(method, sample) for method, sample in items if not item_path(out, method, sample).exists()]
    done = len(items) - len(missing)
    show(done, len(items))
    for _, group in groupby(missing, key=lambda item: same_models(item[0])):
        work = list(group)
        runner = make_runner(work[0][0], dataset, sam)
        runner.check(work[0][1].query, work[0][0].budget)
        # Sample after sample, so that each frame is decoded once for all budgets.
        for _, of_sample in groupby(sorted(work, key=lambda item: item[1].id), key=lambda item: item[1].id):
            frame: Frame | InvalidInput | None = None
            for method, sample in of_sample:
                frame = frame or _load(sample)
                if isinstance(frame, Frame):
                    item = runner.run(frame, sample, dataset, method.budget)
                else:
                    item = failed_item(sample, frame)
                write_item(item_path(out, method, sample), item)
                done += 1
                show(done, len(items))


def _load(sample: Sample) -> Frame | InvalidInput:
    try:
        return sample.load()
    except InvalidInput as error:
        return error


def run_in_processes(count: int, arguments: Sequence[str]) -> None:
    """Run `activeo3 ARGUMENTS` in `count` processes, each with its share. Raises PerceptionError if one fails."""
    children = []
    for rank in range(count):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
        # Models that use all cores each would only get in each other's way.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        children.append(subprocess.Popen([sys.executable, "-m", "activeo3_ros.cli", *arguments], env=environment))
    try:
        codes = [child.wait() for child in children]
    finally:
        for child in children:
            if child.poll() is None:
                child.terminate()
                child.wait()
    if any(codes):
        raise PerceptionError(f"{sum(map(bool, codes))} of {count} processes failed; what they said is above")


def write_item(path: Path, item: Mapping[str, Any]) -> None:
    """What one method found in one sample."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(item))


def read_items(out: Path, dataset: Dataset, method: Method) -> list[dict[str, Any]]:
    """What one method found in each sample, in their order. Raises InvalidInput if a file is missing or damaged."""
    return [dict(read_json(item_path(out, method, sample))) for sample in dataset.samples]


def missing_items(out: Path, dataset: Dataset, methods: Sequence[Method]) -> Iterator[tuple[Method, Sample]]:
    """What is still to be computed, by this process or another."""
    for method in methods:
        for sample in dataset.samples:
            if not item_path(out, method, sample).exists():
                yield method, sample


def item_path(out: Path, method: Method, sample: Sample) -> Path:
    """Where the result of a method for a sample is."""
    return out / "items" / method.id / f"{sample.id}.json"


def write_whole(path: Path, text: str) -> None:
    """Write a file that is never seen half-written."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
