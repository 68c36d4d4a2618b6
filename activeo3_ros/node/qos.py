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

"""Quality of service: a named profile a kind of topic, overridable by parameters, and warnings that name both sides."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.callback_groups import CallbackGroup
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks, UnsupportedEventTypeError
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import QoSOverridingOptions, QoSPolicyKind
from rclpy.subscription import Subscription

from ..core import InvalidInput
from .transports import LEAST_RECEIVE_BUFFER, PROFILES, RECEIVE_BUFFER_TO_SET, TRANSPORTS, profile_for_images

IMAGES = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.BEST_AVAILABLE)
"""Camera and depth images, by `ImageSubscription`. In a history of one, Fast DDS overwrites a frame that waits when the
first piece of the next arrives (docs/results/transports.md). The node takes all and counts the older as replaced."""
CAMERA_INFO = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
"""Small, and repeated with every image."""
VIDEO = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=128, reliability=ReliabilityPolicy.BEST_AVAILABLE)
"""Packets of video: each is needed by those after it, so none may be overwritten while it waits."""
RESULTS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE)
"""Every topic that is published for a frame."""
STATUS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""/diagnostics: a late subscriber gets the newest message at once."""

DISCOVERY_S = 1.0
"""Seconds from an event to its warning: an endpoint is known before the name of its node."""
OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
"""Policies with a parameter `qos_overrides.<topic>.<publisher|subscription>.<policy>`."""


def create_publisher(node: Node, kind: Any, topic: str, profile: QoSProfile, group: CallbackGroup) -> Publisher[Any]:
    """Create a publisher with an overridable profile that warns of incompatible subscribers.

    Args:
        node: The node that publishes.
        kind: The message class.
        topic: Name of the topic, before remapping.
        profile: The quality of service without overrides.
        group: Callback group of the warning.

    Raises:
        InvalidInput: An override is not allowed.
    """
    # rclpy writes the overrides into the profile. It also remaps the name: twice would undo rules that swap two names.
    profile, full = copy.copy(profile), node.resolve_topic_name(topic)
    with _named_overrides(full):
        return node.create_publisher(
            kind,
            topic,
            profile,
            callback_group=group,
            event_callbacks=PublisherEventCallbacks(incompatible_qos=_warn_of_subscribers(node, full, profile)),
            qos_overriding_options=QoSOverridingOptions(OVERRIDABLE),
        )


def create_subscription(
    node: Node,
    kind: Any,
    topic: str,
    callback: Callable[..., None],
    profile: QoSProfile,
    group: CallbackGroup,
    *,
    raw: bool = False,
    policies: Sequence[QoSPolicyKind] = OVERRIDABLE,
    on_lost: Callable[[Any], None] | None = None,
    on_matched: Callable[[Any], None] | None = None,
    on_incompatible: Callable[[Any], None] | None = None,
) -> Subscription[Any]:
    """Create a subscription with an overridable profile that warns of incompatible publishers.

    Args:
        node: The node that subscribes.
        kind: The message class.
        topic: Name of the topic, before remapping.
        callback: Called with each message, and with its information too where it takes two arguments.
        profile: The quality of service without overrides.
        group: Callback group of the subscription.
        raw: Whether the callback gets serialized messages.
        policies: The policies that parameters override.
        on_lost: Called when the middleware reports lost messages, where it does.
        on_matched: Called when a publisher comes or goes, where the middleware tells it.
        on_incompatible: Called for an incompatible publisher, instead of the warning.

    Returns:
        The subscription; its `qos_profile` has the overrides.

    Raises:
        InvalidInput: An override is not allowed.
    """
    profile, full = copy.copy(profile), node.resolve_topic_name(topic)
    on_incompatible = on_incompatible or warn_of_publishers(node, full, lambda: profile)

    def create(events: SubscriptionEventCallbacks) -> Subscription[Any]:
        return node.create_subscription(
            kind,
            topic,
            callback,
            profile,
            callback_group=group,
            event_callbacks=events,
            qos_overriding_options=QoSOverridingOptions(policies),
            raw=raw,
        )

    with _named_overrides(full):
        try:
            return create(
                SubscriptionEventCallbacks(incompatible_qos=on_incompatible, message_lost=on_lost, matched=on_matched)
            )
        except UnsupportedEventTypeError:  # not every middleware reports losses and matches
            return create(SubscriptionEventCallbacks(incompatible_qos=on_incompatible))


def reliability_parameter(node: Node, topic: str) -> ReliabilityPolicy:
    """Declare `qos_overrides.<topic>.subscription.reliability`, by default `best_available`; its value.

    rclpy would declare it too, but not read `best_available` as what it means for publishers that come and go.

    Args:
        node: The node that subscribes.
        topic: Full name of the topic.

    Raises:
        InvalidInput: The value is not allowed.
    """
    name = f"qos_overrides.{topic}.subscription.reliability"
    if not node.has_parameter(name):
        allowed = "best_available, reliable, best_effort or system_default"
        node.declare_parameter(name, "best_available", ParameterDescriptor(description=allowed, read_only=True))
    value = str(node.get_parameter(name).value)
    with _named_overrides(topic):
        try:
            return ReliabilityPolicy[value.upper()]
        except KeyError:
            raise RuntimeError(f"Unexpected QoS override for policy `reliability`: `{value}`") from None


@contextmanager
def _named_overrides(topic: str) -> Iterator[None]:
    """Refuse overrides that rclpy or the middleware do not know as InvalidInput, with the name of the topic."""
    try:
        yield
    except RuntimeError as error:
        raise InvalidInput(
            f"the quality of service of {topic} cannot be had: {str(error).partition(', at /')[0]}; look at its "
            f"parameters qos_overrides.{topic}…, docs/reference/qos.md says what is allowed"
        ) from error


def describe(profile: QoSProfile) -> str:
    """Reliability and durability in a few words."""
    return f"{profile.reliability.name.lower()}, {profile.durability.name.lower()}"


def warn_of_publishers(node: Node, topic: str, profile_now: Callable[[], QoSProfile]) -> Callable[[Any], None]:
    """The event callback of a subscription with an incompatible publisher.

    Args:
        node: The node that subscribes.
        topic: Full name of the topic.
        profile_now: Gives the quality of service of the subscription at the time of the warning.
    """

    def warn() -> None:
        profile = profile_now()
        for publisher in node.get_publishers_info_by_topic(topic):
            if reason := incompatibility(publisher, topic, profile):
                node.get_logger().warning(
                    f"{full_name(publisher)} publishes {topic} as {describe(publisher.qos_profile)}, but "
                    f"{node.get_fully_qualified_name()} asks for {describe(profile)}: {reason}"
                )

    return _later(warn)


def _warn_of_subscribers(node: Node, topic: str, profile: QoSProfile) -> Callable[[Any], None]:
    """The event callback of a publisher with an incompatible subscriber."""

    def warn() -> None:
        for subscriber in node.get_subscriptions_info_by_topic(topic):
            verdict, reason = qos_check_compatible(profile, subscriber.qos_profile)
            if verdict == QoSCompatibility.ERROR:
                node.get_logger().warning(
                    f"{full_name(subscriber)} asks for {topic} as {describe(subscriber.qos_profile)}, but "
                    f"{node.get_fully_qualified_name()} publishes it as {describe(profile)}: it will get no message. "
                    f"Change one side, here with qos_overrides.{topic}.publisher… ({reason.strip()})"
                )

    return _later(warn)


def incompatibility(publisher: Any, topic: str, profile: QoSProfile) -> str:
    """Why no message of a publisher reaches a subscription, and what to do; "" where the two are compatible.

    Args:
        publisher: The publisher's endpoint, of the topic.
        topic: Full name of the topic.
        profile: Quality of service of the subscription.
    """
    verdict, reason = qos_check_compatible(publisher.qos_profile, profile)
    if verdict != QoSCompatibility.ERROR:
        return ""
    return f"no message will arrive. Change one side, here with qos_overrides.{topic}.subscription… ({reason.strip()})"


def warning_of_silence(topic: str, publishers: Sequence[str], silent_s: float) -> str:
    """The warning for a topic that has publishers and brings no message."""
    return (
        f"{', '.join(publishers)} publishes {topic}, but nothing has come for {silent_s:.0f} s. If it does send, its "
        "messages are lost on the way, or the two sides started at the same moment and never connected: start one of "
        "them again; docs/how-to/find-what-is-wrong.md says how to prevent it"
    )


def warning_of_transports(profile: QoSProfile | None, environment: Mapping[str, str], middleware: str) -> str:
    """The warning for transports that lose raw images although they were chosen for them, "" where they do not.

    Args:
        profile: Quality of service of the image subscription; None where publishers choose its reliability.
        environment: Environment variables of this process.
        middleware: Identifier of the RMW implementation.
    """
    transports = environment.get(TRANSPORTS, "")
    if not transports.startswith("LARGE_DATA") or "fastrtps" not in middleware or any(map(environment.get, PROFILES)):
        return ""
    variable, profile_file = profile_for_images(environment)
    instead = f"Unset it and set {variable}={profile_file}, for every process; docs/how-to/transports.md says why"
    if environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper() != "LOCALHOST":
        says = "processes that start at the same moment may never find each other"
        return f"with {TRANSPORTS}={transports}, {says}. {instead}"
    if profile is not None and profile.reliability == ReliabilityPolicy.RELIABLE:
        return ""
    return (
        f"ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST switches {TRANSPORTS}=LARGE_DATA off: raw images of megabytes will "
        f"be lost at best effort. {instead}"
    )


def remedies_for_losses(
    topic: str,
    profile: QoSProfile,
    chosen_by_publishers: bool,
    environment: Mapping[str, str],
    middleware: str,
    receive_buffer: int,
) -> list[str]:
    """What to set where images are lost before they are received, the most likely remedy first.

    Args:
        topic: Full name of the topic.
        profile: Quality of service of the subscription.
        chosen_by_publishers: Whether the reliability is that of the publishers, and not a parameter's.
        environment: Environment variables of this process.
        middleware: Identifier of the RMW implementation.
        receive_buffer: The most that this machine gives a socket, bytes.
    """
    remedies = []
    if profile.reliability == ReliabilityPolicy.BEST_EFFORT:
        parameter = f"qos_overrides.{topic}.subscription.reliability"
        remedies.append("let its publishers offer reliable" if chosen_by_publishers else f"do not set {parameter}")
    if "fastrtps" in middleware:
        if 0 < receive_buffer < LEAST_RECEIVE_BUFFER:
            remedies.append(f"sysctl -w net.core.rmem_max={RECEIVE_BUFFER_TO_SET} (now {receive_buffer})")
        else:
            variable, file = profile_for_images(environment)
            remedies.append(f"start the publisher with {variable}={file}")
    return [*remedies, "publish it compressed, for transport:=compressed"]


def _later(warn: Callable[[], None]) -> Callable[[Any], None]:
    """An event callback that warns `DISCOVERY_S` after the event."""

    def on_event(event: Any) -> None:
        timer = threading.Timer(DISCOVERY_S, warn)
        timer.daemon = True
        timer.start()

    return on_event


def full_name(endpoint: Any) -> str:
    """The full name of the node of a publisher or subscriber."""
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}"
