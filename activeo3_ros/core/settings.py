"""Whether settings that came out of a file have the kind of value that a class expects."""

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
"""For the type of a default: what is taken for it, and what people call that."""


def check_kinds(what: str, build: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Raise InvalidInput for the first setting whose value is of another kind than the default that it replaces.

    what: names the settings in the message, such as "engine 'vllm'". A setting without a default is of the kind that it
    is annotated with; one that has no plain kind is not checked.
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
    """Raise InvalidInput for the first parameter of `build` that has no default and is not among the settings."""
    for name, parameter in inspect.signature(build).parameters.items():
        if parameter.default is parameter.empty and name not in settings:
            raise InvalidInput(f"{what} needs the setting {name!r}")


def _kind_of(parameter: inspect.Parameter) -> type | None:
    """The key of `KINDS` for what a parameter takes; None where there is none."""
    if parameter.default is not parameter.empty:
        return type(parameter.default) if type(parameter.default) in KINDS else None
    return next((kind for kind in KINDS if parameter.annotation in (kind, kind.__name__)), None)
