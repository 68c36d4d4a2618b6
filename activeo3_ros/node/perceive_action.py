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

"""The action `~/perceive`: one result of the newest frame of one camera, with a query and budget of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from activeo3_ros import action, msg

from ..codecs.result_message import region_messages
from ..core import Budget, InvalidInput, Query, Region, Status
from .jobs import FrameOutcome, PerceiveRequest
from .message_library import RCLPY
from .scheduler import Busy, Scheduler

AS_NODE = 255
"""A goal's `max_regions` that keeps the node's; it cannot be 0, which ROS fills in where a client sets nothing."""
FRAME_WAIT_S = 5.0
"""Seconds that a request waits for a first frame of its camera."""
POLL_S = 0.02


class PerceiveActionServer:
    """Accepts one goal at a time, and logs why it rejects one."""

    def __init__(
        self,
        node: Node,
        cameras: Sequence[str],
        scheduler: Callable[[], Scheduler | None],
        to_message: Callable[[FrameOutcome], msg.PerceptionResult],
    ) -> None:
        """Create the action server.

        Args:
            node: The node whose action it is.
            cameras: Names of the cameras; a goal may leave the name out where there is one alone.
            scheduler: Gives the scheduler, None while the node is not active.
            to_message: An outcome as a message.
        """
        self._node = node
        self._cameras = cameras
        self._scheduler = scheduler
        self._to_message = to_message
        self._busy = Lock()
        self._server: ActionServer[Any, Any, Any] = ActionServer(
            node,
            action.Perceive,
            "~/perceive",
            self._execute,
            callback_group=ReentrantCallbackGroup(),
            goal_callback=self._consider,
            cancel_callback=lambda goal: CancelResponse.ACCEPT,
        )

    def destroy(self) -> None:
        """Remove the action from the graph; rclpy leaves that to its creator."""
        self._server.destroy()

    def _consider(self, goal: action.Perceive.Goal) -> GoalResponse:
        """Accept a goal that can be served; it holds the only place until it has ended."""
        try:
            scheduler = self._scheduler()
            if scheduler is None:
                raise InvalidInput("the node is not active")
            scheduler.check_query(self._request(goal, scheduler.settings.budget).query)
            if not self._busy.acquire(blocking=False):
                raise Busy
        except Exception as error:
            self._node.get_logger().warning(f"~/perceive: goal rejected: {error}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _request(self, goal: action.Perceive.Goal, budget: Budget) -> PerceiveRequest:
        """The request of a goal. Raises InvalidInput for a camera, query or budget that is not allowed."""
        camera = goal.camera or (self._cameras[0] if len(self._cameras) == 1 else "")
        if camera not in self._cameras:
            raise InvalidInput(f"unknown camera {goal.camera[:100]!r}; this node has {', '.join(self._cameras)}")
        if not math.isfinite(goal.deadline_ms):
            raise InvalidInput(f"deadline_ms must be a number, got {goal.deadline_ms}")
        budget = replace(
            budget,
            max_regions=budget.max_regions if goal.max_regions == AS_NODE else goal.max_regions,
            deadline_ms=float(goal.deadline_ms) or budget.deadline_ms,
        )
        return PerceiveRequest(camera, b"", query=Query(goal.query, tuple(goal.classes)), budget=budget)

    def _execute(self, handle: ServerGoalHandle[Any, Any, Any]) -> action.Perceive.Result:
        try:
            return self._perceive(handle)
        finally:
            self._busy.release()

    def _perceive(self, handle: ServerGoalHandle[Any, Any, Any]) -> action.Perceive.Result:
        scheduler = self._scheduler()
        if scheduler is None:
            handle.abort()
            return _failed(handle.request, "the node is no longer active")
        request = self._request(handle.request, scheduler.settings.budget)

        def publish_feedback(stage: str, regions: Sequence[Region]) -> None:
            handle.publish_feedback(action.Perceive.Feedback(stage=stage, regions=region_messages(regions, RCLPY)))

        request.feedback = publish_feedback
        while not scheduler.ready(request.query) and not handle.is_cancel_requested:
            time.sleep(POLL_S)  # here and not in a worker thread, whose frames need not wait for it
        scheduler.perceive(request)
        waited = 0.0
        while not request.done.wait(POLL_S):
            waited += POLL_S
            if handle.is_cancel_requested:
                request.cancelled.set()
                if not request.data:
                    scheduler.end_request(request, "cancelled before a frame came")
            elif waited > FRAME_WAIT_S and not request.data:
                reason = f"no frame of camera {request.camera} came within {FRAME_WAIT_S:g} s; /diagnostics says why"
                scheduler.end_request(request, reason)
        return self._conclude(handle, request)

    def _conclude(self, handle: ServerGoalHandle[Any, Any, Any], request: PerceiveRequest) -> action.Perceive.Result:
        outcome = request.outcome and _with_note(request.outcome, handle.request.max_regions)
        result = self._to_message(outcome) if outcome else _failed(handle.request, request.reason).result
        if handle.is_cancel_requested and result.status == msg.PerceptionResult.STATUS_FAILED:
            handle.canceled()
        elif result.status == msg.PerceptionResult.STATUS_FAILED:
            handle.abort()
        else:
            handle.succeed()
        return action.Perceive.Result(result=result)


def _with_note(outcome: FrameOutcome, max_regions: int) -> FrameOutcome:
    """The outcome, with a note where the goal allowed no region: most clients that send 0 set nothing."""
    if max_regions or outcome.result.status is Status.FAILED:
        return outcome
    note = f"max_regions 0: only the view of the whole frame was examined; {AS_NODE} takes the node's number of regions"
    return replace(outcome, result=outcome.result.with_notes([note]))


def _failed(goal: action.Perceive.Goal, reason: str) -> action.Perceive.Result:
    result = msg.PerceptionResult(
        camera=goal.camera,
        query=goal.query,
        status=msg.PerceptionResult.STATUS_FAILED,
        status_message=reason,
    )
    return action.Perceive.Result(result=result)
