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

"""Converts a parameter that YAML read as another type, where only one value can be meant. Knows no ROS.

YAML chooses the type by the look of a value: `200` is no double, `True` in quotes no bool, `[]` has no type at all.
What is lost is not guessed: `0010` comes as 8 and `1.10` as 1.1, so a number is never taken for a text.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from ..core import InvalidInput
from ..core.hints import KINDS

PLAIN_NUMBER = re.compile(r"[+-]?(0|[1-9]\d{0,14})(\.\d{1,15})?([eE][+-]?\d{1,3})?")
"""A number in quotes that is read alike everywhere: without the leading zero of octal numbers, without `_` or `0x`."""
NAMES = "a list of texts"


def convert(name: str, value: Any, default: Any) -> Any:
    """A value of the type of the default.

    Args:
        name: Of the parameter.
        value: As rclpy gives it; None for an empty list.
        default: A bool, int, float, str or list of str.

    Raises:
        InvalidInput: Several values can be meant, or none; says how to write it.
    """
    kind = type(default)
    converted = CONVERSIONS[kind](value)
    if converted is None:
        shown = "an empty list" if value is None else _shown(value)
        raise InvalidInput(
            f"{name} must be {NAMES if kind is list else KINDS[kind]}, got {shown}{_hint(name, value, kind)}"
        )
    return converted


def _to_bool(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return bool(value) if isinstance(value, int) and value in (0, 1) else None


def _to_int(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = _to_float(value)
    return int(number) if number is not None and number.is_integer() else None


def _to_float(value: Any) -> float | None:
    if isinstance(value, str):
        return float(value) if PLAIN_NUMBER.fullmatch(value) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _to_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _to_names(value: Any) -> list[str] | None:
    if value is None:
        return []
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    names = _items(value)
    return names if names is not None and all(isinstance(name, str) for name in names) else None


CONVERSIONS: dict[type, Callable[[Any], Any]] = {
    bool: _to_bool,
    int: _to_int,
    float: _to_float,
    str: _to_text,
    list: _to_names,
}
"""By the type of the default; None where no single value can be meant."""


def _items(value: Any) -> list[Any] | None:
    """The items of a list, as rclpy gives it; None for anything else."""
    return list(value) if isinstance(value, (Sequence, array)) and not isinstance(value, (str, bytes)) else None


def _shown(value: Any) -> str:
    """A value as YAML writes it."""
    items = _items(value)
    if items is not None:
        return f"[{', '.join(map(_shown, items))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)[:100]


def _hint(name: str, value: Any, kind: type) -> str:
    items = _items(value)
    if kind is str and items is None and value is not None:
        quoted = '"…"'
    elif kind is list and value is not None:
        quoted = '["…"]'
    else:
        return ""
    read_as = "true or false" if isinstance((items or [value])[0], bool) else "a number"
    in_file = f"{name}: {quoted}"
    return f", which YAML reads as {read_as}: quote it, -p {name}:='{quoted}' on a command line, {in_file} in a file"
