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

"""Results over sequences, with a memory and without, and their scores with paired intervals over the sequences."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..codecs.result_json import from_json, to_json
from ..core import Frame, InvalidInput, Query, Result, Scene, Status
from .datasets import Dataset, Sample
from .ground_truth import read_json
from .item_files import write_item, write_manifest
from .methods import Method
from .metrics import MAX_DETECTIONS, DetectionScores, MetricName, draw_images, interval
from .scoring import Estimate, predictions_of
from .sequence_metrics import SequenceScores, have_track_ids, precision_at, score_sequence, summarise
from .sequence_truth import SequenceTruth
from .settings import RunSettings

FASTER = ("first detection", "first look")
"""Metrics that begin so are compared by their ratio too."""
MEDIAN = "half found"
"""Metrics that begin so are infinite where half of the objects are never found."""
COMPARED = (
    "recall", "recall small", "precision", "false objects a frame", "events a frame", "first detection, s",
    "first detection tiny, s", "first detection small, s", "first look small, s", "never found small", "jitter", "IDF1",
    "HOTA",
)  # fmt: skip
PRECISIONS = (
    MetricName("AP"),
    MetricName("AP", (0.5,)),
    MetricName("AP", area="small"),
    MetricName("AR", area="small"),
)
AT_EQUAL_RECALL = "precision at equal recall"

Results = list[list[Result | None]]
"""Of each sequence, that of each frame."""


@dataclass(frozen=True)
class SequenceMethod:
    """A method over sequences. memory: whether frames are weighed together; None for recorded results."""

    name: str
    method: Method | None = None
    memory: bool | None = None

    @property
    def id(self) -> str:
        """Its name for people and in files."""
        kind = "" if self.memory is None else "-memory" if self.memory else "-alone"
        return f"{self.method.id if self.method else self.name}{kind}"


@dataclass(frozen=True)
class MethodJudgement:
    """The scores of one method.

    Attributes:
        method: The method.
        sequences: What is counted in each sequence.
        quality: Numbers of all sequences by name, with intervals over the sequences where there are several.
        cost: Means a frame, and the median time of a frame, milliseconds.
    """

    method: SequenceMethod
    sequences: list[SequenceScores]
    quality: dict[str, Estimate]
    cost: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """One metric of two methods on the same sequences.

    Attributes:
        a: Id of the method with a memory.
        b: Id of the one without.
        metric: Name of the metric.
        values: Of `a` and of `b`.
        difference: `a` - `b`.
        ratio: `b` / `a`, for times.
    """

    a: str
    b: str
    metric: str
    values: tuple[float, float]
    difference: Estimate
    ratio: Estimate | None = None

    @property
    def verdict(self) -> str:
        """Whether the difference is shown, and why not."""
        estimate = self.difference
        if not math.isfinite(estimate.value):
            return "nothing to judge it by"
        if not math.isfinite(estimate.low):
            return "no interval: one sequence"
        return "clear" if estimate.low > 0 or estimate.high < 0 else "not clear: the interval holds zero"


# ---- perceiving ------------------------------------------------------------------------------------------------------


def with_and_without_memory(methods: Sequence[Method]) -> list[SequenceMethod]:
    """Each method twice: with frames weighed together, and each frame alone."""
    return [SequenceMethod(method.name, method, memory) for method in methods for memory in (False, True)]


def perceive_sequences(
    settings: RunSettings,
    truth: SequenceTruth,
    query: Query,
    methods: Sequence[SequenceMethod],
    show: Callable[[float], None],
) -> dict[str, Results]:
    """Perceive each sequence with each method, unless its results are there already.

    Args:
        settings: Its directory takes the results, one file a method and sequence.
        truth: Gives the frames.
        query: The query of all frames.
        methods: The methods, made by `with_and_without_memory`.
        show: Called with the number of frames that are done.

    Returns:
        The results by the id of the method. A frame that cannot be read has a failed one.

    Raises:
        InvalidInput: The directory holds results of other work.
        UnsupportedQuery: A preset does not understand the query.
    """
    _write_manifest(settings, truth, query, methods)
    done = 0
    found: dict[str, Results] = {}
    for each in methods:
        assert each.method is not None
        files = [_file(settings.out, each, number) for number in range(len(truth.sequences))]
        perception = None
        for sequence, file in zip(truth.sequences, files, strict=True):
            if not file.exists():
                if perception is None:
                    perception = each.method.preset.build()
                    perception.load(query)
                assert sequence.read is not None, "a sequence without frames is judged by recorded results"
                scene = Scene() if each.memory else None
                items: list[dict[str, Any]] = []
                for frame in sequence.read():
                    if isinstance(frame, Frame):
                        result = perception.perceive(frame, query, each.method.budget, scene=scene)
                    else:
                        result = Result(0, 0, query, Status.FAILED, str(frame))
                    items.append(to_json(result, sequence.frames[len(items)].name))
                    show(done + len(items))
                write_item(file, items)
            done += len(sequence.frames)
            show(done)
        found[each.id] = [_read(file, len(s.frames)) for s, file in zip(truth.sequences, files, strict=True)]
    return found


def _file(out: Path, method: SequenceMethod, number: int) -> Path:
    return out / "items" / method.id / f"{number + 1}.json"


def _read(file: Path, count: int) -> list[Result | None]:
    items = read_json(file)
    if not isinstance(items, list) or len(items) != count:
        raise InvalidInput(f"{file}: is not the results of {count} frames; remove it")
    return [from_json({**item, "groundings": (), "masks": ()}) for item in items]


def _write_manifest(
    settings: RunSettings, truth: SequenceTruth, query: Query, methods: Sequence[SequenceMethod]
) -> None:
    """Note the plan, or check that the one that is there is the same."""
    stamps = [frame.stamp_ns for sequence in truth.sequences for frame in sequence.frames]
    digest = hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:16]
    samples = [Sample(number, each.name, query, _no_frame) for number, each in enumerate(truth.sequences, start=1)]
    facts = {**truth.facts, "frames": f"{len(stamps)} with the stamps {digest}"}
    plan = Dataset("sequences", samples, {"images": (), "annotations": (), "categories": ()}, {}, facts)
    chosen = {each.method.id: each.method for each in methods if each.method is not None}
    write_manifest(settings.out, plan, list(chosen.values()), settings.seed)


def _no_frame() -> Frame:
    raise InvalidInput("a sequence is no single frame")


# ---- scores ----------------------------------------------------------------------------------------------------------


def judge_sequences(
    settings: RunSettings,
    truth: SequenceTruth,
    methods: Sequence[SequenceMethod],
    results: Mapping[str, Results],
) -> tuple[list[MethodJudgement], list[Comparison]]:
    """Score the results of all methods, and compare those with a memory with those without.

    Args:
        settings: How many replicates, and their seed.
        truth: The truth.
        methods: The methods.
        results: Of each method, by its id.

    Returns:
        The scores in the order of the methods; the comparisons.

    Raises:
        MissingPackageError: There are ids to judge, and the package that does it is not installed.
    """
    counted = {}
    for each in methods:
        of_method = results[each.id]
        has_ids = each.memory or (each.memory is None and have_track_ids(r for found in of_method for r in found))
        counted[each.id] = [
            score_sequence(truth, sequence, found, bool(has_ids))
            for sequence, found in zip(truth.sequences, of_method, strict=True)
        ]
    count = len(truth.sequences)
    draws = draw_images(count, settings.replicates if count > 1 else 0, settings.seed)
    replicates = {
        name: [summarise([scores[index] for index in draw]) for draw in draws] for name, scores in counted.items()
    }
    judged = []
    for each in methods:
        values = summarise(counted[each.id])
        quality = {name: _estimate(value, replicates[each.id], name) for name, value in values.items()}
        quality |= average_precision(truth, results[each.id])
        judged.append(MethodJudgement(each, counted[each.id], quality, _cost(results[each.id])))
    by_id = {each.method.id: each for each in judged}
    comparisons = []
    for each in methods:
        if each.memory:
            a, b = by_id[each.id], by_id[replace(each, memory=False).id]
            comparisons += _compare(a, b, replicates, draws)
    return judged, comparisons


def average_precision(truth: SequenceTruth, results: Results) -> dict[str, Estimate]:
    """COCO's AP and AR of the judged frames of all sequences, without an interval; ignored objects are crowds.

    Raises:
        MissingPackageError: faster-coco-eval is not installed.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    items: list[dict[str, Any]] = []
    for sequence, of_sequence in zip(truth.sequences, results, strict=True):
        for frame, result in zip(sequence.frames, of_sequence, strict=True):
            if result is None or result.status is Status.FAILED:
                continue
            images.append({"id": len(images) + 1})
            items.append({"sample": len(images), **to_json(result, frame.name)})
            annotations += [
                {
                    "id": len(annotations) + number,
                    "image_id": len(images),
                    "category_id": known.category,
                    "bbox": list(known.box.as_tuple()),
                    "area": known.box.area,
                    "iscrowd": int(known.is_ignored),
                }
                for number, known in enumerate(frame.objects, start=1)
                if known.category in truth.categories
            ]
    if not images:
        return {str(name): Estimate(math.nan) for name in PRECISIONS}
    categories = [{"id": number, "name": name} for number, name in truth.categories.items()]
    as_coco = {"images": images, "annotations": annotations, "categories": categories}
    predictions, _, _ = predictions_of(items, Dataset("sequences", (), as_coco, truth.label_ids))
    scores = DetectionScores(as_coco, predictions, max_detections=MAX_DETECTIONS[-1:])
    return {str(name): Estimate(scores.value(name)) for name in PRECISIONS}


def _estimate(value: float, replicates: Sequence[Mapping[str, float]], name: str) -> Estimate:
    drawn = np.array([each[name] for each in replicates], float)
    if name.startswith(MEDIAN) and not np.isfinite(drawn).all():  # in some, half of the objects are never found
        return Estimate(value)
    return Estimate(value, *interval(drawn))


def _compare(
    a: MethodJudgement,
    b: MethodJudgement,
    replicates: Mapping[str, Sequence[Mapping[str, float]]],
    draws: Any,
) -> list[Comparison]:
    of_a, of_b = replicates[a.method.id], replicates[b.method.id]
    comparisons = []
    for metric in COMPARED:
        values = a.quality[metric].value, b.quality[metric].value
        if not all(map(math.isfinite, values)):
            continue
        drawn = np.array([[x[metric], y[metric]] for x, y in zip(of_a, of_b, strict=True)], float).reshape(-1, 2)
        difference = Estimate(values[0] - values[1], *interval(drawn[:, 0] - drawn[:, 1]))
        ratio = None
        if metric.startswith(FASTER):
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = Estimate(float(np.divide(values[1], values[0])), *interval(drawn[:, 1] / drawn[:, 0]))
        comparisons.append(Comparison(a.method.id, b.method.id, metric, values, difference, ratio))
    pairs = [_precision_at_equal_recall(a.sequences, b.sequences, range(len(a.sequences)))]
    pairs += [_precision_at_equal_recall(a.sequences, b.sequences, draw) for draw in draws]
    drawn = np.array(pairs, float)
    difference = Estimate(float(drawn[0, 0] - drawn[0, 1]), *interval(drawn[1:, 0] - drawn[1:, 1]))
    values = float(drawn[0, 0]), float(drawn[0, 1])
    return [*comparisons, Comparison(a.method.id, b.method.id, AT_EQUAL_RECALL, values, difference)]


def _precision_at_equal_recall(
    a: Sequence[SequenceScores], b: Sequence[SequenceScores], drawn: Sequence[int]
) -> tuple[float, float]:
    """The precision of both at the highest recall that both reach."""
    chosen = [[each[index] for index in drawn] for each in (a, b)]
    recall = min(
        sum(each.found["all"] for each in of) / max(1, sum(each.objects["all"] for each in of)) for of in chosen
    )
    return precision_at(chosen[0], recall), precision_at(chosen[1], recall)


def _cost(results: Results) -> dict[str, float]:
    flat = [each for found in results for each in found if each is not None]
    times = [each.timings_ms["total"] for each in flat if "total" in each.timings_ms]
    names = ("views", "pixels", "tokens")
    mean = {name: float(np.mean([getattr(each.cost, name) for each in flat])) if flat else math.nan for name in names}
    return {**mean, "ms_p50": float(np.median(times)) if times else math.nan}
