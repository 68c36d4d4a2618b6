"""Streams of video packets as encoders make them, and what an undisturbed decoder shows of each packet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import pytest

from activeo3_ros.codecs.video_packets import VideoPacket
from activeo3_ros.core.frame import Image

os.environ.setdefault("SVT_LOG", "-1")  # else the encoder of AV1 tells its settings
FRAME_ID, START_NS, STEP_NS, GROUP = "optical", 1_700_000_000_000_000_000, 50_000_000, 8
QUIET = "log-level=none"
STREAMS = {
    "h264": ("libx264", "h264", {"bf": "0"}),
    "h264 with B-frames": ("libx264", "h264", {"bf": "3"}),
    "h265": ("libx265", "h265", {"x265-params": f"bframes=0:{QUIET}"}),
    "h265 with B-frames": ("libx265", "hevc", {"x265-params": f"open-gop=0:{QUIET}"}),
    "h265 with open groups": ("libx265", "h265", {"x265-params": QUIET}),
    "av1": ("libsvtav1", "av1", {}),
}
"""FFmpeg's encoder, the name that messages have, and the options of the encoder."""
IN_ORDER = ("h264", "h265", "av1")
"""The streams whose pictures come in the order of their display."""


def picture(number: int, width: int = 128, height: int = 96) -> Image:
    """A moving texture with a block that jumps below a light bar: no two are alike, each is predicted from others."""
    texture = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    image = np.roll(texture.repeat(8, 0).repeat(8, 1), 3 * number, 1).copy()
    top, left = 5 * number % (height - 24), 7 * number % (width - 24)
    image[top : top + 20, left : left + 20] = (10 * number % 256, 40, 31 * number % 256)
    image[:16] = 200  # what the fakes of the node's tests take for no fault
    return image


@lru_cache(maxsize=32)
def stream(
    name: str, count: int = 24, size: tuple[int, int] = (128, 96), first: int = 0, numbered: bool = False
) -> tuple[VideoPacket, ...]:
    """The packets of `STREAMS[name]` in the order of their sending, a key frame every `GROUP`; stamps by display."""
    encoder, codec, options = STREAMS[name]
    try:
        context = av.codec.CodecContext.create(encoder, "w")
    except av.error.FFmpegError:
        pytest.skip(f"this PyAV has no encoder {encoder}")
    context.width, context.height = size
    context.pix_fmt, context.gop_size = "yuv420p", GROUP
    context.time_base, context.framerate = Fraction(1, 20), Fraction(20)
    context.options = options
    packets = []
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(picture(number, *size), format="bgr24")
        frame.pts = number
        packets += context.encode(frame)
    packets += context.encode(None)
    del context
    _take_ordinary_turns()
    return tuple(
        VideoPacket(
            START_NS + (first + packet.pts) * STEP_NS,
            FRAME_ID,
            codec,
            bytes(packet),
            first + packet.pts if numbered else None,
        )
        for packet in packets
    )


def _take_ordinary_turns() -> None:
    """Take back the real-time priority that SVT-AV1 gives the process of a root: it would starve all other tests."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # a thread of the encoder that has ended since
            if os.sched_getscheduler(int(thread.name)) != os.SCHED_OTHER:
                os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))


def shown(packets: Sequence[VideoPacket]) -> dict[int, Image]:
    """What a plain decoder shows of an undisturbed stream, `(h, w, 3)` uint8 BGR by the stamp of the packet."""
    return _shown(tuple(packets))


@lru_cache(maxsize=16)
def _shown(packets: tuple[VideoPacket, ...]) -> dict[int, Image]:
    name = {"h264": "h264", "h265": "hevc", "hevc": "hevc", "av1": "libdav1d"}[packets[0].codec]
    decoder = av.codec.CodecContext.create(name, "r")
    found = {}
    for packet in [*packets, None]:
        given = None
        if packet is not None:
            given = av.Packet(packet.data)
            given.pts = packet.stamp_ns
        for frame in decoder.decode(given):
            found[frame.pts] = frame.to_ndarray(format="bgr24")
    return found
