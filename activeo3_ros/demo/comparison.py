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

"""Three policies on the same frames, through the same core that the node runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from ..core import Frame, Query, Result, Status
from ..presets import load_preset

METHODS = {
    "full_frame": "the whole frame, seen once",
    "embedded": "the active loop",
    "grid": "a grid of slices",
}
"""Presets, and their names in the table."""


@dataclass(frozen=True)
class MethodOutcome:
    """The sums of one preset over all frames.

    Attributes:
        objects: Detections in all frames; nothing says whether they are right.
        objects_per_frame: Mean.
        views_per_frame: Mean number of views that the models were given.
        pixels_per_frame: Mean number of pixels that the models were given.
        milliseconds_per_frame: Median.
        failed: Frames that failed.
    """

    objects: int
    objects_per_frame: float
    views_per_frame: float
    pixels_per_frame: float
    milliseconds_per_frame: float
    failed: int


def compare(
    frames: Callable[[], Iterable[Frame]], query: Query, show: Callable[[int], None]
) -> dict[str, list[Result]]:
    """Run each of `METHODS` on the same frames.

    Args:
        frames: Gives the frames, anew each time it is called.
        query: The query of every frame.
        show: Called with the number of results so far.

    Returns:
        One result a frame, in their order, by preset.
    """
    results: dict[str, list[Result]] = {name: [] for name in METHODS}
    for name, found in results.items():
        perception = load_preset(name).build()
        for frame in frames():
            if not found:
                perception.perceive(frame, query)  # the first run of a model is slow and says nothing about the others
            found.append(perception.perceive(frame, query))
            show(sum(map(len, results.values())))
    return results


def summarize(results: Sequence[Result]) -> MethodOutcome:
    """Sum up the results of one preset; there must be at least one."""
    counts = [len(result.detections) for result in results]
    return MethodOutcome(
        objects=sum(counts),
        objects_per_frame=fmean(counts),
        views_per_frame=fmean(result.cost.views for result in results),
        pixels_per_frame=fmean(result.cost.pixels for result in results),
        milliseconds_per_frame=median(result.timings_ms["total"] for result in results),
        failed=sum(result.status is Status.FAILED for result in results),
    )
