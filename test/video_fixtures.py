"""Small videos whose frames tell their number."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from activeo3_ros.codecs.video import VideoWriter

WIDTH, HEIGHT = 64, 48
STEP_S = 0.1


def numbered_frame(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A picture with the bits of a number as bright and dark fields in its upper half, a bright left lower corner,
    and noise beside that. Compression and colour conversion leave the fields readable.
    """
    image = np.zeros((height, width, 3), np.uint8)
    noise = np.random.default_rng(number).integers(0, 255, (height - height // 2, width, 1), np.uint8)
    image[height // 2 :] = noise
    for bit in range(8):
        if number >> bit & 1:
            image[: height // 2, bit * width // 8 : (bit + 1) * width // 8] = 255
    image[height // 2 :, : width // 4] = 255
    return image


def number_in(image: np.ndarray) -> int:
    """The number of a frame."""
    height, width = image.shape[:2]
    return sum((image[height // 4, (2 * bit + 1) * width // 16].mean() > 128) << bit for bit in range(8))


def write_video(path: Path, times_s: Sequence[float], width: int = WIDTH, height: int = HEIGHT) -> Path:
    """A video of numbered frames that are shown at these times."""
    with VideoWriter(path) as writer:
        for number, time_s in enumerate(times_s):
            writer.write(numbered_frame(number, width, height), time_s)
    return path


def steady_times(count: int) -> list[float]:
    """Times of frames at 10 Hz."""
    return [number * STEP_S for number in range(count)]


def remux(source: Path, path: Path, created: str = "", **options: str) -> Path:
    """The same packets in a file of another kind, with a time of recording, or with other options of FFmpeg."""
    with av.open(str(source)) as before, av.open(str(path), "w", options=options) as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        if created:
            after.metadata["creation_time"] = created
        for packet in before.demux(before.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                after.mux(packet)
    return path


def with_display_matrix(source: Path, path: Path, a: float, b: float, c: float, d: float) -> Path:
    """The same MP4 with another display matrix, as phones write it."""
    data = bytearray(source.read_bytes())
    at = data.rindex(b"tkhd") + 44  # of the last index: an earlier one is left over from writing
    fixed = [round(65536 * value) for value in (a, b, 0, c, d, 0, 0, 0)]
    data[at : at + 36] = struct.pack(">9i", *fixed, 1 << 30)
    path.write_bytes(data)
    return path


def write_sound(path: Path) -> Path:
    """A second of silence, without any picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut(source: Path, path: Path, share: float) -> Path:
    """The first part of a file."""
    data = source.read_bytes()
    path.write_bytes(data[: round(share * len(data))])
    return path
