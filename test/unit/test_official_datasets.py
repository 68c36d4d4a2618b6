"""The official data sets: their formats, the rules of the subsets, scores computed by hand."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("faster_coco_eval", reason="needs requirements/eval.txt")

from activeo3_ros.codecs.rle import encode_rle
from activeo3_ros.core import Box, Detection, InstanceMask, InvalidInput, Query, Region, Result, Status
from activeo3_ros.evaluation import official_datasets as official
from activeo3_ros.evaluation.datasets import Dataset, Sample, coco_of_images
from activeo3_ros.evaluation.differences import difference
from activeo3_ros.evaluation.item_files import item_path, result_to_item, write_item, write_manifest
from activeo3_ros.evaluation.methods import BOX_ORACLE, choose_methods
from activeo3_ros.evaluation.multiple_choice import LETTERS, chosen_option, letter_order
from activeo3_ros.evaluation.published import MEASURED, PUBLISHED, ROWS, beside_published
from activeo3_ros.evaluation.report import report_html
from activeo3_ros.evaluation.scoring import score
from activeo3_ros.evaluation.settings import RunSettings
from activeo3_ros.evaluation.summary import notes_on, table_metrics, text_difference, text_table

NAN = float("nan")


def write_image(path: Path, width: int = 64, height: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def scores_of(out: Path, dataset: Dataset, found: dict[int, Result]):
    """The scores of a method with these results by sample, and empty results for the other samples."""
    (method,) = choose_methods(["full_frame"], None, baselines=False)
    for sample in dataset.samples:
        write_item(
            item_path(out, method, sample), result_to_item(sample, found.get(sample.id, Result(64, 48, sample.query)))
        )
    return score(out, dataset, [method], replicates=50, seed=0)[0]


def detections(query, *found: tuple[str, float, tuple[float, float, float, float]]) -> Result:
    return Result(64, 48, query, detections=tuple(Detection(label, s, Box(*box)) for label, s, box in found))


@pytest.fixture
def lvis(tmp_path: Path) -> Path:
    """A small lvis_v1_val.json: pictures by their COCO address, categories that are not annotated exhaustively."""
    images, annotations = [], []
    categories = [{"id": 7, "name": "traffic_light", "frequency": "f"}, {"id": 9, "name": "crow", "frequency": "c"}]

    def add(image: int, category: int, count: int, side: float, not_exhaustive: tuple[int, ...] = ()) -> None:
        images.append(
            {
                "id": image,
                "coco_url": f"http://images.cocodataset.org/{'val' if image % 2 else 'train'}2017/{image:012}.jpg",
                "height": 48, "width": 64, "neg_category_ids": [], "not_exhaustive_category_ids": list(not_exhaustive),
            }
        )  # fmt: skip
        write_image(tmp_path / f"{'val' if image % 2 else 'train'}2017" / f"{image:012}.jpg")
        for index in range(count):
            box = [1.0 + index, 1.0, side, side]
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image, "category_id": category, "bbox": box,
                    "area": side * side, "segmentation": [[1, 1, 1 + side, 1, 1 + side, 1 + side]],
                }
            )  # fmt: skip

    for image in range(1, 6):
        add(image, 7, count=1, side=8.0)  # small: 64 square pixels
    add(6, 9, count=2, side=9.0)
    add(7, 9, count=2, side=30.0)  # too large for small, too few for dense
    add(8, 9, count=16, side=20.0)  # dense
    add(9, 9, count=20, side=5.0, not_exhaustive=(9,))  # not all of them are annotated: no truth
    (tmp_path / "lvis_v1_val.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories, "info": {}, "licenses": []})
    )
    return tmp_path


def test_lvis_small_takes_a_class_three_times_at_most_and_an_image_once(lvis: Path):
    dataset = official.lvis_small(lvis, None, seed=0)
    asked = Counter(sample.query.classes for sample in dataset.samples)
    assert asked == {("traffic light",): 3, ("crow",): 1}
    chosen = [row["lvis_image_id"] for row in dataset.truth["images"]]
    assert len(set(chosen)) == 4
    assert 6 in chosen
    assert not {7, 8, 9} & set(chosen)
    assert official.lvis_small(lvis, None, seed=0).truth == dataset.truth
    assert official.lvis_small(lvis, None, seed=3).truth != dataset.truth
    assert dataset.samples[0].load().width == 64


def test_lvis_dense_takes_images_with_more_than_fifteen_and_scores_them(lvis: Path, tmp_path: Path):
    dataset = official.lvis_dense(lvis, None, seed=0)
    assert [row["lvis_image_id"] for row in dataset.truth["images"]] == [8]
    query = dataset.samples[0].query
    half = detections(query, *[("crow", 0.9, (1.0 + i, 1.0, 20.0, 20.0)) for i in range(8)])
    scores = scores_of(tmp_path / "out", dataset, {1: half})
    assert scores.quality["AR"].value == 0.5
    assert scores.quality["AR small"].value == 0.5  # 400 square pixels each
    assert scores.quality["AP50"].value == pytest.approx(51 / 101)


def test_soda_a_turns_polygons_into_boxes_and_ignores_other_objects(tmp_path: Path):
    for name in ("00001", "00002"):
        write_image(tmp_path / "Images" / f"{name}.jpg")
    annotations = tmp_path / "Annotations" / "test"
    annotations.mkdir(parents=True)
    rows = [
        {"poly": [10, 20, 20, 10, 30, 20, 20, 30], "category_id": 4},  # a ship, turned by 45 degrees
        {"poly": [40, 40, 50, 40, 50, 46, 40, 46], "category_id": 9},  # other
    ]
    (annotations / "00001.json").write_text(json.dumps({"annotations": rows}))
    (annotations / "00002.json").write_text("")  # as in the release
    dataset = official.soda_a(tmp_path, None, seed=0)
    assert dataset.boxes(1).tolist() == [[10, 10, 20, 20]]
    assert len(dataset.samples) == 2
    query = dataset.samples[0].query
    assert "small vehicle" in query.classes
    # A ship that overlaps a third of the true box counts at 0.1, not at 0.5; one on an "other" object does not count.
    found = detections(query, ("ship", 0.9, (10, 10, 20, 7)), ("ship", 0.8, (40, 40, 10, 6)))
    quality = scores_of(tmp_path / "out", dataset, {1: found}).quality
    assert (quality["AR10 small"].value, quality["AP10 small"].value) == (1.0, 1.0)
    assert quality["AR50 small"].value == 0.0


def test_soda_d_ignores_marked_areas(tmp_path: Path):
    write_image(tmp_path / "Images" / "00003.jpg")
    box = {"image_id": 5, "area": 100, "iscrowd": 0}
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "test.json").write_text(
        json.dumps(
            {
                "images": [{"id": 5, "file_name": "00003.jpg", "height": 48, "width": 64}],
                "categories": [
                    {"id": 1, "name": "people"},
                    {"id": 4, "name": "traffic-light"},
                    {"id": 10, "name": "ignore"},
                ],
                "annotations": [
                    {**box, "id": 1, "category_id": 4, "bbox": [0, 0, 10, 10]},
                    {**box, "id": 2, "category_id": 10, "bbox": [20, 20, 20, 20]},
                ],
            }
        )
    )
    dataset = official.soda_d(tmp_path, None, seed=0)
    assert dataset.samples[0].query.classes == ("people", "traffic-light")
    assert dataset.boxes(5).tolist() == [[0, 0, 10, 10]]
    found = detections(
        dataset.samples[0].query, ("traffic-light", 0.9, (22, 22, 8, 8)), ("traffic-light", 0.5, (0, 0, 10, 5))
    )
    quality = scores_of(tmp_path / "out", dataset, {5: found}).quality
    assert quality["AP10"].value == 1.0  # the higher-scored one lies on an ignored area: no false alarm
    assert quality["AP50"].value == 1.0
    assert quality["AP"].value == pytest.approx(0.1)  # an overlap of exactly 0.5 counts at the first of ten thresholds


def test_thinobjects_reads_its_folders_and_its_list(tmp_path: Path):
    for name in ("fork_1", "fork_2"):
        write_image(tmp_path / "images" / f"{name}.jpg")
        mask = np.zeros((48, 64), np.uint8)
        mask[10:12, 5:45] = 255
        (tmp_path / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "masks" / f"{name}.png"), mask)
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "test.txt").write_text("fork_1.jpg\nfork_2.jpg\n")
    dataset = official.thinobjects(tmp_path, None, seed=0)
    assert [sample.name for sample in dataset.samples] == ["fork_1", "fork_2"]
    assert dataset.boxes(1).tolist() == [[5, 10, 40, 2]]
    assert len(official.thinobjects(tmp_path, 1, seed=0).samples) == 1


@pytest.fixture
def vstar(tmp_path: Path) -> Path:
    for kind, name, options in (
        ("direct_attributes", "sa_1", ["The number on the car is 102.", "The number on the car is 101."]),
        ("direct_attributes", "sa_2", ["The glove is rubber.", "The glove is cotton.", "The glove is leather."]),
        (
            "relative_position",
            "sa_3",
            ["The dog is on the left side of the cat.", "The dog is on the right side of the cat."],
        ),
    ):
        write_image(tmp_path / kind / f"{name}.jpg")
        row = {"target_object": ["x"], "bbox": [[10, 10, 8, 4]], "question": f"What of {name}?", "options": options}
        (tmp_path / kind / f"{name}.json").write_text(json.dumps(row))
    return tmp_path


def test_vstar_counts_answers_in_words(vstar: Path, tmp_path: Path):
    dataset = official.vstar(vstar, None, seed=0)
    answers = {1: "102", 2: "leather, I think", 3: None}
    found = {n: Result(64, 48, dataset.samples[n - 1].query, answer=answer) for n, answer in answers.items()}
    scores = scores_of(tmp_path / "out", dataset, found)
    assert scores.quality["accuracy"].value == pytest.approx(1 / 3)
    assert scores.quality["accuracy direct_attributes"].value == 0.5
    assert scores.quality["accuracy relative_position"].value == 0.0
    assert scores.frame_recall == [1.0, 0.0, 0.0]


def test_vstar_can_be_asked_with_lettered_options_whose_order_says_nothing(vstar: Path, tmp_path: Path):
    dataset = official.vstar(vstar, None, seed=1, with_choices=True)
    assert "(A)" in dataset.samples[0].query.text
    right = {}
    for sample in dataset.samples:
        order = letter_order(len(sample.choices), 1, sample.name)
        letter = LETTERS[order.index(0)]
        assert f"({letter}) {sample.choices[0]}" in sample.query.text
        right[sample.id] = Result(64, 48, sample.query, answer=f"({letter})")
    assert scores_of(tmp_path / "out", dataset, right).quality["accuracy"].value == 1.0


@pytest.fixture
def dtpqa(tmp_path: Path) -> Path:
    """Two categories, with objects at known distances, one in between bins, one too far for all, and none at all."""
    rows = {"category_1": [], "category_2": []}
    distances = (5, 7.4, 10, 20, 33, 54.9, 55, None)
    for number, distance in enumerate(distances):
        name = f"dtp_synth/images/{number}.png"
        write_image(tmp_path / name)
        answer = "No" if distance is None else "Yes"
        row = {"image_path": name, "question": "Is anybody crossing?", "answer": answer, "distance": distance}
        rows["category_1"].append(row)
    rows["category_2"] = [
        {**rows["category_1"][0], "question": "How many?", "answer": n} for n in ("One", "Two", "Three")
    ]
    (tmp_path / "annotations.json").write_text(json.dumps({"synth": rows, "real": {}}))
    return tmp_path


def test_dtpqa_is_told_by_the_distance_of_what_the_question_is_about(dtpqa: Path, tmp_path: Path):
    """The bins are DTPQA's: 5, 10, 20, 30, 40 and 50 m, each distance to the nearest, and nothing from 55 m on."""
    dataset = official.dtpqa(dtpqa, None, seed=0)
    assert [len(sample.choices) for sample in dataset.samples] == [2] * 8 + [3] * 3
    far = {5, 6}  # a model that is short-sighted: these it answers wrong
    found = {}
    for index, sample in enumerate(dataset.samples):
        answer = sample.choices[1] if index in far else sample.choices[0]
        found[sample.id] = Result(64, 48, sample.query, answer=answer)
    quality = scores_of(tmp_path / "out", dataset, found).quality
    assert quality["accuracy"].value == pytest.approx(9 / 11)
    assert quality["accuracy synth category_1"].value == pytest.approx(6 / 8)
    assert {name: estimate.value for name, estimate in quality.items() if " m" in name} == {
        "accuracy at 5 m": 1.0, "accuracy at 10 m": 1.0, "accuracy at 20 m": 1.0, "accuracy at 30 m": 1.0,
        "accuracy at 50 m": 0.0, "accuracy to 20 m": 1.0, "accuracy from 30 m": 0.5, "accuracy beyond 55 m": 0.0,
    }  # fmt: skip
    assert quality["accuracy without distance"].value == 1.0
    assert quality["accuracy from 30 m"].low <= 0.5 <= quality["accuracy from 30 m"].high


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[]", "not the annotations of DTPQA"),
        ('{"synth": {}}', "has no questions"),
        ('{"synth": {"a": [{"question": "?"}]}}', "not the annotations of DTPQA: KeyError 'answer'"),
        ('{"synth": {"a": [{"answer": "Yes", "question": "?"}]}}', "question 1 of synth a: KeyError 'filename'"),
    ],
)
def test_annotations_that_are_not_those_of_dtpqa_are_refused_in_one_line(tmp_path: Path, content: str, complaint: str):
    (tmp_path / "annotations.json").write_text(content)
    with pytest.raises(InvalidInput, match=complaint):
        official.dtpqa(tmp_path, None, seed=0)


def test_recall_is_told_by_distance_where_the_truth_has_distances(tmp_path: Path):
    boxes = [(0, 0, 10, 10), (20, 0, 10, 10), (40, 0, 10, 10), (0, 20, 10, 10)]
    distances = [4.0, 12.0, 41, None]
    rows = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": list(box), "distance_m": distance}
        for n, (box, distance) in enumerate(zip(boxes, distances, strict=True))
    ]
    write_image(tmp_path / "1.jpg")
    images = [{"id": 1, "file_name": "1.jpg"}]
    truth = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "car"}]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    dataset = coco_of_images(tmp_path / "truth.json", tmp_path, None)
    query = dataset.samples[0].query
    scores = scores_of(tmp_path / "o", dataset, {1: detections(query, ("car", 0.9, boxes[0]), ("car", 0.8, boxes[3]))})
    told = {name: estimate.value for name, estimate in scores.quality.items() if name.startswith("recall ")}
    assert told == {
        "recall at 5 m": 1.0, "recall at 10 m": 0.0, "recall at 40 m": 0.0, "recall to 20 m": 0.5,
        "recall from 30 m": 0.0, "recall without distance": 1.0,
    }  # fmt: skip
    assert "recall from 30 m" in table_metrics([scores])
    rows[0]["distance_m"] = -1
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with pytest.raises(InvalidInput, match="distance_m -1; it is 0 or more metres"):
        coco_of_images(tmp_path / "truth.json", tmp_path, None)


@pytest.mark.parametrize(
    ("answer", "option"),
    [("It is 102", 0), ("101!", 1), ("a car", None), ("", None), (None, None), ("102 or 101", None)],
)
def test_an_answer_means_the_choice_that_its_own_words_name(answer: str | None, option: int | None):
    assert chosen_option(answer, ["The number on the car is 102.", "The number on the car is 101."]) == option


def test_masks_are_judged_by_their_overlap_with_the_true_ones(tmp_path: Path):
    square = np.zeros((48, 64), bool)
    square[10:20, 10:30] = True
    polygon = [[40, 10, 50, 10, 50, 20, 40, 20]]
    rows = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 10], "area": 200, "iscrowd": 0,
         "segmentation": {"size": [48, 64], "counts": encode_rle(square).decode()}},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [40, 10, 10, 10], "area": 100, "iscrowd": 0,
         "segmentation": polygon},
    ]  # fmt: skip
    truth = {
        "images": [{"id": 1}],
        "annotations": rows,
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}],
    }
    dataset = Dataset("masks", [Sample(1, "a", Query(masks=True), lambda: None)], truth, {"car": 1, "bus": 2})
    half = InstanceMask("car", 0.9, Box(10, 10, 10, 10), np.ones((10, 10), bool))
    other_class = InstanceMask("bus", 0.9, Box(40, 10, 10, 10), np.ones((10, 10), bool))
    found = Result(64, 48, Query(masks=True), masks=(half, other_class))
    assert scores_of(tmp_path / "out", dataset, {1: found}).quality["mask mIoU"].value == pytest.approx((0.5 + 0) / 2)


def test_a_failed_frame_has_found_no_mask(tmp_path: Path):
    rows = [
        {"id": number, "image_id": number, "category_id": 1, "bbox": [10, 10, 10, 10], "area": 100, "iscrowd": 0,
         "segmentation": [[10, 10, 20, 10, 20, 20, 10, 20]]}
        for number in (1, 2)
    ]  # fmt: skip
    truth = {"images": [{"id": 1}, {"id": 2}], "annotations": rows, "categories": [{"id": 1, "name": "car"}]}
    query = Query(masks=True)
    samples = [Sample(number, "a", query, lambda: None) for number in (1, 2)]
    dataset = Dataset("masks", samples, truth, {"car": 1})
    right = InstanceMask("car", 0.9, Box(10, 10, 10, 10), np.ones((10, 10), bool))
    found = {1: Result(64, 48, query, masks=(right,)), 2: Result(0, 0, query, Status.FAILED, "cannot be read")}
    scores = scores_of(tmp_path / "some", dataset, found)
    assert scores.quality["mask mIoU"].value == pytest.approx((1 + 0) / 2)
    assert scores_of(tmp_path / "none", dataset, {}).quality["mask mIoU"].value == 0.0, "none found is not no number"
    assert notes_on([scores]) == [
        "full_frame-0: 1 of 2 frames failed and counts as one in which nothing was found: cannot be read"
    ]


@pytest.mark.parametrize("ids", [(1, 2), ("1", "2"), ("a.jpg", "b.jpg"), (7, "x")])
def test_every_number_is_the_same_for_every_form_of_id(tmp_path: Path, ids: tuple):
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.jpg")
    document = {
        "images": [
            {"id": each, "file_name": f"{name}.jpg", "width": 64, "height": 48}
            for each, name in zip(ids, "ab", strict=True)
        ],
        "categories": [{"id": ids[0], "name": "Car "}],
        "annotations": [
            {"id": each, "image_id": each, "category_id": ids[0], "bbox": [10, 10, 20, 10]} for each in ids
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(document))
    dataset = coco_of_images(tmp_path / "truth.json", tmp_path, None)
    found = replace(
        detections(Query(), ("car", 0.9, (10, 10, 20, 10))), regions=(Region(Box(10, 10, 20, 20), "window"),)
    )
    scores = scores_of(tmp_path / "out", dataset, {dataset.samples[0].id: found})
    assert {name: estimate.value for name, estimate in scores.regions.items() if name != "overlap"} == {
        "coverage": 0.5, "purity": 0.5,
    }  # fmt: skip
    assert scores.frame_recall == [1.0, 0.0]
    assert scores.quality["AR"].value == 0.5
    assert not scores.unknown_labels


def test_a_metric_without_objects_is_said_to_have_none(lvis: Path, tmp_path: Path):
    dataset = official.lvis_dense(lvis, None, seed=0)
    scores = scores_of(tmp_path / "out", dataset, {})
    assert text_difference(difference(scores, scores, "AP large")) == (
        "AP large: full_frame-0 - full_frame-0 = n/a, the truth has no object to judge it by"
    )
    assert text_difference(difference(scores, scores, "AP small")) == (
        "AP small: full_frame-0 - full_frame-0 = +0.000 [+0.000, +0.000], not clear: the interval holds zero"
    )
    assert "nan" not in text_table([scores])


def test_average_precision_of_every_size_is_in_table_and_report(tmp_path: Path):
    boxes = {"small": [1, 1, 20, 20], "medium": [30, 1, 50, 50], "large": [100, 1, 120, 120]}
    rows = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for number, box in enumerate(boxes.values(), start=1)
    ]
    truth = {"images": [{"id": 1}], "annotations": rows, "categories": [{"id": 1, "name": "car"}]}
    dataset = Dataset("sizes", [Sample(1, "a", Query(), lambda: None)], truth, {"car": 1})
    found = [("car", 0.9, tuple(map(float, boxes[size]))) for size in ("small", "medium")]
    scores = scores_of(tmp_path, dataset, {1: detections(Query(), *found)})
    assert [scores.quality[f"AP {size}"].value for size in boxes] == [1.0, 1.0, 0.0]
    assert all(np.isfinite(scores.quality[f"AP {size}"].low) for size in boxes)
    header, line = text_table([scores]).splitlines()
    for size, value in zip(boxes, ("1.000", "1.000", "0.000"), strict=True):
        assert f"AP {size}" in header and value in line
        assert f"AP {size}" in table_metrics([scores])


def test_the_baselines_slice_by_their_own_number_and_the_oracle_comes_last():
    methods = choose_methods(["embedded"], [0, 3], baselines=True)
    assert [method.id for method in methods] == [
        "embedded-0", "embedded-3", "full_frame-0", "centre_crop-3", "grid-3", "random-3", "sahi", "adaptive_slices",
        "oracle-3",
    ]  # fmt: skip
    assert {method.budget.max_regions for method in methods if method.regions is None} == {64}
    assert choose_methods(["embedded"], [2], baselines=True, oracle=BOX_ORACLE)[-1].id == "box_oracle-2"
    assert [method.id for method in choose_methods(["sahi"], [1, 2], baselines=False)] == ["sahi"]


def test_one_detection_is_not_two_objects_in_the_gallery(tmp_path: Path):
    rows = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": [10 + number, 10, 20, 20], "area": 400, "iscrowd": 0}
        for number in (1, 2)
    ]
    truth = {"images": [{"id": 1}], "annotations": rows, "categories": [{"id": 1, "name": "car"}]}
    dataset = Dataset("pair", [Sample(1, "a", Query(), lambda: None)], truth, {"car": 1})
    scores = scores_of(tmp_path, dataset, {1: detections(Query(), ("car", 0.9, (11, 10, 20, 20)))})
    assert scores.frame_recall == [0.5]


def test_results_of_an_oracle_are_not_kept_for_another_truth(lvis: Path, tmp_path: Path):
    dataset = official.lvis_dense(lvis, None, seed=0)
    methods = choose_methods(["embedded"], [2], baselines=True)
    write_manifest(tmp_path / "out", dataset, methods, seed=0)
    write_manifest(tmp_path / "out", dataset, methods, seed=0)
    moved = [{**row, "bbox": [0.0, 0.0, 5.0, 5.0]} for row in dataset.truth["annotations"]]
    changed = replace(dataset, truth={**dataset.truth, "annotations": moved})
    write_manifest(tmp_path / "out", changed, methods[:1], seed=0)
    with pytest.raises(InvalidInput, match="it differs in oracle-2"):
        write_manifest(tmp_path / "out", changed, methods, seed=0)


def test_official_pictures_of_another_size_are_refused(lvis: Path):
    for path in lvis.glob("*2017/*.jpg"):
        write_image(path, 32, 24)
    with pytest.raises(InvalidInput, match=r"lvis_v1_val.json: image 1 .* is 64 x 48 pixels .* has 32 x 24"):
        official.lvis_small(lvis, None, seed=0)


def test_failed_frames_have_found_nothing(lvis: Path, tmp_path: Path):
    dataset = official.lvis_dense(lvis, None, seed=0)
    perfect = detections(dataset.samples[0].query, *[("crow", 0.9, (1.0 + i, 1.0, 20.0, 20.0)) for i in range(16)])
    scores = scores_of(tmp_path / "out", dataset, {1: replace(perfect, status=Status.FAILED)})
    assert scores.quality["AR"].value == 0.0
    assert scores.failed == 1


def test_detections_without_a_score_rank_last_and_are_counted(lvis: Path, tmp_path: Path):
    dataset = official.lvis_dense(lvis, None, seed=0)
    wrong = ("crow", 0.01, (40.0, 30.0, 10.0, 10.0))
    unscored = [("crow", NAN, (1.0 + i, 1.0, 20.0, 20.0)) for i in range(16)]
    scores = scores_of(tmp_path / "out", dataset, {1: detections(dataset.samples[0].query, *unscored, wrong)})
    assert scores.unscored == 16
    assert scores.quality["AR"].value == 1.0
    assert scores.quality["AP50"].value < 1.0  # the only one with a score comes first, and is wrong


def test_published_rows_stand_beside_ours_and_say_so(lvis: Path, tmp_path: Path):
    dataset = official.lvis_dense(lvis, None, seed=0)
    scores = scores_of(tmp_path / "out", dataset, {})
    rows = beside_published([scores], ROWS["lvis-dense"], (("APs", "AP small"), ("ARs", "AR small")))
    assert [row.origin for row in rows] == [PUBLISHED] * 3 + [MEASURED]
    assert rows[1].numbers == {"APs": "4.3", "ARs": "5.5"}
    assert rows[-1].numbers == {"APs": "0.0", "ARs": "0.0"}


def test_the_report_has_every_section_and_escapes_names(tmp_path: Path):
    pytest.importorskip("jinja2", reason="needs requirements/eval.txt")
    pytest.importorskip("matplotlib", reason="needs requirements/eval.txt")

    def cannot_load() -> None:
        raise InvalidInput("the file is gone")

    truth = {
        "images": [{"id": 1}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 10], "area": 200, "iscrowd": 0}
        ],
        "categories": [{"id": 1, "name": "<i>car</i>"}, {"id": 2, "name": "bus"}],
    }
    sample = Sample(1, "a & b.jpg", Query(), cannot_load)
    dataset = Dataset("roads", [sample], truth, {"<i>car</i>": 1, "bus": 2})
    found = detections(Query(), ("<i>car</i>", NAN, (10, 10, 20, 10)), ("unicorn", 0.5, (0, 0, 9, 9)))
    scores = scores_of(tmp_path, dataset, {1: replace(found, timings_ms={"total": 5.0})})
    rows = beside_published([scores], ROWS["lvis-dense"], (("APs", "AP small"), ("ARs", "AR small")))
    assert notes_on([scores]) == [
        "full_frame-0: labels that are no category of the truth do not count: unicorn (1)",
        "full_frame-0: 1 detections have no score; they rank after all that have one",
    ]
    page = report_html(RunSettings(tmp_path, "Is 1 < 2?", ["evaluate"]), dataset, [scores], [], rows)
    assert "<h1>Is 1 &lt; 2?</h1>" in page
    assert "<th>&lt;i&gt;car&lt;/i&gt;</th>" in page
    assert "<i>car" not in page
    for part in (
        "1 detections have no score",
        "labels that are no category of the truth do not count: unicorn (1).",
        "Beside what was published",
        "By category, AP / AR",
        "a &amp; b.jpg: the frame cannot be read.",
        "<td>activeo3 evaluate</td>",
    ):
        assert part in page, part
    assert page.count("<svg") == 3


@pytest.mark.parametrize(
    "load", [official.lvis_small, official.soda_a, official.soda_d, official.thinobjects, official.vstar]
)
def test_a_root_without_the_official_files_is_an_error_that_names_them(tmp_path: Path, load):
    with pytest.raises(InvalidInput, match="has no"):
        load(tmp_path, None, 0)
