"""The versions of vLLM that this project was tried with; drafts are left out with any other."""

from __future__ import annotations

import re

TRIED = ((0, 22), (0, 32))
"""The first and the last: 0.22.1 on a GPU; on CPUs also 0.25.1, 0.27.1, 0.29.0 and 0.32.0."""


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
