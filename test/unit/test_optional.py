"""A model that is not used needs no package that runs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from activeo3_ros.assets.onnx_session import OnnxSession
from activeo3_ros.core.optional import MissingPackageError
from activeo3_ros.detectors.text_reader import TextReader

IMPORT_WITHOUT = """
import importlib, sys
for name in ("onnx", "onnxruntime", "rapidocr"):
    sys.modules[name] = None
for module in ("assets.packages", "assets.onnx_session", "assets.tfjs", "detectors.centernet", "detectors.text_reader"):
    importlib.import_module(f"activeo3_ros.{module}")
"""


def test_modules_import_without_the_packages_that_run_models(tmp_path):
    subprocess.run([sys.executable, "-c", IMPORT_WITHOUT], cwd=tmp_path, check=True, timeout=60)


def test_without_msgspec_every_command_names_it_in_one_line(tmp_path):
    code = (
        "import sys; sys.modules['msgspec'] = None; from activeo3_ros.cli.main import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("activeo3: msgspec is needed to check settings")
    assert done.stderr.endswith("run: pip install msgspec\n")


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match=r"onnxruntime is needed to run models .* pip install 'onnxruntime'$"):
        OnnxSession(tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(
        MissingPackageError, match=r"rapidocr is needed to read text .* pip install 'rapidocr==3.10.0'$"
    ):
        TextReader()
