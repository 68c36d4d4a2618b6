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

"""The versions of vLLM that this project was tried with; with any other, its public interface alone is used."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

TRIED = ((0, 22), (0, 32))
"""The first and the last: 0.22.1 on a GPU; on CPUs also 0.25.1, 0.27.1, 0.29.0 and 0.32.0."""

T = TypeVar("T")


def version_problem(version: str) -> str:
    """The reason not to rely on a version of vLLM.

    Args:
        version: As `vllm.__version__` has it; "" if it is not known.

    Returns:
        One clause for people; "" for the versions of `TRIED` and for "".
    """
    if not version:
        return ""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is not None and TRIED[0] <= tuple(map(int, numbers.groups())) <= TRIED[1]:
        return ""
    first, last = (".".join(map(str, known)) for known in TRIED)
    return f"vLLM {version} is installed, and this engine was tried with {first} to {last}"


def private(find: Callable[[], T], version: str, without: str) -> T | None:
    """Private parts of vLLM, if this version was tried and has them.

    Args:
        find: Imports and looks up all of them.
        version: Of the vLLM that is installed.
        without: The public way, for the warning.

    Returns:
        The result of `find`; None, after a warning, if the parts are missing or the version is unknown.
    """
    problem = version_problem(version)
    if not problem:
        try:
            return find()
        except (ImportError, AttributeError) as error:
            problem = f"vLLM {version} lacks a private part ({error})"
    logger.warning("%s: %s", problem, without)
    return None
