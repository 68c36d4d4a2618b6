"""How raw images of megabytes get through Fast DDS: what the launch files set, and what counts as set. docs/qos.md."""

from __future__ import annotations

from collections.abc import Mapping

TRANSPORTS = "FASTDDS_BUILTIN_TRANSPORTS"
PROFILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Files that may set the transports; the second is the name before Fast DDS 3, as in Jazzy."""
FOR_IMAGES = "LARGE_DATA?non_blocking=true"
"""With `LARGE_DATA` alone, processes that start at the same moment may never find each other."""


def is_chosen(environment: Mapping[str, str]) -> bool:
    """Whether somebody chose the transports."""
    return any(environment.get(name) for name in (TRANSPORTS, *PROFILES))


def carries_images(environment: Mapping[str, str]) -> bool:
    """Whether they were chosen so that frames of megabytes can get through; of a file that is taken to be so."""
    return environment.get(TRANSPORTS, "").startswith("LARGE_DATA") or any(environment.get(name) for name in PROFILES)
