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

"""A circuit breaker: whoever cannot wait learns at once that a server gave no answer a moment ago."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class CircuitBreaker:
    """Closed while a server answers. A failure opens it; then one caller after each interval may try, the others fail.

    Safe to use from several threads.
    """

    def __init__(self, interval_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start closed.

        Args:
            interval_s: Seconds between the tries of an open one.
            clock: Gives seconds; for tests.
        """
        self._interval_s, self._clock = interval_s, clock
        self._lock = threading.Lock()
        self._reason = ""
        self._opened_at = self._next_try_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the server gave no answer when it was last asked."""
        return bool(self._reason)

    def may_try(self) -> bool:
        """Whether to ask the server now. Of an open one, a caller that may has the interval for itself."""
        with self._lock:
            if not self._reason:
                return True
            if self._clock() < self._next_try_at:
                return False
            self._next_try_at = self._clock() + self._interval_s
            return True

    def succeed(self) -> None:
        """Close: the server answered."""
        with self._lock:
            self._reason = ""

    def fail(self, reason: str) -> None:
        """Open, or stay so for another interval. reason: why there was no answer."""
        with self._lock:
            now = self._clock()
            if not self._reason:
                self._opened_at = now
            self._reason = reason or "no answer"
            self._next_try_at = now + self._interval_s

    def describe(self) -> str:
        """Its state in words for people, "" while it is closed."""
        with self._lock:
            if not self._reason:
                return ""
            since = self._clock() - self._opened_at
            return f"no answer for {since:.0f} s, asked again every {self._interval_s:g} s: {self._reason}"
