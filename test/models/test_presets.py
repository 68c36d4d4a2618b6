"""Presets: the shipped ones are complete, and a wrong one says which file and which key."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from openai_server import Server

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.onnx_session import ModelError
from activeo3_ros.assets.resources import config_directory
from activeo3_ros.cli import doctor
from activeo3_ros.core import Budget, InvalidInput
from activeo3_ros.presets import SEGMENTER_TYPES, load_preset, preset_names


@pytest.mark.parametrize(
    "name", ["embedded", "full_frame", "centre_crop", "grid", "random", "sahi", "adaptive_slices", "my_detector"]
)
def test_the_shipped_presets_are_there_and_described(name):
    assert name in preset_names()
    preset = load_preset(name)
    assert preset.description
    assert isinstance(preset.budget, Budget)


EXAMPLE = config_directory() / "my_detector.yaml"
INSTEAD = re.compile(r"(?:^  # \w+: .*\n)+", re.MULTILINE)
"""Lines of the example that are a comment each, and a setting without it."""


@pytest.mark.parametrize(
    ("type_name", "settings"),
    [
        ("onnx", {"model": "my_model.onnx", "names": "my_names.txt", "providers": ["cuda", "cpu"]}),
        ("transformers", {"model": "PekingU/rtdetr_r18vd", "precision": "fp16"}),
        ("my_module:MyDetector", {"my_setting": 5}),
    ],
)
def test_each_choice_that_the_example_shows_in_comments_is_a_preset(type_name, settings, tmp_path, monkeypatch):
    (tmp_path / "my_module.py").write_text("class MyDetector:\n    def __init__(self, my_setting: int): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = EXAMPLE.read_text(encoding="utf-8")
    [chosen] = [lines for lines in INSTEAD.findall(text) if yaml.safe_load(uncommented(lines)).get("type") == type_name]
    text = text.replace("  type: embedded\n", "").replace(chosen, uncommented(chosen))
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    task = load_preset(str(tmp_path / "mine.yaml")).task
    expected = {
        name: str(tmp_path / value) if str(value).endswith((".onnx", ".txt")) else value
        for name, value in settings.items()
    }
    assert (task.type, {**task.settings}) == (type_name, {**expected, "threshold": 0.3})


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The current directory, which is not that of the preset."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def written(folder, **lines):
    folder.mkdir(exist_ok=True)
    return write(folder, **lines)


ONNX = "{type: onnx, model: models/mine.onnx, names: labels, calibration: c.yaml, vocabulary: words.yaml}"


def test_the_paths_in_a_preset_count_from_its_own_directory(tmp_path, elsewhere):
    """Whatever the current directory is, and whether something of that name is there."""
    own = tmp_path / "own"
    preset = written(own, task=ONNX)
    for name in ("models/mine.onnx", "labels", "c.yaml", "words.yaml"):
        for folder in (own, elsewhere):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()
    expected = {"model": "models/mine.onnx", "names": "labels", "calibration": "c.yaml", "vocabulary": "words.yaml"}
    expected = {name: str(own / path) for name, path in expected.items()}
    assert load_preset(preset).task.settings == expected
    inner = written(own, sensing=f"{{type: detector_proposals, detector: {ONNX}}}")
    assert load_preset(inner).sensing.detector.settings == expected
    assert load_preset("../own/mine.yaml").sensing.detector.settings["model"] == "../own/models/mine.onnx"


@pytest.mark.parametrize("name", ["models/mine.onnx", "labels", "c.yaml", "words.yaml"])
def test_a_path_that_only_the_current_directory_has_is_refused_with_what_to_write(tmp_path, elsewhere, name):
    preset = written(tmp_path / "own", task=ONNX)
    (elsewhere / name).parent.mkdir(exist_ok=True)
    (elsewhere / name).touch()
    with pytest.raises(InvalidInput) as refusal:
        load_preset(preset)
    told = str(refusal.value)
    assert f"{preset}: task 'onnx': " in told and "\n" not in told
    assert f"{name} is in the current directory and not in that of the preset file" in told
    assert told.endswith(f": ../elsewhere/{name}")


def test_a_model_file_that_is_nowhere_is_named_where_it_was_looked_for(tmp_path, elsewhere):
    preset = load_preset(written(tmp_path / "own", task="{type: onnx, model: mine.onnx}"))
    with pytest.raises(ModelError, match=re.escape(f"{tmp_path / 'own' / 'mine.onnx'}: does not exist")):
        preset.build()


def test_names_hub_ids_and_whole_paths_stay_as_they_are(tmp_path, elsewhere):
    own = tmp_path / "own"
    for folder in (own, elsewhere):
        (folder / "coco").mkdir(parents=True)  # a data set, not the vocabulary
    model = tmp_path / "whole.onnx"
    preset = written(own, task=f"{{type: onnx, model: {model}, vocabulary: coco, names: [car]}}")
    assert load_preset(preset).task.settings == {"model": str(model), "vocabulary": "coco", "names": ["car"]}
    preset = written(own, task="{type: transformers, model: PekingU/rtdetr_r18vd}")
    assert load_preset(preset).task.settings == {"model": "PekingU/rtdetr_r18vd"}
    engine = "{type: mllm, engine: {type: %s, model: weights}, prompt: task_grounding}"
    (own / "weights").mkdir()
    loaded = load_preset(written(own, task=engine % "transformers")).task.settings["engine"]
    assert loaded["model"] == str(own / "weights")
    assert load_preset(written(own, task=engine % "remote")).task.settings["engine"]["model"] == "weights"


def test_results_depend_on_what_is_in_the_files_that_a_preset_names_and_not_on_where_they_are(tmp_path):
    facts = []
    for place, names in (("here", "car"), ("there", "car"), ("other", "bus")):
        preset = written(tmp_path / place, task="{type: onnx, model: m.onnx, names: n.txt}")
        (tmp_path / place / "m.onnx").write_bytes(b"a model")
        (tmp_path / place / "n.txt").write_text(names)
        facts.append(load_preset(preset).task.facts)
        own = "{type: detector_proposals, detector: {type: onnx, model: m.onnx, names: n.txt}}"
        facts.append(load_preset(written(tmp_path / place, sensing=own)).sensing.facts)
    assert facts[:2] == facts[2:4]
    assert facts[0] != facts[4] and facts[1] != facts[5]


def test_results_depend_on_what_is_in_the_head_of_gain_maps_whether_the_preset_names_it_or_not(tmp_path, monkeypatch):
    named, packaged = written(tmp_path / "named", sensing="{type: gain_maps, model: head.onnx}"), tmp_path / "config"
    ours = written(tmp_path / "ours", sensing="{type: gain_maps}")
    (packaged / "gain_maps").mkdir(parents=True)
    monkeypatch.setattr("activeo3_ros.presets.config_directory", lambda: packaged)
    facts = []
    for content in (b"a head", b"another head"):
        (tmp_path / "named" / "head.onnx").write_bytes(content)
        (packaged / "gain_maps" / "embedded.onnx").write_bytes(content)
        facts.append([load_preset(path).sensing.facts for path in (named, ours)])
    assert facts[0][0] == facts[0][1]
    assert facts[0][0] != facts[1][0] and facts[0][1] != facts[1][1]


def uncommented(lines: str) -> str:
    return re.sub(r"^  # ", "  ", lines, flags=re.MULTILINE)


GOOD = {"sensing": "{type: full_frame}", "task": "{type: embedded}"}


def write(tmp_path, **lines):
    path = tmp_path / "mine.yaml"
    path.write_text("\n".join(f"{key}: {value}" for key, value in {**GOOD, **lines}.items()))
    return str(path)


def test_a_preset_of_one_s_own_is_given_by_its_path(tmp_path):
    preset = load_preset(write(tmp_path, budget="{max_regions: 5}", query="{classes: [car]}"))
    assert (preset.name, preset.budget.max_regions, preset.query.classes) == ("mine", 5, ("car",))


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ({"sensing": "{}"}, "'sensing' needs a 'type'"),
        ({"task": "17"}, "task must be a mapping"),
        ({"budget": "{max_region: 3}"}, "unknown budget key 'max_region'"),
        ({"budget": "{max_region: 3}"}, "did you mean 'max_regions'?"),
        ({"budget": "{max_regions: few}"}, "budget: max_regions must be a whole number, got 'few'"),
        ({"budget": "{max_regions: 1000}"}, "max_regions must be 0 to 64, got 1000"),
        ({"budget": "{crop_pixels: -4}"}, "crop_pixels must be"),
        ({"colour": "blue"}, "unknown preset key 'colour'"),
        ({"query": "{text: [}"}, "not a readable YAML file"),
        ({"query": "{classes: car}"}, "query: classes must be a list of texts, got 'car'"),
        ({"query": "{classes: [on]}"}, "query: classes must be a list of texts, got [True]"),
        ({"examine_view": "'no'"}, "examine_view must be true or false, got 'no'"),
        ({"sensing": "{type: grid, overlap: 3}"}, "sensing 'grid': overlap must be 0 to 0.9, got 3"),
        (
            {"sensing": "{type: grid, overlap: wide}"},
            "sensing 'grid': overlap must be a number, got 'wide'; allowed is 0",
        ),
        ({"sensing": "{type: gird}"}, "did you mean 'grid'?"),
        (
            {"task": "{type: embedded, detector: mine}"},
            "task 'embedded' has no setting 'detector'; it has threads",
        ),
        ({"segmenter": "{type: grabcut, iterations: 0}"}, "segmenter 'grabcut': iterations must be 1 to 20, got 0"),
    ],
)
def test_a_wrong_preset_is_refused_with_file_and_key(tmp_path, lines, complaint):
    with pytest.raises(InvalidInput, match=r"mine\.yaml") as refusal:
        load_preset(write(tmp_path, **lines))
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_value_that_only_the_model_can_refuse_is_named_with_the_file_too(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    with pytest.raises(InvalidInput, match=r"mine\.yaml: segmenter 'sam': device 'warp' is unknown"):
        load_preset(write(tmp_path, segmenter="{type: sam, device: warp}")).segmenter.build(SEGMENTER_TYPES)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(InvalidInput, match=r"unknown preset 'nope'; choose one of .*embedded"):
        load_preset("nope")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("my.yaml", "/my.yaml does not exist"),
        ("no/such/dir/mine.yml", "/no/such/dir/mine.yml does not exist"),
        ("embeded.yaml", "does not exist; give the path of one that does; did you mean 'embedded'?"),
        ("~/no-such-preset.yaml", f"{Path.home()}/no-such-preset.yaml does not exist"),
        ("folder.yaml", "folder.yaml is a directory"),
        ("some/where/embedded", "a preset file ends in .yaml, got 'some/where/embedded'; did you mean 'embedded'?"),
        ("folder", "a preset file ends in .yaml, got 'folder'"),
        ("embeded", "unknown preset 'embeded'; choose one of"),
    ],
)
def test_a_preset_file_that_is_missing_is_no_unknown_preset(tmp_path, monkeypatch, name, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidInput) as refusal:
        load_preset(name)
    assert complaint in str(refusal.value)
    assert ("unknown preset" in str(refusal.value)) == (name == "embeded")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ({"task": "{type: embedded, treshold: 0.3}"}, "did you mean 'threshold'?"),
        ({"sensing": "{type: mllm, engine: {type: remote, ulr: 'http://x', model: y}}"}, "did you mean 'url'?"),
        ({"sensing": "{type: mllm, engine: {type: remote, url: x, model: y}}"}, "url must begin with http://"),
        ({"sensing": "{type: mllm, prompt: nope.yaml, engine: {type: remote, url: x, model: y}}"}, "nope.yaml"),
        ({"budjet": "{max_regions: 3}"}, "did you mean 'budget'?"),
        ({"query": "{clases: [car]}"}, "did you mean 'classes'?"),
    ],
)
def test_every_mistake_in_a_preset_names_its_file_also_where_it_is_built(tmp_path, lines, complaint):
    pytest.importorskip("httpx", reason="httpx is not installed")
    with pytest.raises(InvalidInput, match=r"mine\.yaml: ") as refusal:
        load_preset(write(tmp_path, **lines)).build()
    assert complaint in str(refusal.value)


def test_an_unknown_type_or_setting_is_refused_when_it_is_built(tmp_path):
    with pytest.raises(
        InvalidInput, match=r"unknown sensing type 'crystal_ball'; known are adaptive_slices, centre_crop"
    ):
        load_preset(write(tmp_path, sensing="{type: crystal_ball}")).build()
    with pytest.raises(InvalidInput, match="sensing 'grid' has no setting 'overlaps'; it has overlap"):
        load_preset(write(tmp_path, sensing="{type: grid, overlaps: 0.1}")).build()
    with pytest.raises(InvalidInput, match="sensing 'mllm' needs the setting 'engine'"):
        load_preset(write(tmp_path, sensing="{type: mllm}")).build()
    with pytest.raises(InvalidInput, match=r"overlap must be 0 to 0\.9, got 3"):
        load_preset(write(tmp_path, sensing="{type: grid, overlap: 3}")).build()


def test_every_shipped_preset_is_described_on_its_page():
    page = Path(__file__).resolve().parents[2] / "docs" / "reference" / "presets.md"
    rows = [line.split("`")[1] for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert sorted(rows) == preset_names()


@pytest.mark.parametrize(
    ("status", "body", "ok", "found", "fix"),
    [
        (200, {"data": [{"id": "policy"}, {"id": "other"}]}, True, "serves policy", ""),
        (200, {"data": [{"id": "other"}]}, False, "serves other, and not policy", "vllm serve policy"),
        (401, {"error": "who?"}, False, "HTTP 401", "export ACTIVEO3_API_KEY=KEY"),
        (503, {}, False, "HTTP 503 instead of the list of its models", "vllm serve policy"),
        (200, [], False, "instead of the list of its models", "vllm serve policy"),
    ],
)
def test_doctor_asks_a_model_server_before_it_says_that_a_preset_can_run(status, body, ok, found, fix):
    pytest.importorskip("httpx", reason="httpx is not installed")
    with Server() as server:
        server.models = status, body
        check = doctor._server(server.url, "policy")
    assert check.ok == ok
    assert found in check.found
    assert check.fix.startswith(fix)
    assert bool(check.fix) == bool(fix)


def test_doctor_says_that_a_server_does_not_answer():
    pytest.importorskip("httpx", reason="httpx is not installed")
    check = doctor.check_preset("remote", {})
    assert not check.ok
    assert check.because[0].startswith("server http://localhost:8000/v1: does not answer: ")


def test_doctor_says_that_a_server_cannot_be_asked_without_httpx(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    check = doctor._server("http://localhost:1/v1", "policy")
    assert (check.ok, check.fix) == (False, "pip install '.[remote]'")


def test_doctor_offers_no_gpu_for_a_preset_that_runs_on_a_cpu():
    missing = {
        name: doctor.Check(name, False, "not installed", "", doctor.PIP_GPU) for name in ("torch", "transformers")
    }
    assert "torch: not installed; run: make setup EXTRAS=mllm" in doctor.check_preset("tiny", missing).because
    assert "torch: not installed; run: pip install '.[gpu]'" in doctor.check_preset("active_o3", missing).because


def test_doctor_gives_the_reason_without_a_command_where_none_brings_the_model(monkeypatch):
    def missing(model: str) -> Path:
        raise AssetError(f"the model {model!r} comes with the source repository; run from a source tree")

    monkeypatch.setattr(doctor, "local_model", missing)
    there = dict.fromkeys(("torch", "transformers"), doctor.Check("", True, "", ""))
    check = doctor.check_preset("tiny", there)
    assert not check.ok
    assert check.because[0] == (
        "tiny/policy: the model 'tiny/policy' comes with the source repository; run from a source tree"
    )
