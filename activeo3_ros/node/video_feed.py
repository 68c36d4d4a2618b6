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

"""Decodes one camera's video in a thread of its own, between its subscription and the scheduler. No ROS.

A packet is needed by those after it, so every one is decoded, in the order of arrival, also while models are busy; only
pictures are replaced by newer ones. Each packet that is counted as received is settled once: as a picture, by the
scheduler, or here, as not decoded or stale.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..bags.messages import video_packet
from ..codecs.video_packets import DecodedPacket, VideoDecoder, VideoPacket
from ..core.errors import PerceptionError, without_numbers
from .frame_counters import FrameDisposition

logger = logging.getLogger(__name__)

MOST_WAITING = 128
"""Packets that wait for the decoder: with more it cannot keep up, and goes on at the next key frame."""
MOST_WAITING_BYTES = 64 << 20
JOIN_S = 1.0
"""Seconds that the end waits for a packet in the decoder."""


class Sink(Protocol):
    """Takes pictures, and counts what becomes of packets."""

    def receive(self, camera: str) -> bool:
        """Count a packet as received; False where none are counted now."""

    def enqueue_received(self, camera: str, data: Any, arrived: float, is_counted: bool) -> None:
        """Enqueue a picture, or a packet that is rejected."""

    def discard(self, camera: str, disposition: FrameDisposition) -> None:
        """Count how a packet ended that was counted as received and is not enqueued."""


@dataclass(frozen=True)
class VideoPicture:
    """What the frame decoder takes in place of a message.

    Attributes:
        packet: The packet with stamp and coordinate frame; None where not even they could be read.
        picture: FFmpeg's picture, None for a packet that is rejected.
        error: Why it is rejected.
    """

    packet: VideoPacket | None
    picture: Any = None
    error: str = ""


@dataclass(eq=False)
class _Arrival:
    """A message on its way through the decoder."""

    data: bytes
    lost_before: bool
    is_counted: bool
    arrived: float = field(default_factory=time.perf_counter)
    packet: VideoPacket | None = None


class VideoFeed:
    """The decoder of one camera and its thread; ends with `close`.

    Attributes:
        fault: Why the newest packet that was not decoded was not, "" once one is decoded.
    """

    def __init__(
        self,
        camera: str,
        message_type: str,
        sink: Sink,
        max_pixels: Callable[[], int],
        missing: Callable[[], int | None],
    ) -> None:
        """Start the thread.

        Args:
            camera: Name of the camera.
            message_type: The type of its messages, one of `VIDEO_TYPES`.
            sink: Takes the pictures.
            max_pixels: The limit on a picture's width x height, read at each packet.
            missing: How many messages were sent and never received, None where that is unknown.
        """
        self.fault = ""
        self._camera, self._type, self._sink, self._missing = camera, message_type, sink, missing
        self._missed = missing() or 0
        self._decoder = VideoDecoder(max_pixels)
        self._waiting: deque[_Arrival] = deque()
        self._bytes = 0
        self._is_lost = self._is_closed = False
        self._changed = threading.Condition()
        self._inside: dict[_Arrival, None] = {}
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._run, name=f"video {camera}", daemon=True)
        self._thread.start()

    def put(self, camera: str, data: bytes) -> None:
        """Enqueue a message without waiting for the decoder.

        Args:
            camera: Name of the camera.
            data: The serialized message.
        """
        missing = self._missing() or 0
        is_lost, self._missed = missing > self._missed, missing
        dropped: list[_Arrival] = []
        with self._changed:
            if self._is_closed:
                return
            if len(self._waiting) >= MOST_WAITING or self._bytes + len(data) > MOST_WAITING_BYTES:
                dropped = list(self._waiting)
                self._waiting.clear()
                self._bytes, is_lost = 0, True
            self._waiting.append(_Arrival(data, is_lost, self._sink.receive(camera)))
            self._bytes += len(data)
            self._changed.notify()
        if dropped:
            self._leave_out(dropped, FrameDisposition.UNDECODED, "the decoder cannot keep up")

    def close(self) -> None:
        """End the thread. What has not come out of the decoder is stale."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(JOIN_S)
        with self._changed:
            left = [*self._inside, *self._waiting]
            self._inside.clear()
            self._waiting.clear()
        self._leave_out(left, FrameDisposition.STALE)

    def _run(self) -> None:
        while (arrival := self._next()) is not None:
            try:
                self._decode(arrival)
            except Exception as error:  # of a decoder on untrusted bytes; the camera goes on at the next key frame
                logger.exception("%s: a video packet could not be decoded", self._camera)
                self._conclude([DecodedPacket(arrival, None, f"{type(error).__name__}: {error}", is_rejected=True)])
                self._is_lost = True

    def _next(self) -> _Arrival | None:
        with self._changed:
            while not self._waiting and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return None
            arrival = self._waiting.popleft()
            self._bytes -= len(arrival.data)
            self._inside[arrival] = None
            return arrival

    def _decode(self, arrival: _Arrival) -> None:
        lost_before, self._is_lost = arrival.lost_before or self._is_lost, False
        try:
            arrival.packet = video_packet(arrival.data, self._type)
            arrival.data = b""
            ended = self._decoder.decode(arrival.packet, lost_before, arrival)
        except PerceptionError as error:
            ended, self._is_lost = [DecodedPacket(arrival, None, str(error), is_rejected=True)], True
        self._conclude(ended)

    def _conclude(self, ended: Sequence[DecodedPacket]) -> None:
        for each in ended:
            arrival: _Arrival = each.packet
            with self._changed:
                if arrival not in self._inside:  # closed meanwhile, and counted
                    continue
                del self._inside[arrival]
            if each.picture is None and not each.is_rejected:
                self._leave_out([arrival], FrameDisposition.UNDECODED, each.error)
                continue
            self.fault = each.error
            picture = VideoPicture(arrival.packet, each.picture, each.error)
            self._sink.enqueue_received(self._camera, picture, arrival.arrived, arrival.is_counted)

    def _leave_out(self, arrivals: Sequence[_Arrival], disposition: FrameDisposition, reason: str = "") -> None:
        self.fault = reason
        if reason and (kind := without_numbers(reason)) not in self._told:
            self._told.add(kind)
            logger.warning("%s: a video packet was not decoded: %s; further ones are counted", self._camera, reason)
        for arrival in arrivals:
            if arrival.is_counted:
                self._sink.discard(self._camera, disposition)
