"""What ROS tools read of the package: package.xml, the tests that colcon runs, the linters."""

from __future__ import annotations

import ast
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ElementTree.parse(ROOT / "package.xml").getroot()


def dependencies(*kinds: str) -> set[str]:
    """The packages that package.xml names as these kinds."""
    return {str(entry.text) for kind in kinds for entry in PACKAGE.findall(kind)}


def imported(path: Path) -> set[str]:
    """Top-level modules that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_a_person_finds_who_wrote_it_and_where_to_read():
    assert PACKAGE.findtext("url", "").startswith("https://")
    assert PACKAGE.findtext("author")
    maintainer = PACKAGE.find("maintainer")
    assert maintainer is not None and re.fullmatch(r"[\w.-]+@[\w-]+(\.[\w-]+)+", maintainer.attrib["email"])
    assert "Contact:" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_ros_package_that_the_node_or_a_launch_file_imports_is_a_dependency():
    files = [*(ROOT / "activeo3_ros" / "node").glob("*.py"), *(ROOT / "launch").glob("*.py")]
    modules = set().union(*map(imported, files)) - set(sys.stdlib_module_names)
    ros = {name for name in modules if name.endswith(("_msgs", "_interfaces", "_python")) or name in ROS_LIBRARIES}
    assert {"rclpy", "sensor_msgs", "launch_ros", "bond"} <= ros
    assert ros - dependencies("depend", "exec_depend") == OPTIONAL


OPTIONAL = {"autoware_perception_msgs", "ffmpeg_image_transport_msgs", "foxglove_msgs", "tier4_perception_msgs"}
"""Of stacks that few have: a topic of the node is left out without them."""
ROS_LIBRARIES = {"bond", "cv_bridge", "launch", "launch_ros", "rclpy", "std_srvs"}


def test_colcon_runs_every_folder_of_tests_but_those_of_a_gpu():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    (named,) = re.findall(r"foreach\(layer ([\w ]+)\)\s+ament_add_pytest_test\(", text)
    folders = {path.parent.name for path in (ROOT / "test").glob("*/test_*.py")}
    assert set(named.split()) == folders - {"gpu"}
    assert "ament_cmake_pytest" in dependencies("test_depend")


def test_cmake_files_pass_the_linter_of_ros(capsys):
    linter = pytest.importorskip("ament_lint_cmake.main", reason="ament_lint_cmake is not on PyPI; a robot has it")
    assert linter.main([str(ROOT / "CMakeLists.txt")]) == 0, capsys.readouterr()
