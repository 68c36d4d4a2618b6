"""`activeo3 calibrate` with the real detector: the files that it writes, and what it says of bad input."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.packages import CENTERNET, MOTORWAY_PICTURE, TERRAIN_PICTURE, require
from activeo3_ros.bags.messages import serialize_image
from activeo3_ros.bags.writing import BagWriter
from activeo3_ros.cli import calibrate
from activeo3_ros.cli import main as cli
from activeo3_ros.codecs.image_files import read_image
from activeo3_ros.core.calibration import DEFAULT
from activeo3_ros.detectors.calibration import read_calibration
from activeo3_ros.evaluation.detector_calibration import DetectorCalibration
from activeo3_ros.presets import load_preset

PRESET = "sensing: {type: full_frame}\ntask: {type: embedded}\nquery: {classes: [car, truck, bus]}\n"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A directory with two road pictures, one cut short, and a text."""
    directory = tmp_path_factory.mktemp("pictures")
    try:
        require(CENTERNET)
        for picture in (MOTORWAY_PICTURE, TERRAIN_PICTURE):
            shutil.copy(require(picture), directory)
    except AssetError as error:
        pytest.skip(str(error))
    whole = require(MOTORWAY_PICTURE).read_bytes()
    (directory / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return directory


@pytest.fixture(scope="module")
def calibrated(pictures, tmp_path_factory):
    """A preset with the calibration that the command wrote beside it, and the output of the command."""
    preset = tmp_path_factory.mktemp("preset") / "mine.yaml"
    preset.write_text(PRESET)
    arguments = ["calibrate", str(preset), "--images", str(pictures), "--sure", "0.4"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["activeo3", *arguments])  # where the file takes the command from
        assert cli.main(arguments) == 0
    return preset


def test_a_small_file_and_a_figure_lie_beside_the_preset(calibrated):
    assert sorted(path.name for path in calibrated.parent.iterdir()) == [
        "mine.calibration.png",
        "mine.calibration.yaml",
        "mine.yaml",
    ]
    file = calibrated.with_name("mine.calibration.yaml")
    assert file.stat().st_size < 20_000
    about = yaml.safe_load(file.read_text())["about"]
    assert about["pictures"] == 2
    assert about["classes"] == ["car", "truck", "bus"]
    assert "onnxruntime" in about["versions"] and about["date"] and "activeo3 calibrate" in about["command"]
    assert calibrated.with_name("mine.calibration.png").read_bytes().startswith(b"\x89PNG")


def test_the_preset_reads_it_from_then_on(calibrated):
    own = read_calibration(calibrated.with_name("mine.calibration.yaml"))
    assert load_preset(str(calibrated)).build().task.calibration == own
    choosing, file = calibrated.parent.parent / "choosing.yaml", calibrated.with_name("mine.calibration.yaml")
    choosing.write_text(f"sensing: {{type: detector_proposals}}\ntask: {{type: embedded, calibration: {file}}}\n")
    perception = load_preset(str(choosing)).build()
    assert perception.task.calibration == perception.sensing.task.calibration == own
    assert own != DEFAULT
    assert own.measured.startswith("2 pictures of ")


def test_larger_vehicles_are_found_more_often_and_better_scores_are_truer(calibrated):
    own = read_calibration(calibrated.with_name("mine.calibration.yaml"))
    assert own.probability_found(6.0) < 0.5 < own.probability_found(48.0)
    assert own.probability_true(0.1, 16.0) < 0.3 < 0.7 < own.probability_true(0.6, 16.0)


def test_what_is_there_is_not_overwritten(pictures, tmp_path, capsys):
    out = tmp_path / "a.yaml"
    out.write_text("mine")
    assert cli.main(["calibrate", "embedded", "--images", str(pictures), "--out", str(out)]) == 2
    assert f"{out} would be overwritten" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_a_damaged_picture_is_named_and_left_out(pictures, tmp_path, capsys):
    out = tmp_path / "a.yaml"
    images = [str(pictures / "cut.jpg"), str(require(MOTORWAY_PICTURE))]
    assert cli.main(["calibrate", "embedded", "--images", *images, "--out", str(out), "--sure", "0.35"]) == 0
    assert f"{pictures / 'cut.jpg'}: cannot be read as a picture" in capsys.readouterr().err
    assert read_calibration(out).measured.startswith("1 pictures of ")


def test_the_time_is_kept(pictures, tmp_path, capsys, monkeypatch):
    clock = itertools.count(step=40.0)
    monkeypatch.setattr(calibrate, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    motorway, out = str(require(MOTORWAY_PICTURE)), tmp_path / "a.yaml"
    command = ["calibrate", "embedded", "--images", *[motorway] * 3, "--out", str(out), "--sure", "0.35"]
    assert cli.main([*command, "--seconds", "30"]) == 0
    assert "30 s are over after 1 of 3 pictures; give more --seconds for all" in capsys.readouterr().err


def test_an_interrupt_leaves_no_file(pictures, tmp_path, monkeypatch):
    def interrupt(self, picture, group):
        raise KeyboardInterrupt

    monkeypatch.setattr(DetectorCalibration, "add", interrupt)
    out = tmp_path / "a.yaml"
    assert cli.main(["calibrate", "embedded", "--images", str(pictures), "--out", str(out)]) == 130
    assert not list(tmp_path.iterdir())


def test_a_bag_is_material_too(pictures, tmp_path, capsys):
    image = read_image(require(MOTORWAY_PICTURE))
    bag, out = tmp_path / "drive.mcap", tmp_path / "out.yaml"
    with BagWriter(bag) as writer:
        writer.add_topic("/front/image_raw", "sensor_msgs/msg/Image")
        for number in range(3):
            stamp = 10**9 * (number + 1)
            writer.write("/front/image_raw", stamp, serialize_image(image[:, : 600 + 100 * number], stamp, "front"))
    assert cli.main(["calibrate", "embedded", "--bag", str(bag), "--out", str(out), "--max-pictures", "2"]) == 0
    assert read_calibration(out).measured == "2 frames of drive.mcap, /front/image_raw"
    said = capsys.readouterr()
    assert "look at pictures: 2 of 2" in said.err
    assert f"to use it: task: {{type: embedded, calibration: {out}}} in a preset file" in said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embedded", "--images", "{}/empty"], "no pictures in "),
        (["embedded", "--images", "{}/black"], "the detector is sure of 0 objects in 1 pictures (score 0.5 at two "),
        (["embedded", "--images", "{}/broken"], "none of 1 pictures could be read"),
        (["embedded", "--images", "{}/black", "--classes", "dragon"], "unknown class 'dragon'; "),
        (["active_o3", "--images", "{}/black"], "preset 'active_o3': its task 'mllm' has no detector that could be "),
        (["embedded", "--bag", "{}/none.mcap"], "none.mcap"),
        (
            ["embedded", "--images", "{}/black", "--out", "{}/none/a.yaml"],
            "none: no such directory; give another --out",
        ),
        (["embedded", "--images", "{}/black", "--topic", "/a"], "--topic chooses a topic of a --bag; there is none"),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_no_file(pictures, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "black", "broken"):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / "black" / "a.png"), np.zeros((200, 300, 3), np.uint8))
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    before = sorted(os.listdir(tmp_path))
    assert cli.main(["calibrate", *(each.format(tmp_path) for each in arguments)]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert sorted(os.listdir(tmp_path)) == before


def test_results_of_another_calibration_are_not_taken_for_those_of_this_one(calibrated, tmp_path):
    preset, file = tmp_path / "mine.yaml", tmp_path / "mine.calibration.yaml"
    preset.write_text(PRESET)
    assert len(load_preset(str(preset)).task.facts) == 2
    file.write_bytes(calibrated.with_name("mine.calibration.yaml").read_bytes())
    first = load_preset(str(preset)).task.facts
    file.write_bytes(file.read_bytes() + b"set_by_hand: {half_found_side_px: 20}\n")
    assert load_preset(str(preset)).task.facts != first
