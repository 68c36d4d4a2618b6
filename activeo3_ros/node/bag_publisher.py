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

"""Publishes recorded messages on their topics in the rhythm of the recording, where there is no `ros2 bag`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import rclpy
from builtin_interfaces.msg import Time
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rclpy.validate_full_topic_name import validate_full_topic_name
from rosgraph_msgs.msg import Clock
from std_srvs.srv import SetBool

from ..bags.pacing import Pacer
from ..bags.storage import CDR, DamagedMessage, Topic
from ..core import InvalidInput
from .executor import spin_until_shutdown
from .message_types import message_class

NODE_NAME = "activeo3_player"
STEP_S = 0.05
"""Seconds after which a wait checks again for a pause or an interruption."""
CLOCK_TOPIC = "/clock"
DEPTH = 10
ACKNOWLEDGED_WITHIN = Duration(seconds=1)
"""How long the end waits for reliable subscribers to have the last messages."""


class Recorded(NamedTuple):
    """A recorded message.

    Attributes:
        topic: Name of its topic.
        time_ns: When it is to be published, nanoseconds of the recording.
        read: Gives its bytes when they are needed; raises DamagedMessage.
    """

    topic: str
    time_ns: int
    read: Callable[[], bytes]


class BagPublisher(Node):
    """Publishes messages as they were recorded, on topics of their names; `~/pause` stops and goes on."""

    def __init__(self, path: Path, topics: Sequence[Topic], pacer: Pacer, clock_hz: float) -> None:
        """Create the publishers.

        Args:
            path: The recording, for messages.
            topics: The topics to publish.
            pacer: The time of the recording.
            clock_hz: Rate of `/clock`, 0 for never.

        Raises:
            InvalidInput: None of the topics can be published.
        """
        super().__init__(NODE_NAME)
        self._pacer = pacer
        self._outputs: dict[str, Any] = {}
        self.left_out: dict[str, str] = {}
        """Why a topic is not published, by its name."""
        for topic in topics:
            if topic.name == CLOCK_TOPIC and clock_hz:
                self.left_out[topic.name] = "--clock publishes it"
                continue
            try:
                self._outputs[topic.name] = self._create_output(topic)
            except InvalidInput as error:
                self.left_out[topic.name] = str(error)
        if not self._outputs:
            reasons = "; ".join(f"{topic}: {reason}" for topic, reason in self.left_out.items())
            raise InvalidInput(f"{path}: none of its topics can be published: {reasons}")
        self._clock_output: Any = self.create_publisher(Clock, CLOCK_TOPIC, DEPTH) if clock_hz else None
        self._clock_step_s = 1.0 / clock_hz if clock_hz else STEP_S
        self.create_service(SetBool, "~/pause", self._on_pause)

    def _create_output(self, topic: Topic) -> Any:
        """The publisher of a topic. Raises InvalidInput, which says why there can be none."""
        if not topic.type:
            raise InvalidInput("the bag does not say its type")
        if topic.encoding != CDR:
            raise InvalidInput(f"its messages are {topic.describe_type()}, ROS 2 needs {CDR}")
        try:
            validate_full_topic_name(topic.name if topic.name.startswith("/") else f"/{topic.name}")
            return self.create_publisher(message_class(topic.type), topic.name, _qos(topic.name))
        except InvalidTopicNameException as error:
            reason = str(error).splitlines()[0].removeprefix("Invalid topic name: ").rstrip(":")
            raise InvalidInput(f"ROS 2 does not allow its name: {reason}") from error
        except (ImportError, AttributeError) as error:
            raise InvalidInput(f"{topic.type} is not installed") from error

    @property
    def topics(self) -> list[str]:
        """The topics that are published."""
        return list(self._outputs)

    def wait_for_subscribers(self, timeout_s: float) -> bool:
        """Whether every topic had a subscriber within `timeout_s` seconds."""
        waiting = threading.Event()
        for _ in range(max(1, round(timeout_s / STEP_S))):
            if all(output.get_subscription_count() for output in self._outputs.values()):
                return True
            waiting.wait(STEP_S)
        return False

    def publish(self, messages: Iterable[Recorded], show: Callable[[int], None]) -> tuple[int, int]:
        """Publish all messages once, each at its time.

        Args:
            messages: In the order of their times. They are taken one by one, each before its time.
            show: Called with the number of messages done after each.

        Returns:
            How many were published, and how many could not be read.
        """
        published = damaged = 0
        waiting = threading.Event()
        for message in messages:
            if not published + damaged:
                self._pacer.start_at(message.time_ns)
            while rclpy.ok() and (wait_s := self._pacer.wait_s(message.time_ns)) > 0:
                waiting.wait(min(wait_s, STEP_S, self._clock_step_s))
                self._publish_clock()
            if not rclpy.ok():
                break
            try:
                self._outputs[message.topic].publish(message.read())
                published += 1
            except DamagedMessage:
                damaged += 1
            self._publish_clock()
            show(published + damaged)
        for output in self._outputs.values():  # else the end of the process takes the last messages with it
            if rclpy.ok():
                output.wait_for_all_acked(ACKNOWLEDGED_WITHIN)
        return published, damaged

    def _publish_clock(self) -> None:
        if self._clock_output is not None:
            seconds, nanoseconds = divmod(self._pacer.bag_time_ns(), 1_000_000_000)
            self._clock_output.publish(Clock(clock=Time(sec=int(seconds), nanosec=int(nanoseconds))))

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._pacer.pause(bool(request.data))
        response.success = True
        response.message = "paused" if request.data else "playing"
        return response


@contextmanager
def ros_context() -> Iterator[None]:
    """ROS for the block. Signals stay with Python, so that Ctrl-C is a KeyboardInterrupt."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield
    finally:
        rclpy.try_shutdown()


def run(node: BagPublisher, play: Callable[[], None], toggle: Callable[[], None] | None) -> None:
    """Play while services are answered.

    Args:
        node: Answers the services.
        play: Publishes the messages; ROS is shut down when it returns.
        toggle: Called for each line that a person enters on a terminal.
    """
    spinning = threading.Thread(target=spin_until_shutdown, args=(node,), daemon=True)
    spinning.start()
    if toggle is not None and sys.stdin.isatty():
        threading.Thread(target=_read_terminal, args=(toggle,), daemon=True).start()
    try:
        play()
    finally:
        rclpy.try_shutdown()
        spinning.join(timeout=2.0)


def _read_terminal(toggle: Callable[[], None]) -> None:
    for _ in sys.stdin:
        toggle()


def _qos(topic: str) -> QoSProfile:
    """Reliable, which serves every subscriber; static messages reach later subscribers too."""
    durability = DurabilityPolicy.TRANSIENT_LOCAL if topic.endswith("_static") else DurabilityPolicy.VOLATILE
    return QoSProfile(depth=DEPTH, durability=durability)
