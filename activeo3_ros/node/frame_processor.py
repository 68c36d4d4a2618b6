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

"""The way of a frame whose turn has come: decode, perceive, publish, count. Knows no ROS."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..core import Cancelled, Frame, Region, Result, Scene, Status
from ..core.background import BackgroundSensing
from .frame_counters import FrameCounters, FrameDisposition, Latencies, clocks_agree
from .jobs import Conclusion, DecodedFrame, FrameOutcome, Job, PerceiveRequest, RejectedFrame, Settings
from .model_pool import ModelPool, WorkerThread

logger = logging.getLogger(__name__)


class Decoder(Protocol):
    """Turns a camera's serialized message, or a picture of its video, into a frame."""

    def decode(self, camera: str, data: Any) -> DecodedFrame:
        """Raises RejectedFrame for a message that is no usable image."""


class Publisher(Protocol):
    """Publishes the result of a frame."""

    def publish(self, outcome: FrameOutcome) -> None: ...


class FrameProcessor:
    """Takes a job from its message to its published result. Called by any worker thread; never raises.

    Attributes:
        latencies: Milliseconds of each stage of the newest frames.
        last_error: Why the last frame failed or was rejected, with its camera; "" if none did.
    """

    def __init__(
        self,
        decoder: Decoder,
        publisher: Publisher,
        counters: FrameCounters,
        settings: Callable[[], Settings],
        now_ns: Callable[[], int],
    ) -> None:
        """Connect the parts.

        Args:
            decoder: Message to frame.
            publisher: Result to topics.
            counters: Counts the disposition of every frame.
            settings: The settings in force, read when a frame's turn comes.
            now_ns: The clock that stamps are compared with, nanoseconds.
        """
        self.latencies = Latencies()
        self.last_error = ""
        self._decoder = decoder
        self._publisher = publisher
        self._counters = counters
        self._settings = settings
        self._now_ns = now_ns
        self._scenes: dict[str, tuple[ModelPool, Scene]] = {}

    def process(self, job: Job, thread: WorkerThread) -> None:
        """Perceive a job in a worker thread; then publish and count it, unless that was done meanwhile."""
        conclusion = self._perceive(job, thread)
        if job.settle():
            self._conclude(job, conclusion)

    def drop(self, job: Job, disposition: FrameDisposition) -> None:
        """Count a frame that is not perceived; does nothing where it was settled already."""
        if job.settle():
            self._counters.settle(job.camera, disposition)

    def fail(self, job: Job, reason: str) -> None:
        """Publish and count a job as failed. Only the caller for whom `settle` was True may do this."""
        self._conclude(job, _failure(job, reason))

    def forgotten(self, camera: str) -> int:
        """Objects of a camera that were forgotten because more were remembered than a scene can hold."""
        _, scene = self._scenes.get(camera, (None, None))
        return 0 if scene is None else scene.forgotten

    def _perceive(self, job: Job, thread: WorkerThread) -> Conclusion:
        settings, perception = self._settings(), thread.perception
        request = job if isinstance(job, PerceiveRequest) else None
        if request is None:
            job.query = settings.query
        budget = settings.budget if request is None else request.budget

        def observe(stage: str, regions: Sequence[Region]) -> None:
            job.stage = stage
            if thread.pool.retired:
                raise Cancelled("its models were given up, or the node is being stopped")
            if request is not None:
                if request.cancelled.is_set():
                    raise Cancelled("cancelled by the client")
                request.feedback(stage, regions)

        try:
            queued_ms = (job.started - job.arrived) * 1e3
            job.decoded = self._decoder.decode(job.camera, job.data)
            decode_ms = (time.perf_counter() - job.started) * 1e3
            frame = job.decoded.frame
            if request is None and self._age_s(frame) > settings.max_frame_age_s > 0:
                return Conclusion(FrameDisposition.STALE)
            if perception is None:
                return _failure(job, f"no models: {thread.pool.error}")
            observe("decode", ())
            scene = self._scene(job, thread.pool, settings)
            result = perception.perceive(frame, job.query, budget, observe, scene)
        except RejectedFrame as error:
            return _rejection(job, error)
        except Cancelled as error:
            return _failure(job, str(error))
        except Exception as error:
            logger.exception("a frame of camera %s failed", job.camera)
            return _failure(job, f"{type(error).__name__}: {error}")
        result.timings_ms.update(queue=queued_ms, decode=decode_ms)
        failed = result.status == Status.FAILED
        disposition = FrameDisposition.FAILED if failed else FrameDisposition.PROCESSED
        outcome = FrameOutcome(job.camera, job.decoded.header, result, frame)
        return Conclusion(disposition, outcome, result.status_message)

    def _scene(self, job: Job, pool: ModelPool, settings: Settings) -> Scene | None:
        """The memory of a job's camera; none for a request, which is a picture of its own."""
        if isinstance(job, PerceiveRequest):
            return None
        if not settings.memory:
            if job.camera in self._scenes:
                self._scenes[job.camera][1].reset()
            return None
        user, scene = self._scenes.get(job.camera) or (pool, Scene())
        if user is not pool:  # a thread of models that were given up may still use it
            scene = scene.successor()
        scene.survival_s = settings.survival_s
        if settings.background_sensing != (scene.sensing is not None):
            scene.sensing = BackgroundSensing() if settings.background_sensing else None
        self._scenes[job.camera] = pool, scene
        return scene

    def _age_s(self, frame: Frame) -> float:
        """Seconds since the frame was taken; 0 for a frame without a stamp, whose age nobody knows."""
        return (self._now_ns() - frame.stamp_ns) / 1e9 if frame.stamp_ns else 0.0

    def _conclude(self, job: Job, conclusion: Conclusion) -> None:
        if isinstance(job, PerceiveRequest):
            job.finish(conclusion.outcome, conclusion.message)
            return
        disposition, outcome, message = conclusion.disposition, conclusion.outcome, conclusion.message
        if outcome is not None:
            try:
                self._publisher.publish(outcome)
            except Exception as error:
                logger.exception("the result of a frame of camera %s could not be published", job.camera)
                disposition = FrameDisposition.FAILED
                message = f"publishing failed: {type(error).__name__}: {error}"
            else:
                self._measure(job, outcome)
        if disposition in (FrameDisposition.FAILED, FrameDisposition.REJECTED):
            self.last_error = f"{job.camera}: {message}"
        self._counters.settle(job.camera, disposition)

    def _measure(self, job: Job, outcome: FrameOutcome) -> None:
        timings = dict(outcome.result.timings_ms)
        timings["callback_to_publish"] = (time.perf_counter() - job.arrived) * 1e3
        if outcome.frame is not None and outcome.frame.stamp_ns:
            age_s = self._age_s(outcome.frame)
            timings["age_at_publish"] = age_s * 1e3 if clocks_agree(age_s) else math.nan
        self.latencies.add(timings)


def _failure(job: Job, message: str) -> Conclusion:
    """The conclusion of a job that failed; without an outcome where not even the header could be read."""
    if job.decoded is None:
        return Conclusion(FrameDisposition.FAILED, message=message)
    frame = job.decoded.frame
    outcome = FrameOutcome(job.camera, job.decoded.header, Result.failed(frame, job.query, message), frame)
    return Conclusion(FrameDisposition.FAILED, outcome, message)


def _rejection(job: Job, error: RejectedFrame) -> Conclusion:
    if error.header is None:
        return Conclusion(FrameDisposition.REJECTED, message=str(error))
    result = Result(0, 0, job.query, Status.FAILED, str(error))
    return Conclusion(FrameDisposition.REJECTED, FrameOutcome(job.camera, error.header, result, None), str(error))
