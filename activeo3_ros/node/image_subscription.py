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

"""A subscription to images that is reliable where every publisher is, and best effort otherwise."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from rclpy.callback_groups import CallbackGroup, MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSPolicyKind
from rclpy.subscription import Subscription

from . import qos
from .frame_counters import Losses

OVERLAP_S = 2.0
"""Seconds that two subscriptions run side by side at most, once both are matched: a camera may be slow, or silent."""
PERIOD_S = 0.5
"""Seconds after which publishers are looked at again: when one is matched, its quality of service may be unknown."""
SETTLE_S = 0.5
"""Seconds from the first message of the new subscription on in which those that wait in the former one are handled."""


class ImageSubscription:
    """Receives serialized images, each once; chooses the reliability again when publishers come and go.

    A best-effort subscription hears every publisher but loses a frame of megabytes with any of its pieces; a reliable
    one hears reliable publishers only. Middlewares resolve `best_available` once, when the subscription is made, and a
    camera that starts later changes nothing. It begins reliably, as most drivers are: one that is not is told of as
    incompatible before anything of it could be heard. When the choice changes later, the former subscription goes on
    until the new one hears what it hears, so that no frame is lost between them.

    Attributes:
        topic: Full name of the topic.
        losses: Images that were sent and never received.
    """

    def __init__(
        self,
        node: Node,
        kind: Any,
        topic: str,
        callback: Callable[[bytes], None],
        group: CallbackGroup,
        profile: QoSProfile = qos.IMAGES,
    ) -> None:
        """Subscribe.

        Args:
            node: The node that subscribes.
            kind: The message class.
            topic: Name of the topic, before remapping.
            callback: Called with each serialized message.
            group: Callback group of the subscription.
            profile: The quality of service but for the reliability.

        Raises:
            InvalidInput: An override of the quality of service is not allowed.
        """
        self.topic = node.resolve_topic_name(topic)
        self.losses = Losses()
        self._node = node
        self._kind = kind
        self._name = topic
        self._type = _full_type(kind)
        self._callback = callback
        self._group = group
        self._profile = profile
        self._lock = threading.Lock()
        self._newest: dict[Hashable, tuple[int, int]] = {}
        self._former: Subscription[Any] | None = None
        self._twice_until = 0.0
        """Until when a message may come a second time: a busy executor brings one of a former subscription late."""
        self._since = 0.0
        self._publishers = self._changes = 0
        """Where senders have no names: the number of publishers at the newest message, and how often it has changed."""
        self._first: dict[Hashable, float] = {}
        """When the newest subscription got its first message of each sender."""
        wanted = qos.reliability_parameter(node, self.topic)
        self.chosen_by_publishers = wanted == ReliabilityPolicy.BEST_AVAILABLE
        """Whether no parameter says otherwise."""
        self._current = self._create(ReliabilityPolicy.RELIABLE if self.chosen_by_publishers else wanted)
        if self.chosen_by_publishers:
            steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
            node.create_timer(PERIOD_S, self._refresh, MutuallyExclusiveCallbackGroup(), steady)

    @property
    def profile(self) -> QoSProfile:
        """Quality of service in force, overrides included."""
        return self._current.qos_profile

    def _refresh(self) -> None:
        """Choose the reliability by the publishers of now."""
        if not self.chosen_by_publishers:
            return
        with self._lock:
            wanted = self._wanted()
            former = self._former
            if former is not None:
                if former.qos_profile.reliability == wanted != self._current.qos_profile.reliability:
                    self._former, self._current = self._current, former  # the publishers changed back meanwhile
                    self._begin_overlap()
                elif self._taken_over(former):
                    self._former, self._twice_until = None, time.monotonic() + OVERLAP_S
                    self._retire(former)
            elif wanted != self._current.qos_profile.reliability:
                self._former = self._current
                self._begin_overlap()
                self._current = self._create(wanted)
                why = (
                    "every publisher is" if wanted == ReliabilityPolicy.RELIABLE else "not every publisher is reliable"
                )
                self._node.get_logger().info(f"{self.topic}: {qos.describe(self.profile)}, since {why}")

    def publishers(self) -> list[Any]:
        """The endpoints of this topic that publish this type."""
        endpoints = self._node.get_publishers_info_by_topic(self.topic)
        return [endpoint for endpoint in endpoints if endpoint.topic_type == self._type]

    def _wanted(self) -> ReliabilityPolicy:
        offered = {publisher.qos_profile.reliability for publisher in self.publishers()}
        # A driver that starts again finds what it found before; what is matched may not be known yet.
        if not offered or not offered <= {ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT}:
            return ReliabilityPolicy(self._current.qos_profile.reliability)
        return ReliabilityPolicy.RELIABLE if offered == {ReliabilityPolicy.RELIABLE} else ReliabilityPolicy.BEST_EFFORT

    def _begin_overlap(self) -> None:
        self._since = time.monotonic()
        self._first = {}

    def _taken_over(self, former: Subscription[Any]) -> bool:
        """Whether the newest subscription hears every publisher that the former one hears."""
        now, publishers = time.monotonic(), self._current.get_publisher_count()
        if not former.get_publisher_count():
            return True
        if publishers < former.get_publisher_count():
            return False
        # Releases that do not name the sender give one for all.
        from_everyone = len(self._first) >= publishers or None in self._first
        settled = all(now - first > SETTLE_S for first in self._first.values())
        return (from_everyone and settled) or now - self._since > OVERLAP_S

    def _retire(self, former: Subscription[Any]) -> None:
        """Destroy a subscription while the executor waits for it, which rclpy copes with, but not with its events.

        An event that is destroyed while it is waited for, or waits for a thread, raises InvalidHandle there, and its
        callback group may stay taken for ever. So it is only taken off the node, and ends with its last reference.
        """
        for event in former.event_handlers:
            self._node.remove_waitable(event)
        former.event_handlers.clear()
        self._node.destroy_subscription(former)

    def _create(self, reliability: ReliabilityPolicy) -> Subscription[Any]:
        profile = copy.copy(self._profile)
        profile.reliability = reliability
        subscription: Subscription[Any] | None = None

        def on_lost(event: Any) -> None:
            if subscription is self._current:
                self.losses.report(event.total_count_change)

        def on_message(data: bytes, info: Mapping[str, Any]) -> None:
            self._on_message(data, info, subscription)

        policies = [policy for policy in qos.OVERRIDABLE if policy != QoSPolicyKind.RELIABILITY]
        # Serialized: a frame that is replaced before its turn is never decoded.
        subscription = qos.create_subscription(
            self._node,
            self._kind,
            self._name,
            on_message,
            profile,
            self._group,
            raw=True,
            policies=policies,
            on_lost=on_lost,
            on_matched=lambda _: self._refresh(),
            on_incompatible=self._on_incompatible,
        )
        return subscription

    def _on_incompatible(self, event: Any) -> None:
        self._refresh()
        qos.warn_of_publishers(self._node, self.topic, lambda: self.profile)(event)

    def _on_message(self, data: bytes, info: Mapping[str, Any], subscription: Subscription[Any] | None) -> None:
        sender = bytes(info["publisher_gid"]["data"]) if "publisher_gid" in info else None
        number = info.get("publication_sequence_number")
        place = (int(info.get("source_timestamp") or 0), int(number or 0))
        with self._lock:
            if subscription is self._current:
                self._first.setdefault(sender, time.monotonic())
            overlap = self._former is not None or subscription is not self._current
            may_come_twice = overlap or time.monotonic() < self._twice_until
            if may_come_twice and place <= self._newest.get(sender, (-1, -1)):
                return
            self._newest.pop(sender, None)
            self._newest[sender] = place
            if len(self._newest) > Losses.MAX_SENDERS:
                del self._newest[next(iter(self._newest))]
            if sender is None:
                self._note_unnamed(number)
            else:
                self.losses.note(sender, number)
        self._callback(data)

    def _note_unnamed(self, number: int | None) -> None:
        """Note a message of a release that does not name the sender: numbers say something of a single one only."""
        subscriptions = [self._current] if self._former is None else [self._current, self._former]
        publishers = max(subscription.get_publisher_count() for subscription in subscriptions)
        if publishers != self._publishers:
            self._publishers = publishers
            self._changes += 1
        self.losses.note(self._changes, number if publishers <= 1 else None)


def _full_type(kind: Any) -> str:
    """`sensor_msgs/msg/Image` of the class."""
    package, *_ = kind.__module__.split(".")
    return f"{package}/msg/{kind.__name__}"
