"""What is built and drawn for the pages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from loading import load_script

from activeo3_ros.assets.packages import CENTERNET, MOTORWAY_PICTURE, AssetError, require
from activeo3_ros.core import Box, Detection, Query, Result

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason='the group docs is not installed: make setup EXTRAS="docs"')
    pytest.importorskip("myst_parser", reason='the group docs is not installed: make setup EXTRAS="docs"')
    # A copy: the build writes the pages of the Python API beside the others.
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("api", "changelog.rst", "__pycache__"))
    for name in ("activeo3_ros", "config", "package.xml", "CHANGELOG.rst", "benchmarks", "containers"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", "html"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "class" in (tmp_path / "html" / "reference" / "api" / "core.html").read_text(encoding="utf-8")


def result(*boxes: tuple[Box, float]) -> Result:
    """A result with a car in each box, with its score."""
    return Result(100, 100, Query(), detections=tuple(Detection("car", score, box) for box, score in boxes))


def test_a_labelled_vehicle_is_matched_once():
    draw_motorway = load_script(DOCS / "draw_motorway.py")
    truth = np.array([[10.0, 10, 20, 20], [60.0, 10, 20, 20]])
    found = result((Box(10, 10, 20, 20), 0.9), (Box(11, 10, 20, 20), 0.8), (Box(60, 40, 20, 20), 0.7))
    assert draw_motorway.matches(found, truth) == 1


def test_the_counts_of_the_readme_are_those_of_its_picture(tmp_path, capsys, monkeypatch):
    try:
        for asset in (CENTERNET, MOTORWAY_PICTURE):
            require(asset)
    except AssetError as error:
        pytest.skip(f"{error} (and: activeo3 prefetch demo)")
    draw_motorway = load_script(DOCS / "draw_motorway.py")
    shutil.copy(DOCS / "motorway_truth.json", tmp_path)
    monkeypatch.setattr(draw_motorway, "HERE", tmp_path)
    draw_motorway.main()
    printed = capsys.readouterr().out
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    page = (DOCS / "results" / "demo.md").read_text(encoding="utf-8")
    lines = ("full_frame: 1 views, 13 vehicles reported, 10 of them right",
             "embedded: 4 views, 25 vehicles reported, 24 of them right")  # fmt: skip
    assert all(line in printed and line in page for line in lines)
    assert "13 vehicles reported, 10 right. Four views (`embedded`, below): 25 reported, 24 right" in readme
    assert 0 < (tmp_path / "motorway.jpg").stat().st_size < 250_000
