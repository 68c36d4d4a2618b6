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

"""The headers of video packets, read before a decoder sees them: key frames, sizes, gaps in the numbers of pictures.

A decoder conceals what it lacks: FFmpeg shows H.264 and AV1 that are predicted from lost pictures without a word. The
numbers that these streams carry tell of the loss: `frame_num` in H.264 (7.4.3), `order_hint` in AV1 (6.8.2). HEVC names
every reference of a picture, and FFmpeg marks those pictures that lack one; here only its key frames are found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ..core import InvalidInput

START_CODE = b"\0\0\1"
HEADER_BYTES = 64
"""Of a slice: its first fields lie in fewer."""
PARAMETER_SET_BYTES = 4096
"""At most this much of a parameter set is read."""
MOST_EXP_GOLOMB_ZEROS = 32
H264_SLICE, H264_IDR, H264_SPS, H264_PPS = 1, 5, 7, 8
H264_WITH_CHROMA_FORMAT = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)
"""Profiles whose sequence parameter set names the format of the colours."""
HEVC_SLICES = range(32)
HEVC_KEY = range(16, 24)
HEVC_CLEAN_KEY = (19, 20)
"""Instantaneous refreshes: nothing behind them is predicted from what was before."""
HEVC_SKIPPED_LEADING = (8, 9)
"""Pictures that are shown before a key frame and predicted from what was before it."""
HEVC_SPS, HEVC_PPS, HEVC_SETS = 33, 34, (32, 33, 34)
AV1_SEQUENCE, AV1_FRAME_HEADER, AV1_FRAME = 1, 3, 6
AV1_KEY, AV1_SWITCH = 0, 3
AV1_STORED_FRAMES = 8
NO_PARAMETERS = "the parameters of the stream have not come"


@dataclass(frozen=True)
class PacketHeader:
    """What the headers of a packet say.

    Attributes:
        is_key: Whether decoding can begin with it.
        is_leading: Whether it is lost where decoding begins with the key frame before it.
        gap: Why a picture must be missing between the packet before and this one, "" where none needs to be.
        order: Place of its picture in the order of display, in units of the stream, from some key frame on; None where
            no number says it.
        size: Width and height in pixels, (0, 0) where no packet has told yet.
        parameter_sets: What a decoder needs before this key frame and the packet lacks, from earlier packets.
    """

    is_key: bool = False
    is_leading: bool = False
    gap: str = ""
    order: int | None = None
    size: tuple[int, int] = (0, 0)
    parameter_sets: bytes = b""


class HeaderReader(Protocol):
    """Reads the packets of one stream in the order of their decoding."""

    @property
    def modulus(self) -> int:
        """The numbers of pictures begin anew after so many: the loss of fewer shows. 0 where there are no numbers."""

    def read(self, data: bytes) -> PacketHeader:
        """Raises InvalidInput for data that are no packet of this codec."""


def header_reader(codec: str) -> HeaderReader:
    """The reader for `h264`, `hevc` or `av1`."""
    readers: dict[str, type[_H264Headers] | type[_HevcHeaders] | type[_Av1Headers]] = {
        "h264": _H264Headers,
        "hevc": _HevcHeaders,
        "av1": _Av1Headers,
    }
    return readers[codec]()


class _Bits:
    """Reads bits from the most significant on. Its methods raise InvalidInput beyond the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        """An unsigned number of so many bits."""
        self._left -= count
        if self._left < 0:
            raise InvalidInput("a video packet is damaged: a header ends early")
        return (self._value >> self._left) & ((1 << count) - 1)

    def flag(self) -> bool:
        """One bit."""
        return bool(self.take(1))

    def golomb(self) -> int:
        """An unsigned Exp-Golomb number."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > MOST_EXP_GOLOMB_ZEROS:
                raise InvalidInput("a video packet is damaged: a number in a header is too long")
        return (1 << zeros) - 1 + self.take(zeros)

    def signed_golomb(self) -> int:
        """A signed Exp-Golomb number."""
        coded = self.golomb()
        return (coded + 1) // 2 if coded % 2 else -(coded // 2)


def _nal_units(data: bytes) -> Iterator[bytes]:
    """The NAL units of a byte stream by Annex B; the start of the slices, parameter sets whole."""
    at = data.find(START_CODE)
    if at < 0 or data[:at].strip(b"\0"):
        raise InvalidInput(f"a video packet of {len(data)} bytes is no byte stream with start codes (Annex B)")
    while at >= 0:
        begin = at + len(START_CODE)
        at = data.find(START_CODE, begin)
        end = len(data) if at < 0 else at
        if end > begin + 1:
            yield data[begin:end]


def _unescaped(nal: bytes, most: int) -> bytes:
    """The payload of a NAL unit without the bytes that keep start codes out of it."""
    return nal[:most].replace(b"\0\0\3", b"\0\0")


@dataclass(frozen=True)
class _H264Sequence:
    """The fields of a sequence parameter set that matter here."""

    frame_num_bits: int
    order_bits: int
    has_planes: bool
    only_frames: bool
    size: tuple[int, int]


class _Order:
    """Makes a picture's order from its last bits, which are all that is sent (H.264 8.2.1, H.265 8.3.1)."""

    def __init__(self) -> None:
        self.newest = 0

    def unwrapped(self, bits: int, count: int, is_first: bool) -> int:
        """The number next to the newest one whose last `count` bits are these."""
        modulus = 1 << count
        ahead = (bits - self.newest + modulus // 2) % modulus - modulus // 2
        self.newest = bits if is_first else self.newest + ahead
        return self.newest


class _H264Headers:
    """H.264: IDR pictures are key frames; `frame_num` rises by one from each reference picture to the next picture."""

    def __init__(self) -> None:
        self.modulus = 16  # the least
        self._sequences: dict[int, _H264Sequence] = {}
        self._sequence_of: dict[int, int] = {}
        self._sets: dict[tuple[int, int], bytes] = {}
        self._reference = -1
        self._field = -1
        self._order = _Order()
        self._placed: int | None = None

    def read(self, data: bytes) -> PacketHeader:
        self._placed = None
        is_key, gap, size, has_sets, has_slice = False, "", (0, 0), False, False
        for nal in _nal_units(data):
            kind, reference = nal[0] & 31, nal[0] >> 5 & 3
            if kind == H264_SPS:
                has_sets = True
                self._keep(nal, kind, *self._read_sequence(nal))
            elif kind == H264_PPS:
                bits = _Bits(_unescaped(nal[1:], PARAMETER_SET_BYTES))
                number = bits.golomb()
                self._sequence_of[number] = bits.golomb()
                self._sets[kind, number] = bytes(nal)
            elif kind in (H264_SLICE, H264_IDR):
                found, size = self._read_slice(nal, kind == H264_IDR, bool(reference))
                has_slice, is_key, gap = True, is_key or kind == H264_IDR, gap or found
        if not has_slice:
            raise InvalidInput(f"a video packet of {len(data)} bytes has no picture of H.264 in it")
        is_key = is_key and size != (0, 0)
        missing = b"".join(b"\0" + START_CODE + nal for nal in self._sets.values()) if is_key and not has_sets else b""
        return PacketHeader(is_key, False, gap, self._placed, size, missing)

    def _keep(self, nal: bytes, kind: int, number: int, sequence: _H264Sequence) -> None:
        self._sequences[number] = sequence
        self._sets[kind, number] = bytes(nal)

    def _read_slice(self, nal: bytes, is_idr: bool, is_reference: bool) -> tuple[str, tuple[int, int]]:
        """Why a reference is missing before this slice, and the size of the picture."""
        bits = _Bits(_unescaped(nal[1:], HEADER_BYTES))
        first, _, picture_set = bits.golomb(), bits.golomb(), bits.golomb()
        sequence = self._sequences.get(self._sequence_of.get(picture_set, -1))
        if sequence is None:
            return NO_PARAMETERS, (0, 0)
        if first:
            return "", sequence.size
        if sequence.has_planes:
            bits.take(2)
        number = bits.take(sequence.frame_num_bits)
        is_field = not sequence.only_frames and bits.flag()
        is_bottom = is_field and bits.flag()
        if is_idr:
            bits.golomb()
        if sequence.order_bits and not is_bottom:
            self._placed = self._order.unwrapped(bits.take(sequence.order_bits), sequence.order_bits, is_idr)
        is_second_field = is_field and number == self._field
        self._field = number if is_field and not is_second_field else -1
        self.modulus = 1 << sequence.frame_num_bits
        expected = (self._reference + 1) % self.modulus
        gap = "" if is_idr or is_second_field or number == expected else f"picture {number} came, not {expected}"
        if is_reference or is_idr:
            self._reference = number
        return gap, sequence.size

    @staticmethod
    def _read_sequence(nal: bytes) -> tuple[int, _H264Sequence]:
        """Number and fields of a sequence parameter set (7.3.2.1.1)."""
        bits = _Bits(_unescaped(nal[1:], PARAMETER_SET_BYTES))
        profile = bits.take(8)
        bits.take(16)
        number, chroma, has_planes = bits.golomb(), 1, False
        if profile in H264_WITH_CHROMA_FORMAT:
            chroma = bits.golomb()
            has_planes = chroma == 3 and bits.flag()
            bits.golomb()
            bits.golomb()
            bits.flag()
            if bits.flag():
                for index in range(12 if chroma == 3 else 8):
                    if bits.flag():
                        _skip_scaling_list(bits, 16 if index < 6 else 64)
        frame_num_bits = bits.golomb() + 4
        order, order_bits = bits.golomb(), 0
        if order == 0:
            order_bits = bits.golomb() + 4
        elif order == 1:
            bits.flag()
            bits.golomb()
            bits.golomb()
            for _ in range(min(bits.golomb(), 255)):
                bits.golomb()
        bits.golomb()
        bits.flag()
        across, down, only_frames = bits.golomb() + 1, bits.golomb() + 1, bits.flag()
        if not only_frames:
            bits.flag()
        bits.flag()
        left, right, top, bottom = (bits.golomb() for _ in range(4)) if bits.flag() else (0, 0, 0, 0)
        if max(frame_num_bits, order_bits) > 16:
            raise InvalidInput("a sequence parameter set of H.264 is damaged")
        unit_x = 2 if chroma in (1, 2) and not has_planes else 1
        unit_y = (2 if chroma == 1 and not has_planes else 1) * (1 if only_frames else 2)
        width = 16 * across - unit_x * (left + right)
        height = 16 * down * (1 if only_frames else 2) - unit_y * (top + bottom)
        return number, _H264Sequence(frame_num_bits, order_bits, has_planes, only_frames, (width, height))


def _skip_scaling_list(bits: _Bits, count: int) -> None:
    last = next_scale = 8
    for _ in range(count):
        if next_scale:
            next_scale = (last + bits.signed_golomb()) % 256
        last = next_scale or last


class _HevcHeaders:
    """H.265: pictures of random access are key frames; the decoder itself knows which references are missing."""

    def __init__(self) -> None:
        self.modulus = 16
        self._size, self._order_bits, self._has_planes = (0, 0), 0, False
        self._order = _Order()
        self._picture_sets: dict[int, tuple[bool, int]] = {}
        self._sets: dict[tuple[int, bytes], bytes] = {}

    def read(self, data: bytes) -> PacketHeader:
        kinds: set[int] = set()
        order: int | None = None
        for nal in _nal_units(data):
            kind = nal[0] >> 1 & 63
            kinds.add(kind)
            if kind in HEVC_SETS:
                if kind == HEVC_SPS:
                    self._read_sequence(nal)
                    self._sets = {key: kept for key, kept in self._sets.items() if key[0] != HEVC_SPS}
                elif kind == HEVC_PPS:
                    self._read_picture_set(nal)
                self._sets[kind, nal[:3]] = bytes(nal)
            elif kind in HEVC_SLICES and nal[2:3] >= b"\x80":
                order = self._read_order(nal, kind)
        slices = kinds.intersection(HEVC_SLICES)
        if not slices:
            raise InvalidInput(f"a video packet of {len(data)} bytes has no picture of H.265 in it")
        is_key = bool(kinds.intersection(HEVC_KEY)) and self._size != (0, 0)
        missing = b""
        if is_key and HEVC_SPS not in kinds:
            missing = b"".join(b"\0" + START_CODE + nal for _, nal in sorted(self._sets.items()))
        return PacketHeader(is_key, bool(slices.intersection(HEVC_SKIPPED_LEADING)), "", order, self._size, missing)

    def _read_picture_set(self, nal: bytes) -> None:
        """Keep of a picture parameter set what lies before the order in a slice (7.3.2.3)."""
        bits = _Bits(_unescaped(nal[2:], PARAMETER_SET_BYTES))
        number = bits.golomb()
        bits.golomb()
        bits.flag()
        self._picture_sets[number] = bits.flag(), bits.take(3)

    def _read_order(self, nal: bytes, kind: int) -> int | None:
        """The order of display in the first slice of a picture (7.3.6.1)."""
        if kind in HEVC_CLEAN_KEY:
            return self._order.unwrapped(0, self._order_bits, True)
        bits = _Bits(_unescaped(nal[2:], HEADER_BYTES))
        bits.flag()
        if kind in HEVC_KEY:
            bits.flag()
        has_output_flag, extra_bits = self._picture_sets.get(bits.golomb(), (False, 0))
        bits.take(extra_bits)
        bits.golomb()
        bits.take(has_output_flag + 2 * self._has_planes)
        return self._order.unwrapped(bits.take(self._order_bits), self._order_bits, False)

    def _read_sequence(self, nal: bytes) -> None:
        """Keep the fields of a sequence parameter set that matter here (7.3.2.2)."""
        bits = _Bits(_unescaped(nal[2:], PARAMETER_SET_BYTES))
        bits.take(4)
        layers = bits.take(3)
        bits.take(1 + 96)
        present = [(bits.flag(), bits.flag()) for _ in range(layers)]
        bits.take(2 * (8 - layers) if layers else 0)
        for has_profile, has_level in present:
            bits.take(88 * has_profile + 8 * has_level)
        bits.golomb()
        chroma = bits.golomb()
        self._has_planes = chroma == 3 and bits.flag()
        width, height = bits.golomb(), bits.golomb()
        left, right, top, bottom = (bits.golomb() for _ in range(4)) if bits.flag() else (0, 0, 0, 0)
        unit_x, unit_y = 2 if chroma in (1, 2) else 1, 2 if chroma == 1 else 1
        bits.golomb()
        bits.golomb()
        self._order_bits = bits.golomb() + 4
        if self._order_bits > 16:
            raise InvalidInput("a sequence parameter set of H.265 is damaged")
        self.modulus = 1 << self._order_bits
        self._size = width - unit_x * (left + right), height - unit_y * (top + bottom)


@dataclass(frozen=True)
class _Av1Sequence:
    """The fields of a sequence header that matter here. Bits of 0: the field is absent; tools of 2: each frame says."""

    size: tuple[int, int]
    is_reduced: bool = False
    has_decoder_model: bool = False
    presentation_bits: int = 0
    frame_id_bits: int = 0
    screen_content: int = 2
    integer_mv: int = 2
    hint_bits: int = 0


class _Av1Headers:
    """AV1: each packet shows one frame, whose `order_hint` is one more than that of the frame shown before."""

    def __init__(self) -> None:
        self._sequence: _Av1Sequence | None = None
        self._stored = b""
        self._stored_hints: list[int | None] = [None] * AV1_STORED_FRAMES
        self._shown: int | None = None

    @property
    def modulus(self) -> int:
        """0 for a stream without order hints."""
        return 0 if self._sequence is None or not self._sequence.hint_bits else 1 << self._sequence.hint_bits

    def read(self, data: bytes) -> PacketHeader:
        is_key, gap, has_sequence, has_frame = False, "", False, False
        for kind, whole, payload in _units(data):
            if kind == AV1_SEQUENCE:
                self._sequence, self._stored = _av1_sequence(payload), whole
                has_sequence = True
            elif kind in (AV1_FRAME_HEADER, AV1_FRAME):
                if self._sequence is None:
                    return PacketHeader(gap=NO_PARAMETERS)
                begins, found = self._read_frame(_Bits(payload[:HEADER_BYTES]), self._sequence)
                is_key, gap, has_frame = is_key or begins, gap or found, True
        if not has_frame or self._sequence is None:
            raise InvalidInput(f"a video packet of {len(data)} bytes has no frame of AV1 in it")
        missing = self._stored if is_key and not has_sequence else b""
        return PacketHeader(is_key, False, gap, None, self._sequence.size, missing)

    def _read_frame(self, bits: _Bits, sequence: _Av1Sequence) -> tuple[bool, str]:
        """Whether decoding can begin with this frame, and why a frame must be missing before it (5.9.2)."""
        kind, is_shown, is_resilient = AV1_KEY, True, True
        if not sequence.is_reduced:
            if bits.flag():
                return False, self._show(self._stored_hints[bits.take(3)], sequence)
            kind, is_shown = bits.take(2), bits.flag()
            if is_shown:
                bits.take(sequence.presentation_bits)
            else:
                bits.flag()
            is_resilient = kind == AV1_SWITCH or (kind == AV1_KEY and is_shown) or bits.flag()
        bits.flag()
        has_screen_content = bits.flag() if sequence.screen_content == 2 else sequence.screen_content
        if has_screen_content and sequence.integer_mv == 2:
            bits.flag()
        bits.take(sequence.frame_id_bits)
        if kind != AV1_SWITCH and not sequence.is_reduced:
            bits.flag()
        hint = bits.take(sequence.hint_bits)
        begins = kind == AV1_KEY and is_shown
        if begins:
            self._stored_hints, self._shown = [hint] * AV1_STORED_FRAMES, hint
            return True, ""
        if kind not in (AV1_KEY, 2) and not is_resilient:
            bits.take(3)
        if sequence.has_decoder_model and bits.flag():
            stored = (1 << AV1_STORED_FRAMES) - 1  # lists of times are in between, which nobody sends: take every place
        else:
            stored = (1 << AV1_STORED_FRAMES) - 1 if kind == AV1_SWITCH else bits.take(AV1_STORED_FRAMES)
        self._stored_hints = [hint if stored >> n & 1 else old for n, old in enumerate(self._stored_hints)]
        return False, self._show(hint, sequence) if is_shown else ""

    def _show(self, hint: int | None, sequence: _Av1Sequence) -> str:
        if not sequence.hint_bits:
            return ""
        expected = None if self._shown is None else (self._shown + 1) % (1 << sequence.hint_bits)
        self._shown = hint
        return "" if hint is not None and hint == expected else f"frame {hint} came, not {expected}"


def _units(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Kind, bytes and payload of each unit of the low-overhead format (5.3)."""
    at = 0
    while at < len(data):
        head, begin = data[at], at
        if head & 0x80 or not head & 2:
            raise InvalidInput(f"a video packet of {len(data)} bytes is no sequence of AV1 units with their sizes")
        at += 2 if head & 4 else 1
        size = 0
        for shift in range(0, 56, 7):
            if at >= len(data):
                raise InvalidInput(f"a video packet of {len(data)} bytes is cut off")
            byte = data[at]
            size, at = size | (byte & 127) << shift, at + 1
            if byte < 128:
                break
        if at + size > len(data):
            raise InvalidInput(f"a video packet of {len(data)} bytes is cut off: {at + size - len(data)} are missing")
        yield head >> 3 & 15, data[begin : at + size], data[at : at + size]
        at += size


def _av1_sequence(payload: bytes) -> _Av1Sequence:
    """The fields of a sequence header (5.5.1)."""
    bits = _Bits(payload[:PARAMETER_SET_BYTES])
    bits.take(3 + 1)
    is_reduced, has_model, removal_bits, presentation_bits = bits.flag(), False, 0, 0
    if is_reduced:
        bits.take(5)
    else:
        if bits.flag():
            bits.take(64)
            is_regular = bits.flag()
            if is_regular:
                bits.golomb()  # uvlc has the same code
            has_model = bits.flag()
            if has_model:
                removal_bits = bits.take(5) + 1
                bits.take(32 + 5)
                frame_bits = bits.take(5) + 1
                presentation_bits = 0 if is_regular else frame_bits
        has_delay = bits.flag()
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.flag()
            if has_model and bits.flag():
                bits.take(2 * removal_bits + 1)
            if has_delay and bits.flag():
                bits.take(4)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    size = bits.take(width_bits) + 1, bits.take(height_bits) + 1
    if is_reduced:
        return _Av1Sequence(size, is_reduced=True)
    frame_id_bits = bits.take(4) + 2 + bits.take(3) + 1 if bits.flag() else 0
    bits.take(3 + 4)
    has_hints = bits.flag()
    if has_hints:
        bits.take(2)
    screen_content = 2 if bits.flag() else bits.take(1)
    integer_mv = 2
    if screen_content:
        integer_mv = 2 if bits.flag() else bits.take(1)
    hint_bits = bits.take(3) + 1 if has_hints else 0
    return _Av1Sequence(size, False, has_model, presentation_bits, frame_id_bits, screen_content, integer_mv, hint_bits)
