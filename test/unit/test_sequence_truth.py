"""The truth of sequences: files of MOTChallenge and COCO, whole and damaged."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_fixtures import START_NS, STEP_NS, TOPIC, raw_messages, write_mcap
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activeo3_ros.bags.reading import Bag
from activeo3_ros.core import Box, Frame, InvalidInput
from activeo3_ros.evaluation.datasets import coco_of_bag
from activeo3_ros.evaluation.sequence_truth import (
    coco_by_stamps,
    coco_of_frames,
    joined,
    mot_of_bag,
    mot_of_video,
    read_mot,
)

LINE = "1,7,10,12,20,30,1,1,0.8"


def written(folder: Path, *lines: str, name: str = "gt.txt") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return write_mcap(tmp_path / "drive.mcap", raw_messages(3))


def test_a_line_of_motchallenge_is_an_object_of_a_frame(tmp_path: Path):
    (row,) = read_mot(written(tmp_path, LINE))
    assert (row.frame, row.id, row.box, row.category) == (1, 7, Box(10, 12, 20, 30), 1)
    assert row.is_judged and row.visibility == 0.8


finite = st.floats(-1e4, 1e4).map(lambda value: round(value, 3))
side = st.floats(0.01, 1e4).map(lambda value: round(value, 3) or 0.01)
rows = st.lists(
    st.tuples(st.integers(1, 50), st.integers(0, 99), finite, finite, side, side, st.sampled_from([0, 1]),
              st.integers(1, 13), st.floats(0, 1)),
    min_size=1, max_size=20, unique_by=lambda row: row[:2],
)  # fmt: skip


@given(rows, st.sampled_from(["\n", "\r\n"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_written_is_read(tmp_path: Path, rows: list, end: str):
    path = tmp_path / "gt.txt"
    path.write_bytes(end.join(",".join(map(str, row)) for row in rows).encode())
    read = read_mot(path)
    assert [(r.frame, r.id, *r.box.as_tuple(), int(r.is_judged), r.category, r.visibility) for r in read] == rows


@given(rows, st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_anywhere_is_read_to_a_whole_line_or_refused_in_one_line(tmp_path: Path, rows: list, data):
    text = "\n".join(",".join(map(str, row)) for row in rows)
    path = tmp_path / "gt.txt"
    path.write_text(text[: data.draw(st.integers(0, len(text)))])
    try:
        assert len(read_mot(path)) <= len(rows)
    except InvalidInput as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([""], "is empty"),
        ([LINE, "2,7,10,12"], "line 2 has 4 columns, not the 9 of MOTChallenge"),
        ([LINE + ",1"], "line 1 has 10 columns"),
        (["1 7 10 12 20 30 1 1 1"], "line 1 has 1 columns"),
        (["1,7,10,12,-20,30,1,1,1"], "line 1: width and height must be more than 0 pixels, got -20 x 30"),
        (["1,7,10,12,20,0,1,1,1"], "must be more than 0 pixels, got 20 x 0"),
        (["0,7,10,12,20,30,1,1,1"], "frames count from 1, got 0"),
        (["1.5,7,10,12,20,30,1,1,1"], "its frame must be a whole number, got '1.5'"),
        (["1,x,10,12,20,30,1,1,1"], "its id must be a finite number, got 'x'"),
        (["1,7,nan,12,20,30,1,1,1"], "its x must be a finite number, got 'nan'"),
        (["1,7,10,12,inf,30,1,1,1"], "its width must be a finite number, got 'inf'"),
        ([LINE, "2,7,1,2,3,4,1,1,1", "1,7,1,2,3,4,1,1,1"], "line 3: the id 7 is twice in frame 1, first in line 1"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, lines: list[str], says: str):
    with pytest.raises(InvalidInput) as caught:
        read_mot(written(tmp_path, *lines))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path):
    path = tmp_path / "gt.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="cannot be read as text"):
        read_mot(path)
    with pytest.raises(InvalidInput, match="no such file"):
        read_mot(tmp_path / "none.txt")


def test_frame_n_is_the_nth_message_of_the_topic(tmp_path: Path, bag: Path):
    with Bag(bag) as opened:
        truth = mot_of_bag(written(tmp_path, LINE, "3,8,1,2,3,4,1,3,1"), opened, TOPIC)
        (sequence,) = truth.sequences
        assert [frame.stamp_ns for frame in sequence.frames] == [START_NS + n * STEP_NS for n in range(3)]
        assert [[known.id for known in frame.objects] for frame in sequence.frames] == [["7"], [], ["8"]]
        assert truth.categories[sequence.frames[2].objects[0].category] == "car"
        assert sequence.camera == "camera"
        assert [frame.stamp_ns for frame in sequence.read()] == [frame.stamp_ns for frame in sequence.frames]


def test_frames_beyond_the_bag_are_refused(tmp_path: Path, bag: Path):
    with Bag(bag) as opened, pytest.raises(InvalidInput, match=r"has objects in frame 4, but .* has 3 frames"):
        mot_of_bag(written(tmp_path, "4,7,10,12,20,30,1,1,1"), opened, TOPIC)


def test_numbers_of_a_bag_that_lost_messages_mean_nothing(tmp_path: Path, bag: Path):
    content = bag.read_bytes()
    bag.write_bytes(content[: len(content) // 2])
    with Bag(bag) as opened, pytest.raises(InvalidInput, match=r"the frames that .*gt.txt numbers cannot be told"):
        mot_of_bag(written(tmp_path, LINE), opened, TOPIC)


def test_objects_of_other_classes_and_with_a_conf_of_0_are_ignored(tmp_path: Path, bag: Path):
    with Bag(bag) as opened:
        truth = mot_of_bag(written(tmp_path, LINE, "1,8,1,2,3,4,0,1,1", "1,9,1,2,3,4,1,8,1"), opened, TOPIC)
        assert [known.is_ignored for known in truth.sequences[0].frames[0].objects] == [False, True, True]
        with pytest.raises(InvalidInput, match="none of its objects is judged"):
            mot_of_bag(written(tmp_path, LINE), opened, TOPIC, classes={5: "boat"})


def test_numbered_pictures_are_frames_in_the_order_of_their_numbers(tmp_path: Path):
    folder = tmp_path / "img1"
    folder.mkdir()
    for number in (2, 10, 1):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    (sequence,) = mot_of_video(written(tmp_path, LINE), folder, 10).sequences
    assert [frame.image[0, 0, 0] for frame in sequence.read()] == [1, 2, 10]
    assert [frame.stamp_ns for frame in sequence.frames] == [frame.stamp_ns for frame in sequence.read()]
    with pytest.raises(InvalidInput, match="--fps"):
        mot_of_video(written(tmp_path, LINE), folder)


# ---- COCO ------------------------------------------------------------------------------------------------------------


def coco(**changes: object) -> dict:
    return {
        "images": [{"id": n, "stamp": START_NS + n * STEP_NS, "topic": TOPIC} for n in (1, 0)],
        "categories": [{"id": 4, "name": "car"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 4, "bbox": [1, 2, 10, 12], "track_id": 5} for n in (0, 1)
        ],
        **changes,
    }


def saved(folder: Path, document: dict) -> Path:
    path = folder / "truth.json"
    path.write_text(json.dumps(document))
    return path


def test_images_of_a_topic_are_a_sequence_in_the_order_of_their_stamps(tmp_path: Path, bag: Path):
    path = saved(tmp_path, coco())
    truth = coco_by_stamps(path)
    (sequence,) = truth.sequences
    assert [frame.stamp_ns for frame in sequence.frames] == [START_NS, START_NS + STEP_NS]
    assert sequence.camera == "camera" and truth.has_ids
    with Bag(bag) as opened:
        read = coco_of_frames(path, coco_of_bag(path, opened, [TOPIC], None)[0])
        assert [f.objects for f in read.sequences[0].frames] == [f.objects for f in sequence.frames]
        frames = list(read.sequences[0].read())
        assert [frame.stamp_ns for frame in frames if isinstance(frame, Frame)] == [START_NS, START_NS + STEP_NS]


def test_ids_are_for_all_annotations_or_for_none(tmp_path: Path):
    document = coco()
    del document["annotations"][0]["track_id"]
    with pytest.raises(InvalidInput, match="1 of 2 annotations have a track_id"):
        coco_by_stamps(saved(tmp_path, document))
    del document["annotations"][1]["track_id"]
    truth = coco_by_stamps(saved(tmp_path, document))
    assert not truth.has_ids and "no track_id" in truth.notes[0]


def test_an_id_that_is_twice_in_an_image_is_refused(tmp_path: Path):
    document = coco()
    document["annotations"][1]["image_id"] = 0
    with pytest.raises(InvalidInput, match="the track_id 5 is twice in one image, the second time in annotation 1"):
        coco_by_stamps(saved(tmp_path, document))


def test_two_images_of_one_stamp_are_refused(tmp_path: Path):
    document = coco()
    document["images"][1]["stamp"] = START_NS + STEP_NS
    with pytest.raises(InvalidInput, match="the images 1 and 0 are one frame"):
        coco_by_stamps(saved(tmp_path, document))


def test_sequences_of_several_files_are_told_apart_and_have_the_same_categories(tmp_path: Path):
    truth = coco_by_stamps(saved(tmp_path, coco()))
    assert [s.name for s in joined([truth, truth]).sequences] == [f"1 {TOPIC}", f"2 {TOPIC}"]
    other = coco_by_stamps(saved(tmp_path, coco(categories=[{"id": 4, "name": "bus"}])))
    with pytest.raises(InvalidInput, match="different categories: car; and bus"):
        joined([truth, other])
