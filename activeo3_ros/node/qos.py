"""Quality of service: a named profile for each kind of topic, overrides for all, warnings that name both sides."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import QoSOverridingOptions, QoSPolicyKind

from .transports import PROFILES, TRANSPORTS, profile_for_images

IMAGES = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Camera images and camera_info: an old frame is worth less than the next one."""
RESULTS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE)
"""Everything that is published for a frame."""
STATUS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""/diagnostics: who joins late gets the newest at once."""


DISCOVERY_S = 1.0


def overridable() -> QoSOverridingOptions:
    """Parameters `qos_overrides.<topic>.<publisher|subscription>.<policy>` for one topic."""
    return QoSOverridingOptions(
        (
            QoSPolicyKind.HISTORY,
            QoSPolicyKind.DEPTH,
            QoSPolicyKind.RELIABILITY,
            QoSPolicyKind.DURABILITY,
        )
    )


def describe(profile: QoSProfile) -> str:
    """Reliability and durability in a few words."""
    return f"{profile.reliability.name.lower()}, {profile.durability.name.lower()}"


def warn_incompatible_publishers(node: Node, topic: str, profile: QoSProfile) -> Callable[[Any], None]:
    """The event callback of a subscription that cannot hear somebody."""

    def warn() -> None:
        for publisher in node.get_publishers_info_by_topic(topic):
            verdict, reason = qos_check_compatible(publisher.qos_profile, profile)
            if verdict == QoSCompatibility.ERROR:
                node.get_logger().warning(
                    f"{_who(publisher)} publishes {topic} as {describe(publisher.qos_profile)}, but "
                    f"{node.get_fully_qualified_name()} asks for {describe(profile)}: no message will arrive. "
                    f"Change one side, here with qos_overrides.{topic}.subscription… ({reason.strip()})"
                )

    return _later(warn)


def warn_incompatible_subscribers(node: Node, topic: str, profile: QoSProfile) -> Callable[[Any], None]:
    """The event callback of a publisher that somebody cannot hear."""

    def warn() -> None:
        for subscriber in node.get_subscriptions_info_by_topic(topic):
            verdict, reason = qos_check_compatible(profile, subscriber.qos_profile)
            if verdict == QoSCompatibility.ERROR:
                node.get_logger().warning(
                    f"{_who(subscriber)} asks for {topic} as {describe(subscriber.qos_profile)}, but "
                    f"{node.get_fully_qualified_name()} publishes it as {describe(profile)}: it will get no message. "
                    f"Change one side, here with qos_overrides.{topic}.publisher… ({reason.strip()})"
                )

    return _later(warn)


def publishers(node: Node, topic: str, profile: QoSProfile) -> list[str]:
    """The names of those who publish a topic in a way that this profile can hear."""
    endpoints = node.get_publishers_info_by_topic(topic)
    return [
        _who(endpoint)
        for endpoint in endpoints
        if qos_check_compatible(endpoint.qos_profile, profile)[0] != QoSCompatibility.ERROR
    ]


def warning_of_silence(topic: str, publishers: Sequence[str], silent_s: float) -> str:
    """What to tell of a topic on which nothing comes though somebody publishes it."""
    return (
        f"{', '.join(publishers)} publishes {topic}, but nothing has come for {silent_s:.0f} s. If it does send, its "
        "messages are lost on the way, or the two sides started at the same moment and never connected: start one of "
        "them again; docs/how-to/find-what-is-wrong.md says how to prevent it"
    )


def warning_of_transports(profile: QoSProfile, environment: Mapping[str, str], middleware: str) -> str:
    """Why raw images that are asked for so will not come though somebody set the transports for them, else ""."""
    transports = environment.get(TRANSPORTS, "")
    if not transports.startswith("LARGE_DATA") or "fastrtps" not in middleware or any(map(environment.get, PROFILES)):
        return ""
    variable, profile_file = profile_for_images(environment)
    instead = f"Unset it and set {variable}={profile_file}, for every process; docs/how-to/transports.md says why"
    if environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper() != "LOCALHOST":
        says = "processes that start at the same moment may never find each other"
        return f"with {TRANSPORTS}={transports}, {says}. {instead}"
    if profile.reliability != ReliabilityPolicy.BEST_EFFORT:
        return ""
    return (
        f"ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST switches {TRANSPORTS}=LARGE_DATA off: raw images of megabytes will "
        f"be lost at best effort. {instead}"
    )


def _later(warn: Callable[[], None]) -> Callable[[Any], None]:
    """The warning a moment after the event: the other side's endpoint is known before the name of its node."""

    def on_event(event: Any) -> None:
        timer = threading.Timer(DISCOVERY_S, warn)
        timer.daemon = True
        timer.start()

    return on_event


def _who(endpoint: Any) -> str:
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"
