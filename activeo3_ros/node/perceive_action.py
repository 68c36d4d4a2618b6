"""The action `~/perceive`: one look at the newest frame of one camera, with a query and budget of its own."""

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
from ..core import Budget, InvalidInput, Query, Region
from .message_types import RCLPY
from .scheduling import Busy, FrameOutcome, PerceiveRequest, Worker

FRAME_WAIT_S = 5.0
"""How long a look waits for a first frame of its camera."""
POLL_S = 0.02


class PerceiveActionServer:
    """Accepts one look at a time, and says why it rejects one."""

    def __init__(
        self,
        node: Node,
        cameras: Sequence[str],
        worker: Callable[[], Worker | None],
        to_message: Callable[[FrameOutcome], msg.PerceptionResult],
    ) -> None:
        """worker: the one that looks now, None while the node is not active. to_message: an outcome as a message."""
        self._node = node
        self._cameras = cameras
        self._worker = worker
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
        """Take the action out of the graph; rclpy leaves that to who made it."""
        self._server.destroy()

    def _consider(self, goal: action.Perceive.Goal) -> GoalResponse:
        """Whether a goal can be served at all; it holds the only place until it has ended."""
        try:
            worker = self._worker()
            if worker is None:
                raise InvalidInput("the node is not active")
            worker.check_query(self._request(goal, worker.settings.budget).query)
            if not self._busy.acquire(blocking=False):
                raise Busy("another look is still under way; wait for its result or cancel it")
        except Exception as error:
            self._node.get_logger().warning(f"~/perceive: goal rejected: {error}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    def _request(self, goal: action.Perceive.Goal, budget: Budget) -> PerceiveRequest:
        """Raises InvalidInput for a camera, query or budget that does not exist."""
        camera = goal.camera or (self._cameras[0] if len(self._cameras) == 1 else "")
        if camera not in self._cameras:
            raise InvalidInput(f"unknown camera {goal.camera[:100]!r}; this node has {', '.join(self._cameras)}")
        if not math.isfinite(goal.deadline_ms):
            raise InvalidInput(f"deadline_ms must be a number, got {goal.deadline_ms}")
        budget = replace(
            budget,
            max_regions=goal.max_regions,
            deadline_ms=float(goal.deadline_ms) or budget.deadline_ms,
        )
        return PerceiveRequest(camera, b"", query=Query(goal.query, tuple(goal.classes)), budget=budget)

    def _execute(self, handle: ServerGoalHandle[Any, Any, Any]) -> action.Perceive.Result:
        try:
            return self._look(handle)
        finally:
            self._busy.release()

    def _look(self, handle: ServerGoalHandle[Any, Any, Any]) -> action.Perceive.Result:
        worker = self._worker()
        if worker is None:
            handle.abort()
            return _failed(handle.request, "the node is no longer active")
        look = self._request(handle.request, worker.settings.budget)

        def tell(stage: str, regions: Sequence[Region]) -> None:
            handle.publish_feedback(action.Perceive.Feedback(stage=stage, regions=region_messages(regions, RCLPY)))

        look.feedback = tell
        while not worker.ready(look.query) and not handle.is_cancel_requested:
            time.sleep(POLL_S)  # here and not in the worker, whose frames need not wait for it
        worker.look(look)
        waited = 0.0
        while not look.done.wait(POLL_S):
            waited += POLL_S
            if handle.is_cancel_requested:
                look.cancelled.set()
                if not look.data:
                    worker.end_request(look, "cancelled before a frame came")
            elif waited > FRAME_WAIT_S and not look.data:
                worker.end_request(
                    look,
                    f"no frame of camera {look.camera} came within {FRAME_WAIT_S:g} s",
                )
        return self._conclude(handle, look)

    def _conclude(self, handle: ServerGoalHandle[Any, Any, Any], look: PerceiveRequest) -> action.Perceive.Result:
        result = self._to_message(look.outcome) if look.outcome else _failed(handle.request, look.reason).result
        if handle.is_cancel_requested and result.status == msg.PerceptionResult.STATUS_FAILED:
            handle.canceled()
        elif result.status == msg.PerceptionResult.STATUS_FAILED:
            handle.abort()
        else:
            handle.succeed()
        return action.Perceive.Result(result=result)


def _failed(goal: action.Perceive.Goal, reason: str) -> action.Perceive.Result:
    result = msg.PerceptionResult(
        camera=goal.camera,
        query=goal.query,
        status=msg.PerceptionResult.STATUS_FAILED,
        status_message=reason,
    )
    return action.Perceive.Result(result=result)
