"""Checks that settings from a file have the kind of value that a class expects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from .errors import InvalidInput

KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
}
"""For the type of a default: the types that it accepts, and their name in messages."""


def check_kinds(what: str, build: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Check that each setting is of the kind of the default that it replaces.

    A setting without a default is of the kind that it is annotated with; one that has no plain kind is not checked.

    Args:
        what: Names the settings in the message, such as "engine 'vllm'".
        build: Takes the settings as keyword arguments.
        settings: The values.

    Raises:
        InvalidInput: The first setting of another kind.
    """
    parameters = inspect.signature(build).parameters
    for name, value in settings.items():
        kind = _kind_of(parameters[name]) if name in parameters else None
        if kind is None:
            continue
        taken, words = KINDS[kind]
        if not isinstance(value, taken) or (isinstance(value, bool) and kind is not bool):
            raise InvalidInput(f"{what}: {name} must be {words}, got {value!r}")


def check_complete(what: str, build: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Check that no parameter of `build` without a default is missing from the settings.

    Args:
        what: Names the settings in the message.
        build: Takes the settings as keyword arguments.
        settings: The values.

    Raises:
        InvalidInput: The first parameter that is missing.
    """
    for name, parameter in inspect.signature(build).parameters.items():
        if parameter.default is parameter.empty and name not in settings:
            raise InvalidInput(f"{what} needs the setting {name!r}")


def _kind_of(parameter: inspect.Parameter) -> type | None:
    """The key of `KINDS` for a parameter; None where there is none."""
    if parameter.default is not parameter.empty:
        return type(parameter.default) if type(parameter.default) in KINDS else None
    return next((kind for kind in KINDS if parameter.annotation in (kind, kind.__name__)), None)
