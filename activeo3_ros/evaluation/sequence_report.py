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

"""The numbers of sequences as text, as JSON, and as a page that opens offline."""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from ..codecs.picture import draw, side_by_side
from ..core import Frame, Result
from ..core.geometry import as_array
from .environment import describe_environment
from .item_files import write_atomically
from .plots import Point, curve
from .report import jpeg_text, outline, page_template
from .sequence_metrics import recall_curve
from .sequence_runs import Comparison, MethodJudgement, Results
from .sequence_truth import SequenceTruth, TrueSequence
from .settings import RunSettings
from .summary import align_columns, format_number

TEXT_COLUMNS = (
    "recall", "recall small", "precision", "false objects a frame", "events a frame", "first detection small, s",
    "IDF1", "HOTA", "jitter",
)  # fmt: skip
HEADS = {
    "false objects a frame": "false/frame",
    "events a frame": "events/frame",
    "first detection small, s": "first small, s",
}
"""Short names on a terminal."""
PAGE_COLUMNS = (
    ("What is found", (
        "recall", "recall tiny", "recall small", "recall medium", "recall large", "recall of all frames", "precision",
        "false objects a frame", "objects a frame", "carried a frame", "AP", "AP50", "AP small", "AR small",
    )),
    ("When", (
        "first detection, s", "first detection tiny, s", "first detection small, s", "first detection medium, s",
        "first detection large, s", "first look, s", "first look small, s", "half found small, s", "never found",
        "never found tiny", "never found small",
    )),
    ("How steady", ("events a frame", "true events a frame", "jitter", "IDF1", "HOTA", "DetA", "AssA")),
)  # fmt: skip


def write_reports(
    settings: RunSettings,
    truth: SequenceTruth,
    judged: Sequence[MethodJudgement],
    comparisons: Sequence[Comparison],
    notes: Sequence[str],
    results: Mapping[str, Results],
) -> None:
    """Write `metrics.json` and `report.html` into the directory of the run.

    Args:
        settings: Settings of the run.
        truth: The truth.
        judged: Scores of all methods.
        comparisons: Those with a memory against those without.
        notes: What a user should know before the scores are read.
        results: Of each method, by its id; frames are read for the pictures.

    Raises:
        MissingPackageError: jinja2 or matplotlib is not installed.
    """
    values = to_values(settings, truth, judged, comparisons, notes)
    write_atomically(settings.out / "metrics.json", json.dumps(values, indent=1, allow_nan=False) + "\n")
    write_atomically(settings.out / "report.html", _page(settings, truth, judged, comparisons, notes, results))


def to_values(
    settings: RunSettings,
    truth: SequenceTruth,
    judged: Sequence[MethodJudgement],
    comparisons: Sequence[Comparison],
    notes: Sequence[str],
) -> dict[str, Any]:
    """The content of `metrics.json`; a number that does not exist is None."""
    return {
        "question": settings.question,
        "command": shlex.join(["activeo3", *settings.command]),
        "seed": settings.seed,
        "bootstrap_replicates": settings.replicates,
        "truth": {"sequences": len(truth.sequences), "categories": list(truth.categories.values()), **truth.facts},
        "environment": describe_environment(),
        "notes": list(notes),
        "methods": [
            {
                "id": each.method.id,
                "memory": each.method.memory,
                **frame_counts(each),
                "quality": {name: estimate.to_json() for name, estimate in each.quality.items()},
                "cost": {name: value if math.isfinite(value) else None for name, value in each.cost.items()},
                "recall_by_time": [[round(x, 3), round(y, 6)] for x, y in recall_curve(each.sequences)],
                "sequences": [
                    {"name": s.name, "frames": s.frames, "judged": s.judged, "failed": s.failed,
                     "without_result": s.without_result, "objects": s.objects["all"], "found": s.found["all"],
                     "detections": s.detections}
                    for s in each.sequences
                ],
            }
            for each in judged
        ],
        "comparisons": [
            {
                "a": each.a,
                "b": each.b,
                "metric": each.metric,
                "difference": each.difference.to_json(),
                "ratio": each.ratio.to_json() if each.ratio else None,
                "verdict": each.verdict,
            }
            for each in comparisons
        ],
    }  # fmt: skip


def frame_counts(judged: MethodJudgement) -> dict[str, int]:
    """How many frames have truth, were judged, failed, and have no result."""
    names = ("frames", "judged", "failed", "without_result")
    return {name: sum(getattr(each, name) for each in judged.sequences) for name in names}


def notes_on_methods(judged: Sequence[MethodJudgement]) -> list[str]:
    """What a user should know before the scores are read: frames that were not judged, labels that do not count."""
    notes = []
    for each in judged:
        counts = frame_counts(each)
        if counts["without_result"]:
            notes.append(
                f"{each.method.id}: {counts['without_result']} of {counts['frames']} frames have no result; they count "
                "in 'recall of all frames' and in the times to first detections alone"
            )
        if counts["failed"]:
            failure = next(s.failure for s in each.sequences if s.failed)
            notes.append(
                f"{each.method.id}: {counts['failed']} of {counts['frames']} frames failed, and count as those without "
                f"a result: {failure}"
            )
        unknown: Counter[str] = Counter()
        for sequence in each.sequences:
            unknown.update(sequence.unknown)
        if unknown:
            found = ", ".join(f"{label} ({count})" for label, count in sorted(unknown.items()))
            notes.append(f"{each.method.id}: labels that are no category of the truth do not count: {found}")
        if not math.isfinite(each.quality["IDF1"].value):
            notes.append(f"{each.method.id}: no IDF1 and HOTA, for objects without an id")
    return notes


def text_table(judged: Sequence[MethodJudgement]) -> str:
    """The main numbers of all methods as lines of text."""
    head = ["method", "frames", "judged", "failed", "no result", *(HEADS.get(name, name) for name in TEXT_COLUMNS)]
    rows = [head]
    for each in judged:
        numbers = [format_number(each.quality[name].value) for name in TEXT_COLUMNS]
        rows.append([each.method.id, *map(str, frame_counts(each).values()), *numbers])
    return "\n".join(align_columns(rows))


def text_comparison(comparison: Comparison) -> str:
    """One comparison as a line of text."""
    line = f"{comparison.metric}: {comparison.a} - {comparison.b} = {format_change(comparison)}, {comparison.verdict}"
    ratio = format_ratio(comparison)
    return f"{line}; {ratio}" if ratio else line


def format_change(comparison: Comparison) -> str:
    """The difference and its interval."""
    e = comparison.difference
    if not math.isfinite(e.value):
        return "n/a"
    return f"{e.value:+.3f}" + (f" [{e.low:+.3f}, {e.high:+.3f}]" if math.isfinite(e.low) else "")


def format_ratio(comparison: Comparison) -> str:
    """The time without a memory in shares of that with one, and its interval; "" for other metrics."""
    e = comparison.ratio
    if e is None or not math.isfinite(e.value):
        return ""
    return f"without / with = {e.value:.2f}" + (f" [{e.low:.2f}, {e.high:.2f}]" if math.isfinite(e.low) else "")


def _page(
    settings: RunSettings,
    truth: SequenceTruth,
    judged: Sequence[MethodJudgement],
    comparisons: Sequence[Comparison],
    notes: Sequence[str],
    results: Mapping[str, Results],
) -> str:
    lines = {
        each.method.id: [Point(x, y, math.nan, math.nan) for x, y in recall_curve(each.sequences)] for each in judged
    }
    facts = {
        "truth": f"{len(truth.sequences)} sequences, {sum(len(s.frames) for s in truth.sequences)} frames",
        **{f"truth: {name}": str(value) for name, value in truth.facts.items()},
        "command": shlex.join(["activeo3", *settings.command]),
        "seed": str(settings.seed),
        "intervals": f"95 %, bootstrap over sequences, {settings.replicates} replicates",
        **describe_environment(),
    }
    page = page_template("sequences.html.j2").render(
        question=settings.question,
        judged=judged,
        tables=PAGE_COLUMNS,
        counts={each.method.id: frame_counts(each) for each in judged},
        notes=notes,
        comparisons=[(each, format_change(each), format_ratio(each)) for each in comparisons],
        recall=curve({name: points for name, points in lines.items() if points}, "seconds", "recall")
        if any(lines.values())
        else "",
        pairs=_pairs(truth, judged, comparisons, results),
        facts=facts,
    )
    return str(page)


def _pairs(
    truth: SequenceTruth,
    judged: Sequence[MethodJudgement],
    comparisons: Sequence[Comparison],
    results: Mapping[str, Results],
) -> list[tuple[str, str]]:
    """Of each two methods the frame where the memory adds most, and the one where it takes most: title and JPEG."""
    by_id = {each.method.id: each for each in judged}
    pairs = []
    for a, b in dict.fromkeys((each.a, each.b) for each in comparisons):
        changes = {
            (number, frame): of_a - of_b
            for number, (x, y) in enumerate(zip(by_id[a].sequences, by_id[b].sequences, strict=True))
            for frame, (of_a, of_b) in enumerate(zip(x.frame_recall, y.frame_recall, strict=True))
            if math.isfinite(of_a - of_b)
        }
        for title, choose in (("most gained", max), ("most lost", min)):
            place = choose(changes, key=changes.__getitem__, default=None)
            if place is None or (changes[place] <= 0) == (choose is max):
                continue
            number, frame = place
            recalls = [by_id[each].sequences[number].frame_recall[frame] for each in (b, a)]
            found = [results[each][number][frame] for each in (b, a)]
            jpeg = _pair(truth.sequences[number], frame, (b, a), found)
            if jpeg:
                name = truth.sequences[number].frames[frame].name
                caption = f"{title}, {name}: {100 * recalls[0]:.0f} % found by {b}, {100 * recalls[1]:.0f} % by {a}"
                pairs.append((caption, jpeg))
    return pairs


def _pair(sequence: TrueSequence, frame: int, titles: Sequence[str], results: Sequence[Result | None]) -> str:
    """A frame with the truth and each result, side by side, as JPEG in base64; "" if it cannot be read."""
    image = next(islice(sequence.read(), frame, None), None) if sequence.read is not None else None
    if not isinstance(image, Frame):
        return ""
    boxes = as_array(known.box for known in sequence.frames[frame].objects if not known.is_ignored)
    drawn = [
        (title, outline(draw(image.image, result), boxes))
        for title, result in zip(titles, results, strict=True)
        if result is not None
    ]
    return jpeg_text(side_by_side(drawn))
