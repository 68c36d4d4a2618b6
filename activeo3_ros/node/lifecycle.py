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

"""A lifecycle node with what rclpy's lacks on a robot.

Exceptions in a transition's callback are logged instead of vanishing. `get_state` answers while a transition is under
way. `shutdown` is possible while `configure` still loads: ROS has no such transition, so loading is stopped first.
"""

from __future__ import annotations

import functools
import threading
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.node import Node

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)

SHUTDOWN_LABEL = "shutdown"
SHUTDOWN_IDS = (
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    Transition.TRANSITION_INACTIVE_SHUTDOWN,
    Transition.TRANSITION_ACTIVE_SHUTDOWN,
)
REQUESTABLE = {
    Transition.TRANSITION_CONFIGURE: "configure",
    Transition.TRANSITION_CLEANUP: "cleanup",
    Transition.TRANSITION_ACTIVATE: "activate",
    Transition.TRANSITION_DEACTIVATE: "deactivate",
}
SHUTDOWN_WAIT_S = 2.0
"""Seconds that a shutdown waits for another transition to end."""

NodeT = TypeVar("NodeT", bound="ManagedNode")
Callback = Callable[[NodeT, Any], TransitionCallbackReturn]


def logged(callback: Callback[NodeT]) -> Callback[NodeT]:
    """A transition's callback whose exceptions are logged, kept as the last error, and become ERROR."""

    @functools.wraps(callback)
    def run(self: NodeT, state: Any) -> TransitionCallbackReturn:
        try:
            return callback(self, state)
        except Exception as error:
            self.last_error = f"{callback.__name__}: {type(error).__name__}: {error}"
            self.get_logger().error(f"{callback.__name__} failed:\n{traceback.format_exc()}")
            return ERROR

    return run


class ManagedNode(LifecycleNodeMixin, Node):
    """A lifecycle node for an executor of several threads."""

    def __init__(self, name: str, **arguments: Any) -> None:
        Node.__init__(self, name, **arguments)
        # Reentrant: get_state must answer while change_state waits for models to load.
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self.last_error = ""
        self.ending = threading.Event()
        """Set while a shutdown waits: loading and perception should stop."""
        self._transition = threading.Lock()
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state

    @property
    def state(self) -> str:
        """The lifecycle state's label, such as "active"."""
        return str(self._state_machine.current_state[1])

    def destroy_node(self) -> None:
        """Destroy the node and the state machine, which otherwise keeps all resources of the middleware."""
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def start(self) -> None:
        """Configure and activate, as a lifecycle manager would."""
        with self._transition:
            if self.trigger_configure() == SUCCESS:
                self.trigger_activate()

    def end(self) -> bool:
        """Shut down from any state.

        Returns:
            False where that was not possible.
        """
        self.ending.set()
        if not self._transition.acquire(timeout=SHUTDOWN_WAIT_S):
            self.get_logger().error(f"shutdown: another transition did not end within {SHUTDOWN_WAIT_S:g} s")
            self.ending.clear()
            return False
        try:
            return self.state != "finalized" and self.trigger_shutdown() == SUCCESS
        finally:
            self.ending.clear()
            self._transition.release()

    def _on_change_state(self, request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        label = request.transition.label or REQUESTABLE.get(request.transition.id, "")
        if label == SHUTDOWN_LABEL or (not label and request.transition.id in SHUTDOWN_IDS):
            response.success = self.end()
        elif label not in REQUESTABLE.values():
            self.get_logger().warning(f"there is no transition {label or request.transition.id!r} to ask for")
        elif not self._transition.acquire(blocking=False):
            self.get_logger().warning(f"{label} refused: another transition is under way ({self.state})")
        else:
            try:
                # Jazzy's rclpy raises for a transition that this state does not have, and the caller waits forever.
                possible = [name for _, name, *_ in self._state_machine.available_transitions]
                if label in possible:
                    response = self._change_state(request, response)
                else:
                    choice = ", ".join(possible)
                    self.get_logger().warning(f"{label} refused: a node that is {self.state} takes {choice}")
            finally:
                self._transition.release()
        return response
