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

"""Optional packages: imported when they are used, with a clear error when they are missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from typing import Any

from .errors import PerceptionError


class MissingPackageError(PerceptionError, ImportError):
    """A package that this preset or command needs is not installed."""


def require_package(module: str, purpose: str, requirement: str = "") -> Any:
    """Import a module that only some presets or commands need.

    Args:
        module: Its dotted name.
        purpose: Completes "is needed …" in the message of the error.
        requirement: The requirement to give to pip where that is not the module's name.

    Returns:
        The module.

    Raises:
        MissingPackageError: It cannot be imported; the message says what needs it and what to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{module} is needed {purpose} but cannot be imported ({error}); run: pip install '{requirement or module}'"
        ) from error


def has_package(name: str) -> bool:
    """Whether a package is installed, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def installed_version(distribution: str) -> str:
    """The version of an installed distribution, without importing it; "" if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
