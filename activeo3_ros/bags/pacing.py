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

"""The time of a bag that is played: it runs at a rate, stands still and goes on."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pacer:
    """Maps a steady clock to the time of a bag."""

    def __init__(self, rate: float, is_paused: bool = False, now_s: Callable[[], float] = time.monotonic) -> None:
        """Start at the time 0 of the bag.

        Args:
            rate: Seconds of the bag in a second.
            is_paused: Whether the bag's time stands still.
            now_s: A clock in seconds that never goes back.
        """
        self._rate = rate
        self._now_s = now_s
        self._bag_ns = 0
        self._since_s = now_s()
        self.is_paused = is_paused

    def start_at(self, bag_ns: int) -> None:
        """Set the bag's time, nanoseconds."""
        self._bag_ns, self._since_s = bag_ns, self._now_s()

    def pause(self, wanted: bool) -> None:
        """Let the bag's time stand still, or go on."""
        self.start_at(self.bag_time_ns())
        self.is_paused = wanted

    def bag_time_ns(self) -> int:
        """The bag's time now, in nanoseconds."""
        passed_s = 0.0 if self.is_paused else self._now_s() - self._since_s
        return self._bag_ns + round(passed_s * self._rate * 1e9)

    def wait_s(self, bag_ns: int) -> float:
        """Seconds until the bag's time is this one, 0 or less when it is past; infinite while paused."""
        if self.is_paused:
            return float("inf")
        return (bag_ns - self.bag_time_ns()) / 1e9 / self._rate
