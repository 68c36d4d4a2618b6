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

"""Declares and checks settings: the annotations of a constructor are the one declaration of their types and ranges.

    class Grid:
        @validated
        def __init__(self, overlap: Annotated[float, within(0, 0.9)] = 0.25) -> None:
            '''Create the policy.

            Args:
                overlap: Share of a tile's side that it has in common with its neighbour.
            '''

`validated` lets the constructor refuse other values, `check_settings` compares a preset with the same annotations
before a model is loaded, and `settings_of` describes them for the reference pages. msgspec does the matching; the
messages are ours. `core` checks its own few fields and does without (see `core.budget`).
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec

import numpy as np

from .core.errors import InvalidInput
from .core.hints import KINDS
from .core.hints import did_you_mean as did_you_mean
from .core.optional import MissingPackageError

try:
    import msgspec
except ImportError as error:  # rosdep has no key for it, so a robot may lack it
    raise MissingPackageError(
        f"msgspec is needed to check settings but cannot be imported ({error}); run: pip install msgspec"
    ) from error

Parameters = ParamSpec("Parameters")

REQUIRED = inspect.Parameter.empty
"""The default of a setting that has none."""
UNKNOWN = "{owner} has no setting {name!r}; it has {known}"
FROM_FILES = (bool, int, float, str, list, tuple, Mapping, type(None))
"""Types of values in configuration files."""


def within(low: float, high: float | None = None, unit: str = "") -> msgspec.Meta:
    """The range of a setting, to be put into `Annotated`.

    Args:
        low: The smallest value allowed.
        high: The largest value allowed; None for no limit.
        unit: Shown behind the range, such as "pixels".
    """
    return msgspec.Meta(ge=low, le=high, extra={"unit": unit})


@dataclass(frozen=True)
class Setting:
    """One setting of a component, as its constructor declares it.

    Attributes:
        name: Of the constructor's parameter.
        kind: The name of its type in messages, such as "a whole number".
        allowed: The range or the choices, such as "28 to 4096 pixels"; "" where every value of the kind is allowed.
        default: The default value, `REQUIRED` if there is none.
        meaning: From the `Args:` section of the constructor's docstring; "" where that says nothing.
        is_path: Whether a text may be the path of a file or directory: the annotation has `pathlib.Path` too.
    """

    name: str
    kind: str
    allowed: str
    default: Any
    meaning: str
    _declared: Any
    _bare: Any
    _takes_objects: bool
    is_path: bool = False

    def check(self, value: Any) -> None:
        """Compare a value with the declaration.

        Args:
            value: From a configuration file or a caller.

        Raises:
            InvalidInput: The value is of another kind or outside of what is allowed; the message says all of it.
        """
        value = value.item() if isinstance(value, np.generic) else value
        if self._takes_objects and not isinstance(value, FROM_FILES):
            return
        if _matches(value, self._declared):
            return
        if self.allowed and _matches(value, self._bare):
            raise InvalidInput(f"{self.name} must be {self.allowed}, got {value!r}")
        allowed = f"; allowed is {self.allowed}" if self.allowed else ""
        raise InvalidInput(f"{self.name} must be {self.kind}, got {value!r}{allowed}")


def validated(init: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Decorate a constructor so that it refuses values that its annotations do not allow.

    Parameters whose annotation has no plain part (a number, text, list, mapping or choice) are not checked.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        settings = settings_of(init)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in settings:
                settings[name].check(value)
        init(*args, **kwargs)

    return checked


@functools.cache
def settings_of(build: Callable[..., Any]) -> dict[str, Setting]:
    """The settings of a component by name: the parameters of its constructor that take plain values.

    Args:
        build: A class, or its constructor.

    Returns:
        The settings in the order of the parameters.
    """
    function = build.__init__ if isinstance(build, type) else build  # type: ignore[misc]
    hints = typing.get_type_hints(build if _has_fields(build) else function, include_extras=True)
    meanings = _meanings(build.__doc__ if _has_fields(build) else function.__doc__)
    settings = {}
    for name, parameter in inspect.signature(build).parameters.items():
        plain, takes_objects = _plain_part(hints.get(name, Any))
        if plain is not None:
            kind, allowed = _words(plain)
            meaning = meanings.get(name, "")
            bare = _without_limits(plain)
            is_path = Path in typing.get_args(hints.get(name))
            default = parameter.default
            settings[name] = Setting(name, kind, allowed, default, meaning, plain, bare, takes_objects, is_path)
    return settings


def check_settings(
    owner: str,
    build: Callable[..., Any],
    values: Mapping[str, Any],
    unknown: str = UNKNOWN,
    missing: str = "{owner} needs the setting {name!r}",
    without: Sequence[str] = (),
) -> None:
    """Compare the settings in a file with the declaration of a component.

    Args:
        owner: Names the component in messages, such as "engine 'vllm'"; "" for none.
        build: The component's class.
        values: The settings by name.
        unknown: The message for a setting that does not exist; a similar name is added to it.
        missing: The message for a setting without a default that is not there.
        without: Parameters of the class that files may not set.

    Raises:
        InvalidInput: A setting does not exist, is missing, or has a value that is not allowed.
    """
    settings = {name: setting for name, setting in settings_of(build).items() if name not in without}
    check_names(owner, settings, values, unknown)
    for name, setting in settings.items():
        if name not in values and setting.default is REQUIRED:
            raise InvalidInput(missing.format(owner=owner, name=name))
        if name in values:
            with named(owner):
                setting.check(values[name])


def check_names(owner: str, known: Collection[str], values: Iterable[str], unknown: str = UNKNOWN) -> None:
    """Raise InvalidInput for the first name that is not among the known ones; arguments as in `check_settings`."""
    for name in sorted(map(str, values)):
        if name not in known:
            message = unknown.format(owner=owner, name=name, known=", ".join(known) or "none")
            raise InvalidInput(message + did_you_mean(name, known))


@contextmanager
def named(owner: str) -> Iterator[None]:
    """Put the name of a component before the message of an InvalidInput in the block; "" for none."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(f"{owner}: {error}" if owner else str(error)) from error


def _has_fields(build: Callable[..., Any]) -> bool:
    """Whether this is a dataclass, which documents its fields in the docstring of the class."""
    return hasattr(build, "__dataclass_fields__")


def _matches(value: Any, declared: Any) -> bool:
    try:
        msgspec.convert(value, declared)
    except msgspec.ValidationError:
        return False
    return True


def _plain_part(annotation: Any) -> tuple[Any, bool]:
    """The part of an annotation that can stand in a file, None for none; whether it takes other objects besides."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    members = typing.get_args(annotation) if union else (annotation,)
    plain = [member for member in members if _is_plain(member)]
    if all(member is type(None) for member in plain):
        return None, True
    return typing.Union[tuple(plain)], len(plain) < len(members)  # noqa: UP007 - of a list that is computed


def _is_plain(annotation: Any) -> bool:
    bare = _without_limits(annotation)
    return bare in FROM_FILES or typing.get_origin(bare) in (list, tuple, dict, Sequence, Mapping)


def _without_limits(annotation: Any) -> Any:
    """The type alone: without a range, and the type of choices instead of the choices."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _without_limits(annotation.__origin__)
    if origin is Literal:
        return type(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(_without_limits, typing.get_args(annotation)))]  # noqa: UP007
    return annotation


def _words(annotation: Any) -> tuple[str, str]:
    """The name of a type in messages, and the values that are allowed, "" for all."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        limits: msgspec.Meta = annotation.__metadata__[0]
        unit = (limits.extra or {}).get("unit", "")
        allowed = f"at least {limits.ge:.10g}" if limits.le is None else f"{limits.ge:.10g} to {limits.le:.10g}"
        return _words(annotation.__origin__)[0], f"{allowed} {unit}".strip()
    if origin in (typing.Union, types.UnionType):
        words = [_words(member) for member in arguments if member is not type(None)]
        return " or ".join(kind for kind, _ in words), " or ".join(allowed for _, allowed in words if allowed)
    if origin is Literal:
        shown = [repr(value) if "" in arguments else str(value) for value in arguments]
        return "a text", " or ".join(shown) if len(shown) == 2 and "" in arguments else f"one of {', '.join(shown)}"
    if origin in (list, tuple, Sequence):
        item = KINDS[typing.get_origin(arguments[0]) or arguments[0]].removeprefix("a ")
        return f"a list of {item}s", ""
    return KINDS[origin or annotation], ""


def _meanings(docstring: str | None) -> dict[str, str]:
    """The entries of the `Args:` or `Attributes:` section of a docstring in Google style, each in one line."""
    section = re.search(r"^(?:Args|Attributes):\n((?:[ ]+.*\n|\n)+)", inspect.cleandoc(docstring or "") + "\n", re.M)
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {6,}.*)*)", section[1] if section else "", re.M)
    return {name: " ".join(text.split()) for name, text in entries}
