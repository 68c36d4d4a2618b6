"""The layout of the package: imports point one way, and only the node and the demo know ROS."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "activeo3_ros"

LAYERS = [
    ["core"],
    ["settings"],
    ["assets"],
    ["codecs"],
    ["vlm"],
    ["segmenters"],
    ["detectors"],
    ["policies"],
    ["plugins"],
    ["presets"],
    ["bags"],
    ["evaluation"],
    ["training"],
    ["node"],
    ["demo"],
    ["cli"],
]
"""Lowest first: a module imports from its own folder and from lower ones."""
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
ROS_MODULES = {"rclpy", "sensor_msgs", "std_msgs", "diagnostic_msgs", "visualization_msgs", "vision_msgs", "launch"}
GENERATED = ("activeo3_ros.msg", "activeo3_ros.srv", "activeo3_ros.action")


def modules() -> dict[str, Path]:
    """Each module of the source tree by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str, lazy: bool = True) -> Iterator[str]:
    """The dotted names that a module imports; without `lazy` only those that importing it imports."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if lazy else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield full if full in MODULES or full in GENERATED else source


def folder(name: str) -> str:
    """The part of the package that a module belongs to, "" for the package itself."""
    return name.split(".")[1] if "." in name else ""


def test_every_part_of_the_package_has_its_layer():
    assert {folder(name) for name in MODULES} - {""} == set(RANK)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_import_points_to_a_higher_layer(name):
    if folder(name) == "":
        return
    higher = {
        target
        for target in imports(name)
        if target in MODULES and folder(target) and RANK[folder(target)] > RANK[folder(name)]
    }
    assert not higher, f"{name} imports from above: {sorted(higher)}"


def test_no_modules_import_each_other_in_a_circle():
    edges = {name: {t for t in imports(name) if t in MODULES and t != name and t != "activeo3_ros"} for name in MODULES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle of imports: {' -> '.join((*path[path.index(name) :], name))}"
        if name in done:
            return
        for target in edges[name]:
            visit(target, (*path, name))
        done.add(name)

    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize("name", sorted(MODULES))
def test_the_package_does_not_import_research(name):
    assert not {target for target in imports(name) if target.split(".")[0] == "activeo3_tiny"}


@pytest.mark.parametrize("name", sorted(n for n in MODULES if folder(n) not in ("node", "demo")))
def test_only_the_node_and_the_demo_import_ros(name):
    ros = {target for target in imports(name) if target.split(".")[0] in ROS_MODULES or target.startswith(GENERATED)}
    if folder(name) == "":  # for type checkers alone
        ros -= set(GENERATED)
    assert not ros


@pytest.mark.parametrize("name", sorted(n for n in MODULES if folder(n) == "core"))
def test_the_core_needs_numpy_and_opencv_alone(name):
    outside = {target.split(".")[0] for target in imports(name, lazy=False)}
    assert outside.isdisjoint({"torch", "transformers", "onnxruntime", "yaml", "mcap", "rosbags", "requests", "httpx"})


@pytest.mark.parametrize("name", sorted(n for n in MODULES if MODULES[n].name == "__init__.py"))
def test_every_folder_says_what_belongs_there(name):
    assert ast.get_docstring(ast.parse(MODULES[name].read_text(encoding="utf-8")))
