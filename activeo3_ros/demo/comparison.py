"""What three ways to spend a budget find in the same frames, through the same core that the node runs."""

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
"""Preset: what it is called in the table."""


@dataclass(frozen=True)
class MethodOutcome:
    """What one preset made of all frames: totals over the frames, means over the frames, the median time of one."""

    objects: int
    objects_per_frame: float
    views_per_frame: float
    pixels_per_frame: float
    milliseconds_per_frame: float
    failed: int


def compare(
    frames: Callable[[], Iterable[Frame]], query: Query, show: Callable[[int], None]
) -> dict[str, list[Result]]:
    """The results of each of `METHODS` for each frame.

    frames: gives the frames anew each time it is called. show: called with the number of results so far.
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


def outcome(results: Sequence[Result]) -> MethodOutcome:
    """The sum of one preset's results."""
    counts = [len(result.detections) for result in results]
    return MethodOutcome(
        objects=sum(counts),
        objects_per_frame=fmean(counts),
        views_per_frame=fmean(result.cost.views for result in results),
        pixels_per_frame=fmean(result.cost.pixels for result in results),
        milliseconds_per_frame=median(result.timings_ms["total"] for result in results),
        failed=sum(result.status is Status.FAILED for result in results),
    )
