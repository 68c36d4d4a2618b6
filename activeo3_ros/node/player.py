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

"""Plays one topic of a bag to a node: `python -m activeo3_ros.node.player BAG --topic T --node N --results T`.

Waits until the lifecycle node is active and listens, then publishes message after message, each as soon as the result
of the one before came in or `--patience` is over. So it goes as fast as the node can, and no faster. Messages go out as
they are in the bag, stamps included. Prints a line of JSON for each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import rclpy
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile

from ..bags.reading import read_serialized
from ..codecs.result_cdr import RESULT_TYPE
from ..core import InvalidInput
from .message_types import message_class


class Player(Node):
    """Publishes serialized messages at the pace of the results that come back."""

    def __init__(self, topic: str, message_type: str, results: str) -> None:
        """Create publisher and subscription.

        Args:
            topic: Topic to publish on.
            message_type: Its type.
            results: Topic of the results.
        """
        super().__init__("bag_player")
        self._publisher = self.create_publisher(message_class(message_type), topic, QoSProfile(depth=1))  # reliable
        self._results = 0
        self.create_subscription(message_class(RESULT_TYPE), results, self._on_result, 10, raw=True)

    def wait_for(self, node: str, timeout_s: float) -> None:
        """Return once a lifecycle node is active and both topics are connected.

        Args:
            node: Its full name.
            timeout_s: Seconds to wait at most.

        Raises:
            TimeoutError: It was not so within that time.
        """
        client: Any = self.create_client(GetState, f"{node}/get_state")
        deadline = time.monotonic() + timeout_s
        state = "not there"
        while time.monotonic() < deadline:
            if client.service_is_ready():
                answer = client.call_async(GetState.Request())
                rclpy.spin_until_future_complete(self, answer, timeout_sec=2.0)
                reply = answer.result()
                if reply is not None:
                    state = reply.current_state.label
                    if reply.current_state.id == State.PRIMARY_STATE_ACTIVE and self._is_connected():
                        return
            self._spin_until(lambda: False, 0.1)
        raise TimeoutError(f"{node} was {state} after {timeout_s:g} s, it should be active and listen")

    def play(self, cdr: bytes, patience_s: float) -> bool:
        """Publish one message.

        Args:
            cdr: The serialized message.
            patience_s: Seconds to wait for a result.

        Returns:
            Whether one came in.
        """
        awaited = self._results + 1
        self._publisher.publish(cdr)
        return self._spin_until(lambda: self._results >= awaited, patience_s)

    def _is_connected(self) -> bool:
        return self._publisher.get_subscription_count() > 0 and all(
            subscription.get_publisher_count() > 0 for subscription in self.subscriptions
        )

    def _spin_until(self, is_done: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not is_done() and time.monotonic() < deadline:
            rclpy.spin_once(self, timeout_sec=min(0.1, max(0.0, deadline - time.monotonic())))
        return is_done()

    def _on_result(self, _: bytes) -> None:
        self._results += 1


def main() -> int:
    """Play a bag; exit code 1 if the node does not get ready."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--topic", required=True, help="topic of the bag, and to publish on")
    parser.add_argument(
        "--node",
        required=True,
        help="full name of the lifecycle node that has to be active first",
    )
    parser.add_argument("--results", required=True, help="topic of its PerceptionResult messages")
    parser.add_argument(
        "--start-timeout",
        type=float,
        default=60.0,
        help="for the node to be active, in seconds",
    )
    parser.add_argument("--patience", type=float, default=15.0, help="for one result, in seconds")
    args = parser.parse_args()

    rclpy.init()
    try:
        messages = read_serialized(args.bag, args.topic)
        first = next(messages)
        player = Player(args.topic, first[1], args.results)
        player.wait_for(args.node, args.start_timeout)
        for stamp_ns, _, cdr in chain([first], messages):
            answered = player.play(cdr, args.patience)
            print(json.dumps({"stamp_ns": stamp_ns, "answered": answered}), flush=True)
        return 0
    except (TimeoutError, InvalidInput) as error:
        print(f"bag_player: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        return 130
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
