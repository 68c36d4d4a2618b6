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

"""A slow policy beside fast frames: it chooses regions in a thread of its own, while frames are examined with its last
ones, which move with the camera."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from .budget import Budget
from .errors import PerceptionError
from .frame import Frame, View
from .geometry import Box, as_array
from .interfaces import SensingPolicy
from .motion import Motion
from .query import Query
from .results import Proposal, Region

MAX_AGE_S = 60.0
"""A policy that takes longer counts as hung: the frame fails, and says so."""


@dataclass(eq=False)
class _Choice:
    """One call of the policy for one frame; boxes in source pixels move with the camera meanwhile."""

    stamp_ns: int
    motions: list[Motion] = field(default_factory=list)
    proposal: Proposal | None = None
    error: Exception | None = None
    is_done: threading.Event = field(default_factory=threading.Event)

    def run(self, choose: Callable[[], Proposal]) -> None:
        try:
            self.proposal = choose()
        except Exception as error:
            self.error = error
        self.is_done.set()


class BackgroundSensing:
    """Regions for every frame of one camera, chosen by a policy that several threads may call."""

    def __init__(self) -> None:
        self._last: _Choice | None = None
        self.forget()

    def forget(self) -> None:
        """Begin anew: what the policy is choosing meanwhile is for a scene that is gone."""
        self._pending: _Choice | None = None
        self._current: _Choice | None = None
        self._boxes: list[Box] = []

    def propose(
        self, policy: SensingPolicy, frame: Frame, view: View, query: Query, budget: Budget, motion: Motion
    ) -> Proposal:
        """The regions for a frame: those chosen last, where they are now; none before the first choice is made.

        Args:
            policy: Chooses.
            frame: The frame.
            view: The whole of it, as the policy wants to see it.
            query: What it is asked.
            budget: What it may spend.
            motion: Of the camera since the last frame.

        Returns:
            The proposal without findings, for these would be of an older frame; its cost is told once.

        Raises:
            Exception: What the policy raised.
            PerceptionError: The policy has not answered for `MAX_AGE_S`.
        """
        if self._boxes:
            self._boxes = [Box(*row) for row in motion.moved_boxes(as_array(self._boxes)).tolist()]
        pending, is_new = self._pending, False
        if pending is not None:
            pending.motions.append(motion)
            if pending.is_done.is_set():
                self._pending, is_new = None, True
                if pending.error is not None:
                    raise pending.error
                self._take(pending, view)
        # One call at a time, also where the last one is for a scene that is gone: threads must not pile up.
        if self._last is None or self._last.is_done.is_set():
            self._last = self._pending = choice = _Choice(frame.stamp_ns)
            arguments = (lambda: policy.propose(view, query, budget),)
            threading.Thread(target=choice.run, args=arguments, name="sensing", daemon=True).start()
        elif frame.stamp_ns - self._last.stamp_ns > MAX_AGE_S * 1e9:
            raise PerceptionError(f"the policy has not chosen regions for {MAX_AGE_S:.0f} s: it hangs")
        return self._proposal(frame, view, is_new)

    def _take(self, choice: _Choice, view: View) -> None:
        """Regions of an earlier frame, moved to this one."""
        assert choice.proposal is not None
        boxes = view.to_source(as_array(region.box for region in choice.proposal.regions))
        for motion in choice.motions:
            boxes = motion.moved_boxes(boxes)
        self._current, self._boxes = choice, [Box(*row) for row in boxes.tolist()]

    def _proposal(self, frame: Frame, view: View, is_new: bool) -> Proposal:
        if self._current is None or self._current.proposal is None:
            return Proposal(used_view=False)
        chosen = self._current.proposal
        regions: list[Region] = []
        for region, box in zip(chosen.regions, self._boxes, strict=True):
            inside = box.clipped(frame.width, frame.height)
            if inside.width >= 1 and inside.height >= 1:
                regions.append(replace(region, box=Box(*view.from_source([inside.as_tuple()])[0].tolist())))
        return replace(
            chosen,
            regions=tuple(regions),
            findings=None,
            known=(),
            used_view=is_new and chosen.used_view,
            tokens=chosen.tokens if is_new else 0,
            regions_age_ms=(frame.stamp_ns - self._current.stamp_ns) / 1e6,
        )
