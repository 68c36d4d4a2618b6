"""Whether settings that came out of a file have the kind of value that a class expects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from .perception.errors import InvalidInput

KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
}
"""For the type of a default: what is taken for it, and what people call that."""


def check_kinds(what: str, build: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Raise InvalidInput for the first setting whose value is of another kind than the default that it replaces.

    what: names the settings in the message, such as "engine 'vllm'". A setting without a plain default is not checked.
    """
    parameters = inspect.signature(build).parameters
    for name, value in settings.items():
        kind = type(parameters[name].default) if name in parameters else None
        if kind not in KINDS:
            continue
        taken, words = KINDS[kind]
        if not isinstance(value, taken) or (isinstance(value, bool) and kind is not bool):
            raise InvalidInput(f"{what}: {name} must be {words}, got {value!r}")
