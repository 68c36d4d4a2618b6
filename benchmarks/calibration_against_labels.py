"""Compare the calibration that `activeo3 calibrate` measures without labels with the same measured by labels.

    python benchmarks/calibration_against_labels.py --images DIR --labels DIR

`--labels` has one YOLO text file a picture (class, centre x, centre y, width, height as shares). Three columns:
without labels; the labelled objects shrunk in the same way; the labelled objects as the whole pictures show them, not
shrunk. The classes are those of the preset's query.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from activeo3_ros.codecs.image_files import Picture, find_images, read_image
from activeo3_ros.core.frame import Frame
from activeo3_ros.core.geometry import Boxes
from activeo3_ros.detectors.centernet import COCO_CLASSES, CenterNet
from activeo3_ros.evaluation.calibration_looks import PictureLooks, Reference
from activeo3_ros.evaluation.detector_calibration import DetectorCalibration, Measured
from activeo3_ros.presets import load_preset

SIDES_PX, SCORES = (8.0, 32.0, 90.5), (0.2, 0.3, 0.4, 0.5, 0.6)
"""Where the shares of true boxes are compared."""


class WholePictures(PictureLooks):
    """Looks at whole pictures at the size of the detector's input, nothing shrunk further."""

    def scales(self, frame: Frame, whole: float, sure: Boxes) -> Iterator[float]:
        yield whole


def labelled(path: Path, picture: Picture, class_ids: list[int]) -> Reference:
    """The labelled objects of some classes in a picture."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = np.array([line.split() for line in lines], np.float64).reshape(-1, 5)
    rows = rows[np.isin(rows[:, 0], class_ids)]
    size = np.array([picture.shape[1], picture.shape[0]] * 2)
    boxes = np.concatenate([rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 3:]], axis=1) * size
    return Reference(boxes, rows[:, 0].astype(np.intp), boxes)


def main() -> None:
    """Measure three times and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--labels", required=True, type=Path)
    parser.add_argument("--sure", type=float, default=0.5, help="as of activeo3 calibrate (default: %(default)g)")
    arguments = parser.parse_args()
    detector, class_ids = CenterNet(), [COCO_CLASSES.index(name) for name in load_preset("embedded").query.classes]
    runs = {
        name: DetectorCalibration(detector, sure_score=arguments.sure, class_ids=class_ids)
        for name in ("no labels", "labels, shrunk", "labels")
    }
    whole = runs["labels"]
    whole.looks = WholePictures(detector, whole.threshold, whole.sure_score, np.random.default_rng(0), class_ids)
    for group, path in enumerate(find_images([arguments.images])[0]):
        picture = read_image(path)
        reference = labelled(arguments.labels / f"{path.stem}.txt", picture, class_ids)
        for name, run in runs.items():
            run.add(picture, group, None if name == "no labels" else reference)
    print_tables({name: run.measured() for name, run in runs.items()})


def print_tables(measured: dict[str, Measured]) -> None:
    """Print found by side, true by score and side, and the single values."""
    print(f"{'side px':>8}" + "".join(f"{name:>26}" for name in measured))
    sides = sorted({side for each in measured.values() for side in each.calibration.sides_px})
    for side in sides:
        cells = []
        for each in measured.values():
            if side in each.calibration.sides_px:
                index = each.calibration.sides_px.index(side)
                low, high = each.found_interval[index]
                cells.append(f"{each.calibration.found[index]:.2f} ({low:.2f} to {high:.2f}) {each.tries[index]:>5}")
            else:
                cells.append("")
        print(f"{side:>8g}" + "".join(f"{cell:>26}" for cell in cells))
    print("\nshare of boxes that are objects, by side and score")
    for side in SIDES_PX:
        for score in SCORES:
            shares = [each.calibration.probability_true([score], [side])[0] for each in measured.values()]
            print(f"{side:>4g} px {score:>4g}" + "".join(f"{share:>12.2f}" for share in shares))
    print()
    for name in ("half_found_side_px", "logits_per_doubling", "edge_tolerance_px", "class_side_px", "legible_side_px",
                 "probability_per_score", "repeated_misses"):  # fmt: skip
        print(f"{name:>22}" + "".join(f"{getattr(each.calibration, name):>12.3g}" for each in measured.values()))


if __name__ == "__main__":
    main()
