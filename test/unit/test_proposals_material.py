"""Pictures to learn from where to look: every kind of source, what is held out, and what is left out."""

import json

import cv2
import numpy as np
import pytest
from bag_fixtures import START_NS, TOPIC, picture, raw_messages, write_mcap
from hypothesis import given
from hypothesis import strategies as st
from video_fixtures import number_in, steady_times, write_video

from activeo3_ros.core import InvalidInput
from activeo3_ros.training.proposals_material import (
    bag_sources,
    evenly,
    folder_source,
    labelled_source,
    video_source,
)
from activeo3_ros.training.proposals_split import divided, split
from activeo3_ros.training.proposals_teacher import LookedPicture, look_scales
from activeo3_ros.training.threads import each_ahead


def read(source, most=100):
    complaints = []
    return list(source.pictures(complaints.append, most)), complaints


def test_frames_of_a_bag_are_chosen_evenly_in_their_order(tmp_path):
    [source] = bag_sources(write_mcap(tmp_path / "drive.mcap", raw_messages(11)), [])
    pictures, complaints = read(source, 6)
    assert complaints == []
    assert (source.available, len(pictures)) == (11, 6)
    assert all(np.array_equal(each[1], picture(number)) for each, number in zip(pictures, range(0, 11, 2), strict=True))
    assert all(labels is None for _, _, labels in pictures)


def test_a_camera_may_change_its_size_and_a_frame_that_cannot_be_read_is_told_and_left_out(tmp_path):
    messages = [*raw_messages(4), (START_NS + 10**10, b"\0\1\0\0damaged"), *raw_messages(3, width=32, height=24)]
    [source] = bag_sources(write_mcap(tmp_path / "drive.mcap", messages), [TOPIC])
    pictures, complaints = read(source)
    assert {each[1].shape for each in pictures} == {(48, 64, 3), (24, 32, 3)}
    assert len(pictures) == 7
    assert len(complaints) == 1
    assert f"of {TOPIC}" in complaints[0]


def test_a_bag_of_one_frame_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="1 picture is too few to learn from some and judge by others"):
        bag_sources(write_mcap(tmp_path / "one.mcap", raw_messages(1)), [])


def test_frames_of_a_video_are_spread_over_all_of_it(tmp_path):
    source = video_source(write_video(tmp_path / "drive.mp4", steady_times(20)))
    pictures, _ = read(source, 7)
    assert [number_in(each[1]) for each in pictures] == [0, 3, 6, 9, 12, 15, 18]


def test_pictures_of_a_folder_come_in_the_order_of_their_numbers(tmp_path):
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"frame_{number}.png"), np.full((8, 8, 3), number, np.uint8))
    (tmp_path / "frame_5.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    pictures, complaints = read(folder_source([str(tmp_path)]))
    assert [int(each[1][0, 0, 0]) for each in pictures] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert "frame_5.png" in complaints[0]


def annotated(tmp_path, categories, count=5):
    for number in range(count):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((48, 64, 3), np.uint8))
    truth = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 48} for n in range(count)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(categories, 1)],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 10, 20]},
            {"id": 2, "image_id": 0, "category_id": 2, "bbox": [30, 2, 10, 20]},
            {"id": 3, "image_id": 0, "category_id": 1, "bbox": [1, 2, 60, 40], "iscrowd": 1},
        ],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    return path


def test_labels_are_those_of_the_classes_that_the_detector_has(tmp_path):
    source = labelled_source(annotated(tmp_path, ["Traffic_Light", "dragon"]), tmp_path, ["car", "traffic light"])
    assert source.classes == ("traffic light",)
    pictures, _ = read(source)
    boxes, class_ids = pictures[0][2]
    assert boxes.tolist() == [[1, 2, 10, 20]]
    assert class_ids.tolist() == [1]
    assert len(pictures[1][2][0]) == 0


def test_labels_of_which_the_detector_knows_none_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="labels dragon, elf, none of which the detector finds"):
        labelled_source(annotated(tmp_path, ["dragon", "elf"]), tmp_path, ["car"])


@given(st.integers(5, 2000))
def test_nothing_is_both_learned_from_and_held_out(count):
    learned, judged = split(list(range(count)))
    assert learned and judged
    assert learned == list(range(len(learned)))
    assert judged == list(range(count - len(judged), count))
    assert judged[0] - learned[-1] > round(0.05 * count)


@given(st.integers(0, 500), st.integers(1, 100))
def test_things_are_chosen_evenly(count, most):
    chosen = evenly(range(count), most)
    assert len(chosen) == min(count, most)
    assert chosen == sorted(set(chosen))


@given(st.integers(1, 8000), st.integers(1, 8000))
def test_magnifications_rise_from_a_tile_of_a_mosaic_to_what_the_policy_may_use(width, height):
    scales = look_scales(width, height, (512, 512))
    assert scales == sorted(scales)
    assert scales[0] * max(width, height) == pytest.approx(64)
    assert scales[-1] <= max(3.0, 512 / max(width, height)) + 1e-6


def test_a_part_of_each_kind_of_source_is_used_and_the_rest_is_left(tmp_path):
    part = (0.25, 0.75)
    [bag] = bag_sources(write_mcap(tmp_path / "drive.mcap", raw_messages(12)), [], part)
    assert [np.array_equal(each[1], picture(n)) for n, each in enumerate(read(bag)[0], 3)] == [True] * 6
    video = video_source(write_video(tmp_path / "drive.mp4", steady_times(20)), part)
    assert [number_in(each[1]) for each in read(video, 4)[0]] == [5, 8, 11, 14]
    for number in range(20):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    pictures, _ = read(folder_source([str(tmp_path)], part))
    assert [int(each[1][0, 0, 0]) for each in pictures] == list(range(5, 15))


def yolo(tmp_path, lines, names="{0: dragon, 7: Traffic_Light}", count=5):
    images, labels = tmp_path / "images" / "train", tmp_path / "labels" / "train"
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for number in range(count):
        cv2.imwrite(str(images / f"{number}.png"), np.zeros((100, 200, 3), np.uint8))
    (labels / "1.txt").write_text(lines)
    path = tmp_path / "data.yaml"
    path.write_text(f"names: {names}\n")
    return path, images


def test_labels_may_be_those_of_a_yolo_data_set(tmp_path):
    outline = "7 0.5 0.5 0.6 0.5 0.55 0.7\n"
    source = labelled_source(*yolo(tmp_path, f"7 0.5 0.5 0.1 0.2\n0 0.5 0.5 1 1\n{outline}"), ["car", "traffic light"])
    assert source.classes == ("traffic light",)
    pictures, complaints = read(source)
    assert (len(pictures), complaints) == (5, [])
    boxes, class_ids = pictures[1][2]
    assert boxes == pytest.approx(np.array([[90, 40, 20, 20], [100, 50, 20, 20]]))
    assert class_ids.tolist() == [1, 1]
    assert len(pictures[0][2][0]) == 0  # no file is no object


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("7 0.5 0.5 0.1", "has 3 numbers after the class"),
        ("7 0.5 0.5 0.1 wide", "is no line of numbers"),
        ("3 0.5 0.5 0.1 0.1", "class 3 is none of the .yaml"),
        ("7 0.5 nan 0.1 0.1", "a number is not finite"),
        ("7 100 40 20 20", "reaches outside of the picture"),
    ],
)
def test_a_picture_with_a_line_that_is_no_label_is_told_and_left_out(tmp_path, line, reason):
    pictures, [complaint] = read(labelled_source(*yolo(tmp_path, f"7 0.5 0.5 0.1 0.2\n{line}\n"), ["traffic light"]))
    assert len(pictures) == 4
    assert "1.txt:2" in complaint and reason in complaint


def test_a_yolo_data_set_of_another_form_is_refused(tmp_path):
    path, images = yolo(tmp_path, "", names="[elf]")
    with pytest.raises(InvalidInput, match="labels elf, none of which the detector finds"):
        labelled_source(path, images, ["car"])
    with pytest.raises(InvalidInput, match="'labels' in the place of 'images'"):
        labelled_source(path, tmp_path / "labels" / "train", ["elf"])
    path.write_text("classes: [elf]\n")
    with pytest.raises(InvalidInput, match="has no 'names' of classes by number"):
        labelled_source(path, images, ["elf"])


def looked(number, is_frame=False):
    """Pictures of one number are of one scene, in another light."""
    scene = np.random.default_rng(number).integers(0, 200, (16, 16, 3), np.uint8)
    lit = np.clip(cv2.resize(scene, (64, 64)).astype(int) + number % 7, 0, 255).astype(np.uint8)
    nothing = np.empty((0, 4)), np.empty(0, np.intp), np.empty(0), np.empty((0, 1))
    return LookedPicture(lit, (64, 64), np.ones(1), *nothing, is_frame=is_frame)


def test_a_photograph_that_looks_like_one_that_is_held_out_is_not_learned_from():
    photographs = [looked(number) for number in [*range(9), 19, *range(10, 20)]]
    training, held_out, left_out = divided([photographs])
    assert len(held_out) == 4
    assert left_out == 1
    assert len(training) == 14


def test_scenes_that_look_the_same_share_their_part_of_the_training():
    training, _, _ = divided([[looked(number) for number in [1, 1, 1, 1, 2, 3, *range(10, 24)]]])
    assert [each.share for each in training[:6]] == [0.25] * 4 + [1, 1]


def test_frames_of_a_camera_that_stands_still_are_divided_by_time():
    training, held_out, left_out = divided([[looked(1, is_frame=True)] * 20, [looked(number) for number in range(20)]])
    assert (len(training), len(held_out), left_out) == (30, 8, 0)


def fail_at_four(number):
    if number == 4:
        raise InvalidInput("four")
    return number * number


@pytest.mark.parametrize("threads", [1, 3])
def test_results_of_several_threads_come_in_order_and_errors_in_their_place(threads):
    assert list(each_ahead(lambda n: n * n, range(50), threads)) == [n * n for n in range(50)]
    results = []
    with pytest.raises(InvalidInput, match="four"):
        results.extend(each_ahead(fail_at_four, range(9), threads))
    assert results == [0, 1, 4, 9]
