"""Records topics to a bag: `python -m activeo3_ros.node.recorder --out BAG TOPIC=TYPE…`, until it is interrupted.

Messages are written as they arrive, with their definitions. Prints "listening" when each topic has had a publisher for
half a second, and the topic of each message.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions

from ..bags.writing import BagWriter
from .message_types import message_class

QUEUE = QoSProfile(depth=100)
"""Reliable, and deep enough that a slow disk loses nothing."""
LISTENING = "listening"
CHECK_S = 0.05
CHECKS = 10
"""So often in succession there must be a publisher: it finds us about when we find it, not at the same moment."""


class Recorder(Node):
    """Writes the messages of its topics to a bag."""

    def __init__(self, writer: BagWriter, topics: dict[str, str]) -> None:
        """Subscribe.

        Args:
            writer: Takes the messages.
            topics: Type of each topic, by its name.
        """
        super().__init__("bag_recorder")
        self._writer = writer
        for topic, message_type in topics.items():
            writer.add_topic(topic, message_type)
            self.create_subscription(
                message_class(message_type),
                topic,
                partial(self._write, topic),
                QUEUE,
                raw=True,
            )
        self._found = 0
        self._check_timer = self.create_timer(CHECK_S, self._check_publishers)

    def _check_publishers(self) -> None:
        is_found = all(subscription.get_publisher_count() for subscription in self.subscriptions)
        self._found = self._found + 1 if is_found else 0
        if self._found == CHECKS:
            self.destroy_timer(self._check_timer)
            print(LISTENING, flush=True)

    def _write(self, topic: str, cdr: bytes) -> None:
        self._writer.write(topic, self.get_clock().now().nanoseconds, cdr)
        print(topic, flush=True)


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
            rclpy.spin(Recorder(writer, dict(topic.split("=", 1) for topic in args.topics)))
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        finally:
            rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
