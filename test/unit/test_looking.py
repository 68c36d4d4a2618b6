"""Does it look? Counterfactual pictures, their scores, and a model that looks beside one that does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("faster_coco_eval", reason="needs requirements/eval.txt")

from activeo3_ros.cli.main import main
from activeo3_ros.core import Box, Detection, Frame, Grounding, InvalidInput, Query, Region, Result
from activeo3_ros.evaluation import official_datasets as official
from activeo3_ros.evaluation.counterfactual import (
    AS_IT_IS,
    BEST_CROP,
    BLURRED,
    ELSEWHERE,
    RECOLOURED,
    SWAPPED,
    VARIANTS,
    blurred,
    counterfactual,
    recoloured,
)
from activeo3_ros.evaluation.datasets import Dataset, coco_of_images
from activeo3_ros.evaluation.gate import gate_line, gates
from activeo3_ros.evaluation.item_files import item_path, result_to_item, write_item, write_manifest
from activeo3_ros.evaluation.looking import FOLLOWS, TAKES_SWAPPED, ZOOMING_GAP, looking_verdict, score_looking
from activeo3_ros.evaluation.methods import choose_methods

COLOURS = {"red": (40, 40, 220), "green": (40, 200, 40), "blue": (220, 60, 40), "yellow": (40, 220, 220)}
SIZE = (280, 180)
BOX = (60, 80, 40, 30)
"""Where the car of each picture is: x, y, width, height."""


@pytest.fixture
def vstar(tmp_path: Path) -> Path:
    """Composed pictures: a road of noise, a car of one colour, and the question which colour it has."""
    folder = tmp_path / "vstar" / "direct_attributes"
    folder.mkdir(parents=True)
    (tmp_path / "vstar" / "relative_position").mkdir()
    for number in range(20):
        names = list(COLOURS)
        right = names[number % 4]
        image = np.random.default_rng(number).integers(90, 130, (SIZE[1], SIZE[0], 3), np.uint8)
        x, y, wide, high = BOX
        image[y : y + high, x : x + wide] = COLOURS[right]
        cv2.imwrite(str(folder / f"sa_{number}.png"), image)
        (folder / f"sa_{number}.png").rename(folder / f"sa_{number}.jpg")
        options = [f"The car is {name}." for name in (right, *(name for name in names if name != right))]
        row = {"target_object": ["car"], "bbox": [list(BOX)], "question": "What colour is the car?", "options": options}
        (folder / f"sa_{number}.json").write_text(json.dumps(row))
    return tmp_path / "vstar"


def sees(image: np.ndarray) -> str | None:
    """The name of the most saturated colour that a picture shows, as a model that looks would tell it."""
    saturation = image.max(axis=2).astype(int) - image.min(axis=2)
    vivid = image[saturation > 90]
    if len(vivid) < 20:
        return None
    mean = vivid.mean(axis=0)
    return min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))


class FakeThatLooks:
    """Stands in for a model: tells the colour that the picture shows."""

    def answer(self, frame: Frame, query: Query) -> str | None:
        return sees(frame.image)


class FakeThatIgnoresPictures:
    """Stands in for a model that answers from what is usual: cars are red."""

    def answer(self, frame: Frame, query: Query) -> str | None:
        return "red"


class FakeThatAnswersByChance:
    """Stands in for a model whose answer changes with the picture, whatever of it has changed."""

    def answer(self, frame: Frame, query: Query) -> str | None:
        return [*COLOURS][int(frame.image.astype(np.int64).sum()) % 4]


def scores_of(dataset: Dataset, model, out: Path):
    (method,) = choose_methods(["full_frame"], None, baselines=False)
    for sample in dataset.samples:
        frame = sample.load()
        result = Result(frame.width, frame.height, sample.query, answer=model.answer(frame, sample.query))
        write_item(item_path(out, method, sample), result_to_item(sample, result))
    return score_looking(out, dataset, [method], replicates=200, seed=0)[0]


def test_the_pictures_change_where_they_should_and_nowhere_else(vstar: Path):
    dataset = counterfactual(official.vstar(vstar, 4, seed=0), seed=0)
    assert len(dataset.samples) == 4 * len(VARIANTS)
    pictures = {
        p.variant: s.load().image for p, s in zip(dataset.probes, dataset.samples, strict=True) if p.origin == 1
    }
    place = Box(*map(float, BOX)).slices()
    before = pictures[AS_IT_IS]
    for variant in (BLURRED, RECOLOURED, SWAPPED):
        changed = np.abs(pictures[variant].astype(int) - before).max(axis=2) > 0
        assert changed[place].mean() > 0.9, variant
        changed[place] = False
        assert not changed.any(), variant
    elsewhere = np.abs(pictures[ELSEWHERE].astype(int) - before).max(axis=2) > 0
    assert elsewhere.any() and not elsewhere[place].any()
    rows, columns = np.nonzero(elsewhere)
    assert np.ptp(rows) <= BOX[3] + 1 and np.ptp(columns) <= BOX[2] + 1
    assert pictures[BEST_CROP].shape == (70, 80, 3)
    assert sees(pictures[BLURRED]) is None and sees(pictures[SWAPPED]) != sees(before)


def test_the_same_seed_makes_the_same_pictures(vstar: Path):
    first, second = (counterfactual(official.vstar(vstar, None, seed=0), seed=3) for _ in range(2))
    assert first.probes == second.probes
    for a, b in zip(first.samples, second.samples, strict=True):
        assert a.name == b.name and np.array_equal(a.load().image, b.load().image)


def test_a_model_that_looks_and_ones_that_do_not_are_told_apart(vstar: Path, tmp_path: Path):
    dataset = counterfactual(official.vstar(vstar, None, seed=0), seed=0)
    looks = scores_of(dataset, FakeThatLooks(), tmp_path / "a")
    assert looks.quality[FOLLOWS].value == 1.0 and looks.quality[f"right, {AS_IT_IS}"].value == 1.0
    assert looks.quality[TAKES_SWAPPED].value == 1.0, "its answer is that of the picture that was swapped in"
    assert looks.quality[f"right, {BLURRED}"].value == 0.0 and looks.quality[f"changes, {ELSEWHERE}"].value == 0.0
    assert looking_verdict(looks, dataset).startswith("full_frame-0 looks: 1.00 [1.00, 1.00]")
    ignores = scores_of(dataset, FakeThatIgnoresPictures(), tmp_path / "b")
    assert ignores.quality[FOLLOWS].value == 0.0 and ignores.quality[f"right, {AS_IT_IS}"].value == pytest.approx(0.25)
    assert ignores.quality[f"right, {BLURRED}"].value == pytest.approx(0.25), "nothing is lost where nothing is shown"
    assert looking_verdict(ignores, dataset) == (
        "full_frame-0 does not look, or not there: only 0.00 [0.00, 0.00] of the 5 of 20 that are right "
        "follow the picture"
    )
    chance = scores_of(dataset, FakeThatAnswersByChance(), tmp_path / "c")
    assert chance.quality[FOLLOWS].value < 0.5 or np.isnan(chance.quality[FOLLOWS].value)
    low = looks.quality[FOLLOWS].low
    assert low > ignores.quality[FOLLOWS].high


def test_letters_mean_the_same_in_all_pictures_of_a_question(vstar: Path, tmp_path: Path):
    dataset = counterfactual(official.vstar(vstar, None, seed=0, with_choices=True), seed=0)

    class FakeWithLetters:
        """Stands in for a model that looks, and answers by letter."""

        def answer(self, frame, query):
            name = sees(frame.image)
            return next((line[:3] for line in query.text.splitlines() if name and f" {name}." in line), None)

    assert scores_of(dataset, FakeWithLetters(), tmp_path / "a").quality[FOLLOWS].value == 1.0


def test_the_zooming_gap_is_what_the_best_crop_adds(vstar: Path, tmp_path: Path):
    class FakeWithWeakEyes(FakeThatLooks):
        """Stands in for a model that sees only what fills its picture."""

        def answer(self, frame, query):
            return sees(frame.image) if frame.width < 200 else "red"

    dataset = counterfactual(official.vstar(vstar, None, seed=0), seed=0)
    quality = scores_of(dataset, FakeWithWeakEyes(), tmp_path / "a").quality
    assert quality[ZOOMING_GAP].value == pytest.approx(1 - 0.25) and quality[ZOOMING_GAP].low > 0.4
    assert quality[FOLLOWS].value == 0.0, "the whole picture it does not see"


def test_a_failed_frame_is_not_right_and_counts_for_no_change(vstar: Path, tmp_path: Path):
    dataset = counterfactual(official.vstar(vstar, 4, seed=0), seed=0)
    (method,) = choose_methods(["full_frame"], None, baselines=False)
    for sample, probe in zip(dataset.samples, dataset.probes, strict=True):
        frame = sample.load()
        result = Result(frame.width, frame.height, sample.query, answer=sees(frame.image))
        if probe.variant != AS_IT_IS:
            result = Result.failed(frame, sample.query, "no model")
        write_item(item_path(tmp_path, method, sample), result_to_item(sample, result))
    (scores,) = score_looking(tmp_path, dataset, [method], replicates=50, seed=0)
    assert scores.quality[f"right, {AS_IT_IS}"].value == 1.0 and scores.quality[f"right, {BLURRED}"].value == 0.0
    assert np.isnan(scores.quality[FOLLOWS].value) and np.isnan(scores.quality[f"changes, {BLURRED}"].value)
    assert scores.failed == 20 and scores.failure == "no model"
    assert "too few to show whether it looks" in looking_verdict(scores, dataset)


def test_what_a_gate_saves_and_loses_is_told_with_intervals_in_the_report_and_as_json(vstar: Path, tmp_path: Path):
    """By hand: of 20 questions the view is sure of 10, of which it answers 2 wrong that the regions answer right."""
    dataset = official.vstar(vstar, None, seed=0)
    out = tmp_path / "out"
    command = ["benchmark", "vstar", "--root", str(vstar), "--regions", "0,2", "--bootstrap", "100", "--out", str(out)]
    view, zoomed = choose_methods(["embedded"], [0, 2], baselines=False)
    region = Region(Box(0, 0, 9, 9), "a car", 1.0)
    for index, sample in enumerate(dataset.samples):
        sure, wrong = index < 10, index in (3, 7)
        answer = sample.choices[1 if wrong else 0]
        place = Grounding(sample.query.text, 0.92 if sure else 0.3, Box(0, 0, 9, 9), text=answer)
        result = Result(*SIZE, sample.query, answer=answer, groundings=(place,) if index != 12 else ())
        write_item(item_path(out, view, sample), result_to_item(sample, result))
        result = Result(*SIZE, sample.query, answer=sample.choices[0], regions=(region, region))
        write_item(item_path(out, zoomed, sample), result_to_item(sample, result))
    (at_half, *_, high, highest) = found = gates(out, dataset, [view, zoomed], replicates=200, seed=0)
    assert [gate.threshold for gate in found] == [0.5, 0.7, 0.8, 0.9, 0.95]
    assert (at_half.saved.value, at_half.scored) == (0.5, 0.95)
    assert at_half.lost.value == pytest.approx(0.1) and at_half.accuracy.value == pytest.approx(0.9)
    assert at_half.saved.low < 0.5 < at_half.saved.high and at_half.lost.low <= 0.1 <= at_half.lost.high
    assert high.saved.value == 0.5 and highest.saved.value == 0.0 and highest.lost.value == 0.0
    write_manifest(out, dataset, [view, zoomed], 0)
    assert main(command) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["gates"][0] == {
        **at_half.to_json(),
        **{k: metrics["gates"][0][k] for k in ("saved", "lost", "accuracy")},
    }
    assert metrics["gates"][0]["saved"][0] == 0.5 and "looking" not in metrics
    page = (out / "report.html").read_text()
    assert "What a gate would save" in page and "Does it look?" not in page


def test_without_scores_a_gate_saves_nothing_and_that_is_said(vstar: Path, tmp_path: Path):
    dataset = official.vstar(vstar, None, seed=0)
    methods = choose_methods(["embedded"], [0, 2], baselines=False)
    for sample in dataset.samples:
        for method in methods:
            result = Result(*SIZE, sample.query, answer="red", regions=(Region(Box(0, 0, 9, 9)),))
            write_item(item_path(tmp_path, method, sample), result_to_item(sample, result))
    (gate, *_) = gates(tmp_path, dataset, methods, replicates=50, seed=0)
    assert gate.saved.value == 0.0 and "no answer from the view has a score" in gate_line(gate)


@pytest.fixture
def objects(tmp_path: Path) -> Dataset:
    """Composed pictures with truth of detection: one coloured car each, all of one category."""
    images, annotations = [], []
    for number in range(1, 9):
        image = np.random.default_rng(number).integers(90, 130, (SIZE[1], SIZE[0], 3), np.uint8)
        x, y, wide, high = 30 * number, 40, 40, 30
        image[y : y + high, x : x + wide] = COLOURS["red"]
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
        images.append({"id": number, "file_name": f"{number}.png", "width": SIZE[0], "height": SIZE[1]})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": [x, y, wide, high]})
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "car"}]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    return coco_of_images(tmp_path / "truth.json", tmp_path, None)


def detected(image: np.ndarray, query: Query) -> Result:
    """What a detector that looks finds: the box around what is vivid."""
    rows, columns = np.nonzero(image.max(axis=2).astype(int) - image.min(axis=2) > 90)
    result = Result(image.shape[1], image.shape[0], query)
    if len(rows) < 20:
        return result
    box = Box(*map(float, (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)))
    return replace(result, detections=(Detection("car", 0.9, box),))


@pytest.mark.parametrize(("looks", "follows"), [(True, 1.0), (False, 0.0)])
def test_detectors_are_told_apart_too(objects: Dataset, tmp_path: Path, looks: bool, follows: float):
    """One category alone: a part of another picture without objects is swapped in."""
    dataset = counterfactual(objects, seed=0)
    (method,) = choose_methods(["full_frame"], None, baselines=False)
    before = {}
    for sample, probe in zip(dataset.samples, dataset.probes, strict=True):
        image = sample.load().image
        result = detected(image, sample.query)
        if probe.variant == AS_IT_IS:
            before[probe.origin] = result
        if not looks and probe.variant != BEST_CROP:  # FakeThatIgnoresPictures: cars are where they were
            result = before[probe.origin]
        write_item(item_path(tmp_path / "o", method, sample), result_to_item(sample, result))
    (scores,) = score_looking(tmp_path / "o", dataset, [method], replicates=100, seed=0)
    assert scores.quality[f"right, {AS_IT_IS}"].value == 1.0 and scores.quality[FOLLOWS].value == follows
    assert scores.quality[ZOOMING_GAP].value == 0.0 and np.isnan(scores.quality[TAKES_SWAPPED].value)


def test_what_cannot_be_judged_is_said_in_one_line(objects: Dataset):
    with pytest.raises(InvalidInput, match="has no true box: nothing could be blurred"):
        counterfactual(replace(objects, truth={**objects.truth, "annotations": []}), seed=0)
    with pytest.raises(InvalidInput, match="is judged by clicks"):
        counterfactual(replace(objects, interactive=True), seed=0)


def test_a_sample_without_a_box_is_left_out_and_told(objects: Dataset):
    truth = {**objects.truth, "annotations": objects.truth["annotations"][1:]}
    dataset = counterfactual(replace(objects, truth=truth), seed=0)
    assert len(dataset.samples) == 7 * 6 and "1 samples without a true box" in dataset.notes[-1]


@pytest.mark.parametrize("box", [(0, 0, 400, 300), (0, 0, 1, 1), (390.5, 290.5, 20, 20), (0, 0, 400, 1)])
def test_boxes_at_the_border_and_of_any_size_can_be_changed(box):
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    for change in (blurred, recoloured):
        changed = change(image, [Box(*map(float, box))])
        assert changed.shape == image.shape and changed.dtype == np.uint8


def test_boxes_that_overlap_are_recoloured_once():
    image = np.full((10, 10, 3), 10, np.uint8)
    changed = recoloured(image, [Box(0, 0, 6, 6), Box(3, 3, 6, 6)])
    assert (changed[4, 4] == 245).all() and (changed[9, 9] == 10).all()
