"""Loads what is started by its path and belongs to no package: benchmarks, launch files, the script of `make setup`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load_script(path: Path) -> ModuleType:
    """The file as a module of its name, as dataclasses need it: to be found in `sys.modules`."""
    specification = importlib.util.spec_from_file_location(path.name.partition(".")[0], path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module
