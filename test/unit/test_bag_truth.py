"""Truth for the frames of a bag: an image of it means one frame, or none is taken for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bag_fixtures import START_NS, STEP_NS, TOPIC, picture, raw_messages, write_mcap

from activeo3_ros.bags.messages import serialize_image
from activeo3_ros.bags.reading import Bag
from activeo3_ros.core import InvalidInput
from activeo3_ros.evaluation.datasets import coco_of_bag

OTHER = "/rear/image_raw"


def truth_of(folder: Path, *images: dict) -> Path:
    boxes = [{"id": i, "image_id": each["id"], "category_id": 1, "bbox": [1, 1, 9, 9]} for i, each in enumerate(images)]
    document = {"images": images, "categories": [{"id": 1, "name": "car"}], "annotations": boxes}
    path = folder / "truth.json"
    path.write_text(json.dumps(document))
    return path


def image(number: int, **more) -> dict:
    return {"id": number, "stamp": START_NS + number * STEP_NS, "width": 64, "height": 48, **more}


def test_a_stamp_of_two_different_frames_is_refused_and_the_others_are_judged(tmp_path: Path):
    second = [(START_NS + 5, serialize_image(picture(77), START_NS, "optical"))]
    with Bag(write_mcap(tmp_path / "a.mcap", raw_messages(3) + second)) as bag:
        with pytest.raises(InvalidInput, match=rf"image 0: 2 frames of .* have the stamp {START_NS} on {TOPIC}; which"):
            coco_of_bag(truth_of(tmp_path, image(0), image(1)), bag, [TOPIC], None)
        dataset, missing = coco_of_bag(truth_of(tmp_path, image(1), image(2)), bag, [TOPIC], None)
        assert missing == 0
        assert [np.array_equal(s.load().image, picture(s.id)) for s in dataset.samples] == [True, True]


def test_a_message_that_was_recorded_twice_is_one_frame(tmp_path: Path):
    with Bag(write_mcap(tmp_path / "a.mcap", raw_messages(2) + raw_messages(1))) as bag:
        dataset, _ = coco_of_bag(truth_of(tmp_path, image(0)), bag, [TOPIC], None)
        (sample,) = dataset.samples
        assert np.array_equal(sample.load().image, picture(0))


def test_a_stamp_of_two_topics_needs_the_name_of_one(tmp_path: Path):
    (tmp_path / "bag").mkdir()
    write_mcap(tmp_path / "bag" / "bag_0.mcap", raw_messages(2))
    other = [(START_NS, serialize_image(picture(50), START_NS, "optical"))]
    write_mcap(tmp_path / "bag" / "bag_1.mcap", other, topic=OTHER)
    with Bag(tmp_path / "bag") as bag:
        with pytest.raises(InvalidInput, match=f"on {TOPIC}, {OTHER}; give the image a topic, or choose one"):
            coco_of_bag(truth_of(tmp_path, image(0)), bag, [TOPIC, OTHER], None)
        dataset, _ = coco_of_bag(truth_of(tmp_path, image(0, topic=OTHER)), bag, [TOPIC, OTHER], None)
        (sample,) = dataset.samples
        assert np.array_equal(sample.load().image, picture(50))


@pytest.mark.parametrize("stamp", [START_NS / 1e9, float(START_NS)])
def test_a_stamp_in_seconds_or_with_an_exponent_is_refused(tmp_path: Path, stamp: float):
    truth = truth_of(tmp_path, {**image(0), "stamp": stamp}, image(1))
    with (
        Bag(write_mcap(tmp_path / "a.mcap", raw_messages(2))) as bag,
        pytest.raises(InvalidInput, match=r"image 0 has the stamp .*; write nanoseconds as a whole number"),
    ):
        coco_of_bag(truth, bag, [TOPIC], None)
