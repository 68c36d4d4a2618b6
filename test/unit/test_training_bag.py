"""Training rows from bags: pictures by their stamps, targets from annotations or from detections of a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bag_fixtures import START_NS, STEP_NS, picture, raw_messages, write_mcap

from activeo3_ros.cli import main as cli
from activeo3_ros.codecs.result_cdr import RESULT_TYPE, result_message, to_cdr
from activeo3_ros.core import Box, Detection, Query, Result, Status
from activeo3_ros.training.rows import read_rows


def write_truth(path: Path, images: list[dict], annotations: list[dict]) -> Path:
    annotations = [{"id": number, "category_id": 1, **each} for number, each in enumerate(annotations)]
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "car"}]})
    )
    return path


def write_results(path: Path, results: list[tuple[int, str, Result]]) -> Path:
    """(number of the picture, camera, result) as a replay records them."""
    messages = []
    for number, camera, result in results:
        stamp = START_NS + number * STEP_NS
        messages.append((stamp, to_cdr(result_message(result, camera, stamp, "optical"))))
    return write_mcap(path, messages, topic="/camera/perception", kind=RESULT_TYPE)


def result(*detections: Detection, status: Status = Status.COMPLETE, words: str = "") -> Result:
    return Result(64, 48, Query(classes=("car",)), status, words, detections=detections)


def problems_of(out: Path) -> list[str]:
    return [json.loads(line)["reason"] for line in (out / "problems.jsonl").read_text().splitlines()]


def test_annotated_pictures_of_a_bag_become_rows_and_faults_are_listed(tmp_path: Path, capsys) -> None:
    bag = write_mcap(tmp_path / "a.mcap", raw_messages(4))
    images = [{"id": i, "stamp": START_NS + i * STEP_NS, "width": 64, "height": 48} for i in (0, 1, 2, 99)]
    images[2]["width"] = 65
    boxes = [(0, [1, 1, 9, 9]), (0, [60, 40, 9, 9]), (1, [70, 1, 9, 9]), (2, [1, 1, 9, 9])]
    truth = write_truth(tmp_path / "truth.json", images, [{"image_id": i, "bbox": box} for i, box in boxes])
    out = tmp_path / "out"
    command = ["train", "data", "bag", "--bag", str(bag), "--annotations", str(truth), "--out", str(out)]
    assert cli.main(command) == 0
    assert "3 left out" in capsys.readouterr().err
    (row,) = read_rows(out)
    assert row.classes == ("car",)
    assert row.boxes == ((1, 1, 9, 9), (60, 40, 4, 8)), "the second is cut off at the picture's edge"
    assert np.array_equal(row.frame().image, picture(0)), "bit for bit"
    absent, outside, resized = problems_of(out)
    assert "no picture of stamp" in absent
    assert "lies outside the picture" in outside
    assert "is 65 x 48 pixels in the annotations, but the picture has 64 x 48" in resized


def test_detections_of_a_replay_become_targets_but_none_of_a_failed_frame(tmp_path: Path) -> None:
    bag = write_mcap(tmp_path / "a.mcap", raw_messages(3))
    found = Detection("car", 0.9, Box(4, 5, 10, 12))
    failed = result(found, status=Status.FAILED, words="out of memory")
    results = write_results(
        tmp_path / "results.mcap", [(0, "camera", result(found)), (1, "camera", failed), (2, "rear", result(found))]
    )
    out = tmp_path / "out"
    command = ["train", "data", "bag", "--bag", str(bag), "--results", str(results), "--out", str(out)]
    assert cli.main(command) == 0
    (row,) = read_rows(out)
    assert row.boxes == ((4, 5, 10, 12),)
    assert np.array_equal(row.frame().image, picture(0))
    first, second = problems_of(out)
    assert "failed: out of memory" in first
    assert "is of camera 'rear'" in second
    assert "not a truth" in json.loads((out / "provenance.json").read_text())["rule"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--bag", "a.mcap"], "either --annotations FILE or --results BAG"),
        (["--annotations", "truth.json"], "needs --bag BAG"),
        (["--bag", "a.mcap", "--results", "a.mcap"], "has no topic of activeo3_ros/msg/PerceptionResult"),
        (["--bag", "no.mcap", "--results", "a.mcap"], "no.mcap"),
        (["--bag", "a.mcap", "--annotations", "truth.json"], "none of its 1 stamps"),
    ],
)
def test_wrong_input_is_one_line(tmp_path: Path, monkeypatch, capsys, options: list[str], says: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_mcap(tmp_path / "a.mcap", raw_messages(1))
    write_truth(tmp_path / "truth.json", [{"id": 1, "stamp": 5}], [])
    assert cli.main(["train", "data", "bag", *options, "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said
    assert not (tmp_path / "out" / "rows.jsonl").exists()


def test_rows_of_an_earlier_run_are_not_overwritten_without_force(tmp_path: Path, capsys) -> None:
    bag = write_mcap(tmp_path / "a.mcap", raw_messages(1))
    truth = write_truth(tmp_path / "t.json", [{"id": 0, "stamp": START_NS}], [{"image_id": 0, "bbox": [1, 1, 9, 9]}])
    out = tmp_path / "out"
    command = ["train", "data", "bag", "--bag", str(bag), "--annotations", str(truth), "--out", str(out)]
    assert cli.main(command) == 0
    assert cli.main(command) == 2
    assert "rows.jsonl and 1 more would be overwritten: give another --out, or" in capsys.readouterr().err
    assert cli.main([*command, "--force"]) == 0
