"""How raw images of megabytes get through Fast DDS (docs/how-to/transports.md).

What the launch files set, and what counts as set.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Mapping
from pathlib import Path

from ..assets.resources import config_directory

TRANSPORTS = "FASTDDS_BUILTIN_TRANSPORTS"
PROFILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Files that may set the transports; the second is the name before Fast DDS 3, as in Jazzy."""
BEFORE_FAST_DDS_3 = ("foxy", "galactic", "humble", "iron", "jazzy")
OWN_DOMAINS = range(41, 102)
"""ROS domains of which our programs take one for themselves: lower ones are what people choose, higher ones use ports
that Linux gives to others."""


def own_domain() -> int:
    """A domain of `OWN_DOMAINS` in which nobody on this machine is at the moment, by chance; if all are in use, any."""
    domains = random.SystemRandom().sample(OWN_DOMAINS, len(OWN_DOMAINS))
    return next(filter(_is_unused, domains), domains[0])


def _is_unused(domain: int) -> bool:
    # Where all of a domain hear of each other, and where the first of them is asked alone (DDSI-RTPS 9.6.2.4): which of
    # the two is in use depends on ROS_AUTOMATIC_DISCOVERY_RANGE.
    for port in (7400 + 250 * domain, 7410 + 250 * domain):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            try:
                receiver.bind(("", port))
            except OSError:
                return False
    return True


def profile_for_images(environment: Mapping[str, str]) -> tuple[str, str]:
    """The variable and the value that let raw images through: the profile that ships.

    It gives shared memory that holds frames of megabytes, and leaves discovery as it is. `FASTDDS_BUILTIN_TRANSPORTS=
    LARGE_DATA` needs no file, but processes that start at the same moment with it may never find each other.
    environment: its `ROS_DISTRO` tells the name of the variable.
    """
    variable = PROFILES[environment.get("ROS_DISTRO", "") in BEFORE_FAST_DDS_3]
    return variable, str(config_directory() / "fastdds" / "shared_memory.xml")


def settings_for_images(environment: Mapping[str, str]) -> dict[str, str]:
    """What `environment` lacks so that raw images get through; nothing where somebody chose the transports."""
    return {} if is_chosen(environment) else dict([profile_for_images(environment)])


def is_chosen(environment: Mapping[str, str]) -> bool:
    """Whether somebody chose the transports."""
    return any(environment.get(name) for name in (TRANSPORTS, *PROFILES))


def carries_images(environment: Mapping[str, str]) -> bool:
    """Whether they were chosen so that frames of megabytes can get through; of a file that is taken to be so."""
    return environment.get(TRANSPORTS, "").startswith("LARGE_DATA") or any(environment.get(name) for name in PROFILES)


def left_segments(directory: Path = Path("/dev/shm")) -> dict[Path, int]:
    """Shared memory of Fast DDS whose process was killed and could not take it away, and the bytes that it takes.

    A living process holds the lock on the file NAME_el beside its segment NAME.
    """
    left: dict[Path, int] = {}
    try:
        import fcntl
    except ImportError:  # not on Windows, where there is no /dev/shm either
        return left
    for lock in sorted(directory.glob("fastdds_*_el")):
        try:
            descriptor = os.open(lock, os.O_RDONLY)
        except OSError:  # of another user, or its process ended this moment
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            segment = lock.with_name(lock.name.removesuffix("_el"))
            left[segment] = 512 * segment.stat().st_blocks
        except OSError:  # a process holds it, or only the lock is left
            continue
        finally:
            os.close(descriptor)
    return left
