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

"""Parses the answers of language models: the one parser for sensing, tasks, benchmarks and rewards.

Total and linear: any text gives an `Answer`, never an exception, in time proportional to its length. Models are asked
for JSON and mostly write it. Errors are repaired where only one reading is possible, left out where several are, and
named in `repairs` either way. Numbers that a model writes as its own confidence are not read: they are text,
no probabilities.

There is no grammar, for a broken document follows none. `answer_tree` reads a tree from any text, and `answer_places`
finds in it the boxes, points and words; this module takes tags apart and settles coordinates.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from typing import Any

from .answer_places import AnswerBox, AnswerPlaces, AnswerPoint
from .answer_tree import Span

MAX_STRICT_LENGTH = 200_000
"""A longer answer is no longer tried as one JSON document; its boxes are read all the same."""
SHARES = (-0.5, 1.5)
"""Coordinates that are shares of the image where all of them are within it: a model may be slightly beyond 0 to 1."""
MAX_ITEMS = 1000
"""Boxes, and points, kept from one answer: a model that repeats itself must not flood the stages after it."""

_TAG = re.compile(r"<\s{0,4}(/?)\s{0,4}(think|answer)\s{0,4}>", re.IGNORECASE)
_FENCE = re.compile(r"\A\s*```[a-z0-9]{0,16}[ \t]*\n(.*?)(?:\n[ \t]*```\s*)?\Z", re.IGNORECASE | re.DOTALL)
_NO_END = "the answer has no end"


@dataclass(frozen=True)
class Answer:
    """The content of a text.

    Attributes:
        boxes: in their order, each once.
        points: in their order, each once.
        reasoning: the text between the `<think>` tags.
        text: the answer part, without tags.
        words: the answer in words, from an "answer" entry or, where nothing is structured, all of the answer part.
        words_spans: of those words in the text.
        valid_json: whether the answer part is one JSON document.
        well_formed: whether it is one list of objects, and both pairs of tags are there, in order, around the reasoning
            and around it.
        repairs: for people, each kind of repair or omission once.
        unread: whether entries were there that could not be read.
    """

    boxes: tuple[AnswerBox, ...] = ()
    points: tuple[AnswerPoint, ...] = ()
    reasoning: str = ""
    text: str = ""
    words: str = ""
    words_spans: tuple[Span, ...] = ()
    valid_json: bool = False
    well_formed: bool = False
    repairs: tuple[str, ...] = ()
    unread: bool = False

    @property
    def says_where(self) -> bool:
        """Whether the text is about places at all.

        An empty JSON list is: it says that there are none. Prose is not, nor are entries that could not be read.
        """
        if self.boxes or self.points:
            return True
        return self.valid_json and not self.unread and self.text.endswith(("]", "}", "```"))


def parse_answer(text: str, extent: tuple[float, float] | None = None) -> Answer:
    """Parse any text that a model wrote; never raises.

    Args:
        text: of any length; the time is proportional to it.
        extent: width and height of the model's coordinates: boxes are clipped to them and left out where nothing
            remains, points outside are left out. None keeps both as they stand.
    """
    repairs: dict[str, None] = {}
    document, is_json = _as_json(text)
    # In a text that is JSON as a whole, tags are just words.
    start, end, reasoning, tagged = (0, len(text), "", False) if is_json else _split(text, repairs)
    body = text[start:end]
    scan = AnswerPlaces(text, start, end, extent, repairs)
    if not is_json:
        document, is_json = _as_json(body)
    if is_json:
        repairs.pop(_NO_END, None)  # an engine may stop as soon as the document is complete
    words, words_spans = scan.words, scan.words_spans
    if is_json:
        if isinstance(document, (str, int, float)) and not isinstance(document, bool):
            words, words_spans = str(document), ((start, end),)
    elif scan.structured or "{" in body or "[" in body:
        repairs["the answer is not valid JSON"] = None
    elif body.strip():
        words, words_spans = _unfenced(body).strip(), ((start, end),)
    listed = isinstance(document, list) and all(isinstance(item, dict) for item in document)
    found = _without_shares(scan.boxes, scan.points, extent, repairs)
    boxes = _settled_boxes(found[0], extent, repairs)
    points = _settled_points(found[1], extent, repairs)
    well_formed = tagged and is_json and listed
    return Answer(
        boxes, points, reasoning, body.strip(), words, words_spans, is_json, well_formed, tuple(repairs), scan.unread
    )


def _split(text: str, repairs: dict[str, None]) -> tuple[int, int, str, bool]:
    """Start and end of the answer part, the reasoning, and whether both pairs of tags stand there in order.

    The first `<answer>` after the reasoning counts, up to its first `</answer>`: where a model is stopped as soon as
    its answer is complete, nothing follows, and where it is not, what follows repeats or contradicts.
    """
    tags = [(match[2].lower() if not match[1] else "/" + match[2].lower(), match) for match in _TAG.finditer(text)]
    think = next((match for name, match in tags if name == "think"), None)
    thought = next((match for name, match in tags if name == "/think"), None)
    rest = thought.end() if thought else 0
    begin = next((match for name, match in tags if name == "answer" and match.start() >= rest), None)
    if think is not None and begin is not None and thought is None and begin.start() < think.start():
        think = None  # an answer that came first: what follows is not its reasoning
    reasoning = ""
    if think is not None or thought is not None:
        stop = thought.start() if thought else (begin.start() if begin else len(text))
        first = think.end() if think is not None and think.end() <= stop else 0
        reasoning = text[first:stop].strip()
        if think is None or think.end() > stop or thought is None:
            repairs["the tags around the reasoning are incomplete"] = None
        if begin is None:
            repairs["there is no <answer>"] = None
            # Reasoning that never ended is no answer, whatever numbers it thinks about.
            return (rest, len(text), reasoning, False) if thought else (len(text), len(text), reasoning, False)
    if begin is None:
        return 0, len(text), reasoning, False
    closing = next((match for name, match in tags if name == "/answer" and match.start() >= begin.end()), None)
    if closing is None:
        repairs[_NO_END] = None
    end = closing.start() if closing else len(text)
    tagged = think is not None and thought is not None and think.end() <= thought.start() and closing is not None
    return begin.end(), end, reasoning, tagged


def _unfenced(body: str) -> str:
    """The text inside a ``` fence that surrounds it, if one does; the closing one may be missing."""
    fenced = _FENCE.match(body)
    return fenced[1] if fenced else body


def _as_json(body: str) -> tuple[Any, bool]:
    """The answer part as one JSON document, and whether it is one."""
    if len(body) > MAX_STRICT_LENGTH:
        return None, False
    try:
        return json.loads(_unfenced(body), parse_constant=_refuse), True
    except (ValueError, RecursionError):
        return None, False


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _without_shares(
    boxes: list[AnswerBox], points: list[AnswerPoint], extent: tuple[float, float] | None, repairs: dict[str, None]
) -> tuple[list[AnswerBox], list[AnswerPoint]]:
    """Coordinates from 0 to 1 as the model's own: they are shares of the image, not the first pixel of it."""
    if extent is None or min(extent) <= 2:
        return boxes, points
    low, high = SHARES
    shares = [all(low <= value <= high for value in box.corners) for box in boxes]
    values = [value for box in boxes for value in box.corners] + [value for point in points for value in point.point]
    if values and all(low <= value <= high for value in values) and any(value % 1 for value in values):
        repairs["coordinates from 0 to 1 were read as shares of the image"] = None
        width, height = extent
        return [
            replace(
                box,
                corners=(
                    box.corners[0] * width,
                    box.corners[1] * height,
                    box.corners[2] * width,
                    box.corners[3] * height,
                ),
            )
            for box in boxes
        ], [replace(point, point=(point.point[0] * width, point.point[1] * height)) for point in points]
    if any(shares):
        repairs["a box of coordinates from 0 to 1 was left out: pixels or shares of the image"] = None
    return [box for box, share in zip(boxes, shares, strict=True) if not share], points


def _settled_boxes(
    found: list[AnswerBox], extent: tuple[float, float] | None, repairs: dict[str, None]
) -> tuple[AnswerBox, ...]:
    """The boxes with ordered corners, inside the extent, each once."""
    settled: dict[tuple[tuple[float, ...], str], AnswerBox] = {}
    for box in found:
        if not all(map(math.isfinite, box.corners)):
            repairs["a box without finite numbers was left out"] = None
            continue
        x1, y1, x2, y2 = box.corners
        if x1 > x2 or y1 > y2:
            repairs["the corners of a box were reversed"] = None
            x1, y1, x2, y2 = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
        if extent is not None:
            inside = _clip(x1, extent[0]), _clip(y1, extent[1]), _clip(x2, extent[0]), _clip(y2, extent[1])
            if inside != (x1, y1, x2, y2):
                repairs["a box reached outside of the image"] = None
            x1, y1, x2, y2 = inside
        if x1 == x2 or y1 == y2:
            repairs["a box without any area was left out"] = None
            continue
        key = ((x1, y1, x2, y2), box.label)
        if key in settled:
            repairs["a box was repeated"] = None
        elif len(settled) == MAX_ITEMS:
            repairs[f"only the first {MAX_ITEMS} boxes were kept"] = None
        else:
            settled[key] = AnswerBox((x1, y1, x2, y2), box.label, box.spans, box.keyed)
    return tuple(settled.values())


def _settled_points(
    found: list[AnswerPoint], extent: tuple[float, float] | None, repairs: dict[str, None]
) -> tuple[AnswerPoint, ...]:
    """The points inside the extent, each once."""
    settled: dict[tuple[tuple[float, float], str], AnswerPoint] = {}
    for point in found:
        x, y = point.point
        if not (math.isfinite(x) and math.isfinite(y)):
            repairs["a point without finite numbers was left out"] = None
        elif extent is not None and not (0 <= x <= extent[0] and 0 <= y <= extent[1]):
            repairs["a point outside of the image was left out"] = None
        elif len(settled) < MAX_ITEMS or (point.point, point.label) in settled:
            settled.setdefault((point.point, point.label), point)
        else:
            repairs[f"only the first {MAX_ITEMS} points were kept"] = None
    return tuple(settled.values())


def _clip(value: float, high: float) -> float:
    return min(max(value, 0.0), high)
