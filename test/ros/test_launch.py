"""The launch files: one source for every default, and no surprises when they run."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lifecycle_msgs.msg import Transition
from loading import load_script
from node_fixtures.client import Client
from waiting import wait_for

from activeo3_ros.assets.resources import config_directory
from activeo3_ros.core import Budget, InvalidInput
from activeo3_ros.node import launching, parameters
from activeo3_ros.node.parameters import PARAMETERS
from activeo3_ros.node.transports import PROFILES, TRANSPORTS, profile_for_images
from activeo3_ros.presets import load_preset, preset_names

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
FILES = sorted(LAUNCH.glob("*.launch.py"))


def run(path: Path) -> Any:
    """The launch description that a file generates."""
    return load_script(path).generate_launch_description()


class FakeAction:
    """Keeps what it was made with, and performs as a launch configuration."""

    def __init__(self, *positional: Any, **named: Any) -> None:
        self.positional, self.named = positional, named

    def perform(self, context: FakeContext) -> str:
        return context.values[self.positional[0]]


@dataclass
class FakeContext:
    """The values of a launch file's arguments, and the environment of the launch process."""

    values: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def fake_launch(monkeypatch):
    """`launch` and `launch_ros`, which are not on PyPI, as far as our files use them."""
    names = {
        "launch": ["Action", "LaunchContext", "LaunchDescription", "LaunchDescriptionEntity"],
        "launch.actions": [
            "DeclareLaunchArgument",
            "EmitEvent",
            "ExecuteProcess",
            "IncludeLaunchDescription",
            "OpaqueFunction",
            "RegisterEventHandler",
            "SetEnvironmentVariable",
            "Shutdown",
        ],
        "launch.event_handlers": ["OnProcessStart", "OnShutdown"],
        "launch.events": ["Shutdown", "matches_action"],
        "launch.events.process": ["ProcessExited", "SignalProcess"],
        "launch.launch_description_sources": ["PythonLaunchDescriptionSource"],
        "launch.substitutions": ["LaunchConfiguration"],
        "launch.utilities": ["AsyncSafeSignalManager"],
        "launch_ros": [],
        "launch_ros.actions": ["LifecycleNode"],
        "launch_ros.event_handlers": ["OnStateTransition"],
        "launch_ros.events": [],
        "launch_ros.events.lifecycle": ["ChangeState"],
    }
    for name, members in names.items():
        module = types.ModuleType(name)
        for member in members:
            setattr(module, member, type(member, (FakeAction,), {}))
        monkeypatch.setitem(sys.modules, name, module)


def test_defaults_are_those_of_the_parameters():
    defaults = {argument.name: argument.default for argument in launching.arguments()}
    (passed,) = launching.node_parameters(defaults)
    for name, value in passed.items():
        expected = PARAMETERS[name].default if name in PARAMETERS else False  # use_sim_time is every node's own
        assert value == expected, name


def test_the_arguments_are_those_that_are_promised_and_every_one_is_described():
    names = [argument.name for argument in launching.arguments()]
    assert names == [
        "preset",
        "cameras",
        "node_name",
        "namespace",
        "transport",
        "config",
        "autostart",
        "deadline_ms",
        "respawn",
        "on_exit",
        "log_level",
        "use_sim_time",
    ]
    for argument in launching.arguments():
        assert argument.description.endswith(".")
        assert not argument.choices or argument.default in argument.choices


def test_every_preset_is_a_choice_and_the_node_leaves_it_as_it_is():
    choices = next(argument.choices for argument in launching.arguments() if argument.name == "preset")
    assert list(choices) == preset_names()
    defaults = {name: parameter.default for name, parameter in PARAMETERS.items()}
    for name in preset_names():
        preset = load_preset(name)
        assert isinstance(preset.budget, Budget)
        assert parameters.budget(defaults, preset.budget) == preset.budget
        assert parameters.query(defaults, preset.query, 0) == preset.query


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("front,rear/left", ["front", "rear/left"]),
        ("[front, rear/left]", ["front", "rear/left"]),
        (" front, ", ["front"]),
        ("", [""]),
        ("[]", [""]),
    ],
)
def test_cameras_are_names_with_commas_or_a_list_as_in_yaml(text, names):
    values = {argument.name: argument.default for argument in launching.arguments()}
    (passed,) = launching.node_parameters({**values, "cameras": text})
    assert passed["cameras"] == names


@pytest.mark.parametrize("name", ["autostart", "use_sim_time"])
def test_a_switch_is_spelled_as_in_yaml_or_as_in_python(name):
    argument = next(argument for argument in launching.arguments() if argument.name == name)
    values = {argument.name: argument.default for argument in launching.arguments()}
    for spelling in argument.choices:
        (passed,) = launching.node_parameters({**values, name: spelling})
        assert passed[name] is (spelling.lower() == "true"), spelling


def test_what_the_node_gets_is_allowed_there(tmp_path):
    own = tmp_path / "own.yaml"
    own.touch()
    values = {argument.name: argument.default for argument in launching.arguments()}
    values.update(cameras="front, rear/left", transport="compressed", autostart="true", config=str(own))
    values.update(deadline_ms="80")
    passed, file = launching.node_parameters(values)
    assert passed["cameras"] == ["front", "rear/left"]
    assert file == str(own)
    assert passed["deadline_ms"] == 80.0
    table = {name: value for name, value in passed.items() if name in PARAMETERS}
    defaults = {name: parameter.default for name, parameter in PARAMETERS.items()}
    parameters.check({**defaults, **table}, set(table), configured=False)


@pytest.mark.parametrize(
    ("argument", "value", "says"),
    [
        ("config", "/robot/nowhere.yaml", "config:=/robot/nowhere.yaml is no file"),
        ("deadline_ms", "soon", "deadline_ms must be"),
        ("deadline_ms", "-7", "deadline_ms must be -1 to"),
    ],
)
def test_a_value_that_the_node_could_not_use_ends_the_launch(argument, value, says):
    values = {argument.name: argument.default for argument in launching.arguments()}
    with pytest.raises(InvalidInput, match=says):
        launching.node_parameters({**values, argument: value})


def test_a_file_below_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.yaml").touch()
    values = {argument.name: argument.default for argument in launching.arguments()}
    assert launching.node_parameters({**values, "config": "~/own.yaml"})[1] == str(tmp_path / "own.yaml")


def test_a_launch_that_ends_with_its_node_starts_none_again():
    values = {argument.name: argument.default for argument in launching.arguments()}
    assert not launching.ends_with_node(values)
    assert launching.ends_with_node({**values, "on_exit": "shutdown"})
    with pytest.raises(InvalidInput, match="choose one"):
        launching.ends_with_node({**values, "on_exit": "shutdown", "respawn": "True"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_launch_file_evaluates_nothing_opens_no_connection_and_starts_no_shell(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    named = {keyword.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords}
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not called & {"eval", "exec", "compile", "__import__"}
    assert not {name.split(".")[0] for name in imported} & {"os", "subprocess", "urllib", "requests", "socket"}
    assert "shell" not in named


def test_the_node_is_started_with_its_arguments_and_the_transports_for_large_messages(fake_launch):
    *declared, start = run(LAUNCH / "perception.launch.py").positional[0]
    assert [action.positional[0] for action in declared] == [argument.name for argument in launching.arguments()]
    values = {action.positional[0]: action.named["default_value"] for action in declared}
    variable, _, node = start.named["function"](FakeContext({**values, "namespace": "robot", "respawn": "True"}))
    assert (node.named["package"], node.named["executable"]) == ("activeo3_ros", "perception_node")
    assert (node.named["namespace"], node.named["name"]) == ("robot", "activeo3")
    assert (node.named["respawn"], node.named["on_exit"]) == (True, None)
    assert node.named["additional_env"] == {launching.LAUNCH_PID: str(os.getpid())}
    assert node.named["parameters"] == launching.node_parameters(values)
    # For all that follows: whoever sends images needs it, and a driver or a bag player may be launched with the node.
    assert variable.positional == profile_for_images({})
    assert Path(variable.positional[1]).is_file()


@pytest.mark.parametrize(
    ("transport", "present"),
    [
        ("compressed", {}),
        ("raw", {"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}),
        ("raw", {"FASTDDS_DEFAULT_PROFILES_FILE": "/robot/transports.xml"}),
        ("raw", {"FASTRTPS_DEFAULT_PROFILES_FILE": "/robot/transports.xml"}),
    ],
)
def test_transports_stay_as_they_are_where_images_are_small_or_somebody_chose(transport, present):
    assert launching.environment({"transport": transport}, present) == {}


@pytest.mark.parametrize(
    ("distribution", "variable"),
    [("jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"), ("kilted", "FASTDDS_DEFAULT_PROFILES_FILE")],
)
def test_the_transports_are_named_as_the_distribution_does(distribution, variable):
    settings = launching.environment({"transport": "raw"}, {"ROS_DISTRO": distribution})
    assert settings == {variable: str(config_directory() / "fastdds" / "shared_memory.xml")}


def test_a_replay_brings_the_node_up_and_starts_the_player_when_it_is_active(fake_launch):
    *actions, node = run(LAUNCH / "replay.launch.py").positional[0]
    assert [action.positional[0] for action in actions[:2]] == ["bag", "rate"]
    started, configured, active = (action.positional[0].named for action in actions[2:])
    assert started["on_start"][0].named["event"].named["transition_id"] == Transition.TRANSITION_CONFIGURE
    assert (configured["start_state"], configured["goal_state"]) == ("configuring", "inactive")
    assert configured["entities"][0].named["event"].named["transition_id"] == Transition.TRANSITION_ACTIVATE
    assert (active["goal_state"], active["handle_once"]) == ("active", True)
    assert active["entities"][0].named["cmd"][:3] == ["ros2", "bag", "play"]
    assert dict(node.named["launch_arguments"]) == {"use_sim_time": "true", "autostart": "false"}


def test_launch_files_import_nothing_that_only_the_virtual_environment_has():
    """`ros2 launch` is of the distribution's Python, whatever is activated."""
    lines = (Path(__file__).resolve().parents[2] / "requirements" / "robot" / "noble.txt").read_text().splitlines()
    names = {line.partition("==")[0].replace("-", "_") for line in lines if line and not line.startswith("#")}
    modules = names - {"packaging", "six", "typing_extensions"} | {"google"}  # of any Python; protobuf's own name
    assert {"msgspec", "onnxruntime"} <= modules
    script = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules!r}:
            raise ImportError(name)

sys.meta_path.insert(0, Missing())
from activeo3_ros.node import launching
launching.node_parameters({{argument.name: argument.default for argument in launching.arguments()}})
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd="/", timeout=60)


def test_the_service_and_the_container_launch_with_arguments_that_exist():
    root = LAUNCH.parent
    known = {argument.name for argument in launching.arguments()}
    for path in (root / "config" / "systemd" / "activeo3.service", root / "containers" / "Containerfile"):
        text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        named = re.findall(r"(\w+):=", text)
        assert "autostart" in named and set(named) <= known


# With launch itself


@pytest.fixture
def real_launch():
    pytest.importorskip("launch.actions", reason="launch is not on PyPI; a robot has it")
    pytest.importorskip("launch_ros.actions", reason="launch_ros is not on PyPI; a robot has it")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_launch_lists_the_arguments(real_launch, path):
    assert run(path).get_launch_arguments()


START = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

path, *arguments = sys.argv[1:]
pairs = [argument.split(":=", 1) for argument in arguments]
launch = LaunchService()
launch.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(PythonLaunchDescriptionSource(path), launch_arguments=pairs)])
)
sys.exit(launch.run())
"""
"""As `ros2 launch` does it, without ros2cli."""


@contextlib.contextmanager
def launched(
    tmp_path: Path, file: str, *arguments: str, variables: dict[str, str] | None = None
) -> Iterator[subprocess.Popen]:
    """A launch in a process of its own; what it printed is shown where a test fails, and is in the file `log`."""
    command = [sys.executable, "-c", START, str(LAUNCH / file), *arguments]
    with open(tmp_path / "log", "w+b") as log:
        launch = subprocess.Popen(
            command, env=variables, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield launch
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(launch.pid, signal.SIGKILL)
            print(said(tmp_path))


def said(tmp_path: Path) -> str:
    """What the launch printed so far."""
    return (tmp_path / "log").read_text(encoding="utf-8", errors="replace")


def node_process(tmp_path: Path) -> int:
    """The process id of the newest node that the launch started."""
    found: list[str] = []
    wait_for(
        lambda: (
            found.extend(re.findall(r"perception_node-\d+\]: process started with pid \[(\d+)", said(tmp_path)))
            or found
        )
    )
    return int(found[-1])


def test_a_launch_without_its_file_starts_no_node_and_fails(real_launch, tmp_path):
    with launched(tmp_path, "perception.launch.py", "config:=nowhere.yaml") as launch:
        assert launch.wait(60) == 1
        assert "config:=nowhere.yaml is no file" in said(tmp_path)
        assert "process started" not in said(tmp_path)


@pytest.mark.parametrize(("signal_", "code"), [(signal.SIGKILL, 1), (signal.SIGTERM, 0)])
def test_a_node_that_dies_takes_the_launch_with_it_when_asked(real_launch, tmp_path, signal_, code):
    with launched(tmp_path, "perception.launch.py", "on_exit:=shutdown", "node_name:=eyes") as launch:
        wait_for(lambda: "[eyes]: waiting for the lifecycle transitions" in said(tmp_path), 60)
        os.kill(node_process(tmp_path), signal_)
        assert launch.wait(60) == code


def test_a_launch_stays_without_its_node_unless_asked(real_launch, tmp_path):
    with launched(tmp_path, "perception.launch.py") as launch:
        wait_for(lambda: "waiting for the lifecycle transitions" in said(tmp_path), 60)
        os.kill(node_process(tmp_path), signal.SIGKILL)
        wait_for(lambda: "process has died" in said(tmp_path))
        assert launch.poll() is None or launch.returncode == 0


@pytest.mark.parametrize("on_exit", launching.ON_EXIT)
@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to launch alone", "to all, as a terminal does"])
def test_a_signal_ends_the_launch_soon_and_with_code_0(real_launch, tmp_path, on_exit, signal_, send):
    with launched(tmp_path, "perception.launch.py", f"on_exit:={on_exit}") as launch:
        wait_for(lambda: "waiting for the lifecycle transitions" in said(tmp_path), 60)
        send(launch.pid, signal_)
        assert launch.wait(60) == 0
        assert "process has finished cleanly" in said(tmp_path) and "escalating" not in said(tmp_path)


def test_a_node_does_not_outlive_a_launch_that_was_killed(real_launch, tmp_path):
    with launched(tmp_path, "perception.launch.py") as launch:
        wait_for(lambda: "waiting for the lifecycle transitions" in said(tmp_path), 60)
        node = Path("/proc", str(node_process(tmp_path)))
        assert node.exists()
        os.kill(launch.pid, signal.SIGKILL)
        wait_for(lambda: has_ended(node / "status"))


def has_ended(status: Path) -> bool:
    """Whether a process is gone, or a zombie that nobody waited for."""
    try:
        return "State:\tZ" in status.read_text()
    except (FileNotFoundError, ProcessLookupError):  # the second: it ended between opening and reading
        return True


def test_a_node_that_died_is_started_again_when_asked(real_launch, tmp_path):
    with launched(tmp_path, "perception.launch.py", "respawn:=True"):
        wait_for(lambda: "waiting for the lifecycle transitions" in said(tmp_path), 60)
        os.kill(node_process(tmp_path), signal.SIGKILL)
        wait_for(lambda: said(tmp_path).count("waiting for the lifecycle transitions") == 2, 60)


def test_a_replay_really_starts_the_player_when_the_node_is_active(real_launch, tmp_path):
    try:
        load_preset("full_frame").build()
    except Exception as error:
        pytest.skip(f"without the models of the preset: {error}")
    player = tmp_path / "ros2"
    played = tmp_path / "played"
    variables = {name: value for name, value in os.environ.items() if name not in (TRANSPORTS, *PROFILES)}
    name, profile = profile_for_images(variables)
    player.write_text(f'#!/bin/sh\necho "$* ${name}" > "{played}"\n', encoding="utf-8")
    player.chmod(0o755)
    variables["PATH"] = f"{tmp_path}{os.pathsep}{variables['PATH']}"
    with launched(tmp_path, "replay.launch.py", "bag:=a.mcap", "preset:=full_frame", variables=variables) as launch:
        wait_for(lambda: played.exists() and played.read_text(), 60, "the player")
        wait_for(
            lambda: "[ros2-2]: process started" in said(tmp_path)
        )  # an interrupt amid a start is launch's own fault
        os.killpg(launch.pid, signal.SIGINT)
        assert launch.wait(60) == 0
    assert played.read_text(encoding="utf-8") == f"bag play a.mcap --clock --rate 1.0 {profile}\n"


def test_autoware_finds_the_node_under_its_own_names(real_launch, tmp_path):
    arguments = ("camera:=camera7", "node_name:=lights", "transport:=raw")
    with launched(tmp_path, "autoware_traffic_lights.launch.py", *arguments), Client((), "lights") as client:
        wait_for(lambda: "[lights]: waiting for the lifecycle transitions" in said(tmp_path), 60)
        for topic in ("image_raw", "camera_info"):
            wait_for(lambda topic=topic: client.node.count_subscribers(f"/sensing/camera/camera7/{topic}"), 30, topic)
        (classes,) = client.get_parameters("classes")
        assert list(classes.string_array_value) == ["traffic light"]
        command = Path("/proc", str(node_process(tmp_path)), "cmdline").read_text().split("\0")
        assert "~/camera7/rois:=/perception/traffic_light_recognition/camera7/detection/rois" in command


def test_launch_testing_sees_the_node_start_and_end(tmp_path):
    pytest.importorskip("launch_testing.launch_test", reason="launch_testing is not on PyPI; a robot has it")
    command = [
        sys.executable,
        "-m",
        "launch_testing.launch_test",
        str(Path(__file__).parent / "perception_launch_tests.py"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_it_ended_with_code_0" in done.stdout + done.stderr
