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

"""Scores of results over sequences: what is found and when, how steady it is, whether ids last.

An object counts as found where a detection of its category overlaps it with an IoU of at least 0.5, the best score
first. A frame without a result, and one whose perception failed, says nothing: it is counted, and left out of all
numbers but `recall of all frames`, to which its objects are missed. First detections come later where frames are lost.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ..core import Box, Detection, Result, Status
from ..core.geometry import Boxes, as_array, iou, share_inside, to_corners
from .detector_oracle import MATCH_IOU
from .metrics import AREAS, NO_SCORE_RANK
from .region_quality import COVERED_SHARE
from .sequence_truth import SequenceTruth, TrackedObject, TrueFrame, TrueSequence
from .tracking_scores import Counts, FrameMatches, count_sequence, tracking_scores

SAME_OBJECT_IOU = 0.3
"""Objects of neighbouring frames are one where their labels are the same and they overlap so much."""
SIZES = ("tiny", "small", "medium", "large")
IGNORED_SHARE = 0.5
"""A detection of which so much lies in an ignored object is left out, unless it is that of another one."""

Found = Sequence[tuple[int, int]]
"""Index of a true object, and of the detection of it."""


@dataclass(frozen=True)
class FirstDetection:
    """How long an object was there before it was found.

    Attributes:
        size: Of the object where it first appears, a name of `SIZES`; the smallest that holds it.
        waited_s: Seconds from the first frame that has it to the first in which it is found; where it never is, to the
            last that has it.
        is_found: Whether it ever is.
        unseen_s: Seconds to the first frame of which a region holds at least half of it, counted likewise.
    """

    size: str
    waited_s: float
    is_found: bool
    unseen_s: float = math.nan


@dataclass
class SequenceScores:
    """What is counted in one sequence; sums of several sequences give the numbers of all.

    Attributes:
        name: Of the sequence.
        frames: With truth.
        judged: Frames with a result that perception did not fail for.
        failed: Frames whose result says that perception failed.
        failure: Why the first of them failed.
        without_result: Frames for which there is no result.
        objects: True objects in judged frames, by size and "all".
        found: Those of them that are found.
        objects_lost: True objects in the other frames.
        detections: In judged frames, those of labels that are no category and those of ignored objects left out.
        carried: Those of them that no look of their frame showed.
        events: Objects that appear or vanish between neighbouring judged frames.
        true_events: The same of the true objects, NaN without ids.
        pairs: Neighbouring judged frames.
        scores: `(detections,)` of each, NaN where there is none.
        is_true: `(detections,)` whether it is of a true object.
        first: One for each object; none without ids.
        jitter: For each object that is found in neighbouring frames, the change of its error, in shares of its side.
        tracking: What IDF1 and HOTA are made of; None without ids on either side.
        unknown: How often each label occurs that is no category.
        recall_by_time: Seconds after the first frame, and the share of the objects that are found, of judged frames.
        frame_recall: Share of the objects of each frame that are found, NaN where it is not judged or has none.
    """

    name: str
    frames: int = 0
    judged: int = 0
    failed: int = 0
    failure: str = ""
    without_result: int = 0
    objects: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    objects_lost: int = 0
    detections: int = 0
    carried: int = 0
    events: int = 0
    true_events: float = 0.0
    pairs: int = 0
    scores: list[float] = field(default_factory=list)
    is_true: list[bool] = field(default_factory=list)
    first: list[FirstDetection] = field(default_factory=list)
    jitter: list[float] = field(default_factory=list)
    tracking: Counts | None = None
    unknown: Counter[str] = field(default_factory=Counter)
    recall_by_time: list[tuple[float, float]] = field(default_factory=list)
    frame_recall: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Judged:
    """One judged frame: what is true, what was found, and which of them belong together."""

    time_s: float
    objects: list[TrackedObject]
    detections: list[Detection]
    categories: list[int]
    matches: dict[int, int]
    regions: Boxes


def have_track_ids(results: Iterable[Result | None]) -> bool:
    """Whether every detection of some results has a track id, and there are any."""
    found = [each.track_id for result in results if result is not None for each in result.detections]
    return bool(found) and all(found)


def score_sequence(
    truth: SequenceTruth, sequence: TrueSequence, results: Sequence[Result | None], has_track_ids: bool
) -> SequenceScores:
    """Judge the results of one sequence.

    Args:
        truth: Knows the categories.
        sequence: The sequence.
        results: That of each frame, None where there is none.
        has_track_ids: Whether the detections of the run have ids, so that IDF1 and HOTA mean something.

    Raises:
        MissingPackageError: There are ids on both sides, and the package that scores them is not installed.
    """
    scores = SequenceScores(sequence.name)
    judged: list[_Judged | None] = []
    for frame, result in zip(sequence.frames, results, strict=True):
        scores.frames += 1
        if result is None or result.status is Status.FAILED:
            scores.without_result += result is None
            if result is not None:
                scores.failed += 1
                scores.failure = scores.failure or result.status_message
            scores.objects_lost += sum(not each.is_ignored for each in frame.objects)
            judged.append(None)
            scores.frame_recall.append(math.nan)
            continue
        seen = _judge(truth, frame, result, (frame.stamp_ns - sequence.frames[0].stamp_ns) / 1e9, scores.unknown)
        judged.append(seen)
        _count(scores, seen)
    for before, after in pairwise(judged):
        if before is not None and after is not None:
            _count_pair(scores, before, after, truth.has_ids)
    if truth.has_ids:
        scores.first = _first_detections(sequence, judged)
    seen_frames = [each for each in judged if each is not None]
    if truth.has_ids and has_track_ids:
        scores.tracking = count_sequence([_frame_matches(each) for each in seen_frames])
    return scores


def _judge(truth: SequenceTruth, frame: TrueFrame, result: Result, time_s: float, unknown: Counter[str]) -> _Judged:
    objects = [each for each in frame.objects if not each.is_ignored]
    ignored = [each for each in frame.objects if each.is_ignored]
    detections, categories = [], []
    for found in sorted(result.detections, key=lambda each: -_rank(each)):
        category = truth.category_of(found.label)
        if category is None:
            unknown[found.label] += 1
            continue
        detections.append(found)
        categories.append(category)
    matches = dict(_match(objects, detections, categories))
    taken = set(matches.values())
    hidden = _inside_ignored(detections, ignored)
    kept = [n for n in range(len(detections)) if n in taken or not hidden[n]]
    place = {old: new for new, old in enumerate(kept)}
    return _Judged(
        time_s,
        objects,
        [detections[n] for n in kept],
        [categories[n] for n in kept],
        {known: place[found] for known, found in matches.items()},
        as_array(region.box for region in result.regions),
    )


def _rank(found: Detection) -> float:
    return found.score if math.isfinite(found.score) else NO_SCORE_RANK


def _match(objects: Sequence[TrackedObject], found: Sequence[Detection], categories: Sequence[int]) -> Found:
    """Each detection in turn takes the free object of its category that it overlaps most."""
    overlaps = _overlaps(objects, found, categories)
    taken: dict[int, int] = {}
    for column in range(len(found)):
        free = [row for row in np.flatnonzero(overlaps[:, column] >= MATCH_IOU).tolist() if row not in taken]
        if free:
            taken[max(free, key=overlaps[:, column].__getitem__)] = column
    return sorted(taken.items())


def _overlaps(
    objects: Sequence[TrackedObject], found: Sequence[Detection], categories: Sequence[int]
) -> npt.NDArray[np.float64]:
    """`(objects, detections)` IoU, 0 for those of different categories."""
    overlaps = iou(as_array(each.box for each in objects), as_array(each.box for each in found))
    known = np.array([each.category for each in objects], int)
    return np.where(known[:, None] == np.array(categories, int), overlaps, 0.0)


def _inside_ignored(found: Sequence[Detection], ignored: Sequence[TrackedObject]) -> npt.NDArray[np.bool_]:
    shares = share_inside(as_array(each.box for each in found), as_array(each.box for each in ignored))
    return np.asarray((shares >= IGNORED_SHARE).any(axis=1)) if ignored else np.zeros(len(found), bool)


def size_of(box: Box) -> str:
    """The smallest of `SIZES` that holds a box."""
    return next((name for name in SIZES if AREAS[name][0] <= box.area < AREAS[name][1]), SIZES[-1])


def _count(scores: SequenceScores, seen: _Judged) -> None:
    scores.judged += 1
    scores.detections += len(seen.detections)
    scores.carried += sum(found.carried for found in seen.detections)
    for index, known in enumerate(seen.objects):
        for name in ("all", size_of(known.box)):
            scores.objects[name] += 1
            scores.found[name] += index in seen.matches
    of_objects = set(seen.matches.values())
    scores.scores += [found.score for found in seen.detections]
    scores.is_true += [index in of_objects for index in range(len(seen.detections))]
    recall = _ratio(len(seen.matches), len(seen.objects))
    scores.frame_recall.append(recall)
    if seen.objects:
        scores.recall_by_time.append((seen.time_s, recall))


def _count_pair(scores: SequenceScores, before: _Judged, after: _Judged, has_ids: bool) -> None:
    scores.pairs += 1
    same = neighbours(before.detections, after.detections)
    scores.events += len(before.detections) + len(after.detections) - 2 * len(same)
    if not has_ids:
        scores.true_events = math.nan
        return
    was, now = ({known.id: index for index, known in enumerate(each.objects)} for each in (before, after))
    scores.true_events += len(was.keys() ^ now.keys())
    for name in was.keys() & now.keys():
        if was[name] in before.matches and now[name] in after.matches:
            errors = [_error(seen, row) for seen, row in ((before, was[name]), (after, now[name]))]
            scores.jitter.append(float(np.abs(errors[1] - errors[0]).mean()))


def neighbours(before: Sequence[Detection], after: Sequence[Detection]) -> list[tuple[int, int]]:
    """Match the objects of neighbouring frames by label and box, the largest overlap first; ids play no part.

    Args:
        before: Of one frame.
        after: Of the next one.

    Returns:
        Indices of those that are the same.
    """
    overlaps = iou(as_array(each.box for each in before), as_array(each.box for each in after))
    labels = np.array([each.label for each in before])[:, None] == np.array([each.label for each in after])
    rows: set[int] = set()
    columns: set[int] = set()
    same = []
    places = np.argwhere(np.where(labels, overlaps, 0.0) >= SAME_OBJECT_IOU).tolist()
    for row, column in sorted(places, key=lambda place: (-overlaps[place[0], place[1]], *place)):
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            same.append((row, column))
    return same


def _error(seen: _Judged, row: int) -> npt.NDArray[np.float64]:
    """`(4,)` by how much each edge is off, in shares of the object's side."""
    true, found = seen.objects[row].box, seen.detections[seen.matches[row]].box
    edges = to_corners([true.as_tuple(), found.as_tuple()])
    return np.asarray((edges[1] - edges[0]) / math.sqrt(true.area))


def _first_detections(sequence: TrueSequence, judged: Sequence[_Judged | None]) -> list[FirstDetection]:
    began: dict[str, tuple[int, str]] = {}
    last: dict[str, int] = {}
    found: dict[str, int] = {}
    looked: dict[str, int] = {}
    has_regions = any(seen is not None and len(seen.regions) for seen in judged)
    for frame, seen in zip(sequence.frames, judged, strict=True):
        for known in frame.objects:
            if not known.is_ignored:
                began.setdefault(known.id, (frame.stamp_ns, size_of(known.box)))
                last[known.id] = frame.stamp_ns
        if seen is not None:
            for row in seen.matches:
                found.setdefault(seen.objects[row].id, frame.stamp_ns)
            inside = share_inside(as_array(known.box for known in seen.objects), seen.regions) >= COVERED_SHARE
            for row in np.flatnonzero(inside.any(axis=1)).tolist():
                looked.setdefault(seen.objects[row].id, frame.stamp_ns)
    return [
        FirstDetection(
            size,
            (found.get(name, last[name]) - stamp) / 1e9,
            name in found,
            (looked.get(name, last[name]) - stamp) / 1e9 if has_regions else math.nan,
        )
        for name, (stamp, size) in began.items()
    ]


def _frame_matches(seen: _Judged) -> FrameMatches:
    return FrameMatches(
        [known.id for known in seen.objects],
        [found.track_id for found in seen.detections],
        _overlaps(seen.objects, seen.detections, seen.categories),
    )


# ---- the numbers of several sequences --------------------------------------------------------------------------------


def summarise(sequences: Sequence[SequenceScores]) -> dict[str, float]:
    """The numbers of several sequences together, by name; a sequence may be there several times.

    Seconds for times, shares from 0 to 1 for recall, precision and IDs; NaN where there is nothing to judge by.
    """
    objects, found = _sum(sequences, "objects"), _sum(sequences, "found")
    total = {
        name: sum(getattr(each, name) for each in sequences)
        for name in ("judged", "objects_lost", "detections", "carried", "events", "true_events", "pairs")
    }
    true = sum(sum(each.is_true) for each in sequences)
    values = {"recall": _ratio(found["all"], objects["all"])}
    values |= {f"recall {size}": _ratio(found[size], objects[size]) for size in SIZES}
    values["recall of all frames"] = _ratio(found["all"], objects["all"] + total["objects_lost"])
    values["precision"] = _ratio(true, total["detections"])
    values["false objects a frame"] = _ratio(total["detections"] - true, total["judged"])
    values["objects a frame"] = _ratio(total["detections"], total["judged"])
    values["carried a frame"] = _ratio(total["carried"], total["judged"])
    values["events a frame"] = _ratio(total["events"], total["pairs"])
    values["true events a frame"] = _ratio(total["true_events"], total["pairs"])
    first = [each for sequence in sequences for each in sequence.first]
    for name, chosen in (("", first), *((f" {size}", [f for f in first if f.size == size]) for size in SIZES)):
        values[f"first detection{name}, s"] = _ratio(sum(each.waited_s for each in chosen), len(chosen))
        values[f"first look{name}, s"] = _ratio(sum(each.unseen_s for each in chosen), len(chosen))
        values[f"half found{name}, s"] = _median_wait(chosen)
        values[f"never found{name}"] = _ratio(sum(not each.is_found for each in chosen), len(chosen))
    jitter = [change for each in sequences for change in each.jitter]
    values["jitter"] = float(np.median(jitter)) if jitter else math.nan
    counts = [each.tracking for each in sequences if each.tracking is not None]
    values |= tracking_scores(counts if len(counts) == len(sequences) else [])
    return values


def _median_wait(first: Sequence[FirstDetection]) -> float:
    """Seconds after which half of the objects are found; NaN where half of them never are."""
    waits = sorted(each.waited_s if each.is_found else math.inf for each in first)
    return waits[(len(waits) - 1) // 2] if waits and waits[(len(waits) - 1) // 2] < math.inf else math.nan


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _sum(sequences: Sequence[SequenceScores], name: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in sequences:
        total.update(getattr(each, name))
    return total


def precision_at(sequences: Sequence[SequenceScores], recall: float) -> float:
    """Precision of the detections of the best scores that together reach a recall; NaN where all do not.

    Args:
        sequences: The sequences.
        recall: Share of the objects of judged frames, more than 0.
    """
    scores = np.array([score for each in sequences for score in each.scores], float)
    is_true = np.array([true for each in sequences for true in each.is_true], bool)
    wanted = recall * _sum(sequences, "objects")["all"]
    order = np.argsort(-np.nan_to_num(scores, nan=NO_SCORE_RANK), kind="stable")
    reached = np.flatnonzero(np.cumsum(is_true[order]) >= wanted - 1e-9)
    if not len(reached) or wanted <= 0:
        return math.nan
    count = int(reached[0]) + 1
    return float(is_true[order][:count].mean())


def recall_curve(sequences: Sequence[SequenceScores], bins: int = 10) -> Iterator[tuple[float, float]]:
    """Recall over time: the middle of each part of the longest sequence in seconds, and the mean recall of its frames.

    Args:
        sequences: The sequences.
        bins: Number of parts.
    """
    places = [place for each in sequences for place in each.recall_by_time]
    if not places:
        return
    times, recalls = np.array(places).T
    width = max(float(times.max()) / bins, 1e-9)
    part = np.minimum((times / width).astype(int), bins - 1)
    for number in sorted(set(part.tolist())):
        yield (number + 0.5) * width, float(recalls[part == number].mean())
