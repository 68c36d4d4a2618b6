"""Policies that look at a small view of the frame and choose the regions to look closer at."""

from __future__ import annotations

from typing import Protocol

from ..perception.budget import Budget
from ..perception.frame import View
from ..perception.query import Query
from ..perception.results import Proposal


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
