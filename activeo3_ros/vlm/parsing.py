"""Parses the answers of language models: the one parser for sensing, tasks, benchmarks and rewards.

Total and linear: any text gives an `Answer`, never an exception, in time proportional to its length. Models are asked
for JSON and mostly write it. Errors are repaired where only one reading is possible, left out where several are, and
named in `repairs` either way. Numbers that a model writes as its own confidence are not read: they are text,
no probabilities.

There is no grammar, for a broken document follows none. One scan extracts braces, named texts and bracketed numbers in
their order; a brace begins or ends an object.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

MAX_STRICT_LENGTH = 200_000
"""A longer answer is no longer tried as one JSON document; its boxes are read all the same."""
MAX_LABEL_LENGTH = 200
MAX_ITEMS = 1000
"""Boxes, and points, kept from one answer: a model that repeats itself must not flood the stages after it."""

BOX_KEYS = frozenset(
    {"bbox_2d", "bbox2d", "bbox", "bboxes", "box_2d", "box2d", "box", "boxes", "bounding_box", "region"}
)
POINT_KEYS = frozenset({"point_2d", "point2d", "point", "points", "click", "clicks", "coordinate", "coordinates"})
LABEL_KEYS = frozenset({"label", "name", "class", "category", "object", "phrase", "type", "description"})
ANSWER_KEYS = frozenset({"answer", "response"})

Span = tuple[int, int]
"""Start and end of a part of the text that was parsed."""

_TAG = re.compile(r"<\s{0,4}(/?)\s{0,4}(think|answer)\s{0,4}>", re.IGNORECASE)
_FENCE = re.compile(r"\A\s*```[a-z0-9]{0,16}[ \t]*\n(.*?)(?:\n[ \t]*```\s*)?\Z", re.IGNORECASE | re.DOTALL)

# Each repetition is bounded or can fail only once a line, which makes the scan linear. Every pattern runs on text in
# which full-width punctuation is ASCII and escaped quotes are masked, character for character: positions stay true.
_NUM = r"[-+]?(?:\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(?:[eE][-+]?\d{1,4})?"
_ITEM = rf"""["']?{_NUM}["']?"""
_NEXT = r"(?:\s{0,8}[,;]\s{0,8}|\s{1,8})"
_PAIR = rf"[\[(]\s{{0,8}}{_ITEM}{_NEXT}{_ITEM}\s{{0,8}}[\])]"
_KEY = r"""(?<!\w)["']?(?P<%s>[A-Za-z_]\w{0,31})["']?\s{0,8}"""
_EVENT = re.compile(
    rf"""
      {_KEY % "text_key"} [:=] \s{{0,8}}
      (?: "(?P<text>[^"\n]{{0,4000}})" | '(?P<text1>[^'\n]{{0,4000}})'(?=\s{{0,8}}[,\]}}]) )
    | (?: {_KEY % "list_key"} (?:[:=]\s{{0,8}})? )? (?: \[\s{{0,8}} )?
      (?: (?P<pairs> {_PAIR} \s{{0,8}},?\s{{0,8}} {_PAIR} )
        | (?P<list> [\[(] \s{{0,8}} {_ITEM} (?:{_NEXT}{_ITEM}){{0,15}} \s{{0,8}}
            (?: [\])] | (?P<open> (?=[{{}}]|,\s{{0,8}}["'A-Za-z]) ) ) ) )
      (?: "\s{{0,8}}:\s{{0,8}}"(?P<fused>[^"\n]{{0,400}})" )?
    | (?P<brace> [{{}}] )
    """,
    re.VERBOSE,
)
_NO_END = "the answer has no end"
_NUMBER = re.compile(_NUM)
_UNFINISHED = re.compile(r"""[\[(]\s{0,8}["']?[-+.\d][-+.\d\s,;"']{0,200}\Z|:\s{0,8}"[^"\n]{0,4000}\Z""")
_PUNCTUATION = str.maketrans("，、；：［］【】（）｛｝“”„‘’＂＇－．", ',,;:[][](){}"""\'\'"\'-.')  # noqa: RUF001


@dataclass(frozen=True)
class AnswerBox:
    """One box as the model wrote it.

    Attributes:
        corners: `x1, y1, x2, y2`, ordered, in the model's own coordinates.
        label: "" for none.
        spans: of its numbers and its label in the text.
    """

    corners: tuple[float, float, float, float]
    label: str = ""
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class AnswerPoint:
    """One point `x, y` in the model's own coordinates; label and spans as in `AnswerBox`."""

    point: tuple[float, float]
    label: str = ""
    spans: tuple[Span, ...] = ()


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

    @property
    def says_where(self) -> bool:
        """Whether the text is about places at all. An empty JSON list is: it says that there are none; prose is not."""
        return bool(self.boxes or self.points) or (self.valid_json and self.text.endswith(("]", "}", "```")))


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
    scan = _Scan(text, start, end, repairs)
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
    boxes = _settled_boxes(scan.boxes, extent, repairs)
    points = _settled_points(scan.points, extent, repairs)
    well_formed = tagged and is_json and listed
    return Answer(boxes, points, reasoning, body.strip(), words, words_spans, is_json, well_formed, tuple(repairs))


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


@dataclass
class _Object:
    """The parts of one object that were read so far."""

    braced: bool = False
    boxes: list[tuple[tuple[float, ...], Span]] = field(default_factory=list)
    points: list[tuple[tuple[float, ...], Span]] = field(default_factory=list)
    label: str | None = None
    label_span: Span = (0, 0)

    @property
    def has_places(self) -> bool:
        return bool(self.boxes or self.points)


class _Scan:
    """One pass over an answer part: its boxes, points and words, with their repairs."""

    def __init__(self, text: str, start: int, end: int, repairs: dict[str, None]) -> None:
        self.boxes: list[AnswerBox] = []
        self.points: list[AnswerPoint] = []
        self.words = ""
        self.words_spans: tuple[Span, ...] = ()
        self.structured = False
        self._repairs = repairs
        self._text, self._offset = text, start
        self._object = _Object()
        masked = text[start:end].translate(_PUNCTUATION).replace("\\\\", "\ue000\ue000").replace('\\"', "\ue000\ue001")
        last = 0
        for match in _EVENT.finditer(masked):
            last = match.end()
            if match["brace"]:
                self._flush(_Object(braced=match["brace"] == "{"))
            elif match["text_key"]:
                self._named_text(match)
            else:
                self._numbers(match)
        self._flush(_Object())
        tail = _UNFINISHED.search(masked, max(last, len(masked) - 4200))
        if tail:
            self._repair("the answer breaks off: its last entry was left out")

    def _span(self, match: re.Match[str], group: str) -> Span:
        return match.start(group) + self._offset, match.end(group) + self._offset

    def _named_text(self, match: re.Match[str]) -> None:
        group = "text" if match["text"] is not None else "text1"
        key, span = match["text_key"].lower(), self._span(match, group)
        value = _unescaped(self._text[slice(*span)])
        if key in LABEL_KEYS:
            self._label(value, span)
        elif key in ANSWER_KEYS and not self.words:
            self.words, self.words_spans, self.structured = value.strip(), (span,), True
        elif key in BOX_KEYS | POINT_KEYS:
            self._repair("numbers were written as text")
            self._place(key, _numbers_in(match[group]), span)

    def _numbers(self, match: re.Match[str]) -> None:
        key = (match["list_key"] or "").lower()
        known = key in BOX_KEYS | POINT_KEYS
        group = "pairs" if match["pairs"] else "list"
        span, numbers = self._span(match, group), _numbers_in(match[group])
        if match["open"] is not None:
            self._repair("a list of numbers was never closed")
        if group == "pairs" and key in POINT_KEYS:
            self._place(key, numbers[:2], span)
            self._place("", numbers[2:], span, kind="point")
        elif known or len(numbers) == 4:
            if any(quote in match[group] for quote in "\"'"):
                self._repair("numbers were written as text")
            self._place(key if known else "", numbers, span)
        if match["fused"] is not None:
            self._repair("a key was fused with its value")
            label_span = self._span(match, "fused")
            self._label(_unescaped(self._text[slice(*label_span)]), label_span)

    def _place(self, key: str, numbers: tuple[float, ...], span: Span, kind: str = "") -> None:
        """Numbers that are a box or a point of the object that the scan is in, or neither."""
        self.structured = True
        if key and self._object.has_places and self._object.label is not None:
            self._flush(_Object(braced=self._object.braced))
        elif not self._object.braced:
            self._repair("a box stood outside of an object")
            if self._object.has_places:
                self._flush(_Object())
        is_point = kind == "point" or (key in POINT_KEYS and len(numbers) == 2)
        if is_point or len(numbers) == 4:
            (self._object.points if is_point else self._object.boxes).append((numbers, span))
        else:
            self._repair(f"{len(numbers)} numbers are neither a box nor a point and were left out")

    def _label(self, value: str, span: Span) -> None:
        self.structured = True
        if self._object.label is not None and self._object.has_places:
            self._flush(_Object(braced=self._object.braced))
        if self._object.label is None:
            self._object.label, self._object.label_span = value.strip()[:MAX_LABEL_LENGTH], span

    def _flush(self, following: _Object) -> None:
        finished, self._object = self._object, following
        named = (finished.label_span,) if finished.label is not None else ()
        label = finished.label or ""
        for (x1, y1, x2, y2), span in finished.boxes:
            self.boxes.append(AnswerBox((x1, y1, x2, y2), label, (span, *named)))
        for (x, y), span in finished.points:
            self.points.append(AnswerPoint((x, y), label, (span, *named)))

    def _repair(self, kind: str) -> None:
        self._repairs[kind] = None


def _numbers_in(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in _NUMBER.findall(text))


def _unescaped(raw: str) -> str:
    """A JSON string without its escapes; as it stands where they are wrong."""
    if "\\" not in raw:
        return raw
    try:
        return str(json.loads(f'"{raw}"', strict=False))
    except ValueError:
        return raw


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
            settled[key] = AnswerBox((x1, y1, x2, y2), box.label, box.spans)
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
