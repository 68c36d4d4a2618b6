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

"""The loaded models and the worker threads that run them. Knows no ROS.

Models are loaded in the thread that runs them, so that neither loading nor a hung model ever blocks a callback. A hung
model is given up together with its threads: Python can end neither.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import threading
import time
from collections.abc import Callable

from ..core import ActivePerception, PerceptionError
from ..detectors import centernet
from ..vlm.engine_registry import forget
from .frame_queue import LatestFrameQueue
from .jobs import Job

logger = logging.getLogger(__name__)

POLL_S = 0.2
"""Seconds after which a worker thread that waits for a job asks again whether it is still wanted."""


class WorkerThread(threading.Thread):
    """Takes jobs from the queue, one at a time, until its pool is retired.

    Attributes:
        pool: The pool that it belongs to.
        perception: The models as this thread runs them; None before they are loaded and where they could not be.
        job: The job in progress, None between jobs.
    """

    def __init__(self, pool: ModelPool, perception: ActivePerception | None = None) -> None:
        # A daemon: a model that never returns must not keep the process alive.
        super().__init__(name="worker", daemon=True)
        self.pool = pool
        self.perception = perception
        self.job: Job | None = None

    def run(self) -> None:
        """Load the models where this is the pool's first thread, then process jobs."""
        pool = self.pool
        if not pool.loaded.is_set():
            pool.load(self)
        while not pool.retired:
            job = pool.queue.take(POLL_S, lambda: not pool.retired)
            if job is None:
                continue
            job.started = time.perf_counter()
            self.job = job
            pool.process(job, self)
            self.job = None
            pool.queue.done(job)
        self.perception = None
        gc.unfreeze()
        gc.collect()
        return_freed_memory()


class ModelPool:
    """One set of loaded models and the worker threads that share them.

    Attributes:
        loaded: Set once loading has ended, well or not.
        error: Why there are no models, "" if there are or if that is not known yet.
        retired: True once the pool was given up or is being stopped; what its threads do afterwards does not count.
    """

    def __init__(
        self,
        queue: LatestFrameQueue,
        process: Callable[[Job, WorkerThread], None],
        load: Callable[[], ActivePerception],
        threads: int,
        error: str = "",
    ) -> None:
        """Create the pool; `start` loads the models.

        Args:
            queue: Where worker threads take their jobs.
            process: Called by a worker thread for each job; never raises.
            load: Builds the models; called in the first worker thread.
            threads: Worker threads to run where the models serve several at once (`ActivePerception.concurrent`).
            error: Why nothing shall be loaded; "" to load.
        """
        self.queue = queue
        self.process = process
        self.loaded = threading.Event()
        self.error = error
        self.retired = False
        self._load = load
        self._size = threads
        self._threads = [WorkerThread(self)]
        if error:
            self.loaded.set()

    def start(self) -> ModelPool:
        """Start the first worker thread, which loads the models."""
        self._threads[0].start()
        return self

    def load(self, first: WorkerThread) -> None:
        """Load the models in the calling thread, then start further threads if the models serve several at once."""
        try:
            first.perception = self._load()
            # What lives as long as the models need not be looked through for garbage: that would hold up every thread
            # for some tens of milliseconds, again and again while frames are perceived, and services with them.
            gc.freeze()
        except PerceptionError as error:  # raised on purpose: whoever waits for the models tells it, in one line
            self.error = str(error)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            logger.exception("the models could not be loaded")
        finally:
            self.loaded.set()
        if first.perception is None or not first.perception.concurrent or self.retired:
            return
        for _ in range(1, self._size):
            thread = WorkerThread(self, first.perception.for_another_thread())
            self._threads.append(thread)
            thread.start()

    @property
    def perception(self) -> ActivePerception | None:
        """The models; None while they load and where they could not be loaded."""
        return self._threads[0].perception

    @property
    def jobs(self) -> list[Job]:
        """The jobs in progress."""
        return [job for thread in self._threads if (job := thread.job) is not None]

    @property
    def alive(self) -> bool:
        """Whether any of its threads still runs and holds the models' memory."""
        return any(thread.is_alive() for thread in self._threads)

    def retire(self) -> None:
        """Let every thread end after its job, and take no further one."""
        self.retired = True
        self.queue.wake()

    def give_up(self) -> None:
        """Retire the pool because a model hangs, and no longer share its engines with the models loaded next."""
        self.retire()
        perception = self.perception
        if perception is not None:
            for model in (perception.sensing, perception.task, perception.segmenter):
                forget(getattr(model, "engine", None))  # else the next models would wait for the same call
                centernet.forget(getattr(model, "detector", None))

    def join(self, timeout_s: float) -> None:
        """Wait for the threads to end, for at most so many seconds in all."""
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))


def return_freed_memory() -> None:
    """Hand freed memory back to the system.

    The GNU C library keeps it for the thread that had it: with a thread for each loading, a node that is configured
    again and again would grow by what the models of each left in pieces.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
