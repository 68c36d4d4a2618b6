"""Training rows of data sets: entries taken, entries left out with their reasons, and reading them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from activeo3_ros.core import InvalidInput
from activeo3_ros.evaluation import subset_rules
from activeo3_ros.training.builders import RECIPES, build
from activeo3_ros.training.dataset import load_rows, readable_rows
from activeo3_ros.training.rows import Row, check_row, read_rows
from activeo3_tiny.scene_rows import SceneRows


def write_coco(
    folder: Path, annotations: list[dict[str, Any]], categories: list[dict[str, Any]] | None = None
) -> tuple[Path, Path]:
    """Two pictures, a.png and b.png of 200 x 100 px, of which only a.png exists."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(images / "a.png"), np.zeros((100, 200, 3), np.uint8))
    document = {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 200, "height": 100},
            {"id": 2, "file_name": "b.png", "width": 200, "height": 100},
        ],
        "categories": categories or [{"id": 1, "name": "traffic_light"}, {"id": 2, "name": ""}],
        "annotations": [
            {"id": index, "image_id": 1, "category_id": 1, **each} for index, each in enumerate(annotations)
        ],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(document))
    return path, images


def test_a_coco_file_becomes_rows_with_provenance(tmp_path: Path) -> None:
    annotations, images = write_coco(tmp_path, [{"bbox": [10, 10, 20, 20]}, {"bbox": [50, 50, 5, 5]}])
    assert build("coco", annotations, images, tmp_path / "out") == (1, 0)
    [row] = read_rows(tmp_path / "out")
    assert row.classes == ("traffic light",)
    assert row.boxes == ((10, 10, 20, 20), (50, 50, 5, 5))
    assert row.frame().width == 200
    facts = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert facts["kind"] == "coco" and len(facts["sha256"][0]) == 64 and facts["rows"] == 1


def test_lvis_small_keeps_instances_below_100_square_pixels(tmp_path: Path) -> None:
    annotations, images = write_coco(tmp_path, [{"bbox": [10, 10, 10, 10]}, {"bbox": [50, 50, 9, 11]}])
    build("lvis-small", annotations, images, tmp_path / "out")
    assert read_rows(tmp_path / "out")[0].boxes == ((50, 50, 9, 11),)


def test_lvis_small_goes_by_the_annotated_area_as_the_benchmark_does(tmp_path: Path) -> None:
    thin, plain, large = {"bbox": [10, 10, 20, 20], "area": 60}, {"bbox": [50, 50, 9, 9]}, {"bbox": [70, 10, 9, 12]}
    annotations, images = write_coco(tmp_path, [thin, plain, large])
    build("lvis-small", annotations, images, tmp_path / "out")
    assert read_rows(tmp_path / "out")[0].boxes == ((10, 10, 20, 20), (50, 50, 9, 9))


@pytest.mark.parametrize("kind", ["lvis-small", "lvis-dense"])
def test_a_class_that_is_not_annotated_exhaustively_is_no_question(tmp_path: Path, kind: str) -> None:
    annotations, images = write_coco(tmp_path, [{"bbox": [i, 10, 5, 5]} for i in range(20)])
    document = json.loads(annotations.read_text())
    document["images"][0]["not_exhaustive_category_ids"] = [1]
    annotations.write_text(json.dumps(document))
    with pytest.raises(InvalidInput, match="no usable row"):
        build(kind, annotations, images, tmp_path / "out")


def test_training_and_benchmark_share_their_rules() -> None:
    assert RECIPES["lvis-small"].select is subset_rules.small_instances
    assert RECIPES["lvis-dense"].select is subset_rules.dense_instances


def negatives(directory: Path) -> list[tuple[str, ...]]:
    """The classes of the questions without targets."""
    return [row.classes for row in read_rows(directory) if not row.boxes]


def test_questions_about_what_is_not_in_the_picture_are_added(tmp_path: Path) -> None:
    categories = [{"id": number, "name": name} for number, name in enumerate(["car", "dog", "ignore"], 1)]
    annotations, images = write_coco(tmp_path, [{"bbox": [10, 10, 5, 5]}], categories)
    assert build("coco", annotations, images, tmp_path / "out", negatives=5) == (2, 0)
    assert negatives(tmp_path / "out") == [("dog",)], "the only class that is asked for and not there"
    assert build("coco", annotations, images, tmp_path / "without") == (1, 0)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_an_entry_that_is_no_object_is_named(tmp_path: Path, key: str) -> None:
    annotations, images = write_coco(tmp_path, [{"bbox": [10, 10, 5, 5]}])
    document = json.loads(annotations.read_text())
    document[key].append(3)
    annotations.write_text(json.dumps(document))
    with pytest.raises(InvalidInput, match=f"entry {len(document[key])} of '{key}' is no object: 3"):
        build("coco", annotations, images, tmp_path / "out")


def test_a_crowd_is_in_the_picture(tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "car"}, {"id": 2, "name": "dog"}]
    boxes = [{"bbox": [10, 10, 5, 5]}, {"bbox": [30, 10, 50, 50], "category_id": 2, "iscrowd": 1}]
    annotations, images = write_coco(tmp_path, boxes, categories)
    with pytest.raises(InvalidInput, match="which class is not in it"):
        build("coco", annotations, images, tmp_path / "out", negatives=1)


def test_of_lvis_only_what_was_looked_for_in_vain_is_known_to_be_absent(tmp_path: Path) -> None:
    categories = [{"id": number, "name": name} for number, name in enumerate(["car", "dog", "cat"], 1)]
    annotations, images = write_coco(tmp_path, [{"bbox": [10, 10, 5, 5]}], categories)
    with pytest.raises(InvalidInput, match="neg_category_ids"):
        build("lvis-small", annotations, images, tmp_path / "out", negatives=1)
    document = json.loads(annotations.read_text())
    document["images"][0]["neg_category_ids"] = [3]
    annotations.write_text(json.dumps(document))
    build("lvis-small", annotations, images, tmp_path / "out", negatives=1)
    assert negatives(tmp_path / "out") == [("cat",)]


@pytest.mark.parametrize("name", ["ignore", "Others"])
def test_what_the_benchmark_of_soda_ignores_is_no_question(tmp_path: Path, name: str) -> None:
    categories = [{"id": 1, "name": "people"}, {"id": 2, "name": name}]
    boxes = [{"bbox": [10, 10, 5, 5]}, {"bbox": [30, 10, 5, 5], "category_id": 2}, {"bbox": [9, 9, 2, 2], "ignore": 1}]
    annotations, images = write_coco(tmp_path, boxes, categories)
    assert build("soda-d", annotations, images, tmp_path / "out") == (1, 0)
    [row] = read_rows(tmp_path / "out")
    assert (row.classes, row.boxes) == (("people",), ((10, 10, 5, 5),))


@pytest.mark.parametrize(("instances", "rows"), [(15, 0), (16, 1)])
def test_lvis_dense_keeps_pictures_with_more_than_15_instances(tmp_path: Path, instances: int, rows: int) -> None:
    annotations, images = write_coco(tmp_path, [{"bbox": [i, 10, 10, 10]} for i in range(instances)])
    if rows:
        assert build("lvis-dense", annotations, images, tmp_path / "out") == (1, 0)
    else:
        with pytest.raises(InvalidInput, match="no usable row"):
            build("lvis-dense", annotations, images, tmp_path / "out")


def test_soda_polygons_become_boxes(tmp_path: Path) -> None:
    annotations, images = write_coco(tmp_path, [{"poly": [10, 30, 20, 20, 40, 30, 30, 45]}])
    build("soda-a", annotations, images, tmp_path / "out")
    [row] = read_rows(tmp_path / "out")
    assert row.boxes == ((10, 20, 30, 25),)
    assert 0 < row.mask().sum() < 30 * 25, "the mask is the polygon, not its box"


def test_thin_objects_come_from_masks(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for name in ("good", "without"):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.zeros((100, 200, 3), np.uint8))
    mask = np.zeros((100, 200), np.uint8)
    mask[10:13, 20:180] = 255
    cv2.imwrite(str(tmp_path / "masks" / "good.png"), mask)
    assert build("thin-objects", tmp_path / "masks", tmp_path / "images", tmp_path / "out") == (1, 1)
    [row] = read_rows(tmp_path / "out")
    assert row.boxes == ((20, 10, 160, 3),)
    assert np.array_equal(row.mask(), mask > 0)


BAD = [
    ({"bbox": [300, 10, 20, 20]}, "outside of the picture"),
    ({"bbox": [10, 10, 0, 20]}, "positive size"),
    ({"bbox": [10, 10, float("nan"), 20]}, "positive size"),
    ({"category_id": 2, "bbox": [1, 1, 5, 5]}, "a class has no name"),
    ({"category_id": 9, "bbox": [1, 1, 5, 5]}, "unknown class"),
    ({"image_id": 2, "bbox": [1, 1, 5, 5]}, "not there"),
    ({"image_id": 7, "bbox": [1, 1, 5, 5]}, "not listed"),
    ({}, "neither a box nor a polygon"),
]


@pytest.mark.parametrize(("annotation", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_entries_left_out_are_listed_with_their_reasons(
    tmp_path: Path, annotation: dict[str, Any], reason: str
) -> None:
    categories = [{"id": 1, "name": "car"}, {"id": 2, "name": " "}, {"id": 3, "name": "van"}]
    annotations, images = write_coco(tmp_path, [{"category_id": 3, "bbox": [1, 1, 5, 5]}, annotation], categories)
    assert build("coco", annotations, images, tmp_path / "out") == (1, 1)
    [problem] = [json.loads(line) for line in (tmp_path / "out" / "problems.jsonl").read_text().splitlines()]
    assert reason in problem["reason"]


def test_a_box_that_leaves_the_picture_is_clipped() -> None:
    row = check_row(Row("a", 100, 50, ("car",), ((90.0, 40.0, 30.0, 30.0),), ("car",)))
    assert row.boxes == ((90, 40, 10, 10),)


def test_the_order_is_that_of_the_seed(tmp_path: Path) -> None:
    categories = [{"id": i, "name": f"class {i}"} for i in range(20)]
    annotations, images = write_coco(
        tmp_path, [{"category_id": i, "bbox": [1, 1, 5, 5]} for i in range(20)], categories
    )
    orders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build("coco", annotations, images, tmp_path / name, seed=seed)
        orders.append([row.classes for row in read_rows(tmp_path / name)])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_a_test_set_asks_for_a_class_at_most_so_often(tmp_path: Path) -> None:
    annotations, images = write_coco(tmp_path, [{"bbox": [1, 1, 5, 5]}])
    document = json.loads(annotations.read_text())
    for index in range(10, 16):
        cv2.imwrite(str(images / f"{index}.png"), np.zeros((100, 200, 3), np.uint8))
        document["images"].append({"id": index, "file_name": f"{index}.png", "width": 200, "height": 100})
        document["annotations"].append({"id": index, "image_id": index, "category_id": 1, "bbox": [1, 1, 5, 5]})
    annotations.write_text(json.dumps(document))
    assert build("coco", annotations, images, tmp_path / "out", per_class=3) == (3, 0)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"images": []}'])
def test_a_file_that_is_no_coco_file_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(InvalidInput) as error:
        build("coco", path, tmp_path, tmp_path / "out")
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"image": "a"}\n')
    with pytest.raises(InvalidInput, match=r"rows\.jsonl:1"):
        read_rows(tmp_path)
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(InvalidInput, match="holds no row"):
        read_rows(tmp_path)


def test_rows_of_another_package_plug_in_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows_of_mine.py").write_text(
        "from activeo3_ros.training.rows import Row\n"
        "def lamps(count):\n"
        "    return [Row(f'{i}.png', 100, 50, ('lamp',), ((1.0, 2.0, 3.0, 4.0),), ('lamp',)) for i in range(count)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rows = load_rows({"rows": "rows_of_mine:lamps", "count": 3})
    assert [row.image for row in rows] == ["0.png", "1.png", "2.png"]
    with pytest.raises(InvalidInput, match="none of 3 pictures can be read"):
        readable_rows(rows, tmp_path / "run")
    with pytest.raises(InvalidInput, match="at least one"):
        load_rows({"rows": "rows_of_mine:lamps", "count": 0})
    with pytest.raises(InvalidInput, match=r"rows_of_mine:lamps does not take these settings: .*'colour'"):
        load_rows({"rows": "rows_of_mine:lamps", "count": 3, "colour": "red"})


def test_drawn_scenes_are_not_read_before_the_training() -> None:
    rows = load_rows({"rows": "activeo3_tiny.scene_rows:SceneRows", "count": 200_000, "first_seed": 7})
    assert len(rows) == 200_000 and readable_rows(rows, Path("nowhere")) is rows


def test_drawn_scenes_ask_for_something_small() -> None:
    rows = SceneRows(6, first_seed=100)
    assert len(rows) == 6 and rows[0] == SceneRows(1, first_seed=100)[0]
    for row in rows:
        assert any(width * height < 32 * 32 for _, _, width, height in row.boxes)
        assert row.frame().width == row.width
        assert set(row.labels) == set(row.classes)
