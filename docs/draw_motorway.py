"""Draws the picture of README.md, `docs/motorway.jpg`: `python docs/draw_motorway.py`, after `activeo3 prefetch demo`.

A photograph of a motorway from the package sahi (MIT licence), as two presets see it: `full_frame` above, `embedded`
below. Boxes, scores and regions are the presets' own. It prints how many vehicles each reports and how many of those
match a vehicle of `motorway_truth.json`, one to one, at IoU 0.5.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from activeo3_ros.assets.packages import MOTORWAY_PICTURE, require
from activeo3_ros.codecs.image_files import read_image
from activeo3_ros.codecs.picture import draw
from activeo3_ros.core import Frame, Query, Result
from activeo3_ros.core.geometry import Boxes, as_array, iou
from activeo3_ros.presets import load_preset

HERE = Path(__file__).parent
QUERY = Query(classes=("car", "truck", "bus", "motorcycle"))
MATCH_IOU = 0.5
PANEL_WIDTH = 1400
SHOWN_ROWS = (0.15, 0.64)
"""The part of the photograph's height that has the road in it."""
JPEG_QUALITY = 76


def matches(result: Result, truth: Boxes) -> int:
    """Count the detections that match a labelled vehicle.

    Args:
        result: Detections in source pixels.
        truth: Labelled vehicles `(n, 4)`: x, y, width, height in source pixels.

    Returns:
        How many detections, taken by falling score, have a vehicle of their own with an IoU of at least `MATCH_IOU`.
    """
    taken: set[int] = set()
    detections = sorted(result.detections, key=lambda detection: -detection.score)
    for row in iou(as_array(detection.box for detection in detections), truth):
        free = [index for index in np.argsort(-row).tolist() if row[index] >= MATCH_IOU and index not in taken]
        taken.update(free[:1])
    return len(taken)


def main() -> None:
    """Write the picture and print the counts."""
    image = read_image(require(MOTORWAY_PICTURE))
    truth = np.array(json.loads((HERE / "motorway_truth.json").read_text(encoding="utf-8"))["vehicles"])
    height = round(PANEL_WIDTH * image.shape[0] / image.shape[1])
    enlarged = np.asarray(cv2.resize(image, (PANEL_WIDTH, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    panels = []
    for preset in ("full_frame", "embedded"):
        result = load_preset(preset).build().perceive(Frame(image), QUERY)
        right, reported = matches(result, truth), len(result.detections)
        print(f"{preset}: {result.cost.views} views, {reported} vehicles reported, {right} of them right")
        shown = slice(*(round(share * height) for share in SHOWN_ROWS))
        panels.append(draw(enlarged, result)[shown])
    gap = np.full((8, PANEL_WIDTH, 3), 255, np.uint8)
    output = HERE / "motorway.jpg"
    cv2.imwrite(str(output), np.concatenate([panels[0], gap, panels[1]]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    print(f"{output.name}: {output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
