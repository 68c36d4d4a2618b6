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

"""Builds training rows from a bag: its pictures, with targets of a COCO file or of detections recorded in a bag.

Pictures are matched by their stamps, as `activeo3 evaluate --bag` does, and written as PNG files beside the rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from ..bags.messages import camera_of, check_cameras_differ
from ..bags.offline import choose_topics
from ..bags.reading import Bag, read_messages
from ..codecs.result_cdr import RESULT_TYPE
from ..core.errors import InvalidInput
from ..core.results import Status
from ..evaluation.datasets import coco_of_bag
from ..evaluation.ground_truth import read_coco
from .builders import RECIPES, coco_rows, digest, limit_rows, problem
from .rows import Row, write_rows

MAX_PICTURES = 10_000_000


def build_from_bag(
    path: Path,
    annotations: Path | None,
    results: Path | None,
    wanted: Sequence[str],
    out: Path,
    seed: int = 0,
    rows: int | None = None,
    per_class: int | None = None,
) -> tuple[int, int]:
    """Build the rows of a bag and write them, with its pictures.

    Args:
        path: The bag with the pictures.
        annotations: COCO file whose images have a `stamp` in nanoseconds; or
        results: Bag of a replay or a node, whose detections are then the targets. One of the two is given.
        wanted: Topics, by default the only one with pictures.
        out: Directory of the rows.
        seed: Of the choice and the order.
        rows: At most so many pictures, None for all.
        per_class: At most so many questions of one class, None for all.

    Returns:
        The number of rows written, and of problems listed.

    Raises:
        InvalidInput: A file cannot be read, or no row comes of them.
    """
    source = annotations or results
    if source is None or (annotations and results):
        raise InvalidInput("give the targets in the bag's pictures by either --annotations FILE or --results BAG")
    with Bag(path) as bag:
        topics = choose_topics(bag, wanted)
        problems: list[dict[str, Any]] = []
        out.mkdir(parents=True, exist_ok=True)
        if annotations is None:
            annotations = out / "detections.json"
            document, problems = detections_as_coco(source, topics)
            annotations.write_text(json.dumps(document), encoding="utf-8")
        dataset, _ = coco_of_bag(annotations, bag, topics, None)
        pictures = {each["id"]: each for each in dataset.truth["images"]}
        problems += [
            problem(annotations, each, f"no picture of stamp {each['stamp']} in {path}")
            for each in read_coco(annotations)["images"]
            if each["id"] not in pictures
        ]
        (out / "images").mkdir(exist_ok=True)
        usable = []
        for sample in dataset.samples:
            if sample.id not in dataset.annotations:
                continue
            try:
                usable.append(_write_picture(pictures[sample.id], sample.load().image, sample.name, out / "images"))
            except InvalidInput as error:
                problems.append(problem(path, pictures[sample.id], f"{sample.name}: {error}"))
        kept = {each["id"] for each in usable}
        truth = [each for each in dataset.truth["annotations"] if each["image_id"] in kept]
    document = {"images": usable, "annotations": truth, "categories": dataset.truth["categories"]}
    found = list(coco_rows(document, annotations, out / "images", RECIPES["coco"].select))
    good = limit_rows([each for each in found if isinstance(each, Row)], rows or MAX_PICTURES, per_class, seed)
    problems += [each for each in found if not isinstance(each, Row)]
    provenance = {
        "kind": "bag",
        "rule": "detections of another run, not a truth" if results else "pictures of a bag, targets by their stamps",
        "annotations": str(source),
        "sha256": [digest(each) for each in (source, path) if each.is_file()],
        "bag": str(path),
        "topics": list(topics),
    }
    write_rows(out, good, problems, provenance, seed)
    return len(good), len(problems)


def detections_as_coco(results: Path, topics: Sequence[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read the detections in a bag of results.

    Args:
        results: The bag.
        topics: Topics of the pictures, whose cameras the results are of.

    Returns:
        A COCO document, and a problem for each result that failed or is of another camera.

    Raises:
        InvalidInput: The bag has no results, or two topics are of one camera.
    """
    with Bag(results) as bag:
        sources = [topic.name for topic in bag.topics.values() if topic.type == RESULT_TYPE]
    if not sources:
        raise InvalidInput(f"{results}: has no topic of {RESULT_TYPE}; make one by `activeo3 replay`")
    check_cameras_differ(topics)
    by_camera = {camera_of(topic): topic for topic in topics}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    problems = []
    categories: dict[str, int] = {}
    for source in sources:
        for _, message in read_messages(results, source):
            stamp = int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)
            entry = {"id": len(images) + 1, "stamp": stamp, "topic": by_camera.get(message.camera)}
            if message.status == Status.FAILED:
                problems.append(problem(results, entry, f"{source} {stamp}: failed: {message.status_message}"))
            elif entry["topic"] is None:
                problems.append(problem(results, entry, f"{source} {stamp}: is of camera {message.camera!r}"))
            else:
                images.append({**entry, "width": int(message.image_width), "height": int(message.image_height)})
                annotations += [
                    {
                        "image_id": entry["id"],
                        "category_id": categories.setdefault(each.label, len(categories) + 1),
                        "bbox": [each.box.x, each.box.y, each.box.width, each.box.height],
                        "score": each.score,
                    }
                    for each in message.detections
                ]
    classes = [{"id": number, "name": name} for name, number in categories.items()]
    return {"images": images, "annotations": annotations, "categories": classes}, problems


def _write_picture(entry: dict[str, Any], image: Any, name: str, folder: Path) -> dict[str, Any]:
    """The entry of a picture with its file, written, and its size. image: `(h, w, 3)` uint8 BGR."""
    size = {"width": image.shape[1], "height": image.shape[0]}
    file = folder / (name.strip("/").replace("/", "_").replace(" ", "-") + ".png")
    if not cv2.imwrite(str(file), image):
        raise InvalidInput(f"{file} could not be written")
    return {**entry, **size, "file_name": file.name}
