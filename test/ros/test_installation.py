"""What `ros2 run`, launch and systemd start: programs that find their virtual environment without its activation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ament_index_python.packages import get_package_prefix

PREFIX = Path(get_package_prefix("activeo3_ros"))
PROGRAMS = [PREFIX / "lib" / "activeo3_ros" / "perception_node", PREFIX / "bin" / "activeo3"]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_the_first_line_names_the_python_that_built(program):
    first = program.read_text(encoding="utf-8").splitlines()[0]
    if first == "#!/usr/bin/env python3":
        pytest.skip("built by an earlier version, or the path is too long for a first line")
    assert Path(first.removeprefix("#!")).parent == Path(sys.prefix) / "bin"
    variables = {**os.environ, "PATH": "/usr/bin:/bin"}
    variables.pop("VIRTUAL_ENV", None)
    command = [program, "--version"] if program.name == "activeo3" else [program, "--ros-args", "-p", "cameras:=[a, a]"]
    done = subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert "ModuleNotFoundError" not in done.stderr
    assert done.returncode == (0 if program.name == "activeo3" else 2), done.stderr
