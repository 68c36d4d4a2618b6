"""Detectors and policies of other packages, by the names that they register or the class that a preset names."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from bag_fixtures import raw_messages, write_mcap
from plugin_package import CODE, PRESET, install

from activeo3_ros.core import InvalidInput
from activeo3_ros.presets import load_preset


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return install(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def preset(tmp_path):
    path = tmp_path / "gizmo.yaml"
    path.write_text(PRESET, encoding="utf-8")
    return path


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "pictures" / "grey.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), np.full((240, 320, 3), 90, np.uint8))
    return path


def activeo3(environment, *arguments):
    return subprocess.run(
        ["activeo3", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False, env=environment
    )


def test_perceive_uses_a_detector_and_a_policy_of_another_package(installed, preset, picture):
    finished = activeo3(installed, "perceive", picture, "--preset", preset, "--json")
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert {each["label"] for each in result["detections"]} == {"gizmo"}
    assert [region["label"] for region in result["regions"]] == ["left"]


def test_evaluate_uses_them(installed, preset, picture, tmp_path):
    truth = {
        "images": [{"id": 1, "file_name": picture.name, "width": 320, "height": 240}],
        "categories": [{"id": 1, "name": "gizmo"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [152, 112, 16, 16], "area": 256}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    finished = activeo3(
        installed, "evaluate", "--coco", tmp_path / "truth.json", "--images", picture.parent,
        "--preset", preset, "--out", tmp_path / "report",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert "gizmo" in "".join(path.read_text(errors="ignore") for path in (tmp_path / "report").rglob("*.json"))


def test_replay_uses_them(installed, preset, tmp_path):
    bag = tmp_path / "bag.mcap"
    write_mcap(bag, raw_messages(2, width=320, height=240))
    out = tmp_path / "results.mcap"
    finished = activeo3(installed, "replay", bag, "--preset", preset, "--out", out)
    assert finished.returncode == 0, finished.stderr + finished.stdout
    assert "2 selected, 2 processed, 0 failed" in finished.stdout


def test_doctor_lists_plug_ins_and_says_what_is_wrong_with_one(installed):
    told = activeo3(installed, "doctor").stdout
    assert "gizmo-detector 1.2" in told and "gizmo_detector:GizmoDetector" in told
    assert "gizmo_detector.nothing:Missing cannot be imported: ModuleNotFoundError" in told
    assert "'onnx' is a name of activeo3_ros itself" in told


def test_settings_of_a_plug_in_are_checked_as_ours_are(installed, preset, picture):
    preset.write_text(PRESET.replace("size: 16", "sise: 16"), encoding="utf-8")
    finished = activeo3(installed, "perceive", picture, "--preset", preset)
    assert finished.returncode == 2
    assert "task 'gizmo' has no setting 'sise'; it has size, threshold" in finished.stderr
    assert "did you mean 'size'?" in finished.stderr


MODULE = "own_detector_for_test"


@pytest.fixture
def importable(tmp_path, monkeypatch):
    (tmp_path / f"{MODULE}.py").write_text(CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_preset_file_names_a_class_of_any_module(importable, preset):
    preset.write_text(f"sensing: {{type: '{MODULE}:Left'}}\ntask: {{type: '{MODULE}:GizmoDetector', size: 12}}\n")
    task = load_preset(str(preset)).build().task
    assert (task.detector.size, task.label) == (12, f"{MODULE}:GizmoDetector")


def test_a_preset_chosen_while_a_program_runs_imports_nothing(importable, preset):
    preset.write_text(f"sensing: {{type: full_frame}}\ntask: {{type: '{MODULE}:GizmoDetector'}}\n")
    sys.modules.pop(MODULE, None)
    with pytest.raises(InvalidInput, match="not one chosen while it runs"):
        load_preset(str(preset), may_name_classes=False)
    assert MODULE not in sys.modules


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("no_such_module:Detector", "no_such_module:Detector cannot be imported: ModuleNotFoundError"),
        (f"{MODULE}:Nothing", "cannot be imported: AttributeError"),
        ("math:pi", "math:pi is no class but a float"),
    ],
)
def test_a_class_that_cannot_be_imported_is_one_clear_line(importable, preset, name, complaint):
    preset.write_text(f"sensing: {{type: full_frame}}\ntask: {{type: '{name}'}}\n")
    with pytest.raises(InvalidInput) as refusal:
        load_preset(str(preset))
    told = str(refusal.value)
    assert complaint in told and preset.name in told and "\n" not in told


def test_detector_proposals_need_a_detector_and_report_none_but_the_task_s(preset):
    preset.write_text("sensing: {type: detector_proposals}\ntask: {type: mllm, engine: {type: remote, model: any}}\n")
    with pytest.raises(InvalidInput, match=r"task 'mllm' has none; give it one of its own, such as sensing: \{type"):
        load_preset(str(preset))
    preset.write_text(
        "sensing: {type: detector_proposals, detector: {type: embedded, threads: 1}}\n"
        "task: {type: mllm, engine: {type: remote, model: any}}\n"
    )
    policy = load_preset(str(preset)).build_policy()
    assert (policy.task.label, policy.reports) == ("embedded", False)


def test_a_policy_that_cannot_be_told_to_report_nothing_takes_no_detector_of_its_own(tmp_path, monkeypatch, preset):
    (tmp_path / "asking.py").write_text("class Asking:\n    def __init__(self, task: object): ...\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    preset.write_text("sensing: {type: 'asking:Asking', detector: {type: embedded}}\ntask: {type: embedded}\n")
    with pytest.raises(InvalidInput, match="takes no detector of its own: its constructor has no parameter 'reports'"):
        load_preset(str(preset))


def test_results_with_another_file_of_a_policy_s_own_detector_are_not_taken_for_the_same(preset, tmp_path):
    """`replay --resume` and `evaluate` keep results by these facts."""
    calibration = tmp_path / "own.yaml"
    calibration.write_text("first", encoding="utf-8")
    preset.write_text(
        f"sensing: {{type: detector_proposals, detector: {{type: embedded, calibration: {calibration}}}}}\n"
        "task: {type: mllm, engine: {type: remote, model: any}}\n"
    )
    before = load_preset(str(preset)).sensing.facts
    calibration.write_text("second", encoding="utf-8")
    assert load_preset(str(preset)).sensing.facts != before


FAULTY = """
from activeo3_ros.core import InputSize


class Faulty:
    names = ("gizmo",)
    input_size = InputSize(320, 320)
    concurrent = False

    def detect(self, images, threshold):
        raise KeyError("anchors")


class WithoutWeights(Faulty):
    def __init__(self):
        raise RuntimeError("no weights")
"""


@pytest.mark.parametrize("command", ["perceive", "perceive --json", "evaluate", "replay", "calibrate"])
@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("Faulty", " raised KeyError: 'anchors' (faulty.py, line 11)"),
        ("WithoutWeights", "task 'faulty:WithoutWeights' raised RuntimeError: no weights (faulty.py, line 16)"),
    ],
)
def test_a_faulty_detector_is_one_line_with_its_place_and_no_traceback(
    tmp_path, preset, picture, command, name, complaint
):
    (tmp_path / "faulty.py").write_text(FAULTY, encoding="utf-8")
    preset.write_text(f"sensing: {{type: full_frame}}\ntask: {{type: 'faulty:{name}'}}\n", encoding="utf-8")
    truth = {
        "images": [{"id": 1, "file_name": picture.name, "width": 320, "height": 240}],
        "categories": [{"id": 1, "name": "gizmo"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [152, 112, 16, 16], "area": 256}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    write_mcap(tmp_path / "bag.mcap", raw_messages(2, width=320, height=240))
    arguments = {
        "perceive": [picture, "--preset", preset],
        "perceive --json": ["--json", picture, "--preset", preset],
        "evaluate": [
            "--coco", tmp_path / "truth.json", "--images", picture.parent, "--preset", preset, "--out", tmp_path / "out"
        ],
        "replay": [tmp_path / "bag.mcap", "--preset", preset, "--out", tmp_path / "out.mcap"],
        "calibrate": [preset, "--images", picture, "--out", tmp_path / "out.yaml"],
    }[command]  # fmt: skip
    finished = activeo3({**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
                        command.split()[0], *arguments)  # fmt: skip
    said = (finished.stdout if command == "evaluate" else "") + finished.stderr
    assert finished.returncode != 0
    assert [line for line in said.splitlines() if complaint in line] != [] and "Traceback" not in said
    assert "fault of this program" not in said
