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

"""Reads text in an image with rapidocr (PP-OCRv6) on the CPU."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Annotated, Any

import cv2
import numpy as np

from ..assets.onnx_session import ModelError, Threads, default_threads
from ..assets.packages import TEXT_DETECTOR, TEXT_RECOGNISER, require
from ..core.frame import Image, check_image
from ..core.optional import require_package
from ..settings import validated, within

MIN_SIDE_PX = 4
"""Nothing can be read in an image that is smaller than this."""
MAX_SIDE_PX = 2000
"""A larger image is shrunk to this before text is searched in it."""
MAX_ASPECT = 8
"""A longer strip is padded to this, for the text detector enlarges the short side and with it the long one."""


@dataclass(frozen=True)
class TextLine:
    """One line of text.

    Attributes:
        text: The text; "" if it was only located.
        score: The recogniser's confidence, 0 to 1; that of the text detector if it was only located.
        box: x, y, width, height in pixels of the image that was read.
    """

    text: str
    score: float
    box: tuple[float, float, float, float]


class TextReader:
    """The loaded models; one image is read at a time, also when several threads call."""

    @validated
    def __init__(
        self, min_side: Annotated[int, within(32, MAX_SIDE_PX, "pixels")] = 320, threads: Threads = None
    ) -> None:
        """Load the models, which were prefetched or are part of rapidocr: nothing is ever downloaded.

        Args:
            min_side: A smaller image is enlarged until its shorter side has this length before text is searched in it;
                more finds smaller text and takes longer.
            threads: CPU threads; None for `onnx_session.default_threads`.

        Raises:
            MissingPackageError: rapidocr is not installed.
            AssetError: Its models are not those that belong to it.
        """
        rapidocr = require_package("rapidocr", "to read text", TEXT_DETECTOR.requirement)
        self._read = rapidocr.RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.use_cls": False,
                "Global.use_preprocess_img": False,
                "EngineConfig.onnxruntime.intra_op_num_threads": threads or default_threads(),
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                "Det.limit_side_len": min_side,
                # With a path rapidocr neither looks for its models nor downloads them.
                "Det.model_path": str(require(TEXT_DETECTOR)),
                "Rec.model_path": str(require(TEXT_RECOGNISER)),
            }
        )
        self._lock = threading.Lock()
        self.read(np.zeros((min_side, min_side, 3), np.uint8))  # the text detector is loaded at first use

    def read(self, image: Image) -> list[TextLine]:
        """Read the text in an image.

        Args:
            image: `(h, w, 3)` uint8 BGR.

        Returns:
            Its lines from top to bottom, those of one height left to right. Lines with a confidence under 0.5 are left
            out; an image under 4 px a side has none.

        Raises:
            InvalidInput: The array is not such an image.
            ModelError: rapidocr fails.
        """
        output, scale = self._run(image, recognise=True)
        if output is None or output.boxes is None:
            return []
        height, width = image.shape[:2]
        return [
            TextLine(text, float(score), _bounding_box(corners / scale, width, height))
            for text, score, corners in zip(output.txts, output.scores, output.boxes, strict=True)
        ]

    def locate(self, image: Image) -> list[TextLine]:
        """Find where text seems to be, also where it is too small to read.

        Args:
            image: `(h, w, 3)` uint8 BGR.

        Returns:
            Lines with an empty text and the score of the text detector, in the order of `read`.

        Raises:
            InvalidInput: The array is not such an image.
            ModelError: rapidocr fails.
        """
        output, scale = self._run(image, recognise=False)
        if output is None or output.boxes is None:
            return []
        height, width = image.shape[:2]
        return [
            TextLine("", float(score), _bounding_box(corners / scale, width, height))
            for score, corners in zip(output.scores, output.boxes, strict=True)
        ]

    def _run(self, image: Image, recognise: bool) -> tuple[Any, np.ndarray[Any, Any]]:
        """The output of rapidocr, None if the image is too small, and its pixels for one of the image in x and y."""
        check_image(image, "the text reader needs a")
        height, width = image.shape[:2]
        if min(height, width) < MIN_SIDE_PX:
            return None, np.ones(2)
        fitted, scale = _fit(image)
        try:
            with self._lock:
                # rapidocr remembers each of these from one call to the next.
                return self._read(fitted, use_det=True, use_cls=False, use_rec=recognise), scale
        except Exception as error:  # rapidocr has no common class of error
            raise ModelError(f"rapidocr failed on an image of {width} x {height} px: {error}") from error


def _fit(image: Image) -> tuple[Image, np.ndarray[Any, Any]]:
    """The image as the models can take it, and its pixels for one pixel of the original in x and y."""
    height, width = image.shape[:2]
    scale = min(1.0, MAX_SIDE_PX / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size != (width, height):
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    shortest = -(-max(size) // MAX_ASPECT)
    below, right = max(0, shortest - size[1]), max(0, shortest - size[0])
    if below or right:
        image = np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
    return image, np.array([size[0] / width, size[1] / height])


def _bounding_box(corners: np.ndarray[Any, Any], width: int, height: int) -> tuple[float, float, float, float]:
    """x, y, width, height of the upright box around `(4, 2)` corners, clipped to the image."""
    x0, y0 = np.clip(corners.min(axis=0), 0, (width, height)).tolist()
    x1, y1 = np.clip(corners.max(axis=0), 0, (width, height)).tolist()
    return x0, y0, x1 - x0, y1 - y0
