"""`activeo3 perceive PHOTO --query QUESTION`: zoom to what helps to answer, answer from the crops, show both."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from openai_server import Server, completion

from activeo3_ros.assets.resources import config_directory
from activeo3_ros.cli.main import main
from activeo3_ros.vlm.families import FAMILIES

QUESTION = "What is the number on the police car?"
CAR = (1200, 600, 240, 180)
"""Where the car is in the photo, x, y, width, height in pixels."""
SIGN = (100, 80, 200, 200)


@pytest.fixture
def photo(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8)
    path = tmp_path / "street.png"
    cv2.imwrite(str(path), image)
    return path, image


def shown(body):
    """The picture that a request carries."""
    url = next(part for part in body["messages"][1]["content"] if part["type"] == "image_url")["image_url"]["url"]
    return cv2.imdecode(np.frombuffer(base64.b64decode(url.partition("base64,")[2]), np.uint8), 1)


def corners(family, box, size):
    """A box as shares of a picture, as the model writes it."""
    wide, high = family.extent(size)
    return [round(box[0] * wide), round(box[1] * high), round(box[2] * wide), round(box[3] * high)]


def preset(tmp_path, name, **engine):
    """A shipped preset, its policy behind another engine."""
    values = yaml.safe_load((config_directory() / f"{name}.yaml").read_text(encoding="utf-8"))
    values["sensing"]["engine"] = values["task"]["engine"] = engine
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_a_question_is_answered_from_a_zoomed_region_and_everything_is_saved(photo, tmp_path, capsys, family):
    path, image = photo

    def choose(handler):
        size = shown(handler.request_body).shape[1::-1]
        assert QUESTION in handler.request_body["messages"][1]["content"][-1]["text"]
        rows = [(x / 1920, y / 1080, (x + w) / 1920, (y + h) / 1080) for x, y, w, h in (CAR, SIGN)]
        items = ", ".join(f'{{"bbox_2d": {corners(family, row, size)}, "label": "a car"}}' for row in rows)
        handler.answer(completion(items + "]"))

    def read(handler):
        size = shown(handler.request_body).shape[1::-1]
        where = corners(family, (0.25, 0.5, 0.75, 1), size)
        handler.answer(completion(f'102", "bbox_2d": {where}, "label": "number"}}'))

    def see_nothing(handler):
        handler.answer(completion('unknown"}'))

    def examine(handler):
        crop = shown(handler.request_body)
        wanted = cv2.resize(image[600:780, 1200:1440], crop.shape[1::-1]).astype(float)
        # Which of the two crops this is: they are asked for at the same time.
        (read if np.abs(crop - wanted).mean() < 30 else see_nothing)(handler)

    out = tmp_path / "out"
    with Server(choose, examine, examine) as server:
        settings = preset(
            tmp_path, "active_o3", type="remote", url=server.url, model="policy", family=family.name, jpeg_quality=0
        )
        assert (
            main(["perceive", str(path), "--query", QUESTION, "--preset", settings, "--json", "--out", str(out)]) == 0
        )
    result = json.loads(capsys.readouterr().out)
    model_px = 1920 / family.extent(family.fit(1920, 1080, 2_097_152, 1024))[0]
    first, second = result["regions"]
    assert [first[key] for key in ("x", "y", "width", "height")] == pytest.approx(CAR, abs=2 * model_px)
    assert result["status"] == "complete" and result["answer"] == "102"
    (found,) = result["groundings"]
    assert found["text"] == "102" and found["region"] == 0 and found["phrase"] == QUESTION
    place = first["x"] + first["width"] / 4, first["y"] + first["height"] / 2, first["width"] / 2, first["height"] / 2
    assert [found[key] for key in ("x", "y", "width", "height")] == pytest.approx(place, abs=1)
    for number, region in enumerate((first, second), start=1):
        x, y, wide, high = (round(region[key]) for key in ("x", "y", "width", "height"))
        saved = cv2.imread(str(out / f"street.region{number}.png"))
        assert np.array_equal(saved, image[y : y + high, x : x + wide]), "the crop at its full resolution"
    assert cv2.imread(str(out / "street.annotated.jpg")).shape == image.shape
    view, *crops = (shown(body) for _, _, body in server.requests)
    assert min(view.shape[:2]) == pytest.approx(1024, abs=family.cell_px), "the paper's view"
    assert all(crop.shape[:2] == (family.cell_px * (840 // family.cell_px),) * 2 for crop in crops), "and its crops"


@pytest.mark.parametrize("name", ["active_o3", "active_o3_gdino", "qwen25vl_cot"])
def test_without_its_weights_a_preset_ends_with_one_line_that_says_what_to_run(
    photo, tmp_path, capsys, monkeypatch, name
):
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    monkeypatch.setenv("ACTIVEO3_CACHE", str(tmp_path / "cache"))
    assert main(["perceive", str(photo[0]), "--query", QUESTION, "--preset", name]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "run: activeo3 prefetch" in line and "Traceback" not in line


def test_doctor_names_the_engine_and_says_why(capsys):
    assert main(["doctor", "--json"]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]["GPU"]
    (engine,) = [check["found"] for check in checks if check["name"] == "engine"]
    name, _, reason = engine.partition(": ")
    assert name in ("transformers", "vllm", "remote") and len(reason) > 10


COLOURS = {"red": (40, 40, 220), "green": (40, 200, 40), "blue": (220, 60, 40), "white": (250, 250, 250)}


def vstar_of_colours(folder, count):
    """Pictures in the form of V*Bench: a car of one colour on a grey road, and the question which colour it has."""
    (folder / "direct_attributes").mkdir(parents=True)
    for number in range(count):
        right = [*COLOURS][number % len(COLOURS)]
        image = np.random.default_rng(number).integers(90, 130, (168, 252, 3), np.uint8)
        image[60:100, 100:160] = COLOURS[right]
        cv2.imwrite(str(folder / "direct_attributes" / f"sa_{number}.jpg"), image)
        options = [f"The car is {name}." for name in sorted(COLOURS, key=lambda name: name != right)]
        row = {
            "target_object": ["car"],
            "bbox": [[100, 60, 60, 40]],
            "question": "What colour is it?",
            "options": options,
        }
        (folder / "direct_attributes" / f"sa_{number}.json").write_text(json.dumps(row), encoding="utf-8")
    return folder


def server_that_looks(handler):
    """Stands in for a model that looks: it answers with the letter of the colour in the picture that it is sent."""
    image = shown(handler.request_body).astype(int)
    middle = image[np.abs(image - 110).max(axis=2) > 60]
    name = min(COLOURS, key=lambda each: np.abs(middle.mean(axis=0) - COLOURS[each]).sum()) if len(middle) > 99 else ""
    lines = handler.request_body["messages"][1]["content"][-1]["text"].splitlines()
    letter = next((line[1] for line in lines if name and f"is {name}." in line), "unknown")
    handler.answer(completion(f'{letter}"}}'))


def server_that_ignores_pictures(handler):
    """Stands in for a model that answers from what is usual: cars are white."""
    lines = handler.request_body["messages"][1]["content"][-1]["text"].splitlines()
    handler.answer(completion(f'{next(line[1] for line in lines if "is white." in line)}"}}'))


@pytest.mark.parametrize(
    ("answers", "right", "verdict"),
    [(server_that_looks, 1.0, "remote-0 looks: 1.00"), (server_that_ignores_pictures, 0.25, "remote-0 does not look")],
)
def test_whether_a_language_model_looks_is_told_by_one_command(tmp_path, capsys, answers, right, verdict):
    pytest.importorskip("faster_coco_eval", reason="needs requirements/eval.txt")
    pytest.importorskip("matplotlib", reason="needs requirements/eval.txt")
    root = vstar_of_colours(tmp_path / "vstar", 20)
    out = tmp_path / "out"
    with Server(*[answers] * 200) as server:
        settings = preset(tmp_path, "remote", type="remote", url=server.url, model="policy", jpeg_quality=0)
        values = yaml.safe_load(Path(settings).read_text(encoding="utf-8"))
        values["budget"]["view_pixels"] = 168 * 252
        Path(settings).write_text(yaml.safe_dump(values), encoding="utf-8")
        command = ["benchmark", "vstar", "--root", str(root), "--with-choices", "--counterfactual", "--regions", "0"]
        assert main([*command, "--preset", settings, "--bootstrap", "50", "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    (method,) = metrics["methods"]
    assert method["quality"]["right, as it is"][0] == right and method["failed"] == 0
    assert metrics["looking"]["remote-0"].startswith(verdict)
    assert verdict in capsys.readouterr().out and len(server.requests) == 120
