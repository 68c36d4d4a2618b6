"""The share of a frame's time that the core spends outside its models.

    python benchmarks/core_overhead.py [--frames 20]

Runs the embedded preset on 1080p frames cut from the demo's motorway picture, and times every call of a model inside.
The rest is resizing, choosing windows, suppression and merging; its floor is 0.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import cv2
import numpy as np

from activeo3_ros.assets.onnx_session import OnnxSession
from activeo3_ros.assets.packages import MOTORWAY_PICTURE, require
from activeo3_ros.core import Budget, Frame, Query
from activeo3_ros.presets import load_preset

QUERY = Query(classes=("car", "truck", "bus", "motorcycle"))


class ModelClock:
    """Adds up the time of every call of an ONNX model in this process."""

    def __init__(self) -> None:
        self.milliseconds = 0.0
        run = OnnxSession.run

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return run(*args, **kwargs)
            finally:
                self.milliseconds += (time.perf_counter() - start) * 1e3

        OnnxSession.run = timed  # type: ignore[method-assign]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20)
    arguments = parser.parse_args()
    picture = cv2.imread(str(require(MOTORWAY_PICTURE)))
    frame = Frame(np.asarray(cv2.resize(picture, (1920, 1080), interpolation=cv2.INTER_CUBIC), np.uint8))
    perception = load_preset("embedded").build()
    perception.perceive(frame, QUERY)
    clock = ModelClock()
    print(f"{'regions':>7} {'frame ms':>9} {'models ms':>9} {'outside ms':>10} {'outside':>7}   of that, ms")
    for regions in (0, 3, 7):
        totals, outside, stages = [], [], []
        for _ in range(arguments.frames):
            clock.milliseconds = 0.0
            result = perception.perceive(frame, QUERY, Budget(max_regions=regions))
            totals.append(result.timings_ms["total"])
            outside.append(result.timings_ms["total"] - clock.milliseconds)
            stages.append([result.timings_ms[name] for name in ("view", "crop", "merge")])
        total, rest = float(np.median(totals)), float(np.median(outside))
        view, crop, merge = np.median(stages, axis=0)
        print(
            f"{regions:>7} {total:>9.1f} {total - rest:>9.1f} {rest:>10.1f} {rest / total:>6.1%}"
            f"   view {view:.1f}, crop {crop:.1f}, merge {merge:.1f}"
        )


if __name__ == "__main__":
    main()
