"""`activeo3 perceive PHOTO --query QUESTION`: zoom to what helps to answer, answer from the crops, show both."""

from __future__ import annotations

import base64
import json

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
