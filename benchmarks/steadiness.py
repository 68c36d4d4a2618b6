"""How steady results are on a video: objects that appear and vanish between neighbouring frames.

    python benchmarks/steadiness.py VIDEO [--first 100 --count 200 --preset embedded --regions 3 --json FILE]

Each row is one way to perceive the same frames: without regions and without a memory, with regions and without a
memory, with both. Two objects of neighbouring frames are the same where their label is and their boxes overlap by an
IoU of at least 0.3, the largest overlap first. That is judged from the boxes alone: the ids of tracks play no part.

    events a frame       objects that have no counterpart in the frame before, and in the frame after
    one-frame tracks     share of the runs of matched objects that are one frame long, those at both ends left out
    objects a frame      reported; in brackets those that no look of the frame showed
    one-frame ids        share of the track ids that one frame alone has, those of the first and last frame left out
    jitter               median change of a box's edges beyond its steady motion, in shares of its side
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from activeo3_ros.core import Box, Budget, Frame, Query, Result, Scene
from activeo3_ros.core.geometry import as_array, to_corners
from activeo3_ros.evaluation.sequence_metrics import neighbours
from activeo3_ros.presets import load_preset

CLASSES = ("person", "bicycle", "car", "motorcycle", "bus", "truck")


@dataclass(frozen=True)
class Steadiness:
    """What the module's docstring explains, for one way to perceive a video."""

    frames: int
    objects_per_frame: float
    carried_per_frame: float
    events_per_frame: float
    tracks: int
    one_frame_tracks: int
    ids: int
    one_frame_ids: int
    jitter: float
    merge_ms: float
    total_ms: float

    @property
    def one_frame_share(self) -> float:
        """Share of the tracks that are one frame long."""
        return self.one_frame_tracks / max(1, self.tracks)


@dataclass
class _Run:
    """One object in neighbouring frames."""

    first: int
    boxes: list[Box]


def judge(results: Sequence[Result]) -> Steadiness:
    """Match the objects of neighbouring frames.

    Args:
        results: Of all frames in order.
    """
    runs: list[_Run] = []
    before: list[_Run] = []
    events = 0
    for number, result in enumerate(results):
        found = result.detections
        pairs = neighbours(results[number - 1].detections, found) if number else []
        continued = {column: before[row] for row, column in pairs}
        events += len(before) + len(found) - 2 * len(pairs) if number else 0
        now = [continued.get(index) or _Run(number, []) for index in range(len(found))]
        for run, detection in zip(now, found, strict=True):
            run.boxes.append(detection.box)
        runs += [run for run in now if run.first == number]
        before = now
    last = len(results) - 1
    short = [run for run in runs if len(run.boxes) == 1 and 0 < run.first < last]
    times = [result.timings_ms for result in results]
    return Steadiness(
        len(results),
        sum(len(result.detections) for result in results) / len(results),
        sum(found.carried for result in results for found in result.detections) / len(results),
        events / max(1, last),
        len(runs),
        len(short),
        *_short_ids(results),
        _jitter(runs),
        float(np.median([time["merge"] + time.get("expect", 0.0) for time in times])),
        float(np.median([time["total"] for time in times])),
    )


def _short_ids(results: Sequence[Result]) -> tuple[int, int]:
    """The number of track ids, and of those that one frame alone has."""
    frames: dict[str, list[int]] = {}
    for number, result in enumerate(results):
        for found in result.detections:
            if found.track_id:
                frames.setdefault(found.track_id, []).append(number)
    return len(frames), sum(len(seen) == 1 and 0 < seen[0] < len(results) - 1 for seen in frames.values())


def _jitter(runs: Sequence[_Run]) -> float:
    """Median over all boxes of the second difference of their edges, in shares of their side."""
    changes = []
    for run in runs:
        if len(run.boxes) >= 3:
            boxes = as_array(run.boxes)
            side = np.sqrt(boxes[1:-1, 2] * boxes[1:-1, 3])
            changes.append(np.abs(np.diff(to_corners(boxes), 2, axis=0)).mean(axis=1) / side)
    return float(np.median(np.concatenate(changes))) if changes else float("nan")


def read_frames(path: Path, first: int, count: int) -> Iterator[Frame]:
    """The frames of a video with stamps by its rate, one after the other."""
    video = cv2.VideoCapture(str(path))
    rate = video.get(cv2.CAP_PROP_FPS) or 25.0
    for number in range(first + count):
        has_image, image = video.read()
        if not has_image:
            break
        if number >= first:
            yield Frame(np.asarray(image, np.uint8), stamp_ns=1 + round(number / rate * 1e9), camera="video")
    video.release()


def measure(
    path: Path, preset: str, regions: int, has_memory: bool, first: int = 0, count: int = 1_000_000
) -> Steadiness:
    """Perceive a video in one way.

    Args:
        path: The video.
        preset: Name or path of the preset.
        regions: To zoom into in each frame.
        has_memory: Whether frames are weighed together.
        first: The first frame.
        count: Frames at most.
    """
    perception = load_preset(preset).build()
    budget = Budget(max_regions=regions, view_pixels=512 * 512, crop_pixels=512 * 512)
    scene = Scene() if has_memory else None
    frames = tqdm(read_frames(path, first, count), unit="frame", leave=False)
    results = [perception.perceive(frame, Query(classes=CLASSES), budget, scene=scene) for frame in frames]
    if not results:
        raise SystemExit(f"{path}: no frames from {first} on")
    failed = next((result for result in results if result.status_message and not result.cost.views), None)
    if failed is not None:
        raise SystemExit(f"{path}: {failed.status_message}")
    return judge(results)


def main() -> None:
    """Measure the three ways, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--preset", default="embedded")
    parser.add_argument("--regions", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    args = parser.parse_args()
    rows = []
    for video in args.videos:
        print(f"{video.name}, {args.preset}")
        print("regions memory  objects (carried)  events  one-frame tracks  one-frame ids   jitter  merge ms  total ms")
        for regions, has_memory in ((0, False), (args.regions, False), (0, True), (args.regions, True)):
            found = measure(video, args.preset, regions, has_memory, args.first, args.count)
            rows.append({"video": video.name, "regions": regions, "memory": has_memory, **asdict(found)})
            short = f"{found.one_frame_tracks} of {found.tracks} ({found.one_frame_share:.0%})"
            ids = f"{found.one_frame_ids} of {found.ids}" if has_memory else "none"
            print(
                f"{regions:7d} {'yes' if has_memory else 'no':>6s}  {found.objects_per_frame:7.2f} "
                f"({found.carried_per_frame:.2f})    {found.events_per_frame:6.2f}  {short:>17s}  {ids:>13s}"
                f"  {found.jitter:7.4f}  {found.merge_ms:8.2f}  {found.total_ms:8.1f}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
