"""`activeo3 evaluate` and `benchmark composite`: from frames to a report; resumed, sharded and repeated runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_fixtures import START_NS, STEP_NS, raw_messages, write_mcap

pytest.importorskip("faster_coco_eval", reason="needs requirements/eval.txt")
pytest.importorskip("matplotlib", reason="needs requirements/eval.txt")

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.packages import NEEDED_BY, require
from activeo3_ros.cli import main as cli
from activeo3_ros.core import Budget, Frame, Query
from activeo3_ros.evaluation.composite_dataset import (
    SCENE_SIZE,
    SOURCES,
    box_of,
    make_scene,
    read_source,
    resized,
    vehicle_cutouts,
)
from activeo3_ros.evaluation.oracle import Oracle
from activeo3_ros.evaluation.region_quality import region_quality

SAMPLES = 2


@pytest.fixture(scope="module", autouse=True)
def models() -> None:
    try:
        for asset in NEEDED_BY["demo"]:
            require(asset)
    except AssetError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the composite benchmark with all methods, computed by two processes."""
    out = tmp_path_factory.mktemp("composite")
    command = [
        "benchmark",
        "composite",
        "--samples",
        str(SAMPLES),
        "--regions",
        "0,2",
        "--baselines",
        "--bootstrap",
        "50",
    ]
    assert run(*command, "--out", str(out), "--workers", "2") == 0
    return out


def run(*arguments: str) -> int:
    return subprocess.run(
        [sys.executable, "-m", "activeo3_ros.cli", *arguments], env=os.environ.copy(), check=False
    ).returncode


def test_two_processes_share_the_items_and_the_metrics_have_all_methods(finished: Path):
    metrics = json.loads((finished / "metrics.json").read_text())
    names = [method["id"] for method in metrics["methods"]]
    baselines = ["full_frame-0", "centre_crop-2", "grid-2", "random-2", "sahi", "adaptive_slices", "oracle-2"]
    assert names == ["embedded-0", "embedded-2", *baselines]
    assert len(list(finished.glob("items/*/*.json"))) == SAMPLES * len(names)
    for method in metrics["methods"]:
        value, low, high = method["quality"]["AR"]
        assert low <= value <= high
        assert method["failed"] == 0
        assert method["cost"]["views"] == 1 + method["cost"]["regions"]
        assert method["regions"] in (None, method["cost"]["regions"]) or method["name"] == "oracle"
    assert {d["a"] for d in metrics["differences"]} == {"embedded-2"}
    assert "faster-coco-eval" in metrics["environment"]["versions"]
    assert (finished / "metrics.csv").read_text().startswith("method,regions,metric,value,low,high\n")


def test_the_oracle_is_a_bound_and_its_search_is_kept(finished: Path):
    methods = {m["id"]: m for m in json.loads((finished / "metrics.json").read_text())["methods"]}
    for metric in ("AR small", "AR50 small", "AR"):
        assert methods["oracle-2"]["quality"][metric][0] >= methods["embedded-2"]["quality"][metric][0]
    assert len(list((finished / "oracle").glob("*.json"))) == SAMPLES
    assert methods["oracle-2"]["cost"]["ms_p50"] < 20 * methods["embedded-2"]["cost"]["ms_p50"], "without its search"


def test_a_killed_run_computes_the_missing_items_only_and_ends_the_same(finished: Path, tmp_path: Path, capsys):
    out = tmp_path / "resumed"
    shutil.copytree(finished, out)
    kept, removed = out / "items" / "grid-2" / "1.json", out / "items" / "grid-2" / "2.json"
    before, removed_before = kept.stat().st_mtime_ns, json.loads(removed.read_text())
    removed.unlink()
    command = [
        "benchmark",
        "composite",
        "--samples",
        str(SAMPLES),
        "--regions",
        "0,2",
        "--baselines",
        "--bootstrap",
        "50",
    ]
    assert cli.main([*command, "--out", str(out)]) == 0
    assert kept.stat().st_mtime_ns == before
    again = json.loads(removed.read_text())
    assert {**again, "timings_ms": 0} == {**removed_before, "timings_ms": 0}
    first, second = (json.loads((path / "metrics.json").read_text()) for path in (finished, out))
    assert [m["quality"] for m in first["methods"]] == [m["quality"] for m in second["methods"]]
    assert first["differences"] == second["differences"]

    assert cli.main([*command[:3], "3", *command[4:], "--out", str(out)]) == 2
    assert "is of other work (it differs in dataset, samples, oracle-2)" in capsys.readouterr().err


def test_a_process_of_torchrun_computes_its_shard_only(tmp_path: Path):
    for rank in (0, 1):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
        command = [sys.executable, "-m", "activeo3_ros.cli", "benchmark", "composite", "--samples", "3"]
        command += ["--preset", "full_frame", "--out", str(tmp_path)]
        assert subprocess.run(command, env=environment, check=False).returncode == 0
        assert len(list(tmp_path.glob("items/*/*.json"))) == (2, 3)[rank]


def test_the_report_needs_nothing_but_itself(finished: Path):
    page = (finished / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]+"', page)
    assert not re.findall(r"@import|url\((?!#|data:)", page)
    assert page.startswith("<!DOCTYPE html>")
    for part in ("Quality against budget", "Latency", "Worst frames", "oracle", "benchmark composite --samples"):
        assert part in page
    assert page.count("<svg") == 3


def test_the_report_shows_itself_in_a_browser(finished: Path, tmp_path: Path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path}",
    ]
    command += [
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--window-size=1250,2400",
        f"--screenshot={tmp_path / 's.png'}",
    ]
    subprocess.run([*command, (finished / "report.html").as_uri()], check=True, capture_output=True, timeout=120)
    picture = cv2.imread(str(tmp_path / "s.png"))
    assert picture.shape == (2400, 1250, 3)
    rows = (picture < 128).any(axis=(1, 2))
    assert rows[:1200].mean() > 0.2  # the table and the curves are there
    assert (np.ptp(picture.astype(int), axis=2) > 60).mean() > 0.001  # coloured lines
    filled = (picture < 250).all(axis=2).mean(axis=1) > 0.8
    assert filled.sum() > 150  # a photograph from side to side


def test_frames_of_a_bag_are_judged_by_their_stamps(tmp_path: Path, capsys):
    bag = write_mcap(tmp_path / "a.mcap", raw_messages(3))
    truth = {
        "images": [{"id": i, "stamp": START_NS + i * STEP_NS, "height": 48, "width": 64} for i in (0, 2, 99)],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 9, 9]}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    command = ["evaluate", "--coco", str(tmp_path / "truth.json"), "--bag", str(bag), "--preset", "full_frame"]
    assert cli.main([*command, "--out", str(tmp_path / "out"), "--bootstrap", "10"]) == 0
    assert "1 frames of" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out" / "items" / "full_frame-0").iterdir()) == ["0.json", "2.json"]

    truth["images"][0].update(width=128, height=96)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    assert cli.main([*command, "--out", str(tmp_path / "resized")]) == 2
    assert "image 0 is 128 x 96 pixels in the annotations, but the picture has 64 x 48" in capsys.readouterr().err
    truth["images"][0].update(width=64, height=48)
    truth["images"].append({**truth["images"][0], "id": "again"})
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    assert cli.main([*command, "--out", str(tmp_path / "twice")]) == 2
    assert "the images 0 and again are one frame" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("categories"), "has no list 'categories'"),
        (lambda t: t["annotations"][0].update(image_id=5), "is of the image 5, which does not exist"),
        (lambda t: t["annotations"][0].update(category_id=5), "has the category 5, which does not exist"),
        (lambda t: t["annotations"][0].update(bbox=[1, 2, -3, 4]), "a box is x, y, width, height"),
        (lambda t: t["annotations"][0].pop("bbox"), "annotation 1 has no 'bbox'"),
        (lambda t: t["images"].append(t["images"][0]), "two entries have the same image id"),
        (lambda t: t["images"][0].update(file_name="no.jpg"), "no.jpg is missing"),
        (lambda t: t["categories"][0].update(name="unicorn"), "unicorn"),
    ],
)
def test_wrong_ground_truth_is_one_line_and_exit_code_2(tmp_path: Path, change, says: str, capsys):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((48, 64, 3), np.uint8))
    truth = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 48, "width": 64}],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}],
    }
    change(truth)
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    command = ["evaluate", "--coco", str(tmp_path / "truth.json"), "--images", str(tmp_path), "--preset", "full_frame"]
    assert cli.main([*command, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def write_truth(folder: Path, names: list[str]) -> list[str]:
    """Ground truth of pictures of one car each, and the command that judges them."""
    truth = {
        "images": [{"id": name, "file_name": name} for name in names],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [{"image_id": name, "category_id": "1", "bbox": [1, 1, 9, 9]} for name in names],
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    command = ["evaluate", "--coco", str(folder / "truth.json"), "--images", str(folder), "--preset", "full_frame"]
    return [*command, "--out", str(folder / "out"), "--bootstrap", "10"]


def test_a_run_in_which_every_frame_failed_ends_with_1_and_says_why(tmp_path: Path, capsys):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"no picture")
    assert cli.main(write_truth(tmp_path, ["a.jpg", "b.jpg"])) == 1
    printed = capsys.readouterr()
    assert "full_frame-0: every frame failed and counts as one in which nothing was found: " in printed.err
    assert "a.jpg: not a picture in a known format" in printed.err
    assert "nan" not in printed.out


def test_some_failed_frames_and_a_size_without_objects_are_told_without_nan(tmp_path: Path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "b.png").write_bytes(b"no picture")
    command = write_truth(tmp_path, ["a.png", "b.png"])
    assert cli.main([*command, "--preset", "embedded", "--regions", "2"]) == 0
    printed = capsys.readouterr()
    assert "1 of 2 frames failed" in printed.err
    assert "nan" not in printed.out


def test_scenes_are_the_same_for_a_seed_and_their_boxes_fit_their_masks():
    scene, again, other = make_scene(3, 1), make_scene(3, 1), make_scene(4, 1)
    assert np.array_equal(scene.image, again.image)
    assert scene.boxes == again.boxes
    assert not np.array_equal(scene.image, other.image)
    assert scene.image.shape == (SCENE_SIZE[1], SCENE_SIZE[0], 3)
    assert scene.boxes
    for box, mask in zip(scene.boxes, scene.masks, strict=True):
        outside = mask.copy()
        outside[box.slices()] = False
        assert mask.any()
        assert not outside.any()


def test_the_oracle_of_boxes_covers_the_small_objects_first():
    frame = Frame(np.zeros((1080, 1920, 3), np.uint8))
    oracle = Oracle()
    oracle.true_boxes = np.array([[100.0, 100, 12, 12], [130, 110, 12, 12], [1500, 900, 14, 14], [600, 300, 500, 400]])
    view = frame.view(frame.window, (512, 288))
    regions = [view.box_to_source(r.box) for r in oracle.propose(view, Query(), Budget(max_regions=2)).regions]
    quality = region_quality([r.as_tuple() for r in regions], oracle.true_boxes[:3])
    assert quality.covered == 3
    assert not oracle.propose(view, Query(), Budget(max_regions=0)).regions


def test_region_quality_by_hand():
    quality = region_quality([[0, 0, 10, 10], [5, 0, 10, 10]], [[0, 0, 5, 10], [2, 0, 5, 10], [50, 50, 4, 4]])
    assert (quality.covered, quality.objects) == (2, 3)
    assert quality.purity == pytest.approx((0.7 + 0.2) / 2)  # the objects' union: columns 0 to 7
    assert quality.overlap == pytest.approx(50 / 150)


# ---- counterfactual pictures -----------------------------------------------------------------------------------------


def composed_vehicles(folder: Path, count: int) -> Path:
    """Pictures of one vehicle each amid an empty part of a real scene, and the file of their truth."""
    cutouts = [cutout for cutout in vehicle_cutouts() if min(cutout.opacity.shape) >= 90]
    images, annotations = [], []
    for number in range(1, count + 1):
        source = SOURCES[1]
        left, top, _, high = source.scene
        window = slice(top + high - 200, top + high), slice(left + 40 * number, left + 40 * number + 360)
        scene = np.array(read_source(source.picture)[window])
        vehicle = resized(cutouts[number % len(cutouts)], 100.0, bool(number % 2))
        tall, broad = vehicle.opacity.shape
        left, top = 180 - broad // 2, 110 - tall // 2
        opacity = vehicle.opacity[..., None]
        patch = scene[top : top + tall, left : left + broad]
        scene[top : top + tall, left : left + broad] = (patch * (1 - opacity) + vehicle.image * opacity).round()
        cv2.imwrite(str(folder / f"{number}.png"), scene)
        images.append({"id": number, "file_name": f"{number}.png"})
        box = list(box_of(vehicle.opacity >= 0.5, left, top).as_tuple())
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box})
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "vehicle"}]}
    (folder / "truth.json").write_text(json.dumps(truth))
    return folder / "truth.json"


BLIND = """
import numpy as np
from activeo3_ros.core import DetectedBoxes, InputSize

class FakeThatIgnoresPictures:
    '''Stands in for a detector that says what is usual: there is a car in the middle.'''
    names, input_size, concurrent = ("car", "truck", "bus"), InputSize(360, 200), False

    def detect(self, images, threshold):
        shares = np.array([USUAL])
        return [
            DetectedBoxes(
                shares * np.tile(image.shape[1::-1], 2), np.array([0.9], np.float32), np.zeros(1, np.intp)
            )
            for image in images
        ]
"""
"""A detector that looks at nothing."""


def test_a_detector_that_looks_and_one_that_does_not_are_told_apart_by_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    truth = composed_vehicles(tmp_path, 8)
    boxes = np.array([row["bbox"] for row in json.loads(truth.read_text())["annotations"]])
    usual = boxes.mean(axis=0) / (360, 200, 360, 200)
    (tmp_path / "blind_detector.py").write_text(f"USUAL = {usual.tolist()}\n{BLIND}")
    monkeypatch.syspath_prepend(str(tmp_path))
    blind = "sensing: {type: full_frame}\ntask: {type: 'blind_detector:FakeThatIgnoresPictures'}\n"
    (tmp_path / "blind.yaml").write_text(f"description: ignores pictures\n{blind}")
    renamed = [f"--count-as={label}=vehicle" for label in ("car", "truck", "bus")]
    command = ["evaluate", "--coco", str(truth), "--images", str(tmp_path), *renamed, "--classes", "car,truck,bus"]
    presets = ["--preset", "full_frame", "--preset", str(tmp_path / "blind.yaml")]
    out = tmp_path / "out"
    assert cli.main([*command, *presets, "--counterfactual", "--bootstrap", "100", "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    looks, ignores = (method["quality"] for method in metrics["methods"])
    assert looks["right, as it is"][0] >= 0.6, "the detector sees vehicles of this size"
    assert looks["follows the picture"][1] > 0.5 and ignores["follows the picture"][:1] == [0.0]
    assert ignores["right, blurred"] == ignores["right, as it is"], "nothing is lost where nothing is looked at"
    assert metrics["looking"]["full_frame-0"].startswith("full_frame-0 looks: ")
    assert "blind-0 does not look" in metrics["looking"]["blind-0"]
    (difference,) = metrics["differences"]
    assert difference["metric"] == "follows the picture" and difference["is_clear"]
    printed = capsys.readouterr().out
    assert "full_frame-0 looks: " in printed and "follows the picture" in printed
    page = (out / "report.html").read_text()
    assert "Does it look?" in page and "blind-0 does not look" in page
