"""What the demo leaves behind: a summary for programs, a table and pictures for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..codecs.image_files import write_image
from ..codecs.picture import draw
from ..core import Frame, Result
from ..core.geometry import as_array
from .comparison import METHODS, MethodOutcome
from .ros_run import Frames

PANEL_GAP_PX = 12


def agree(a: Result, b: Result) -> bool:
    """Whether two results name the same objects in the same places, to the precision of a message's float32."""
    if [d.label for d in a.detections] != [d.label for d in b.detections]:
        return False
    return np.allclose(as_array(d.box for d in a.detections), as_array(d.box for d in b.detections), atol=0.01)


def write_summary(path: Path, frames: Frames, outcomes: dict[str, MethodOutcome], further: dict[str, Any]) -> None:
    """`summary.json`: what became of the frames, and what each method found and spent."""
    summary = {
        "frames": asdict(frames),
        "methods": {name: asdict(outcome) for name, outcome in outcomes.items()},
        **further,
    }
    path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def table(frames: Frames, outcomes: dict[str, MethodOutcome]) -> str:
    """The summary in lines of text."""
    rows = [("", "vehicles a frame", "views a frame", "ms a frame")]
    rows += [
        (METHODS[name], f"{o.objects_per_frame:.1f}", f"{o.views_per_frame:.0f}", f"{o.milliseconds_per_frame:.0f}")
        for name, o in outcomes.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    sent = f"{frames.sent} frames sent: {frames.processed} processed, {frames.dropped} dropped, {frames.failed} failed"
    note = "The vehicles are those reported, right or wrong; benchmarks/active_vs_slices.py checks them."
    return "\n".join([sent, "", *lines, "", note])


def write_pictures(
    directory: Path, frames: Iterable[Frame], results: dict[int, Result], show: Callable[[int], None]
) -> None:
    """Each frame that has a result, by its stamp in nanoseconds, with that result drawn in."""
    for number, frame in enumerate(frames):
        if frame.stamp_ns in results:
            write_image(directory / f"{number:03d}.jpg", draw(frame.image, results[frame.stamp_ns]))
        show(number + 1)


def write_comparison(path: Path, frame: Frame, results: Sequence[Result]) -> None:
    """One frame with the result of each method, one above the other."""
    panels = [draw(frame.image, result) for result in results]
    gap = np.full((PANEL_GAP_PX, frame.width, 3), 255, np.uint8)
    write_image(path, np.concatenate([part for panel in panels for part in (panel, gap)][:-1]))
