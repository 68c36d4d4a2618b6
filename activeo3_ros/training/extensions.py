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

"""Code of other packages that a training configuration names as `package.module:name`, imported when it is used."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from ..core.errors import InvalidInput


def load_extension(key: str, name: Any) -> Callable[..., Any]:
    """Import the function or class that a configuration names.

    Args:
        key: The key of the configuration, for the message of an error.
        name: `package.module:name`.

    Returns:
        The function or class.

    Raises:
        InvalidInput: The name has another form, cannot be imported, or is nothing to call.
    """
    module, _, attribute = str(name).partition(":")
    if not module or not attribute or module.startswith("."):
        raise InvalidInput(f"{key} must name a function or a class as package.module:name, got {name!r}")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise InvalidInput(
            f"{key} names {name!r}, which cannot be imported ({_first_line(error)}); install its package, or put the "
            "folder that holds the package on PYTHONPATH"
        ) from error
    if not callable(found):
        raise InvalidInput(f"{key} names {name!r}, but {module} has no function or class {attribute!r}")
    made: Callable[..., Any] = found
    return made


def call_extension(key: str, name: Any, arguments: dict[str, Any]) -> Any:
    """Call the function or class that a configuration names.

    Args:
        key: The key of the configuration, for the message of an error.
        name: `package.module:name`.
        arguments: Its keyword arguments.

    Returns:
        Its result, or the instance.

    Raises:
        InvalidInput: It cannot be loaded (see `load_extension`), or does not take these arguments.
    """
    found = load_extension(key, name)
    try:
        inspect.signature(found).bind(**arguments)
    except (TypeError, ValueError) as error:  # ValueError: a builtin without a signature
        raise InvalidInput(f"{key}: {name} does not take these settings: {error}") from error
    return found(**arguments)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
