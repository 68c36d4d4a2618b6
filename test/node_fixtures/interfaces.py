"""The environment of processes that shall have `vision_msgs`: the installed one, or that of test/interfaces."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "interfaces" / "vision_msgs"
BUILD = SOURCE.parents[2] / "build" / "test_vision_msgs"
"""Kept, so that only the first run of the tests waits for it; `make setup` and `make clean` remove it."""


def environment_with_vision_msgs() -> dict[str, str]:
    """Builds for half a minute where nothing is there yet; skips the test where nothing can be built."""
    if importlib.util.find_spec("vision_msgs"):
        return dict(os.environ)
    if not (shutil.which("cmake") and shutil.which("ninja")):
        pytest.skip("vision_msgs is not installed, and there is no cmake and ninja to build its stand-in")
    prefix = BUILD / "prefix"
    configure = ["cmake", "-S", SOURCE, "-B", BUILD, "-G", "Ninja", f"-DCMAKE_INSTALL_PREFIX={prefix}"]
    configure += [f"-DCMAKE_PREFIX_PATH={sys.prefix}", f"-DPython3_EXECUTABLE={sys.executable}"]
    for command in (configure, ["cmake", "--build", BUILD, "--target", "install"]):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:]
    modules = Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    added = {
        "AMENT_PREFIX_PATH": prefix,
        "PYTHONPATH": prefix / modules,
        "LD_LIBRARY_PATH": prefix / "lib",
    }
    return {
        **os.environ,
        **{name: os.pathsep.join(filter(None, [str(path), os.environ.get(name)])) for name, path in added.items()},
    }
