# Copyright 2026 The activeo3_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""The checks of `activeo3 doctor --robot`: an installation beside a distribution's ROS 2, as on a robot."""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from ..assets.cache import CACHE_VARIABLE, cache_directory
from .checks import SOURCE_ROS, Check

PAGE = "docs/how-to/run-on-a-robot.md"
DISTRIBUTION_PACKAGES = Path("/usr/lib/python3/dist-packages")
SERVICE = Path("/etc/systemd/system/activeo3.service")
IMPORT_S = 60.0
ENV_SHEBANG = "#!/usr/bin/env python3"


def robot_checks() -> list[Check]:
    """Whether programs, libraries, cache and service of this machine fit together."""
    return [
        _program(),
        *(_kept(module, DISTRIBUTION_PACKAGES) for module in ("numpy", "cv2")),
        _cv_bridge(),
        _cache(),
        _service(SERVICE),
    ]


def _program() -> Check:
    """Whether `ros2 run` and launch start the node with this Python, which has its packages."""
    name, needed_for = "Python of perception_node", "ros2 run and launch"
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_prefix

        try:
            program = Path(get_package_prefix("activeo3_ros")) / "lib" / "activeo3_ros" / "perception_node"
        except PackageNotFoundError:
            return Check(name, False, "activeo3_ros is not among the installed ROS packages", needed_for, SOURCE_ROS)
    except ImportError:
        return Check(name, False, "ROS 2 is not set up in this shell", needed_for, SOURCE_ROS)
    return program_check(program, needed_for)


def program_check(program: Path, needed_for: str) -> Check:
    """Whether the first line of a program leads to the Python that runs this.

    Args:
        program: An executable Python script.
        needed_for: What uses it.
    """
    name = f"Python of {program.name}"
    rebuild = "activate the virtual environment, then colcon build --packages-select activeo3_ros --cmake-clean-cache"
    try:
        first = program.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError) as error:
        return Check(name, False, f"{program} cannot be read: {error}", needed_for, rebuild)
    if first == ENV_SHEBANG:
        found = "the first python3 on the PATH: in a service or without an activated environment another one"
        return Check(name, False, found, needed_for, rebuild)
    python = Path(first.removeprefix("#!").strip())
    if not python.exists():
        return Check(name, False, f"{python}, which does not exist", needed_for, rebuild)
    same = python.parent.resolve() == (Path(sys.prefix) / "bin").resolve()
    return Check(
        name,
        same,
        f"{python}{'' if same else f', and this is {sys.executable}'}",
        needed_for,
        rebuild if not same else "",
    )


def _kept(module: str, distribution: Path) -> Check:
    """Whether a library is the distribution's, for which its ROS packages are built."""
    name, needed_for = f"{module} of the distribution", "cv_bridge and other ROS packages"
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        return Check(name, False, "not installed", needed_for, f"rosdep install, see {PAGE}")
    origin = Path(spec.origin)
    if not any(distribution.glob(f"{module}*")):
        return Check(name, True, f"{origin}; the distribution has none", needed_for)
    kept = origin.is_relative_to(distribution)
    pip_name = {"cv2": "opencv-python opencv-python-headless"}.get(module, module)
    fix = "" if kept else f"{sys.executable} -m pip uninstall {pip_name}"
    return Check(name, kept, str(origin) if kept else f"{origin} hides the distribution's", needed_for, fix)


def _cv_bridge() -> Check:
    """Whether cv_bridge works with this NumPy: in a process of its own, since the wrong one can crash it."""
    name, needed_for = "cv_bridge works", "examples/crop_subscriber.py, other nodes"
    if importlib.util.find_spec("cv_bridge") is None:
        fix = "apt install ros-$ROS_DISTRO-cv-bridge"
        return Check(name, False, "not installed; activeo3_ros decodes by itself", needed_for, fix, optional=True)
    script = (
        "import numpy, cv_bridge; image = numpy.full((2, 2, 3), 7, 'uint8'); bridge = cv_bridge.CvBridge(); "
        "back = bridge.imgmsg_to_cv2(bridge.cv2_to_imgmsg(image, 'rgb8'), 'bgr8'); assert (back == image).all()"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=IMPORT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name, False, str(error), needed_for, optional=True)
    if done.returncode == 0:
        return Check(name, True, "an image went there and back", needed_for, optional=True)
    lines = done.stderr.strip().splitlines() or [f"it ended with exit code {done.returncode}"]
    return Check(
        name, False, lines[-1], needed_for, f"keep the distribution's NumPy and OpenCV, see {PAGE}", optional=True
    )


def _cache() -> Check:
    """Whether this user finds the models: as a service, another user with another home asks."""
    cache = cache_directory()
    name, needed_for = "cache of models", "the node, which fetches nothing itself"
    if not cache.is_dir():
        return Check(name, False, f"{cache} does not exist", needed_for, "activeo3 prefetch embedded")
    if not os.access(cache, os.R_OK | os.X_OK):
        return Check(
            name, False, f"{cache} cannot be read by this user", needed_for, f"export {CACHE_VARIABLE}=DIRECTORY"
        )
    return Check(name, True, str(cache), needed_for)


def _service(path: Path) -> Check:
    """Whether the unit of systemd keeps root and the file system out of the node's reach."""
    name, needed_for = "systemd service", "a node that starts with the robot"
    if not path.is_file():
        return Check(name, False, f"{path} is not installed", needed_for, f"see {PAGE}", optional=True)
    problems = unit_problems(path.read_text(encoding="utf-8"))
    fix = f"compare it with config/systemd/activeo3.service, see {PAGE}" if problems else ""
    return Check(name, not problems, "; ".join(problems) or str(path), needed_for, fix, optional=True)


def unit_problems(text: str) -> list[str]:
    """What a unit of systemd leaves open, a sentence each.

    Args:
        text: The unit.
    """
    unit = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#", ";"), delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        unit.read_string(text)
    except configparser.Error as error:
        return [str(error).splitlines()[0]]
    service = dict(unit["Service"]) if unit.has_section("Service") else {}
    wanted = {
        "User": (r"(?!root$|0$).+", "runs as root"),
        "ProtectSystem": ("strict", "may write to the file system"),
        "CacheDirectory": (".+", "has no cache directory for models"),
        "KillSignal": ("SIGINT", "is not stopped with SIGINT, which launch needs"),
    }
    return [says for key, (pattern, says) in wanted.items() if not re.fullmatch(pattern, service.get(key, ""))]
