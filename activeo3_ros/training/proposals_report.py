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

"""The page that a training of gain maps ends with: gain on held-out pictures, curve, reliability, sample panels."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..codecs.image_files import Picture
from ..core.results import Region
from ..evaluation.item_files import write_atomically
from ..evaluation.plots import Point, curve
from .proposals import REGIONS, Outcome, ProposalsTrainer
from .proposals_scenes import Scene

REPORT = "report.html"
PANEL_SCENES, PANEL_REGIONS = 6, 3
PANEL_WIDTH_PX = 768
BEFORE, NOW, OBJECT = (170, 170, 170), (0, 150, 255), (80, 220, 80)
"""Colours of windows and objects, BGR."""
STYLE = "body{font:15px sans-serif;max-width:60em;margin:2em auto}td,th{padding:.2em .8em;text-align:right}"


def preset_lines(head: Path) -> str:
    """What a preset file says to use a head."""
    return f"sensing:\n  type: gain_maps\n  model: {head.absolute()}"


def gain_table(outcome: Outcome) -> list[tuple[str, ...]]:
    """Objects newly found in a held-out scene, by the number of regions: rows of texts, the first one names them."""
    rows = [("objects newly found in a scene", *(f"{count} regions" for count in REGIONS))]
    named = (
        ("gain maps", outcome.best.gain),
        ("detector proposals", outcome.baseline),
        ("windows from the teacher's own maps", outcome.ceiling),
    )
    return [*rows, *((name, *(f"{value:.2f}" for value in gains)) for name, gains in named)]


def second_stage(outcome: Outcome) -> str:
    """Whether the second stage was kept, and why; "" where there was none."""
    if not outcome.stages:
        return ""
    first, second = outcome.stages
    found = (
        f"{second.score:.3f} objects in a scene, mean of {', '.join(map(str, REGIONS))} regions, to {first.score:.3f}"
    )
    kept = "kept" if outcome.kept_stage2 else "not kept, for the difference is no more than chance"
    return f"second stage: {kept}: it finds {found} before it"


def write_report(trainer: ProposalsTrainer, outcome: Outcome, material: Sequence[str], out: Path) -> Path:
    """Write the page; it needs no other file.

    Args:
        trainer: With the scenes that were judged.
        outcome: Of its training.
        material: Lines on what it was trained with.
        out: Directory of the page.

    Returns:
        Its path.
    """
    history = outcome.history
    lines = {
        f"{count} regions": [Point(each.step, *(each.gain[index],) * 3) for each in history]
        for index, count in enumerate(REGIONS)
    }
    reliable = [
        ("windows", "objects expected of each", "found in each"),
        *((str(row.windows), f"{row.expected:.2f}", f"{row.found:.2f}") for row in outcome.reliability),
    ]
    encoded = base64.b64encode(cv2.imencode(".jpg", panels(trainer))[1].tobytes()).decode()
    parts = [
        f"<!doctype html><meta charset='utf-8'><title>Gain maps</title><style>{STYLE}</style>",
        f"<h1>Gain maps for {html.escape(trainer.description.detector)}</h1>",
        "<ul>" + "".join(f"<li>{html.escape(line)}" for line in material) + "</ul>",
        f"<p>Best after {outcome.best.step} of {history[-1].step} steps, judged on {len(trainer.scenes)} scenes of "
        "held-out pictures. What a window finds there is what the teacher's looks tell, not a new look.</p>",
        _table(gain_table(outcome)),
        f"<p>{html.escape(second_stage(outcome))}</p>",
        "<h2>Learning curve</h2>",
        curve(lines, "steps", "objects newly found in a scene"),
        "<h2>Are the scores of regions the objects that are found?</h2>",
        f"<p>Scores are scaled by {outcome.score_factor:.2f}, which was fitted on these scenes.</p>",
        _table(reliable),
        "<h2>Where it looks now (orange), where detector proposals look (grey); objects to be found in green</h2>",
        f"<img alt='held-out scenes' src='data:image/jpeg;base64,{encoded}'>",
        "<h2>Use it</h2><p>In a preset file:</p>",
        f"<pre>{html.escape(preset_lines(outcome.head))}</pre>",
    ]
    path = out / REPORT
    write_atomically(path, "\n".join(parts))
    return path


def panels(trainer: ProposalsTrainer) -> Picture:
    """Held-out scenes with the windows of both policies, `(h, w, 3)` uint8 BGR."""
    shown = trainer.scenes[:PANEL_SCENES]
    tiles = []
    for scene, maps, _ in trainer.rates(shown):
        regions = trainer.windows(scene, maps, PANEL_REGIONS)
        tiles.append(_panel(scene, trainer.proposed(scene, PANEL_REGIONS), regions))
    return np.concatenate(tiles)


def _panel(scene: Scene, before: Sequence[Region], now: Sequence[Region]) -> Picture:
    scale = PANEL_WIDTH_PX / scene.size[0]
    size = PANEL_WIDTH_PX, max(1, round(scene.size[1] * scale))
    tile = np.asarray(cv2.resize(scene.image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    _rectangles(tile, scene.boxes[scene.new > 0] * scale, OBJECT, 1)
    for regions, colour in ((before, BEFORE), (now, NOW)):
        _rectangles(tile, [np.array(region.box.as_tuple()) * scale for region in regions], colour, 2)
    return tile


def _rectangles(
    tile: Picture, boxes: Iterable[npt.NDArray[np.float64]], colour: tuple[int, int, int], line: int
) -> None:
    for x, y, width, height in boxes:
        cv2.rectangle(tile, (round(x), round(y)), (round(x + width), round(y + height)), colour, line)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    cells = ["<tr>" + "".join(f"<th>{html.escape(cell)}" for cell in head)]
    cells += ["<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) for row in body]
    return f"<table>{''.join(cells)}</table>"
