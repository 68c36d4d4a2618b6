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

"""Which pictures a head learns from, and which it is judged by: never two of one scene.

The last part of each source is held out, with a gap before it, so that no picture is judged whose neighbour was
learned from. Photographs have no order that means anything: none is learned from that looks like one that is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from ..core.frame import Image
from .proposals_teacher import LookedPicture

HELD_OUT = 0.2
"""Share of a source's pictures, the last ones, that a head is judged on."""
GAP = 0.05
"""Share of the pictures between those and the ones that it learns from; neither sees them."""
THUMBNAIL_PX = 16
SAME_SCENE = 0.9
"""Correlation of two thumbnails from which their pictures count as one scene."""
FEWEST_LEFT = 0.5
"""Where less of what precedes the gap is left, a source is one scene, of which time alone tells the parts."""

T = TypeVar("T")


def split(things: Sequence[T]) -> tuple[list[T], list[T]]:
    """What is learned from, and the last part, which is held out; those between them belong to neither."""
    held_out = max(1, round(HELD_OUT * len(things)))
    gap = round(GAP * len(things))
    return list(things[: max(0, len(things) - held_out - gap)]), list(things[len(things) - held_out :])


def divided(
    sources: Sequence[Sequence[LookedPicture]],
) -> tuple[list[LookedPicture], list[LookedPicture], int]:
    """Divide the pictures of several sources.

    Args:
        sources: The pictures of each, in the order of time or name.

    Returns:
        Those to learn from, with less share where many look the same; those that are held out; and how many belong to
        neither because they look like one that is held out.
    """
    parts = [split(looked) for looked in sources]
    held_out = [each for _, judged in parts for each in judged]
    photographs = [each.picture for each in held_out if not each.is_frame]
    training: list[LookedPicture] = []
    left_out = 0
    for learned, _ in parts:
        same = looks_like([each.picture for each in learned], photographs)
        other = [each for each, row in zip(learned, same, strict=True) if each.is_frame or not row.any()]
        kept = other if len(other) >= FEWEST_LEFT * len(learned) else learned
        left_out += len(learned) - len(kept)
        training += kept
    alike = looks_like([each.picture for each in training], [each.picture for each in training]).sum(axis=1)
    shares = (1 / np.maximum(1, alike)).tolist()
    return [replace(each, share=share) for each, share in zip(training, shares, strict=True)], held_out, left_out


def looks_like(pictures: Sequence[Image], others: Sequence[Image]) -> npt.NDArray[np.bool_]:
    """`(n, m)` whether pictures show the same scene: their thumbnails, without brightness and contrast, agree."""
    ours, theirs = (
        np.array([_thumbnail(each) for each in group]).reshape(len(group), THUMBNAIL_PX**2)
        for group in (pictures, others)
    )
    return np.asarray(ours @ theirs.T >= SAME_SCENE)


def _thumbnail(picture: Image) -> npt.NDArray[np.float64]:
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA).astype(np.float64).ravel()
    small -= small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1.0))
