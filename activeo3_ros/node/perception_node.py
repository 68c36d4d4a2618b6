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

"""The node `activeo3`: declares parameters, connects topics and services to the scheduler, publishes diagnostics."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import os
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
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import SetBool

from activeo3_ros import __version__, srv

from ..codecs.depth_message import DepthSettings
from ..codecs.image_message import grey
from ..core import ActivePerception, Budget, Frame, InvalidInput, PerceptionError, Query, Status
from ..core.loop import failures_told_by_caller
from ..presets import load_preset
from ..vlm.backends.remote_engine import RemoteEngine
from . import diagnostics, parameters, qos
from .bond import HEARTBEAT_S, Bond
from .camera_input import SOURCES, TYPES, VIDEOS, CameraInput
from .end_signals import catch_end_signals, end_with_launch
from .executor import QuietExecutor
from .frame_counters import Counts, FrameCounters
from .frame_decoder import FrameDecoder, VideoFrameDecoder
from .jobs import Settings
from .lifecycle import FAILURE, SHUTDOWN_WAIT_S, SUCCESS, ManagedNode, logged
from .perceive_action import PerceiveActionServer
from .result_publisher import Pipeline, ResultPublisher
from .scheduler import Scheduler
from .transports import largest_receive_buffer, settings_for_node
from .video_feed import VideoFeed

STOP_S = 1.0
"""Seconds that a cleanup or shutdown waits for a model's call; then the call's thread is left behind."""
END_S = 1.7
"""Most seconds that the process takes to end: a model's call, then the resources of the middleware."""
WATCH_PERIOD_S = 0.2
WARM_UP_SIZE = (480, 640)
"""Height and width of the grey picture that models perceive once before they are ready, pixels."""
EXECUTOR_THREADS = 8
"""A transition and a perceive request may hold one each for long; the others answer. rclpy's other executors have one
thread (docs/results/node.md)."""
SWITCH_INTERVAL_S = 0.0002
"""Seconds that a model's Python code may keep the interpreter: the answer of a service waits for that several times."""


class LoadablePreset(Protocol):
    """A preset: its settings at once, its models when built."""

    @property
    def budget(self) -> Budget: ...

    @property
    def query(self) -> Query: ...

    def build(self) -> ActivePerception: ...


class PerceptionNode(ManagedNode):
    """A lifecycle node around one `ActivePerception`; docs/reference/lifecycle.md says what each transition does."""

    _perceive: PerceiveActionServer | None = None
    """None in a node whose parameters were refused."""

    def __init__(self, load: Callable[[str, bool], LoadablePreset] = load_preset, **arguments: Any) -> None:
        """Declare the parameters and create topics and services.

        Args:
            load: Gives a preset by the name in the parameter `preset`, and whether it may name classes to import.
            **arguments: Further arguments of rclpy's `Node`.

        Raises:
            InvalidInput: A parameter is not allowed.
            ParameterException: rclpy finds that a parameter is not allowed.
        """
        super().__init__("activeo3", **arguments)
        self._load_preset = load
        parameters.declare(self)
        self._values = parameters.values(self)
        parameters.check(self._values, set(self._values), configured=False)
        self._preset: LoadablePreset | None = None
        self._first_preset = self._values["preset"]
        """Chosen by whoever started the node; a later one may come from anybody on the network."""
        self._revision = 0
        self._enabled = True
        self._scheduler: Scheduler | None = None
        self._loading_since = math.nan
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)

        transport = self._values["transport"]
        self._counters = FrameCounters(self._values["cameras"])
        self._cameras = {
            # A group each: with a queue of one, a camera that waits for another's callback loses frames unseen.
            name: CameraInput(self, name, transport, MutuallyExclusiveCallbackGroup())
            for name in self._values["cameras"]
        }
        self._is_video = transport in VIDEOS
        self._decoder = VideoFrameDecoder() if self._is_video else FrameDecoder(SOURCES[transport][0], self._max_pixels)
        self._videos: dict[str, VideoFeed] = {}
        """The decoders of videos, while the node is active."""
        for name in parameters.non_empty(self._values["depth_cameras"]):
            newest_stamp_ns = functools.partial(self._newest_stamp_ns, name)
            self._cameras[name].subscribe_to_depth(self._depth_settings, newest_stamp_ns)
        self._publisher = ResultPublisher(
            self, self._cameras.values(), lambda: float(self._values["marker_distance"]), self._pipeline
        )
        self._silent_since: dict[str, float] = {}
        """Since when a published camera brings no image; infinite once that was logged."""
        self._told_of_clocks: set[str] = set()
        """Cameras whose stamps are of another clock, once that was logged."""
        self._told_of_losses: set[str] = set()
        self._reported_losses: dict[str, int] = {}

        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        # In the default group, as the parameter services: a change of the query is a change of parameters.
        self.create_service(srv.SetQuery, "~/set_query", self._on_set_query)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self._perceive = PerceiveActionServer(
            self, list(self._cameras), self._active_scheduler, self._publisher.message
        )

        self._hardware_id = self._values["hardware_id"] or socket.gethostname()
        self._diagnostics = qos.create_publisher(
            self, DiagnosticArray, "/diagnostics", qos.STATUS, ReentrantCallbackGroup()
        )
        for warning in parameters.misspelt(self):
            self.get_logger().warning(warning)
        self._reported = {name: Counts() for name in self._cameras}
        self._reported_at = time.monotonic()
        # Steady clocks: simulated time may stand still, jump, or not have begun.
        period = self._values["diagnostics_period"]
        self._timer(period, self._publish_diagnostics)
        self._logged_counts = {name: Counts() for name in self._cameras}
        if log_period := self._values["log_period"]:
            self._timer(log_period, functools.partial(self._log_counts, log_period))
        self._timer(WATCH_PERIOD_S, self._watch)
        self._bond = Bond(self, ReentrantCallbackGroup())
        self._timer(HEARTBEAT_S, self._bond.beat)

    def destroy_node(self) -> None:
        if self._perceive is not None:
            self._perceive.destroy()
        super().destroy_node()

    def _timer(self, period_s: float, callback: Callable[[], None]) -> None:
        self.create_timer(period_s, callback, MutuallyExclusiveCallbackGroup(), self._steady)

    # Lifecycle

    @logged
    def on_configure(self, state: Any) -> Any:
        """Load the models, in a worker thread; failure leaves nothing behind and can be retried."""
        self.last_error = ""
        self._warn_of_transports()
        try:
            name = self._values["preset"]
            self._preset = self._load_preset(name, name == self._first_preset)
            settings = self._settings()
        except (PerceptionError, OSError) as error:
            return self._refuse_configure(str(error))
        self._loading_since = time.monotonic()
        self._scheduler = scheduler = Scheduler(
            self._counters,
            list(self._cameras),
            load=functools.partial(_load_and_warm_up, self._preset, settings),
            decoder=self._decoder,
            publisher=self._publisher,
            now_ns=lambda: self.get_clock().now().nanoseconds,
            settings=settings,
        )
        if not self._is_video:  # whose packets are not decoded before the node is active
            for camera in self._cameras.values():
                camera.connect(scheduler.enqueue)
        while not scheduler.wait_loaded(0.05):
            if self.ending.is_set():
                # Loading cannot be interrupted, and a shutdown waits for this: the thread frees what it has loaded.
                return self._refuse_configure("stopped while the models were loading", wait_s=0.0)
        if scheduler.error:
            return self._refuse_configure(scheduler.error)
        took = time.monotonic() - self._loading_since
        self._loading_since = math.nan
        self.get_logger().info(f"preset {self._values['preset']!r} is ready after {took:.1f} s")
        return SUCCESS

    def _warn_of_transports(self) -> None:
        middleware = rclpy.get_rmw_implementation_identifier()
        raw = [camera.images for camera in self._cameras.values()] if self._values["transport"] == "raw" else []
        warnings = [
            qos.warning_of_transports(None if each.chosen_by_publishers else each.profile, os.environ, middleware)
            for each in raw
        ]
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
        self._begin_videos()
        for name, camera in self._cameras.items():
            results = self.resolve_topic_name(f"~/{name}/result")
            self.get_logger().info(
                f"listening to {camera.topic} ({qos.describe(camera.images.profile)}); results on {results}"
            )
        self._bond.begin()
        return super().on_activate(state)

    @logged
    def on_deactivate(self, state: Any) -> Any:
        self._bond.end()
        self._end_videos()
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
        """Stop the scheduler and free the models. wait_s: seconds to wait for a model's call in progress."""
        self._bond.end()
        self._end_videos()
        for camera in self._cameras.values():
            camera.connect(None)
        scheduler, self._scheduler = self._scheduler, None
        self._loading_since = math.nan
        if scheduler is not None and not scheduler.stop(wait_s, "stopped by a lifecycle transition"):
            self.get_logger().warning("a model's call is still running; its memory is freed when it returns")

    def _begin_videos(self) -> None:
        """Decode videos from their next key frames on."""
        if not self._is_video or self._scheduler is None:
            return
        kind = TYPES[self._values["transport"]]
        for name, camera in self._cameras.items():
            missing = functools.partial(getattr, camera.images.losses, "missing")
            self._videos[name] = VideoFeed(name, kind, self._scheduler, self._max_pixels, missing)
            camera.connect(self._videos[name].put)

    def _end_videos(self) -> None:
        """Stop decoding, and forget what was decoded: the next activation begins anew."""
        for name, video in self._videos.items():
            self._cameras[name].connect(None)
            video.close()
        if self._videos and self._scheduler is not None:
            self._scheduler.forget_frames()
        self._videos.clear()

    def _open_or_close_gate(self, active: bool) -> None:
        if self._scheduler is None:
            return
        if active and self._enabled:
            self._scheduler.open_gate()
        else:
            self._scheduler.close_gate()

    def _active_scheduler(self) -> Scheduler | None:
        return self._scheduler if self.state == "active" else None

    # Parameters and services

    def _settings(self) -> Settings:
        """The preset's settings with the parameters' overrides. Raises InvalidInput."""
        assert self._preset is not None
        return Settings(
            parameters.query(self._values, self._preset.query, self._revision),
            parameters.budget(self._values, self._preset.budget),
            self._values["max_frame_age"],
            self._values["inference_timeout"],
            self._values["memory"],
            self._values["survival_s"],
            self._values["background_sensing"],
        )

    def _max_pixels(self) -> int:
        return int(self._values["max_image_pixels"])

    def _newest_stamp_ns(self, camera: str) -> int:
        return self._decoder.stamps_ns.get(camera, 0)

    def _depth_settings(self) -> DepthSettings:
        values = self._values
        return DepthSettings(values["depth_tolerance"], values["depth_error"], values["max_image_pixels"])

    def set_parameters_atomically(self, parameter_list: list[Parameter[Any]]) -> SetParametersResult:
        """As rclpy's, for both services too, but values that YAML read as another type are converted first."""
        try:
            return super().set_parameters_atomically(parameters.converted(parameter_list))
        except InvalidInput as error:
            return SetParametersResult(successful=False, reason=str(error))

    def _check_parameters(self, changes: Sequence[Parameter[Any]]) -> SetParametersResult:
        """Whether all of these changes may be made together; changes nothing itself."""
        changed = parameters.changed(changes)
        candidate = {**self._values, **changed}
        others = {name for name in changed if changed[name] != self._values[name]}
        try:
            # What is set to the value that it has changes nothing: `ros2 param load` of a dump does that.
            parameters.check(candidate, others, configured=self.state != "unconfigured")
            scheduler = self._scheduler
            if scheduler is not None and self._preset is not None and parameters.QUERY & set(changed):
                scheduler.check_query(parameters.query(candidate, self._preset.query, self._revision))
        except PerceptionError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply_parameters(self, changes: Sequence[Parameter[Any]]) -> None:
        changed = parameters.changed(changes)
        self._values = {**self._values, **changed}
        if parameters.QUERY & set(changed):
            self._revision += 1
        scheduler = self._scheduler
        if scheduler is not None:
            # One assignment: a frame reads all of it when its turn comes.
            scheduler.settings = self._settings()

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
        scheduler = self._scheduler
        if outcome.successful and scheduler is not None and not scheduler.ready(scheduler.settings.query):
            response.message = "what this query needs is being loaded; until then frames keep to the former one"
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        self._open_or_close_gate(active=self.state == "active")
        response.success = True
        response.message = "enabled" if self._enabled else "disabled: frames are ignored, ~/perceive still works"
        return response

    # Watching

    def _watch(self) -> None:
        if self._scheduler is not None:
            self._scheduler.watch()

    def _publish_diagnostics(self) -> None:
        now = time.monotonic()
        seconds, self._reported_at = now - self._reported_at, now
        counts = {name: self._counters.counts(name) for name in self._cameras}
        before, self._reported = self._reported, counts
        name = self.get_fully_qualified_name().lstrip("/")
        cameras = [self._camera_report(camera, counts[camera], before[camera], seconds) for camera in self._cameras]
        self._reported_losses = {report.camera: report.lost_before_receipt or 0 for report in cameras}
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
            self._warn_of_clocks(report)
            self._warn_of_losses(report)

    def _log_counts(self, seconds: float) -> None:
        """Log how many images of each camera came since the node started, and the state of the camera."""
        for name in self._cameras:
            counts, before = self._counters.counts(name), self._logged_counts[name]
            self._logged_counts[name] = counts
            report = self._camera_report(name, counts, before, seconds)
            self.get_logger().info(diagnostics.camera_line(report))

    def _warn_of_silence(self, report: diagnostics.CameraReport, now: float) -> None:
        """Log, once until an image comes, that a camera is published and none of its images arrives."""
        publishers = report.publishers
        if (
            not report.working
            or not (publishers.heard or publishers.unheard)
            or report.silent_s <= diagnostics.SILENT_S
        ):
            self._silent_since.pop(report.camera, None)
            return
        silent_s = now - self._silent_since.setdefault(report.camera, now)
        if silent_s > diagnostics.SILENT_S:
            self._silent_since[report.camera] = math.inf
            self.get_logger().warning(
                qos.warning_of_silence(report.topic, publishers.heard, silent_s)
                if publishers.heard
                else f"nothing has come on {report.topic}: {'; '.join(publishers.unheard)}"
            )

    def _warn_of_clocks(self, report: diagnostics.CameraReport) -> None:
        """Log, once until the clocks agree again, that a camera's stamps are of another clock."""
        warning = diagnostics.clock_warning(report)
        if not warning or report.silent_s > diagnostics.SILENT_S:
            self._told_of_clocks.discard(report.camera)
        elif report.working and report.camera not in self._told_of_clocks:
            self._told_of_clocks.add(report.camera)
            self.get_logger().warning(f"{report.topic}: {warning}")

    def _warn_of_losses(self, report: diagnostics.CameraReport) -> None:
        """Log, once, that images of a camera are lost on their way, and what to set."""
        if report.working and report.camera not in self._told_of_losses and (told := diagnostics.loss_warning(report)):
            self._told_of_losses.add(report.camera)
            self.get_logger().warning(told)

    def _loss_remedy(self, source: CameraInput) -> str:
        images, middleware = source.images, rclpy.get_rmw_implementation_identifier()
        return "; ".join(
            qos.remedies_for_losses(
                images.topic,
                images.profile,
                images.chosen_by_publishers,
                os.environ,
                middleware,
                largest_receive_buffer(),
            )
        )

    def _kind_of_clock(self, now_ns: int) -> diagnostics.NodeClock:
        if not self.get_parameter("use_sim_time").value:
            return diagnostics.NodeClock.SYSTEM
        return diagnostics.NodeClock.SIMULATED if now_ns else diagnostics.NodeClock.NOT_STARTED

    def _node_report(
        self, counts: dict[str, Counts], before: dict[str, Counts], seconds: float
    ) -> diagnostics.NodeReport:
        scheduler = self._scheduler
        loading = scheduler is not None and scheduler.loading
        return diagnostics.NodeReport(
            state=self.state,
            enabled=self._enabled,
            loading_s=max(0.1, time.monotonic() - self._loading_since) if loading else 0.0,
            error=scheduler.error if scheduler is not None else self.last_error,
            facts=self._facts(scheduler),
            counts=Counts.sum(counts.values()),
            before=Counts.sum(before.values()),
            seconds=seconds,
            latencies=scheduler.latencies.distributions() if scheduler is not None else {},
            hung_threads=scheduler.hung_pools if scheduler is not None else 0,
            last_error=(scheduler.last_error if scheduler is not None else "") or self.last_error,
        )

    def _pipeline(self) -> Pipeline:
        scheduler = self._scheduler
        task = scheduler.perception.task if scheduler is not None and scheduler.perception is not None else None
        names = getattr(getattr(task, "detector", None), "names", ())
        return Pipeline(f"activeo3_ros {__version__}, preset {self._values['preset']}", tuple(names))

    def _facts(self, scheduler: Scheduler | None) -> dict[str, str]:
        perception = scheduler.perception if scheduler is not None else None
        query = scheduler.settings.query if scheduler is not None else Query()
        return {
            "preset": self._values["preset"],
            **(diagnostics.model_facts(perception) if perception is not None else {}),
            "query": query.text or ", ".join(query.classes),
            "query_revision": str(self._revision),
            "query_ready": str(scheduler is None or scheduler.ready(query)).lower(),
            "memory_mb": f"{diagnostics.resident_memory_mb():.0f}",
        }

    def _camera_report(self, camera: str, counts: Counts, before: Counts, seconds: float) -> diagnostics.CameraReport:
        source, stamp_ns = self._cameras[camera], self._decoder.stamps_ns.get(camera, 0)
        now_ns = self.get_clock().now().nanoseconds
        lost = source.images.losses.missing
        return diagnostics.CameraReport(
            camera=camera,
            topic=source.topic,
            working=self.state == "active" and self._enabled,
            counts=counts,
            before=before,
            seconds=seconds,
            quality_of_service=qos.describe(source.images.profile),
            lost_before_receipt=lost,
            lost_in_transport=source.images.losses.in_transport,
            publishers=source.publishers(),
            silent_s=source.silent_s(),
            stamp_s=stamp_ns / 1e9 if stamp_ns else math.nan,
            now_s=now_ns / 1e9,
            clock=self._kind_of_clock(now_ns),
            calibration_error=source.calibration_error,
            calibration_changes=source.calibrations.changes,
            forgotten=self._scheduler.forgotten(camera) if self._scheduler is not None else 0,
            depth_topic=source.depth.topic if source.depth is not None else "",
            depth_fault=source.depth.error if source.depth is not None else "",
            video_fault=self._videos[camera].fault if camera in self._videos else "",
            lost_meanwhile=(lost or 0) - self._reported_losses.get(camera, 0),
            loss_remedy=self._loss_remedy(source) if lost else "",
        )


def _load_and_warm_up(preset: LoadablePreset, settings: Settings) -> ActivePerception:
    """The models, ready for their first frame. Raises PerceptionError if they cannot serve the query."""
    perception = preset.build()
    budget = dataclasses.replace(settings.budget, deadline_ms=0.0)
    with failures_told_by_caller():
        result = perception.perceive(Frame(grey(*WARM_UP_SIZE)), settings.query, budget)
    if result.status == Status.FAILED:
        raise PerceptionError(result.status_message)
    for model in (perception.sensing, perception.task):
        engine = getattr(model, "engine", None)
        if isinstance(engine, RemoteEngine):
            engine.fail_fast()  # frames cannot wait for a server that is away
    return perception


class RosLogHandler(logging.Handler):
    """Passes log records of the core to the node's logger, so that they reach /rosout."""

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


def main(args: list[str] | None = None, load: Callable[[str, bool], LoadablePreset] = load_preset) -> int:
    """Run the node until SIGINT or SIGTERM.

    Args:
        args: Command line, default `sys.argv`.
        load: Gives a preset by its name, and whether it may name classes to import.

    Returns:
        Exit code 2, after one line on stderr, for parameters that are not allowed.
    """
    os.environ.update(settings_for_node(os.environ, largest_receive_buffer()))
    # Our own handlers: rclpy's would end the context before the last results are published.
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # arguments that ROS does not understand
        print(f"perception_node: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    stop = threading.Event()
    wait_for_end_signal = catch_end_signals()
    end_with_launch()
    try:
        node = PerceptionNode(load)
    except (InvalidInput, ParameterException) as error:
        print(f"perception_node: {error}", file=sys.stderr)
        return 2
    logging.getLogger("activeo3_ros").addHandler(RosLogHandler(node))
    executor = QuietExecutor(EXECUTOR_THREADS)
    executor.add_node(node)
    threading.Thread(target=_spin, args=(executor, node, stop), name="spin", daemon=True).start()
    if node.get_parameter("autostart").value:
        threading.Thread(target=node.start, name="autostart", daemon=True).start()
    else:
        node.get_logger().info("waiting for the lifecycle transitions configure and activate (or set autostart:=true)")
    wait_for_end_signal()
    stop.set()
    ends = time.monotonic() + END_S
    # Each in a thread of its own: a call into the middleware that never returns must not keep the process.
    _run_for(SHUTDOWN_WAIT_S + STOP_S, node.end)
    _run_for(max(0.1, ends - time.monotonic()), functools.partial(_leave, executor, node))
    # A model that hangs sits in a thread that cannot be ended: leave without waiting for it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _run_for(seconds: float, work: Callable[[], object]) -> None:
    """Run `work` in a thread, and wait for it for so long at most."""
    thread = threading.Thread(target=work, name="end", daemon=True)
    thread.start()
    thread.join(seconds)


def _leave(executor: QuietExecutor, node: PerceptionNode) -> None:
    """Release the middleware's resources: its shared memory outlives a process that just ends, until a reboot."""
    executor.shutdown(timeout_sec=0.0)
    node.destroy_node()
    rclpy.try_shutdown()


def _spin(executor: QuietExecutor, node: PerceptionNode, stop: threading.Event) -> None:
    """Serve callbacks; an exception in one is logged and does not end the others."""
    while not stop.is_set() and node.context.ok():
        try:
            executor.spin_once()
        except Exception as error:
            if not stop.is_set() and "_logged" not in vars(error):  # a task that was handed over twice raises it twice
                vars(error)["_logged"] = True
                logging.getLogger(__name__).exception("a callback of %s failed", node.get_name())


if __name__ == "__main__":
    sys.exit(main())
