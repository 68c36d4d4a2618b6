"""What a person meets who types `make setup` on a machine that lacks something, or types it twice."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from loading import load_script

import activeo3_ros

ROOT = Path(__file__).resolve().parents[2]


def load_setup(repository: Path) -> ModuleType:
    """The setup script of `repository` as a module."""
    return load_script(repository / "scripts" / "setup_environment.py")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of what `make setup` reads."""
    for name in ("activeo3_ros", "scripts", "requirements", "msg", "srv", "action", "config"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("CMakeLists.txt", "package.xml", "setup.py", "pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def run_setup(repository: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Run the setup script of `repository` with changed environment variables."""
    command = [sys.executable, str(repository / "scripts" / "setup_environment.py"), *arguments]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=120)


def assert_one_clear_line(done: subprocess.CompletedProcess, *expected: str) -> None:
    """The run ended with code 2 and one line on stderr that contains `expected`."""
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for text in expected:
        assert text in done.stderr


# ---- what is missing is said in one line -----------------------------------------------------------------------------


def test_no_compiler(repository, tmp_path):
    empty = tmp_path / "bin"
    empty.mkdir()
    done = run_setup(repository, PATH=str(empty), CC="", CXX="")
    assert_one_clear_line(done, "No C compiler", "apt install g++")
    assert not (repository / ".venv").exists()


def test_a_compiler_that_does_not_exist(repository):
    assert_one_clear_line(
        run_setup(repository, CXX="g++-from-the-future -O1"), "No C++ compiler", "g++-from-the-future"
    )


@pytest.mark.parametrize(
    ("version", "distribution", "wheels"),
    [
        ((3, 9, 18), "kilted", "3.10, 3.11, 3.12, 3.13, 3.14"),
        ((3, 15, 0), "kilted", "3.10, 3.11, 3.12, 3.13, 3.14"),
        ((3, 11, 7), "jazzy", "3.10, 3.12, 3.14"),
    ],
)
def test_python_without_ros_wheels(version, distribution, wheels):
    setup = load_setup(ROOT)
    expected = f"ROS 2 {distribution.capitalize()} are for Python {wheels}, and none"
    with pytest.raises(setup.SetupError, match=re.escape(expected)):
        setup.check_python(version, distribution)
    setup.check_python((3, 12, 1), distribution)


def write_python(path: Path, version: str, code: int = 0) -> str:
    """A stand-in for a Python that answers with its version and ends with `code`; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


def test_a_python_with_wheels_is_found_beside_the_path(tmp_path, monkeypatch):
    setup = load_setup(ROOT)
    monkeypatch.setenv("PATH", str(tmp_path / "shims"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert setup.find_python("jazzy") is None
    write_python(tmp_path / "shims" / "python3.12", "", code=127)  # a shim of pyenv for a version that is not chosen
    write_python(tmp_path / ".pyenv" / "versions" / "3.12.0" / "bin" / "python3.12", "3 12", code=1)  # no headers
    whole = write_python(tmp_path / ".pyenv" / "versions" / "3.12.1" / "bin" / "python3.12", "3 12")
    assert setup.find_python("jazzy") == whole
    on_path = write_python(tmp_path / "shims" / "python3.12", "3 12")
    assert setup.find_python("jazzy") == on_path


def test_another_python_takes_over_once(monkeypatch, capsys):
    setup = load_setup(ROOT)
    started: list[tuple] = []
    monkeypatch.setattr(setup.sys, "version_info", (3, 11, 7))
    monkeypatch.setattr(setup, "find_python", lambda distribution: "/opt/python3.12")
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    setup.use_fitting_python("kilted")
    assert not started, "3.11 has wheels of Kilted"
    setup.use_fitting_python("jazzy")
    ((path, command, variables),) = started
    assert (path, command) == ("/opt/python3.12", ["/opt/python3.12", *sys.argv])
    assert "Python 3.11 has no wheels of ROS 2 Jazzy: using /opt/python3.12" in capsys.readouterr().out
    monkeypatch.setenv(setup.CHOSEN_PYTHON, variables[setup.CHOSEN_PYTHON])
    setup.use_fitting_python("jazzy")
    assert len(started) == 1


def test_unknown_distribution(repository):
    done = run_setup(repository, "--distribution", "noetic")
    assert_one_clear_line(done, "DISTRO=noetic is unknown; there is kilted, jazzy.")


def test_the_script_can_tell_an_old_python_that_it_is_old():
    # Newer syntax would be a traceback there.
    ast.parse((ROOT / "scripts" / "setup_environment.py").read_text(), feature_version=(3, 7))


@pytest.mark.parametrize(
    ("system", "machine", "libc", "expected"),
    [
        ("Linux", "aarch64", ("glibc", "2.39"), "x86-64 Linux"),
        ("Darwin", "x86_64", ("", ""), "x86-64 Linux"),
        ("Linux", "x86_64", ("", ""), "another C library"),
        ("Linux", "x86_64", ("glibc", "2.27"), "2.28 or newer"),
    ],
)
def test_machine_without_ros_wheels(system, machine, libc, expected):
    setup = load_setup(ROOT)
    with pytest.raises(setup.SetupError, match=expected):
        setup.check_platform(system, machine, libc)


def test_a_path_that_ros_scripts_cannot_take(repository):
    moved = repository.rename(repository.with_name("my robot"))
    assert_one_clear_line(run_setup(moved), "my robot", "Move it")


def test_too_little_disk_space(repository, monkeypatch, capsys):
    setup = load_setup(repository)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12 - 10**8, 10**8))
    assert setup.main([]) == 2
    assert re.fullmatch(
        r"make setup: Too little disk space: 0\.1 GB free in .*, 1\.5 GB needed\.\n", capsys.readouterr().err
    )


def test_python_without_venv(repository, monkeypatch, capsys):
    setup = load_setup(repository)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert setup.main([]) == 2
    assert "lacks the module venv" in capsys.readouterr().err


def test_unknown_group_of_packages(repository):
    assert_one_clear_line(run_setup(repository, "--extras", "mlm"), "EXTRAS=mlm is unknown")


def test_no_network(repository):
    done = run_setup(
        repository,
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL="http://127.0.0.1:9/simple",
        PIP_EXTRA_INDEX_URL="",
        PIP_FIND_LINKS="",
        PIP_RETRIES="0",
        PIP_NO_CACHE_DIR="1",
    )
    assert_one_clear_line(done, "pip could not fetch the packages", "Check the network")


def test_a_python_that_is_not_there():
    done = subprocess.run(
        ["make", "-s", "setup", "PYTHON=python3.99"], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert "python3.99 is not on the PATH" in done.stderr


# ---- what the wheels have wrong is repaired --------------------------------------------------------------------------

WHEEL_CMAKE = """\
set_target_properties(rclpy::py PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES "${_IMPORT_PREFIX}/include;/opt/python/cp312-cp312/include/python3.12;\
/opt/python/cp312-cp312/lib/python3.12/site-packages/numpy/_core/include"
)
set(old "/opt/python/cp310-cp310/lib/python3.10/site-packages/numpy/core/include")
set(keep "/opt/python-tools/include")
"""
REPAIRED_CMAKE = """\
set_target_properties(rclpy::py PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES "${_IMPORT_PREFIX}/include;/here/include;/here/numpy"
)
set(old "/here/numpy")
set(keep "/opt/python-tools/include")
"""


def test_cmake_files_of_the_wheels_are_repaired_once(tmp_path):
    setup = load_setup(ROOT)
    broken = tmp_path / "share" / "std_msgs" / "cmake" / "export.cmake"
    sound = tmp_path / "share" / "rcl" / "cmake" / "rclConfig.cmake"
    for path, text in ((broken, WHEEL_CMAKE), (sound, "set(rcl_FOUND 1)\n")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert setup.repair_cmake_files(tmp_path / "share", "/here/include", "/here/numpy") == 1
    assert broken.read_text() == REPAIRED_CMAKE
    assert sound.read_text() == "set(rcl_FOUND 1)\n"
    assert setup.repair_cmake_files(tmp_path / "share", "/here/include", "/here/numpy") == 0


# ---- what was done is not done again ---------------------------------------------------------------------------------


class FakeSteps:
    """Stands in for the minutes that an environment and a build take, and notes that they were asked for."""

    def __init__(self, setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.setup = setup
        self.done: list[str] = []
        self.build_fails = False
        monkeypatch.setattr(setup, "make_environment", self.make_environment)
        monkeypatch.setattr(setup, "build", self.build)

    def make_environment(self, environment: Path, files: list[Path], distribution: str, new: bool) -> None:
        environment.mkdir(exist_ok=True)
        self.distribution = distribution
        self.done.append("new environment" if new else "packages")

    def build(self, environment: Path) -> None:
        if self.build_fails:
            raise self.setup.BuildError("the compiler gave up")
        prefix = self.setup.ROOT / "install"
        prefix.mkdir(exist_ok=True)
        (prefix / "setup.sh").touch()
        self.done.append("build")

    def of_next_run(self, code: int = 0, extras: str = "", distribution: str = "") -> list[str]:
        self.done.clear()
        assert self.setup.main(["--extras", extras, "--distribution", distribution]) == code
        return list(self.done)


@pytest.fixture
def steps(repository: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSteps:
    steps = FakeSteps(load_setup(repository), monkeypatch)
    assert steps.of_next_run() == ["new environment", "build"]
    return steps


def test_a_second_run_does_nothing(steps, capsys):
    assert steps.of_next_run() == []
    assert "Nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["msg/Detection.msg", "CMakeLists.txt", "package.xml"])
def test_a_changed_interface_or_build_file_is_built(steps, repository, name):
    with (repository / name).open("a") as file:
        file.write("\n")
    assert steps.of_next_run() == ["build"]
    assert steps.of_next_run() == []


def test_a_new_python_file_is_linked_and_a_changed_one_needs_nothing(steps, repository):
    module = repository / "activeo3_ros" / "brand_new.py"
    module.write_text("answer = 41\n")
    assert steps.of_next_run() == ["build"]
    module.write_text("answer = 42\n")
    assert steps.of_next_run() == []


def test_changed_pins_are_installed_into_the_same_environment(steps, repository):
    with (repository / "requirements" / "constraints.txt").open("a") as file:
        file.write("another-package==1.0\n")
    assert steps.of_next_run() == ["packages", "build"]


def test_another_python_makes_a_new_environment(steps, monkeypatch):
    monkeypatch.setattr(sys, "base_prefix", "/another/python")
    assert steps.of_next_run() == ["new environment", "build"]


def test_another_distribution_makes_a_new_environment_and_stays(steps, monkeypatch):
    monkeypatch.setattr(steps.setup, "use_fitting_python", lambda distribution: None)
    monkeypatch.setattr(steps.setup, "check_python", lambda version, distribution: None)
    assert steps.distribution == "kilted"
    assert steps.of_next_run(distribution="jazzy") == ["new environment", "build"]
    assert steps.of_next_run() == []
    assert steps.distribution == "jazzy"
    assert steps.of_next_run(distribution="kilted") == ["new environment", "build"]


def test_a_group_that_was_added_stays(steps, repository):
    (repository / "requirements" / "lidar.txt").write_text("laspy\n")
    assert steps.of_next_run(extras="lidar") == ["packages", "build"]
    assert steps.of_next_run() == []


def test_a_failed_build_is_tried_again(steps, repository, capsys):
    (repository / "msg" / "WorkerThread.msg").write_text("# A lane.\n")
    steps.build_fails = True
    assert steps.of_next_run(code=1) == []
    assert capsys.readouterr().err == "make setup: the compiler gave up\n"
    steps.build_fails = False
    assert steps.of_next_run() == ["build"]


# ---- the pins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", ["kilted", "jazzy"])
def test_every_package_of_every_group_is_pinned_in_the_one_place(distribution):
    setup = load_setup(ROOT)
    lines = [line for path in setup.constraint_files(distribution) for line in path.read_text().splitlines()]
    pins = [line for line in lines if line and not line.startswith("#")]
    pattern = r'(?P<name>[a-z0-9-]+)==[\w.]+(; python_version (<|>=) "3\.1\d")?'
    matches = [re.fullmatch(pattern, pin) for pin in pins]
    assert all(matches), [pin for pin, match in zip(pins, matches, strict=True) if not match]
    pinned = {match["name"] for match in matches if match}
    requirements = ROOT / "requirements"
    for path in (*requirements.glob("*.txt"), requirements / distribution / "ros.txt"):
        if path.name != "constraints.txt":
            names = [line.lower() for line in path.read_text().splitlines() if line and not line.startswith("#")]
            assert not set(names) - pinned, path.name
            assert not [name for name in names if "=" in name], "versions belong into constraints.txt"


def test_npm_is_installed_only_where_there_is_none(monkeypatch):
    setup = load_setup(ROOT)
    for npm, expected in (("/usr/bin/npm", False), (None, True)):
        monkeypatch.setattr(shutil, "which", lambda name, found=npm: found)
        assert ("node.txt" in [path.name for path in setup.requirement_files([])]) is expected


def test_torch_is_in_no_group_that_the_demo_installs():
    setup = load_setup(ROOT)
    names = [line for group in setup.GROUPS for line in (ROOT / "requirements" / f"{group}.txt").read_text().split()]
    assert "onnxruntime" in names
    assert not {"torch", "torchvision", "transformers"} & set(names)


# ---- without ROS -----------------------------------------------------------------------------------------------------


def test_one_version_in_all_places():
    assert ElementTree.parse(ROOT / "package.xml").findtext("version") == activeo3_ros.__version__


def test_pip_installs_the_module_its_presets_and_the_command(repository, tmp_path):
    wheels = tmp_path / "wheels"
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir"]
    subprocess.run([*command, str(wheels), str(repository)], check=True, timeout=120)
    (wheel,) = wheels.glob("activeo3_ros-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        entry_points = archive.read(next(name for name in archive.namelist() if name.endswith("entry_points.txt")))
        archive.extractall(site)
    assert b"activeo3=activeo3_ros.cli.main:main" in entry_points.replace(b" ", b"")
    script = """
from importlib.util import find_spec
import activeo3_ros.evaluation.report
from activeo3_ros.assets import resources
assert resources.config_directory().joinpath("embedded.yaml").is_file()
assert resources.message_directory().joinpath("Detection.msg").is_file()
assert activeo3_ros.evaluation.report.TEMPLATES.joinpath("report.html.j2").is_file()
assert find_spec("activeo3_ros.msg") is None, "without ROS there are no messages"
print(resources.config_directory())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=tmp_path / "wheels",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert Path(done.stdout.strip()).is_relative_to(site)
