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

"""The queue between callbacks and worker threads: the latest frame of each camera, cameras round-robin. No ROS."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from .jobs import Job, PerceiveRequest


class LatestFrameQueue:
    """Holds the latest frame of each camera and one perceive request, which goes first.

    A camera's next frame waits until `done` is called for the one that was taken, so that its results stay in order.
    """

    def __init__(self, cameras: Iterable[str]) -> None:
        self._turns = deque(cameras)
        self._waiting: dict[str, Job] = {}
        self._taken: dict[str, Job] = {}
        self._request: PerceiveRequest | None = None
        self._ready = threading.Condition()

    def put(self, job: Job) -> Job | None:
        """Enqueue a frame.

        Returns:
            The waiting frame of the same camera that it replaces, if there was one.
        """
        with self._ready:
            replaced = self._waiting.get(job.camera)
            self._waiting[job.camera] = job
            self._ready.notify()
        return replaced

    def put_request(self, request: PerceiveRequest) -> None:
        """Enqueue a perceive request, ahead of all frames."""
        with self._ready:
            self._request = request
            self._ready.notify()

    def take(self, wait_s: float, wanted: Callable[[], bool] = lambda: True) -> Job | None:
        """Dequeue the perceive request, else the frame of the camera whose last turn is longest ago.

        Args:
            wait_s: Seconds to wait where nothing is there.
            wanted: Whether the caller still wants a job after the wait; if not, the job is left for another thread.

        Returns:
            The job, or None where nothing came in time or nothing is wanted.
        """
        with self._ready:
            if not self._request and self._next_camera() is None:
                self._ready.wait(wait_s)
            if not wanted():
                self._ready.notify()
                return None
            if self._request:
                request, self._request = self._request, None
                return request
            camera = self._next_camera()
            if camera is None:
                return None
            self._turns.remove(camera)
            self._turns.append(camera)
            self._taken[camera] = job = self._waiting.pop(camera)
        return job

    def done(self, job: Job) -> None:
        """Let the camera's next frame be taken."""
        with self._ready:
            if self._taken.get(job.camera) is job:
                del self._taken[job.camera]
                self._ready.notify()

    def clear(self) -> list[Job]:
        """Remove and return every waiting frame; a perceive request stays."""
        with self._ready:
            waiting = list(self._waiting.values())
            self._waiting.clear()
        return waiting

    def wake(self) -> None:
        """Wake all waiting threads, so that each asks again whether it is wanted."""
        with self._ready:
            self._ready.notify_all()

    def _next_camera(self) -> str | None:
        return next((camera for camera in self._turns if camera in self._waiting and camera not in self._taken), None)
