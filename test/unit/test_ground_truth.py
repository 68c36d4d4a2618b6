"""Ground truth: whatever is harmless is normalised, whatever is not is refused by name, before any frame."""

from __future__ import annotations

import copy
import json
import uuid
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from activeo3_ros.codecs.rle import encode_rle
from activeo3_ros.core import InvalidInput, Query
from activeo3_ros.evaluation.datasets import coco_of_images, with_masks
from activeo3_ros.evaluation.ground_truth import label_ids, read_coco

SIZE = (64, 48)
SQUARE = [[10, 10, 20, 10, 20, 20, 10, 20]]


def truth(image_id=1, category_id=1, name="car") -> dict:
    return {
        "images": [{"id": image_id, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}],
        "categories": [{"id": category_id, "name": name}],
        "annotations": [{"id": 5, "image_id": image_id, "category_id": category_id, "bbox": [10, 10, 10, 10]}],
    }


def written(folder: Path, document: dict, size: tuple[int, int] = SIZE) -> Path:
    cv2.imwrite(str(folder / "a.png"), np.zeros((size[1], size[0], 3), np.uint8))
    path = folder / "truth.json"
    path.write_text(json.dumps(document))
    return path


def dataset_of(folder: Path, document: dict, size: tuple[int, int] = SIZE, query: Query | None = None):
    return coco_of_images(written(folder, document, size), folder, query)


@pytest.mark.parametrize("image_id", [0, 1, 7.0, "7", "007", "a.png", str(uuid.UUID(int=5)), 10**30, -1])
@pytest.mark.parametrize("category_id", [0, 3, "3", "vehicle", str(uuid.UUID(int=6))])
def test_objects_are_found_by_any_form_of_id(tmp_path: Path, image_id, category_id):
    dataset = dataset_of(tmp_path, truth(image_id, category_id))
    (sample,) = dataset.samples
    assert dataset.boxes(sample.id).tolist() == [[10, 10, 10, 10]]
    (row,) = dataset.objects(sample.id)
    assert row["category_id"] == dataset.category_of("car")
    assert type(sample.id) is int and type(row["category_id"]) is int
    assert dataset.truth["images"][0]["own_id"] == image_id


@given(st.lists(st.one_of(st.integers(0, 10**6), st.text(min_size=1).filter(str.strip)), min_size=1, max_size=6))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_image_keeps_its_own_annotations(tmp_path: Path, ids: list):
    ids = list({str(each).strip(): each for each in ids}.values())
    document = {
        "images": [{"id": each} for each in ids],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [
            {"image_id": each, "category_id": "1", "bbox": [place, 2, 3, 4]} for place, each in enumerate(ids)
        ],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(document))
    read = read_coco(path)
    number = {row["own_id"]: row["id"] for row in read["images"]}
    assert len(set(number.values())) == len(ids)
    assert [row["image_id"] for row in read["annotations"]] == [number[each] for each in ids]


def test_an_id_that_is_a_number_in_one_list_and_a_text_in_the_other_is_the_same(tmp_path: Path):
    document = truth("12")
    document["annotations"][0]["image_id"] = 12
    assert dataset_of(tmp_path, document).boxes(12).tolist() == [[10, 10, 10, 10]]


def test_numbers_as_names_are_names(tmp_path: Path):
    document = truth(name=42)
    document["images"][0]["file_name"] = 17
    path = written(tmp_path, document)
    (tmp_path / "a.png").rename(tmp_path / "17")
    dataset = coco_of_images(path, tmp_path, None)
    assert dataset.samples[0].name == "17"
    assert dataset.samples[0].query.classes == ("42",)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.update(images=[]), "its list 'images' is empty"),
        (lambda t: t.update(categories=[]), "its list 'categories' is empty"),
        (lambda t: t["images"].append(3), "image number 2 of the list must be an object, got 3"),
        (lambda t: t["images"][0].pop("id"), "image number 1 of the list has no id"),
        (lambda t: t["images"][0].update(id=None), "its id must be a whole number or a text, got None"),
        (lambda t: t["images"][0].update(id=True), "its id must be a whole number or a text, got True"),
        (lambda t: t["images"][0].update(id=[1]), r"got \[1\]"),
        (lambda t: t["images"][0].update(id=1.5), "got 1.5"),
        (lambda t: t["images"].append({"id": "1"}), "two entries have the same image id 1"),
        (lambda t: t["images"][0].update(file_name=["a"]), "image 1: its file_name must be"),
        (lambda t: t["images"][0].update(width=-4), "image 1: its width must be a number of pixels, got -4"),
        (lambda t: t["images"][0].update(width="wide"), "image 1: its width needs finite numbers, got 'wide'"),
        (lambda t: t["categories"][0].update(name=" "), "category 1 has no name"),
        (lambda t: t["categories"][0].pop("name"), "category 1 has no name"),
        (lambda t: t["categories"][0].update(name=["a"]), "category 1: its name must be"),
        (lambda t: t["annotations"].append("x"), "annotation number 2 of the list must be an object"),
        (lambda t: t["annotations"][0].pop("image_id"), "annotation 5 has no 'image_id'"),
        (lambda t: t["annotations"][0].update(image_id="b"), "annotation 5 is of the image 'b', which does not exist"),
        (lambda t: t["annotations"][0].update(bbox="1 2 3 4"), "annotation 5 has the box 1 2 3 4"),
        (lambda t: t["annotations"][0].update(bbox=[1, 2, 3]), "annotation 5 has the box"),
        (lambda t: t["annotations"][0].update(bbox=[1, 2, 3, None]), "annotation 5: its bbox needs finite numbers"),
        (lambda t: t["annotations"][0].update(area="big"), "annotation 5: its area needs finite numbers, got 'big'"),
        (lambda t: t["annotations"][0].update(area=-1), "annotation 5 has the area -1"),
        (lambda t: t["annotations"][0].update(iscrowd="no"), "annotation 5: its iscrowd needs finite numbers"),
        (lambda t: t["annotations"][0].update(iscrowd=2), "annotation 5: its iscrowd must be 0 or 1"),
        (lambda t: t["annotations"][0].update(bbox=[0.1, 0.2, 0.3, 0.4]), "shares of the picture"),
        (lambda t: t["annotations"][0].update(bbox=[90, 2, 3, 4]), "annotation 5 lies outside the picture, 64 x 48"),
        (lambda t: t["categories"].append({"id": 2, "name": " CAR "}), "1 'car' and 2 'CAR' have one name"),
        (lambda t: t["images"].append({"id": 2, "file_name": "a.png"}), "the images 1 and 2 are one file, a.png"),
    ],
)
def test_a_wrong_entry_is_refused_by_name(tmp_path: Path, change, says: str):
    document = truth()
    change(document)
    with pytest.raises(InvalidInput, match=says):
        dataset_of(tmp_path, document)


@pytest.mark.parametrize(("area", "expected"), [(None, 100.0), (0, 100.0), ("64.5", 64.5), (64.5, 64.5)])
def test_an_area_that_is_missing_or_zero_is_that_of_the_box(tmp_path: Path, area, expected: float):
    document = truth()
    document["annotations"][0]["area"] = area
    assert dataset_of(tmp_path, document).objects(1)[0]["area"] == expected


def test_labels_match_whatever_their_case_spaces_and_underscores(tmp_path: Path):
    dataset = dataset_of(tmp_path, truth(name="  Traffic_Light "))
    assert dataset.category_of("traffic light") == dataset.category_of("TRAFFIC  LIGHT ") == 1
    assert dataset.category_of("light") is None


def test_a_label_counts_as_one_category():
    document = {"categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}]}
    assert label_ids(document, [("Lorry ", "CAR")]) == {"car": 1, "bus": 2, "lorry": 1}
    with pytest.raises(InvalidInput, match="'lorry' is to count as two categories"):
        label_ids(document, [("lorry", "car"), ("lorry", "bus")])
    with pytest.raises(InvalidInput, match="there is no category 'van' to count 'lorry' as; there are car, bus"):
        label_ids(document, [("lorry", "van")])


def test_categories_that_are_not_asked_for_are_told(tmp_path: Path):
    document = truth()
    document["categories"] += [{"id": 2, "name": "bus"}, {"id": 3, "name": "tram"}]
    document["annotations"].append({"image_id": 1, "category_id": 2, "bbox": [1, 1, 5, 5]})
    dataset = dataset_of(tmp_path, document, query=Query(classes=("car",)))
    assert dataset.notes == ("not asked for, so every object of it counts as missed: bus",)
    assert not dataset_of(tmp_path, document, query=Query("the red car")).notes


def test_a_truth_without_objects_is_told(tmp_path: Path):
    assert dataset_of(tmp_path, {**truth(), "annotations": []}).notes == (
        "no object is annotated, so nothing but false detections can be found",
    )


@pytest.mark.parametrize("size", [(32, 24), (128, 96), (64, 49)])
def test_a_resized_copy_is_refused_before_any_frame(tmp_path: Path, size: tuple[int, int]):
    with pytest.raises(InvalidInput, match=rf"\(a.png\) is 64 x 48 pixels .* the picture has {size[0]} x {size[1]}"):
        dataset_of(tmp_path, truth(), size)


@pytest.mark.parametrize("unknown", [None, 0, "absent"])
def test_a_truth_without_a_size_takes_that_of_the_picture(tmp_path: Path, unknown):
    document = truth()
    for side in ("width", "height"):
        document["images"][0][side] = unknown
    if unknown == "absent":
        document["images"][0] = {"id": 1, "file_name": "a.png"}
    dataset = dataset_of(tmp_path, document, (100, 90))
    assert (dataset.truth["images"][0]["width"], dataset.truth["images"][0]["height"]) == (100, 90)


def turned(folder: Path, box: list[float]) -> Path:
    """A picture stored 64 x 48 that viewers show 48 x 64, whose truth states the stored size."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SIZE).save(folder / "a.jpg", exif=exif)
    document = truth()
    document["images"][0]["file_name"] = "a.jpg"
    document["annotations"][0]["bbox"] = box
    (folder / "truth.json").write_text(json.dumps(document))
    return folder / "truth.json"


def test_swapped_sizes_with_upright_boxes_are_right(tmp_path: Path):
    dataset = coco_of_images(turned(tmp_path, [10, 50, 10, 10]), tmp_path, None)
    assert dataset.samples[0].load().image.shape[:2] == (64, 48)
    assert dataset.boxes(1).tolist() == [[10, 50, 10, 10]]


def test_boxes_of_the_picture_before_its_orientation_are_refused(tmp_path: Path):
    with pytest.raises(InvalidInput, match="boxes must be of the upright picture, 48 x 64"):
        coco_of_images(turned(tmp_path, [50, 10, 10, 10]), tmp_path, None)


def test_boxes_that_reach_beyond_the_picture_are_told(tmp_path: Path):
    document = truth()
    document["annotations"][0]["bbox"] = [10, 10, 60, 30]
    (note,) = dataset_of(tmp_path, document).notes
    assert note.startswith("1 of 1 boxes reach beyond their picture, such as [10.0, 10.0, 60.0, 30.0] of annotation 5")


def with_segmentation(folder: Path, segmentation) -> dict:
    document = truth()
    document["annotations"][0]["segmentation"] = copy.deepcopy(segmentation)
    dataset = with_masks(dataset_of(folder, document), folder / "truth.json")
    assert dataset.samples[0].query.masks
    return dataset.objects(1)[0]


def test_sound_masks_pass_and_a_flat_polygon_becomes_a_list(tmp_path: Path):
    mask = np.zeros((48, 64), bool)
    mask[10:20, 10:20] = True
    compressed = {"size": [48, 64], "counts": encode_rle(mask).decode()}
    assert with_segmentation(tmp_path, SQUARE)["segmentation"] == SQUARE
    assert with_segmentation(tmp_path, SQUARE[0])["segmentation"] == SQUARE
    assert with_segmentation(tmp_path, compressed)["segmentation"] == compressed
    runs = {"size": [48, 64], "counts": [48 * 64 - 10, 10]}
    assert with_segmentation(tmp_path, runs)["segmentation"] == runs


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ([[10, 10, 10, 10]], "four numbers under 'segmentation', .* are a box and no polygon"),
        ([10, 10, 10, 10], "four numbers under 'segmentation'"),
        ([[10, 10, 20, 10, 20]], "needs at least 6 numbers"),
        ([[10, 10, 20, 10, 20, 20, 1]], "x and y in turn"),
        ([[10, 10, 20, 10, None, 20]], "needs finite numbers, got None"),
        ([[[10, 10], [20, 10], [20, 20]]], "needs finite numbers"),
        ([SQUARE[0], 5], "needs at least 6 numbers"),
        ([[0.1, 0.1, 0.2, 0.1, 0.2, 0.2]], "polygon lies outside its own box"),
        ("a mask", "must be polygons or run lengths, got 'a mask'"),
        ({"counts": [1]}, "the size of its run lengths must be height, width"),
        ({"size": [64, 48], "counts": [64 * 48]}, "are of 64 x 48 pixels .* the image has 48 x 64"),
        ({"size": [48, 64], "counts": [5, 5]}, "cover 10 of 3072 pixels"),
        ({"size": [48, 64], "counts": [-1, 3073]}, "must be whole numbers"),
        ({"size": [48, 64], "counts": "12"}, "its run lengths are damaged"),
        ({"size": [48, 64], "counts": "\u20ac"}, "its run lengths are damaged"),
        ({"size": [48, 64]}, "must be whole numbers or COCO's text, got None"),
    ],
)
def test_a_malformed_mask_is_refused_by_name_where_masks_are_scored(tmp_path: Path, segmentation, says: str):
    with pytest.raises(InvalidInput, match=f"annotation 5.*{says}"):
        with_segmentation(tmp_path, segmentation)


def test_without_any_true_mask_there_is_nothing_to_score(tmp_path: Path):
    with pytest.raises(InvalidInput, match="no annotation has a 'segmentation'"):
        with_segmentation(tmp_path, [])


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=3)),
        max_leaves=8,
    ),
    st.sampled_from(["images", "annotations", "categories"]),
    st.sampled_from(
        ["id", "image_id", "category_id", "bbox", "area", "iscrowd", "name", "file_name", "width", "height"]
    ),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_is_read_or_refused(tmp_path: Path, value, which: str, key: str):
    document = truth()
    document[which][0][key] = value
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(document))
    try:
        read = read_coco(path)
    except InvalidInput as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
    else:
        assert all(type(row["id"]) is int for row in read["images"] + read["categories"])
