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

"""Every parameter of the node, once.

Declaration, descriptors, validation, the defaults of the launch files and `docs/reference/parameters.md` (written by
`python docs/generate.py`) all come from `PARAMETERS`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
)
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from ..core import Budget, InvalidInput, Query
from ..core.budget import LIMITS
from ..core.hints import did_you_mean
from ..core.position import DEPTH_ERROR
from ..core.query import MAX_CLASS_LENGTH, MAX_CLASSES, MAX_TEXT_LENGTH
from ..core.scene import SURVIVAL_S
from .parameter_types import convert

Value = Any
"""bool, int, float, str or a list of str, as the default of the parameter is."""

AS_PRESET = -1
"""The value of a budget's parameter that keeps the preset's."""
MAX_CAMERAS = 16
EMPTY = [""]
"""Stands for an empty list where a parameter is declared: an empty one has no type in rclpy."""
CAMERA_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*")


class When(Enum):
    """When a parameter may change."""

    START = "at start only"
    UNCONFIGURED = "while unconfigured"
    ALWAYS = "at any time, from the next frame on"


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Attributes:
        name: Its name.
        default: The default, which also decides the type.
        description: One sentence for descriptor and documentation.
        when: When it may change.
        unit: Unit of the value.
        low: Smallest value allowed, None without a range.
        high: Largest value allowed, None without a range.
        choices: The only texts allowed; empty allows any.
    """

    name: str
    default: Value
    description: str
    when: When
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def type(self) -> RosParameter.Type:
        """The ROS type of the value."""
        if isinstance(self.default, list):
            return RosParameter.Type.STRING_ARRAY
        return RosParameter.Type.from_parameter_value(self.default)

    def descriptor(self) -> ParameterDescriptor:
        """The descriptor that `ros2 param describe` shows."""
        descriptor = ParameterDescriptor(
            name=self.name,
            type=self.type.value,
            description=f"{self.description} May change {self.when.value}.",
            additional_constraints=f"one of: {', '.join(self.choices)}" if self.choices else "",
            read_only=self.when is When.START,
        )
        if self.low is not None and self.high is not None:
            if descriptor.type == ParameterType.PARAMETER_INTEGER:
                descriptor.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)]
            else:
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=float(self.low), to_value=float(self.high))
                ]
        return descriptor

    def convert(self, value: Any) -> Value:
        """A value of the parameter's type; see `parameter_types`. Raises InvalidInput for one that is not clear."""
        return convert(self.name, value, self.default)

    def check(self, value: Value) -> None:
        """Raises InvalidInput if a value of the right type is not allowed."""
        if self.choices and value not in self.choices:
            raise InvalidInput(f"{self.name} must be one of {', '.join(self.choices)}, got {value!r}")
        if self.low is None or self.high is None or not isinstance(value, (int, float)):
            return
        if not math.isfinite(value) or not self.low <= value <= self.high:
            raise InvalidInput(f"{self.name} must be {self.low:.10g} to {self.high:.10g} {self.unit}, got {value}")


def _budget(name: str, unit: str, description: str) -> Parameter:
    """A field of `Budget` that the node may override."""
    default: Value = float(AS_PRESET) if isinstance(getattr(Budget(), name), float) else AS_PRESET
    return Parameter(
        name,
        default,
        f"{description}; {AS_PRESET}: as the preset says.",
        When.ALWAYS,
        unit,
        AS_PRESET,
        LIMITS[name][1],
    )


PARAMETERS: dict[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        Parameter("preset", "embedded", "Preset by name, or the path of a .yaml file of that form.", When.UNCONFIGURED),
        Parameter(
            "cameras",
            ["camera"],
            f"Names of the cameras, 1 to {MAX_CAMERAS}; each is the prefix of its topics.",
            When.START,
        ),
        Parameter(
            "transport",
            "raw",
            "Subscribe to NAME/image_raw, or to the topic of this name below it: ffmpeg and foxglove are video.",
            When.START,
            choices=("raw", "compressed", "ffmpeg", "foxglove"),
        ),
        Parameter("autostart", False, "Configure and activate without waiting for a lifecycle manager.", When.START),
        Parameter("hardware_id", "", "Hardware id in /diagnostics; empty: the host's name.", When.START),
        Parameter("diagnostics_period", 1.0, "Time between two messages on /diagnostics.", When.START, "s", 0.1, 60.0),
        Parameter(
            "log_period",
            0.0,
            "Time between two lines of the log, for each camera, that say how many images came; 0: never.",
            When.START,
            "s",
            0.0,
            3600.0,
        ),
        Parameter(
            "query",
            "",
            "What to find or to answer; empty together with classes: what the preset says.",
            When.ALWAYS,
            f"at most {MAX_TEXT_LENGTH} characters",
        ),
        Parameter(
            "classes",
            EMPTY,
            "Names of classes to find; empty names are left out.",
            When.ALWAYS,
            f"at most {MAX_CLASSES} of at most {MAX_CLASS_LENGTH} characters",
        ),
        Parameter(
            "masks",
            False,
            "Add an instance mask to each detection, by the preset's segmenter, or its detector where it names none. "
            "GrabCut cuts by colour: many get none.",
            When.ALWAYS,
        ),
        _budget("max_regions", "regions", "Most regions to zoom into; 0: only the view of the whole frame"),
        _budget("view_pixels", "pixels", "Pixels of the view of the whole frame"),
        _budget("crop_pixels", "pixels", "Pixels of each zoomed crop"),
        _budget("max_tokens", "tokens", "Tokens that a language model may write for one view"),
        _budget("deadline_ms", "ms", "Time for one frame, which is then published as far as it got; 0: no deadline"),
        Parameter(
            "memory",
            True,
            "Weigh the frames of a camera together: steady results, track ids, zooms where existence is uncertain.",
            When.ALWAYS,
        ),
        Parameter(
            "survival_s",
            SURVIVAL_S,
            "Mean time for which an object is believed to stay where no look shows it.",
            When.ALWAYS,
            "s",
            0.01,
            60.0,
        ),
        Parameter(
            "background_sensing",
            False,
            "Frames do not wait for a slow policy: they are examined with its last regions, moved with the camera. "
            "Needs memory, and a policy that several threads may call, as language models are.",
            When.ALWAYS,
        ),
        Parameter(
            "depth_cameras",
            EMPTY,
            "Cameras whose tracks get positions: of these NAME/depth is subscribed to, registered to the image.",
            When.START,
        ),
        Parameter(
            "depth_tolerance",
            0.0,
            "How far the stamps of an image and its depth may be apart; 0: they must be equal. What an object moves "
            "meanwhile is not in its covariance.",
            When.ALWAYS,
            "s",
            0.0,
            1.0,
        ),
        Parameter(
            "depth_error",
            DEPTH_ERROR,
            "Standard deviation of the error that all depths of an object share, such as that of the sensor's "
            "calibration; part of the covariance of positions.",
            When.ALWAYS,
            "share of the depth",
            0.0,
            0.5,
        ),
        Parameter(
            "max_frame_age",
            0.0,
            "Frames older than this, by their stamp, are not taken up; 0: any age.",
            When.ALWAYS,
            "s",
            0.0,
            3600.0,
        ),
        Parameter(
            "inference_timeout",
            60.0,
            "A frame that takes longer fails, and its model is given up and loaded again; 0: wait for ever.",
            When.ALWAYS,
            "s",
            0.0,
            3600.0,
        ),
        Parameter(
            "max_image_pixels",
            50_000_000,
            "Images with more pixels are rejected.",
            When.ALWAYS,
            "pixels",
            1,
            400_000_000,
        ),
        Parameter(
            "marker_distance", 10.0, "How far from the camera RViz markers are drawn.", When.ALWAYS, "m", 0.1, 1000.0
        ),
    )
}


def declare(node: Node) -> None:
    """Declare every parameter on a node.

    Raises:
        InvalidInput: A value from the command line or a file is of another type, and what is meant is not clear.
        ParameterException: Such a value is not allowed.
    """
    for parameter in PARAMETERS.values():
        # Only a parameter of any type tells what the command line or a file gives: rclpy refuses another type at once.
        found = node.declare_parameter(
            parameter.name, parameter.default, ParameterDescriptor(dynamic_typing=True)
        ).value
        node.undeclare_parameter(parameter.name)
        value = parameter.convert(found)
        value = EMPTY if value == [] else value
        node.declare_parameter(parameter.name, value, parameter.descriptor(), ignore_override=True)


def misspelt(node: Node) -> list[str]:
    """A sentence for each parameter that was given and that no one declared, where a similar one exists.

    Others pass without a word, since a file's section `/**` is for every node.

    Args:
        node: The node, with all its parameters declared.
    """
    known = node.list_parameters([], 0).names
    given = getattr(node, "_parameter_overrides", {})  # rclpy has no public list of them
    hints = {name: did_you_mean(name, known) for name in given if not node.has_parameter(name)}
    return [f"the parameter {name!r} does not exist and has no effect{hint}" for name, hint in hints.items() if hint]


QUERY = frozenset({"query", "classes", "masks"})
"""The parameters that make up the query; a change of any of them is a new revision."""


def converted(changes: Iterable[RosParameter[Any]]) -> list[RosParameter[Any]]:
    """The changes with their values in the types of the table; other parameters stay as they are.

    Raises:
        InvalidInput: A value is of another type, and what is meant is not clear.
    """
    return [
        RosParameter(change.name, PARAMETERS[change.name].type, PARAMETERS[change.name].convert(change.value))
        if change.name in PARAMETERS
        else change
        for change in changes
    ]


def changed(changes: Iterable[RosParameter[Value]]) -> dict[str, Value]:
    """The new values, by name, of those changes that concern parameters of the table."""
    return {change.name: _value(change) for change in changes if change.name in PARAMETERS}


def values(node: Node) -> dict[str, Value]:
    """The current value of every parameter, by name."""
    return {name: _value(node.get_parameter(name)) for name in PARAMETERS}


def _value(parameter: RosParameter[Value]) -> Value:
    value = parameter.value
    return list(value) if parameter.type_ == RosParameter.Type.STRING_ARRAY else value


def check(candidate: Mapping[str, Value], changed: set[str], configured: bool) -> None:
    """Check a set of values before anything changes.

    Args:
        candidate: Every parameter's value after the change.
        changed: Names of the parameters that change.
        configured: Whether the node is in a state other than unconfigured.

    Raises:
        InvalidInput: These values may not hold together, or may not change now; says why.
    """
    for name in sorted(changed):
        parameter = PARAMETERS[name]
        if configured and parameter.when is When.UNCONFIGURED:
            raise InvalidInput(f"{name} can change only while the node is unconfigured; call cleanup first")
        parameter.check(candidate[name])
    check_cameras(candidate["cameras"])
    if unknown := [name for name in non_empty(candidate["depth_cameras"]) if name not in candidate["cameras"]]:
        raise InvalidInput(
            f"depth_cameras names {', '.join(unknown)[:100]!r}, which is none of cameras: "
            f"{', '.join(candidate['cameras'])}"
        )
    budget(candidate, Budget())
    query(candidate, Query(), 0)


def non_empty(names: Sequence[str]) -> list[str]:
    """The names of a list in which empty ones are left out."""
    return [name for name in names if name.strip()]


def check_cameras(names: list[str]) -> None:
    """Check that names can be prefixes of topics and differ.

    Raises:
        InvalidInput: They cannot, or do not.
    """
    given = [] if names == EMPTY else names
    if not 1 <= len(given) <= MAX_CAMERAS:
        raise InvalidInput(f"cameras must name 1 to {MAX_CAMERAS} cameras, got {len(given)}")
    for name in names:
        if len(name) > 100 or not CAMERA_NAME.fullmatch(name):
            raise InvalidInput(
                f"camera {name[:100]!r} cannot begin a topic's name; use letters, digits and _, a letter first"
            )
    if len(set(names)) != len(names):
        raise InvalidInput(f"cameras must differ, got {', '.join(names)}")


def budget(values: Mapping[str, Value], preset: Budget) -> Budget:
    """The preset's budget with the parameters' overrides.

    Args:
        values: Every parameter's value.
        preset: The preset's budget.

    Raises:
        InvalidInput: A value is neither `AS_PRESET` nor in the range of the budget.
    """
    overrides = {name: values[name] for name in LIMITS if values[name] != AS_PRESET}
    return replace(preset, **overrides)


def query(values: Mapping[str, Value], preset: Query, revision: int) -> Query:
    """The query of the parameters, or the preset's where they ask for nothing.

    Args:
        values: Every parameter's value.
        preset: The preset's query.
        revision: The revision to give to it.

    Raises:
        InvalidInput: Text or classes are too long or too many.
    """
    classes = non_empty(values["classes"])
    text, masks = str(values["query"]), bool(values["masks"]) or preset.masks
    if not text and not classes:
        text, classes = preset.text, list(preset.classes)
    return Query(text, tuple(classes), masks, revision)


def markdown() -> str:
    """`docs/reference/parameters.md`."""
    lines = [
        "# Parameters of `perception_node`",
        "",
        "<!-- Generated by `python docs/generate.py`; change the table in `node/parameters.py` instead. -->",
        "",
        "Set at start with `--ros-args -p NAME:=VALUE`, in a YAML file with `--params-file`, or in a launch file; at",
        "run time with `ros2 param set /activeo3 NAME VALUE`. A change outside the range, or at a time when it is not",
        "allowed, is refused with the reason and changes nothing. A value that YAML reads as another type is converted",
        'where only one can be meant: `200` or `"200"` for a double, `3.0` for an integer, `"True"` or 1 for a bool,',
        "`car,person` or `[]` for a list. A number for a text is refused, since YAML reads `0010` as 8: quote it, as",
        "in `-p hardware_id:='\"0010\"'`. Several changes in one `set_parameters_atomically` hold together from one",
        "frame on, or not at all. Besides these, every topic has `qos_overrides…` parameters (see [qos.md](qos.md)),",
        "and every ROS 2 node has `use_sim_time`.",
        "",
        "| Name | Type | Default | Range | Unit | May change | What it does |",
        "|---|---|---|---|---|---|---|",
    ]
    for parameter in PARAMETERS.values():
        row = (
            f"`{parameter.name}`",
            parameter.type.name.lower().replace("_array", " list"),
            f"`{_shown(parameter.default)}`",
            _range(parameter),
            parameter.unit,
            parameter.when.value,
            parameter.description,
        )
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _range(parameter: Parameter) -> str:
    if parameter.low is None:
        return ", ".join(parameter.choices)
    return f"{parameter.low:.10g} to {parameter.high:.10g}"


def _shown(value: Value) -> str:
    """A value as written on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    return str(value) if value != "" else '""'
