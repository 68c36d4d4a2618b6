"""What became of every frame, and how long things took. Knows no ROS."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum

import numpy as np

WINDOW = 200
"""Samples that a distribution of latency is taken over."""


class FrameDisposition(Enum):
    """What a frame that was received ended as. Every received frame ends as exactly one of these."""

    PROCESSED = "processed"
    """Perceived, completely or coarsely, and published."""
    REPLACED = "replaced"
    """Never taken up: a newer frame of the same camera came while it waited."""
    STALE = "stale"
    """Never taken up: older than `max_frame_age`, or still waiting when the gate was closed."""
    FAILED = "failed"
    """Taken up, but perception failed, hung or was stopped."""
    REJECTED = "rejected"
    """The message was malformed or of an encoding or size that is not supported."""


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
        """A frame came in and waits for its turn."""
        self._add(camera, received=1, pending=1)

    def settle(self, camera: str, fate: FrameDisposition) -> None:
        """A pending frame met its fate."""
        self._add(camera, pending=-1, **{fate.value: 1})

    def counts(self, camera: str) -> Counts:
        with self._lock:
            return self._counts[camera]

    def _add(self, camera: str, **steps: int) -> None:
        with self._lock:
            counts = self._counts[camera]
            self._counts[camera] = replace(counts, **{name: getattr(counts, name) + n for name, n in steps.items()})


class Gaps:
    """Messages that were sent and never received, from the numbers that their senders gave them.

    Lost on the way, or overwritten in a queue before anybody took them out: nobody tells the receiver of the latter.
    """

    MAX_SENDERS = 16

    def __init__(self) -> None:
        self.missing: int | None = None
        """None as long as no message came with a number."""
        self._newest: dict[Hashable, int] = {}

    def note(self, sender: Hashable, number: int | None) -> None:
        """A message came. number: its place in what this sender sent, None where the middleware does not number."""
        if number is None:
            return
        newest = self._newest.pop(sender, None)
        # A sender's first message begins its count: what it sent before anybody listened is not lost. A number that
        # goes backwards is a sender that started again under the same name.
        skipped = number - newest - 1 if newest is not None and number > newest else 0
        self.missing = (self.missing or 0) + skipped
        self._newest[sender] = number
        if len(self._newest) > self.MAX_SENDERS:
            del self._newest[next(iter(self._newest))]


@dataclass(frozen=True)
class Distribution:
    """Of the newest samples, in milliseconds; NaN where there are none."""

    p50: float = math.nan
    p95: float = math.nan
    max: float = math.nan


class Latencies:
    """The newest `WINDOW` samples of each stage, in milliseconds; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: dict[str, deque[float]] = {}

    def add(self, milliseconds: Mapping[str, float]) -> None:
        """One sample for each stage of one frame; values that are not finite are left out."""
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
