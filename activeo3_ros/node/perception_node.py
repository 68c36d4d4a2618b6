"""The node `activeo3`: declares parameters, wires topics and services to the worker, and publishes what comes out."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import MultiThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

from activeo3_ros import msg, srv

from ..codecs import image_message as conversions
from ..core import ActivePerception, Budget, Frame, InvalidInput, PerceptionError, Query, Status
from ..presets import load_preset
from . import diagnostics, parameters, qos
from . import result_message as messages
from .camera_topics import CameraTopics, create_diagnostics_publisher
from .frame_counters import Counts, FrameCounters
from .lifecycle import FAILURE, SUCCESS, ManagedNode, logged
from .perceive_action import PerceiveActionServer
from .scheduling import FrameOutcome, Prepared, Rejected, Settings, Worker

STOP_S = 1.0
"""How long a cleanup or shutdown waits for a model's call; then the call's thread is left behind."""
END_S = 1.7
"""How long the process takes to end at most: a model's call, then what the middleware has to give back."""
WATCH_PERIOD_S = 0.2
WARM_UP_SIZE = (480, 640)
"""Height and width of the grey picture that models see once before they are ready, pixels."""
EXECUTOR_THREADS = 8
"""A transition and a look may hold one each for long; the others answer."""
SWITCH_INTERVAL_S = 0.0002
"""How long a model's Python code may keep the interpreter: an answer to a service waits for it several times over."""


class LoadablePreset(Protocol):
    """What `load_preset` gives: settings at once, models when asked."""

    @property
    def budget(self) -> Budget: ...

    @property
    def query(self) -> Query: ...

    def build(self) -> ActivePerception: ...


class PerceptionNode(ManagedNode):
    """A lifecycle node around one `ActivePerception`; docs/reference/lifecycle.md says what each transition does."""

    def __init__(self, load: Callable[[str], LoadablePreset] = load_preset, **arguments: Any) -> None:
        """load: a preset by the name in the parameter `preset`.

        Raises InvalidInput or rclpy's ParameterException for a parameter that is not allowed.
        """
        super().__init__("activeo3", **arguments)
        self._load_preset = load
        parameters.declare(self)
        self._values = parameters.values(self)
        parameters.check(self._values, set(self._values), configured=False)
        self._preset: LoadablePreset | None = None
        self._revision = 0
        self._enabled = True
        self._worker: Worker | None = None
        self._loading_since = math.nan
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)

        self._cameras = list(self._values["cameras"])
        self._ledger = FrameCounters(self._cameras)
        self._topics = {
            # A group each: with a queue of one, a camera that waits for another's callback loses frames unseen.
            name: CameraTopics(self, name, self._values["transport"], MutuallyExclusiveCallbackGroup(), self._on_image)
            for name in self._cameras
        }
        self._seen: dict[str, float] = {}
        self._stamps: dict[str, int] = {}
        self._mute_since: dict[str, float] = {}
        """Since when a camera is published and not heard; infinite once that has been logged."""

        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        # In the default group, as the parameter services: a change of the query is a change of parameters.
        self.create_service(srv.SetQuery, "~/set_query", self._on_set_query)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self._looks = PerceiveActionServer(self, self._cameras, self._active_worker, self._look_message)

        self._hardware_id = self._values["hardware_id"] or socket.gethostname()
        self._diagnostics = create_diagnostics_publisher(self, ReentrantCallbackGroup())
        self._reported = {name: Counts() for name in self._cameras}
        self._reported_at = time.monotonic()
        # Steady clocks: simulated time may stand still, jump, or not have begun.
        period = self._values["diagnostics_period"]
        self._timer(period, self._publish_diagnostics)
        self._timer(WATCH_PERIOD_S, self._watch)

    def destroy_node(self) -> None:
        self._looks.destroy()
        super().destroy_node()

    def _timer(self, period_s: float, callback: Callable[[], None]) -> None:
        self.create_timer(period_s, callback, MutuallyExclusiveCallbackGroup(), self._steady)

    # Lifecycle

    @logged
    def on_configure(self, state: Any) -> Any:
        """Load the models, in the worker's thread; failure leaves nothing behind and can be retried."""
        self.last_error = ""
        self._warn_of_transports()
        try:
            self._preset = self._load_preset(self._values["preset"])
            settings = self._settings()
        except (PerceptionError, OSError) as error:
            return self._refuse_configure(str(error))
        self._loading_since = time.monotonic()
        self._worker = worker = Worker(
            self._ledger,
            self._cameras,
            load=functools.partial(_load_and_warm_up, self._preset, settings),
            prepare=self._prepare,
            deliver=self._deliver,
            now_ns=lambda: self.get_clock().now().nanoseconds,
            settings=settings,
        )
        while not worker.wait_loaded(0.05):
            if self.ending.is_set():
                # Loading cannot be interrupted, and whoever ends the node waits: its thread frees what it has loaded.
                return self._refuse_configure("stopped while the models were loading", wait_s=0.0)
        if worker.error:
            return self._refuse_configure(worker.error)
        took = time.monotonic() - self._loading_since
        self._loading_since = math.nan
        self.get_logger().info(f"preset {self._values['preset']!r} is ready after {took:.1f} s")
        return SUCCESS

    def _warn_of_transports(self) -> None:
        middleware = rclpy.get_rmw_implementation_identifier()
        raw = [topics.image_profile for topics in self._topics.values() if topics.image_type is Image]
        warnings = [qos.warning_of_transports(profile, os.environ, middleware) for profile in raw]
        for warning in sorted(set(filter(None, warnings))):
            self.get_logger().warning(warning)

    def _refuse_configure(self, reason: str, wait_s: float = STOP_S) -> Any:
        self._free(wait_s)
        self.last_error = reason
        self.get_logger().error(f"configure failed: {reason}")
        return FAILURE

    @logged
    def on_activate(self, state: Any) -> Any:
        self._open_or_close_gate(active=True)
        return super().on_activate(state)

    @logged
    def on_deactivate(self, state: Any) -> Any:
        self._open_or_close_gate(active=False)
        return super().on_deactivate(state)

    @logged
    def on_cleanup(self, state: Any) -> Any:
        self._free()
        return super().on_cleanup(state)

    @logged
    def on_shutdown(self, state: Any) -> Any:
        self._free()
        return super().on_shutdown(state)

    @logged
    def on_error(self, state: Any) -> Any:
        self._free()
        return SUCCESS

    def _free(self, wait_s: float = STOP_S) -> None:
        """Stop the worker and let go of the models. wait_s: how long to wait for a call that is still in them."""
        worker, self._worker = self._worker, None
        self._loading_since = math.nan
        if worker is not None and not worker.stop(wait_s, "stopped by a lifecycle transition"):
            self.get_logger().warning("a model's call is still running; its memory is freed when it returns")

    def _open_or_close_gate(self, active: bool) -> None:
        if self._worker is None:
            return
        if active and self._enabled:
            self._worker.open_gate()
        else:
            self._worker.close_gate()

    def _active_worker(self) -> Worker | None:
        return self._worker if self.state == "active" else None

    # Frames

    def _on_image(self, camera: str, data: bytes) -> None:
        self._seen[camera] = time.monotonic()
        worker = self._worker
        if worker is not None:
            worker.offer(camera, data)

    def _prepare(self, camera: str, data: bytes) -> Prepared:
        """A serialized message as a frame. Raises Rejected. Runs in the worker's thread."""
        kind = self._topics[camera].image_type
        try:
            message = deserialize_message(data, kind)
        except Exception as error:
            raise Rejected(f"the message could not be read: {type(error).__name__}: {error}") from error
        limit = self._values["max_image_pixels"]
        convert = conversions.image_to_bgr if kind is Image else conversions.compressed_to_bgr
        header = message.header
        self._stamps[camera] = stamp_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        try:
            image = convert(message, limit)
        except InvalidInput as error:
            raise Rejected(str(error), header) from error
        return Prepared(Frame(image, stamp_ns, header.frame_id, camera), header)

    def _deliver(self, outcome: FrameOutcome) -> None:
        """Publish. Runs in the worker's thread."""
        distance = self._values["marker_distance"]
        self._topics[outcome.camera].publish(outcome, distance)

    def _look_message(self, outcome: FrameOutcome) -> msg.PerceptionResult:
        now = self.get_clock().now().to_msg()
        return messages.result_message(outcome.camera, outcome.header, outcome.result, now)

    # Parameters and services

    def _settings(self) -> Settings:
        """What the parameters ask for, on top of the preset. Raises InvalidInput."""
        assert self._preset is not None
        return Settings(
            parameters.query(self._values, self._preset.query, self._revision),
            parameters.budget(self._values, self._preset.budget),
            self._values["max_frame_age"],
            self._values["inference_timeout"],
        )

    def _check_parameters(self, changes: Sequence[Parameter[Any]]) -> SetParametersResult:
        """Whether all of these changes may be made together; nothing has changed when this says no."""
        changed = parameters.changed(changes)
        candidate = {**self._values, **changed}
        try:
            parameters.check(candidate, set(changed), configured=self.state != "unconfigured")
            worker = self._worker
            if worker is not None and self._preset is not None and parameters.QUERY & set(changed):
                worker.check_query(parameters.query(candidate, self._preset.query, self._revision))
        except PerceptionError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply_parameters(self, changes: Sequence[Parameter[Any]]) -> None:
        changed = parameters.changed(changes)
        self._values = {**self._values, **changed}
        if parameters.QUERY & set(changed):
            self._revision += 1
        worker = self._worker
        if worker is not None:
            # One assignment: the worker reads all of it at the start of a frame.
            worker.settings = self._settings()

    def _on_set_query(self, request: srv.SetQuery.Request, response: srv.SetQuery.Response) -> srv.SetQuery.Response:
        outcome = self.set_parameters_atomically(
            [
                Parameter("query", Parameter.Type.STRING, request.query),
                Parameter("classes", Parameter.Type.STRING_ARRAY, list(request.classes)),
            ]
        )
        response.success, response.message, response.revision = (
            outcome.successful,
            outcome.reason,
            self._revision,
        )
        worker = self._worker
        if outcome.successful and worker is not None and not worker.ready(worker.settings.query):
            response.message = "what this query needs is being loaded; until then frames keep to the former one"
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        self._open_or_close_gate(active=self.state == "active")
        response.success = True
        response.message = "enabled" if self._enabled else "disabled: frames are ignored, ~/perceive still looks"
        return response

    # Watching

    def _watch(self) -> None:
        if self._worker is not None:
            self._worker.watch()

    def _publish_diagnostics(self) -> None:
        now = time.monotonic()
        seconds, self._reported_at = now - self._reported_at, now
        counts = {name: self._ledger.counts(name) for name in self._cameras}
        before, self._reported = self._reported, counts
        name = self.get_fully_qualified_name().lstrip("/")
        cameras = [self._camera_report(camera, counts[camera], before[camera], seconds) for camera in self._cameras]
        array = DiagnosticArray(
            status=[
                diagnostics.node_status(name, self._hardware_id, self._node_report(counts, before, seconds)),
                *(diagnostics.camera_status(name, self._hardware_id, report) for report in cameras),
            ]
        )
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)
        for report in cameras:
            self._warn_of_silence(report, now)

    def _warn_of_silence(self, report: diagnostics.CameraReport, now: float) -> None:
        """Log, once until it is heard again, that a camera is published and nothing of it comes."""
        if not report.working or not report.publishers or report.silent_s <= diagnostics.SILENT_S:
            self._mute_since.pop(report.camera, None)
            return
        mute_s = now - self._mute_since.setdefault(report.camera, now)
        if mute_s > diagnostics.SILENT_S:
            self._mute_since[report.camera] = math.inf
            self.get_logger().warning(qos.warning_of_silence(report.topic, report.publishers, mute_s))

    def _node_report(
        self, counts: dict[str, Counts], before: dict[str, Counts], seconds: float
    ) -> diagnostics.NodeReport:
        worker = self._worker
        loading = worker is not None and worker.loading
        return diagnostics.NodeReport(
            state=self.state,
            enabled=self._enabled,
            loading_s=max(0.1, time.monotonic() - self._loading_since) if loading else 0.0,
            error=worker.error if worker is not None else self.last_error,
            facts=self._facts(worker),
            counts=Counts.sum(counts.values()),
            before=Counts.sum(before.values()),
            seconds=seconds,
            latencies=worker.latencies.distributions() if worker is not None else {},
            hung_threads=worker.hung_threads if worker is not None else 0,
            last_error=(worker.last_error if worker is not None else "") or self.last_error,
        )

    def _facts(self, worker: Worker | None) -> dict[str, str]:
        perception = worker.perception if worker is not None else None
        query = worker.settings.query if worker is not None else Query()
        return {
            "preset": self._values["preset"],
            **(diagnostics.model_facts(perception) if perception is not None else {}),
            "query": query.text or ", ".join(query.classes),
            "query_revision": str(self._revision),
            "query_ready": str(worker is None or worker.ready(query)).lower(),
            "memory_mb": f"{diagnostics.resident_memory_mb():.0f}",
        }

    def _camera_report(self, camera: str, counts: Counts, before: Counts, seconds: float) -> diagnostics.CameraReport:
        stamp_ns, topics = self._stamps.get(camera, 0), self._topics[camera]
        return diagnostics.CameraReport(
            camera=camera,
            topic=topics.image_topic,
            working=self.state == "active" and self._enabled,
            counts=counts,
            before=before,
            seconds=seconds,
            lost=topics.lost,
            missing=topics.gaps.missing,
            publishers=topics.image_publishers(),
            silent_s=time.monotonic() - self._seen.get(camera, math.nan),
            ahead_s=(stamp_ns - self.get_clock().now().nanoseconds) / 1e9 if stamp_ns else math.nan,
        )


def _load_and_warm_up(preset: LoadablePreset, settings: Settings) -> ActivePerception:
    """The models, ready for their first frame. Raises PerceptionError if they cannot serve the query."""
    perception = preset.build()
    grey = conversions.grey(*WARM_UP_SIZE)
    result = perception.perceive(
        Frame(grey),
        settings.query,
        dataclasses.replace(settings.budget, deadline_ms=0.0),
    )
    if result.status == Status.FAILED:
        raise PerceptionError(f"the first picture failed: {result.status_message}")
    return perception


class RosLogHandler(logging.Handler):
    """Hands what the core logs to the node's logger, so that it reaches /rosout."""

    LEVELS = (
        (logging.ERROR, "error"),
        (logging.WARNING, "warning"),
        (logging.INFO, "info"),
    )

    def __init__(self, node: PerceptionNode) -> None:
        super().__init__(logging.INFO)
        self._logger = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        level = next((name for least, name in self.LEVELS if record.levelno >= least), "debug")
        # rclpy insists that one place in the code logs at one level: a method of its own for each.
        {"error": self._error, "warning": self._warning, "info": self._info}.get(level, self._info)(self.format(record))

    def _error(self, text: str) -> None:
        self._logger.error(text)

    def _warning(self, text: str) -> None:
        self._logger.warning(text)

    def _info(self, text: str) -> None:
        self._logger.info(text)


def main(args: list[str] | None = None, load: Callable[[str], LoadablePreset] = load_preset) -> int:
    """Run the node until SIGINT or SIGTERM. Exit code 2, with one line, for parameters that are not allowed."""
    # Our own handlers: rclpy's would end the context before the last results are published.
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # arguments that ROS does not understand
        print(f"perception_node: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        node = PerceptionNode(load)
    except (InvalidInput, ParameterException) as error:
        print(f"perception_node: {error}", file=sys.stderr)
        return 2
    logging.getLogger("activeo3_ros").addHandler(RosLogHandler(node))
    executor = MultiThreadedExecutor(EXECUTOR_THREADS)
    executor.add_node(node)
    threading.Thread(target=_spin, args=(executor, node, stop), name="spin", daemon=True).start()
    if node.get_parameter("autostart").value:
        threading.Thread(target=node.start, name="autostart", daemon=True).start()
    else:
        node.get_logger().info("waiting for the lifecycle transitions configure and activate (or set autostart:=true)")
    stop.wait()
    ends = time.monotonic() + END_S
    node.end()
    leaving = threading.Thread(target=_leave, args=(executor, node), name="leave", daemon=True)
    leaving.start()
    leaving.join(max(0.1, ends - time.monotonic()))
    # A model that hangs sits in a thread that cannot be ended: leave without waiting for it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _leave(executor: MultiThreadedExecutor, node: PerceptionNode) -> None:
    """Give back what the middleware holds: its shared memory outlives a process that just ends, until a reboot."""
    executor.shutdown(timeout_sec=0.0)
    node.destroy_node()
    rclpy.try_shutdown()


def _spin(executor: MultiThreadedExecutor, node: PerceptionNode, stop: threading.Event) -> None:
    """Serve callbacks; one that raises is logged and does not end the others."""
    while not stop.is_set() and node.context.ok():
        try:
            executor.spin_once()
        except Exception as error:
            # rclpy hands a callback that waits for a thread out again, and raises its exception as often: say it once.
            if not stop.is_set() and "_logged" not in vars(error):
                vars(error)["_logged"] = True
                logging.getLogger(__name__).exception("a callback of %s failed", node.get_name())


if __name__ == "__main__":
    sys.exit(main())
