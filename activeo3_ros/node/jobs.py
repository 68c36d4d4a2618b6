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

"""The records that pass between the parts of the scheduling: a job, its frame, its outcome, its conclusion. No ROS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core import Budget, Frame, Query, Region, Result
from ..core.scene import SURVIVAL_S
from .frame_counters import FrameDisposition


class RejectedFrame(Exception):
    """A message that is no usable image.

    Attributes:
        header: The message's header, None where it could not be read.
    """

    def __init__(self, reason: str, header: Any = None) -> None:
        super().__init__(reason)
        self.header = header


@dataclass(frozen=True)
class Settings:
    """The settings that hold for a frame when its turn comes.

    Attributes:
        query: The standing query.
        budget: What a frame may spend.
        max_frame_age_s: Seconds after which a frame is stale; 0 takes every age.
        inference_timeout_s: Seconds after which a model counts as hung; 0 waits for ever.
        memory: Whether the frames of a camera are weighed together.
        background_sensing: Whether a policy that several threads may call chooses regions in a thread of its own.
        survival_s: Mean time for which an object is believed to stay where no view shows it, seconds.
    """

    query: Query = field(default_factory=Query)
    budget: Budget = field(default_factory=Budget)
    max_frame_age_s: float = 0.0
    inference_timeout_s: float = 0.0
    memory: bool = False
    survival_s: float = SURVIVAL_S
    background_sensing: bool = False


@dataclass(frozen=True)
class DecodedFrame:
    """A message as a frame.

    Attributes:
        frame: The image with its stamp and camera.
        header: The message's own header, opaque to the scheduling.
    """

    frame: Frame
    header: Any


@dataclass(frozen=True)
class FrameOutcome:
    """The result of one frame, to be published.

    Attributes:
        camera: Name of the camera.
        header: The header of the image's message.
        result: The result, in source pixels.
        frame: The frame; None where its message was rejected.
    """

    camera: str
    header: Any
    result: Result
    frame: Frame | None


@dataclass(frozen=True)
class Conclusion:
    """How a job ended.

    Attributes:
        disposition: The counter that the frame adds to.
        outcome: The result to publish; None where there is none.
        message: Why the frame failed or was rejected, "" otherwise.
    """

    disposition: FrameDisposition
    outcome: FrameOutcome | None = None
    message: str = ""


@dataclass
class Job:
    """One message on its way, to be settled exactly once. Times are those of `time.perf_counter`, seconds.

    Attributes:
        data: What the decoder takes: the serialized message, or the picture of a video.
        stage: The step of the loop that it has come to; "" before the first.
    """

    camera: str
    data: Any
    arrived: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    query: Query = field(default_factory=Query)
    decoded: DecodedFrame | None = None
    stage: str = ""
    _settled: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def settle(self) -> bool:
        """Claim the right to publish and count this job.

        Returns:
            True for the first caller, who then concludes it; False for every later one.
        """
        with self._lock:
            first, self._settled = not self._settled, True
        return first


@dataclass
class PerceiveRequest(Job):
    """A request for one result, with its own query and budget; not counted among the camera's frames.

    Attributes:
        budget: What this request may spend.
        feedback: Called before each stage with its name and the regions chosen so far, in source pixels.
        cancelled: Set by the client's side; perception then ends at its next step.
        done: Set once the request has ended.
        outcome: The result; None where there is none.
        reason: Why the request failed, or why there is no outcome.
    """

    budget: Budget = field(default_factory=Budget)
    feedback: Callable[[str, Sequence[Region]], None] = lambda stage, regions: None
    cancelled: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    outcome: FrameOutcome | None = None
    reason: str = ""

    def finish(self, outcome: FrameOutcome | None, reason: str) -> None:
        """Hand over the outcome. Only the caller for whom `settle` was True may do this."""
        self.outcome, self.reason = outcome, reason
        self.done.set()
