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

"""Batches the task model's requests of a whole batch of answers: one call of the engine instead of hundreds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ..vlm.dynamic_batching import Call, SharedEngine, answer_together
from ..vlm.engine import Engine, Reply, Request

RUNNING_THREADS = 2
"""Of those that share an engine: enough to crop while another reads, too few to compete."""
GIVEN_UP = 7
"""A batch, its halves and its quarters: if none of them is answered, the engine is not asked the rest of hundreds."""


class RolloutBatcher(SharedEngine):
    """An engine that answers the requests of many threads in one batch.

    Each piece of work has a thread, which runs up to its request; when all threads have made one or ended, the requests
    are answered together. Only a few threads run at a time: hundreds that compete for the interpreter are several times
    slower than one after the other.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._running = threading.Semaphore(RUNNING_THREADS)
        self._lock = threading.Lock()
        self._active = 0
        self._waiting: list[_WaitingCall] = []

    def map(self, work: Callable[[int], None], count: int, threads: int) -> None:
        """Run pieces of work whose requests are answered together.

        Args:
            work: Called with 0 to `count` - 1, each in one of the threads; it calls `generate`.
            count: Number of pieces.
            threads: At most so many pieces are in progress at a time.

        Raises:
            Exception: The error of the first piece that failed.
        """
        workers = min(threads, count)
        with self._lock:
            self._active += workers

        def run(worker: int) -> None:
            self._running.acquire()
            try:
                for index in range(worker, count, workers):
                    work(index)
            finally:
                with self._lock:
                    self._active -= 1
                    batch = self._take_batch()
                self._answer(batch)
                self._running.release()

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(run, range(workers)))

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """As `Engine.generate`, in one batch with the requests of the other threads of `map`."""
        call = _WaitingCall(requests)
        with self._lock:
            inside = self._active > 0
            self._waiting.append(call)
            batch = self._take_batch()
        self._answer(batch)
        if inside:
            self._running.release()
        call.done.wait()
        if inside:
            self._running.acquire()
        if call.error is not None:
            raise call.error
        return call.replies

    def _take_batch(self) -> list[_WaitingCall]:
        """All calls that wait, once every thread waits; else none."""
        if len(self._waiting) < self._active:
            return []
        batch, self._waiting = self._waiting, []
        return batch

    def _answer(self, batch: Sequence[_WaitingCall]) -> None:
        if not batch:
            return
        answer_together(self.engine, batch, GIVEN_UP)
        for call in batch:
            call.done.set()


@dataclass
class _WaitingCall(Call):
    done: threading.Event = field(default_factory=threading.Event)
