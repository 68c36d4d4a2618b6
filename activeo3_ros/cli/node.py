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

"""`activeo3 node`: run the ROS 2 node, where there is no `ros2 run`."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core import InvalidInput
from ..node.transports import settings_for_images
from ..presets import load_preset
from ..settings import did_you_mean
from .main import SUCCESS

LOG_PERIOD_S = 5.0
"""Between two lines that say how many images came, unless `-p log_period:=` says another."""
OF_EVERY_NODE = re.compile(r"use_sim_time|qos_overrides\..+|start_type_description_service")
"""Parameters that the node has beside those of its table."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description = (
        "Run the lifecycle node that `ros2 run activeo3_ros perception_node` runs. It configures and activates itself, "
        "unless -p autostart:=false; it says which topics it listens to and, every "
        f"{LOG_PERIOD_S:g} s, how many images came (-p log_period:=0: never). Ctrl-C or SIGTERM ends it, exit code 0."
    )
    parser.add_argument(
        "--cameras", metavar="NAME,…", help="cameras, each the prefix of its topics: NAME/image_raw (default: camera)"
    )
    parser.add_argument("--preset", help="a preset by its name, or a .yaml file (default: embedded)")
    parser.add_argument(
        "-p",
        "--param",
        action="append",
        default=[],
        metavar="NAME:=VALUE",
        help="set a parameter of the node, as after --ros-args (may be repeated); see docs/reference/parameters.md",
    )
    parser.add_argument(
        "-r",
        "--remap",
        action="append",
        default=[],
        metavar="FROM:=TO",
        help="rename a topic, for example front/image_raw:=/usb_cam/image (may be repeated)",
    )
    parser.add_argument("--params-file", type=Path, metavar="FILE", help="a YAML file of ROS 2 with parameters")


def run(args: argparse.Namespace) -> int:
    """Run the node until SIGINT or SIGTERM, at whatever moment one comes."""
    try:
        return _run(args)
    except KeyboardInterrupt:  # before the node was there to end
        return SUCCESS


def _run(args: argparse.Namespace) -> int:
    given = dict(map(_assignment, args.param))
    arguments = ros_arguments(args, given)
    if given.get("transport", "raw") == "raw":
        os.environ.update(settings_for_images(os.environ))  # else most raw images are lost; before ROS reads it
    try:
        from ..node import parameters, perception_node
    except ImportError as error:
        raise InvalidInput(f"ROS 2 is not set up in this shell ({error}); run: . install/setup.sh") from None
    check_names(given, list(parameters.PARAMETERS))
    if preset := args.preset or given.get("preset"):
        load_preset(preset)  # the node would stay, unconfigured, until it finds one
    return perception_node.main(arguments)


def ros_arguments(args: argparse.Namespace, given: Mapping[str, str]) -> list[str]:
    """The arguments for ROS.

    Args:
        args: The options of the command.
        given: The values of `-p` by their names.

    Raises:
        InvalidInput: An option is empty, an option and a parameter say the same, or the file of parameters is missing.
    """
    options = {"cameras": args.cameras, "preset": args.preset}
    for name, value in options.items():
        if value is not None and not value.strip():
            raise InvalidInput(f"--{name} must not be empty; leave it out for what the node takes by itself")
        if value is not None and name in given:
            raise InvalidInput(f"--{name} and -p {name}:= say the same thing twice; give one of them")
    values = {"autostart": "true", "log_period": f"{LOG_PERIOD_S}"}
    values.update({name: value for name, value in options.items() if value is not None})
    arguments = ["--ros-args"]
    for rule in args.remap:
        _assignment(rule)
        arguments += ["-r", rule]
    # Before the file and the parameters: of several values ROS takes the last.
    for name, value in values.items():
        arguments += ["-p", f"{name}:={value}"]
    if args.params_file is not None:
        if not args.params_file.is_file():
            raise InvalidInput(f"--params-file {args.params_file}: no such file")
        arguments += ["--params-file", str(args.params_file)]
    for name, value in given.items():
        arguments += ["-p", f"{name}:={value}"]
    return arguments


def check_names(given: Mapping[str, str], known: Sequence[str]) -> None:
    """Check the names of parameters; ROS takes any, and nothing would tell that one has no effect.

    Args:
        given: Values by their names.
        known: The parameters of the node.

    Raises:
        InvalidInput: The node has no such parameter.
    """
    for name in given:
        if name not in known and not OF_EVERY_NODE.fullmatch(name):
            raise InvalidInput(
                f"-p {name}:=: the node has no such parameter{did_you_mean(name, known)}; "
                "see docs/reference/parameters.md"
            )


def _assignment(text: str) -> tuple[str, str]:
    name, assigned, value = text.partition(":=")
    if not (assigned and name.strip() and value.strip()):
        raise InvalidInput(f"{text!r} must be NAME:=VALUE, as ROS 2 has it")
    return name.strip(), value
