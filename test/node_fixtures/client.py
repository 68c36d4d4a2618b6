"""A robot's side of the conversation: publishes frames, calls services, collects results."""

from __future__ import annotations

import gc
import threading
import time
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from activeo3_ros.action import Perceive
from activeo3_ros.msg import PerceptionResult
from activeo3_ros.srv import SetQuery
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters, SetParametersAtomically
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool
from waiting import wait_for

from activeo3_ros.node.perceive_action import AS_NODE

RELIABLE = QoSProfile(depth=2000, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
    "cleanup": Transition.TRANSITION_CLEANUP,
}


def image(pixels: np.ndarray, stamp: Time | None = None, frame_id: str = "optical") -> Image:
    """A bgr8 message of `(h, w, 3)` pixels."""
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding="bgr8", step=3 * width)
    message.header = Header(stamp=stamp or Time(sec=1, nanosec=2), frame_id=frame_id)
    message.data = array("B", pixels.tobytes())
    return message


class Client:
    """A node of the test with everything that a test needs to talk to `/activeo3`."""

    def __init__(self, cameras: tuple[str, ...] = ("camera",), node_name: str = "activeo3") -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = Node(f"client_of_{node_name}", context=self.context, use_global_arguments=False)
        self.name = f"/{node_name}"
        self.results: list[PerceptionResult] = []
        self.diagnostics: list[DiagnosticArray] = []
        self._clients: dict[str, Any] = {}
        self.images = {
            camera: self.node.create_publisher(Image, f"/{camera}/image_raw", RELIABLE) for camera in cameras
        }
        self.collect(PerceptionResult, *(f"{camera}/result" for camera in cameras), into=self.results)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self.diagnostics.append, LATCHED)
        self.perceive_client = ActionClient(self.node, Perceive, f"{self.name}/perceive")
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join(5)
        self._executor.shutdown()
        self.perceive_client.destroy()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
        # What is left of a node in cycles is freed here, where nothing else of this process is talking: freed in the
        # middle of another test, it has met Fast DDS's threads of that test's node in a deadlock.
        gc.collect()

    def _spin(self) -> None:
        while not self._stop.is_set() and self.context.ok():
            self._executor.spin_once(timeout_sec=0.05)

    def destroy(self, entity: Any) -> None:
        """Destroy a publisher or a subscription of the node between two waits of the executor.

        It waits for handles: one that another thread takes from it meanwhile ends it with InvalidHandle, and with it
        all that later tests would hear.
        """
        gone = threading.Event()

        def run() -> None:
            assert self.node.destroy_subscription(entity) or self.node.destroy_publisher(entity)
            gone.set()

        self._executor.create_task(run)
        assert gone.wait(30)

    # Topics

    def collect(self, kind: Any, *topics: str, into: list[Any] | None = None) -> list[Any]:
        """The messages of the node's topics `~/TOPIC`, as they come."""
        messages: list[Any] = [] if into is None else into
        for topic in topics:
            self.node.create_subscription(kind, f"{self.name}/{topic}", messages.append, RELIABLE)
        return messages

    def connect(self, cameras: tuple[str, ...] = ()) -> None:
        """Wait until the node is active, hears these cameras, default all, and its results are heard."""
        wait_for(self._is_active, 30, "the node to be active")
        for camera in cameras or tuple(self.images):
            wait_for(
                lambda camera=camera: self.images[camera].get_subscription_count(), 30, f"a subscriber of {camera}"
            )
            wait_for(
                lambda camera=camera: self.node.count_publishers(f"{self.name}/{camera}/result"),
                30,
                "the result's publisher",
            )
        time.sleep(0.3)  # the other side's half of the match, which nothing here shows

    def publish(self, pixels: np.ndarray, camera: str = "camera", stamp: Time | None = None) -> None:
        self.images[camera].publish(image(pixels, stamp))

    def result_of(
        self, pixels: np.ndarray, camera: str = "camera", stamp: Time | None = None, timeout_s: float = 15.0
    ) -> PerceptionResult:
        """Publish one frame and wait for its result.

        Args:
            pixels: `(height, width, 3)` uint8 BGR.
            camera: Name of the camera.
            stamp: Stamp of the image; default 1 s and 2 ns.
            timeout_s: Seconds to wait.
        """
        before = len(self.results)
        self.publish(pixels, camera, stamp)
        return wait_for(
            lambda: [result for result in self.results[before:] if result.camera == camera], timeout_s, "a result"
        )[0]

    def _is_active(self) -> bool:
        try:
            return self.get_state(2.0) == "active"
        except AssertionError:  # a request to a node that was killed and whose end has not been noticed yet
            return False

    def status(self, camera: str = "") -> tuple[int, str, dict[str, str]]:
        """Level, message and values of the node's newest diagnostics, or of one of its cameras."""
        name = self.name.lstrip("/") + (f": {camera}" if camera else "")
        status = wait_for(lambda: self._newest_status(name), what=f"diagnostics of {name}")
        return status.level[0], status.message, {pair.key: pair.value for pair in status.values}

    def _newest_status(self, name: str) -> Any:
        every = (status for array in reversed(self.diagnostics) for status in array.status)
        return next((status for status in every if status.name == name), None)

    def counts(self, camera: str) -> dict[str, int]:
        """The frame counts of a camera in the newest diagnostics."""
        values = self.status(camera)[2]
        names = ("received", "pending", "processed", "replaced", "stale", "failed", "rejected", "undecoded")
        return {name: int(values[name]) for name in names}

    # Services

    def call(self, kind: Any, service: str, request: Any, timeout_s: float = 15.0) -> Any:
        """The response of the node's service `~/SERVICE`. Fails the test when none comes."""
        return _done(self._client(kind, service).call_async(request), timeout_s)

    def _client(self, kind: Any, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, f"{self.name}/{service}")
        assert self._clients[service].wait_for_service(15), f"no service {service}"
        return self._clients[service]

    def get_state(self, timeout_s: float = 15.0) -> str:
        """Asked again where no answer comes: one that is sent before both ends have found each other is lost."""
        end = time.monotonic() + timeout_s
        while True:
            left = end - time.monotonic()
            try:
                answer = self.call(GetState, "get_state", GetState.Request(), min(4.0, left))
            except AssertionError:
                if left <= 4.0:
                    raise
                continue
            return str(answer.current_state.label)

    def change_state(self, transition: str, timeout_s: float = 30.0) -> bool:
        """Ask for a transition by its name; "shutdown" works in every state."""
        return bool(_done(self.begin_transition(transition), timeout_s).success)

    def begin_transition(self, transition: str) -> Any:
        """The future of the answer to `change_state`."""
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS.get(transition, 0)))
        if transition not in TRANSITIONS:
            request.transition.label = transition
        return self._client(ChangeState, "change_state").call_async(request)

    def bring_up(self) -> None:
        """From unconfigured to active, connected."""
        assert self.change_state("configure")
        assert self.change_state("activate")
        self.connect()

    def set_parameters(self, **values: Any) -> list[Any]:
        request = SetParameters.Request(parameters=[_parameter(name, value) for name, value in values.items()])
        return list(self.call(SetParameters, "set_parameters", request).results)

    def set_parameters_atomically(self, **values: Any) -> Any:
        parameters = [_parameter(name, value) for name, value in values.items()]
        request = SetParametersAtomically.Request(parameters=parameters)
        return self.call(SetParametersAtomically, "set_parameters_atomically", request).result

    def get_parameters(self, *names: str) -> list[ParameterValue]:
        return list(self.call(GetParameters, "get_parameters", GetParameters.Request(names=names)).values)

    def set_query(self, query: str, classes: tuple[str, ...] = ()) -> Any:
        return self.call(SetQuery, "set_query", SetQuery.Request(query=query, classes=classes))

    def enable(self, on: bool) -> Any:
        return self.call(SetBool, "enable", SetBool.Request(data=on))

    def perceive(self, feedback: Callable[[Any], None] | None = None, **goal: Any) -> Any:
        """The handle of a goal, accepted or not; with the node's number of regions unless the goal says another."""
        assert self.perceive_client.wait_for_server(15)
        return _done(self.perceive_client.send_goal_async(Perceive.Goal(**{"max_regions": AS_NODE, **goal}), feedback))

    def outcome(self, handle: Any, timeout_s: float = 15.0) -> Any:
        """Status and result of an accepted goal."""
        return _done(handle.get_result_async(), timeout_s)

    def cancel(self, handle: Any) -> Any:
        return _done(handle.cancel_goal_async())


def _done(future: Any, timeout_s: float = 15.0) -> Any:
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    assert done.wait(timeout_s), f"no answer within {timeout_s:g} s"
    return future.result()


def _parameter(name: str, value: Any) -> Parameter:
    kinds = {
        bool: ("bool_value", ParameterType.PARAMETER_BOOL),
        int: ("integer_value", ParameterType.PARAMETER_INTEGER),
        float: ("double_value", ParameterType.PARAMETER_DOUBLE),
        str: ("string_value", ParameterType.PARAMETER_STRING),
        list: ("string_array_value", ParameterType.PARAMETER_STRING_ARRAY),
    }
    field, kind = kinds[type(value)]
    return Parameter(name=name, value=ParameterValue(type=kind, **{field: value}))
