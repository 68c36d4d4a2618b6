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

"""Reads the boxes of an answer that is still being written, each as soon as its coordinates are complete."""

from __future__ import annotations

from .answer_places import AnswerBox
from .parsing import parse_answer


class RegionReader:
    """Reads one growing answer. The boxes are those of the one parser, so the whole answer nearly always has them too.

    Nearly, since what follows can change what came before: a list of corners becomes a polygon, coordinates become
    shares of the image. Whoever acts on a box compares it with the whole answer in the end.
    """

    def __init__(self, extent: tuple[float, float], at_most: int) -> None:
        """extent: width and height of the model's coordinates. at_most: boxes that are wanted."""
        self._extent, self._at_most = extent, at_most
        self._brackets = self._read = 0

    def new_boxes(self, text: str) -> tuple[AnswerBox, ...]:
        """The boxes whose coordinates were completed since the last call.

        Args:
            text: All of the answer so far, its forced beginning included.

        Returns:
            In their order; the label of the last one is "" where it is not written yet.
        """
        brackets = text.count("]")
        if brackets <= self._brackets or self._read >= self._at_most:  # fewer: the same answer from its beginning again
            return ()
        self._brackets = brackets
        # Up to the bracket that closes the numbers, and the brace that will close their object.
        boxes = parse_answer(text[: text.rindex("]") + 1] + "}", self._extent).boxes
        if boxes and boxes[-1].corners in [box.corners for box in boxes[:-1]]:
            boxes = boxes[:-1]  # it may get the label of that box, and is then no other one
        new = boxes[self._read : self._at_most]
        self._read = max(self._read, len(boxes))
        return new
