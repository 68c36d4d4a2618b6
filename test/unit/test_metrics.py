"""AP and AR equal those of pycocotools; intervals come from a bootstrap over images."""

from __future__ import annotations

import contextlib
import copy
import io
import math

import numpy as np
import pytest

pytest.importorskip("faster_coco_eval", reason="needs requirements/eval.txt")

from activeo3_ros.evaluation.metrics import (
    AREAS,
    COCO_IOUS,
    HEADLINES,
    IOUS,
    DetectionScores,
    MetricName,
    draw_images,
    interval,
)


def random_case(seed: int) -> tuple[dict, list[dict]]:
    """Random ground truth and predictions, with crowds, equal scores, images without objects or without predictions."""
    generator = np.random.default_rng(seed)
    images = [{"id": i + 1, "width": 640, "height": 480} for i in range(int(generator.integers(1, 7)))]
    categories = [{"id": 3 * k + 1, "name": f"class {k}"} for k in range(int(generator.integers(1, 4)))]
    annotations: list[dict] = []
    predictions: list[dict] = []
    levels = [0.5] if generator.random() < 0.3 else [0.1, 0.3, 0.5, 0.9]  # few levels make ties
    for image in images:
        for _ in range(int(generator.choice([0, 0, 1, 3, 8]))):
            box = [*generator.uniform(0, 400, 2).round(1).tolist(), *generator.choice([6, 20, 60, 150], 2).tolist()]
            box = [float(value) for value in box]
            category = int(generator.choice([row["id"] for row in categories]))
            crowd = int(generator.random() < 0.2)
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image["id"], "category_id": category, "bbox": box,
                    "area": box[2] * box[3], "iscrowd": crowd,
                    "segmentation": [[box[0], box[1], box[0] + box[2], box[1], box[0] + box[2], box[1] + box[3]]],
                }
            )  # fmt: skip
            for _ in range(int(generator.integers(0, 3))):
                moved = (np.array(box) + generator.normal(0, 0.1 * box[2], 4)).clip(0.5).tolist()
                predictions.append(
                    {
                        "image_id": image["id"],
                        "category_id": category,
                        "bbox": moved,
                        "score": float(generator.choice(levels)),
                    }
                )
        for _ in range(int(generator.choice([0, 2]))):
            predictions.append(
                {
                    "image_id": image["id"], "category_id": int(generator.choice([row["id"] for row in categories])),
                    "bbox": generator.uniform(1, 200, 4).tolist(), "score": float(generator.choice(levels)),
                }
            )  # fmt: skip
    if seed % 10 == 0:
        annotations = []
    if seed % 10 == 1:
        predictions = []
    return {"images": images, "categories": categories, "annotations": annotations}, predictions


def reference(truth: dict, predictions: list[dict], max_detections: list[int]):
    """Precision and recall of pycocotools, which cannot load an empty list of predictions."""
    coco_module = pytest.importorskip("pycocotools.coco", reason="needs requirements/eval.txt")
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_module.COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        results = coco.loadRes(copy.deepcopy(predictions)) if predictions else coco_module.COCO()
        if not predictions:
            results.dataset = {**copy.deepcopy(truth), "annotations": []}
            results.createIndex()
        evaluation = COCOeval(coco, results, "bbox")
        evaluation.params.iouThrs = np.array(IOUS)
        evaluation.params.areaRng = [list(bounds) for bounds in AREAS.values()]
        evaluation.params.areaRngLbl = list(AREAS)
        evaluation.params.maxDets = max_detections
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def test_ap_and_ar_equal_pycocotools_on_two_hundred_random_cases():
    kinds = {"nothing to find": 0, "nothing found": 0, "crowds": 0, "ties": 0}
    for seed in range(200):
        truth, predictions = random_case(seed)
        kinds["nothing to find"] += not truth["annotations"]
        kinds["nothing found"] += not predictions
        kinds["crowds"] += any(row["iscrowd"] for row in truth["annotations"])
        kinds["ties"] += len({row["score"] for row in predictions}) < len(predictions)
        precision, recall = reference(truth, predictions, [1, 10, 100])
        scores = DetectionScores(truth, predictions)
        for name in HEADLINES:
            for index in range(3):
                rows, area = [IOUS.index(iou) for iou in name.ious], list(AREAS).index(name.area)
                values = precision[rows][..., area, index] if name.kind == "AP" else recall[rows][..., area, index]
                expected = values[values > -1].mean() if (values > -1).any() else math.nan
                assert scores.value(name, index) == pytest.approx(expected, abs=1e-9, nan_ok=True), (seed, str(name))
    assert min(kinds.values()) >= 10, kinds


def test_one_found_object_of_two_by_hand():
    truth = {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0.0, 0.0, 10.0, 10.0], "area": 100.0, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [50.0, 50.0, 20.0, 20.0], "area": 400.0, "iscrowd": 0},
        ],
    }
    found = [{"image_id": 1, "category_id": 1, "bbox": [0.0, 0.0, 10.0, 8.0], "score": 0.9}]  # IoU 0.8
    scores = DetectionScores(truth, found)
    assert scores.value(MetricName("AR", (0.5,))) == 0.5
    assert scores.value(MetricName("AR")) == pytest.approx(0.5 * 7 / 10)  # at 0.5, 0.55, … 0.8
    assert scores.value(MetricName("AP", (0.5,))) == pytest.approx(51 / 101)  # recall 0, 0.01, … 0.5
    assert scores.value(MetricName("AR", (0.5,), "tiny")) == 1.0
    assert math.isnan(scores.value(MetricName("AR", (0.5,), "large")))


def test_intervals_enclose_the_value_and_are_the_same_again():
    truth, predictions = random_case(4)
    scores = DetectionScores(truth, predictions)
    names = [MetricName("AP", (0.5,)), MetricName("AR", COCO_IOUS)]
    draws = draw_images(scores.images, 200, seed=1)
    values = scores.resampled(names, draws)
    for column, name in enumerate(names):
        low, high = interval(values[:, column])
        assert low <= scores.value(name) <= high
    assert np.array_equal(values, scores.resampled(names, draws), equal_nan=True)


def test_drawing_every_image_once_gives_the_value_itself():
    truth, predictions = random_case(7)
    scores = DetectionScores(truth, predictions)
    once = np.arange(scores.images)[None]
    expected = [scores.value(name) for name in HEADLINES]
    assert scores.resampled(HEADLINES, once)[0].tolist() == pytest.approx(expected, abs=1e-12, nan_ok=True)
