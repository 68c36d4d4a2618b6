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

"""Finds the files that come with the module: presets and tables of `config/`, message definitions of `msg/`.

They lie in different places: beside the module in the source tree, which the links of a colcon build with
`--symlink-install` lead back to; in `share/activeo3_ros/` of a colcon installation; inside the module where pip
installed it.
"""

from __future__ import annotations

from pathlib import Path

from ..core.errors import PerceptionError

MODULE = Path(__file__).parent.parent


class MissingFiles(PerceptionError):
    """Files that belong to the module are not there: the installation is broken."""


def config_directory() -> Path:
    """The directory of presets, `*.yaml`, and of the files that they refer to.

    Raises:
        MissingFiles: It was not installed.
    """
    return _find("config", packaged_as="config")


def preset_names() -> list[str]:
    """The presets that ship with the package. Raises MissingFiles as `config_directory` does."""
    return sorted(path.stem for path in config_directory().glob("*.yaml"))


def message_directory() -> Path:
    """The directory of the message definitions, `*.msg`.

    Raises:
        MissingFiles: It was not installed.
    """
    # A wheel cannot name it msg: `import activeo3_ros.msg` would then find an empty package instead of failing.
    return _find("msg", packaged_as="interfaces")


def source_directory() -> Path | None:
    """The root of the source tree that the module runs from, as after `colcon build --symlink-install`, if it does."""
    source = MODULE.joinpath("__init__.py").resolve().parent.parent
    # Else it is a site-packages, whose "config" would be somebody else's.
    return source if source.joinpath("package.xml").is_file() else None


def _find(name: str, packaged_as: str) -> Path:
    source = source_directory()
    candidates = [MODULE / packaged_as]
    if source is not None:
        candidates.append(source / name)
    candidates += [parent / "share" / "activeo3_ros" / name for parent in MODULE.parents]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise MissingFiles(f"the files of {name}/ are not installed with {MODULE}; install the package again")
