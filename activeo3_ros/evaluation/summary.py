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

"""The main numbers of a run as lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .differences import Difference
from .scoring import MASK_IOU, RECALL, MethodScores

MAIN_METRICS = (
    "AP", "AP small", "AP medium", "AP large", "AR small", "AR", "AR medium", "AR large",
    "AP50", "AR50 small", "AR10 small",
)  # fmt: skip
"""The columns of the tables, as far as they were measured: every size, for zooming can lose the large objects."""
COLUMNS_OF_TEXT = 5
"""How many of them fit on a terminal."""


def table_metrics(scores: Sequence[MethodScores]) -> list[str]:
    """The columns of a table of quality: the main metrics of detection, or all metrics of another protocol."""
    measured = list(dict.fromkeys(name for s in scores for name in s.quality))
    chosen = [name for name in (*MAIN_METRICS, MASK_IOU) if name in measured]
    chosen += [name for name in measured if name.startswith(f"{RECALL} ")]
    return chosen if MAIN_METRICS[0] in measured else measured


def text_table(scores: Sequence[MethodScores]) -> str:
    """Format quality and cost as a table in text, one line for each method."""
    names = table_metrics(scores)[:COLUMNS_OF_TEXT]
    header = ["method", "regions", *names, "coverage", "views", "ms p50", "failed"]
    rows = [header]
    for s in scores:
        quality = [format_number(s.quality[name].value) for name in names]
        cost = [
            format_number(s.regions["coverage"].value),
            f"{s.cost['views']:.1f}",
            format_number(s.cost["ms_p50"], 0),
            str(s.failed),
        ]
        rows.append([s.method.name, format_regions(s), *quality, *cost])
    return "\n".join(align_columns(rows))


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows of equally many cells as lines of text: the first column left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def text_difference(difference: Difference) -> str:
    """Format a paired difference as one line."""
    names = f"{difference.metric}: {difference.a} - {difference.b}"
    return f"{names} = {format_difference(difference)}, {verdict(difference)}"


def format_difference(difference: Difference) -> str:
    """Format the value of a difference and its interval, as far as they exist."""
    e = difference.estimate
    if not math.isfinite(e.value):
        return "n/a"
    return f"{e.value:+.3f}" + (f" [{e.low:+.3f}, {e.high:+.3f}]" if difference.has_interval else "")


def verdict(difference: Difference) -> str:
    """Whether a difference is shown, and why not."""
    if not math.isfinite(difference.estimate.value):
        return "the truth has no object to judge it by"
    if not difference.has_interval:
        return "too few frames for an interval"
    return "clear" if difference.is_clear else "not clear: the interval holds zero"


def notes_on(scores: Sequence[MethodScores]) -> list[str]:
    """What a user should know before trusting the table: failed frames, labels that do not count, missing scores."""
    notes = []
    for s in scores:
        if s.failed:
            every = "every frame" if s.failed == len(s.frame_recall) else f"{s.failed} of {len(s.frame_recall)} frames"
            notes.append(f"{s.method.id}: {every} failed and counts as one in which nothing was found: {s.failure}")
        if s.unknown_labels:
            found = ", ".join(f"{label} ({count})" for label, count in sorted(s.unknown_labels.items()))
            notes.append(f"{s.method.id}: labels that are no category of the truth do not count: {found}")
        if s.unscored:
            notes.append(f"{s.method.id}: {s.unscored} detections have no score; they rank after all that have one")
    return notes


def format_regions(scores: MethodScores) -> str:
    """The number of regions of a method; where its policy chose it, the mean a frame."""
    regions = scores.method.regions
    return f"{scores.cost['regions']:.3g}" if regions is None else str(regions)


def format_number(value: float, digits: int = 3) -> str:
    """Format a number with so many digits after the point; "n/a" if there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "n/a"
