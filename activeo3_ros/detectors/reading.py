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

"""Reads text in a part of a view so that a wrong reading is rare: legible letters, whole lines, twice the same.

A reader is sure of itself also where it reads a wrong text: a line that a border cuts, a lamp beside digits, letters of
a few pixels. So a part is read twice, with two margins and so at two sizes, and lines on which the readings differ lose
score; `core.evidence` then lets the views of one frame vote.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from ..core.evidence import same_text
from ..core.frame import Image, View
from ..core.geometry import Box, as_array, from_corners, iou, share_inside, to_corners
from .text_reader import TextLine, TextReader
from .vocabulary import Reading

MARGINS = (0.1, 0.3)
"""Margins around an object that are read with it, as shares of its side: its border often cuts letters. The second is
that of the second reading, also around the lines of a view."""
MIN_LETTER_PX = 7.0
"""Height of the lowest line that is believed, in pixels of the view and of the source alike."""
MIN_OBJECT_PX = 14.0
"""The same for an object that is read at all."""
DISAGREEMENT = 0.45
"""Share of its score that a line keeps which one reading of the two has alone, or reads otherwise: too little to be
reported unless another view agrees."""
SAME_LINE_IOU = 0.4
"""Lines of two readings that overlap more are one."""
SHARE_ON_OBJECT = 0.6
"""Share of a line that must lie on an object to be text on it."""
CUT_PX = 1.5
"""A line that ends this close to the border of what was read may go on beyond it."""
MIN_LAMP_PX = 6
"""Diameter of the smallest lamp that is told from text."""
LAMP_TO_LINE = 0.5
"""A disc of at least this share of a line's height is a lamp; a smaller one a full stop."""
LAMP_FILL = (0.70, 0.88)
"""Shares of its bounding box that a disc covers; pi / 4 ideally. Digits and letters cover less, squares more."""
LAMP_ASPECT = 1.3


def read_view(reader: TextReader, view: View, reading: Reading) -> list[TextLine]:
    """Read all text in a view.

    Args:
        reader: Reads one image.
        view: The view.
        reading: "number" keeps only words with a digit.

    Returns:
        Lines in view pixels, the score lower where two readings differ.
    """
    first = _read(reader, view, Box(0.0, 0.0, float(view.width), float(view.height)))
    if not first:
        return []
    around = from_corners([_extent(first)])[0]
    second = _read(reader, view, _with_margin(Box(*around.tolist()), MARGINS[1], view))
    return _believed(first, second, view, reading)


def read_object(reader: TextReader, view: View, box: Box, reading: Reading) -> list[TextLine]:
    """Read the text on an object.

    Args:
        reader: Reads one image.
        view: The view that shows it.
        box: The object, view pixels.
        reading: "number" keeps only words with a digit.

    Returns:
        Lines in view pixels, the score lower where two readings differ.
    """
    if _legible_height(box, view) < MIN_OBJECT_PX:
        return []
    narrow, wide = (_with_margin(box, margin, view) for margin in MARGINS)
    first = _read(reader, view, narrow)
    lines = _believed(first, _read(reader, view, wide), view, reading) if first else []
    inside = share_inside(as_array(Box(*line.box) for line in lines), as_array([narrow]))
    return [line for line, share in zip(lines, inside, strict=True) if share[0] >= SHARE_ON_OBJECT]


def _extent(lines: list[TextLine]) -> npt.NDArray[np.float64]:
    """The corners of the box around all lines."""
    corners = to_corners([line.box for line in lines])
    return np.concatenate([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)])


def _with_margin(box: Box, margin: float, view: View) -> Box:
    """The box with a margin, a share of its side, in whole pixels of the view."""
    border = margin * math.sqrt(box.area)
    around = Box(box.x - border, box.y - border, box.width + 2 * border, box.height + 2 * border)
    return around.snapped(view.width, view.height)


def _legible_height(box: Box, view: View) -> float:
    """The height of a box in pixels of the view or of the source, where there are fewer: zooming adds no detail."""
    return min(1.0, 1.0 / view.zoom) * box.height


def _believed(first: list[TextLine], second: list[TextLine], view: View, reading: Reading) -> list[TextLine]:
    """Lines of two readings, each once: with the mean score where both have it, else with less."""
    overlaps = iou(as_array(Box(*line.box) for line in first), as_array(Box(*line.box) for line in second))
    lines: list[TextLine] = []
    left = set(range(len(second)))
    for index, line in enumerate(first):
        match = max(left, key=lambda other: float(overlaps[index, other]), default=-1)
        if match < 0 or overlaps[index, match] < SAME_LINE_IOU:
            lines.append(replace(line, score=DISAGREEMENT * line.score))
            continue
        left.discard(match)
        again = second[match]
        surer = line if line.score >= again.score else again
        if same_text(line.text, again.text):
            lines.append(replace(surer, score=(line.score + again.score) / 2))
        else:
            lines.append(replace(surer, score=DISAGREEMENT * surer.score))
    lines += [replace(second[other], score=DISAGREEMENT * second[other].score) for other in sorted(left)]
    lines = [line for line in lines if _legible_height(Box(*line.box), view) >= MIN_LETTER_PX]
    if reading == "number":
        lines = [replace(line, text=" ".join(re.findall(r"\S*\d\S*", line.text))) for line in lines]
    return [line for line in sorted(lines, key=lambda line: line.box[1]) if line.text]


def _read(reader: TextReader, view: View, window: Box) -> list[TextLine]:
    """The whole lines in a window of a view, in view pixels, lamps beside them left out."""
    image = np.ascontiguousarray(view.image[window.slices()])
    lines = reader.read(image)
    covered = without_lamps(image, lines)
    if covered is not None:
        lines = reader.read(covered)
    placed = []
    for line in lines:
        x, y, width, height = line.box
        box = Box(x + window.x, y + window.y, width, height)
        if not _is_cut(box, window, view):
            placed.append(replace(line, box=box.as_tuple()))
    return placed


def _is_cut(box: Box, window: Box, view: View) -> bool:
    """Whether a line ends at a border of what was read that is no border of the frame."""
    source, (width, height) = view.window, view.source_size
    return (
        (box.x - window.x < CUT_PX and (window.x > 0 or source.x > 0))
        or (box.y - window.y < CUT_PX and (window.y > 0 or source.y > 0))
        or (window.right - box.right < CUT_PX and (window.right < view.width or source.right < width))
        or (window.bottom - box.bottom < CUT_PX and (window.bottom < view.height or source.bottom < height))
    )


def without_lamps(image: Image, lines: list[TextLine]) -> Image | None:
    """Cover the lit lamps that a reader takes for digits: bright discs about as high as the line that they are in.

    Args:
        image: `(h, w, 3)` uint8 BGR.
        lines: What was read in it.

    Returns:
        The image with those discs in the colour around them, None if there are none.
    """
    if not lines:
        return None
    brightness = np.asarray(image.max(axis=2), np.uint8)
    _, lit = cv2.threshold(brightness, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    _, _, stats, _ = cv2.connectedComponentsWithStats(lit)
    covered = image.copy()
    found = False
    for x, y, width, height, area in stats[1:].tolist():
        if min(width, height) < MIN_LAMP_PX or max(width, height) > LAMP_ASPECT * min(width, height):
            continue
        if not LAMP_FILL[0] <= area / (width * height) <= LAMP_FILL[1]:
            continue
        if not any(_touches(line, x, y, width, height) for line in lines):
            continue
        margin = max(2, round(0.15 * max(width, height)))
        rows, columns = slice(max(0, y - margin), y + height + margin), slice(max(0, x - margin), x + width + margin)
        around: npt.NDArray[np.bool_] = lit[rows, columns] == 0
        if around.any():
            covered[rows, columns] = np.median(image[rows, columns][around], axis=0).astype(np.uint8)
            found = True
    return covered if found else None


def _touches(line: TextLine, x: int, y: int, width: int, height: int) -> bool:
    """Whether a disc is in a line of text and high enough for a digit of it."""
    left, top, line_width, line_height = line.box
    return (
        height >= LAMP_TO_LINE * line_height
        and x < left + line_width
        and x + width > left
        and top < y + height / 2 < top + line_height
    )
