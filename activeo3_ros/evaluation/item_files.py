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

"""The results of a benchmark as files, one for each method and sample, so that a run can be stopped and resumed.

    OUT/manifest.json                the plan: the data set's facts, its samples, the methods
    OUT/items/METHOD/SAMPLE.json     the result of one method for one sample

Files are replaced atomically: a file is whole or absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..codecs.result_json import from_json, to_json
from ..core import InvalidInput, Result, Status
from .datasets import Dataset, Sample
from .ground_truth import read_json
from .methods import Method

MANIFEST = "manifest.json"
REPORTS = ("report.html", "metrics.json", "metrics.csv")
"""The files that are written beside the manifest at the end."""


def write_manifest(out: Path, dataset: Dataset, methods: Sequence[Method], seed: int) -> None:
    """Write the plan of a run, or add methods to the plan that is there.

    Args:
        out: Directory of the results.
        dataset: Its facts and samples become part of the plan.
        methods: Methods to run.
        seed: Seed of the run.

    Raises:
        InvalidInput: The directory holds the plan of another run.
    """
    manifest = {
        "benchmark": dataset.name,
        "version": __version__,
        "seed": seed,
        "dataset": dict(dataset.facts),
        "samples": [
            {"id": s.id, "name": s.name, "query": s.query.text, "classes": list(s.query.classes)}
            for s in dataset.samples
        ],
        # An oracle's regions change with the truth, those of other methods do not.
        "methods": {m.id: {**m.facts(), **({"truth": _digest(dataset)} if m.oracle else {})} for m in methods},
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
    write_atomically(path, json.dumps(manifest, indent=1) + "\n")


def _digest(dataset: Dataset) -> str:
    """A digest of the objects and of the labels that count."""
    objects = [[row["image_id"], row["category_id"], row["bbox"]] for row in dataset.truth["annotations"]]
    return hashlib.sha256(json.dumps([objects, dict(dataset.label_ids)], sort_keys=True).encode()).hexdigest()[:16]


def result_to_item(sample: Sample, result: Result) -> dict[str, Any]:
    """Convert a result to the content of its file.

    Args:
        sample: The sample that the result is of.
        result: Boxes in source pixels.

    Returns:
        The keys of `activeo3 perceive --json`, with `sample`.
    """
    return {"sample": sample.id, **to_json(result, sample.name)}


def result_from_item(item: Mapping[str, Any]) -> Result:
    """Convert the content of a file to a result that can be drawn, without groundings and masks."""
    return from_json({**item, "groundings": (), "masks": ()})


def failed_item(sample: Sample, error: Exception) -> dict[str, Any]:
    """Make the item of a sample whose frame cannot be read."""
    return result_to_item(sample, Result(0, 0, sample.query, Status.FAILED, str(error)))


def write_item(path: Path, item: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write an item, or what an oracle found for one, to its path; its directory is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(item))


def read_items(out: Path, dataset: Dataset, method: Method) -> list[dict[str, Any]]:
    """Read the items of a method.

    Args:
        out: Directory of the results.
        dataset: The data set of the run.
        method: The method.

    Returns:
        One item a sample, in their order.

    Raises:
        InvalidInput: A file is missing or damaged.
    """
    return [dict(read_json(item_path(out, method, sample))) for sample in dataset.samples]


def missing_items(out: Path, dataset: Dataset, methods: Sequence[Method]) -> Iterator[tuple[Method, Sample]]:
    """List the items that no process has computed yet."""
    for method in methods:
        for sample in dataset.samples:
            if not item_path(out, method, sample).exists():
                yield method, sample


def item_path(out: Path, method: Method, sample: Sample) -> Path:
    """Path of the item of a method and a sample."""
    return out / "items" / method.id / f"{sample.id}.json"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file that no reader ever sees half-written."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(unfinished, path)
    except BaseException:  # such as a disk that is full
        unfinished.unlink(missing_ok=True)
        raise
