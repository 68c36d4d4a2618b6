"""Sequences from frames to a report: the moving composite, a bag and a video with truth, with a memory and without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bag_fixtures import START_NS, STEP_NS, TOPIC, raw_messages, write_mcap
from video_fixtures import write_video

pytest.importorskip("matplotlib", reason="needs requirements/eval.txt")

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.packages import NEEDED_BY, require
from activeo3_ros.cli import main as cli
from activeo3_ros.core.optional import MissingPackageError
from activeo3_ros.evaluation import moving_composite as moving
from activeo3_ros.evaluation.tracking_scores import check_installed

FAST = ("--preset", "embedded", "--regions", "1", "--bootstrap", "10")


@pytest.fixture(scope="module", autouse=True)
def models() -> None:
    try:
        for asset in NEEDED_BY["demo"]:
            require(asset)
    except AssetError as error:
        pytest.skip(str(error))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences of three frames."""
    monkeypatch.setattr(moving, "FRAMES", 3)


def needs_trackeval() -> None:
    try:
        check_installed()
    except MissingPackageError as error:
        pytest.skip(str(error))


def methods_of(out: Path) -> dict:
    return {method["id"]: method for method in json.loads((out / "metrics.json").read_text())["methods"]}


def test_sequences_follow_from_the_seed_whatever_their_number(short: None):
    one, two = moving.moving_composite(1, seed=3), moving.moving_composite(2, seed=3)
    assert one.sequences[0].frames == two.sequences[0].frames
    first, again = next(iter(one.sequences[0].read())), next(iter(two.sequences[0].read()))
    assert (first.image == again.image).all()
    assert moving.moving_composite(1, seed=4).sequences[0].frames != one.sequences[0].frames


def test_each_vehicle_keeps_its_id_and_moves_with_the_picture():
    truth = moving.moving_composite(1, seed=3)
    (sequence,) = truth.sequences
    steps = []
    for before, after in zip(sequence.frames[:-1], sequence.frames[1:], strict=True):
        was, now = ({known.id: known for known in frame.objects} for frame in (before, after))
        assert len(was) == len(before.objects)
        inside = [n for n in was.keys() & now.keys() if 40 < was[n].box.x < moving.SCENE_SIZE[0] - 90]
        steps += [abs(now[name].box.x - was[name].box.x) for name in inside]
    assert np.median(steps) < 25, "no vehicle leaps"
    hidden = [known for frame in sequence.frames for known in frame.objects if known.is_ignored]
    assert hidden, "walls and borders hide some"


def test_the_box_of_a_vehicle_is_where_its_pixels_are(short: None):
    """Without its vehicles the same scene differs inside their boxes alone."""
    stage = moving._Stage(3, 0)
    objects = list(stage.objects(1))
    with_vehicles = stage.picture(1).astype(int)
    stage._items = [item for item in stage._items if not item.id]
    changed = np.abs(with_vehicles - stage.picture(1)).max(axis=2) > 40
    inside = np.zeros_like(changed)
    for known in objects:
        box = known.box.snapped(*moving.SCENE_SIZE)
        inside[int(box.y) : int(box.bottom), int(box.x) : int(box.right)] = True
    assert changed.any() and changed[~inside].sum() < 0.02 * changed.sum()


def test_the_moving_composite_compares_the_memory_at_equal_cost(tmp_path: Path, short: None, capfd):
    needs_trackeval()
    out = tmp_path / "out"
    command = ["benchmark", "composite", "--moving", "--samples", "2", *FAST, "--out", str(out)]
    assert cli.main(command) == 0
    methods = methods_of(out)
    assert list(methods) == ["embedded-1-alone", "embedded-1-memory"]
    assert methods["embedded-1-alone"]["cost"]["views"] == methods["embedded-1-memory"]["cost"]["views"] == 2
    assert methods["embedded-1-memory"]["quality"]["IDF1"][0] is not None
    assert methods["embedded-1-alone"]["quality"]["IDF1"][0] is None
    page = (out / "report.html").read_text()
    assert "With a memory against without" in page and "<link" not in page and "<script" not in page
    times = {file: file.stat().st_mtime_ns for file in out.glob("items/*/*.json")}
    assert len(times) == 4
    capfd.readouterr()
    assert cli.main(command) == 0
    assert {file: file.stat().st_mtime_ns for file in out.glob("items/*/*.json")} == times, "nothing is perceived again"
    assert cli.main([*command[:-4], "--seed", "9", "--out", str(out)]) == 2
    assert "is of other work" in capfd.readouterr().err


def test_frames_of_a_bag_are_judged_with_a_memory_and_without(tmp_path: Path):
    bag = write_mcap(tmp_path / "drive.mcap", raw_messages(3))
    document = {
        "images": [{"id": n, "stamp": START_NS + n * STEP_NS, "topic": TOPIC} for n in range(3)],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 10, 12]} for n in range(3)],
    }
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(document))
    out = tmp_path / "out"
    arguments = ["--coco", str(truth), "--bag", str(bag), "--sequences", *FAST, "--out", str(out)]
    assert cli.main(["evaluate", *arguments]) == 0
    assert {name: method["judged"] for name, method in methods_of(out).items()} == {
        "embedded-1-alone": 3,
        "embedded-1-memory": 3,
    }


def test_frames_of_a_video_are_numbered_as_motchallenge_has_them(tmp_path: Path):
    needs_trackeval()
    video = write_video(tmp_path / "clip.mp4", [0.0, 0.1, 0.2])
    truth = tmp_path / "gt.txt"
    truth.write_text("1,1,5,5,20,20,1,3,1\n3,1,5,5,20,20,1,3,1\n")
    out = tmp_path / "out"
    assert cli.main(["evaluate", "--mot", str(truth), "--video", str(video), *FAST, "--out", str(out)]) == 0
    assert methods_of(out)["embedded-1-memory"]["frames"] == 3
    truth.write_text("4,1,5,5,20,20,1,3,1\n")
    assert cli.main(["evaluate", "--mot", str(truth), "--video", str(video), "--out", str(tmp_path / "b")]) == 2


def test_only_composite_has_sequences(tmp_path: Path, capfd):
    assert cli.main(["benchmark", "vstar", "--root", str(tmp_path), "--moving", "--out", str(tmp_path / "o")]) == 2
    assert "only composite has sequences" in capfd.readouterr().err
