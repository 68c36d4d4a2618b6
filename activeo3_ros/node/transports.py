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

"""Settings that let raw images of megabytes through Fast DDS, and ROS domains of our own.

docs/how-to/transports.md says what to do with them.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..assets.resources import config_directory

TRANSPORTS = "FASTDDS_BUILTIN_TRANSPORTS"
PROFILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Files that may set the transports; the second is the name before Fast DDS 3, as in Jazzy."""
BEFORE_FAST_DDS_3 = ("foxy", "galactic", "humble", "iron", "jazzy")
RECEIVE_BUFFER = Path("/proc/sys/net/core/rmem_max")
"""The most that Linux gives a socket, bytes."""
LEAST_RECEIVE_BUFFER = 4 * 2**20
"""Bytes of a receive buffer from which on UDP brings more raw frames than the sender's shared memory of 512 KB."""
RECEIVE_BUFFER_TO_SET = 32 * 2**20
"""As much as config/fastdds/large_receive_buffer.xml asks for, bytes."""
RMW = "RMW_IMPLEMENTATION"
OWN_DOMAINS = range(41, 102)
"""ROS domains from which the demo and the benchmarks take one: users choose lower ones, and higher ones use ports that
Linux gives to other programs."""


def own_domain(domains: Sequence[int] = OWN_DOMAINS) -> int:
    """A random one of these ROS domains that no process of this machine uses now; any of them if all are in use."""
    shuffled = random.SystemRandom().sample(domains, len(domains))
    return next(filter(_is_unused, shuffled), shuffled[0])


def _is_unused(domain: int) -> bool:
    # The multicast port of a domain's discovery, and the unicast port of its first participant (DDSI-RTPS 9.6.2.4):
    # which of the two is in use depends on ROS_AUTOMATIC_DISCOVERY_RANGE.
    for port in (7400 + 250 * domain, 7410 + 250 * domain):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
            try:
                receiver.bind(("", port))
            except OSError:
                return False
    return True


def profile_for_images(environment: Mapping[str, str]) -> tuple[str, str]:
    """The variable and the value that let raw images through: the path of the profile that ships.

    It gives shared memory that holds frames of megabytes, and leaves discovery as it is. `FASTDDS_BUILTIN_TRANSPORTS=
    LARGE_DATA` needs no file, but processes that start at the same moment with it may never find each other.

    Args:
        environment: Environment variables; `ROS_DISTRO` decides the name of the variable.
    """
    return _variable(environment), str(config_directory() / "fastdds" / "shared_memory.xml")


def _variable(environment: Mapping[str, str]) -> str:
    """Name of the variable that names a profile file."""
    return PROFILES[environment.get("ROS_DISTRO", "") in BEFORE_FAST_DDS_3]


def settings_for_node(environment: Mapping[str, str], receive_buffer: int) -> dict[str, str]:
    """The variables with which the node hears drivers that have no setting; none where something is chosen already.

    Between processes of one machine Fast DDS prefers shared memory, which is the sender's and small by default. Without
    it on this side the sender uses UDP, for which this side's buffer counts.

    Args:
        environment: Environment variables.
        receive_buffer: The most that this machine gives a socket, bytes.
    """
    if is_chosen(environment) or "fastrtps" not in environment.get(RMW, "fastrtps"):
        return {}
    if receive_buffer < LEAST_RECEIVE_BUFFER:
        return {}
    return {_variable(environment): str(config_directory() / "fastdds" / "large_receive_buffer.xml")}


def largest_receive_buffer(path: Path = RECEIVE_BUFFER) -> int:
    """The most that this machine gives a socket for what it has received, bytes; 0 where that is unknown."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def settings_for_images(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables to add so that raw images get through; none where the environment chooses transports already."""
    return {} if is_chosen(environment) else dict([profile_for_images(environment)])


def is_chosen(environment: Mapping[str, str]) -> bool:
    """Whether an environment chooses transports."""
    return any(environment.get(name) for name in (TRANSPORTS, *PROFILES))


def carries_images(environment: Mapping[str, str]) -> bool:
    """Whether the chosen transports let frames of megabytes through; a profile file is taken to do so."""
    return environment.get(TRANSPORTS, "").startswith("LARGE_DATA") or any(environment.get(name) for name in PROFILES)


def left_segments(directory: Path = Path("/dev/shm")) -> dict[Path, int]:
    """Shared memory segments of Fast DDS that killed processes left behind, and the bytes of each.

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
