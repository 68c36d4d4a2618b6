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

"""The figures of a report, as SVG elements for an HTML page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.optional import require_package
from .detector_calibration import Measured
from .methods import BOX_ORACLE, ORACLE

# Okabe and Ito's colours, which stay apart for colour-blind eyes.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
DASHED = (ORACLE, BOX_ORACLE)
"""Drawn dashed: methods that need the ground truth."""


@dataclass(frozen=True)
class Point:
    """One method at one budget: its cost `x`, its quality `y`, the bounds of the 95 % interval."""

    x: float
    y: float
    low: float
    high: float


def curve(lines: Mapping[str, Sequence[Point]], x_label: str, y_label: str) -> str:
    """Plot quality against cost, one line for each method with its 95 % intervals.

    Args:
        lines: Points by the name of the method.
        x_label: Label of the cost.
        y_label: Label of the quality.

    Returns:
        An `<svg>` element.
    """
    figure, axes = _figure()
    for colour, (name, points) in zip(_colours(len(lines)), lines.items(), strict=True):
        ordered = sorted(points, key=lambda point: point.x)
        x, y = [p.x for p in ordered], np.array([p.y for p in ordered])
        errors = np.nan_to_num(np.array([y - [p.low for p in ordered], [p.high for p in ordered] - y])).clip(0)
        style = "--" if name in DASHED else "-"
        axes.errorbar(
            x, y, errors, label=name, color=colour, marker="o", markersize=4, capsize=2, linestyle=style, lw=1.4
        )
    if all(float(point.x).is_integer() for points in lines.values() for point in points):
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
    return _svg(figure)


def distribution(times_ms: Mapping[str, Sequence[float]]) -> str:
    """Plot the cumulative distribution of latency, one line for each method.

    Args:
        times_ms: Milliseconds of each frame, by method.

    Returns:
        An `<svg>` element.
    """
    figure, axes = _figure()
    for colour, (name, values) in zip(_colours(len(times_ms)), times_ms.items(), strict=True):
        ordered = np.sort(np.asarray(values, float))
        if len(ordered):
            axes.step(
                ordered, np.arange(1, len(ordered) + 1) / len(ordered), where="post", label=name, color=colour, lw=1.4
            )
    axes.set_xscale("log")
    ticker = require_package("matplotlib.ticker", "to draw the curves of a report", "matplotlib")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_xlabel("milliseconds a frame")
    axes.set_ylabel("share of frames")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3, which="both")
    if axes.get_legend_handles_labels()[0]:  # no frame has a time where every one failed
        axes.legend(fontsize=7, frameon=False, ncols=2)
    return _svg(figure)


def calibration_figure(measured: Measured, title: str) -> bytes:
    """Plot the share of objects found by side, and the share of boxes that are true by score at three sides.

    Args:
        measured: The calibration with its intervals.
        title: Of the figure.

    Returns:
        A PNG file.
    """
    own = measured.calibration
    figure_module = require_package("matplotlib.figure", "to draw the curves of a calibration", "matplotlib")
    figure = figure_module.Figure(figsize=(9.6, 3.8), layout="constrained", dpi=120)
    found, scores = figure.subplots(1, 2)
    sides, shares = np.array(own.sides_px), np.array(own.found)
    low, high = np.array(measured.found_interval).T
    found.fill_between(sides, low, high, color=COLOURS[0], alpha=0.2, lw=0, label="95 % interval")
    found.plot(sides, shares, color=COLOURS[0], marker="o", markersize=4, lw=1.4, label="measured")
    found.axvline(own.half_found_side_px, color=COLOURS[6], lw=1, ls=":", label="half of its best, boxes that fit")
    found.set_xscale("log", base=2)
    ticker = require_package("matplotlib.ticker", "to draw the curves of a calibration", "matplotlib")
    found.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    found.set_xlabel("side in pixels of the detector's input")
    found.set_ylabel(f"share found at score {own.threshold:g}")
    for colour, index in zip(COLOURS[:3], sorted({0, len(sides) // 2, len(sides) - 1}), strict=False):
        scores.plot(own.scores, own.true_share[index], color=colour, marker="o", markersize=4, lw=1.4,
                    label=f"side {sides[index]:g} px")  # fmt: skip
    scores.set_xlabel("score")
    scores.set_ylabel("share of boxes that are objects")
    for axes in (found, scores):
        axes.set_ylim(0, 1.02)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False, loc="lower right")
    figure.suptitle(f"{title}: {measured.objects} sure objects in {measured.pictures} pictures", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _colours(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def _figure() -> tuple[Any, Any]:
    figure_module = require_package("matplotlib.figure", "to draw the curves of a report", "matplotlib")
    figure = figure_module.Figure(figsize=(6.4, 3.8), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Any) -> str:
    """The `<svg>` element: the same bytes for the same figure, text as text."""
    matplotlib = require_package("matplotlib", "to draw the curves of a report")
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "activeo3", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), flags=re.DOTALL)
