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

"""CenterNet with 80 COCO classes: a small real detector that runs on a CPU (see `assets.CENTERNET`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from weakref import WeakValueDictionary

import cv2
import numpy as np
import numpy.typing as npt

from ..assets.onnx_session import OnnxSession, Threads
from ..assets.packages import CENTERNET, require
from ..core.frame import Image, InputSize
from ..core.geometry import from_corners
from ..core.results import DetectedBoxes
from ..settings import validated
from .onnx_inputs import fit

INPUT_SIDE_PX = 512
"""Side of the square canvas that is the model's input."""
PADDING_GREY = 114
"""Grey level of the canvas where an image that is not square leaves it empty."""
INPUT_NAME = "tower_0/images"
OUTPUT_NAME = "tower_0/detections"

# fmt: off
COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
# fmt: on
"""Name of each class id."""


_sessions: WeakValueDictionary[tuple[Path, Threads], OnnxSession] = WeakValueDictionary()


class CenterNet:
    """The embedded detector, a `core.interfaces.Detector`; those of one process share the loaded model."""

    label = "embedded"
    names = COCO_CLASSES
    input_size = InputSize(INPUT_SIDE_PX, INPUT_SIDE_PX)
    concurrent = True

    @validated
    def __init__(self, model: Path | None = None, threads: Threads = None) -> None:
        """Load the model, unless another holds it already.

        Args:
            model: The converted .onnx file; None for the prefetched one.
            threads: CPU threads for one run; none for as many as the process may use, at most 4.

        Raises:
            AssetError: The model was not prefetched.
            MissingPackageError: onnxruntime is not installed.
        """
        path = model or require(CENTERNET)
        session = _sessions.get((path, threads))
        if session is None:
            session = _sessions[path, threads] = OnnxSession(path, threads)
        self._session = session

    def detect(self, images: Sequence[Image], threshold: float) -> list[DetectedBoxes]:
        """Detect objects in images, one after the other: a batch takes the CPU as long as its images do.

        An image is scaled so that its longer side is 512 px; one of that size is not resampled. The model has no
        non-maximum suppression: one object can have several boxes.

        Args:
            images: Each `(h, w, 3)` uint8 BGR, of any size.
            threshold: Only boxes with a score above it, 0 to 1.

        Returns:
            At most 100 boxes for each image, in pixels of that image.

        Raises:
            InvalidInput: An array is not such an image.
        """
        return [self._detect(image, threshold) for image in images]

    def _detect(self, image: Image, threshold: float) -> DetectedBoxes:
        canvas, scale = letterbox(image)
        rgb = cv2.cvtColor(canvas, cv2.COLOR_BGR2RGB).astype(np.float32)
        rows = self._session.run({INPUT_NAME: rgb[None]}, [OUTPUT_NAME])[0][0]
        return read_rows(rows, threshold, scale, (image.shape[1], image.shape[0]))


def forget(detector: object) -> None:
    """No longer share the model of a detector that hangs with those that are loaded next; others are left alone."""
    session = getattr(detector, "_session", None)
    for key, shared in list(_sessions.items()):
        if shared is session:
            del _sessions[key]


def letterbox(image: Image) -> tuple[Image, tuple[float, float]]:
    """Scale an image onto the model's square canvas, into its top-left corner.

    Args:
        image: `(h, w, 3)` uint8 BGR.

    Returns:
        The `(512, 512, 3)` uint8 canvas, and canvas pixels per image pixel for x and y.

    Raises:
        InvalidInput: The array is not such an image.
    """
    canvas, placement = fit(image, INPUT_SIDE_PX, INPUT_SIDE_PX, "top_left", PADDING_GREY)
    return canvas, (placement.scale_x, placement.scale_y)


def read_rows(
    rows: npt.NDArray[np.float32], threshold: float, scale: tuple[float, float], size: tuple[int, int]
) -> DetectedBoxes:
    """Read the model's output; rows that are not finite, empty after clipping, or of no known class are left out.

    Args:
        rows: `(n, 6)` x1, y1, x2, y2 in canvas pixels, score, class id.
        threshold: Only rows with a score above it.
        scale: Canvas pixels per image pixel for x and y.
        size: Width and height of the image in pixels, to which boxes are clipped.

    Returns:
        Boxes in pixels of the image.
    """
    finite = rows[np.isfinite(rows).all(axis=1)]
    rows = finite[finite[:, 4] > threshold]
    corners = rows[:, :4].astype(np.float64) / (*scale, *scale)
    corners = np.clip(corners, 0, (*size, *size))
    boxes = from_corners(corners)
    class_ids = rows[:, 5].astype(np.intp)
    valid = (boxes[:, 2:] > 0).all(axis=1) & (class_ids >= 0) & (class_ids < len(COCO_CLASSES))
    order = np.flatnonzero(valid)[np.argsort(-rows[valid, 4], kind="stable")]
    return DetectedBoxes(boxes[order], rows[order, 4], class_ids[order])
