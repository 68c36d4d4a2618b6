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

"""Records topics to a bag: `python -m activeo3_ros.node.recorder --out BAG TOPIC=TYPE…`, until it is interrupted.

Messages are written as they arrive, with their definitions. Prints "listening" when each topic has had a publisher for
half a second, and the topic of each message.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from ..bags.writing import BagWriter
from ..core import InvalidInput
from . import qos
from .executor import spin_until_shutdown
from .frame_counters import Losses
from .message_types import message_class

QUEUE = QoSProfile(depth=100)
"""Reliable, and deep enough that a slow disk loses nothing."""
LISTENING = "listening"
POLL_S = 0.1
"""Seconds after which a wait for messages looks whether the recording is over."""
IDLE_TURNS = 3
"""So often in succession nothing must be waiting before a recording ends; a turn may go to a timer."""
CHECK_S = 0.05
CHECKS = 10
"""So often in succession there must be a publisher: it finds us about when we find it, not at the same moment."""


@dataclass
class TopicCount:
    """The messages of one topic.

    Attributes:
        recorded: Messages in the bag.
        losses: Those that were sent and never received.
    """

    recorded: int = 0
    losses: Losses = field(default_factory=Losses)

    def describe(self) -> str:
        """A few words."""
        return f"{self.recorded} messages, {self.losses.missing or 0} lost before receipt"


class Recorder(Node):
    """Writes the messages of its topics to a bag.

    Attributes:
        counts: The messages of each topic that has a subscription.
    """

    def __init__(
        self,
        writer: BagWriter,
        topics: Mapping[str, str],
        on_message: Callable[[str], None],
        on_listening: Callable[[], None] = lambda: None,
    ) -> None:
        """Subscribe.

        Args:
            writer: Takes the messages.
            topics: Type of each topic, by its name; "" for that of its first publisher, whose quality of service the
                subscription then follows.
            on_message: Called with the topic of each message.
            on_listening: Called once when each topic has had a publisher for half a second.
        """
        super().__init__("bag_recorder")
        self._writer = writer
        self._on_message, self._on_listening = on_message, on_listening
        self.counts: dict[str, TopicCount] = {}
        self._awaited = [topic for topic, message_type in topics.items() if not message_type]
        for topic, message_type in topics.items():
            if message_type:
                self._subscribe(topic, message_type, QUEUE)
        self._found = 0
        self._check_timer = self.create_timer(CHECK_S, self._check_publishers)

    @property
    def recorded(self) -> int:
        """Messages of all topics."""
        return sum(count.recorded for count in self.counts.values())

    def _check_publishers(self) -> None:
        for topic in list(self._awaited):
            if publishers := self.get_publishers_info_by_topic(topic):
                self._awaited.remove(topic)
                self._subscribe(topic, publishers[0].topic_type, _profile_for(publishers))
                self.get_logger().info(f"listening to {topic}, {publishers[0].topic_type}")
        is_found = not self._awaited and all(subscription.get_publisher_count() for subscription in self.subscriptions)
        self._found = self._found + 1 if is_found else 0
        if self._found == CHECKS:
            self.destroy_timer(self._check_timer)
            self._on_listening()

    def _subscribe(self, topic: str, message_type: str, profile: QoSProfile) -> None:
        """Raises InvalidInput for a type that is not installed, or whose definition a bag could not be given."""
        try:
            kind = message_class(message_type)
        except (ImportError, AttributeError) as error:
            raise InvalidInput(f"{topic}: {message_type} is not installed") from error
        self._writer.add_topic(topic, message_type)
        self.counts[topic] = count = TopicCount()
        qos.create_subscription(
            self,
            kind,
            topic,
            partial(self._write, topic),
            profile,
            MutuallyExclusiveCallbackGroup(),
            raw=True,
            on_lost=partial(_note_lost, count),
        )

    def _write(self, topic: str, cdr: bytes, info: Mapping[str, Any]) -> None:
        self._writer.write(topic, self.get_clock().now().nanoseconds, cdr)
        count = self.counts[topic]
        count.recorded += 1
        sender = bytes(info["publisher_gid"]["data"]) if "publisher_gid" in info else None
        count.losses.note(sender, info.get("publication_sequence_number"))
        self._on_message(topic)


def record(
    writer: BagWriter, topics: Iterable[str], on_message: Callable[[str], None], is_over: Callable[[], bool]
) -> dict[str, TopicCount]:
    """Record topics of any type, each from its first publisher on.

    Args:
        writer: Takes the messages.
        topics: Their names.
        on_message: Called with the topic of each message.
        is_over: Whether to end; what has arrived until then is recorded.

    Returns:
        The counts of the topics that were published.

    Raises:
        InvalidInput: The type of a topic is not installed, or its definition is not known.
    """
    recorder = Recorder(writer, dict.fromkeys(topics, ""), on_message)
    executor = SingleThreadedExecutor()
    executor.add_node(recorder)
    while not is_over():
        executor.spin_once(POLL_S)
    idle = 0
    while idle < IDLE_TURNS:
        before = recorder.recorded
        executor.spin_once(0.0)
        idle = idle + 1 if recorder.recorded == before else 0
    return recorder.counts


def _note_lost(count: TopicCount, event: Any) -> None:
    count.losses.report(event.total_count)


def _profile_for(publishers: Sequence[Any]) -> QoSProfile:
    """The quality of service that receives from all these publishers."""
    profiles = [publisher.qos_profile for publisher in publishers]
    reliable = all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in profiles)
    lasting = all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in profiles)
    return QoSProfile(
        depth=QUEUE.depth,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if lasting else DurabilityPolicy.VOLATILE,
    )


def main() -> int:
    """Record until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "topics",
        nargs="+",
        metavar="TOPIC=TYPE",
        help="such as /camera/image_raw=sensor_msgs/msg/Image",
    )
    parser.add_argument("--out", type=Path, required=True, help="the MCAP file to write")
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"{args.out} is there already; give another --out, or remove it")

    rclpy.init(signal_handler_options=SignalHandlerOptions.ALL)
    with BagWriter(args.out) as writer:
        try:
            topics = dict(topic.split("=", 1) for topic in args.topics)
            tell = partial(print, flush=True)
            spin_until_shutdown(Recorder(writer, topics, tell, partial(tell, LISTENING)))
        except KeyboardInterrupt:
            pass
        finally:
            rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
