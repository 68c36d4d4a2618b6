"""`activeo3 evaluate --results`: what a node or a replay recorded is judged as it is, and nothing is perceived."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bag_fixtures import START_NS, STEP_NS, TOPIC, raw_messages, write_mcap
from sequence_fixtures import failed_result, found, result_of, true_sequence, write_results

from activeo3_ros.bags.writing import BagWriter
from activeo3_ros.cli import main as cli
from activeo3_ros.codecs.result_cdr import RESULT_TYPE, result_message, to_cdr, typestore
from activeo3_ros.core import Box, InvalidInput
from activeo3_ros.core.optional import MissingPackageError
from activeo3_ros.evaluation import tracking_scores
from activeo3_ros.evaluation.recorded_results import TRACKS_TYPE, read_results
from activeo3_ros.evaluation.tracking_scores import check_installed

A = Box(10, 10, 20, 20)


def coco_truth(folder: Path, frames: int = 4, track_id: int | None = None) -> Path:
    identity = {} if track_id is None else {"track_id": track_id}
    document = {
        "images": [{"id": n, "stamp": START_NS + n * STEP_NS, "topic": TOPIC} for n in range(frames)],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": list(A.as_tuple()), **identity} for n in range(frames)
        ],
    }
    path = folder / "truth.json"
    path.write_text(json.dumps(document))
    return path


def evaluate(*arguments: object) -> int:
    return cli.main(["evaluate", *map(str, arguments), "--bootstrap", "10"])


def metrics_of(out: Path) -> dict:
    (method,) = json.loads((out / "metrics.json").read_text())["methods"]
    return method


def needs_reports() -> None:
    for package in ("matplotlib", "jinja2", "faster_coco_eval"):
        pytest.importorskip(package, reason="needs requirements/eval.txt")


def test_frames_that_failed_or_have_no_result_are_told_and_not_taken_as_empty(tmp_path: Path, capfd):
    needs_reports()
    results = write_results(tmp_path / "results.mcap", {0: result_of(found(A)), 1: failed_result(), 3: result_of()})
    out = tmp_path / "out"
    assert evaluate("--coco", coco_truth(tmp_path), "--results", results, "--out", out) == 0
    method = metrics_of(out)
    assert (method["frames"], method["judged"], method["failed"], method["without_result"]) == (4, 2, 1, 1)
    assert method["quality"]["recall"][0] == 0.5
    assert method["quality"]["recall of all frames"][0] == 0.25
    assert method["quality"]["AP50"][0] == pytest.approx(0.505, abs=1e-3), "precision 1 up to a recall of 0.5"
    said = capfd.readouterr()
    assert "1 of 4 frames failed, and count as those without a result: the detector broke" in said.err
    assert "recorded: 1 of 4 frames have no result" in said.err
    page = (out / "report.html").read_text()
    assert "1 of 4 frames have no result" in page and "<script" not in page and "<link" not in page


def test_the_frames_of_a_bag_are_what_motchallenge_numbers(tmp_path: Path):
    needs_reports()
    bag = write_mcap(tmp_path / "drive.mcap", raw_messages(3))
    truth = tmp_path / "gt.txt"
    truth.write_text("".join(f"{n},1,10,10,20,20,1,3,1\n" for n in (1, 2, 3)))
    results = write_results(tmp_path / "results.mcap", {1: result_of(found(A)), 2: result_of(found(A))})
    try:
        check_installed()
    except MissingPackageError as error:
        pytest.skip(str(error))
    out = tmp_path / "out"
    assert evaluate("--mot", truth, "--bag", bag, "--results", results, "--out", out) == 0
    method = metrics_of(out)
    assert (method["judged"], method["without_result"]) == (2, 1)
    assert method["quality"]["first detection small, s"][0] == pytest.approx(0.1)


def test_results_that_are_all_empty_or_all_failed_are_scored_all_the_same(tmp_path: Path):
    needs_reports()
    truth = coco_truth(tmp_path)
    empty = write_results(tmp_path / "empty.mcap", {n: result_of() for n in range(4)})
    assert evaluate("--coco", truth, "--results", empty, "--out", tmp_path / "a") == 0
    assert metrics_of(tmp_path / "a")["quality"]["AP"][0] == 0
    failed = write_results(tmp_path / "failed.mcap", {n: failed_result() for n in range(4)})
    assert evaluate("--coco", truth, "--results", failed, "--out", tmp_path / "b") == 1, "nothing could be judged"
    assert metrics_of(tmp_path / "b")["quality"]["AP"][0] is None


def test_ids_are_scored_where_results_and_truth_have_them(tmp_path: Path):
    needs_reports()
    try:
        check_installed()
    except MissingPackageError as error:
        pytest.skip(str(error))
    frames = {n: result_of(found(A, "camera:1" if n < 2 else "camera:2")) for n in range(4)}
    results = write_results(tmp_path / "results.mcap", frames)
    out = tmp_path / "out"
    assert evaluate("--coco", coco_truth(tmp_path, track_id=1), "--results", results, "--out", out) == 0
    assert metrics_of(out)["quality"]["IDF1"][0] == 0.5, "the id changes halfway"


def test_a_package_that_is_missing_is_named_in_one_line(tmp_path: Path, capfd, monkeypatch):
    needs_reports()
    monkeypatch.setitem(sys.modules, "trackeval.metrics", None)
    tracking_scores._metrics.cache_clear()
    frames = {0: result_of(found(A, "camera:1"))}
    results = write_results(tmp_path / "results.mcap", frames)
    code = evaluate("--coco", coco_truth(tmp_path, track_id=1), "--results", results, "--out", tmp_path / "out")
    tracking_scores._metrics.cache_clear()
    assert code != 0
    (line,) = capfd.readouterr().err.splitlines()
    assert "pip install --no-deps 'trackeval>=1.3'" in line


def test_tracks_alone_are_judged_by_box_and_label_without_a_score(tmp_path: Path):
    store = typestore()
    types = store.types
    time = types["builtin_interfaces/msg/Time"]
    vector, point = types["geometry_msgs/msg/Vector3"], types["geometry_msgs/msg/Point"]
    nan = math.nan
    track = types["activeo3_ros/msg/Track"](
        track_id="front:3", label="car", existence=0.8, box=types["activeo3_ros/msg/BoundingBox"](*A.as_tuple()),
        velocity_x=nan, velocity_y=nan, bearing=vector(nan, nan, nan), bearing_sigma=nan, has_position=False,
        position=point(nan, nan, nan), position_covariance=np.full(9, nan),
        first_seen=time(0, 0), last_seen=time(*divmod(START_NS, 10**9)), zoom=1.0, text="",
    )  # fmt: skip
    path, topic = tmp_path / "tracks.mcap", "/robot/activeo3/front/left/tracks"
    with BagWriter(path) as writer:
        writer.add_topic(topic, TRACKS_TYPE)
        for number in range(2):
            stamp = START_NS + number * STEP_NS
            header = types["std_msgs/msg/Header"](stamp=time(*divmod(stamp, 10**9)), frame_id="optical")
            message = types["activeo3_ros/msg/TrackArray"](header=header, tracks=[track])
            writer.write(topic, stamp, bytes(store.serialize_cdr(message, TRACKS_TYPE)))
    recorded = read_results(path)
    assert recorded.cameras == ["front/left"]
    first, second = (each.detections[0] for each in recorded.results.values())
    assert (first.track_id, first.box, first.carried, second.carried) == ("front:3", A, False, True)
    assert math.isnan(first.score)


def test_results_of_a_stamp_that_is_there_twice_count_once_and_are_told(tmp_path: Path):
    path = tmp_path / "results.mcap"
    with BagWriter(path) as writer:
        writer.add_topic("/activeo3/camera/result", RESULT_TYPE)
        for result in (result_of(found(A)), result_of()):
            message = result_message(result, "camera", START_NS, "optical")
            writer.write("/activeo3/camera/result", START_NS, to_cdr(message))
    recorded = read_results(path)
    assert len(recorded.results) == 1 and "1 results of camera repeat a stamp" in recorded.notes[0]


def test_results_of_frames_without_truth_are_told(tmp_path: Path):
    recorded = read_results(write_results(tmp_path / "r.mcap", {n: result_of() for n in range(5)}))
    (sequence,) = true_sequence([{"a": A}] * 3).sequences
    assert len(recorded.of_sequence(sequence)) == 3
    assert recorded.notes == ["2 results of camera are of frames without truth, and are left out"]


def test_results_that_a_cut_file_lost_are_told_and_count_as_frames_without_one(tmp_path: Path):
    path = tmp_path / "results.mcap"
    with BagWriter(path, chunk_bytes=1) as writer:  # each result is whole or lost
        writer.add_topic("/activeo3/camera/result", RESULT_TYPE)
        for number in range(6):
            stamp = START_NS + number * STEP_NS
            message = result_message(result_of(found(A)), "camera", stamp, "optical")
            writer.write("/activeo3/camera/result", stamp, to_cdr(message))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    recorded = read_results(path)
    assert 0 < len(recorded.results) < 6
    assert recorded.notes and str(path) in recorded.notes[0]
    (sequence,) = true_sequence([{"a": A}] * 6).sequences
    assert recorded.of_sequence(sequence).count(None) == 6 - len(recorded.results)


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ({0: result_of(found(Box(math.nan, 0, 3, 3)))}, "has the box (nan, 0.0, 3.0, 3.0) of 'car'"),
        ({0: result_of(found(A, "1"), found(A, "1"))}, "has the track id '1' twice"),
    ],
)
def test_results_that_no_perception_gives_are_refused(tmp_path: Path, results: dict, says: str):
    with pytest.raises(InvalidInput) as caught:
        read_results(write_results(tmp_path / "results.mcap", results))
    assert says in str(caught.value)


def test_a_bag_without_results_is_refused(tmp_path: Path):
    with pytest.raises(InvalidInput, match="has no results: no topic is of type"):
        read_results(write_mcap(tmp_path / "drive.mcap", raw_messages(1)))


def test_frames_of_one_stamp_have_no_result_of_their_own(tmp_path: Path):
    (sequence,) = true_sequence([{"a": A}] * 2).sequences
    twins = replace(sequence, frames=(sequence.frames[0],) * 2)
    recorded = read_results(write_results(tmp_path / "results.mcap", {0: result_of()}))
    with pytest.raises(InvalidInput, match=f"2 frames have the stamp {START_NS}"):
        recorded.of_sequence(twins)


def test_results_of_other_stamps_or_cameras_are_refused(tmp_path: Path):
    (sequence,) = true_sequence([{"a": A}]).sequences
    with pytest.raises(InvalidInput, match="none of the 1 frames of sequence drive has a result"):
        read_results(write_results(tmp_path / "a.mcap", {7: result_of()})).of_sequence(sequence)
    with pytest.raises(InvalidInput, match="no results of camera 'camera'; it has results of front"):
        read_results(write_results(tmp_path / "b.mcap", {0: result_of()}, camera="front")).of_sequence(sequence)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--coco", "t.json", "--results", "r.mcap", "--preset", "tiny"],
            "--preset: has no effect on recorded results",
        ),
        (["--mot", "gt.txt"], "give one of --images, --bag and --video"),
        (["--mot", "gt.txt", "--results", "r.mcap"], "whose frames the numbers of --mot count"),
        (["--mot", "a.txt", "--mot", "b.txt", "--bag", "a.mcap"], "give as many --bag as there are truths: 2, got 1"),
        (["--coco", "t.json", "--images", "d", "--fps", "3"], "--fps: only sequences have that"),
        (["--coco", "t.json", "--bag", "b", "--sequences", "--masks"], "--masks: has no effect on sequences"),
    ],
)
def test_options_that_do_not_go_together_are_refused_in_one_line(tmp_path: Path, capfd, arguments: list, says: str):
    assert evaluate(*arguments, "--out", tmp_path / "out") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert says in line
    assert not (tmp_path / "out").exists()
