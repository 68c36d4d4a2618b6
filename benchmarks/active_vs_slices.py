"""What active perception finds for how many views, beside the fixed baselines, on real pictures.

    python benchmarks/active_vs_slices.py [PICTURE …]

Without arguments it uses the two road pictures that `activeo3 prefetch demo` fetches. The reference is an exhaustive
pass: slices of 128 px shown at 512 px, overlap 0.25, threshold 0.3, and non-maximum suppression at IoU 0.5. It is not
the truth: a slice's border cuts vehicles, and such fragments stay in the reference beside the whole vehicle. The table
therefore also counts the reference without them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from activeo3_ros.assets.packages import MOTORWAY_PICTURE, TERRAIN_PICTURE, require
from activeo3_ros.core import Box, Budget, Frame, Query, Result
from activeo3_ros.core.geometry import Boxes, as_array, iou, non_maximum_suppression, share_inside
from activeo3_ros.detectors.centernet import COCO_CLASSES, CenterNet
from activeo3_ros.presets import load_preset

VEHICLES = Query(classes=("car", "truck", "bus", "motorcycle"))
SLICE_PX, SHOWN_PX, OVERLAP, THRESHOLD, SUPPRESSION_IOU = 128, 512, 0.25, 0.3, 0.5
MIN_HEIGHT_PX = 8
"""Smaller reference boxes are left out of the recall: their IoU is decided by rounding."""
METHODS = (
    ("full_frame", 0),
    ("centre_crop", 3),
    ("random", 3),
    ("grid", 3),
    ("embedded", 3),
    ("centre_crop", 7),
    ("random", 7),
    ("grid", 7),
    ("embedded", 7),
    ("grid", 18),
)


def slice_corners(length: int, side: int) -> list[int]:
    """Where slices of a side start along a length, the last one moved back inside."""
    starts, step = [0], side - int(side * OVERLAP)
    while starts[-1] + side < length:
        starts.append(min(starts[-1] + step, length - side))
    return starts


def reference(detector: CenterNet, frame: Frame) -> tuple[Boxes, int]:
    """Boxes `(n, 4)` in source pixels of the exhaustive pass, and how many slices it took."""
    side = min(SLICE_PX, frame.width, frame.height)
    wanted = [COCO_CLASSES.index(name) for name in VEHICLES.classes]
    boxes, scores = [np.empty((0, 4))], [np.empty(0)]
    corners = [(x, y) for y in slice_corners(frame.height, side) for x in slice_corners(frame.width, side)]
    for region, (x, y) in enumerate(corners):
        view = frame.view(Box(x, y, side, side), (SHOWN_PX, SHOWN_PX), region)
        found = detector.detect([view.image], THRESHOLD)[0]
        vehicles = np.isin(found.class_ids, wanted)
        boxes.append(view.to_source(found.boxes[vehicles]))
        scores.append(found.scores[vehicles])
    stacked = np.concatenate(boxes)
    return stacked[non_maximum_suppression(stacked, np.concatenate(scores), SUPPRESSION_IOU)], len(corners)


def fragments(boxes: Boxes) -> npt.NDArray[np.bool_]:
    """Which boxes `(n, 4)` lie for 80 % or more inside a box of at least 1.5 times their area."""
    sizes = boxes[:, 2] * boxes[:, 3]
    return np.asarray(((share_inside(boxes, boxes) >= 0.8) & (sizes[None, :] >= 1.5 * sizes[:, None])).any(axis=1))


def matched(result: Result, boxes: Boxes) -> tuple[set[int], int]:
    """Indices of the reference boxes that the detections match at IoU 0.5, one to one, best score first; and how many
    detections match one."""
    found: set[int] = set()
    overlaps = iou(as_array(d.box for d in result.detections), boxes)
    for row in overlaps:
        candidates = [i for i in np.argsort(-row).tolist() if row[i] >= 0.5 and i not in found]
        found.update(candidates[:1])
    return found, len(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each method; the median counts")
    arguments = parser.parse_args()
    detector = CenterNet()
    for path in arguments.pictures or [require(MOTORWAY_PICTURE), require(TERRAIN_PICTURE)]:
        image = cv2.imread(str(path))
        if image is None:
            parser.error(f"{path}: not a picture that OpenCV can read")
        frame = Frame(np.asarray(image, np.uint8))
        start = time.perf_counter()
        boxes, slices = reference(detector, frame)
        took = (time.perf_counter() - start) * 1e3
        large = boxes[:, 3] >= MIN_HEIGHT_PX
        whole = large & ~fragments(boxes)
        print(f"\n{path.name}: {frame.width} x {frame.height}")
        print(
            f"reference: {slices} slices, {took:.0f} ms, {len(boxes)} boxes, {large.sum()} of them at least "
            f"{MIN_HEIGHT_PX} px high, {whole.sum()} of those no fragment of a larger one"
        )
        columns = {"views": 5, "ms": 7, "reported": 8, "recall": 7, "recall of whole": 15, "matching": 8}
        print(" ".join([f"{'preset':<12}", *(f"{name:>{width}}" for name, width in columns.items())]))
        for name, regions in METHODS:
            perception = load_preset(name).build()
            times = []
            for _ in range(arguments.repeats):
                result = perception.perceive(frame, VEHICLES, Budget(max_regions=regions))
                times.append(result.timings_ms["total"])
            found, matching = matched(result, boxes)
            reported = len(result.detections)
            print(
                f"{name:<12} {result.cost.views:>5} {np.median(times):>7.0f} {reported:>8}"
                f" {share(found, large):>7} {share(found, whole):>15} {matching / max(1, reported):>8.2f}"
            )


def share(found: set[int], wanted: npt.NDArray[np.bool_]) -> str:
    """The share of the wanted reference boxes that were found."""
    return f"{sum(wanted[i] for i in found) / wanted.sum():.2f}" if wanted.any() else "-"


if __name__ == "__main__":
    main()
