"""What weighing the views of a picture gives: average precision and precision, with and without evidence.

    python benchmarks/evidence.py IMAGES LABELS [--regions 0,3,8 --take all|even|odd]

IMAGES is a directory of pictures, LABELS one of text files of the same names with a line `class x y width height` an
object (YOLO form: shares of the picture, centre of the box, COCO 80 classes), or a COCO file whose categories have
names of these classes. Both rows of a number of regions are of the same views of the same frames. "believed" reports
what any view reports, "weighed" is what the loop does.
A detection is right if a labelled object of its class overlaps it by an IoU of 0.5 and no better one took it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from activeo3_ros.codecs.image_files import read_image
from activeo3_ros.core import Box, Budget, Frame, Query, loop
from activeo3_ros.core.evidence import FrameObject, hypotheses, reported
from activeo3_ros.core.geometry import iou
from activeo3_ros.detectors.centernet import COCO_CLASSES
from activeo3_ros.evaluation.metrics import DetectionScores, MetricName
from activeo3_ros.presets import load_preset

AREAS = ("all", "small", "medium", "large")
ROWS = ("believed", "weighed")


@dataclass
class Method:
    """The detections of one way on all pictures."""

    predictions: list[dict[str, Any]] = field(default_factory=list)
    right: int = 0

    def add(self, image_id: int, objects: Sequence[FrameObject], truth: Sequence[tuple[int, Box]]) -> None:
        """Take in what was found in one picture."""
        taken: set[int] = set()
        for found in objects:
            label = COCO_CLASSES.index(found.finding.label)
            row = {"image_id": image_id, "category_id": label + 1, "bbox": list(found.box.as_tuple())}
            self.predictions.append({**row, "score": found.finding.score})
            overlaps = [iou([found.box.as_tuple()], [box.as_tuple()])[0, 0] for _, box in truth]
            free = [n for n, (kind, _) in enumerate(truth) if kind == label and n not in taken and overlaps[n] >= 0.5]
            if free:
                taken.add(max(free, key=lambda n: overlaps[n]))
                self.right += 1


def read_labels(path: Path, width: int, height: int) -> list[tuple[int, Box]]:
    """Class and box in pixels of each object of a picture."""
    objects = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        kind, x, y, w, h = map(float, line.split()[:5])
        objects.append((int(kind), Box((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)))
    return objects


def read_coco(path: Path) -> dict[str, list[tuple[int, Box]]]:
    """The labelled objects of each picture of a COCO file, by its file name."""
    truth = json.loads(path.read_text(encoding="utf-8"))
    names = {image["id"]: image["file_name"] for image in truth["images"]}
    kinds = {each["id"]: COCO_CLASSES.index(each["name"]) for each in truth["categories"]}
    objects: dict[str, list[tuple[int, Box]]] = {name: [] for name in names.values()}
    for each in truth["annotations"]:
        objects[names[each["image_id"]]].append((kinds[each["category_id"]], Box(*map(float, each["bbox"]))))
    return objects


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--regions", default="0,3,8")
    parser.add_argument("--classes", help="names to ask for, such as car,truck,bus; all 80 if not given")
    parser.add_argument(
        "--take", choices=("all", "even", "odd"), default="all", help="every second picture by its name"
    )
    args = parser.parse_args()
    truth_of = read_coco(args.labels) if args.labels.suffix == ".json" else None
    paths = [args.images / name for name in truth_of] if truth_of else sorted(args.images.glob("*.jpg"))
    paths = {"all": paths, "even": paths[0::2], "odd": paths[1::2]}[args.take]
    query = Query(classes=tuple(args.classes.split(","))) if args.classes else Query()
    perception = load_preset("embedded").build()
    seen: list[tuple[Any, ...]] = []
    weigh = loop.hypotheses

    def keep(*arguments: Any) -> Any:
        seen.append(arguments)
        return weigh(*arguments)

    loop.hypotheses = keep  # type: ignore[assignment]
    pictures = [(path, read_image(path)) for path in paths]
    truths = [
        truth_of[path.name] if truth_of else read_labels(args.labels / f"{path.stem}.txt", *image.shape[1::-1])
        for path, image in pictures
    ]
    images = [
        {"id": n, "width": image.shape[1], "height": image.shape[0], "file_name": path.name}
        for n, (path, image) in enumerate(pictures, 1)
    ]
    boxes = [(n, kind, box) for n, truth in enumerate(truths, 1) for kind, box in truth]
    annotations = [
        {"id": i, "image_id": n, "category_id": kind + 1, "bbox": list(box.as_tuple()), "area": box.area, "iscrowd": 0}
        for i, (n, kind, box) in enumerate(boxes, 1)
    ]
    categories = [{"id": n, "name": name} for n, name in enumerate(COCO_CLASSES, 1)]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    print(f"{len(pictures)} pictures, {len(annotations)} objects")
    print("regions            " + "".join(f"AP {area:<8s}" for area in AREAS) + "right  of found  precision")
    for regions in map(int, args.regions.split(",")):
        methods = {name: Method() for name in ROWS}
        for number, (_, image) in enumerate(tqdm(pictures, leave=False), 1):
            seen.clear()
            result = perception.perceive(Frame(image), query, Budget(max_regions=regions))
            if not seen:
                raise SystemExit(result.status_message)
            observations, views, calibration, _ = seen[0]
            strong = [each for each in observations if not each.weak]
            methods["believed"].add(number, reported(hypotheses(strong, views, None)), truths[number - 1])
            methods["weighed"].add(number, reported(hypotheses(observations, views, calibration)), truths[number - 1])
        for name, method in methods.items():
            scores = DetectionScores(truth, method.predictions)
            values = "".join(f"{scores.value(MetricName('AP', area=area)):<11.4f}" for area in AREAS)
            found = len(method.predictions)
            print(
                f"{regions:7d} {name:>10s} {values}{method.right:5d} {found:9d} {method.right / max(found, 1):10.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
