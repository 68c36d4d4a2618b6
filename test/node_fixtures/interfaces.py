"""The environment of processes that shall have interface packages: the installed ones, or those of test/interfaces."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[1] / "interfaces"
BUILD = SOURCES.parents[1] / "build"
"""Kept, so that only the first run of the tests waits for it; `make setup` and `make clean` remove it."""


def environment_with(*packages: str) -> dict[str, str]:
    """Builds, half a minute a package, what is not there yet; skips the test where nothing can be built."""
    missing = [package for package in packages if not importlib.util.find_spec(package)]
    added: dict[str, list[str]] = {"AMENT_PREFIX_PATH": [], "PYTHONPATH": [], "LD_LIBRARY_PATH": []}
    modules = Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    for package in missing:
        prefix = _built(package)
        for name, path in zip(added, (prefix, prefix / modules, prefix / "lib"), strict=True):
            added[name].append(str(path))
    return {
        **os.environ,
        **{name: os.pathsep.join(filter(None, [*paths, os.environ.get(name)])) for name, paths in added.items()},
    }


def _built(package: str) -> Path:
    """The prefix into which a package of test/interfaces is built and installed."""
    if not (shutil.which("cmake") and shutil.which("ninja")):
        pytest.skip(f"{package} is not installed, and there is no cmake and ninja to build its stand-in")
    build = BUILD / f"test_{package}"
    prefix = build / "prefix"
    configure = ["cmake", "-S", SOURCES / package, "-B", build, "-G", "Ninja", f"-DCMAKE_INSTALL_PREFIX={prefix}"]
    configure += [f"-DCMAKE_PREFIX_PATH={sys.prefix}", f"-DPython3_EXECUTABLE={sys.executable}"]
    for command in (configure, ["cmake", "--build", build, "--target", "install"]):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:]
    return prefix
