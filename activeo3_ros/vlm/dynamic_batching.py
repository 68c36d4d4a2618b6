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

"""Dynamic batching: requests of several threads, such as the frames of several cameras, become one batch."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .engine import Engine, Reply, Request
from .families import Family

POLL_S = 0.0005
"""Between two checks for further calls."""


@dataclass
class Call:
    """The requests of one thread, and their replies or the error."""

    requests: Sequence[Any]
    replies: list[Any] = field(default_factory=list)
    error: Exception | None = None
    answered: bool = False


class Generator(Protocol):
    """The part of an engine that batching needs."""

    def generate(self, requests: Sequence[Any]) -> list[Any]: ...


def answer_together(engine: Generator, calls: Sequence[Call], give_up: float = math.inf) -> None:
    """Answer calls in one batch. Where that fails its halves are asked again, so that an error is a call's own.

    Args:
        engine: Answers a batch.
        calls: Get their replies, or their error.
        give_up: Number of parts that may fail while none was answered; from then on the engine is taken to be at fault,
            and the rest is not asked.
    """
    waiting = deque([calls])
    failed, answered = 0, False
    while waiting and (answered or failed < give_up):
        part = waiting.popleft()
        try:
            replies = iter(engine.generate([request for call in part for request in call.requests]))
            for call in part:
                call.replies, call.error = [next(replies) for _ in call.requests], None
            answered = True
        except Exception as error:
            failed += 1
            for call in part:
                call.error = error
            if len(part) > 1:
                middle = len(part) // 2
                waiting += [part[:middle], part[middle:]]


class SharedEngine:
    """The handle by which components share an engine. The registry closes the engine with its last handle."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.family: Family = engine.family

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        return self.engine.generate(requests)

    @property
    def device(self) -> object:
        return self.engine.device

    def describe(self) -> str:
        return self.engine.describe()

    def close(self) -> None:
        self.engine.close()


class CallBatcher:
    """Lets many threads call a model that answers one batch at a time.

    While a batch runs, further calls queue; then one of the waiting threads takes all queued calls, its own and the
    others', to the model. It reads its weights once for all of them, so two cameras take little longer than one.
    """

    WAIT_SHARE = 0.1
    """The longest wait for calls that came together lately, as a share of the time of the last batch."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._waiting: list[Call] = []
        self._list = threading.Lock()
        self._turn = threading.Lock()
        self._expected = 1
        self._last_s = 0.0

    def generate(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests of one call. Where a common batch fails, its parts are asked again: an error is a call's
        own."""
        call = Call(requests)
        with self._list:
            self._waiting.append(call)
        with self._turn:
            if not call.answered:
                self._answer(self._collect())
        if call.error is not None:
            raise call.error
        return call.replies

    def _collect(self) -> list[Call]:
        """All queued calls, once as many have come as lately came together, or that takes too long."""
        latest = time.perf_counter() + self.WAIT_SHARE * self._last_s
        while len(self._waiting) < self._expected and time.perf_counter() < latest:
            time.sleep(POLL_S)
        with self._list:
            calls, self._waiting = self._waiting, []
        return calls

    def _answer(self, calls: Sequence[Call]) -> None:
        start = time.perf_counter()
        answer_together(self._generator, calls)
        for call in calls:
            call.answered = True
        self._last_s = time.perf_counter() - start
        with self._list:
            self._expected = max(len(calls), len(self._waiting))


class DynamicBatcher(SharedEngine):
    """An engine that many threads may call; see `CallBatcher`."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._batcher = CallBatcher(engine)

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """As `Engine.generate`. Where a common batch fails, its parts are asked again: an error is this call's own."""
        return self._batcher.generate(requests)
