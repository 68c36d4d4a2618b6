"""Models that look at one region and say what is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..perception.budget import Budget
from ..perception.frame import Frame, View
from ..perception.query import Query
from ..perception.results import Detection, Grounding, InstanceMask, Look


class TaskModel(Protocol):
    """Examines views. One instance serves one thread, unless it says that it is `concurrent`.

    `concurrent = True`, where a class has it: several threads may call at once, and it may answer them together.
    """

    batch_size: int
    """Views that one call examines together; under a deadline the loop decides anew before every call."""

    def view_size(self, width: float, height: float, max_pixels: int) -> tuple[int, int]:
        """Width and height at which this model wants to see a window of `width` x `height` source pixels."""

    def examine(self, views: Sequence[View], query: Query, budget: Budget) -> list[Look]:
        """One `Look` for each view, its boxes in the pixels of that view. No views at all only prepare for the query.

        Raises UnsupportedQuery if the model does not understand what is asked.
        """

    def answer(self, query: Query, looks: Sequence[Look], groundings: Sequence[Grounding]) -> str | None:
        """The answer to the query from all that was seen, None if it asks for none or none was found."""


class Segmenter(Protocol):
    """Turns detections into instance masks. One instance serves one thread, unless it says that it is `concurrent`."""

    def segment(self, frame: Frame, detections: Sequence[Detection]) -> list[InstanceMask]:
        """One mask for each detection, in the same order; a detection that cannot be separated has none."""
