"""What an installation holds: the package and its configuration, nothing of research/."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from activeo3_ros.assets import resources
from activeo3_ros.assets.downloads import fetch_model
from activeo3_ros.assets.packages import AssetError
from activeo3_ros.assets.weights import local_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the source tree, built beside it: the tree itself may hold files of earlier builds."""
    source, out = tmp_path_factory.mktemp("source") / "tree", tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(".*", "build", "install", "log", "out", "shared", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=left_out)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
               "--wheel-dir", str(out), "."]  # fmt: skip
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (source / "research" / "activeo3_tiny" / "weights" / "policy" / "model.safetensors").is_file()
    [path] = out.glob("*.whl")
    return path


def test_a_wheel_holds_the_package_and_nothing_of_research(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "activeo3_ros/core/loop.py" in names and "activeo3_ros/config/tiny.yaml" in names
    assert "activeo3_ros/interfaces/PerceptionResult.msg" in names
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"activeo3_ros"}
    assert not [
        name for name in names if "research" in name or "activeo3_tiny" in name or name.endswith(".safetensors")
    ]
    assert wheel.stat().st_size < 2_500_000


def test_a_plain_installation_runs_the_default_preset_on_pictures_and_videos(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    required = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata, re.MULTILINE)
    assert {"av", "numpy", "onnx", "onnxruntime", "opencv-python-headless", "rapidocr", "simplejpeg"} <= set(required)
    assert not {"torch", "transformers", "rclpy"} & set(required)


def test_colcon_installs_the_package_its_configuration_and_its_launch_files() -> None:
    text = re.sub(r"#.*", "", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    named = re.findall(r"install\(\s*DIRECTORY\s+(\S+)", text)
    [looped] = re.findall(r"foreach\(directory\s+([^)]*)\)", text)
    assert named == ["activeo3_ros/", "${directory}"] and looped.split() == ["config", "launch"]
    assert not list((ROOT / "activeo3_ros").rglob("*.safetensors"))


def test_the_tiny_models_are_found_in_the_source_tree() -> None:
    assert local_model("tiny/policy").resolve() == ROOT / "research" / "activeo3_tiny" / "weights" / "policy"


def test_an_installed_package_says_where_the_tiny_models_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "MODULE", tmp_path / "site-packages" / "activeo3_ros")
    with pytest.raises(AssetError) as error:
        local_model("tiny/policy")
    with pytest.raises(AssetError) as refusal:
        fetch_model("tiny/policy")
    assert (
        str(error.value)
        == str(refusal.value)
        == (
            "the model 'tiny/policy' comes with the source repository (research/activeo3_tiny/weights), not with an "
            "installed package; run from a source tree, or give the model's directory in a preset of your own"
        )
    )


def test_every_file_of_the_package_says_whose_it_is_and_under_which_licence() -> None:
    """As `ament_copyright` asks of the files that are installed."""
    files = [
        ROOT / "setup.py",
        *(f for name in ("activeo3_ros", "launch", "scripts") for f in ROOT.glob(f"{name}/**/*.py")),
    ]
    lacking = [
        str(file.relative_to(ROOT))
        for file in files
        if file.read_text(encoding="utf-8").strip()
        and not re.match(
            r"(#!.*\n\n?)?# Copyright \d{4} .+\n#\n# Licensed under the Apache License",
            file.read_text(encoding="utf-8"),
        )
    ]
    assert not lacking, "add them with: ament_copyright --add-missing 'The activeo3_ros maintainers' apache2 FILE"
