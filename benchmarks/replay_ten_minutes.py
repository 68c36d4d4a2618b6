"""The cost of replaying ten minutes of 1080p: memory, the share of reading, the same hash after a kill.

    python benchmarks/replay_ten_minutes.py [--minutes 10] [--every 20] [--keep DIR]

Writes an MCAP bag of JPEG pictures at 10 Hz (about 2 GB) of a camera that pans over a photograph, then runs
`activeo3 replay` with the embedded preset three times: whole, whole again, and killed half-way and resumed. The models
alone are measured beside it, by a replay of a single frame of 64 x 48 px.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from activeo3_ros.assets.packages import MOTORWAY_PICTURE, require
from activeo3_ros.bags.messages import COMPRESSED_TYPE
from activeo3_ros.bags.writing import BagWriter
from activeo3_ros.codecs.image_files import read_image
from activeo3_ros.codecs.result_cdr import typestore
from activeo3_ros.demo.camera_path import film

RATE_HZ = 10
DISTINCT = 60
"""Pictures that are encoded; the bag repeats them."""
TOPIC = "/camera/image_raw/compressed"
START_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Run:
    """One replay: its hash, the share of reading in percent, seconds, and the most memory that it had, in MB."""

    sha256: str
    reading_percent: float
    seconds: float
    peak_mb: float


def compressed(jpeg: bytes, stamp_ns: int) -> bytes:
    """A `sensor_msgs/CompressedImage` in CDR."""
    types = typestore().types
    stamp = types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera_optical_frame")
    message = types[COMPRESSED_TYPE](header=header, format="jpeg", data=np.frombuffer(jpeg, np.uint8))
    return bytes(typestore().serialize_cdr(message, COMPRESSED_TYPE))


def write_bag(path: Path, size: tuple[int, int], count: int) -> None:
    """Write `count` pictures of `size` (width, height)."""
    picture = read_image(require(MOTORWAY_PICTURE))
    jpegs = [cv2.imencode(".jpg", image)[1].tobytes() for image in film(picture, min(DISTINCT, max(2, count)), size)]
    write_jpegs(path, (jpegs[number % len(jpegs)] for number in range(count)))


def write_jpegs(path: Path, jpegs: Iterable[bytes]) -> None:
    """Write a bag of pictures at `RATE_HZ`."""
    with BagWriter(path) as writer:
        writer.add_topic(TOPIC, COMPRESSED_TYPE)
        for number, jpeg in enumerate(jpegs):
            stamp = START_NS + number * 10**9 // RATE_HZ
            writer.write(TOPIC, stamp, compressed(jpeg, stamp))


def replay(bag: Path, out: Path, *options: str, kill_at: int = 0) -> Run:
    """Run the command; with `kill_at` kill it once it has written so many results."""
    command = [sys.executable, "-m", "activeo3_ros.cli", "replay", str(bag), "--out", str(out), *options]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        while kill_at and child.poll() is None:
            if out.exists() and out.read_bytes().count(b"camera_optical_frame") >= kill_at:
                child.send_signal(signal.SIGKILL)
                break
            time.sleep(0.5)
        assert child.stdout is not None
        printed = child.stdout.read()
        _, _, usage = os.wait4(child.pid, 0)
        child.returncode = 0
    share = re.search(r"([\d.]+) % of it reading", printed)
    return Run(
        printed.rpartition("without times: ")[2].strip(),
        float(share.group(1)) if share else float("nan"),
        time.perf_counter() - start,
        usage.ru_maxrss / 1024,
    )


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=int, default=20, help="frames of which one is perceived")
    parser.add_argument("--keep", type=Path, help="directory for the bags (default: a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = args.keep or Path(temporary)
        bag, frames = directory / "camera.mcap", round(args.minutes * 60 * RATE_HZ)
        write_bag(bag, (1920, 1080), frames)
        write_bag(directory / "one.mcap", (64, 48), 1)
        print(f"bag: {frames} frames of 1920 x 1080, {bag.stat().st_size / 1e9:.2f} GB", flush=True)
        models = replay(directory / "one.mcap", directory / "one-result.mcap")
        every = ("--every", str(args.every))
        first = replay(bag, directory / "1.mcap", *every)
        print(f"first: {first}", flush=True)
        second = replay(bag, directory / "2.mcap", *every)
        print(f"second: {second}", flush=True)
        replay(bag, directory / "3.mcap", *every, kill_at=frames // args.every // 2)
        third = replay(bag, directory / "3.mcap", *every, "--resume")
        print(f"resumed: {third}")
        print(f"memory beyond the models: {max(first.peak_mb, second.peak_mb) - models.peak_mb:.0f} MB")
        print(f"reading and decoding: {first.reading_percent} % of the time")
        print(f"same hash: {first.sha256 == second.sha256 == third.sha256 != ''}")


if __name__ == "__main__":
    main()
