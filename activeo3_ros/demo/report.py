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

"""The files and the table of the demo: a summary for programs, pictures for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..codecs.image_files import write_image
from ..codecs.picture import draw
from ..codecs.video import VideoWriter
from ..core import Frame, Result
from ..core.geometry import as_array
from ..evaluation.summary import align_columns
from .comparison import METHODS, MethodOutcome
from .ros_run import FrameCounts

PANEL_GAP_PX = 12


def agree(a: Result, b: Result) -> bool:
    """Whether two results of one frame have the same detections in the same order, to the precision of float32."""
    if [d.label for d in a.detections] != [d.label for d in b.detections]:
        return False
    return np.allclose(as_array(d.box for d in a.detections), as_array(d.box for d in b.detections), atol=0.01)


def write_summary(path: Path, frames: FrameCounts, outcomes: dict[str, MethodOutcome], further: dict[str, Any]) -> None:
    """Write `summary.json`.

    Args:
        path: The file.
        frames: Counts of the frames that were sent to the node.
        outcomes: Outcome of each method, by preset.
        further: Further keys.
    """
    summary = {
        "frames": asdict(frames),
        "methods": {name: asdict(outcome) for name, outcome in outcomes.items()},
        **further,
    }
    path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def table(frames: FrameCounts, outcomes: dict[str, MethodOutcome]) -> str:
    """Format the counts and outcomes as text.

    Args:
        frames: Counts of the frames that were sent to the node.
        outcomes: Outcome of each method, by preset.

    Returns:
        The counts, a table with one line for each method, and a note.
    """
    rows = [("", "vehicles a frame", "views a frame", "ms a frame")]
    rows += [
        (METHODS[name], f"{o.objects_per_frame:.1f}", f"{o.views_per_frame:.0f}", f"{o.milliseconds_per_frame:.0f}")
        for name, o in outcomes.items()
    ]
    sent = f"{frames.sent} frames sent: {frames.processed} processed, {frames.dropped} dropped, {frames.failed} failed"
    note = "The vehicles are those reported, right or wrong; benchmarks/active_vs_slices.py checks them."
    return "\n".join([sent, "", *align_columns(rows), "", note])


def write_pictures(
    directory: Path, film: Path, frames: Iterable[Frame], results: dict[int, Result], show: Callable[[int], None]
) -> None:
    """Draw the results into their frames.

    Args:
        directory: Directory of the pictures.
        film: An MP4 of the same pictures.
        frames: Frames with their stamps.
        results: Results by the stamp of their frame in nanoseconds; a frame without one is left out.
        show: Called with the number of frames so far.
    """
    with VideoWriter(film) as video:
        for number, frame in enumerate(frames):
            if frame.stamp_ns in results:
                drawn = draw(frame.image, results[frame.stamp_ns])
                write_image(directory / f"{number:03d}.jpg", drawn)
                video.write(drawn, frame.stamp_ns / 1e9)
            show(number + 1)


def write_comparison(path: Path, frame: Frame, results: Sequence[Result]) -> None:
    """Draw the result of each method into a copy of one frame, one copy above the other."""
    panels = [draw(frame.image, result) for result in results]
    gap = np.full((PANEL_GAP_PX, frame.width, 3), 255, np.uint8)
    write_image(path, np.concatenate([part for panel in panels for part in (panel, gap)][:-1]))
