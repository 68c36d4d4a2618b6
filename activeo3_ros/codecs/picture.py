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

"""The drawing of a result: regions, masks, boxes and labels over the frame."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ImageFont

from ..core import NO_DETECTION, Box, Detection, Grounding, InstanceMask, Result, Status, Track

Picture = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
"""Blue, green, red."""

REGION_COLOUR: Colour = (255, 255, 255)
DARK: Colour = (24, 20, 18)
STATUS_COLOURS: dict[Status, Colour] = {
    Status.COMPLETE: (24, 20, 18),
    Status.COARSE: (0, 110, 190),
    Status.FAILED: (40, 30, 200),
}
# Okabe and Ito's colours, which stay apart for colour-blind eyes; black and the one closest to white are left out.
PALETTE: tuple[Colour, ...] = (
    (233, 180, 86),
    (0, 159, 230),
    (115, 158, 0),
    (66, 228, 240),
    (167, 121, 204),
    (0, 94, 213),
    (178, 114, 0),
)
COMMON_LABELS = ("car", "person", "truck", "bus", "motorcycle", "bicycle", "traffic light")
"""Labels with a colour of their own; any other gets one by its name, the same in every frame."""

MASK_OPACITY = 0.45
SHADE_OPACITY = 0.35
"""How much the picture is darkened outside the regions."""
TEXT_SHARE = 1 / 60
"""Height of the text as a share of the shorter side, from `MIN_TEXT_PX` up."""
MIN_TEXT_PX = 12
MAX_LABEL_LENGTH = 48
MAX_BANNER_LENGTH = 300
MAX_PAIR_PX = 2560
"""Width of pictures beside one another."""


def draw(image: Picture, result: Result) -> Picture:
    """Draw a result over its frame.

    Line width and text follow the size of the image. A label that finds no room beside its box is left out, the box
    never is. An object without a score shows none. A detection that a grounding is linked to is drawn once, with the
    grounding's label.

    Args:
        image: `(h, w, 3)` uint8 BGR, the frame of the result in any size; coordinates are scaled to it.
        result: Boxes in pixels of the source frame.

    Returns:
        A copy of the image with regions, masks, boxes, labels, scores and the status drawn in.
    """
    height, width = image.shape[:2]
    canvas = np.ascontiguousarray(image).copy()
    scale = width / max(1, result.width), height / max(1, result.height)
    line = max(1, round(min(width, height) / 540))
    text_px = max(MIN_TEXT_PX, round(min(width, height) * TEXT_SHARE))
    labels = Labels(canvas, text_px, line)

    regions = [_corners(region.box, scale) for region in result.regions]
    _shade_outside(canvas, regions)
    for mask in result.masks:
        _tint(canvas, mask, scale)
    for corners in regions:
        _dashed_rectangle(canvas, corners, REGION_COLOUR, line)
    grounded = {grounding.detection for grounding in result.groundings}
    boxes = [
        (_corners(d.box, scale), colour_of(d), caption(d.label, d.score) + _number(d))
        for index, d in enumerate(result.detections)
        if index not in grounded
    ]
    boxes += [
        (
            _corners(g.box, scale),
            _colour_of_grounding(g, result),
            caption(f"“{g.text}”" if g.text else g.phrase, g.score),
        )
        for g in result.groundings
    ]
    for track in result.tracks:
        _tail(canvas, track, scale, line)
    for corners, colour, _ in boxes:
        _rectangle(canvas, corners, colour, line)

    labels.put_banner(_summary(result), STATUS_COLOURS[result.status])
    for corners, _, _ in boxes:
        labels.keep_clear(corners)
    for number, (corners, region) in enumerate(zip(regions, result.regions, strict=True), start=1):
        zoom = f" x{region.zoom:.1f}" if math.isfinite(region.zoom) else ""
        labels.put(corners, f"{number} {caption(region.label, region.score)}{zoom}", REGION_COLOUR)
    for corners, colour, text in sorted(boxes, key=lambda item: -_area(item[0])):
        labels.put(corners, text, colour)
    return canvas


def side_by_side(pictures: Sequence[tuple[str, Picture]], max_width: int = MAX_PAIR_PX) -> Picture:
    """Pictures of one size beside one another, each below its title.

    Args:
        pictures: Title and `(h, w, 3)` uint8 BGR of each, from left to right.
        max_width: Of all of them together, pixels; larger ones are made smaller.

    Returns:
        One picture.
    """
    titled = []
    for title, image in pictures:
        scale = min(1.0, max_width / (len(pictures) * image.shape[1]))
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image, np.uint8)
        text_px = max(MIN_TEXT_PX, round(min(size) * TEXT_SHARE))
        plate = _plate(title, text_px, DARK)[:, : size[0]]
        strip = np.full((plate.shape[0], size[0], 3), DARK, np.uint8)
        strip[:, : plate.shape[1]] = plate
        titled.append(np.vstack([strip, image]))
    return np.asarray(np.hstack(titled), np.uint8)


def caption(label: str, score: float) -> str:
    """`car 0.87`, or only `car` where there is no score."""
    return f"{label} {score:.2f}".strip() if math.isfinite(score) else label


def _summary(result: Result) -> str:
    if result.status is Status.FAILED:
        return f"FAILED: {result.status_message}"
    parts = [result.status.name.lower(), f"{len(result.detections)} found"]
    if result.answer:
        parts.append(f"answer: {result.answer}")
    views = result.cost.views
    parts.append(f"{views} view{'' if views == 1 else 's'}")
    if "total" in result.timings_ms:
        parts.append(f"{result.timings_ms['total']:.0f} ms")
    return " · ".join(parts)


def colour_of(detection: Detection) -> Colour:
    """That of its track, the same in every frame; without one that of its class."""
    return track_colour(detection.track_id) if detection.track_id else _colour(detection.label)


def _number(detection: Detection) -> str:
    """` #12`, the same in every frame, for an object that is followed."""
    return f" #{detection.track_id.rpartition(':')[2]}" if detection.track_id else ""


def track_colour(track_id: str) -> Colour:
    """The colour of a track."""
    return PALETTE[zlib.crc32(track_id.encode()) % len(PALETTE)]


def _colour_of_grounding(grounding: Grounding, result: Result) -> Colour:
    if grounding.detection == NO_DETECTION:
        return _colour(grounding.phrase)
    track_id = result.detections[grounding.detection].track_id
    return track_colour(track_id) if track_id else _colour(grounding.phrase)


def _tail(canvas: Picture, track: Track, scale: tuple[float, float], line: int) -> None:
    """The way that an object took to where it is."""
    if len(track.path) > 1:
        points = np.round(np.array(track.path) * scale).astype(np.int32)
        cv2.polylines(canvas, [points], False, track_colour(track.track_id), line)


def _colour(label: str) -> Colour:
    index = COMMON_LABELS.index(label) if label in COMMON_LABELS else zlib.crc32(label.encode())
    return PALETTE[index % len(PALETTE)]


Corners = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the picture; right and bottom are the last pixels inside."""


def _corners(box: Box, scale: tuple[float, float]) -> Corners:
    left, top = round(box.x * scale[0]), round(box.y * scale[1])
    return left, top, max(left, round(box.right * scale[0]) - 1), max(top, round(box.bottom * scale[1]) - 1)


def _area(corners: Corners) -> int:
    return (corners[2] - corners[0] + 1) * (corners[3] - corners[1] + 1)


def _shade_outside(canvas: Picture, regions: list[Corners]) -> None:
    if not regions:
        return
    inside = [(slice(max(0, t), b + 1), slice(max(0, left), r + 1)) for left, t, r, b in regions]
    kept = [canvas[part].copy() for part in inside]
    np.copyto(canvas, cv2.convertScaleAbs(canvas, alpha=1 - SHADE_OPACITY))
    for part, pixels in zip(inside, kept, strict=True):
        canvas[part] = pixels


def _tint(canvas: Picture, mask: InstanceMask, scale: tuple[float, float]) -> None:
    left, top, right, bottom = _corners(mask.box, scale)
    height, width = canvas.shape[:2]
    if right < 0 or bottom < 0 or left >= width or top >= height or not mask.mask.size:
        return
    inside = cv2.resize(
        mask.mask.astype(np.uint8), (right - left + 1, bottom - top + 1), interpolation=cv2.INTER_NEAREST
    ).astype(bool)
    inside = inside[max(0, -top) : height - top, max(0, -left) : width - left]
    patch = canvas[max(0, top) : bottom + 1, max(0, left) : right + 1]
    tinted = (1 - MASK_OPACITY) * patch[inside] + MASK_OPACITY * np.array(_colour(mask.label))
    patch[inside] = tinted.astype(np.uint8)


def _rectangle(canvas: Picture, corners: Corners, colour: Colour, line: int) -> None:
    """A bright frame around the box with a dark rim on both sides of it; the pixels of the box stay free."""
    _frame(canvas, corners, DARK, 1, line + 2)
    _frame(canvas, corners, colour, 2, line)


def _dashed_rectangle(canvas: Picture, corners: Corners, colour: Colour, line: int) -> None:
    """Bright dashes on a dark frame around the box; the pixels of the box stay free."""
    left, top, right, bottom = corners
    _frame(canvas, corners, DARK, 1, line + 1)
    dash = 8 * line
    for x in range(left, right + 1, 2 * dash):
        for y in (top - line, bottom + 1):
            _fill(canvas, (x, y, min(x + dash, right), y + line - 1), colour)
    for y in range(top, bottom + 1, 2 * dash):
        for x in (left - line, right + 1):
            _fill(canvas, (x, y, x + line - 1, min(y + dash, bottom)), colour)


def _frame(canvas: Picture, corners: Corners, colour: Colour, gap: int, thickness: int) -> None:
    """A frame of a thickness whose inner edge is the `gap`-th pixel outside the corners; 1 is right beside them."""
    left, top, right, bottom = corners[0] - gap, corners[1] - gap, corners[2] + gap, corners[3] + gap
    more = thickness - 1
    _fill(canvas, (left - more, top - more, right + more, top), colour)
    _fill(canvas, (left - more, bottom, right + more, bottom + more), colour)
    _fill(canvas, (left - more, top, left, bottom), colour)
    _fill(canvas, (right, top, right + more, bottom), colour)


def _fill(canvas: Picture, corners: Corners, colour: Colour) -> None:
    """Paint the part of a rectangle that lies in the picture; cv2.rectangle's thick lines are a pixel too thick."""
    left, top, right, bottom = corners
    canvas[max(0, top) : max(0, bottom + 1), max(0, left) : max(0, right + 1)] = colour


def _one_line(text: str, max_length: int = MAX_LABEL_LENGTH) -> str:
    text = " ".join(text.split())
    return text if len(text) <= max_length else text[: max_length - 1] + "…"


class Labels:
    """Writes labels where they hide neither one another nor, if possible, a box."""

    def __init__(self, canvas: Picture, text_px: int, line: int) -> None:
        self._canvas = canvas
        self._text_px = text_px
        self._line = line
        self._taken: list[Corners] = []

    def put_banner(self, text: str, colour: Colour) -> None:
        """A line at the top left, cut to the width of the picture."""
        self._write(_plate(_one_line(text, MAX_BANNER_LENGTH), self._text_px, colour), 0, 0)

    def keep_clear(self, corners: Corners) -> None:
        """Let later labels stay off this box."""
        self._taken.append(corners)

    def put(self, corners: Corners, text: str, colour: Colour) -> None:
        """A label above the box, or below, beside or inside it, wherever there is room first; else none."""
        text = _one_line(text)
        if not text:
            return
        plate = _plate(text, self._text_px, colour)
        height, width = self._canvas.shape[:2]
        left, top, right, bottom = corners
        rim = self._line + 3
        tall, wide = plate.shape[:2]
        for x, y in (
            (left - rim, top - rim - tall),
            (right + rim - wide, top - rim - tall),
            (left - rim, bottom + rim),
            (right + rim - wide, bottom + rim),
            (right + rim, top - rim),
            (left - rim - wide, top - rim),
            (left + rim, top + rim),
            (right - rim - wide, top + rim),
        ):
            spot = (x, y, x + wide - 1, y + tall - 1)
            inside = x >= 0 and y >= 0 and spot[2] < width and spot[3] < height
            if inside and not any(_meet(spot, taken) for taken in self._taken):
                self._write(plate, x, y)
                return

    def _write(self, plate: Picture, x: int, y: int) -> None:
        patch = self._canvas[y : y + plate.shape[0], x : x + plate.shape[1]]
        patch[:] = plate[: patch.shape[0], : patch.shape[1]]
        self._taken.append((x, y, x + plate.shape[1] - 1, y + plate.shape[0] - 1))


def _meet(a: Corners, b: Corners) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


@lru_cache(maxsize=512)
def _plate(text: str, text_px: int, colour: Colour) -> Picture:
    """Text on a filled rectangle, `(h, w, 3)`, dark on a bright colour and bright on a dark one."""
    font = ImageFont.load_default(text_px)
    assert isinstance(font, ImageFont.FreeTypeFont)  # the other kind is for a Pillow built without FreeType
    padding = max(2, text_px // 4)
    ascent, descent = font.getmetrics()
    mask, (_, offset_y) = font.getmask2(text, mode="L", anchor="ls")
    glyphs = np.array(mask, np.float32).reshape(mask.size[1], mask.size[0], 1) / 255
    plate = np.empty((ascent + descent + 2 * padding, glyphs.shape[1] + 2 * padding, 3), np.float32)
    plate[:] = colour
    x, y = padding, padding + ascent + offset_y
    glyphs = glyphs[max(0, -y) : plate.shape[0] - y]
    y = max(0, y)
    patch = plate[y : y + glyphs.shape[0], x : x + glyphs.shape[1]]
    luminance = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2]
    ink = np.array(DARK if luminance > 110 else (255, 255, 255), np.float32)
    patch[:] = patch * (1 - glyphs) + ink * glyphs
    return plate.astype(np.uint8)
