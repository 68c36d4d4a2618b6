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

"""One check of `activeo3 doctor`: what a machine has or lacks, and what brings it."""

from __future__ import annotations

from dataclasses import dataclass

SOURCE_ROS = ". install/setup.sh (after make setup), or . /opt/ros/DISTRO/setup.sh and that of your workspace"


@dataclass(frozen=True)
class Check:
    """One thing that a machine has or lacks.

    Attributes:
        name: Of the thing.
        ok: Whether the machine has it.
        found: Its version or place, or the reason why it is missing.
        needed_for: What uses it.
        fix: The command that brings it, "" if it is there or no command does.
        optional: Whether most people do without it.
    """

    name: str
    ok: bool
    found: str
    needed_for: str
    fix: str = ""
    optional: bool = False
