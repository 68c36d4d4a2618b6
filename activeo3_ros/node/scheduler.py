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

"""Schedules frames onto models: latest frame wins, cameras round-robin, every frame is counted once. Knows no ROS.

Callbacks enqueue serialized messages. One worker thread perceives one frame at a time; where the models serve several
threads at once (`ActivePerception.concurrent`) there is one worker thread a camera, so that their frames share the
models' calls. A model that hangs past a limit is given up together with its threads, and loaded again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..core import ActivePerception, Query, TaskModel
from .frame_counters import FrameCounters, FrameDisposition, Latencies
from .frame_processor import Decoder, FrameProcessor, Publisher
from .frame_queue import LatestFrameQueue
from .jobs import Job, PerceiveRequest, Settings
from .model_pool import ModelPool
from .query_loader import QueryLoader

MAX_HUNG_POOLS = 3
"""Model pools that may hang before no fresh one is loaded: each holds its models' memory."""


class Busy(Exception):
    """Another perceive request is still in progress."""

    def __init__(self) -> None:
        super().__init__("another request is still in progress; wait for its result or cancel it")


class Scheduler:
    """Perceives the frames of several cameras, in threads of its own. Any thread may call its methods.

    Attributes:
        settings: The standing settings. Assign new ones to change them together, from the next frame on.
    """

    def __init__(
        self,
        counters: FrameCounters,
        cameras: Sequence[str],
        *,
        load: Callable[[], ActivePerception],
        decoder: Decoder,
        publisher: Publisher,
        now_ns: Callable[[], int],
        settings: Settings,
    ) -> None:
        """Start loading the models; the gate is closed.

        Args:
            counters: Counts every frame that is received, by camera.
            cameras: Names of the cameras.
            load: Builds the models; called in a worker thread.
            decoder: Message to frame; called in a worker thread.
            publisher: Result to topics; called in a worker thread.
            now_ns: The clock that stamps are compared with, nanoseconds.
            settings: The standing settings.
        """
        self.settings = settings
        self._counters = counters
        self._cameras = tuple(cameras)
        self._load = load
        self._queries = QueryLoader(settings.query)
        self._processor = FrameProcessor(decoder, publisher, counters, self._settings_in_force, now_ns)
        self._queue = LatestFrameQueue(cameras)
        self._newest: dict[str, Any] = {}
        self._request: PerceiveRequest | None = None
        self._request_lock = threading.Lock()
        self._open = False
        self._gate = threading.Lock()
        self._hung: list[ModelPool] = []
        self._pool = self._start_pool()

    # Loading

    def wait_loaded(self, timeout_s: float) -> bool:
        """Wait for loading to end.

        Returns:
            Whether it has ended, well or not; see `error`.
        """
        return self._pool.loaded.wait(timeout_s)

    @property
    def loading(self) -> bool:
        """Whether models are being loaded."""
        return not self._pool.loaded.is_set()

    @property
    def error(self) -> str:
        """Why the models could not be loaded; "" if they could, or if that is not known yet."""
        return self._pool.error

    @property
    def perception(self) -> ActivePerception | None:
        """The models in use; None while they load and where they could not be loaded."""
        return self._pool.perception

    @property
    def hung_pools(self) -> int:
        """Model pools that were given up and whose threads are still in a model's call, holding its memory."""
        self._hung = [pool for pool in self._hung if pool.alive]
        return len(self._hung)

    def check_query(self, query: Query) -> None:
        """Check that the loaded models can serve a query, and begin to load what it needs besides them.

        Does not wait for that loading; see `ready`. Checks nothing while there are no models.

        Raises:
            UnsupportedQuery: They cannot; says what can be asked.
        """
        perception = self.perception
        if perception is not None:
            self._settings_in_force()  # the standing query is ready now, though no frame may have come for it
            self._queries.check(query, perception)

    def ready(self, query: Query) -> bool:
        """Whether all is loaded that a query needs. Frames keep to the former query until the standing one is."""
        return self._queries.ready(query)

    # Frames

    def open_gate(self) -> None:
        """Count and perceive frames from now on."""
        with self._gate:
            self._open = True

    def close_gate(self) -> None:
        """Drop waiting frames as stale and ignore new ones; frames in progress are finished and published."""
        with self._gate:
            self._open = False
            for job in self._queue.clear():
                self._processor.drop(job, FrameDisposition.STALE)

    def enqueue(self, camera: str, data: bytes) -> None:
        """Count a message as received, and enqueue it without waiting for inference.

        Args:
            camera: Name of the camera.
            data: The serialized message.
        """
        self.enqueue_received(camera, data, time.perf_counter(), self.receive(camera))

    def receive(self, camera: str) -> bool:
        """Count a frame as received, which is then enqueued or discarded; False where the gate is closed."""
        with self._gate:
            if self._open:
                self._counters.receive(camera)
            return self._open

    def discard(self, camera: str, disposition: FrameDisposition) -> None:
        """Count how a received frame ended that is not enqueued."""
        self._counters.settle(camera, disposition)

    def enqueue_received(self, camera: str, data: Any, arrived: float, is_counted: bool) -> None:
        """Enqueue a frame without waiting for inference.

        Args:
            camera: Name of the camera.
            data: What the decoder takes.
            arrived: When its message came, by `time.perf_counter`.
            is_counted: What `receive` said; a frame that is not counted serves perceive requests only.
        """
        self._newest[camera] = data
        with self._request_lock:
            request = self._open_request()
            if request and request.camera == camera and not request.data:
                request.data = data
                self._queue.put_request(request)
        if not is_counted:
            return
        job = Job(camera, data, arrived)
        with self._gate:
            if not self._open:
                self._processor.drop(job, FrameDisposition.STALE)
                return
            replaced = self._queue.put(job)
            if replaced is not None:
                self._processor.drop(replaced, FrameDisposition.REPLACED)

    def forget_frames(self) -> None:
        """Let go of the newest frames: a perceive request then waits for the next one of its camera."""
        self._newest.clear()

    @property
    def latencies(self) -> Latencies:
        """Milliseconds of each stage of the newest frames."""
        return self._processor.latencies

    def forgotten(self, camera: str) -> int:
        """Objects of a camera that were forgotten because more were remembered than a scene can hold."""
        return self._processor.forgotten(camera)

    @property
    def last_error(self) -> str:
        """Why the last frame failed or was rejected, with its camera; "" if none did."""
        return self._processor.last_error

    # Perceive requests

    def perceive(self, request: PerceiveRequest) -> None:
        """Begin a request on the newest frame of its camera, or on the next one where none has come yet.

        Raises:
            Busy: Another request is in progress.
        """
        with self._request_lock:
            if self._open_request() is not None:
                raise Busy
            self._request = request
            request.data = self._newest.get(request.camera, b"")
            if request.data:
                self._queue.put_request(request)

    def end_request(self, request: PerceiveRequest, reason: str) -> None:
        """Give a request up; does nothing where it has ended already."""
        request.cancelled.set()
        if request.settle():
            request.finish(None, reason)

    def _open_request(self) -> PerceiveRequest | None:
        """The request in progress. Forgets one that has ended, and its frame with it."""
        if self._request is not None and self._request.done.is_set():
            self._request = None
        return self._request

    # Watching and stopping

    def watch(self) -> None:
        """Give up a model that hangs. Call this a few times a second, from one thread."""
        limit, pool = self.settings.inference_timeout_s, self._pool
        if not limit or all(time.perf_counter() - job.started < limit for job in pool.jobs):
            return
        given_up = [job for job in pool.jobs if job.settle()]
        if not given_up:
            return
        pool.give_up()
        self._hung.append(pool)
        # A frame of another camera that started later shares the models, and often the very call that hangs.
        for job in given_up:
            waited_for = _component_at(job.stage, pool.perception)
            self._processor.fail(job, f"{waited_for} did not answer within {limit:g} s and was given up")
            self._queue.done(job)
        self._pool = self._start_pool()

    def stop(self, timeout_s: float, reason: str) -> bool:
        """End all threads; a frame in progress ends at its next step.

        Args:
            timeout_s: Seconds to wait for a model's call.
            reason: The status message of frames and requests that are cut short.

        Returns:
            False if a model's call still holds a thread.
        """
        self.close_gate()
        pool = self._pool
        pool.retire()
        pool.join(timeout_s)
        for job in pool.jobs:
            if job.settle():
                self._processor.fail(job, reason)
        request = self._request
        if request is not None:
            self.end_request(request, reason)
        self._newest.clear()
        return not pool.alive

    def _settings_in_force(self) -> Settings:
        settings = self.settings
        return replace(settings, query=self._queries.in_force(settings.query))

    def _start_pool(self) -> ModelPool:
        error = ""
        if self.hung_pools >= MAX_HUNG_POOLS:
            error = f"{MAX_HUNG_POOLS} threads hang in the model; clean up and configure again"
        return ModelPool(self._queue, self._processor.process, self._load, len(self._cameras), error).start()


def _component_at(stage: str, perception: ActivePerception | None) -> str:
    """The component, for messages, that a frame waits for at a step of the loop."""
    if perception is None or stage in ("", "decode"):
        return "the model"
    if stage == "segment":
        return f"the segmenter {type(perception.segmenter).__name__}"
    if stage == "sense":
        policy = f"the policy {type(perception.sensing).__name__}"
        asked = getattr(perception.sensing, "task", None)
        return policy if asked is None else f"{policy} with {_examiner(asked)}"
    return _examiner(perception.task)


def _examiner(task: TaskModel) -> str:
    label = getattr(task, "label", "")
    return f"the detector {label!r}" if label else f"the task model {type(task).__name__}"
