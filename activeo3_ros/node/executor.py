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

"""How callbacks are served: by threads that stay quiet while they are busy, and until the context is shut down."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.context import Context
from rclpy.executors import (
    ConditionReachedException,
    ExternalShutdownException,
    MultiThreadedExecutor,
    ShutdownException,
    SingleThreadedExecutor,
    TimeoutException,
)
from rclpy.node import Node

PAUSE_S = 0.001
"""Seconds for which a thread of the pool may take up what waits for one, before the executor looks again."""
LOOK_UP_S = 0.5
"""Seconds after which a thread that waits for callbacks looks whether it should still do so."""


class QuietExecutor(MultiThreadedExecutor):
    """rclpy's executor, without handing what waits for a thread to the pool again and again.

    rclpy's own one takes a callback that was handed over and has not begun for one that can go on, and hands it over
    anew without any pause. From a burst on that takes a whole core and the interpreter's lock, and the callbacks it is
    about come so late that it does not end: of a 1080p camera at 30 Hz two thirds of the frames were lost.
    """

    def __init__(self, num_threads: int, context: Context | None = None) -> None:
        super().__init__(num_threads, context=context)
        self._waiting: set[int] = set()
        """The ids of the tasks that were handed over and have not begun."""

    def _spin_once_impl(self, timeout_sec: Any = None, wait_condition: Callable[[], bool] = lambda: False) -> None:
        try:
            task, _, _ = self.wait_for_ready_callbacks(timeout_sec, None, wait_condition)
        except (ExternalShutdownException, ShutdownException, TimeoutException, ConditionReachedException):
            return
        if id(task) in self._waiting:
            time.sleep(PAUSE_S)
            return

        def begin() -> None:
            self._waiting.discard(id(task))
            task()

        self._waiting.add(id(task))
        self._executor.submit(begin)
        self._futures.append(task)
        for future in self._futures[:]:
            if future.done():
                self._futures.remove(future)
                future.result()  # raises what the callback raised


def spin_until_shutdown(node: Node) -> None:
    """Serve a node's callbacks until its context is shut down, by a signal or otherwise.

    `rclpy.spin` does not always end: a signal wakes it before the context is shut down, and where it looks in between
    it waits again, for ever.

    Raises:
        KeyboardInterrupt: SIGINT, where Python handles it.
    """
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    while node.context.ok():
        try:
            executor.spin_once(LOOK_UP_S)
        except ExternalShutdownException:
            return
        except RuntimeError:  # also RCLError: shut down since the loop looked
            if node.context.ok():
                raise
