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

"""Checks what a detector gives before anything is made of it: somebody else's code must not become a wrong result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.checks import raised
from ..core.errors import ComponentError, PerceptionError
from ..core.frame import Image, View
from ..core.geometry import from_corners, to_corners
from ..core.interfaces import Detector
from ..core.results import DetectedBoxes

TOLERANCE = 1e-3
"""Scores may lie so far outside of 0 to 1, and boxes so many image sides outside of the image; they are clipped."""


def checked(detector: Detector, label: str, views: Sequence[View], threshold: float) -> list[DetectedBoxes]:
    """Run a detector on views, and check what it gives.

    Args:
        detector: The detector.
        label: Its name, for messages.
        views: What to look at. A detector that has a method `detect_views` gets them as they are, since it cuts and
            resizes on its own device; any other gets their images.
        threshold: As `Detector.detect` takes it.

    Returns:
        As `Detector.detect` gives it, boxes and scores clipped where they are off by rounding alone.

    Raises:
        PerceptionError: As the detector raised it.
        ComponentError: The detector raised something else, or gave what is no answer: of another length or shape,
            numbers that are not finite, a score, class or box out of range. The message names the detector.
    """
    answer = given(detector, label, views, threshold)
    return _all_checked(answer, label, [(view.height, view.width) for view in views], len(detector.names))


def given(detector: Detector, label: str, views: Sequence[View], threshold: float) -> Any:
    """What a detector gives for views, as `checked` runs it but not checked yet."""
    detect_views = getattr(detector, "detect_views", None)
    if detect_views is None:
        return _answer(detector, label, lambda: detector.detect([view.image for view in views], threshold))
    return _answer(detector, label, lambda: detect_views(views, threshold))


def checked_images(detector: Detector, label: str, images: Sequence[Image], threshold: float) -> list[DetectedBoxes]:
    """As `checked`, for images: each `(h, w, 3)` uint8 BGR."""
    answer = _answer(detector, label, lambda: detector.detect(images, threshold))
    return _all_checked(answer, label, [image.shape[:2] for image in images], len(detector.names))


def _answer(detector: Detector, label: str, detect: Callable[[], Any]) -> Any:
    try:
        return detect()
    except PerceptionError:
        raise
    except Exception as error:
        raise ComponentError(f"the detector {label!r} raised {raised(error, detector)}") from error


def _all_checked(given: Any, label: str, shapes: Sequence[tuple[int, ...]], names: int) -> list[DetectedBoxes]:
    try:
        if len(given) != len(shapes):
            raise ValueError(f"{len(given)} results for {len(shapes)} images")
        return [_checked(each, shape, names) for each, shape in zip(given, shapes, strict=True)]
    except (TypeError, ValueError, AttributeError) as error:
        raise ComponentError(f"the detector {label!r} gave no valid result: {error}") from error


def _checked(given: Any, shape: tuple[int, ...], names: int) -> DetectedBoxes:
    """One result for an image of `shape` height and width. Raises ValueError for what is wrong."""
    height, width = shape
    boxes, scores = np.asarray(given.boxes, np.float64), np.asarray(given.scores, np.float32)
    class_ids, masks = np.asarray(given.class_ids), getattr(given, "masks", None)
    count = len(scores)
    parts: dict[str, tuple[npt.NDArray[Any], tuple[int, ...]]] = {
        "boxes": (boxes, (count, 4)),
        "scores": (scores, (count,)),
        "class_ids": (class_ids, (count,)),
    }
    if masks is not None:
        parts["masks"] = np.asarray(masks), (count, height, width)
    for name, (array, expected) in parts.items():
        if array.shape != expected and not (count == 0 and array.size == 0):
            raise ValueError(f"{name} of shape {array.shape} where {expected} belongs")
    if count == 0:
        empty = None if masks is None else np.zeros((0, height, width), bool)
        return DetectedBoxes(np.zeros((0, 4)), np.zeros(0, np.float32), np.zeros(0, np.intp), empty)
    if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
        raise ValueError("a box or score that is no finite number")
    if scores.min() < -TOLERANCE or scores.max() > 1 + TOLERANCE:
        raise ValueError(f"scores from {scores.min():.3g} to {scores.max():.3g}; they must be from 0 to 1")
    if not np.issubdtype(class_ids.dtype, np.integer):
        raise ValueError(f"class_ids of type {class_ids.dtype}; they must be whole numbers")
    if class_ids.min() < 0 or class_ids.max() >= names:
        raise ValueError(f"class ids from {class_ids.min()} to {class_ids.max()} with {names} names")
    if boxes[:, 2:].min() < 0:
        raise ValueError("a box of negative width or height; boxes are x, y, width, height")
    corners, size = to_corners(boxes), np.array([width, height, width, height], np.float64)
    if (corners < -TOLERANCE * size).any() or (corners > (1 + TOLERANCE) * size).any():
        worst = int(np.argmax(np.maximum(-corners, corners - size).max(axis=1)))
        row = boxes[worst].round(1).tolist()
        raise ValueError(f"the box {row} outside of its image of {width} x {height} px")
    outside = np.any((corners < 0) | (corners > size), axis=1, keepdims=True)
    boxes = np.where(outside, from_corners(np.clip(corners, 0, size)), boxes)
    order = np.argsort(-scores, kind="stable")
    return DetectedBoxes(
        boxes[order],
        np.clip(scores, 0, 1)[order],
        class_ids.astype(np.intp)[order],
        None if masks is None else _ordered(np.asarray(masks), order),
    )


def _ordered(masks: npt.NDArray[Any], order: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """The masks in an order; not copied where they have it already: those of one image may take 100 MB."""
    ordered = masks if (order == np.arange(len(order))).all() else masks[order]
    return ordered.astype(bool, copy=False)
