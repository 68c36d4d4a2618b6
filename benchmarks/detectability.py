"""How the embedded detector's success depends on the size of an object: the constants of `policies`.

    python benchmarks/detectability.py PICTURE …

Objects that the detector is sure of at full resolution (score 0.5) are shrunk to 4 to 120 px and detected again in
crops of four magnifications, at two random places of each crop. A logistic curve in the logarithm of the side, in
pixels of the detector's input, is fitted to those found again (score 0.3, IoU 0.4, person or vehicle as before). The
last line says how often an object missed at one place is missed at the other place as well: 0 independently, 1 always.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from activeo3_ros.assets.packages import TERRAIN_PICTURE, require
from activeo3_ros.core import Box, Frame
from activeo3_ros.core.frame import Image
from activeo3_ros.core.geometry import iou, non_maximum_suppression
from activeo3_ros.detectors.centernet import COCO_CLASSES, CenterNet

INPUT_PX, SURE, FOUND, SAME_IOU = 512, 0.5, 0.3, 0.4
KINDS = {"person": 0, "bicycle": 1, "car": 1, "motorcycle": 1, "bus": 1, "truck": 1}
SHRINKS, MAGNIFICATIONS = (1.0, 0.6, 0.4, 0.25, 0.15), (0.5, 1.0, 2.0, 4.0)
OBJECTS_PER_PICTURE = 10


def sure_objects(detector: CenterNet, image: Image) -> list[tuple[Box, int]]:
    """Objects in the picture and their kind, from overlapping crops of 256 px and from the whole."""
    frame = Frame(image)
    side = min(256, frame.width, frame.height)
    windows = [
        Box(x, y, side, side)
        for y in range(0, frame.height - side + 1, 192)
        for x in range(0, frame.width - side + 1, 192)
    ]
    boxes, scores, kinds = [np.empty((0, 4))], [np.empty(0)], [np.empty(0, int)]
    for window in windows:
        view = frame.view(window, (INPUT_PX, INPUT_PX), 0)
        seen = detector.detect([view.image], SURE)[0]
        boxes.append(view.to_source(seen.boxes))
        scores.append(seen.scores)
        kinds.append(np.array([KINDS.get(COCO_CLASSES[index], -1) for index in seen.class_ids], int))
    stacked, kind = np.concatenate(boxes), np.concatenate(kinds)
    kept = non_maximum_suppression(stacked, np.concatenate(scores), 0.5)
    return [(Box(*stacked[i].tolist()), int(kind[i])) for i in kept if kind[i] >= 0]


def tries(detector: CenterNet, image: Image, random: np.random.Generator) -> Iterator[tuple[float, bool, bool]]:
    """The side of an object in the detector's input, and whether it was found at each of two places."""
    objects = sure_objects(detector, image)
    for index in random.permutation(len(objects))[:OBJECTS_PER_PICTURE]:
        box, kind = objects[index]
        for shrink in SHRINKS:
            small = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA) if shrink < 1 else image
            target = Box(*(shrink * value for value in box.as_tuple()))
            side = math.sqrt(target.area)
            for magnification in MAGNIFICATIONS:
                if 4 <= side <= 120 and 4 <= side * magnification <= 250:
                    places = [_found(detector, small, target, kind, magnification, random) for _ in range(2)]
                    yield side * magnification, places[0], places[1]


def _found(
    detector: CenterNet, image: Image, target: Box, kind: int, magnification: float, random: np.random.Generator
) -> bool:
    """Whether the object is found in a crop that has it at a random place; beyond the picture the crop is grey."""
    side = round(INPUT_PX / magnification)
    x, y = (round(centre - random.uniform(0.3, 0.7) * side) for centre in target.center)
    crop = np.full((side, side, 3), 114, np.uint8)
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + side, image.shape[1]), min(y + side, image.shape[0])
    crop[y0 - y : y1 - y, x0 - x : x1 - x] = image[y0:y1, x0:x1]
    view = Frame(crop).view(Box(0, 0, side, side), (INPUT_PX, INPUT_PX))
    seen = detector.detect([view.image], FOUND)[0]
    same = [KINDS.get(COCO_CLASSES[index], -1) == kind for index in seen.class_ids]
    boxes = view.to_source(seen.boxes[same]) + np.array([x, y, 0, 0])
    return bool((iou([target.as_tuple()], boxes) >= SAME_IOU).any())


def main() -> None:
    """Print the table and the fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", type=Path, help="default: the desert picture of the demo alone")
    arguments = parser.parse_args()
    detector, random = CenterNet(), np.random.default_rng(0)
    rows = []
    for path in arguments.pictures or [require(TERRAIN_PICTURE)]:
        image = cv2.imread(str(path))
        if image is None:
            parser.error(f"{path}: not a picture that OpenCV can read")
        rows += list(tries(detector, np.asarray(image, np.uint8), random))
    sides, places = np.array([row[0] for row in rows]), np.array([row[1:] for row in rows])
    print(f"{places.size} tries\n{'side px':>9} {'tries':>6} {'found':>6}")
    for low in (4, 8, 16, 32, 64, 128):
        chosen = places[(sides >= low) & (sides < 2 * low)]
        print(f"{low:>4}-{2 * low:<4} {chosen.size:>6} {chosen.mean() if chosen.size else math.nan:>6.2f}")
    design = np.stack([np.ones(places.size), np.log2(np.repeat(sides, 2))], axis=1)
    found, weights = places.ravel().astype(float), np.zeros(2)
    for _ in range(50):  # Newton's method
        expected = 1 / (1 + np.exp(-design @ weights))
        hessian = (design.T * (expected * (1 - expected))) @ design + 1e-6 * np.eye(2)
        weights += np.linalg.solve(hessian, design.T @ (found - expected))
    print(f"half are found at {2 ** (-weights[0] / weights[1]):.1f} px; {weights[1]:.2f} logits a doubling")
    hard = places[(sides >= 8) & (sides < 32)]
    missed, both = 1 - hard.mean(), (~hard).all(axis=1).mean()
    print(f"what one place missed, the other misses too: {(both - missed**2) / (missed - missed**2):.2f}")


if __name__ == "__main__":
    main()
