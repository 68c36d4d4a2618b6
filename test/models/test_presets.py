"""Presets: the shipped ones are complete, and a wrong one says which file and which key."""

from pathlib import Path

import pytest

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.cli import doctor
from activeo3_ros.core import Budget, InvalidInput
from activeo3_ros.presets import SEGMENTER_TYPES, load_preset, preset_names


@pytest.mark.parametrize("name", ["embedded", "full_frame", "centre_crop", "grid", "random", "sahi", "adaptive_slices"])
def test_the_shipped_presets_are_there_and_described(name):
    assert name in preset_names()
    preset = load_preset(name)
    assert preset.description
    assert isinstance(preset.budget, Budget)


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
        ({"task": "{type: embedded, detector: mine}"}, "task 'embedded' has no setting 'detector'; it has threshold"),
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
