"""An installation on a robot: pinned packages, the service, the container file, and what `doctor --robot` says."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from activeo3_ros.cli import doctor, doctor_robot

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "config" / "systemd" / "activeo3.service"
CONTAINER = ROOT / "containers" / "Containerfile"
PINS = ROOT / "requirements" / "robot" / "noble.txt"
OF_THE_DISTRIBUTION = {
    "numpy": "1.26.4",
    "opencv-python": "4.6.0",
    "opencv-python-headless": "4.6.0",
    "pillow": "10.2.0",
    "pyyaml": "6.0.1",
}
"""What Ubuntu 24.04 has; its OpenCV, without a name that pip knows, stands for both."""


def pinned(path: Path) -> dict[str, str]:
    """The packages of a file of requirements and their versions, those for Python 3.12."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return dict(line.split(";")[0].strip().split("==") for line in lines if '< "3.11"' not in line)


# ---- packages --------------------------------------------------------------------------------------------------------


def test_the_packages_of_a_robot_leave_those_of_its_distribution_alone():
    robot = pinned(PINS)
    assert {"msgspec", "onnxruntime", "rapidocr", "simplejpeg"} <= set(robot)
    assert not set(OF_THE_DISTRIBUTION) & set(robot)
    others = {name: version for name, version in robot.items() if name != "ml-dtypes"}
    assert others.items() <= pinned(ROOT / "requirements" / "constraints.txt").items()


def test_everything_that_they_need_is_among_them_or_of_the_distribution():
    """With `--no-deps` pip brings nothing else, and checks nothing."""
    robot, compared = pinned(PINS), 0
    there = {**robot, **OF_THE_DISTRIBUTION}
    for name, version in robot.items():
        try:
            if metadata.version(name) != version:
                continue
        except metadata.PackageNotFoundError:
            continue
        compared += 1
        for line in metadata.requires(name) or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"python_version": "3.12", "extra": ""}):
                assert canonicalize_name(need.name) in there, f"{name} needs {line}"
                assert need.specifier.contains(there[canonicalize_name(need.name)]), f"{name} needs {line}"
    if not compared:
        pytest.skip("none of them is installed here in this version")


# ---- systemd ---------------------------------------------------------------------------------------------------------


def test_the_service_keeps_root_and_the_file_system_out_of_reach():
    assert doctor_robot.unit_problems(UNIT.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("line", "instead", "says"),
    [
        ("User=activeo3", "User=root", "runs as root"),
        ("User=activeo3", "", "runs as root"),
        ("ProtectSystem=strict", "ProtectSystem=no", "may write to the file system"),
        ("CacheDirectory=activeo3", "", "has no cache directory for models"),
        ("KillSignal=SIGINT", "", "is not stopped with SIGINT, which launch needs"),
    ],
)
def test_a_service_that_leaves_something_open_is_told(line, instead, says):
    text = UNIT.read_text(encoding="utf-8")
    assert line in text
    assert doctor_robot.unit_problems(text.replace(line, instead)) == [says]


def test_systemd_accepts_the_unit(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True, check=False)
    # That the file of the environment and the user are missing on this machine is no fault of the unit.
    assert "Unknown" not in done.stderr and "Failed to parse" not in done.stderr, done.stderr


# ---- container -------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The instructions of the container file, with the lines of each joined."""
    text = re.sub(r"^#.*\n", "", CONTAINER.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def test_the_container_is_of_a_named_distribution_and_does_not_run_as_root():
    steps = instructions()
    assert ("ARG", "DISTRO=jazzy") in steps
    assert [value for name, value in steps if name == "FROM"] == ["docker.io/library/ros:${DISTRO}-ros-base"]
    assert [value for name, value in steps if name == "USER"][-1] == "activeo3"
    assert ("STOPSIGNAL", "SIGINT") in steps


def test_the_container_is_built_from_what_is_here_and_leaves_no_lists_behind():
    for name, value in instructions():
        assert name in {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN", "STOPSIGNAL", "USER", "WORKDIR"}
        if name == "COPY":
            assert (ROOT / value.split()[0]).exists(), value
        if name == "RUN" and "apt-get" in value:
            assert value.startswith("apt-get update") and value.endswith("rm -rf /var/lib/apt/lists/*")
        if "pip install" in value:
            assert "--no-deps" in value and "--no-cache-dir" in value
    ignored = (ROOT / ".containerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv", "build", "install"} <= set(ignored)


# ---- doctor ----------------------------------------------------------------------------------------------------------


def test_doctor_checks_a_robot_only_when_asked(capsys, monkeypatch):
    for title in list(doctor.GROUPS):
        monkeypatch.setitem(doctor.GROUPS, title, list)
    monkeypatch.setattr(doctor.presets, "preset_names", list)
    for robot in (False, True):
        assert doctor.run(argparse.Namespace(json=False, robot=robot)) == 0
        assert ("perception_node" in capsys.readouterr().out) is robot


@pytest.mark.parametrize(
    ("first", "ok", "says"),
    [
        (f"#!{sys.executable}", True, sys.executable),
        ("#!/usr/bin/env python3", False, "the first python3 on the PATH"),
        ("#!/nowhere/bin/python3", False, "/nowhere/bin/python3, which does not exist"),
        ("#!/bin/sh", False, "/bin/sh, and this is"),
    ],
)
def test_the_program_must_start_with_the_python_that_has_the_packages(tmp_path, first, ok, says):
    program = tmp_path / "perception_node"
    program.write_text(f"{first}\n")
    check = doctor_robot.program_check(program, "ros2 run")
    assert check.ok is ok and says in check.found
    assert bool(check.fix) is not ok


def test_a_library_that_hides_the_distributions_is_told(tmp_path):
    assert doctor_robot._kept("numpy", tmp_path).ok, "the distribution has none"
    (tmp_path / "numpy").mkdir()
    check = doctor_robot._kept("numpy", tmp_path)
    assert not check.ok and "hides the distribution's" in check.found
    assert check.fix.endswith("-m pip uninstall numpy")


def test_a_cache_that_is_not_there_or_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("ACTIVEO3_CACHE", str(tmp_path / "models"))
    assert doctor_robot._cache().fix == "activeo3 prefetch embedded"
    (tmp_path / "models").mkdir()
    assert doctor_robot._cache().ok
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be read by this user" in doctor_robot._cache().found


def test_a_service_is_looked_at_where_there_is_one(tmp_path):
    assert "is not installed" in doctor_robot._service(tmp_path / "activeo3.service").found
    shutil.copy(UNIT, tmp_path)
    assert doctor_robot._service(tmp_path / "activeo3.service").ok
