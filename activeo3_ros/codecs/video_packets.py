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

"""Video as messages: packets of H.264, H.265 and AV1, decoded one by one. PyAV decodes.

A picture is given only if everything that it is predicted from was decoded: decoding begins with a key frame, and after
a loss it waits for the next one. A loss shows in the numbers of the stream, in the decoder's own marks, in what the
transport says, and, for a whole group of pictures, in the time that passed. Every packet ends as exactly one
`DecodedPacket`: a picture with the stamp of its packet, or the reason why there is none.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core import InvalidInput
from ..core.optional import require_package
from .image_message import BgrImage, check_size
from .video_headers import HeaderReader, PacketHeader, header_reader

VIDEO_TYPE = "foxglove_msgs/msg/CompressedVideo"
PACKET_TYPE = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
VIDEO_TYPES = (VIDEO_TYPE, PACKET_TYPE)
DEFINITIONS = {
    VIDEO_TYPE: "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n",
    PACKET_TYPE: "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n"
    "bool is_bigendian\nuint8[] data\n",
}
"""The fields of these types, which bags need where their packages are not installed."""
PACKAGE = "av>=17"
CODECS = {"h264": "h264", "avc": "h264", "h265": "hevc", "hevc": "hevc", "av1": "av1"}
"""Codecs by the names that messages use; names of most of FFmpeg's encoders begin with one, as `h264_nvenc`."""
ENCODERS = {
    **dict.fromkeys(("libx264", "libx264rgb", "libopenh264"), "h264"),
    "libx265": "hevc",
    **dict.fromkeys(("libsvtav1", "librav1e", "libaom-av1"), "av1"),
}
"""FFmpeg's encoders whose names do not begin with the codec's."""
DECODERS = {"h264": ("h264",), "hevc": ("hevc",), "av1": ("libdav1d", "libaom-av1")}
"""FFmpeg's decoders of each codec that run on a CPU, the better first."""
BYTES_A_PIXEL = 4
"""No picture needs more, compressed: a packet larger than so many bytes for each allowed pixel is refused."""
LEAST_PACKET_LIMIT = 1 << 20
MOST_DELAYED = 64
"""Packets that may be in the decoder at once: 16 pictures are the most that H.264 and H.265 reorder."""
NEWEST_TIMES = 16
"""So many pictures tell how far two of them are apart in time."""
ORDER_UNITS = {"h264": 2, "hevc": 1, "av1": 1}
"""How much the order of display usually rises from one picture to the next: H.264 counts fields."""
LOST_STEPS = 1.5
"""Usual steps in time, beyond those that the order of display explains, that lose no group of pictures."""
COUNTED = 10
"""Presentation numbers that differ by no more count pictures, as ffmpeg_image_transport's do; else they are times."""
EQUAL_GROUPS = 2
"""Groups of one length in succession after which the next ones are taken to have it too."""


@dataclass(frozen=True)
class VideoPacket:
    """One message of a video topic.

    Attributes:
        stamp_ns: Its stamp, nanoseconds.
        frame_id: Coordinate frame of its camera.
        codec: The name of the codec as the message has it.
        data: The compressed picture.
        number: Its presentation number, None where its type has none.
    """

    stamp_ns: int
    frame_id: str
    codec: str
    data: bytes
    number: int | None = None


@dataclass(frozen=True)
class DecodedPacket:
    """How a packet ended.

    Attributes:
        packet: The packet, or what was handed in with it.
        picture: FFmpeg's picture, None where there is none.
        error: Why there is no picture, "" where there is one.
        is_rejected: Whether the packet itself is at fault, and not a loss before it.
    """

    packet: Any
    picture: Any = None
    error: str = ""
    is_rejected: bool = False


def codec_of(name: str) -> str:
    """The codec of a message's field `format` or `encoding`: `h264`, `hevc` or `av1`.

    FFMPEGPacket has the codec, or FFmpeg's name of the encoder, before its first semicolon.

    Raises:
        InvalidInput: It is none of these.
    """
    first = name.partition(";")[0].strip().lower()
    codec = CODECS.get(first) or ENCODERS.get(first) or CODECS.get(first.partition("_")[0])
    if codec is None:
        raise InvalidInput(f"unsupported video codec {first[:40]!r}; supported are h264, h265 (hevc) and av1")
    return codec


def picture_to_bgr(picture: Any) -> BgrImage:
    """A decoded picture as `(h, w, 3)` uint8 BGR, by the matrix and the range that the stream names.

    Without a name they are ITU-R BT.601 and the narrow range (16 to 235), FFmpeg's own default. Any thread may call it.
    """
    av = require_package("av", "to decode video topics", PACKAGE)
    # A converter for each call: that of the picture itself must not serve two threads at once.
    return np.asarray(av.video.reformatter.VideoReformatter().reformat(picture, format="bgr24").to_ndarray(), np.uint8)


class VideoDecoder:
    """Decodes the packets of one stream in the order of their arrival. Only one thread at a time may call it.

    Attributes:
        waits_for: Why packets are left out until the next key frame, "" while pictures are decoded.
    """

    def __init__(self, max_pixels: Callable[[], int], usual_step_ns: int = 0) -> None:
        """Begin a stream.

        Args:
            max_pixels: The limit on a picture's width x height, read at each packet; a larger one is refused before
                memory is taken for it.
            usual_step_ns: Time between two pictures in nanoseconds, 0 where it is to be measured.
        """
        self._max_pixels = max_pixels
        self._context: Any = None
        self._opened_for: tuple[str, tuple[int, int], int] | None = None
        self._reader: HeaderReader | None = None
        self._codec = ""
        self._pending: dict[int, Any] = {}
        self._next = self._order = 0
        self._stamps, self._numbers = _StreamClock(usual_step_ns), _StreamClock(most_first=COUNTED)
        self._skips_leading = False
        self.waits_for = "the stream begins"

    def decode(self, packet: VideoPacket, lost_before: bool = False, tag: Any = None) -> list[DecodedPacket]:
        """Decode one packet.

        Args:
            packet: The packet.
            lost_before: Whether packets between the one before and this one are known to be lost.
            tag: Handed back in place of the packet.

        Returns:
            The packets that have ended, in the order of their display: none while the decoder holds them back.

        Raises:
            MissingPackageError: PyAV is not installed; the packet was not taken.
        """
        require_package("av", "to decode video topics", PACKAGE)
        tag = packet if tag is None else tag
        ended: list[DecodedPacket] = []
        if lost_before:
            ended += self._break("packets were lost")
        try:
            header = self._read_header(packet)
        except InvalidInput as error:
            ended += self._break("a packet could not be used")
            return [*ended, DecodedPacket(tag, None, str(error), is_rejected=True)]
        assert self._reader is not None
        contradiction = self._contradiction(packet, header)
        if not header.is_key and not self.waits_for and (gap := header.gap or contradiction):
            ended += self._break(f"pictures are missing: {gap}")
        if header.is_key:
            return ended + self._begin(packet, header, tag)
        if self.waits_for:
            return [*ended, DecodedPacket(tag, None, f"waits for a key frame: {self.waits_for}")]
        if header.is_leading and self._skips_leading:
            return [*ended, DecodedPacket(tag, None, "it is predicted from pictures before the first key frame")]
        return ended + self._feed(packet.data, tag)

    def finish(self) -> list[DecodedPacket]:
        """End the stream: what the decoder still holds. A later packet begins a new one."""
        return self._break("the stream was ended")

    def _contradiction(self, packet: VideoPacket, header: PacketHeader) -> str:
        """Why the time or the number of a packet says that pictures are missing before it, "" where they do not."""
        assert self._reader is not None
        self._order = header.order if header.order is not None else self._order + ORDER_UNITS[self._codec]
        place = self._order, ORDER_UNITS[self._codec], header.is_key
        found = self._stamps.contradiction(packet.stamp_ns, *place, self._reader.modulus)
        if packet.number is not None:
            modulus = 0 if self._numbers.counts else self._reader.modulus
            found = self._numbers.contradiction(packet.number, *place, modulus) or found
        return found

    def _read_header(self, packet: VideoPacket) -> PacketHeader:
        """Check everything that can be checked before the decoder sees the packet. Raises InvalidInput."""
        codec = codec_of(packet.codec)
        if codec != self._codec:
            self._codec, self._reader = codec, header_reader(codec)
        assert self._reader is not None
        if not packet.data:
            raise InvalidInput("a video packet has no data")
        limit = self._max_pixels()
        most = max(LEAST_PACKET_LIMIT, BYTES_A_PIXEL * limit)
        if len(packet.data) > most:
            raise InvalidInput(f"a video packet of {len(packet.data)} bytes exceeds {most}; raise max_image_pixels")
        header = self._reader.read(packet.data)
        if header.size != (0, 0):
            check_size(*header.size, limit)
        return header

    def _begin(self, packet: VideoPacket, header: PacketHeader, tag: Any) -> list[DecodedPacket]:
        """Feed a key frame; to a new decoder after a loss, or where codec, size or limit have changed."""
        ended: list[DecodedPacket] = []
        wanted = self._codec, header.size, self._max_pixels()
        if self._opened_for != wanted and not self.waits_for:
            ended += self._break("the stream changed")
        if self.waits_for:
            try:
                self._context = _open(*wanted[::2])
            except InvalidInput as error:
                return [*ended, DecodedPacket(tag, None, str(error), is_rejected=True)]
            self._opened_for, self.waits_for, self._skips_leading = wanted, "", True
        else:
            self._skips_leading = False
        return ended + self._feed(header.parameter_sets + packet.data, tag)

    def _feed(self, data: bytes, tag: Any) -> list[DecodedPacket]:
        av = require_package("av", "to decode video topics", PACKAGE)
        packet = av.Packet(data)
        packet.pts = packet.dts = self._next
        self._pending[self._next] = tag
        self._next += 1
        try:
            pictures = self._context.decode(packet)
        except av.error.FFmpegError as error:
            del self._pending[self._next - 1]
            reason = f"a video packet of {len(data)} bytes is damaged: {str(error.strerror).lower()}"
            return [*self._drop("a packet before it is damaged"), DecodedPacket(tag, None, reason, is_rejected=True)]
        ended = self._take(pictures)
        while len(self._pending) > MOST_DELAYED:  # of fields, and of pictures that are not to be shown
            oldest = self._pending.pop(min(self._pending))
            ended.append(DecodedPacket(oldest, None, "the decoder gave no picture for it"))
        return ended

    def _take(self, pictures: list[Any]) -> list[DecodedPacket]:
        """The packets of pictures; of the first that lacks a reference, and of all after it, as left out."""
        ended = []
        for picture in pictures:
            if self.waits_for or picture.pts not in self._pending:
                continue
            if picture.is_corrupt:
                ended += self._drop("a picture lacks what it is predicted from")
                continue
            ended.append(DecodedPacket(self._pending.pop(picture.pts), picture))
        return ended

    def _break(self, reason: str) -> list[DecodedPacket]:
        """Take out of the decoder what it holds, whole as it is, and wait for a key frame."""
        av = require_package("av", "to decode video topics", PACKAGE) if self._context is not None else None
        ended: list[DecodedPacket] = []
        if av is not None and not self.waits_for:
            try:
                ended = self._take(self._context.decode(None))
            except av.error.FFmpegError:
                pass
        return ended + self._drop(reason)

    def _drop(self, reason: str) -> list[DecodedPacket]:
        """Give up what is in the decoder, and wait for a key frame."""
        ended = [DecodedPacket(tag, None, f"no picture came of it: {reason}") for tag in self._pending.values()]
        self._pending.clear()
        self._context = None
        self.waits_for = self.waits_for or reason
        return ended


class _StreamClock:
    """Tells of losses that the numbers of pictures do not show: of a whole group, with which they begin anew.

    It compares the time from picture to picture with the steps in the order of display.
    """

    def __init__(self, usual_step: int = 0, most_first: int = 0) -> None:
        """Begin a stream.

        Args:
            usual_step: From a picture to the next, 0 where it is to be measured.
            most_first: A first step of at most this much is taken for one from number to number, and 1 for usual.
        """
        self._known_step, self._most_first = usual_step, most_first
        self._placed: deque[tuple[int, int]] = deque(maxlen=NEWEST_TIMES)
        self._rates: deque[float] = deque(maxlen=NEWEST_TIMES)
        self._key: int | None = None
        self._length = 0
        self._groups: deque[int] = deque(maxlen=EQUAL_GROUPS)

    def contradiction(self, time: int, order: int, unit: int, is_key: bool, modulus: int) -> str:
        """Note a packet, and say why pictures must be missing before it, "" where nothing speaks for that.

        Args:
            time: Its stamp or its presentation number.
            order: The place of its picture in the order of display.
            unit: How much the order usually rises from one picture to the next.
            is_key: Whether decoding can begin with it.
            modulus: The loss of fewer pictures shows in their numbers, but for that of a whole group; 0: none does.
        """
        placed = sorted(self._placed)
        self._length += 1
        if is_key:
            self._groups.append(self._length)
            self._length = 0
            self._placed.clear()
            self._key = time
        self._placed.append((order, time))
        before = [each for each in placed if each[0] < order]
        after = [each for each in placed if each[0] > order]
        if is_key or self._key is None or not placed:
            return ""
        if any(other < time for _, other in after):  # the other way round it is only a clock that was set back
            return "its stamp or number contradicts the order of the pictures"
        if not before:
            return ""
        passed, steps = time - before[-1][1], (order - before[-1][0]) / unit
        usual = self._usual(passed / steps)
        self._rates.append(passed / steps)
        if not usual:
            return ""
        excess = passed / usual - steps
        # What is lost with a group ends at the place where the packet before was in its own, or later.
        group = max(before[-1][1] - self._key, 0) / usual + 1
        if len(self._groups) == EQUAL_GROUPS and len(set(self._groups)) == 1:
            group = max(group, self._groups[0])
        most = max(LOST_STEPS, min(group, modulus - 1) - 0.5) if modulus else 0.5
        return f"{passed / usual:.0f} times the usual time has passed" if excess > most else ""

    def _usual(self, rate: float) -> float:
        if self._known_step:
            return self._known_step
        if self._rates:
            return statistics.median_low(self._rates)
        return 1.0 if 0 < rate <= self._most_first else rate

    @property
    def counts(self) -> bool:
        """Whether its times are numbers that count pictures, so that each step of more than one is a loss."""
        return bool(self._rates) and statistics.median_low(self._rates) <= 1


def _open(codec: str, max_pixels: int) -> Any:
    """A decoder without delay of its own, which marks damaged pictures and takes no memory for larger ones."""
    av = require_package("av", "to decode video topics", PACKAGE)
    for name in DECODERS[codec]:
        try:
            context = av.codec.CodecContext.create(name, "r")
        except av.error.FFmpegError:
            continue
        context.thread_count = 1  # threads of FFmpeg hold pictures back
        context.options = {"flags": "+output_corrupt", "err_detect": "explode", "max_pixels": str(max_pixels)}
        return context
    raise InvalidInput(f"this PyAV has no decoder of {codec}; run: pip install '{PACKAGE}'")
