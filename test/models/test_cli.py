"""The command `activeo3`, as a user runs it: exit codes, one clear line for each mistake, JSON for scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.packages import NEEDED_BY, require
from activeo3_ros.node.transports import PROFILES, TRANSPORTS

BOX = {"x", "y", "width", "height"}
RESULT_KEYS = [
    *("image", "width", "height", "status", "query", "regions", "detections", "groundings", "masks", "answer"),
    *("timings_ms", "cost", "status_message", "notes", "reasoning", "regions_age_ms"),
]
RECORD_KEYS = {
    "regions": BOX | {"label", "score", "zoom"},
    "detections": BOX | {"label", "score", "region", "existence", "carried", "track_id"},
    "groundings": BOX | {"phrase", "score", "region", "text", "detection"},
    "masks": BOX | {"label", "score", "region", "detection", "size", "counts"},
}
"""The documented keys of `perceive --json`: of the result, in their order, and of each record in its lists."""


def activeo3(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["activeo3", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, **environment},
    )


def assert_one_clear_line(finished: subprocess.CompletedProcess[str], *words: str) -> None:
    assert finished.returncode == 2, finished.stderr
    lines = finished.stderr.splitlines()
    assert len(lines) == 1, finished.stderr
    for word in words:
        assert word in lines[0]


def objects(finished: subprocess.CompletedProcess[str]) -> dict[str, dict]:
    """The printed JSON objects by the name of their picture."""
    return {Path(o["image"]).name: o for o in map(json.loads, finished.stdout.splitlines())}


@pytest.fixture(scope="module")
def motorway() -> Path:
    """A real picture with tiny cars; skips where the embedded preset cannot run."""
    try:
        return [require(asset) for asset in NEEDED_BY["demo"]][-2]
    except AssetError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def perceived(motorway, tmp_path_factory):
    """The printed result of one run on the motorway, and the directory of its saved pictures."""
    out = tmp_path_factory.mktemp("out")
    finished = activeo3("perceive", motorway, "--classes", "car,truck", "--masks", "--json", "--out", out)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout), out


def test_help_lists_every_command_without_loading_what_they_need():
    finished = activeo3("--help")
    assert finished.returncode == 0
    for command in ("doctor", "prefetch", "demo", "perceive", "node", "play", "record"):
        assert command in finished.stdout
    code = "import sys, activeo3_ros.cli.main; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["COMMAND"]),
        (["dance"], ["dance", "perceive"]),
        (["perceive"], ["IMAGE"]),
        (["perceive", "a.jpg", "--max-regions", "1000"], ["--max-regions", "0 to 64", "1000"]),
        (["perceive", "a.jpg", "--max-regions", "-1"], ["--max-regions", "0 to 64", "-1"]),
        (["perceive", "a.jpg", "--max-regions", "few"], ["whole number", "few"]),
        (["perceive", "a.jpg", "--classes", ","], ["at least one class"]),
        (["perceive", "a.jpg", "--preset", "magic"], ["magic", "embedded", "full_frame"]),
        (["perceive", "a.jpg", "--preset", "my.yaml"], ["the preset file", "/my.yaml does not exist"]),
        (["perceive", "no-such-file.jpg"], ["no-such-file.jpg", "no such file"]),
        (["perceive", "a.jpg", "--query", "x" * 1001], ["1000 characters", "1001"]),
        (["demo", "--frames", "1"], ["--frames", "2 to 1000"]),
        (["prefetch", "magic"], ["magic", "embedded"]),
    ],
)
def test_a_mistake_in_the_command_is_one_line_and_exit_code_2(arguments, words):
    assert_one_clear_line(activeo3(*arguments), *words)


def test_an_empty_directory_is_a_mistake(tmp_path):
    assert_one_clear_line(activeo3("perceive", tmp_path), str(tmp_path), "no picture")


@pytest.mark.parametrize("size", [-1, 0, 10**12])
def test_a_preset_with_an_impossible_size_is_a_mistake(tmp_path, size):
    preset = tmp_path / "mine.yaml"
    preset.write_text(f"sensing: {{type: full_frame}}\ntask: {{type: embedded}}\nbudget: {{crop_pixels: {size}}}\n")
    assert_one_clear_line(activeo3("perceive", "a.jpg", "--preset", preset), "mine.yaml", "crop_pixels", str(size))


def test_nothing_found_says_of_which_classes(tmp_path):
    picture = tmp_path / "grey.png"
    cv2.imwrite(str(picture), np.full((200, 300, 3), 128, np.uint8))
    said = activeo3("perceive", picture).stdout
    assert "found: nothing; only person, bicycle, car, motorcycle, bus, truck, traffic light, stop sign were" in said
    assert "found: nothing; only dog was looked for" in activeo3("perceive", picture, "--classes", "dog").stdout


def test_json_has_exactly_the_documented_keys(perceived):
    result, _ = perceived
    assert list(result) == RESULT_KEYS
    assert (result["width"], result["height"], result["status"]) == (1068, 580, "complete")
    assert result["answer"] is None
    for name, keys in RECORD_KEYS.items():
        assert all(set(record) == keys for record in result[name]), name
    assert result["regions"]
    assert result["detections"]
    assert result["masks"]
    assert set(result["cost"]) == {"views", "pixels", "tokens", "calls"}
    assert result["cost"]["views"] == len(result["regions"]) + 1
    assert result["timings_ms"]["total"] > 0


def test_detections_lie_in_the_picture_and_belong_to_a_region(perceived):
    result, _ = perceived
    assert {found["label"] for found in result["detections"]} <= {"car", "truck"}
    assert len(result["detections"]) > 10
    for found in result["detections"]:
        assert 0 <= found["x"] < found["x"] + found["width"] <= 1068.01
        assert 0 <= found["y"] < found["y"] + found["height"] <= 580.01
        assert 0.3 <= found["score"] <= 1
        assert -1 <= found["region"] < len(result["regions"])
    assert any(found["region"] >= 0 for found in result["detections"])


def test_out_holds_the_annotated_picture_and_the_pixels_of_every_region(perceived, motorway):
    result, out = perceived
    assert sorted(path.name for path in out.iterdir()) == [
        "small-vehicles1.annotated.jpg",
        *(f"small-vehicles1.region{number + 1}.png" for number in range(len(result["regions"]))),
    ]
    picture = cv2.imread(str(motorway))
    for number, region in enumerate(result["regions"], start=1):
        x, y, width, height = (int(region[key]) for key in ("x", "y", "width", "height"))
        crop = cv2.imread(str(out / f"small-vehicles1.region{number}.png"))
        assert crop.shape == (height, width, 3)
        assert np.abs(crop.astype(int) - picture[y : y + height, x : x + width]).mean() < 2


def test_without_json_it_prints_its_results_in_words(motorway):
    finished = activeo3("perceive", motorway, "--max-regions", "0", "--classes", "car")
    assert finished.returncode == 0
    assert "1068 x 580 px, complete, 1 view(s)" in finished.stdout
    assert " car" in finished.stdout
    assert "region" not in finished.stdout


def test_a_query_that_the_preset_cannot_serve_lists_what_it_can(motorway):
    assert_one_clear_line(activeo3("perceive", motorway, "--query", "the unicorn"), "unicorn", "car", "person")


def test_models_that_were_not_fetched_are_named_with_the_command_that_fetches_them(motorway, tmp_path):
    finished = activeo3("perceive", motorway, ACTIVEO3_CACHE=str(tmp_path))
    assert_one_clear_line(finished, "centernet", "activeo3 prefetch embedded")


def test_a_preset_whose_server_does_not_answer_is_one_line(motorway):
    pytest.importorskip("httpx", reason="httpx is not installed")
    finished = activeo3("perceive", motorway, "--preset", "remote")
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert "http://localhost:8000/v1" in line
    assert "Traceback" not in finished.stderr


def test_a_folder_that_cannot_be_written_is_one_line(motorway):
    finished = activeo3("perceive", motorway, "--max-regions", 0, "--out", "/proc/nowhere")
    assert_one_clear_line(finished, "/proc/nowhere: ")


def test_a_picture_that_cannot_be_read_does_not_stop_the_others(motorway, tmp_path):
    data = motorway.read_bytes()
    (tmp_path / "a-half.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "b-almost.jpg").write_bytes(data[:-300])
    (tmp_path / "c-text.jpg").write_text("not a picture")
    (tmp_path / "d-empty.png").touch()
    png = cv2.imencode(".png", cv2.imread(str(motorway)))[1].tobytes()
    (tmp_path / "e-half.png").write_bytes(png[: len(png) // 2])
    (tmp_path / "f-whole.png").write_bytes(png)
    finished = activeo3("perceive", tmp_path, "--json", "--max-regions", 0)
    assert finished.returncode == 2
    assert set(objects(finished)) == {"f-whole.png"}
    lines = finished.stderr.splitlines()
    assert [Path(line.split(": ")[1]).name for line in lines] == [
        *("a-half.jpg", "b-almost.jpg", "c-text.jpg", "d-empty.png", "e-half.png")
    ]


def test_unusual_pictures_are_pictures_all_the_same(motorway, tmp_path):
    picture = cv2.imread(str(motorway))
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    cv2.imwrite(str(tmp_path / "one.png"), picture[:1, :1])
    cv2.imwrite(str(tmp_path / "tall.png"), np.full((8000, 1, 3), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "wide.png"), np.full((1, 8000, 3), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "colour.png"), picture)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    cv2.imwrite(str(tmp_path / "grey16.png"), grey.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "colour16.png"), picture.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / "opaque.png"), np.dstack([picture, np.full_like(grey, 255)]))
    finished = activeo3("perceive", tmp_path, "--json", "--max-regions", 0, "--classes", "car")
    assert finished.returncode == 0, finished.stderr
    results = objects(finished)
    sizes = {name: (result["width"], result["height"]) for name, result in results.items()}
    assert sizes.pop("one.png") == (1, 1)
    assert sizes.pop("tall.png") == (1, 8000)
    assert sizes.pop("wide.png") == (8000, 1)
    assert set(sizes.values()) == {(1068, 580)}
    for name in ("one.png", "tall.png", "wide.png"):
        assert results[name]["detections"] == []
    assert results["colour16.png"]["detections"] == results["colour.png"]["detections"]
    assert results["opaque.png"]["detections"] == results["colour.png"]["detections"]
    assert results["grey16.png"]["detections"] == results["grey.png"]["detections"] != []


def test_a_picture_of_a_hundred_million_pixels_is_perceived(motorway, tmp_path):
    path = tmp_path / "large.png"
    Image.new("L", (12000, 9000), 90).save(path)
    finished = activeo3("perceive", path, "--json")
    assert finished.returncode == 0, finished.stderr
    assert objects(finished)["large.png"]["width"] == 12000


def test_a_picture_too_large_for_memory_is_refused_before_it_is_decoded(tmp_path, motorway):
    path = tmp_path / "bomb.png"
    Image.new("1", (40000, 40000)).save(path)
    assert_one_clear_line(activeo3("perceive", path), "40000 x 40000", "smaller")


def test_boxes_are_in_the_pixels_of_the_upright_picture(motorway, tmp_path):
    with Image.open(motorway) as picture:
        exif = Image.Exif()
        exif[0x0112] = 6  # stored on its side: to be turned a quarter clockwise
        picture.rotate(90, expand=True).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    finished = activeo3("perceive", tmp_path / "turned.jpg", "--json", "--classes", "car")
    result = objects(finished)["turned.jpg"]
    assert (result["width"], result["height"]) == (1068, 580)
    assert len(result["detections"]) > 10


def test_an_interruption_ends_it_with_one_line(motorway, tmp_path):
    for number in range(100):
        (tmp_path / f"{number:03d}.jpg").symlink_to(motorway)
    with subprocess.Popen(
        ["activeo3", "perceive", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "activeo3: interrupted\n"


def test_doctor_reports_what_is_missing_and_how_to_fix_it(tmp_path):
    finished = activeo3("doctor", "--json", ACTIVEO3_CACHE=str(tmp_path), **dict.fromkeys((TRANSPORTS, *PROFILES), ""))
    assert finished.returncode == 0, finished.stderr
    report = json.loads(finished.stdout)
    presets = {preset["name"]: preset for preset in report["presets"]}
    assert not presets["embedded"]["ok"]
    assert any("activeo3 prefetch embedded" in reason for reason in presets["embedded"]["because"])
    checks = {check["name"]: check for group in report["checks"].values() for check in group}
    assert checks["rclpy"]["ok"]
    if "fastrtps" in checks["middleware"]["found"]:
        assert checks["middleware"]["mend"].startswith("export FAST")
        assert Path(checks["middleware"]["mend"].partition("=")[2]).name == "shared_memory.xml"
    for check in checks.values():
        assert check["ok"] or check["mend"], check


def test_doctor_reports_that_a_preset_can_run(motorway):
    finished = activeo3("doctor")
    assert finished.returncode == 0
    assert "can run     embedded" in finished.stdout
