"""The main numbers of a run as lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .differences import Difference
from .scoring import MASK_IOU, MethodScores

MAIN_METRICS = ("AP", "AP50", "AR", "AP small", "AR small", "AR50 small", "AR10 small")
"""The columns of the tables, as far as they were measured."""
COLUMNS_OF_TEXT = 5
"""How many of them fit on a terminal."""


def table_metrics(scores: Sequence[MethodScores]) -> list[str]:
    """The columns of a table of quality: the main metrics of detection, or all metrics of another protocol."""
    measured = list(dict.fromkeys(name for s in scores for name in s.quality))
    chosen = [name for name in (*MAIN_METRICS, MASK_IOU) if name in measured]
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
            f"{s.cost['ms_p50']:.0f}",
            str(s.failed),
        ]
        rows.append([s.method.name, str(s.method.regions), *quality, *cost])
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
    e = difference.estimate
    verdict = "clear" if difference.is_clear else "not clear: the interval holds zero"
    names = f"{difference.metric}: {difference.a} - {difference.b}"
    return f"{names} = {e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}], {verdict}"


def format_number(value: float) -> str:
    """Format a metric with three digits; "n/a" if there is none."""
    return f"{value:.3f}" if math.isfinite(value) else "n/a"
