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

"""The data sets of ACTIVE-o3 (arXiv 2505.21457), read from their official files, and its test subsets.

Its lists of images were never released. The rules here are those that the paper states. Where it leaves a choice open,
the function states ours, the manifest records it, and the numbers are comparable to the paper's only in magnitude.

Every loader takes the directory of the official files (`root`), the number of samples (`count`, None for the paper's
number or all) and the seed of the draw, and raises InvalidInput where a file is missing or not as the data set has it.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..codecs.image_files import image_size, read_image
from ..codecs.rle import Mask, encode_rle
from ..core import InvalidInput, Query
from .datasets import Dataset, Sample, image_loader, with_checked_sizes
from .ground_truth import label_ids, read_coco, read_json
from .multiple_choice import LETTERS, lettered_question
from .subset_rules import (
    DENSE_INSTANCES,
    IGNORED_NAMES,
    SMALL_AREA_PX2,
    counted_instances,
    dense_instances,
    small_instances,
)

LVIS_TEST_SAMPLES = 1200
MAX_SAMPLES_OF_CLASS = 3
SODA_CLASSES = (
    "airplane",
    "helicopter",
    "small vehicle",
    "large vehicle",
    "ship",
    "container",
    "storage tank",
    "swimming pool",
    "windmill",
)
"""SODA-A by `category_id`; higher ids there are "other", which is to be ignored."""


def lvis_small(root: Path, count: int | None, seed: int) -> Dataset:
    """LVIS-small: one category in one image at a time, where an instance of it has less than 100 px of area.

    Our choice: the ground truth holds all instances of the category, and scoring separates the sizes.

    Args:
        root: Directory with `lvis_v1_val.json` and the COCO pictures.
        count: Number of samples, None for 1200.
        seed: Seed of the draw.

    Returns:
        The data set.
    """
    return _lvis(
        root,
        "lvis-small",
        small_instances,
        f"an instance below {SMALL_AREA_PX2:g} square pixels",
        count,
        seed,
    )


def lvis_dense(root: Path, count: int | None, seed: int) -> Dataset:
    """LVIS-dense: one category in one image at a time, of which the image has more than 15 instances.

    Our choice: instances are counted by category, because a sample asks for one category.

    Args:
        root: As for `lvis_small`.
        count: As for `lvis_small`.
        seed: As for `lvis_small`.

    Returns:
        The data set.
    """
    return _lvis(
        root,
        "lvis-dense",
        dense_instances,
        f"more than {DENSE_INSTANCES} instances",
        count,
        seed,
    )


def soda_a(root: Path, count: int | None, seed: int) -> Dataset:
    """SODA-A's test split: one JSON file an image; each polygon becomes the box that encloses it.

    Args:
        root: Directory with `Annotations` and `Images`.
        count: Number of samples, None for all.
        seed: Seed of the draw.

    Returns:
        The data set; it asks for all categories in each image.
    """
    folder = _first_directory(root, "Annotations/test", "test/Annotations", "rawData/test/Annotations")
    images, annotations = [], []
    for number, path in enumerate(sorted(folder.glob("*.json")), start=1):
        image = _find_image(root, f"{path.stem}.jpg", "Images", "Images/test", "test/Images", "rawData/test/Images")
        rows = read_json(path) if path.stat().st_size else {"annotations": []}  # the release has empty files
        images.append({"id": number, "file_name": str(image.relative_to(root))})
        for row in rows.get("annotations", []):
            try:
                corners = np.array(row["poly"], np.float64).reshape(-1, 2)
                low, high = corners.min(axis=0), corners.max(axis=0)
                category = int(row["category_id"])
            except (KeyError, TypeError, ValueError) as error:
                raise InvalidInput(f"{path}: an annotation has no polygon of a category: {error}") from error
            box = [*low.tolist(), *(high - low).tolist()]
            # A crowd takes the detections on it out of the count, for every category that it stands for.
            for label in [category] if category < len(SODA_CLASSES) else range(len(SODA_CLASSES)):
                annotations.append(_annotation(number, label + 1, box, crowd=category >= len(SODA_CLASSES)))
    if not images:
        raise InvalidInput(f"{folder}: has no *.json; SODA-A has one for each image")
    categories = [{"id": number + 1, "name": name} for number, name in enumerate(SODA_CLASSES)]
    return _whole_images("soda-a", root, folder, images, annotations, categories, count, seed)


def soda_d(root: Path, count: int | None, seed: int) -> Dataset:
    """SODA-D's test split: COCO annotations; ignored areas count neither way, for no category.

    Args:
        root: Directory with `Annotations/test.json` and `Images`.
        count: Number of samples, None for all.
        seed: Seed of the draw.

    Returns:
        The data set; it asks for all categories in each image.
    """
    path = _first_file(root, "Annotations/test.json", "annotations/test.json", "test.json")
    truth = read_coco(path)
    by_id = {row["id"]: row for row in truth["categories"]}
    categories = [row for row in truth["categories"] if row["name"].lower() not in IGNORED_NAMES]
    annotations = []
    for row in truth["annotations"]:
        if not counted_instances({}, by_id[row["category_id"]], [row]):
            annotations += [_annotation(row["image_id"], c["id"], row["bbox"], crowd=True) for c in categories]
        else:
            annotations.append(_annotation(row["image_id"], row["category_id"], row["bbox"]))
    images = []
    for row in truth["images"]:
        image = _find_image(root, row["file_name"], "Images", "Images/test", "test/Images", "")
        images.append({**row, "file_name": str(image.relative_to(root))})
    return _whole_images("soda-d", root, path, images, annotations, categories, count, seed)


def thinobjects(root: Path, count: int | None, seed: int) -> Dataset:
    """ThinObject-5K's test split: one mask an image.

    Args:
        root: Directory with `images/`, `masks/` and `list/test.txt`.
        count: Number of samples, None for all.
        seed: Seed of the draw.

    Returns:
        The data set, for the protocol of interactive segmentation.
    """
    listed = _first_file(root, "list/test.txt")
    names = [Path(line.strip()).stem for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    names = _draw(names, count, seed)
    images, annotations, samples, files = [], [], [], []
    for number, name in enumerate(names, start=1):
        picture = _find_image(root, f"{name}.jpg", "images")
        mask = read_mask(_find_image(root, f"{name}.png", "masks"))
        if not mask.any():
            raise InvalidInput(f"{root}: the mask of {name} is empty")
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        row = _annotation(number, 1, [float(value) for value in box])
        row["segmentation"] = {"size": list(mask.shape), "counts": encode_rle(mask).decode("ascii")}
        annotations.append(row)
        files.append(picture)
        images.append({"id": number, "file_name": picture.name, "height": mask.shape[0], "width": mask.shape[1]})
        samples.append(Sample(number, name, Query(), image_loader(picture)))
    truth = _truth(images, annotations, [{"id": 1, "name": "object"}])
    facts = _facts("list/test.txt", count, seed, len(samples))
    dataset = Dataset("thinobjects", samples, truth, {"object": 1}, facts, interactive=True)
    return with_checked_sizes(dataset, listed, files)


def vstar(root: Path, count: int | None, seed: int, with_choices: bool = False) -> Dataset:
    """V*Bench: one JSON file beside each picture, with a question, its options (the right one first) and target boxes.

    Args:
        root: Directory with `direct_attributes/` and `relative_position/`.
        count: Number of questions, None for all.
        seed: Seed of the draw and of the order of the options.
        with_choices: Ask with the lettered options, as language models need it.

    Returns:
        The data set, for the protocol of multiple choice.
    """
    files = sorted(path for kind in ("direct_attributes", "relative_position") for path in (root / kind).glob("*.json"))
    if not files:
        raise InvalidInput(f"{root}: has no direct_attributes/*.json or relative_position/*.json of V*Bench")
    dataset = _questions("vstar", _draw(files, count, seed), seed, with_choices)
    facts = {**_facts("all questions", count, seed, len(dataset.samples)), **dataset.facts}
    return replace(dataset, facts=facts)


def demo_pictures(root: Path, seed: int) -> Dataset:
    """The pictures of the released demo, or others of its form, which is that of V*Bench, in one directory.

    Args:
        root: Directory of the pictures and their JSON files.
        seed: Seed of the order of the options.

    Returns:
        The data set, asked without options as the demo does.
    """
    files = sorted(root.glob("*.json"))
    if not files:
        raise InvalidInput(f"{root}: has no *.json with a question beside each picture, as the released demo has them")
    dataset = _questions("pictures", files, seed, with_choices=False)
    return replace(dataset, facts={**_facts(str(root.name), None, seed, len(files)), **dataset.facts})


def _questions(dataset: str, files: Sequence[Path], seed: int, with_choices: bool) -> Dataset:
    """Questions of V*Bench's form, in the order of their files."""
    images, annotations, samples = [], [], []
    for number, path in enumerate(files, start=1):
        row = read_json(path)
        try:
            options, boxes = tuple(str(text) for text in row["options"]), row["bbox"]
            question = str(row["question"])
            right = options[0]
            for box in boxes:
                annotations.append(_annotation(number, 1, [float(value) for value in box]))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InvalidInput(f"{path}: not a question of V*Bench: {type(error).__name__} {error}") from error
        choices = (right, *random.Random(f"{seed} {path.stem}").sample(options[1:], len(options) - 1))
        picture = _find_image(path.parent.parent, f"{path.stem}.jpg", path.parent.name)
        name = f"{path.parent.name}/{path.stem}"
        wide, high = image_size(picture) or (None, None)
        images.append({"id": number, "file_name": f"{name}.jpg", "width": wide, "height": high})
        text = lettered_question(question, choices, seed, name) if with_choices else question
        samples.append(Sample(number, name, Query(text), image_loader(picture), choices))
    truth = _truth(images, annotations, [{"id": 1, "name": "target"}])
    return Dataset(dataset, samples, truth, {"target": 1}, {"asked with choices": with_choices})


def dtpqa(root: Path, count: int | None, seed: int, with_choices: bool = False) -> Dataset:
    """DTPQA: questions on traffic scenes, each with the distance of the object that it is about.

    Our choice: the options of a question are all answers that its category has.

    Args:
        root: Directory with `annotations.json`, a list of questions for each category of `synth` and `real`, and the
            pictures that it names.
        count: Number of questions, None for all.
        seed: Seed of the draw and of the order of the options.
        with_choices: Ask with the lettered options, as language models need it.

    Returns:
        The data set, for the protocol of multiple choice; its accuracy is also told by distance.
    """
    path = _first_file(root, "annotations.json")
    parts = read_json(path)
    rows: list[tuple[str, dict[str, Any]]] = []
    try:
        for part, categories in parts.items():
            for category, questions in categories.items():
                rows += [(f"{part} {category}", dict(row)) for row in questions]
        answers: dict[str, list[str]] = {}
        for kind, row in rows:
            own = answers.setdefault(kind, [])
            own += [str(row["answer"])] if str(row["answer"]) not in own else []
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"{path}: not the annotations of DTPQA: {type(error).__name__} {error}") from error
    if not rows:
        raise InvalidInput(f"{path}: has no questions")
    images, samples = [], []
    for number, (kind, row) in enumerate(_draw(rows, count, seed), start=1):
        try:
            question, right = str(row["question"]), str(row["answer"])
            file = str(row.get("image_path") or row["filename"])
            distance = row["distance"]
            distance_m = math.nan if distance is None else float(distance)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"{path}: question {number} of {kind}: {type(error).__name__} {error}") from error
        picture = _find_image(root, file, "", "images")
        name = f"{kind}/{number}"
        wrong = [answer for answer in answers[kind] if answer != right]
        choices = (right, *random.Random(f"{seed} {name}").sample(wrong, len(wrong)))
        if with_choices and len(choices) > len(LETTERS):
            raise InvalidInput(f"{path}: {kind} has {len(choices)} answers, more than there are letters; ask without")
        text = lettered_question(question, choices, seed, name) if with_choices else question
        images.append({"id": number, "file_name": file})
        samples.append(Sample(number, name, Query(text), image_loader(picture), choices, distance_m=distance_m))
    truth = _truth(images, [], [{"id": 1, "name": "target"}])
    facts = {**_facts("all questions", count, seed, len(samples)), "asked with choices": with_choices}
    return Dataset("dtpqa", samples, truth, {"target": 1}, facts)


def read_mask(path: Path) -> Mask:
    """Read a grey picture as a `(h, w)` bool mask: pixels brighter than half."""
    return np.asarray(cv2.cvtColor(read_image(path), cv2.COLOR_BGR2GRAY) > 127)


def _lvis(
    root: Path,
    name: str,
    fitting: Callable[[Mapping[str, Any], Mapping[str, Any], Sequence[dict[str, Any]]], Sequence[Mapping[str, Any]]],
    rule: str,
    count: int | None,
    seed: int,
) -> Dataset:
    """Samples of one category in one image: an image once, a class at most 3 times, all exhaustively annotated."""
    path = _first_file(root, "lvis_v1_val.json", "annotations/lvis_v1_val.json")
    truth = read_coco(path)
    rows: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in truth["annotations"]:
        rows.setdefault((row["image_id"], row["category_id"]), []).append(row)
    by_id = {row["id"]: row for row in truth["images"]}
    by_category = {row["id"]: row for row in truth["categories"]}
    names = {row["id"]: str(row["name"]).replace("_", " ") for row in truth["categories"]}
    candidates = [
        (image, category)
        for (image, category), members in sorted(rows.items())
        if fitting(by_id[image], by_category[category], members)
    ]
    random.Random(seed).shuffle(candidates)
    of_class: Counter[int] = Counter()
    used: set[int] = set()
    chosen: list[tuple[int, int]] = []
    for image, category in candidates:
        if (
            image not in used
            and of_class[category] < MAX_SAMPLES_OF_CLASS
            and len(chosen) < (count or LVIS_TEST_SAMPLES)
        ):
            chosen.append((image, category))
            used.add(image)
            of_class[category] += 1
    if not chosen:
        raise InvalidInput(f"{root}: no image of LVIS has {rule} of one category")
    images, annotations, samples, files = [], [], [], []
    for number, (image, category) in enumerate(chosen, start=1):
        file = _find_image(root, "/".join(str(by_id[image]["coco_url"]).split("/")[-2:]), "", "images", "coco")
        files.append(file)
        size = {side: by_id[image][side] for side in ("width", "height") if side in by_id[image]}
        images.append({"id": number, "file_name": str(file.relative_to(root)), "lvis_image_id": image, **size})
        annotations += [
            _annotation(number, category, row["bbox"], bool(row["iscrowd"]), row["area"])
            for row in rows[image, category]
        ]
        samples.append(
            Sample(number, f"{file.stem} {names[category]}", Query(classes=(names[category],)), image_loader(file))
        )
    categories = [{"id": number, "name": names[number]} for number in sorted(of_class)]
    facts = {
        **_facts("lvis_v1_val.json", count, seed, len(samples)),
        "rule": f"{rule}; an image once, a class at most {MAX_SAMPLES_OF_CLASS} times, exhaustively annotated",
        "candidates": len(candidates),
    }
    made = _truth(images, annotations, categories)
    return with_checked_sizes(Dataset(name, samples, made, label_ids(made), facts), path, files)


def _whole_images(
    name: str,
    root: Path,
    path: Path,
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    categories: list[dict[str, Any]],
    count: int | None,
    seed: int,
) -> Dataset:
    """A data set that asks for all categories in each image."""
    chosen = sorted(_draw(images, count, seed), key=lambda row: row["id"])
    kept = {row["id"] for row in chosen}
    query = Query(classes=tuple(str(row["name"]) for row in categories))
    truth = _truth(chosen, [row for row in annotations if row["image_id"] in kept], categories)
    samples = [Sample(row["id"], row["file_name"], query, image_loader(root / row["file_name"])) for row in chosen]
    dataset = Dataset(name, samples, truth, label_ids(truth), _facts("test split", count, seed, len(samples)))
    return with_checked_sizes(dataset, path, [root / row["file_name"] for row in chosen])


def _draw(items: Sequence[Any], count: int | None, seed: int) -> list[Any]:
    """`count` of the items, drawn with a seed, in their order; all of them if `count` is None or no smaller."""
    if count is None or count >= len(items):
        return list(items)
    return [items[index] for index in sorted(random.Random(seed).sample(range(len(items)), count))]


def _facts(source: str, count: int | None, seed: int, samples: int) -> dict[str, Any]:
    return {"source": source, "samples": samples, "drawn": "all" if count is None else count, "subset_seed": seed}


def _annotation(
    image: int, category: int, box: Sequence[float], crowd: bool = False, area: float | None = None
) -> dict[str, Any]:
    area = float(box[2] * box[3]) if area is None else area
    return {"image_id": image, "category_id": category, "bbox": list(box), "area": area, "iscrowd": int(crowd)}


def _truth(
    images: list[dict[str, Any]], annotations: list[dict[str, Any]], categories: list[dict[str, Any]]
) -> dict[str, Any]:
    for number, row in enumerate(annotations, start=1):
        row["id"] = number
    return {"images": images, "annotations": annotations, "categories": categories}


def _find_image(root: Path, name: str, *folders: str) -> Path:
    for folder in folders:
        if (root / folder / name).is_file():
            return root / folder / name
    places = ", ".join(str(root / folder / name) for folder in folders)
    raise InvalidInput(f"a picture is missing; looked for {places}")


def _first_file(root: Path, *names: str) -> Path:
    for name in names:
        if (root / name).is_file():
            return root / name
    raise InvalidInput(f"{root}: has none of {', '.join(names)}; --root is where the official files were unpacked")


def _first_directory(root: Path, *names: str) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise InvalidInput(f"{root}: has none of {', '.join(names)}; --root is where the official files were unpacked")
