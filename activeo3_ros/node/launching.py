"""Arguments of the launch files and how they reach the node. Needs no `launch`: tests read the same table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..presets import preset_names
from .parameters import EMPTY, PARAMETERS, Value
from .transports import settings_for_images

SWITCH = ("true", "false", "True", "False")
"""Both spellings of a bool: launch files in Python write the second."""
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
        Argument("namespace", "", "Namespace of the node; its cameras' topics are in it too."),
        _from_parameter("transport"),
        Argument("config", "", "YAML file with parameters of the node; it wins over the arguments."),
        _from_parameter("autostart", choices=SWITCH),
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


def node_parameters(values: Mapping[str, str]) -> list[dict[str, Value] | str]:
    """The node's `parameters=` for these arguments of the launch file: values first, then the file that wins."""
    parameters: dict[str, Value] = {
        "preset": values["preset"],
        # Also as a YAML list. An empty list, which launch_ros cannot pass on, is refused by the node with the reason.
        "cameras": PARAMETERS["cameras"].convert(values["cameras"].strip(" []")) or EMPTY,
        "transport": values["transport"],
        "autostart": values["autostart"].lower() == "true",
        "use_sim_time": values["use_sim_time"].lower() == "true",
    }
    return [parameters, values["config"]] if values["config"] else [parameters]
