"""`activeo3 validate`: every choice on every data set, from the pictures to the verdict."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml
from demo_scripts import write_script
from tiny_models import build_tiny_model, require_torch

require_torch()
pytest.importorskip("faster_coco_eval", reason="needs requirements/eval.txt")
pytest.importorskip("matplotlib", reason="needs requirements/eval.txt")

from activeo3_ros.assets.resources import config_directory  # noqa: E402
from activeo3_ros.cli.main import main  # noqa: E402
from activeo3_ros.core.errors import InvalidInput  # noqa: E402
from activeo3_ros.evaluation import sharding, validation  # noqa: E402
from activeo3_ros.evaluation.differences import Difference  # noqa: E402
from activeo3_ros.evaluation.scoring import Estimate  # noqa: E402
from activeo3_ros.evaluation.validation import Part  # noqa: E402
from activeo3_ros.presets import load_preset  # noqa: E402
from activeo3_ros.vlm import as_released, engine_registry, imported_prompts  # noqa: E402
from activeo3_ros.vlm.imported_prompts import import_script, save_imported  # noqa: E402


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ACTIVEO3_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def preset(tmp_path, weights):
    """Random weights, as a preset; they say nothing, and whatever they say has to be accounted for."""
    engine = {"type": "auto", "model": str(weights)}
    values = {
        "sensing": {"type": "mllm", "engine": engine},
        "task": {"type": "mllm", "engine": engine},
        "examine_view": False,
        "budget": {"view_pixels": 112 * 112, "crop_pixels": 112 * 112, "max_tokens": 4},
    }
    path = tmp_path / "random.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return str(path)


def picture(path, size=(64, 48)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8))


def questions(folder, *names, size=(64, 48)):
    for name in names:
        picture(folder / f"{name}.jpg", size)
        row = {"question": f"What of {name}?", "options": ["It is red.", "It is blue."], "bbox": [[10, 10, 8, 4]]}
        (folder / f"{name}.json").write_text(json.dumps(row), encoding="utf-8")
    return folder


def soda_d(root, frames=2):
    box = {"area": 100, "iscrowd": 0, "category_id": 1, "bbox": [5, 5, 10, 10]}
    truth = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": 48, "width": 64} for n in range(1, frames + 1)],
        "categories": [{"id": 1, "name": "people"}],
        "annotations": [{**box, "id": n, "image_id": n} for n in range(1, frames + 1)],
    }
    for row in truth["images"]:
        picture(root / "Images" / row["file_name"])
    (root / "Annotations").mkdir()
    (root / "Annotations" / "test.json").write_text(json.dumps(truth), encoding="utf-8")
    return root


def validate(preset, out, *arguments):
    given = ["--engine", "transformers", "--bootstrap", "20"] if preset.endswith("random.yaml") else []
    return main(["validate", preset, "--output", str(out), *given, *map(str, arguments)])


def test_every_choice_runs_on_every_data_set_and_the_verdict_has_intervals(tmp_path, preset, capsys, monkeypatch):
    save_imported(import_script(write_script(tmp_path)))
    out = tmp_path / "out"
    given = ["--pictures", questions(tmp_path / "demo", "sa_1", "sa_2"), "--soda-d", soda_d(tmp_path / "soda")]
    code = validate(preset, out, *given)
    told = capsys.readouterr().out
    values = json.loads((out / "verdict.json").read_text(encoding="utf-8"))
    parts = {part["data"]: part for part in values["parts"]}
    names = [f"{words}-{reasoning}-transformers-3" for words in ("imported", "own") for reasoning in ("none", "full")]
    for name in ("pictures", "soda-d"):
        assert list(parts[name]["methods"]) == names
        assert all(None not in row["estimate"] and row["frames"] == 2 for row in parts[name]["methods"].values())
        assert {d["differ_in"] for d in parts[name]["differences"]} == {"words", "reasoning"}
        assert len(parts[name]["differences"]) == 4
        assert (out / name / "report.html").is_file()
    assert parts["vstar"]["not_run"] == "no --vstar DIR" and "vstar: not run: no --vstar DIR" in told
    assert values["not_run"]["calls as released"] == "the imported script was changed"
    beside = "own-none-transformers-3, in percent: APs 0.0 [0.0, 0.0], ARs 0.0 [0.0, 0.0]; published: "
    [line] = [line for line in parts["soda-d"]["notes"] if line.startswith(beside)]
    assert "ACTIVE-o3 15.1 (above it), 22.0 (above it)" in line
    assert any("no request for regions with targets" in line for line in parts["soda-d"]["notes"])
    assert "the paper has no row for these questions" in parts["pictures"]["notes"][-1]
    assert [line.partition(":")[0] for line in values["in_all"]] == ["words", "reasoning", "engine", "calls"]
    assert "engine: not compared" in values["in_all"]
    failed = [row["failed"] == row["frames"] for part in parts.values() for row in part["methods"].values()]
    assert code == (1 if any(failed) else 0), "a method that failed everywhere is no success"
    assert "words: imported-none-transformers" in (out / "pictures" / "report.html").read_text(encoding="utf-8")

    lost = out / "pictures" / "items" / names[-1] / "2.json"
    lost.unlink()
    runners, make_runner = [], sharding.make_runner
    monkeypatch.setattr(sharding, "make_runner", lambda m, *rest: runners.append(m.id) or make_runner(m, *rest))
    assert validate(preset, out, *given) == code
    assert lost.is_file() and runners == names[-1:], "a second run computes what is missing, and judges"


def test_without_an_import_our_words_alone_are_tried_and_that_is_said(preset):
    plan = validation.make_plan(load_preset(preset), ["transformers"])
    assert [choice.name for choice in plan.methods] == ["own-none-transformers", "own-full-transformers"]
    told = "nothing is imported; run: activeo3 prompts import FILE"
    assert plan.not_run["imported words, calls as released"] == told


def test_each_engine_that_runs_here_is_tried_with_the_settings_that_it_has(tmp_path, weights, monkeypatch):
    monkeypatch.setattr(validation, "problems", lambda: {"transformers": "", "vllm": ""})
    engine = {"type": "transformers", "model": str(weights), "cache": "static"}
    values = {"sensing": {"type": "mllm", "engine": engine}, "task": {"type": "mllm", "engine": engine}}
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    plan = validation.make_plan(load_preset(str(path)))
    assert [choice.engine for choice in plan.methods] == ["transformers"] * 2 + ["vllm"] * 2
    engines = [method.preset.sensing.settings["engine"] for method in plan.methods.values()]
    assert engines[0] == engine and engines[-1] == {"type": "vllm", "model": str(weights)}
    for method in plan.methods.values():
        method.preset.sensing.check()
        method.preset.task.check()
    assert "engine vllm" in validation.make_plan(load_preset(str(path)), ["transformers"]).not_run


def test_what_is_clear_in_all_data_sets_together_is_the_verdict():
    def part(*estimates):
        pairs = [(Difference("a", "b", "accuracy", Estimate(*each)), "words") for each in estimates]
        return Part("pictures", "accuracy", differences=pairs)

    words = [validation.overall([part(*each)])[0] for each in (
        [(0.2, 0.1, 0.3), (0.1, -0.1, 0.3)], [(-0.2, -0.3, -0.1)], [(0.2, 0.1, 0.3), (-0.2, -0.3, -0.1)], [(0.1,)], [],
    )]  # fmt: skip
    assert words == [
        "words: imported words are better in 1 of 2 comparisons",
        "words: our own words are better in 1 of 1 comparison",
        "words: imported words are better in 1 and our own words are better in 1 of 2 comparisons",
        "words: no clear difference of 1 comparison",
        "words: not compared",
    ]


def test_a_published_number_is_placed_by_the_interval():
    measured = Estimate(0.15, 0.12, 0.18)
    assert [validation._where(number, measured) for number in (0.02, 0.15, 0.2)] == [
        "below it", "in the interval", "above it",
    ]  # fmt: skip
    assert validation._where(0.1, Estimate(0.1)) == "no interval"


def test_the_scripts_calls_are_one_of_the_choices(tmp_path, preset, monkeypatch, capsys):
    found = import_script(write_script(tmp_path))
    monkeypatch.setattr(imported_prompts, "RELEASED", found.sha256)
    save_imported(found)
    for module in (as_released, validation):
        monkeypatch.setattr(module, "MAX_TOKENS", 4)  # random weights would write all that they may
    out = tmp_path / "out"
    validate(preset, out, "--pictures", questions(tmp_path / "demo", "sa_1", size=(1030, 1024)))
    values = json.loads((out / "verdict.json").read_text(encoding="utf-8"))
    methods = values["parts"][0]["methods"]
    assert "as_released-transformers-3" in methods and len(methods) == 5
    assert {d["differ_in"] for d in values["parts"][0]["differences"]} == {"words", "reasoning", "calls"}
    items = out / "pictures" / "items" / "as_released-transformers-3"
    [item] = [json.loads(path.read_text(encoding="utf-8")) for path in items.glob("*.json")]
    assert item["cost"]["tokens"] > 0 or "answers could be used" in item["status_message"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["{preset}"], "nothing to validate with: give --pictures DIR, --vstar DIR or --soda-d DIR"),
        (["grid", "--pictures", "{empty}"], "its policy 'grid' is no vision-language model"),
        (["{preset}", "--pictures", "{empty}"], "has no *.json with a question beside each picture"),
        (["{preset}", "--vstar", "{empty}"], "has no direct_attributes/*.json"),
        (["{preset}", "--pictures", "{demo}", "--engine", "abacus"], "engine abacus: the preset's engine is auto"),
        (["remote", "--pictures", "{demo}", "--engine", "transformers"], "the preset's engine is remote"),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(tmp_path, preset, capsys, arguments, complaint):
    (tmp_path / "empty").mkdir()
    places = {"preset": preset, "empty": tmp_path / "empty", "demo": questions(tmp_path / "demo", "sa_1")}
    out = tmp_path / "out"
    assert main(["validate", "--output", str(out), *(each.format(**places) for each in arguments)]) == 2
    told = capsys.readouterr().err
    assert complaint in told and told.count("\n") == 1
    assert not list(tmp_path.glob("out/*/items"))


def test_a_machine_without_any_engine_is_told_what_is_missing(monkeypatch):
    monkeypatch.setattr(engine_registry, "has_package", lambda name: False)
    with pytest.raises(InvalidInput, match="engine transformers: torch is not installed; engine vllm: torch is not"):
        validation.make_plan(load_preset("active_o3"))


def test_a_prompt_of_the_users_own_leaves_no_words_to_choose_from(preset):
    known = load_preset(preset)
    own = replace(known.sensing, settings={**known.sensing.settings, "prompt": "sensing_segmentation"})
    with pytest.raises(InvalidInput, match="has a prompt of its own"):
        validation.make_plan(replace(known, sensing=own))


def test_a_file_that_is_no_verdict_stays(tmp_path, preset, capsys):
    (tmp_path / "verdict.txt").write_text("guilty", encoding="utf-8")
    assert validate(preset, tmp_path, "--pictures", questions(tmp_path / "demo", "sa_1")) == 2
    assert "verdict.txt would be overwritten, and is of no validation" in capsys.readouterr().err


def test_a_preset_of_a_server_tries_that_alone():
    plan = validation.make_plan(load_preset("remote"))
    assert {choice.engine for choice in plan.methods} == {"remote"}


def test_the_trained_tiny_model_goes_the_whole_way(tmp_path, capsys):
    """Its words are few, so what it makes of others is no matter; every frame is accounted for."""
    save_imported(import_script(write_script(tmp_path)))
    values = yaml.safe_load((config_directory() / "tiny.yaml").read_text(encoding="utf-8"))
    values["budget"] |= {"view_pixels": 112 * 112, "crop_pixels": 112 * 112, "max_tokens": 24}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    out = tmp_path / "out"
    folder = questions(tmp_path / "demo", "sa_1", size=(448, 252))
    validate(str(path), out, "--pictures", folder, "--engine", "transformers", "--bootstrap", "20")
    values = json.loads((out / "verdict.json").read_text(encoding="utf-8"))
    assert len(values["parts"][0]["methods"]) == 4
    assert len(list(out.glob("pictures/items/*/*.json"))) == 4
