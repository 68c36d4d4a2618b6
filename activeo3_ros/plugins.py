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

"""Finds the policies, detectors and segmenters that other installed packages register as entry points.

    [project.entry-points."activeo3_ros.detectors"]     # in the pyproject.toml of that package
    gizmo = "gizmo_detector:GizmoDetector"

Reading what is registered imports nothing; a plug-in is imported when a preset names it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .core.errors import InvalidInput

GROUPS = {
    "sensing": "activeo3_ros.policies",
    "detector": "activeo3_ros.detectors",
    "segmenter": "activeo3_ros.segmenters",
}
"""By kind of component: the group of entry points that registers some."""


@dataclass(frozen=True)
class Plugin:
    """A component that an installed package registers.

    Attributes:
        kind: "sensing", "detector" or "segmenter".
        name: The type by which presets name it.
        path: `module:name` of its class.
        package: The package that registers it.
        version: Of that package.
    """

    kind: str
    name: str
    path: str
    package: str
    version: str

    @property
    def label(self) -> str:
        """Its name in messages, such as "detector 'gizmo' of gizmo-detector 1.0"."""
        return f"{self.kind} {self.name!r} of {self.package} {self.version}"

    def load(self) -> Callable[..., Any]:
        """Import its class.

        Raises:
            InvalidInput: It cannot be imported; the message says why.
        """
        return load_class(self.path, self.label)


def plugins(kind: str) -> list[Plugin]:
    """All components of a kind that installed packages register, by name; imports none."""
    found = {_plugin(kind, point) for point in entry_points(group=GROUPS[kind])}
    return sorted(found, key=lambda plugin: (plugin.name, plugin.package))


def find_plugin(kind: str, name: str) -> Plugin | None:
    """The plug-in of a name, None if there is none.

    Raises:
        InvalidInput: Two packages register that name.
    """
    same = [plugin for plugin in plugins(kind) if plugin.name == name]
    if len({plugin.path for plugin in same}) > 1:
        packages = " and ".join(f"{plugin.package} ({plugin.path})" for plugin in same)
        raise InvalidInput(f"the {kind} type {name!r} is registered by {packages}; uninstall one of them")
    return same[0] if same else None


def load_class(path: str, label: str) -> Callable[..., Any]:
    """Import a class.

    Args:
        path: `module:name`, or `module.name`.
        label: Names it in messages.

    Raises:
        InvalidInput: It cannot be imported, or is no class; the message says why.
    """
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        found: object = getattr(importlib.import_module(module), name)
    except Exception as error:  # somebody else's code: anything may be raised while it is imported
        raise InvalidInput(f"{label}: {path} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise InvalidInput(f"{label}: {path} is no class but a {type(found).__name__}")
    return found


def _plugin(kind: str, point: EntryPoint) -> Plugin:
    package, version = (point.dist.name, point.dist.version) if point.dist is not None else ("an unknown package", "")
    return Plugin(kind, point.name, point.value, package, version)
