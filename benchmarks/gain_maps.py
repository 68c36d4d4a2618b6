"""Where to look, compared: gain maps against detector proposals, grid, random, and the best windows.

    python benchmarks/gain_maps.py HEAD.onnx… [--photos IMAGES LABELS [--mosaics 12 --take SHARE]]
                                   [--pictures IMAGES TRUTH.json [--classes car,truck,bus]]

--photos makes mosaics of 12 labelled photographs each (2560 x 1440; LABELS holds a text file for each, YOLO form, COCO
80 classes) and asks for all classes; `--take 0.75:1` uses the last quarter of them by name. --pictures takes pictures
as they are, with COCO truth. All methods have the detector of the preset `embedded`, its merging of views, and a view
and K crops of at most 512 x 512 pixels. "found" is the share of labelled objects that a detection of their class
overlaps with an IoU of 0.5. The intervals are those of the difference to detector proposals, from 2000 paired draws of
scenes. "best windows" knows the labels and tries every window of a pyramid: the ceiling of any policy.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from evidence import read_labels
from tqdm import tqdm

from activeo3_ros.codecs.image_files import read_image
from activeo3_ros.core import ActivePerception, Box, Budget, Frame, Query, SensingPolicy, Status
from activeo3_ros.core.budget import MAX_REGIONS
from activeo3_ros.core.frame import Image
from activeo3_ros.core.results import DetectedBoxes
from activeo3_ros.detectors.centernet import COCO_CLASSES, CenterNet
from activeo3_ros.detectors.detector_task import DetectorTask
from activeo3_ros.evaluation.detector_oracle import DetectorOracle, TrueObject, matched
from activeo3_ros.policies.detector_proposals import DetectorProposals
from activeo3_ros.policies.fixed import CentreCrop, Grid, Random
from activeo3_ros.policies.gain_maps import LearnedProposals
from activeo3_ros.policies.slicing import AdaptiveSlices, SahiSlices

REGIONS = (1, 2, 3, 5, 8)
TILES, ACROSS, TILE = 12, 4, (640, 480)
DRAWS = 2000
BASELINE = "detector proposals"
SAHI = "sahi, with all its slices"


class RememberingDetector:
    """CenterNet, asked about each image once: the methods look at many of the same crops."""

    names, input_size, concurrent = CenterNet.names, CenterNet.input_size, False

    def __init__(self, threads: int) -> None:
        self._detector = CenterNet(threads=threads)
        self._known: dict[bytes, DetectedBoxes] = {}

    def detect(self, images: Sequence[Image], threshold: float) -> list[DetectedBoxes]:
        """As CenterNet does."""
        return [self._detect(image, threshold) for image in images]

    def forget(self) -> None:
        """Of another scene no crop comes again."""
        self._known.clear()

    def _detect(self, image: Image, threshold: float) -> DetectedBoxes:
        key = hashlib.sha1(image.tobytes() + str(image.shape).encode()).digest()
        if key not in self._known:
            [self._known[key]] = self._detector.detect([image], 0.01)
        known = self._known[key]
        kept = known.scores > threshold
        return DetectedBoxes(known.boxes[kept], known.scores[kept], known.class_ids[kept])


@dataclass(frozen=True)
class LabelledScene:
    """A frame, what is in it, and what is asked."""

    image: Image
    truth: tuple[TrueObject, ...]
    query: Query


def mosaics(images: Path, labels: Path, count: int, take: tuple[float, float], seed: int) -> Iterator[LabelledScene]:
    """Frames of `TILES` labelled photographs beside each other."""
    random = np.random.default_rng(seed)
    paths = sorted(images.glob("*.jpg"))
    paths = paths[round(take[0] * len(paths)) : round(take[1] * len(paths))]
    for _ in range(count):
        frame = np.full((TILES // ACROSS * TILE[1], ACROSS * TILE[0], 3), 114, np.uint8)
        truth = []
        for index, chosen in enumerate(random.choice(len(paths), TILES, replace=False).tolist()):
            photo = read_image(paths[chosen])
            height, width = photo.shape[:2]
            scale = min(TILE[0] / width, TILE[1] / height)
            size = int(width * scale), int(height * scale)
            x, y = index % ACROSS * TILE[0], index // ACROSS * TILE[1]
            frame[y : y + size[1], x : x + size[0]] = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
            for kind, box in read_labels(labels / f"{paths[chosen].stem}.txt", *size):
                truth.append(TrueObject(kind, Box(box.x + x, box.y + y, box.width, box.height)))
        yield LabelledScene(frame, tuple(truth), Query(classes=COCO_CLASSES))


def pictures(images: Path, truth: Path, classes: tuple[str, ...]) -> Iterator[LabelledScene]:
    """Pictures with COCO truth."""
    content = json.loads(truth.read_text(encoding="utf-8"))
    kinds = {each["id"]: COCO_CLASSES.index(each["name"]) for each in content["categories"]}
    for picture in content["images"]:
        objects = tuple(
            TrueObject(kinds[each["category_id"]], Box(*each["bbox"]))
            for each in content["annotations"]
            if each["image_id"] == picture["id"]
        )
        yield LabelledScene(read_image(images / picture["file_name"]), objects, Query(classes=classes))


@dataclass
class Method:
    """One policy, and what it gave in each scene."""

    name: str
    policy: SensingPolicy
    found: dict[int, list[int]]
    reported: dict[int, list[int]]
    views: dict[int, list[int]]

    @classmethod
    def of(cls, name: str, policy: SensingPolicy) -> Method:
        """With nothing yet."""
        return cls(name, policy, *({count: [] for count in (0, *REGIONS)} for _ in range(3)))


def main() -> None:
    """Print a table for each kind of scenes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", nargs="*", type=Path)
    parser.add_argument("--photos", nargs=2, type=Path, metavar=("IMAGES", "LABELS"))
    parser.add_argument("--mosaics", type=int, default=12)
    parser.add_argument("--take", default="0:1", help="shares of the photographs, sorted by name")
    parser.add_argument("--pictures", nargs=2, type=Path, metavar=("IMAGES", "TRUTH"))
    parser.add_argument("--classes", default="car,truck,bus")
    parser.add_argument("--min-gain", type=float, default=0.001, help="of the heads; the policy's default is 0.1")
    parser.add_argument("--no-best", action="store_true", help="leave out the best windows, which take longest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    low, high = (float(share) for share in args.take.split(":"))
    if args.photos:
        scenes = list(mosaics(*args.photos, args.mosaics, (low, high), args.seed))
        compare("mosaics of photographs", scenes, args)
    if args.pictures:
        compare("pictures", list(pictures(*args.pictures, tuple(args.classes.split(",")))), args)


def compare(title: str, scenes: Sequence[LabelledScene], args: argparse.Namespace) -> None:
    """Run all methods on scenes and print their table."""
    detector = RememberingDetector(args.threads)
    task = DetectorTask(detector, label="embedded")
    methods = [
        Method.of(BASELINE, DetectorProposals(task=task)),
        Method.of("grid", Grid()),
        Method.of("random", Random()),
        Method.of("centre_crop", CentreCrop()),
        Method.of(SAHI, SahiSlices()),
        Method.of("adaptive_slices", AdaptiveSlices()),
    ]
    for head in args.heads:
        policy = LearnedProposals(str(head), args.min_gain, threads=args.threads, task=task)
        methods.append(Method.of(f"gain maps, {head.parent.name}/{head.stem}", policy))
    oracle = DetectorOracle(task, category_of)
    if not args.no_best:
        methods.append(Method.of("best windows", oracle))
    for scene in tqdm(scenes, leave=False):
        detector.forget()
        oracle.frame, oracle.objects = Frame(scene.image), scene.truth
        for method in methods:
            perception = ActivePerception(method.policy, task)
            for count in (0, *REGIONS):
                regions = MAX_REGIONS if method.name == SAHI and count else count
                result = perception.perceive(Frame(scene.image), scene.query, Budget(max_regions=regions))
                if result.status is Status.FAILED:
                    raise SystemExit(f"{method.name}: {result.status_message}")
                seen = [(d.score, COCO_CLASSES.index(d.label), d.box) for d in result.detections]
                method.found[count].append(len(matched(scene.truth, seen)))
                method.reported[count].append(len(seen))
                method.views[count].append(result.cost.views)
    print_table(title, methods, [len(scene.truth) for scene in scenes], args.seed)


def category_of(label: str) -> int | None:
    """The category of a label."""
    return COCO_CLASSES.index(label)


def print_table(title: str, methods: Sequence[Method], objects: Sequence[int], seed: int) -> None:
    """Found and precision of each method for each number of regions, and intervals of the difference."""
    print(f"\n{title}: {len(objects)} scenes, {sum(objects)} objects; found / precision at K regions")
    print(f"{'':<34}" + "".join(f"{f'K = {count}':>15}" for count in (0, *REGIONS)))
    for method in methods:
        cells = [
            f"{sum(method.found[k]) / sum(objects):.3f} / {sum(method.found[k]) / max(1, sum(method.reported[k])):.3f}"
            for k in (0, *REGIONS)
        ]
        print(f"{method.name:<34}" + "".join(f"{cell:>15}" for cell in cells))
    draws = np.random.default_rng(seed).integers(0, len(objects), (DRAWS, len(objects)))
    total = np.array(objects)[draws].sum(axis=1)
    print(f"difference to {BASELINE}, 95 % interval")
    for method in methods[1:]:
        cells = []
        for count in REGIONS:
            more = np.array(method.found[count]) - np.array(methods[0].found[count])
            low, high = np.percentile(more[draws].sum(axis=1) / total, [2.5, 97.5])
            cells.append(f"{low:+.3f} {high:+.3f}")
        print(f"{method.name:<34}" + " " * 15 + "".join(f"{cell:>15}" for cell in cells))
    views = {method.name: float(np.mean(method.views[REGIONS[-1]])) for method in methods}
    print("views a scene at the most regions: " + ", ".join(f"{name} {count:.1f}" for name, count in views.items()))


if __name__ == "__main__":
    main()
