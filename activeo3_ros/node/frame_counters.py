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

"""Counts the disposition of every frame, lost messages, and the latency of each stage. Knows no ROS."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum

import numpy as np

WINDOW = 200
"""Number of the newest samples in a distribution of latencies."""


OLDEST_S = 3600.0
"""Seconds from which on a stamp counts as one of another clock: of a bag's recording, or of the machine's start."""
AHEAD_S = 0.1
"""Seconds that a stamp may be ahead of the node's clock before two clocks count as disagreeing."""


LONGEST_UPTIME_S = 10 * 365 * 86400.0
"""Stamps below this, of the seventies, count from the start of a machine: such drivers and sensors there are."""


def clocks_agree(age_s: float) -> bool:
    """Whether an age, seconds, can be that of an image: negative by a little at most, and not of years."""
    return -AHEAD_S <= age_s < OLDEST_S


def counts_from_start(stamp_s: float, now_s: float) -> bool:
    """Whether a stamp counts from the start of a machine, while the clock that reads `now_s` counts from 1970."""
    return 0 < stamp_s < LONGEST_UPTIME_S < now_s


class FrameDisposition(Enum):
    """How a received frame ended. Every received frame ends as exactly one of these."""

    PROCESSED = "processed"
    """Perceived, completely or coarsely, and published."""
    REPLACED = "replaced"
    """Not perceived: a newer frame of the same camera came while it waited."""
    STALE = "stale"
    """Not perceived: older than `max_frame_age`, or still waiting when the gate was closed."""
    FAILED = "failed"
    """Perception failed, hung or was stopped, or the result could not be published."""
    REJECTED = "rejected"
    """The message was malformed or of an encoding or size that is not supported."""
    UNDECODED = "undecoded"
    """A packet of a video without what it is predicted from: not decoded."""


@dataclass(frozen=True)
class Counts:
    """Frames of one camera since the node started. `received` is the sum of all others."""

    received: int = 0
    pending: int = 0
    processed: int = 0
    replaced: int = 0
    stale: int = 0
    failed: int = 0
    rejected: int = 0
    undecoded: int = 0

    @property
    def add_up(self) -> bool:
        """Whether every received frame is accounted for exactly once."""
        return self.received == sum(
            int(getattr(self, field.name)) for field in fields(self) if field.name != "received"
        )

    @staticmethod
    def sum(parts: Iterable[Counts]) -> Counts:
        """The sum over several cameras."""
        rows = [[getattr(counts, field.name) for field in fields(Counts)] for counts in parts]
        return Counts(*(sum(column) for column in zip(*rows, strict=True)))


class FrameCounters:
    """Counts frames by camera; safe to use from several threads."""

    def __init__(self, cameras: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._counts = {camera: Counts() for camera in cameras}

    def receive(self, camera: str) -> None:
        """Count a frame that waits for its turn."""
        self._add(camera, received=1, pending=1)

    def settle(self, camera: str, disposition: FrameDisposition) -> None:
        """Count how a pending frame ended."""
        self._add(camera, pending=-1, **{disposition.value: 1})

    def counts(self, camera: str) -> Counts:
        """The counts of one camera."""
        with self._lock:
            return self._counts[camera]

    def _add(self, camera: str, **steps: int) -> None:
        with self._lock:
            counts = self._counts[camera]
            self._counts[camera] = replace(counts, **{name: getattr(counts, name) + n for name, n in steps.items()})


class Losses:
    """Counts messages that were sent and never received, by their sequence numbers and by the middleware's reports.

    Both say the same of a message that was lost on the way: the middleware at once, the numbers with the next message.
    One that was overwritten in a queue shows in the numbers alone. What came to nothing before the first message was
    received is left out.
    """

    MAX_SENDERS = 16

    def __init__(self) -> None:
        self._skipped: int | None = None
        self._newest: dict[Hashable, int] = {}
        self._reported = self._reported_before = 0

    @property
    def missing(self) -> int | None:
        """Their number; None as long as no message came with a sequence number. Never less than `in_transport`."""
        return None if self._skipped is None else max(self._skipped, self.in_transport)

    @property
    def in_transport(self) -> int:
        """Those of them that the middleware reported."""
        return self._reported - self._reported_before

    def report(self, lost: int) -> None:
        """Note that the middleware reports so many more messages as lost."""
        self._reported += lost

    def note(self, sender: Hashable, number: int | None) -> None:
        """Note a received message.

        Args:
            sender: Identifies the publisher.
            number: Its sequence number, None where the middleware gives none.
        """
        if number is None:
            return
        if self._skipped is None:
            self._reported_before = self._reported
        newest = self._newest.pop(sender, None)
        # A publisher's first received message begins its count: earlier ones are not lost. A number that goes backwards
        # is a publisher that started again under the same name.
        skipped = number - newest - 1 if newest is not None and number > newest else 0
        self._skipped = (self._skipped or 0) + skipped
        self._newest[sender] = number
        if len(self._newest) > self.MAX_SENDERS:
            del self._newest[next(iter(self._newest))]


@dataclass(frozen=True)
class Distribution:
    """Median, 95th percentile and maximum of the newest samples, milliseconds; NaN where there are none."""

    p50: float = math.nan
    p95: float = math.nan
    max: float = math.nan


class Latencies:
    """The newest `WINDOW` samples of each stage, in milliseconds; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: dict[str, deque[float]] = {}

    def add(self, milliseconds: Mapping[str, float]) -> None:
        """Add one frame.

        Args:
            milliseconds: Its time in each stage; values that are not finite are left out.
        """
        with self._lock:
            for stage, value in milliseconds.items():
                if math.isfinite(value):
                    self._samples.setdefault(stage, deque(maxlen=WINDOW)).append(value)

    def distributions(self) -> dict[str, Distribution]:
        """The distribution of each stage over the window."""
        with self._lock:
            samples = {stage: list(values) for stage, values in self._samples.items()}
        return {
            stage: Distribution(*np.percentile(values, [50, 95, 100]).tolist()) for stage, values in samples.items()
        }
