"""What plugs into the loop: a policy that chooses regions, a task model that examines views, a segmenter.

The implementations are in `policies`, `detectors`, `segmenters` and `vlm`, or in anybody's own package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .budget import Budget
from .frame import Frame, View
from .query import Query
from .results import Detection, Findings, Grounding, InstanceMask, Proposal


class SensingPolicy(Protocol):
    """Chooses where to look closer. One instance serves one thread, unless it says that it is `concurrent`.

    `concurrent = True`, where a class has it: several threads may call at once, and it may answer them together.
    """

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        """Width and height at which this policy wants to see a frame of `width` x `height` pixels."""

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        """Up to `budget.max_regions` regions in view pixels, best first.

        Raises UnsupportedQuery if the policy does not understand what is asked.
        """


class TaskModel(Protocol):
    """Examines views. One instance serves one thread, unless it says that it is `concurrent`.

    `concurrent = True`, where a class has it: several threads may call at once, and it may answer them together.
    """

    batch_size: int
    """Views that one call examines together; under a deadline the loop decides anew before every call."""

    def view_size(self, width: float, height: float, max_pixels: int) -> tuple[int, int]:
        """Width and height at which this model wants to see a window of `width` x `height` source pixels."""

    def examine(self, views: Sequence[View], query: Query, budget: Budget) -> list[Findings]:
        """A `Findings` a view, its boxes in the pixels of that view. No views at all: only prepare for the query.

        Raises UnsupportedQuery if the model does not understand what is asked.
        """

    def answer(self, query: Query, looks: Sequence[Findings], groundings: Sequence[Grounding]) -> str | None:
        """The answer to the query from all that was seen, None if it asks for none or none was found."""


class Segmenter(Protocol):
    """Turns detections into instance masks. One instance serves one thread, unless it says that it is `concurrent`."""

    def segment(self, frame: Frame, detections: Sequence[Detection]) -> list[InstanceMask]:
        """One mask for each detection, in the same order; a detection that cannot be separated has none."""
