"""Keeps a test session apart from every other ROS process, whatever the shell has set. Imports no ROS."""

from __future__ import annotations

from collections.abc import MutableMapping

from activeo3_ros.node.transports import own_domain

DOMAINS = range(1, 41)
"""Domains of test sessions; the demo and the benchmarks take others."""
SHELL_DOMAIN = "ACTIVEO3_TEST_SHELL_DOMAIN"
"""The domain that the shell had set, kept for the worker processes of pytest-xdist."""
LEFTOVERS = (
    "RMW_IMPLEMENTATION",
    "ROS_LOCALHOST_ONLY",
    "ROS_STATIC_PEERS",
    "ROS_DISCOVERY_SERVER",
    "ROS_SUPER_CLIENT",
    "ROS_SECURITY_ENABLE",
    "ROS_SECURITY_STRATEGY",
    "ROS_SECURITY_KEYSTORE",
    "RMW_FASTRTPS_USE_QOS_FROM_XML",
    "RMW_FASTRTPS_PUBLICATION_MODE",
    "FASTDDS_BUILTIN_TRANSPORTS",
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "CYCLONEDDS_URI",
)
"""Variables of a shell that would change how the tests' processes find and hear each other."""


def isolate(environment: MutableMapping[str, str]) -> None:
    """Give a session, and all processes that it starts, a domain of its own on this machine alone.

    Fast DDS then ignores FASTDDS_BUILTIN_TRANSPORTS, so pictures stay small in tests unless they are sent reliably.

    Args:
        environment: The environment of the session, changed in place. With pytest-xdist it tells which of several
            worker processes this is; each chooses among domains that no other of them chooses from.
    """
    for name in LEFTOVERS:
        environment.pop(name, None)
    environment.setdefault(SHELL_DOMAIN, environment.get("ROS_DOMAIN_ID", "0"))
    worker = int(environment.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(environment.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    mine = DOMAINS[worker % len(DOMAINS) :: min(workers, len(DOMAINS))]
    others = [domain for domain in mine if str(domain) != environment[SHELL_DOMAIN]]
    environment["ROS_DOMAIN_ID"] = str(own_domain(others or mine))
    environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
