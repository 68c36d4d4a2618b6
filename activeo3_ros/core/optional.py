"""Packages that only some presets need: imported when they are used, with a clear error when they are missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from typing import Any

from .errors import PerceptionError


class MissingPackageError(PerceptionError, ImportError):
    """A package that this preset or command needs is not installed."""


def require_package(module: str, purpose: str, requirement: str = "") -> Any:
    """The imported module. Raises MissingPackageError, saying what needs it and what to install, if that fails.

    purpose: completes "is needed …"; requirement: what to give to pip where that is not the module's name.
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
    """The version of what was installed under this name, without importing it; "" where no installation tells."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
