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

"""The newest depth images of one camera, undecoded, found by their stamps. Knows no ROS."""

from __future__ import annotations

import threading

MAX_KEPT = 6
"""Depth images that wait for their image's result: at 30 Hz those of 0.2 s, beside the one of the frame in progress."""


class DepthBuffer:
    """Holds at most `MAX_KEPT` serialized messages. Any thread may use it."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, bytes]] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, stamp_ns: int, data: bytes, wanted_ns: int) -> None:
        """Take in a message; the oldest one goes, but not the one that fits best to the frame in progress.

        Args:
            stamp_ns: Its stamp, nanoseconds.
            data: The message.
            wanted_ns: Stamp of the frame in progress.
        """
        with self._lock:
            self._kept.append((stamp_ns, data))
            if len(self._kept) > MAX_KEPT:
                best = _nearest(self._kept, wanted_ns)
                del self._kept[1 if best == 0 else 0]

    def nearest(self, stamp_ns: int) -> tuple[int, bytes] | None:
        """Stamp and message of the depth image nearest in time, the newest of several; None where there is none."""
        with self._lock:
            return self._kept[_nearest(self._kept, stamp_ns)] if self._kept else None


def _nearest(kept: list[tuple[int, bytes]], stamp_ns: int) -> int:
    return min(range(len(kept)), key=lambda index: (abs(kept[index][0] - stamp_ns), -index))
