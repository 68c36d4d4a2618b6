"""Draws the hypotheses of a scene over some frames of a video: `docs/explanation/hypotheses.svg`.

    python docs/draw_hypotheses.py VIDEO [--first 108 --count 20 --out docs/explanation/hypotheses.svg]

One line an object: its existence from 0 to 1, thick where it is reported. A dot: a view of the frame shows it. A cross:
a view that looked at its place shows nothing. Neither: no view looked. Frames before the first one warm the memory up.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from activeo3_ros.core import Budget, Frame, Query, Scene
from activeo3_ros.presets import load_preset

CLASSES = ("person", "bicycle", "car", "motorcycle", "bus", "truck")
WARM_UP = 20
LEFT, TOP = 150, 40
"""Pixels: where the first frame of the first row begins."""
STEP, ROW, HEIGHT = 30, 38, 30
"""Pixels: the width of a frame, the height of a row, and of an existence of 1 in it."""
MIN_CHANGE, MAX_ROWS = 0.25, 14
"""Hypotheses whose existence changes less are left out: certain objects and noise are many. Reported ones come
first."""
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bc7a00")


@dataclass(frozen=True)
class Moment:
    """One hypothesis in one frame."""

    frame: int
    label: str
    side: float
    existence: float
    reported: bool
    shown: bool
    missed: bool


def follow(path: Path, first: int, count: int) -> dict[int, list[Moment]]:
    """The hypotheses of each frame, by their numbers."""
    perception, scene = load_preset("embedded").build(), Scene()
    budget = Budget(max_regions=3, view_pixels=512 * 512, crop_pixels=512 * 512)
    video, lives = cv2.VideoCapture(str(path)), {}
    rate = video.get(cv2.CAP_PROP_FPS) or 25.0
    for number in range(first + count):
        has_image, image = video.read()
        if not has_image:
            raise SystemExit(f"{path}: has only {number} frames")
        if number < first - WARM_UP:
            continue
        stamp_ns = 1 + round(number / rate * 1e9)
        perception.perceive(Frame(np.asarray(image, np.uint8), stamp_ns), Query(classes=CLASSES), budget, scene=scene)
        if number >= first:
            # What is not reported has no public form: a result never tells of it.
            for each in scene._objects:
                shown = each.last_ns == stamp_ns
                looked = any(last_ns == stamp_ns for _, _, last_ns in each.tests.values())
                moment = Moment(
                    number - first, each.label, each.side, each.existence, each.reported, shown, looked and not shown
                )
                lives.setdefault(each.number, []).append(moment)
    return lives


def draw(lives: dict[int, list[Moment]], count: int) -> str:
    """The picture as SVG."""
    width, height = LEFT + count * STEP + 20, TOP + len(lives) * ROW + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="8" y="20">hypothesis, side in px</text>',
    ]
    parts += [f'<text x="{LEFT + n * STEP + 9}" y="20" fill="#666">{n}</text>' for n in range(count)]
    for row, moments in enumerate(lives.values()):
        floor, colour = TOP + row * ROW + HEIGHT, COLOURS[row % len(COLOURS)]
        parts.append(f'<line x1="{LEFT}" y1="{floor}" x2="{width - 20}" y2="{floor}" stroke="#ddd"/>')
        last = moments[-1]
        parts.append(f'<text x="8" y="{floor - 6}" fill="{colour}">{last.label}, {last.side:.0f}</text>')
        places = [(LEFT + m.frame * STEP + STEP // 2, round(floor - HEIGHT * m.existence, 1), m) for m in moments]
        for (x0, y0, _), (x1, y1, m) in pairwise(places):
            thick = 3 if m.reported else 1
            parts.append(f'<path d="M{x0} {y0}L{x1} {y1}" stroke="{colour}" stroke-width="{thick}"/>')
        for x, y, m in places:
            if m.shown:
                parts.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>')
            elif m.missed:
                parts.append(f'<path d="M{x - 3} {y - 3}l6 6m0 -6l-6 6" stroke="#333" fill="none"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Follow the video and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--first", type=int, default=108)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("docs/explanation/hypotheses.svg"))
    args = parser.parse_args()
    lives = follow(args.video, args.first, args.count)
    changes = {n: max(m.existence for m in life) - min(m.existence for m in life) for n, life in lives.items()}
    chosen = sorted(
        (n for n in lives if changes[n] >= MIN_CHANGE),
        key=lambda n: (not any(m.reported for m in lives[n]), -changes[n]),
    )[:MAX_ROWS]
    kept = {n: lives[n] for n in sorted(chosen)}
    args.out.write_text(draw(kept, args.count), encoding="utf-8")
    print(f"{args.out}: {len(kept)} of {len(lives)} hypotheses")


if __name__ == "__main__":
    main()
