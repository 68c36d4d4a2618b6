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

"""Arguments of the launch files and how they reach the node. Needs no `launch`: tests read the same table.

`ros2 launch` runs in the distribution's Python, where the node's is that of a virtual environment: nothing that is
imported here may need a package that only the latter has (requirements/robot/).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..assets.resources import preset_names
from ..core import InvalidInput
from .parameters import EMPTY, PARAMETERS, Value
from .transports import settings_for_images

SWITCH = ("true", "false", "True", "False")
"""Both spellings of a bool: launch files in Python write the second."""
ON_EXIT = ("stay", "shutdown")
NODE_NAME = "activeo3"
RESPAWN_DELAY_S = 2.0
"""Seconds between the end of a node and its next start: one that cannot start does not keep a core busy."""
LAUNCH_PID = "ACTIVEO3_LAUNCH_PID"
"""The variable that tells a node which process launched it, to end with it."""
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")


@dataclass(frozen=True)
class Argument:
    """One argument of a launch file. choices: the allowed values; empty allows any."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] = ()


def _from_parameter(name: str, description: str = "", choices: tuple[str, ...] = ()) -> Argument:
    """An argument with the default and the description of the node's parameter of that name."""
    parameter = PARAMETERS[name]
    return Argument(name, _text(parameter.default), description or parameter.description, choices or parameter.choices)


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list) else str(value)


def arguments() -> list[Argument]:
    """The arguments of `perception.launch.py`."""
    return [
        _from_parameter(
            "preset", "Preset that ships; one of your own goes into the file of `config`.", tuple(preset_names())
        ),
        _from_parameter("cameras", "Names of the cameras, separated by commas."),
        Argument(
            "node_name", NODE_NAME, "Name of the node, the prefix of its topics and of its entries in /diagnostics."
        ),
        Argument("namespace", "", "Namespace of the node; its cameras' topics are in it too."),
        _from_parameter("transport"),
        Argument("config", "", "YAML file with parameters of the node; it wins over the arguments."),
        _from_parameter("autostart", choices=SWITCH),
        _from_parameter("deadline_ms"),
        Argument("respawn", "false", "Start a node that ended again; needs autostart to make it active again.", SWITCH),
        Argument(
            "on_exit",
            "stay",
            "shutdown: the launch ends with the node, with exit code 1 if the node failed; stay: it goes on.",
            ON_EXIT,
        ),
        Argument("log_level", "info", "Least severe messages that are logged.", LOG_LEVELS),
        Argument("use_sim_time", "false", "Take the time from /clock, as when a bag is played.", SWITCH),
    ]


def environment(values: Mapping[str, str], present: Mapping[str, str]) -> dict[str, str]:
    """Variables to set for all processes that are launched afterwards: the sender of images needs them most.

    Args:
        values: The arguments of the launch file.
        present: The environment so far.
    """
    # Raw images do not fit Fast DDS's default transports: at best effort most 1080p frames are lost
    # (docs/how-to/transports.md).
    return settings_for_images(present) if values["transport"] == "raw" else {}


def node_environment() -> dict[str, str]:
    """Variables for the node alone."""
    return {LAUNCH_PID: str(os.getpid())}


def switched_on(value: str) -> bool:
    """The bool that an argument with the choices `SWITCH` means."""
    return value.lower() == "true"


def ends_with_node(values: Mapping[str, str]) -> bool:
    """Whether the launch ends when the node does.

    Raises:
        InvalidInput: The node is to be started again as well.
    """
    ends = values["on_exit"] == "shutdown"
    if ends and switched_on(values["respawn"]):
        raise InvalidInput("on_exit:=shutdown ends the launch that respawn:=true needs: choose one of them")
    return ends


def node_parameters(values: Mapping[str, str]) -> list[dict[str, Value] | str]:
    """The node's `parameters=` for these arguments of the launch file: values first, then the file that wins.

    Raises:
        InvalidInput: A value is not allowed, or the file does not exist: launch itself would go on without it.
    """
    deadline = PARAMETERS["deadline_ms"]
    parameters: dict[str, Value] = {
        "preset": values["preset"],
        # Also as a YAML list. An empty list, which launch_ros cannot pass on, is refused by the node with the reason.
        "cameras": PARAMETERS["cameras"].convert(values["cameras"].strip(" []")) or EMPTY,
        "transport": values["transport"],
        "autostart": switched_on(values["autostart"]),
        "deadline_ms": deadline.convert(values["deadline_ms"]),
        "use_sim_time": switched_on(values["use_sim_time"]),
    }
    deadline.check(parameters["deadline_ms"])
    if not values["config"]:
        return [parameters]
    config = Path(values["config"]).expanduser()
    if not config.is_file():
        raise InvalidInput(
            f"config:={values['config']} is no file; from {Path.cwd()} a path of that name leads nowhere"
        )
    return [parameters, str(config)]
