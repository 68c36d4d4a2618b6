"""How long `activeo3 train proposals --bag` takes for ten minutes of drive, with the options that it has by itself.

    python benchmarks/train_proposals_drive.py VIDEO… [--minutes 10] [--size 1920x1080] [--work DIR]

Writes an MCAP bag of JPEG pictures at 10 Hz from the frames of the videos, again and again until it is long enough,
each time mirrored, shifted or in another light: no picture is there twice, so that none is looked at only once for two.
What is learned from it means little; how long it takes is that of a drive of this length and size.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from replay_ten_minutes import RATE_HZ, write_jpegs

from activeo3_ros.codecs.video import open_video
from activeo3_ros.core.frame import Image

QUALITY = 90


def pictures(videos: list[Path], size: tuple[int, int], count: int) -> Iterator[Image]:
    """`count` pictures of `size`, width and height, no two of them alike."""
    given = 0
    for number in range(count):
        random = np.random.default_rng(number)
        for video in videos:
            with open_video(video) as opened:
                for frame in opened.frames():
                    if given == count:
                        return
                    yield changed(cv2.resize(frame.image, size, interpolation=cv2.INTER_CUBIC), number, random)
                    given += 1


def changed(image: Image, number: int, random: np.random.Generator) -> Image:
    """A picture of the round of this number: mirrored in every second one, shifted by pixels, in another light."""
    mirrored = image[:, ::-1] if number % 2 else image
    shifted = np.roll(mirrored, int(random.integers(-40, 40)), axis=1)
    return np.asarray(np.clip(shifted * random.uniform(0.8, 1.2) + random.uniform(-20, 20), 0, 255), np.uint8)


def main() -> int:
    """Write the bag, train, and give the exit code of the training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--size", default="1920x1080", help="pixels (default: %(default)s)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where bag and head go, and stay (default: nowhere)")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    with tempfile.TemporaryDirectory() as nowhere:
        work = args.work or Path(nowhere)
        work.mkdir(parents=True, exist_ok=True)
        bag = work / "drive.mcap"
        if not bag.is_file():
            write(bag, args.videos, (width, height), round(60 * RATE_HZ * args.minutes))
        begun = time.monotonic()
        command = [sys.executable, "-m", "activeo3_ros.cli", "train", "proposals", "--bag", str(bag)]
        done = subprocess.run([*command, "--out", str(work / "head"), "--force"], check=False)
        print(f"{args.minutes:g} minutes of {args.size} took {(time.monotonic() - begun) / 60:.1f} minutes")
    return done.returncode


def write(bag: Path, videos: list[Path], size: tuple[int, int], count: int) -> None:
    """Write the bag; what is cut off leaves none."""
    unfinished = bag.with_suffix(".part")
    unfinished.unlink(missing_ok=True)
    quality = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    write_jpegs(
        unfinished, (cv2.imencode(".jpg", image, quality)[1].tobytes() for image in pictures(videos, size, count))
    )
    unfinished.rename(bag)


if __name__ == "__main__":
    sys.exit(main())
