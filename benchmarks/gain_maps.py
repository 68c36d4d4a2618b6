"""Where to look, compared: gain maps against detector proposals, grid, random, and the best windows.

    python benchmarks/gain_maps.py HEAD.onnx… [--photos IMAGES LABELS [--mosaics 12 --take SHARE]]
                                   [--pictures IMAGES TRUTH.json [--classes car,truck,bus]]
                                   [--video FILE [--every 8] [--classes car,truck,bus]]
                                   [--teacher] [--jobs N] [--results FILE.json] [--frame-time]

--photos makes mosaics of 12 labelled photographs each (2560 x 1440; LABELS holds a text file for each, YOLO form, COCO
80 classes) and asks for all classes; `--take 0.75:1` uses the last quarter of them by name. --pictures takes pictures
as they are, with COCO truth. --video takes every so manieth frame of a drive that nobody labelled: there the objects
are those that the detector finds at all magnifications and that can be believed by its calibration.

All methods have the detector of the preset `embedded`, its merging of views, and a view and K crops of at most
512 x 512 pixels. "found" is the share of labelled objects that a detection of their class overlaps with an IoU of 0.5.
AP is COCO's, IoU 0.5 to 0.95, small below 32 x 32 pixels, large from 96 x 96 on. The intervals are those of the
difference to detector proposals, from 2000 paired draws of scenes. "best windows" knows the labels and tries every
window of a pyramid: the ceiling of any policy. --teacher adds the windows that follow from what the teacher of the
heads finds in the frame itself, with the labels and without: a perfect student's. Heads in directories NAME-seed0,
NAME-seed1, … also get a row of their mean.

What each method gives in each scene is kept in --work, so that a run goes on where it was stopped and another head or
another set of scenes costs only what is new; a change of the package begins anew. --results writes the figures.
--frame-time compares the time of 1080p frames of noise: detector proposals and each head in turn, in one process.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import multiprocessing
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from evidence import read_labels
from gain_maps_teacher import WAYS, TeachersMaps, reference_objects
from tqdm import tqdm

import activeo3_ros
from activeo3_ros.assets.cache import cache_directory, sha256_of
from activeo3_ros.codecs.image_files import read_image
from activeo3_ros.codecs.video import open_video
from activeo3_ros.core import ActivePerception, Box, Budget, Frame, Query, SensingPolicy, Status
from activeo3_ros.core.budget import MAX_REGIONS
from activeo3_ros.core.frame import Image
from activeo3_ros.core.results import DetectedBoxes
from activeo3_ros.detectors.centernet import COCO_CLASSES, CenterNet
from activeo3_ros.detectors.detector_task import DetectorTask
from activeo3_ros.evaluation.detector_oracle import DetectorOracle, TrueObject, matched
from activeo3_ros.evaluation.item_files import write_atomically
from activeo3_ros.evaluation.metrics import DetectionScores, MetricName
from activeo3_ros.policies.detector_proposals import DetectorProposals
from activeo3_ros.policies.fixed import CentreCrop, Grid, Random
from activeo3_ros.policies.gain_maps import LearnedProposals
from activeo3_ros.policies.slicing import AdaptiveSlices, SahiSlices

REGIONS = (1, 2, 3, 5, 8)
TILES, ACROSS, TILE = 12, 4, (640, 480)
DRAWS = 2000
BASELINE = "detector proposals"
SAHI = "sahi, with all its slices"
BEST = "best windows"
SEED = "-seed"
SIZES = ("all", "small", "medium", "large")
FRAMES, FRAME_SIZE = 40, (1920, 1080)
ASKED = ("mosaics", "take", "seed", "min_gain", "every")
"""Options that stand in the file of results."""
SOURCES = ("core", "policies", "detectors", "training")
"""Folders of the package on which results depend."""


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

    @property
    def key(self) -> str:
        """Of what is seen, asked and true."""
        truth = [[each.category, *each.box.as_tuple()] for each in self.truth]
        return hashlib.sha256(self.image.tobytes() + json.dumps([truth, self.query.classes]).encode()).hexdigest()


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


def video(path: Path, every: int, classes: tuple[str, ...]) -> Iterator[LabelledScene]:
    """Frames of a drive, with what the detector finds in them at all magnifications as the truth."""
    task, query = DetectorTask(CenterNet(), label="embedded"), Query(classes=classes)
    with open_video(path) as opened:
        for number, frame in enumerate(opened.frames()):
            if number % every == 0:
                yield LabelledScene(frame.image, reference_objects(task, Frame(frame.image), query), query)


Answer = dict[str, Any]
"""What one method gave in one scene with one number of regions: `views`, and `detections` as score, class, box."""


class Runner:
    """Runs methods on scenes with one detector, and keeps what they gave."""

    def __init__(self, work: Path, min_gain: float, threads: int) -> None:
        self.work, self.min_gain, self.threads = work, min_gain, threads
        self.detector = RememberingDetector(threads)
        self.task = DetectorTask(self.detector, label="embedded")
        self.oracle = DetectorOracle(self.task, category_of)
        self._policies: dict[str, SensingPolicy] = {
            BASELINE: DetectorProposals(task=self.task),
            "grid": Grid(),
            "random": Random(),
            "centre_crop": CentreCrop(),
            SAHI: SahiSlices(),
            "adaptive_slices": AdaptiveSlices(),
            BEST: self.oracle,
        }
        self._teachers = {way: TeachersMaps(self.task, way, min_gain) for way in WAYS}
        self._policies |= self._teachers
        self._sources = source_digest()

    def run(self, scene: LabelledScene, method: str) -> dict[int, Answer]:
        """What a method gives in a scene, by the number of regions; `method` is a name of the table, or a head."""
        facts = sha256_of(Path(method)) if method.endswith(".onnx") else method
        path = self.work / f"{_digest(scene.key, facts, str(self.min_gain), self._sources)}.json"
        if path.is_file():
            return {int(count): answer for count, answer in json.loads(path.read_text()).items()}
        if method not in self._policies:
            self._policies[method] = LearnedProposals(method, self.min_gain, threads=self.threads, task=self.task)
        for each in (self.oracle, *self._teachers.values()):
            each.frame, each.objects = Frame(scene.image), scene.truth
        perception = ActivePerception(self._policies[method], self.task)
        answers = {}
        for count in (0, *REGIONS):
            regions = MAX_REGIONS if method == SAHI and count else count
            result = perception.perceive(Frame(scene.image), scene.query, Budget(max_regions=regions))
            if result.status is Status.FAILED:
                raise SystemExit(f"{method}: {result.status_message}")
            rows = [[d.score, COCO_CLASSES.index(d.label), *d.box.as_tuple()] for d in result.detections]
            answers[count] = {"views": result.cost.views, "detections": rows}
        write_atomically(path, json.dumps(answers))
        return answers

    def run_all(self, scene: LabelledScene, methods: Sequence[str]) -> dict[str, dict[int, Answer]]:
        """As `run`, of several methods, which share the looks at equal crops."""
        self.detector.forget()
        return {method: self.run(scene, method) for method in methods}


def source_digest() -> str:
    """Of the code on which results depend."""
    root = Path(activeo3_ros.__file__).resolve().parent
    files = sorted(path for folder in SOURCES for path in (root / folder).rglob("*.py"))
    return _digest(*(path.read_text(encoding="utf-8") for path in files))


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


_runner: Runner | None = None
"""Of this process."""


def _start(*arguments: Any) -> None:
    global _runner
    _runner = Runner(*arguments)


def _run(scene: LabelledScene, methods: Sequence[str]) -> dict[str, dict[int, Answer]]:
    assert _runner is not None
    return _runner.run_all(scene, methods)


def answers_of(
    scenes: Sequence[LabelledScene], methods: Sequence[str], args: argparse.Namespace
) -> list[dict[str, dict[int, Answer]]]:
    """What the methods give in each scene, with `--jobs` processes."""
    args.work.mkdir(parents=True, exist_ok=True)
    arguments = args.work, args.min_gain, args.threads
    if args.jobs == 1:
        runner = Runner(*arguments)
        return [runner.run_all(scene, methods) for scene in tqdm(scenes, leave=False)]
    context = multiprocessing.get_context("spawn")  # threads of onnxruntime do not survive a fork
    with (
        ProcessPoolExecutor(args.jobs, context, _start, arguments) as pool,
        tqdm(total=len(scenes), leave=False) as bar,
    ):
        waiting: deque[Future[dict[str, dict[int, Answer]]]] = deque()
        for scene in scenes:
            waiting.append(pool.submit(_run, scene, methods))
            waiting[-1].add_done_callback(lambda _: bar.update())
        return [each.result() for each in waiting]


@dataclass(frozen=True)
class Figures:
    """Of one method and one number of regions.

    Attributes:
        found: Objects found in each scene.
        reported: Detections in each scene.
        views: A scene, on average.
        precision: Share of the detections that are right.
        ap: By the size of the objects; -1 where there is none of a size.
    """

    found: tuple[int, ...]
    reported: tuple[int, ...]
    views: float
    precision: float
    ap: dict[str, float]


def figures(scenes: Sequence[LabelledScene], answers: Sequence[Answer]) -> Figures:
    """Judge what one method gave with one number of regions."""
    found, predictions = [], []
    for number, (scene, answer) in enumerate(zip(scenes, answers, strict=True), start=1):
        seen = [(row[0], row[1], Box(*row[2:])) for row in answer["detections"]]
        found.append(len(matched(scene.truth, seen)))
        for score, category, box in seen:
            row = {"image_id": number, "category_id": category + 1, "bbox": list(box.as_tuple()), "score": score}
            predictions.append(row)
    reported = tuple(len(answer["detections"]) for answer in answers)
    scores = DetectionScores(coco_truth(scenes), predictions) if predictions else None
    ap = {size: scores.value(MetricName("AP", area=size)) if scores else 0.0 for size in SIZES}
    views = float(np.mean([answer["views"] for answer in answers]))
    return Figures(tuple(found), reported, views, sum(found) / max(1, sum(reported)), ap)


def coco_truth(scenes: Sequence[LabelledScene]) -> dict[str, Any]:
    """The labels of scenes as COCO has them."""
    images, annotations = [], []
    for number, scene in enumerate(scenes, start=1):
        height, width = scene.image.shape[:2]
        images.append({"id": number, "width": width, "height": height, "file_name": str(number)})
        for each in scene.truth:
            row = {"image_id": number, "category_id": each.category + 1, "bbox": list(each.box.as_tuple())}
            annotations.append({**row, "id": len(annotations) + 1, "area": each.box.area, "iscrowd": 0})
    categories = [{"id": number, "name": name} for number, name in enumerate(COCO_CLASSES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def main() -> None:
    """Print a table for each kind of scenes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("heads", nargs="*", type=Path)
    parser.add_argument("--photos", nargs=2, type=Path, metavar=("IMAGES", "LABELS"))
    parser.add_argument("--mosaics", type=int, default=12)
    parser.add_argument("--take", default="0:1", help="shares of the photographs, sorted by name")
    parser.add_argument("--pictures", nargs=2, type=Path, metavar=("IMAGES", "TRUTH"))
    parser.add_argument("--classes", default="car,truck,bus")
    parser.add_argument("--video", type=Path, metavar="FILE")
    parser.add_argument("--every", type=int, default=8, help="frames of the video from one scene to the next")
    parser.add_argument("--teacher", action="store_true", help="add the windows of the teacher's own findings")
    parser.add_argument(
        "--min-gain", type=float, default=0.001, help="of the heads: so little that they propose all windows"
    )
    parser.add_argument("--no-best", action="store_true", help="leave out the best windows, which take longest")
    parser.add_argument("--heads-only", action="store_true", help="compare with detector proposals alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--work", type=Path, default=cache_directory() / "gain_maps_benchmark", metavar="DIR")
    parser.add_argument("--results", type=Path, metavar="FILE")
    parser.add_argument("--frame-time", action="store_true")
    args = parser.parse_args()
    if args.frame_time:
        frame_time(args.heads, args.threads)
    low, high = (float(share) for share in args.take.split(":"))
    results = {}
    if args.photos:
        scenes = list(mosaics(*args.photos, args.mosaics, (low, high), args.seed))
        results["mosaics of photographs"] = compare("mosaics of photographs", scenes, args)
    if args.pictures:
        scenes = list(pictures(*args.pictures, tuple(args.classes.split(","))))
        results["pictures"] = compare("pictures", scenes, args)
    if args.video:
        scenes = list(video(args.video, args.every, tuple(args.classes.split(","))))
        results[args.video.name] = compare(args.video.name, scenes, args)
    if args.results and results:
        asked = {name: str(value) for name, value in vars(args).items() if name in ASKED}
        heads = {_name(str(head)): sha256_of(head) for head in args.heads}
        content = {"date": date.today().isoformat(), "settings": asked, "heads": heads, "results": results}
        write_atomically(args.results, json.dumps(content, indent=1) + "\n")


def compare(title: str, scenes: Sequence[LabelledScene], args: argparse.Namespace) -> dict[str, Any]:
    """Run all methods on scenes, print their table, and give its figures."""
    others = () if args.heads_only else ("grid", "random", "centre_crop", SAHI, "adaptive_slices")
    best = () if args.no_best or args.heads_only else (BEST,)
    methods = [BASELINE, *others, *map(str, args.heads), *(WAYS if args.teacher else ()), *best]
    answers = answers_of(scenes, methods, args)
    table = {
        _name(method): {count: figures(scenes, [each[method][count] for each in answers]) for count in (0, *REGIONS)}
        for method in methods
    }
    objects = [len(scene.truth) for scene in scenes]
    print_table(title, table, objects, args.seed)
    return {
        "scenes": len(scenes),
        "objects": sum(objects),
        "methods": {
            name: {
                str(count): {
                    "found": sum(row.found) / sum(objects), "precision": row.precision, "ap": row.ap, "views": row.views
                }
                for count, row in rows.items()
            }
            for name, rows in table.items()
        },
    }  # fmt: skip


def _name(method: str) -> str:
    """Of a method in the table."""
    path = Path(method)
    return f"gain maps, {path.parent.name}/{path.stem}" if path.suffix == ".onnx" else method


def category_of(label: str) -> int | None:
    """The category of a label."""
    return COCO_CLASSES.index(label)


def print_table(title: str, table: dict[str, dict[int, Figures]], objects: Sequence[int], seed: int) -> None:
    """Found, precision and AP of each method for each number of regions, and intervals of the difference."""
    counts = (0, *REGIONS)
    header = f"{'':<40}" + "".join(f"{f'K = {count}':>16}" for count in counts)
    print(f"\n{title}: {len(objects)} scenes, {sum(objects)} objects; found / precision at K regions\n{header}")
    for name, rows in table.items():
        cells = [f"{sum(rows[k].found) / sum(objects):.3f} / {rows[k].precision:.3f}" for k in counts]
        print(f"{name:<40}" + "".join(f"{cell:>16}" for cell in cells))
    print("AP, and of small, medium and large objects, in hundredths")
    for name, rows in table.items():
        cells = [" ".join(f"{100 * rows[k].ap[size]:.1f}" for size in SIZES) for k in counts]
        print(f"{name:<40}" + "".join(f"{cell:>22}" for cell in cells))
    draws = np.random.default_rng(seed).integers(0, len(objects), (DRAWS, len(objects)))
    total = np.array(objects)[draws].sum(axis=1)
    found = {name: np.array([rows[count].found for count in REGIONS], float) for name, rows in table.items()}
    groups: dict[str, list[str]] = {}
    for name in table:
        if SEED in name:
            groups.setdefault(f"{name.partition(SEED)[0]}, mean of seeds", []).append(name)
    means = {group: np.mean([found[name] for name in names], axis=0) for group, names in groups.items() if names[1:]}
    for group, values in means.items():
        shares = [[found[name][k].sum() / sum(objects) for name in groups[group]] for k in range(len(REGIONS))]
        cells = [f"{values[k].sum() / sum(objects):.3f} ±{np.std(shares[k], ddof=1):.3f}" for k in range(len(REGIONS))]
        print(f"{group:<40}" + " " * 16 + "".join(f"{cell:>16}" for cell in cells))
    print(f"difference of the share found to {BASELINE}, 95 % interval")
    for name, values in {**found, **means}.items():
        if name == BASELINE:
            continue
        limits = [
            np.percentile((v - b)[draws].sum(axis=1) / total, [2.5, 97.5])
            for v, b in zip(values, found[BASELINE], strict=True)
        ]
        print(f"{name:<40}" + " " * 16 + "".join(f"{f'{low:+.3f} {high:+.3f}':>16}" for low, high in limits))
    if BEST in found:
        print(f"share of the way from {BASELINE} to {BEST}")
        way = (found[BEST] - found[BASELINE]).sum(axis=1)
        for name, values in {**found, **means}.items():
            shares = (values - found[BASELINE]).sum(axis=1) / np.where(way > 0, way, np.nan)
            if name not in (BASELINE, BEST, SAHI):
                print(f"{name:<40}" + " " * 16 + "".join(f"{f'{share:.2f}':>16}" for share in shares))
    views = {name: rows[REGIONS[-1]].views for name, rows in table.items()}
    print("views a scene at the most regions: " + ", ".join(f"{name} {count:.1f}" for name, count in views.items()))


def frame_time(heads: Sequence[Path], threads: int) -> None:
    """Print what a frame of three regions costs with detector proposals and with each head, in turn."""
    task = DetectorTask(CenterNet(threads=threads), label="embedded")
    policies: dict[str, SensingPolicy] = {BASELINE: DetectorProposals(task=task)}
    for head in heads:
        policies[_name(str(head))] = LearnedProposals(str(head), 0.001, threads=threads, task=task)
    loops = {name: ActivePerception(policy, task) for name, policy in policies.items()}
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (27, 48, 3), dtype=np.uint8)
    frame = np.asarray(cv2.resize(coarse, FRAME_SIZE, interpolation=cv2.INTER_CUBIC), np.uint8)
    kinds = ("choice", "choice_cpu", "frame", "frame_cpu")
    times: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in kinds} for name in loops}
    view = Frame(frame).view(Frame(frame).window, task.view_size(*FRAME_SIZE, Budget().view_pixels))
    query = Query(classes=COCO_CLASSES)
    [detected] = task.detect([view], 0.03, task.resolve(query))
    for number in range(FRAMES + 3):
        for name, loop in loops.items():
            marks = [(time.perf_counter(), time.process_time())]
            policies[name].regions_from(view, detected, task.resolve(query), Budget(max_regions=3))  # type: ignore[attr-defined]
            marks.append((time.perf_counter(), time.process_time()))
            loop.perceive(Frame(frame), query, Budget(max_regions=3))
            marks.append((time.perf_counter(), time.process_time()))
            taken = [
                1e3 * (end - begun)
                for one, two in itertools.pairwise(marks)
                for begun, end in zip(one, two, strict=True)
            ]
            if number >= 3:  # the first ones warm up
                for kind, value in zip(kinds, taken, strict=True):
                    times[name][kind].append(value)
    print(f"a choice of 3 regions in a view, and a frame: ms, and ms of all cores; {threads} threads, {FRAMES} frames")
    for name, each in times.items():
        median = {kind: float(np.median(values)) for kind, values in each.items()}
        more = {kind: float(np.median(np.subtract(each[kind], times[BASELINE][kind]))) for kind in kinds}
        print(
            f"{name:<40} choice {median['choice']:.1f}, {median['choice_cpu']:.1f} (more: {more['choice']:+.1f}, "
            f"{more['choice_cpu']:+.1f}); frame {median['frame']:.1f}, {median['frame_cpu']:.1f} (more: "
            f"{more['frame']:+.1f}, {more['frame_cpu']:+.1f}), "
            f"{np.median(np.divide(each['frame_cpu'], times[BASELINE]['frame_cpu'])):.3f} of the work"
        )


if __name__ == "__main__":
    main()
