"""The unit tests are collected without ROS and without built interfaces, from the source tree alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCKER = """
import sys

ROS = {"rclpy", "ament_index_python", "builtin_interfaces", "sensor_msgs", "std_msgs", "std_srvs", "launch"}
INTERFACES = {"activeo3_ros.msg", "activeo3_ros.srv", "activeo3_ros.action"}


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in INTERFACES or name.partition(".")[0] in ROS:
            raise ModuleNotFoundError(f"there is no {name} in this test", name=name)


sys.meta_path.insert(0, Blocker())
"""
"""A plugin of pytest that makes ROS impossible to import, as on a machine that has none."""


def test_the_unit_tests_are_collected_without_ros(tmp_path):
    (tmp_path / "without_ros.py").write_text(BLOCKER, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AMENT_", "PYTEST_"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(ROOT)])

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
        )

    assert "there is no rclpy" in run("-c", "import without_ros, rclpy").stderr
    collected = run("-m", "pytest", "-p", "without_ros", "-p", "no:xdist", "--collect-only", "-q", "test/unit")
    assert collected.returncode == 0, collected.stdout[-4000:]
    assert "error" not in collected.stdout.splitlines()[-1]
    for name in ("test_scheduling", "test_dynamic_batching", "test_continuous_batching"):
        assert f"test/unit/{name}.py::" in collected.stdout
