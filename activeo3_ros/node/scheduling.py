"""What looks at frames: newest frame wins, cameras take fair turns, every frame is accounted for.

Knows no ROS. The node hands in raw messages (`offer`), this decides what becomes of each, and hands back a
`FrameOutcome` for every frame taken up. Models are loaded in the thread that uses them, so that neither loading
nor a model that hangs ever holds up the caller; a model that hangs past a limit is given up together with its thread.

One thread looks at one frame at a time. Where the models answer several threads together there is a lane for each
camera (`ActivePerception.concurrent`), so that their frames share the models' calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..core import ActivePerception, Budget, Cancelled, Frame, Query, Region, Result, Status, UnsupportedQuery
from ..vlm.engines import forget
from .frame_counters import FrameCounters, FrameDisposition, Latencies

logger = logging.getLogger(__name__)

ANSWER_S = 0.02
"""How long a check of a query may take: what cannot be served is known sooner, loading a model takes much longer."""
MAX_HUNG_THREADS = 3
"""Threads that hang in a model before no fresh one is started: each holds its models' memory."""


class Rejected(Exception):
    """A message that is no usable image. header: the message's header where it could be read, else None."""

    def __init__(self, reason: str, header: Any = None) -> None:
        super().__init__(reason)
        self.header = header


class Busy(Exception):
    """Another look is still under way."""


@dataclass(frozen=True)
class Settings:
    """What holds for a frame when it is taken up.

    max_frame_age_s: seconds after which a frame is no longer taken up; 0 takes every age.
    inference_timeout_s: seconds after which a model counts as hanging; 0 waits for ever.
    """

    query: Query = field(default_factory=Query)
    budget: Budget = field(default_factory=Budget)
    max_frame_age_s: float = 0.0
    inference_timeout_s: float = 0.0


@dataclass(frozen=True)
class Prepared:
    """A message turned into a frame. header: the message's own, opaque to the worker."""

    frame: Frame
    header: Any


@dataclass(frozen=True)
class FrameOutcome:
    """What the node publishes for a frame that was taken up. frame: None where the message was rejected."""

    camera: str
    header: Any
    result: Result
    frame: Frame | None


@dataclass
class Preparation:
    """What a query needs beyond the models that every query needs, on its way. error: why it cannot be served."""

    done: threading.Event = field(default_factory=threading.Event)
    error: UnsupportedQuery | None = None


@dataclass
class Job:
    """One message on its way, to be settled exactly once."""

    camera: str
    data: bytes
    arrived: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    query: Query = field(default_factory=Query)
    prepared: Prepared | None = None
    _settled: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def settle(self) -> bool:
        """True for the first caller, who then counts and delivers; False for everyone after."""
        with self._lock:
            first, self._settled = not self._settled, True
        return first


@dataclass
class PerceiveRequest(Job):
    """One look on request, with its own query and budget; not counted among the camera's frames.

    feedback: called with the stage and the regions chosen so far. done: set once `outcome` is there; `outcome` stays
    None where the look was cancelled, and `reason` then says why.
    """

    budget: Budget = field(default_factory=Budget)
    feedback: Callable[[str, Sequence[Region]], None] = lambda stage, regions: None
    cancelled: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    outcome: FrameOutcome | None = None
    reason: str = ""


class LatestFrameQueue:
    """Where frames wait: one place a camera for the newest, and one for a look on request, which goes first.

    A camera's next frame waits until `done` was said of the one that was taken, so that its results stay in order.
    """

    def __init__(self, cameras: Iterable[str]) -> None:
        self._turns = deque(cameras)
        self._waiting: dict[str, Job] = {}
        self._taken: dict[str, Job] = {}
        self._look: PerceiveRequest | None = None
        self._ready = threading.Condition()

    def put(self, job: Job) -> Job | None:
        """Leave a frame; the one that it replaces comes back, if one was waiting."""
        with self._ready:
            replaced = self._waiting.get(job.camera)
            self._waiting[job.camera] = job
            self._ready.notify()
        return replaced

    def put_request(self, look: PerceiveRequest) -> None:
        with self._ready:
            self._look = look
            self._ready.notify()

    def take(self, wait_s: float, wanted: Callable[[], bool] = lambda: True) -> Job | None:
        """The look on request, else the frame of the camera whose last turn is longest ago.

        None after `wait_s` seconds, and where it is no longer `wanted` by then: the job is left for another.
        """
        with self._ready:
            if not self._look and self._next_camera() is None:
                self._ready.wait(wait_s)
            if not wanted():
                self._ready.notify()
                return None
            if self._look:
                look, self._look = self._look, None
                return look
            camera = self._next_camera()
            if camera is None:
                return None
            self._turns.remove(camera)
            self._turns.append(camera)
            self._taken[camera] = job = self._waiting.pop(camera)
        return job

    def done(self, job: Job) -> None:
        """The camera's next frame may be taken."""
        with self._ready:
            if self._taken.get(job.camera) is job:
                del self._taken[job.camera]
                self._ready.notify()

    def _next_camera(self) -> str | None:
        return next((camera for camera in self._turns if camera in self._waiting and camera not in self._taken), None)

    def clear(self) -> list[Job]:
        """Take out every frame that waits; a look stays."""
        with self._ready:
            waiting = list(self._waiting.values())
            self._waiting.clear()
        return waiting

    def wake(self) -> None:
        with self._ready:
            self._ready.notify_all()


@dataclass(eq=False)
class WorkerThread:
    """One thread, and the job that it is at."""

    job: Job | None = None
    thread: threading.Thread | None = None
    perception: ActivePerception | None = None

    @property
    def alive(self) -> bool:
        return self.thread is not None and self.thread.is_alive()


@dataclass(eq=False)
class ModelPool:
    """The models, and the lanes that use them; the first has loaded them.

    A hang retires all of it; nothing that it does afterwards counts.
    """

    loaded: threading.Event = field(default_factory=threading.Event)
    error: str = ""
    retired: bool = False
    lanes: list[WorkerThread] = field(default_factory=lambda: [WorkerThread()])

    @property
    def perception(self) -> ActivePerception | None:
        return self.lanes[0].perception

    @property
    def models(self) -> list[object]:
        """What looks: the policy, the task's model, and what makes masks."""
        perception = self.perception
        return [] if perception is None else [perception.sensing, perception.task, perception.segmenter]

    @property
    def jobs(self) -> list[Job]:
        """What is being looked at."""
        return [job for lane in self.lanes if (job := lane.job) is not None]

    @property
    def alive(self) -> bool:
        return any(lane.alive for lane in self.lanes)


class Worker:
    """Looks at the frames of several cameras, in threads of its own."""

    POLL_S = 0.2

    def __init__(
        self,
        ledger: FrameCounters,
        cameras: Sequence[str],
        *,
        load: Callable[[], ActivePerception],
        prepare: Callable[[str, bytes], Prepared],
        deliver: Callable[[FrameOutcome], None],
        now_ns: Callable[[], int],
        settings: Settings,
    ) -> None:
        """load: build the models; runs in the worker's thread. prepare: message to frame, or raises Rejected.

        deliver: publish an outcome; called from the worker's thread. now_ns: the clock that stamps are compared with.
        """
        self.settings = settings
        self.latencies = Latencies()
        self.last_error = ""
        self._ledger = ledger
        self._load = load
        self._prepare = prepare
        self._deliver = deliver
        self._now_ns = now_ns
        self._cameras = tuple(cameras)
        self._slots = LatestFrameQueue(cameras)
        self._newest: dict[str, bytes] = {}
        self._look: PerceiveRequest | None = None
        self._look_lock = threading.Lock()
        self._open = False
        self._gate = threading.Lock()
        self._hung: list[ModelPool] = []
        self._preparing: dict[Query, Preparation] = {}
        self._in_force = settings.query
        self._generation = self._start_generation()

    # Loading

    def wait_loaded(self, timeout_s: float) -> bool:
        """Whether loading has ended, well or not; see `error`."""
        return self._generation.loaded.wait(timeout_s)

    @property
    def loading(self) -> bool:
        return not self._generation.loaded.is_set()

    @property
    def error(self) -> str:
        """Why the models could not be loaded; "" if they could, or if that is not known yet."""
        return self._generation.error

    @property
    def hung_threads(self) -> int:
        """Threads that were given up and are still in a model's call, holding its memory."""
        self._hung = [generation for generation in self._hung if generation.alive]
        return len(self._hung)

    @property
    def perception(self) -> ActivePerception | None:
        """The models in use; None while they load and where they could not be loaded."""
        return self._generation.perception

    def check_query(self, query: Query) -> None:
        """Raises UnsupportedQuery, with what can be asked, if the models that are loaded cannot serve the query.

        What it needs besides them is loaded in a thread of its own, and this does not wait for it; see `ready`.
        """
        perception = self.perception
        if perception is None:
            return
        self._standing_query()  # what is ready now is the former one, though no frame may have come for it
        key = replace(query, revision=0)
        preparation = self._preparing.get(key)
        if preparation is None:
            preparation = self._preparing[key] = Preparation()
            arguments = (perception, key, preparation)
            threading.Thread(target=self._prepare_query, args=arguments, name="query", daemon=True).start()
        preparation.done.wait(ANSWER_S)
        if preparation.error is not None:
            raise preparation.error

    def ready(self, query: Query) -> bool:
        """Whether all is loaded that a query needs. Frames keep to the former query until the standing one is."""
        return replace(query, revision=0) not in self._preparing

    def _prepare_query(self, perception: ActivePerception, query: Query, preparation: Preparation) -> None:
        try:
            perception.load(query)
        except UnsupportedQuery as error:
            preparation.error = error
        except Exception:
            logger.exception("what the query %r needs could not be loaded; its frames will fail", query.text)
        finally:
            self._preparing.pop(query, None)
            preparation.done.set()

    def _standing_query(self) -> Query:
        standing = self.settings.query
        if self.ready(standing):
            self._in_force = standing
        return self._in_force

    # Frames

    def open_gate(self) -> None:
        """From now on frames are counted and looked at."""
        with self._gate:
            self._open = True

    def close_gate(self) -> None:
        """Frames that still wait are dropped as stale; the one that is being looked at is finished and delivered."""
        with self._gate:
            self._open = False
            for job in self._slots.clear():
                self._settle(job, FrameDisposition.STALE)

    def offer(self, camera: str, data: bytes) -> None:
        """Stash a message. Never blocks for longer than it takes to put it down."""
        self._newest[camera] = data
        with self._look_lock:
            look = self._look
            if look and look.camera == camera and not look.data:
                look.data = data
                self._slots.put_request(look)
        with self._gate:
            if not self._open:
                return
            self._ledger.receive(camera)
            replaced = self._slots.put(Job(camera, data))
            if replaced is not None:
                self._settle(replaced, FrameDisposition.REPLACED)

    @property
    def looking(self) -> bool:
        """Whether a look on request is under way."""
        with self._look_lock:
            return self._look is not None

    def look(self, look: PerceiveRequest) -> None:
        """Findings once at the newest frame of a camera, or at its next one where none has come yet. Raises Busy."""
        with self._look_lock:
            if self._look is not None:
                raise Busy("another look is still under way; wait for its result or cancel it")
            self._look = look
            look.data = self._newest.get(look.camera, b"")
            if look.data:
                self._slots.put_request(look)

    def end_request(self, look: PerceiveRequest, reason: str) -> None:
        """Give a look up; does nothing where it has ended already."""
        look.cancelled.set()
        if look.settle():
            self._finish_look(look, None, reason)

    # Watching and stopping

    def watch(self) -> None:
        """Give up a model that hangs. To be called a few times a second, from any one thread."""
        limit, generation = self.settings.inference_timeout_s, self._generation
        if not limit or all(time.perf_counter() - job.started < limit for job in generation.jobs):
            return
        given_up = [job for job in generation.jobs if job.settle()]
        if not given_up:
            return
        generation.retired = True
        self._slots.wake()  # lanes without a job end, and take none from those that follow
        self._hung.append(generation)
        for model in generation.models:
            forget(getattr(model, "engine", None))  # else the next models would wait for the same call
        # A frame of another camera that was taken up later shares the models, and often the very call that hangs.
        for job in given_up:
            self._conclude(job, _failure(job, f"the model did not answer within {limit:g} s and was given up"))
            self._slots.done(job)
        self._generation = self._start_generation()

    def stop(self, timeout_s: float, reason: str) -> bool:
        """End the thread; what is being looked at ends at its next step. False if a model's call still holds it."""
        self.close_gate()
        generation = self._generation
        generation.retired = True
        self._slots.wake()
        deadline = time.monotonic() + timeout_s
        for lane in generation.lanes:
            if lane.thread is not None:
                lane.thread.join(max(0.0, deadline - time.monotonic()))
        for job in generation.jobs:
            if job.settle():
                self._conclude(job, _failure(job, reason))
        if self._look is not None:
            self.end_request(self._look, reason)
        self._newest.clear()
        return not generation.alive

    # The threads

    def _start_generation(self) -> ModelPool:
        generation = ModelPool()
        if self.hung_threads >= MAX_HUNG_THREADS:
            generation.error = f"{MAX_HUNG_THREADS} threads hang in the model; clean up and configure again"
            generation.loaded.set()
        self._start_lane(generation, generation.lanes[0])
        return generation

    def _start_lane(self, generation: ModelPool, lane: WorkerThread) -> None:
        # A daemon: a model that never returns must not keep the process alive.
        lane.thread = threading.Thread(target=self._run, args=(generation, lane), name="worker", daemon=True)
        lane.thread.start()

    def _run(self, generation: ModelPool, lane: WorkerThread) -> None:
        if not generation.loaded.is_set():
            self._load_models(generation, lane)
            self._add_lanes(generation)
        while not generation.retired:
            job = self._slots.take(self.POLL_S, lambda: not generation.retired)
            if job is None:
                continue
            job.started = time.perf_counter()
            lane.job = job
            outcome = self._perform(generation, lane, job)
            if job.settle():
                self._conclude(job, outcome)
            lane.job = None
            self._slots.done(job)
        lane.perception = None
        gc.unfreeze()
        gc.collect()
        return_freed_memory()

    def _load_models(self, generation: ModelPool, lane: WorkerThread) -> None:
        try:
            lane.perception = self._load()
            # What lives as long as the models need not be looked through for garbage: that would hold up every thread
            # for some tens of milliseconds, again and again while frames are looked at, and services with them.
            gc.freeze()
        except Exception as error:
            generation.error = f"{type(error).__name__}: {error}"
            logger.exception("the models could not be loaded")
        finally:
            generation.loaded.set()

    def _add_lanes(self, generation: ModelPool) -> None:
        """A lane for each further camera, where the models answer several threads together."""
        perception = generation.perception
        if perception is None or not perception.concurrent or generation.retired:
            return
        for _ in self._cameras[1:]:
            lane = WorkerThread(perception=perception.for_another_thread())
            generation.lanes.append(lane)
            self._start_lane(generation, lane)

    def _perform(
        self, generation: ModelPool, lane: WorkerThread, job: Job
    ) -> tuple[FrameDisposition, FrameOutcome | None, str]:
        """What becomes of a job. Never raises."""
        settings, perception = self.settings, lane.perception
        job.query = job.query if isinstance(job, PerceiveRequest) else self._standing_query()
        budget = job.budget if isinstance(job, PerceiveRequest) else settings.budget

        def observe(stage: str, regions: Sequence[Region]) -> None:
            if generation.retired:
                raise Cancelled("its models were given up, or the node is being stopped")
            if isinstance(job, PerceiveRequest):
                if job.cancelled.is_set():
                    raise Cancelled("cancelled by the client")
                job.feedback(stage, regions)

        try:
            queued_ms = (job.started - job.arrived) * 1e3
            job.prepared = self._prepare(job.camera, job.data)
            decode_ms = (time.perf_counter() - job.started) * 1e3
            if not isinstance(job, PerceiveRequest) and self._age_s(job.prepared.frame) > settings.max_frame_age_s > 0:
                return FrameDisposition.STALE, None, ""
            if perception is None:
                return _failure(job, f"no models: {generation.error}")
            observe("decode", ())
            result = perception.perceive(job.prepared.frame, job.query, budget, observe)
            result.timings_ms.update(queue=queued_ms, decode=decode_ms)
            fate = FrameDisposition.FAILED if result.status == Status.FAILED else FrameDisposition.PROCESSED
            return (
                fate,
                FrameOutcome(job.camera, job.prepared.header, result, job.prepared.frame),
                result.status_message,
            )
        except Rejected as error:
            return _rejection(job, error)
        except Cancelled as error:
            return _failure(job, str(error))
        except Exception as error:
            logger.exception("a frame of camera %s failed", job.camera)
            return _failure(job, f"{type(error).__name__}: {error}")

    def _age_s(self, frame: Frame) -> float:
        """Seconds since the frame was taken; 0 for a frame without a stamp, whose age nobody knows."""
        return (self._now_ns() - frame.stamp_ns) / 1e9 if frame.stamp_ns else 0.0

    def _conclude(self, job: Job, conclusion: tuple[FrameDisposition, FrameOutcome | None, str]) -> None:
        """Publish, then count, what has just been settled."""
        fate, outcome, message = conclusion
        if isinstance(job, PerceiveRequest):
            self._finish_look(job, outcome, message)
            return
        if outcome is not None:
            try:
                self._deliver(outcome)
            except Exception as error:
                logger.exception(
                    "the result of a frame of camera %s could not be published",
                    job.camera,
                )
                fate, message = (
                    FrameDisposition.FAILED,
                    f"publishing failed: {type(error).__name__}: {error}",
                )
            else:
                self._measure(job, outcome)
        if fate in (FrameDisposition.FAILED, FrameDisposition.REJECTED):
            self.last_error = f"{job.camera}: {message}"
        self._ledger.settle(job.camera, fate)

    def _measure(self, job: Job, outcome: FrameOutcome) -> None:
        timings = dict(outcome.result.timings_ms)
        timings["callback_to_publish"] = (time.perf_counter() - job.arrived) * 1e3
        if outcome.frame is not None and outcome.frame.stamp_ns:
            timings["age_at_publish"] = (self._now_ns() - outcome.frame.stamp_ns) / 1e6
        self.latencies.add(timings)

    def _settle(self, job: Job, fate: FrameDisposition) -> None:
        if job.settle():
            self._ledger.settle(job.camera, fate)

    def _finish_look(self, look: PerceiveRequest, outcome: FrameOutcome | None, reason: str) -> None:
        with self._look_lock:
            self._look = None
        look.outcome, look.reason = outcome, reason
        look.done.set()


def return_freed_memory() -> None:
    """Hand what has been freed back to the system.

    The GNU C library keeps it for the thread that had it: with a thread for each loading, a node that is configured
    again and again would grow by what the models of each left in pieces.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _failure(job: Job, message: str) -> tuple[FrameDisposition, FrameOutcome | None, str]:
    """The conclusion of a job that failed; without an outcome where not even the header could be read."""
    if job.prepared is None:
        return FrameDisposition.FAILED, None, message
    frame = job.prepared.frame
    result = Result.failed(frame, job.query, message)
    return FrameDisposition.FAILED, FrameOutcome(job.camera, job.prepared.header, result, frame), message


def _rejection(job: Job, error: Rejected) -> tuple[FrameDisposition, FrameOutcome | None, str]:
    if error.header is None:
        return FrameDisposition.REJECTED, None, str(error)
    result = Result(0, 0, job.query, Status.FAILED, str(error))
    return FrameDisposition.REJECTED, FrameOutcome(job.camera, error.header, result, None), str(error)
