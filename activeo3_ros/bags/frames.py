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

"""The frames of a bag: of images each by itself, of video topics from the packets before it.

A packet of a video means nothing alone. Its topic is decoded in the order of recording, and each frame is given to the
message whose stamp it carries, whatever the order of the stamps.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..codecs.image_files import MAX_IMAGE_PIXELS
from ..codecs.video_headers import header_reader
from ..codecs.video_packets import VIDEO_TYPES, DecodedPacket, VideoDecoder, codec_of, picture_to_bgr
from ..core import Frame, InvalidInput
from .messages import IMAGE_TYPES, camera_of, frame_from_message, image_message, video_packet
from .reading import Bag, DamagedMessage, Entry, topic_type

logger = logging.getLogger(__name__)

PICTURE_TYPES = (*IMAGE_TYPES, *VIDEO_TYPES)
"""The types of topics with pictures."""
FAR = 60
"""Messages: where a wanted one is further ahead, decoding begins anew at a key frame before it."""
KEY_FRAMES_BEFORE = 2
"""The pictures around a key frame may be predicted from what is before it, so decoding begins at the one before."""


class BagFrames:
    """Gives the frames of a bag's messages, quickest in the order of their stamps."""

    def __init__(self, bag: Bag) -> None:
        """Read from an open bag."""
        self._bag = bag
        self._videos: dict[str, _VideoTopic] = {}

    def frame(self, entry: Entry, message: Any = None) -> Frame:
        """The frame of a message.

        Args:
            entry: The message, of a topic with pictures.
            message: What `image_message` made of it, where that is known.

        Raises:
            InvalidInput: It cannot be decoded, or, of a video, what it is predicted from is missing.
            DamagedMessage: It cannot be read.
            MissingPackageError: A package that decodes it is not installed.
        """
        kind, camera = self._bag.topics[entry.topic].type, camera_of(entry.topic)
        if kind not in VIDEO_TYPES:
            return frame_from_message(message or image_message(self._bag.read(entry), kind), kind, camera)
        if entry.topic not in self._videos:
            self._videos[entry.topic] = _VideoTopic(self._bag, entry.topic)
        return self._videos[entry.topic].frame(entry, camera)


def read_frames(path: Path, topic: str) -> Iterator[Frame]:
    """The frames of a topic with pictures in the order of recording; the camera is named as its topic begins.

    A damaged message is left out, with a warning.

    Raises:
        InvalidInput: There is no bag, it has no such topic, or an image cannot be decoded.
    """
    with Bag(path) as bag:
        topic_type(bag, topic)
        entries, damage = bag.index([topic], by_header=False)
        if damage:
            logger.warning("%s: %s", path, damage.describe())
        frames = BagFrames(bag)
        for entry in entries:
            try:
                yield frames.frame(entry)
            except DamagedMessage as error:
                logger.warning("%s: a message is lost: %s", path, error)


class _VideoTopic:
    """Decodes one topic, and holds what came out ahead of its turn."""

    def __init__(self, bag: Bag, topic: str) -> None:
        self._bag, self._type = bag, bag.topics[topic].type
        entries, _ = bag.index([topic])
        self._usual_step_ns = _usual_step_ns([entry.stamp_ns for entry in entries])
        self._order = sorted(entries, key=lambda entry: (entry.log_time_ns, entry.file, entry.place))
        self._number_of = {(entry.file, entry.place): number for number, entry in enumerate(self._order)}
        self._next = 0
        self._ended: dict[int, DecodedPacket | DamagedMessage] = {}
        self._begin(0)

    def _begin(self, number: int) -> None:
        self._decoder = VideoDecoder(lambda: MAX_IMAGE_PIXELS, self._usual_step_ns)
        self._next, self._pending, self._is_lost = number, set[int](), False
        self._ended.clear()

    def frame(self, entry: Entry, camera: str) -> Frame:
        """The frame of a message; raises as `BagFrames.frame`."""
        wanted = self._number_of[entry.file, entry.place]
        is_behind = wanted < self._next and wanted not in self._ended and wanted not in self._pending
        if is_behind or wanted > self._next + FAR:
            begin = self._key_frame_before(wanted)
            if is_behind or begin > self._next:
                self._begin(begin)
        while wanted not in self._ended:
            self._advance()
            self._forget(wanted)
        ended = self._ended.pop(wanted)
        if isinstance(ended, DamagedMessage):
            raise ended
        if ended.picture is None:
            raise InvalidInput(ended.error)
        packet = self._packet(wanted)
        return Frame(picture_to_bgr(ended.picture), packet.stamp_ns, packet.frame_id, camera)

    def _packet(self, number: int) -> Any:
        return video_packet(self._bag.read(self._order[number]), self._type)

    def _advance(self) -> None:
        """Decode the next message, or end the stream behind the last one."""
        number, self._next = self._next, self._next + 1
        if number >= len(self._order):
            self._keep(self._decoder.finish())
            return
        try:
            packet = self._packet(number)
        except DamagedMessage as error:
            self._ended[number], self._is_lost = error, True
            return
        except InvalidInput as error:
            self._ended[number], self._is_lost = DecodedPacket(number, None, str(error), is_rejected=True), True
            return
        self._pending.add(number)
        is_lost, self._is_lost = self._is_lost, False
        self._keep(self._decoder.decode(packet, is_lost, number))

    def _keep(self, ended: Sequence[DecodedPacket]) -> None:
        for packet in ended:
            self._pending.discard(packet.packet)
            self._ended[packet.packet] = packet

    def _forget(self, wanted: int) -> None:
        """Let go of the pictures that are shown before the wanted one: they were not asked for."""
        stamp_ns = self._order[wanted].stamp_ns
        gone = [n for n in self._ended if n != wanted and self._order[n].stamp_ns < stamp_ns]
        for number in gone:
            del self._ended[number]

    def _key_frame_before(self, wanted: int) -> int:
        """The message from which everything is decoded that the wanted one needs."""
        found = 0
        for number in range(wanted, -1, -1):
            try:
                packet = self._packet(number)
                found += header_reader(codec_of(packet.codec)).read(packet.data).is_key
            except (InvalidInput, DamagedMessage):
                continue
            if found == KEY_FRAMES_BEFORE:
                return number
        return 0


def _usual_step_ns(stamps_ns: Sequence[int]) -> int:
    """The time between two pictures, nanoseconds; 0 where it cannot be told."""
    steps = [after - before for before, after in pairwise(sorted(stamps_ns)) if after > before]
    return statistics.median_low(steps) if steps else 0
