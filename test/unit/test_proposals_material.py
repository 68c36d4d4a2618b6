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
    split,
    video_source,
)
from activeo3_ros.training.proposals_teacher import look_scales


def read(source):
    complaints = []
    return list(source.pictures(complaints.append)), complaints


def test_frames_of_a_bag_are_chosen_evenly_in_their_order(tmp_path):
    [source] = bag_sources(write_mcap(tmp_path / "drive.mcap", raw_messages(11)), [], 6)
    pictures, complaints = read(source)
    assert complaints == []
    assert source.count == len(pictures) == 6
    assert all(np.array_equal(each[1], picture(number)) for each, number in zip(pictures, range(0, 11, 2), strict=True))
    assert all(labels is None for _, _, labels in pictures)


def test_a_camera_may_change_its_size_and_a_frame_that_cannot_be_read_is_told_and_left_out(tmp_path):
    messages = [*raw_messages(4), (START_NS + 10**10, b"\0\1\0\0damaged"), *raw_messages(3, width=32, height=24)]
    [source] = bag_sources(write_mcap(tmp_path / "drive.mcap", messages), [TOPIC], 100)
    pictures, complaints = read(source)
    assert {each[1].shape for each in pictures} == {(48, 64, 3), (24, 32, 3)}
    assert len(pictures) == 7
    assert len(complaints) == 1
    assert f"of {TOPIC}" in complaints[0]


def test_a_bag_of_one_frame_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="1 picture is too few to learn from some and judge by others"):
        bag_sources(write_mcap(tmp_path / "one.mcap", raw_messages(1)), [], 100)


def test_frames_of_a_video_are_spread_over_all_of_it(tmp_path):
    source = video_source(write_video(tmp_path / "drive.mp4", steady_times(20)), 7)
    pictures, _ = read(source)
    assert [number_in(each[1]) for each in pictures] == [0, 3, 6, 9, 12, 15, 18]


def test_pictures_of_a_folder_come_in_the_order_of_their_numbers(tmp_path):
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"frame_{number}.png"), np.full((8, 8, 3), number, np.uint8))
    (tmp_path / "frame_5.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    pictures, complaints = read(folder_source([str(tmp_path)], 100))
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
    source = labelled_source(annotated(tmp_path, ["Traffic_Light", "dragon"]), tmp_path, ["car", "traffic light"], 100)
    assert source.classes == ("traffic light",)
    pictures, _ = read(source)
    boxes, class_ids = pictures[0][2]
    assert boxes.tolist() == [[1, 2, 10, 20]]
    assert class_ids.tolist() == [1]
    assert len(pictures[1][2][0]) == 0


def test_labels_of_which_the_detector_knows_none_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="labels dragon, elf, none of which the detector finds"):
        labelled_source(annotated(tmp_path, ["dragon", "elf"]), tmp_path, ["car"], 100)


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
