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

"""The bound for a policy with a given task model: the windows in which that model really finds the most true objects.

An object counts by how well it is found, as in AR: by the share of COCO's IoU thresholds that its best box reaches.
Otherwise a policy that goes on zooming would beat the oracle by boxes that fit better.

The oracle is expensive, for it examines a whole pyramid of windows of every frame, and what it sees is kept on disk. An
oracle that knows the boxes alone (`oracle.Oracle`) is no bound: it trusts that whatever is large enough is found.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.budget import Budget
from ..core.frame import GLOBAL_VIEW, Frame, View, fit_within
from ..core.geometry import Box, as_array, iou
from ..core.interfaces import TaskModel
from ..core.query import Query
from ..core.results import Proposal, Region
from .item_files import write_item
from .metrics import COCO_IOUS

SHARES = (1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 8)
"""Widths of the windows, as shares of the frame's longer side; neighbours overlap by half."""
MATCH_IOU = 0.5
MIN_GAIN = 1e-6
Matches = Sequence[tuple[int, float]]
"""Index and IoU of each object that was found."""


@dataclass(frozen=True)
class TrueObject:
    """An object of the ground truth: its category, and its box in source pixels."""

    category: int
    box: Box


class DetectorOracle:
    """Takes windows greedily, each the one in which the task model finds most that was not found as well before.

    Set `frame` and `objects` before each call of `propose`, and `show` where the share of the windows that are
    examined is to be shown.
    """

    def __init__(
        self,
        task: TaskModel,
        category_of: Callable[[str], int | None],
        facts: str = "",
        cache: Path | None = None,
        examine_view: bool = True,
    ) -> None:
        """Choose the model.

        Args:
            task: The task model whose findings count.
            category_of: The category of a detection's label, None for a label that is not judged.
            facts: All that the findings depend on besides frame, query and budget, for the cache.
            cache: Directory for what was found in each window; None keeps it for the last frame alone.
            examine_view: Whether the whole frame is examined besides the regions, so that none is spent on it.
        """
        self.frame = Frame(np.zeros((1, 1, 3), np.uint8))
        self.objects: Sequence[TrueObject] = ()
        self.show: Callable[[float], None] = _show_nothing
        self._task = task
        self._category_of = category_of
        self._facts = facts
        self._cache = cache
        self._examine_view = examine_view
        self._last: tuple[str, list[Matches]] = ("", [])

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return fit_within(width, height, max_pixels)

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        if not self.objects or not budget.max_regions:
            return Proposal(used_view=False)
        windows = self._windows()
        worth = np.zeros((len(windows), len(self.objects)))
        for index, matches in enumerate(self.search(query, budget)):
            for known, overlap in matches:
                worth[index, known] = np.mean(np.array(COCO_IOUS) <= overlap)
        found = worth[0] if self._examine_view else np.zeros(len(self.objects))
        regions: list[Region] = []
        while len(regions) < budget.max_regions:
            gains = np.maximum(worth - found, 0.0).sum(axis=1)
            best = int(np.argmax(gains))
            if gains[best] < MIN_GAIN:
                break
            box = view.from_source([windows[best].as_tuple()])[0]
            regions.append(Region(Box(*box.tolist()), "true objects", float(gains[best])))
            found = np.maximum(found, worth[best])
        return Proposal(tuple(regions), used_view=False)

    def search(self, query: Query, budget: Budget) -> list[Matches]:
        """Examine the pyramid of windows of `frame`, unless that was done before, also for another number of regions.

        Args:
            query: The query.
            budget: Its pixels count, its number of regions does not.

        Returns:
            The true objects that are found in each window, as `matched` gives them; the first is the whole frame.
        """
        if not self.objects:
            return [[] for _ in self._windows()]
        key = self._key(query, budget)
        if self._last[0] == key:
            return self._last[1]
        path = self._cache / f"{key}.json" if self._cache is not None else None
        if path is not None and path.is_file():
            hits: list[Matches] = json.loads(path.read_text(encoding="utf-8"))
        else:
            windows = self._windows()
            hits = []
            for index, window in enumerate(windows):
                hits.append(self._found_in(window, index == 0, query, budget))
                self.show((index + 1) / (len(windows) + 1))
            if path is not None:
                write_item(path, hits)
        self._last = (key, hits)
        return hits

    def _windows(self) -> list[Box]:
        return [self.frame.window, *window_pyramid(self.frame.width, self.frame.height)]

    def _found_in(self, window: Box, is_whole: bool, query: Query, budget: Budget) -> Matches:
        window = window.snapped(self.frame.width, self.frame.height)
        pixels = budget.view_pixels if is_whole else budget.crop_pixels
        size = self._task.view_size(window.width, window.height, pixels)
        view = self.frame.view(window, size, GLOBAL_VIEW if is_whole else 0)
        [findings] = self._task.examine([view], query, budget)
        seen = [
            (finding.score if math.isfinite(finding.score) else 0.0, category, view.box_to_source(finding.box))
            for finding in findings.objects
            if (category := self._category_of(finding.label)) is not None
        ]
        return matched(self.objects, seen)

    def _key(self, query: Query, budget: Budget) -> str:
        digest = hashlib.sha256(self.frame.image.tobytes())
        facts = [
            self._facts,
            query.text,
            query.classes,
            budget.view_pixels,
            budget.crop_pixels,
            SHARES,
            MATCH_IOU,
            "IoU",
        ]
        boxes = [(known.category, known.box.as_tuple()) for known in self.objects]
        digest.update(json.dumps([self.frame.image.shape, facts, boxes]).encode())
        return digest.hexdigest()[:32]


def _show_nothing(share: float) -> None:
    pass


def matched(objects: Sequence[TrueObject], found: Sequence[tuple[float, int, Box]]) -> Matches:
    """Match findings to true objects, the best score first, each with the free object that it overlaps most.

    Args:
        objects: The ground truth.
        found: Score, category and box in source pixels of each finding.

    Returns:
        Index and IoU of the objects that a finding of their category overlaps with an IoU of at least `MATCH_IOU`, by
        index.
    """
    if not objects or not found:
        return []
    overlaps = iou(as_array(box for _, _, box in found), as_array(known.box for known in objects))
    same = np.array([[category == known.category for known in objects] for _, category, _ in found])
    overlaps = np.where(same, overlaps, 0.0)
    hit: dict[int, float] = {}
    for row in sorted(range(len(found)), key=lambda index: -found[index][0]):
        free = [index for index in np.flatnonzero(overlaps[row] >= MATCH_IOU).tolist() if index not in hit]
        if free:
            best = max(free, key=overlaps[row].__getitem__)
            hit[best] = float(overlaps[row, best])
    return sorted(hit.items())


def window_pyramid(width: int, height: int) -> list[Box]:
    """Square windows of several scales that cover a frame, neighbours overlapping by half, in source pixels."""
    windows = []
    for share in SHARES:
        side = share * max(width, height)
        wide, high = min(side, width), min(side, height)
        columns = math.ceil((width - wide) / (side / 2)) + 1
        rows = math.ceil((height - high) / (side / 2)) + 1
        windows += [
            Box(x, y, wide, high)
            for y in np.linspace(0, height - high, rows).tolist()
            for x in np.linspace(0, width - wide, columns).tolist()
        ]
    return windows
