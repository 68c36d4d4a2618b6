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

"""Checks what a policy, a task model or a segmenter gives: it may be anybody's, and a wrong answer fails the frame.

A detector's answer is checked in `detectors.checks`, before it becomes findings.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ComponentError, PerceptionError
from .frame import Frame, View
from .geometry import as_array, to_corners
from .results import Detection, Finding, Findings, InstanceMask, Proposal


@contextmanager
def blamed(kind: str, component: object) -> Iterator[None]:
    """Name a component in the error that its code raises in the block, unless it was raised on purpose.

    Args:
        kind: "policy", "task model" or "segmenter".
        component: Its instance.
    """
    try:
        yield
    except PerceptionError:
        raise
    except Exception as error:
        raise ComponentError(f"the {kind} {type(component).__name__} raised {raised(error, component)}") from error


def raised(error: Exception, component: object) -> str:
    """What a component's code raised, in one line.

    Args:
        error: Raised, and caught.
        component: The component, or its class.

    Returns:
        Type and message, and the last line of the component's own file that it passed, of any file if none, such as
        "KeyError: 'anchors' (gizmos.py, line 12)".
    """
    own_file = getattr(sys.modules.get(component.__module__), "__file__", None)
    lines = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    file, line = next((each for each in reversed(lines) if each[0] == own_file), lines[-1])
    message = " ".join(str(error).split())
    return f"{type(error).__name__}{f': {message}' if message else ''} ({Path(file).name}, line {line})"


def check_size(size: Any, kind: str, component: object) -> tuple[int, int]:
    """A size that `view_size` gave, if it is one. Raises ComponentError if not."""
    if not (isinstance(size, Sequence) and len(size) == 2 and all(isinstance(n, int | np.integer) for n in size)):
        raise _wrong(kind, component, f"the view size {size!r}; it is two whole numbers of pixels")
    if min(size) < 1:
        raise _wrong(kind, component, f"the view size {size!r}; it is at least 1 x 1 px")
    return int(size[0]), int(size[1])


def check_proposal(proposal: Any, view: View, component: object) -> Proposal:
    """A policy's answer, if it is one. Raises ComponentError if not."""
    if not isinstance(proposal, Proposal):
        raise _wrong("policy", component, f"{type(proposal).__name__} instead of a Proposal")
    boxes = as_array(region.box for region in proposal.regions)
    _check_finite(boxes, "policy", component)
    corners = to_corners(boxes)
    outside = (corners[:, 2:] <= 0).any(axis=1) | (corners[:, :2] >= (view.width, view.height)).any(axis=1)
    wrong = np.flatnonzero(outside | (boxes[:, 2:] <= 0).any(axis=1))
    if wrong.size:
        size = f"{view.width} x {view.height} px"
        raise _wrong("policy", component, f"the region {boxes[wrong[0]].tolist()} (x, y, width, height) in {size}")
    if proposal.findings is not None:
        check_findings([proposal.findings], 1, "policy", component)
    return proposal


def check_findings(findings: Any, views: int, kind: str, component: object) -> list[Findings]:
    """The findings in so many views, if they are that. Raises ComponentError if not."""
    if not isinstance(findings, Sequence) or not all(isinstance(each, Findings) for each in findings):
        raise _wrong(kind, component, f"{type(findings).__name__} instead of a list of Findings")
    if len(findings) != views:
        raise _wrong(kind, component, f"{len(findings)} findings for {views} views")
    found = [each for of_view in findings for each in of_view.objects]
    _check_finite(as_array(each.box for each in found), kind, component)
    scores = np.array([each.score for each in found], np.float64)
    wrong = scores[(scores < 0) | (scores > 1)]
    if wrong.size:
        raise _wrong(kind, component, f"the score {wrong[0]:g}; it is from 0 to 1, or NaN for none")
    return list(findings)


def check_mask(finding: Finding, view: View, component: object) -> npt.NDArray[np.bool_]:
    """The mask of a finding in a view, if it is one. Raises ComponentError if not."""
    mask, place = np.asarray(finding.mask), finding.box.snapped(*view.size)
    if mask.dtype != np.bool_ or mask.shape != (int(place.height), int(place.width)):
        wrong = f"a mask {mask.dtype} {mask.shape} for a box of {place.width:g} x {place.height:g} px"
        raise _wrong("task model", component, wrong)
    return mask


def check_masks(
    masks: Any, frame: Frame, detections: Sequence[Detection], component: object
) -> tuple[InstanceMask, ...]:
    """A segmenter's answer, if it is one. Raises ComponentError if not."""
    if not isinstance(masks, Sequence) or not all(isinstance(each, InstanceMask) for each in masks):
        raise _wrong("segmenter", component, f"{type(masks).__name__} instead of a list of InstanceMasks")
    for each in masks:
        box, mask = each.box, np.asarray(each.mask)
        if mask.dtype != np.bool_ or mask.shape != (round(box.height), round(box.width)):
            wrong = f"a mask {mask.dtype} {mask.shape} for a box of {box.width:g} x {box.height:g} px"
            raise _wrong("segmenter", component, wrong)
        if min(box.x, box.y) < 0 or box.right > frame.width or box.bottom > frame.height:
            raise _wrong("segmenter", component, f"a mask at {box.as_tuple()} in {frame.width} x {frame.height} px")
        if not -1 <= each.detection < len(detections):
            raise _wrong("segmenter", component, _no_such(each.detection, len(detections)))
    return tuple(masks)


def _no_such(index: int, count: int) -> str:
    return f"the index {index}: InstanceMask.detection must be -1 (none) or an index into the {count} detections"


def _check_finite(boxes: Any, kind: str, component: object) -> None:
    if not np.isfinite(boxes).all():
        raise _wrong(kind, component, "a box whose coordinates are not finite numbers")


def _wrong(kind: str, component: object, given: str) -> ComponentError:
    return ComponentError(f"the {kind} {type(component).__name__} gave {given}")
