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

"""Finds the boxes, points and words in the tree of an answer, whatever form a model gave them.

A place is a list of numbers, named sides, or text between tags; its label stands under a key beside it, is the key
above it, or stands before it on its line. A form that is not known is named in the repairs. A box whose label was given
but cannot be told is left out, since a box without a label counts as the one class that was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from .answer_keys import (
    ANSWER_KEYS,
    BOX_KEYS,
    CONTAINER_KEYS,
    CORNER_KEYS,
    LABEL_KEYS,
    OTHER_KEYS,
    PLAIN_WORDS,
    POINT_KEYS,
)
from .answer_tree import NUMBER, UNIT, Group, Number, Span, Text, Value, quantity, read_tree

MAX_LABEL_LENGTH = 200
MAX_PROSE_WORDS = 4
"""More words before a box are a sentence and no label."""

_BREAKS_OFF = "the answer breaks off: its last entry was left out"
_NUMBERS_IN_TEXT = re.compile(rf"(?<![\w.]){NUMBER}{UNIT}")
_FUSED = re.compile(r"\s*([A-Za-z_]\w{0,31})\W{0,8}([\[(][-+\d.,;eE\s\[\]()]{1,200}[\])]?)\s*")
_BULLET = re.compile(r"^[\s>*#-]*(?:\d{1,4}[.):]\s*)?(?:[-*•]\s*)?")
_TRAILING = re.compile(
    r"(?:\b(?:is|are|located|found|at|in|bounding|boxes|box|bbox|coordinates)\b|[\s:=*_`\"'(,.-])+$", re.IGNORECASE
)
_LEADING = re.compile(
    r"^[\s:=*_`\"'),.-]*(?:(?:and|or)\s+)?(?:there\s+(?:is|are)\s+)?(?:(?:the|an?)\s+)?", re.IGNORECASE
)
_HEADING = re.compile(r"(?:\A|\n|(?<=\]))([^\n\[\]{}]{0,100}[^\s\[\]{}])\s{0,8}\Z")
_NUMBERING = re.compile(r"[\s_#-]*\d{1,6}$")


@dataclass(frozen=True)
class AnswerBox:
    """One box as the model wrote it.

    Attributes:
        corners: `x1, y1, x2, y2`, ordered, in the model's own coordinates.
        label: "" for none.
        spans: of its numbers and its label in the text.
        keyed: whether the label is the key that the box stood under, or words before it: it may be no label at all.
    """

    corners: tuple[float, float, float, float]
    label: str = ""
    spans: tuple[Span, ...] = ()
    keyed: bool = False


@dataclass(frozen=True)
class AnswerPoint:
    """One point `x, y` in the model's own coordinates; label and spans as in `AnswerBox`."""

    point: tuple[float, float]
    label: str = ""
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class _Label:
    """The label of boxes; `known` is false where the model gave one that cannot be told."""

    text: str = ""
    spans: tuple[Span, ...] = ()
    keyed: bool = False
    known: bool = True


@dataclass
class _Object:
    """The parts of one object that were read so far.

    Attributes:
        label: Of its places.
        labels: Of each place, where they stand in a list.
        boxes: Corners and position of each.
        points: x, y and position of each.
        settled: Whether it needs no further note.
        inner: The label of objects further in that have none.
    """

    label: _Label
    labels: list[_Label] | None = None
    boxes: list[tuple[tuple[float, ...], Span]] = field(default_factory=list)
    points: list[tuple[tuple[float, ...], Span]] = field(default_factory=list)
    settled: bool = False
    inner: _Label | None = None

    @property
    def has_places(self) -> bool:
        return bool(self.boxes or self.points)


Entries = list[tuple[Text | None, Value]]
NO_LABEL = _Label()
UNKNOWN_LABEL = _Label(known=False)


class AnswerPlaces:
    """One walk over the tree of an answer part.

    Attributes:
        boxes: in their order, as they were written.
        points: in their order, as they were written.
        words: of an "answer" entry, "" for none.
        words_spans: of those words in the text.
        structured: whether anything stood under a known key.
        unread: whether entries were there that could not be read.
    """

    def __init__(
        self, text: str, start: int, end: int, extent: tuple[float, float] | None, repairs: dict[str, None]
    ) -> None:
        self.boxes: list[AnswerBox] = []
        self.points: list[AnswerPoint] = []
        self.words = ""
        self.words_spans: tuple[Span, ...] = ()
        self.structured = self.unread = False
        self._repairs, self._text, self._extent = repairs, text, extent
        root = read_tree(text, start, end, self._repair)
        self._root_end, self._heading = start, NO_LABEL
        self._segments(root, NO_LABEL, root=root)

    def _repair(self, kind: str) -> None:
        self._repairs[kind] = None

    def _leave_out(self, kind: str) -> None:
        """A part that is no place and no known form: it must not pass for an empty scene."""
        self._repair(kind)
        self.unread = True

    def _group(self, group: Group, label: _Label) -> None:
        """A value in brackets that may hold anything."""
        if group.braced or group.named:
            self._segments(group, label)
        elif group.entries:
            self._list(group, label)

    def _segments(self, group: Group, inherited: _Label, root: Group | None = None) -> None:
        """The objects of named values: a name that comes again begins the next one, whose brace was forgotten."""
        segment: Entries = []
        seen: set[str] = set()
        placed = False
        leading: tuple[Text | None, Value] | None = None
        for key, value in group.entries:
            name = _plain(key.text) if key is not None else ""
            if name in _OBJECT_KEYS:
                if name in seen:
                    self._object(segment, inherited, False, root)
                    segment, seen, placed = [], {name}, False
                    if leading is not None and name not in LABEL_KEYS:
                        segment = [leading]
                        seen.add(_plain(leading[0].text) if leading[0] is not None else "")
                seen.add(name)
                if name in LABEL_KEYS:
                    leading = None if placed else (key, value)
                placed |= name not in LABEL_KEYS
            segment.append((key, value))
        if segment or group.cut:
            self._object(segment, inherited, group.cut, root)

    def _object(self, entries: Entries, inherited: _Label, cut: bool, root: Group | None) -> None:
        found = self._labelled(entries, inherited)
        own_label = found.label is not inherited or found.labels is not None
        sides = {
            CORNER_KEYS[_plain(key.text)]: value for key, value in entries if key and _plain(key.text) in CORNER_KEYS
        }
        if not set(sides) <= {"w", "h", "first", "last"} or {"first", "last"} <= set(sides):
            self._from_sides(sides, found, cut)
        spare: list[Text] = []
        flagged = False
        unnamed: list[tuple[Text | None, Group]] = []
        before: Group | None = None
        for key, value in entries:
            name = _plain(key.text) if key is not None else ""
            previous, before = before, value if isinstance(value, Group) else None
            if name in LABEL_KEYS and not (isinstance(value, Group) and _label_texts(value) is None and value.entries):
                continue
            if name in ANSWER_KEYS and self._answered(value, root is not None):
                found.settled = True
            elif name in BOX_KEYS | POINT_KEYS:
                self._place_value(name, value, found)
            elif key is None and isinstance(value, Group) and previous is not None and _is_pair(previous, value):
                self._second_corner(previous, value, found, unnamed)
            elif isinstance(value, Group):
                unnamed.append((key, value))
            elif (fused := _FUSED.fullmatch((key or value).text if isinstance(key or value, Text) else "")) is not None:  # type: ignore[union-attr]
                self._fused(fused, key, value, found)
            elif (
                key is not None
                and isinstance(value, Text)
                and value.quoted
                and name not in OTHER_KEYS | set(CORNER_KEYS)
            ):
                spare.append(value)
            flagged |= (
                name not in OTHER_KEYS and isinstance(value, Text) and value.is_null and value.text.lower() == "true"
            )
        explicit = own_label or found.has_places or found.settled
        inner = [self._under_other_key(key, group, found, explicit, root) for key, group in unnamed]
        found.settled |= any(inner)
        if found.has_places and not found.label.text and found.labels is None and (spare or flagged) and root is None:
            found.label = UNKNOWN_LABEL
            if len(spare) == 1 and not flagged:
                self._repair("a label was taken from a key that is not known")
                found.label = _Label(_shortened(spare[0].text), (spare[0].span,))
        if cut and not (found.label.text or found.labels) and (found.has_places or not found.settled):
            if root is None or found.has_places:
                self._repair(_BREAKS_OFF)
            return
        if not (found.has_places or found.settled or root is not None):
            if cut:
                self._repair(_BREAKS_OFF)
            elif own_label and found.label.text.lower() not in _NOTHING:
                self._leave_out("an object without a box was left out")
            elif entries and not own_label:
                keys = ", ".join(repr(key.text[:20]) for key, _ in entries[:4] if key is not None)
                self._leave_out(f"an entry with the keys {keys or 'of nothing'} could not be read and was left out")
        self._add(found)

    def _labelled(self, entries: Entries, inherited: _Label) -> _Object:
        """An object with the label, or the labels, that its entries give it."""
        found, best = _Object(inherited), 9
        for key, value in entries:
            rank = LABEL_KEYS.get(_plain(key.text), 9) if key is not None else 9
            texts = _label_texts(value)
            if rank >= best or texts is None:
                continue
            best = rank
            listed = isinstance(value, Group) and not value.braced
            labels = [_Label(_shortened(text), (span,)) for text, span in texts]
            found.label = labels[0] if labels and not listed else NO_LABEL
            found.labels = labels if listed else None
            found.inner = inherited if rank == 3 else found.label
            self.structured |= not isinstance(value, Text) or value.quoted
        return found

    def _answered(self, value: Value, at_root: bool) -> bool:
        """Whether a value under an answer's key is words."""
        texts = _flat(value)
        if texts is None or (at_root and isinstance(value, (Text, Number)) and not getattr(value, "quoted", True)):
            return False
        if not self.words and texts:
            self.words, self.structured = ", ".join(text for text, _ in texts).strip(), True
            self.words_spans = tuple(span for _, span in texts)
        return True

    def _under_other_key(
        self, key: Text | None, group: Group, found: _Object, explicit: bool, root: Group | None
    ) -> bool:
        """A bracket without a key, or under one that names no place: it may be the label. Whether it was read."""
        name = _plain(key.text) if key is not None else ""
        direct = _is_numbers(group)
        if root is not None and direct:
            self._in_prose(group, found if explicit else None)
        elif key is None and direct and not group.cut:
            self._numbers_in(group, "", found)
        elif key is not None and (name in OTHER_KEYS or (explicit and direct)):
            if direct:
                self._repair(f"numbers under the key {key.text[:30]!r} were left out")
            return False
        elif key is not None and direct and not group.cut:
            self._repair("a key was read as the label of its boxes")
            labelled = _Object(_label_of_key(key) or found.label)
            self._numbers_in(group, "", labelled)
            self._add(labelled)
        elif found.labels is not None:
            self._group(group, UNKNOWN_LABEL)
        elif found.label.text or root is not None or key is None:
            self._group(group, found.label if found.inner is None else found.inner)
        else:
            self._group(group, _label_of_key(key) or found.label)
        return True

    def _place_value(self, name: str, value: Value, found: _Object) -> None:
        """A value under the key of a box or a point."""
        self.structured = True
        if isinstance(value, Group):
            self._numbers_in(value, name, found)
        elif isinstance(value, Text) and (value.is_null or not value.text.strip()):
            self._repair("a box of null was left out")
            found.settled = True
        else:
            written = value.text if isinstance(value, Text) else ""
            numbers = [quantity(each, value.span) for each in _NUMBERS_IN_TEXT.findall(written)]
            if isinstance(value, Number):
                numbers = [value]
            if numbers:
                self._place(name, numbers, value.span, found)

    def _numbers_in(self, group: Group, name: str, found: _Object) -> None:
        """The places in brackets under the key of a box or a point, or under none."""
        numbers = _numeric(group)
        elements = [value for _, value in group.entries]
        inner = [_numeric(value) for value in elements] if numbers is None else []
        if not elements:
            found.settled |= not group.cut
        elif group.cut and (numbers is not None or (group.named and not group.braced)):
            self._repair(_BREAKS_OFF)
        elif numbers is not None:
            self._place(name, numbers, group.span, found)
        elif group.named:
            sides = {
                CORNER_KEYS[_plain(k.text)]: value for k, value in group.entries if k and _plain(k.text) in CORNER_KEYS
            }
            if sides and not any(key is not None and _plain(key.text) in LABEL_KEYS for key, _ in group.entries):
                self._from_sides(sides, found, group.cut)
            else:
                self._group(group, found.label if found.labels is None else UNKNOWN_LABEL)
                found.settled = True
        elif name not in POINT_KEYS and len(inner) > 1 and all(each is not None and len(each) == 2 for each in inner):
            corners = [each for each in inner if each is not None]
            if len(corners) == 2:
                self._place(name, [*corners[0], *corners[1]], group.span, found)
            else:
                self._polygon(corners, group.span, found)
        elif any(isinstance(value, Text) for value in elements):
            self._list(group, found.label)
            found.settled = True
        else:
            for value in elements:
                self._place_value(name, value, found)

    def _polygon(self, corners: list[list[Number | None]], span: Span, found: _Object) -> None:
        points = [self._coordinates(corner) for corner in corners]
        if all(point is not None for point in points):
            xs, ys = zip(*(point for point in points if point is not None), strict=True)
            self._repair("a polygon was read as the box around it")
            found.boxes.append(((min(xs), min(ys), max(xs), max(ys)), span))

    def _from_sides(self, sides: dict[str, Value], found: _Object, cut: bool) -> None:
        """A box, or a point, from its sides by their names."""
        values: dict[str, Value] = dict(sides)
        for name, axes in (("first", ("x1", "y1")), ("last", ("x2", "y2"))):
            corner = values.pop(name, None)
            if isinstance(corner, Group):
                values |= dict(zip(axes, _two(corner), strict=False))
        if "x0" in values and "x2" not in values:
            values = {
                {"x0": "x1", "y0": "y1", "x1": "x2", "y1": "y2"}.get(key, key): value for key, value in values.items()
            }
        numbers = {key: number for key, value in values.items() if (number := _number(value)) is not None}
        for wanted, name in _FORMS:
            if set(wanted) <= set(numbers):
                chosen = [numbers[key] for key in wanted]
                span = min(each.span[0] for each in chosen), max(each.span[1] for each in chosen)
                if wanted[0] == "x" and len(wanted) == 4:
                    self._repair("a box of x, y, width and height was read from its upper left corner")
                self.structured = True
                self._place(name, chosen, span, found)
                return
        if cut:
            self._repair(_BREAKS_OFF)
        elif all(isinstance(value, Text) and value.is_null for value in values.values()):
            self._repair("a box of null was left out")
        else:
            self._leave_out("a box without all of its sides was left out")
        found.settled = True

    def _place(self, name: str, numbers: Sequence[Number | None], span: Span, found: _Object) -> None:
        """Numbers that are a box or a point, or neither."""
        self.structured = found.settled = True
        if any(number is not None and number.quoted for number in numbers):
            self._repair("numbers were written as text")
        count = len(numbers)
        if None in numbers:
            self._repair("a box with null in place of a number was left out")
        elif count != 4 and not (count == 2 and name in POINT_KEYS):
            self._leave_out(f"{count} numbers are neither a box nor a point and were left out")
        elif (at := self._coordinates(numbers)) is not None:
            if count == 2:
                found.points.append((at, span))
                return
            if "cxcywh" in name:
                at = (at[0] - at[2] / 2, at[1] - at[3] / 2, at[0] + at[2] / 2, at[1] + at[3] / 2)
            elif "xywh" in name:
                at = (at[0], at[1], at[0] + at[2], at[1] + at[3])
            found.boxes.append((at, span))

    def _coordinates(self, numbers: Sequence[Number | None]) -> tuple[float, ...] | None:
        """Numbers along x and y in turn, in the model's own coordinates; None where that is not known."""
        values = []
        for index, number in enumerate(numbers):
            if number is None:
                return None
            value = number.value
            if number.unit == "px":
                self._repair("numbers with the unit px were taken for the model's own coordinates")
            elif number.unit == "%" and self._extent is not None:
                self._repair("coordinates in percent were converted")
                value *= self._extent[index % 2] / 100
            elif number.unit == "%":
                self._leave_out("coordinates in percent were left out")
                return None
            values.append(value)
        return tuple(values)

    def _second_corner(
        self, first: Group, second: Group, found: _Object, unnamed: list[tuple[Text | None, Group]]
    ) -> None:
        """`(x1, y1), (x2, y2)` without brackets around both: the first was no place of its own."""
        pair = Group(first.start, entries=[(None, first), (None, second)], end=second.end)
        if unnamed and unnamed[-1][1] is first:
            unnamed[-1] = (unnamed[-1][0], pair)
            return
        self._repairs.pop("2 numbers are neither a box nor a point and were left out", None)
        if found.points:  # under a point's key, both are points
            self._place("point", _numeric(second) or [], second.span, found)
        else:
            self._numbers_in(pair, "", found)

    def _fused(self, fused: re.Match[str], key: Text | None, value: Value, found: _Object) -> None:
        """A key that holds the numbers, whose value is then the label."""
        if _plain(fused[1]) not in BOX_KEYS | POINT_KEYS:
            return
        source = key if key is not None else value
        self._repair("a key was fused with its value")
        numbers = [quantity(each, source.span, quoted=False) for each in _NUMBERS_IN_TEXT.findall(fused[2])]
        self._place(_plain(fused[1]), numbers, source.span, found)
        if key is not None and isinstance(value, Text) and not found.label.text:
            found.label = _Label(_shortened(value.text), (value.span,))

    def _list(self, group: Group, label: _Label) -> None:
        """A list of objects, of numbers, or of labels and places."""
        if _is_numbers(group):
            self._repair("a box stood outside of an object")
            found = _Object(label)
            self._numbers_in(group, "", found)
            self._add(found)
            return
        values = [value for _, value in group.entries]
        names = [value for value in values if isinstance(value, Text) and not value.is_null]
        groups = [value for value in values if isinstance(value, Group)]
        named = [_Label(_shortened(name.text), (name.span,)) for name in names]
        numbers = [value for value in values if isinstance(value, Number)]
        lists = [texts for each in groups if (texts := _flat(each, numbers=False))]
        if names and len(groups) == 0:
            found = _Object(named[0])
            if len(names) == 1 and numbers and not group.cut:
                self._place("", list(numbers), group.span, found)
            else:
                self._leave_out("entries without a box were left out")
            self._add(found)
        elif len(names) == len(groups) > 0 and _alternate(values):
            for each, one in zip(groups, named, strict=True):
                self._group(each, one)
        elif names and len(names) == 1:
            for each in groups:
                self._group(each, named[0])
        elif len(groups) == 2 and len(lists) == 1 and not numbers and not names:
            found = _Object(NO_LABEL, [_Label(_shortened(text), (span,)) for text, span in lists[0]])
            self._numbers_in(next(each for each in groups if not _flat(each, numbers=False)), "", found)
            self._add(found)
        else:
            if numbers and not groups:
                self._leave_out(f"{len(numbers)} numbers are neither a box nor a point and were left out")
            for each in groups:
                self._group(each, UNKNOWN_LABEL if names or lists else label)

    def _in_prose(self, group: Group, labelled: _Object | None) -> None:
        """Numbers in running text; their label may be the words of their line."""
        found = _Object(labelled.label) if labelled is not None else _Object(self._words_around(group))
        if group.round and _numeric(group) is not None and len(group.entries) != 4:
            return
        if group.cut:
            self._repair(_BREAKS_OFF)
            return
        self._repair("a box stood outside of an object")
        self._numbers_in(group, "", found)
        self._root_end = group.end
        self._add(found)

    def _words_around(self, group: Group) -> _Label:
        """The label in prose: the words before a box on its line, after it, or of the heading above it."""
        first = max(self._root_end, group.start - 300)
        line = self._text.rfind("\n", first, group.start) + 1 or first
        after = re.split(r"[\n\[({;<`]", self._text[group.end : group.end + 80])[0]
        heading = _HEADING.search(self._text, first, line)
        for words in (self._text[line : group.start], after, heading[1] if heading else ""):
            named = _LEADING.sub("", _TRAILING.sub("", _BULLET.sub("", words))).strip(" ,.;:*_`\"'()[]{}<>|")
            named = _NUMBERING.sub("", named)
            spoken = set(re.findall(r"\w+", named.lower()))
            if spoken - PLAIN_WORDS:
                at = self._text.find(named, first, group.end + 80)
                known = len(named.split()) <= MAX_PROSE_WORDS
                label = _Label(_shortened(named), ((at, at + len(named)),) if at >= 0 else (), keyed=True, known=known)
                if heading and words == heading[1]:
                    self._heading = label
                return label
        return NO_LABEL if heading else self._heading

    def _add(self, found: _Object) -> None:
        places = len(found.boxes) + len(found.points)
        labels = found.labels
        if labels is None or (places and len(labels) == 1):
            labels = [found.label if labels is None else labels[0]] * places
        if places and len(labels) != places:
            self._leave_out(f"{len(labels)} labels stand beside {places} boxes, which were left out")
            return
        for (numbers, span), label in zip([*found.boxes, *found.points], labels, strict=False):
            spans = (span, *label.spans)
            if not label.known:
                self._leave_out("a box whose label cannot be told was left out")
            elif len(numbers) == 4:
                x1, y1, x2, y2 = numbers
                self.boxes.append(AnswerBox((x1, y1, x2, y2), label.text, spans, label.keyed))
            else:
                self.points.append(AnswerPoint((numbers[0], numbers[1]), label.text, spans))


_OBJECT_KEYS = BOX_KEYS | POINT_KEYS | frozenset(LABEL_KEYS) | frozenset(CORNER_KEYS)
_NOTHING = frozenset({"", "none", "nothing", "null", "n/a", "no objects", "no object"})
_FORMS = (
    (("x1", "y1", "x2", "y2"), ""),
    (("x1", "y1", "w", "h"), "xywh"),
    (("cx", "cy", "w", "h"), "cxcywh"),
    (("x", "y", "w", "h"), "xywh"),
    (("x", "y", "x2", "y2"), ""),
    (("x", "y"), "point"),
)


def _plain(name: str) -> str:
    """A key in small letters without `_`, `-` and spaces."""
    return re.sub(r"[\W_]", "", name.lower()) if len(name) <= MAX_LABEL_LENGTH else ""


def _shortened(label: str) -> str:
    return label.strip()[:MAX_LABEL_LENGTH]


def _label_of_key(key: Text) -> _Label | None:
    """The label that a key is, None where it only names a container, as `detections` and `object_1` do."""
    text = _NUMBERING.sub("", key.text[:MAX_LABEL_LENGTH]).strip()
    if not text or _plain(text) in CONTAINER_KEYS:
        return None
    return _Label(text, (key.span,), keyed=True)


def _number(value: Value) -> Number | None:
    if isinstance(value, Number):
        return value
    return quantity(value.text, value.span) if isinstance(value, Text) and value.quoted else None


def _numeric(value: Value) -> list[Number | None] | None:
    """The numbers of a list of nothing else, None for each null; None where it is no such list."""
    if not isinstance(value, Group) or value.braced or not value.entries:
        return None
    numbers: list[Number | None] = []
    for key, entry in value.entries:
        number = _number(entry)
        if key is not None or (number is None and not (isinstance(entry, Text) and entry.is_null)):
            return None
        numbers.append(number)
    return numbers


def _is_numbers(group: Group) -> bool:
    """Whether brackets hold numbers alone, or lists of them."""
    if _numeric(group) is not None:
        return True
    return bool(group.entries) and all(
        key is None and isinstance(value, Group) and not value.braced and _is_numbers(value)
        for key, value in group.entries
    )


def _is_pair(first: Group, second: Group) -> bool:
    return all(not each.cut and len(each.entries) == 2 and _numeric(each) is not None for each in (first, second))


def _flat(value: Value, numbers: bool = True) -> list[tuple[str, Span]] | None:
    """The texts of a text, or of a list of nothing else; numbers count as texts unless told not to."""
    if isinstance(value, Text):
        return [] if value.is_null else [(value.text, value.span)]
    if isinstance(value, Number):
        return [(f"{value.value:g}", value.span)] if numbers else None
    if value.braced or not value.entries or any(isinstance(entry, Group) or key for key, entry in value.entries):
        return None
    texts = [_flat(entry, numbers) for _, entry in value.entries]
    return [text[0] for text in texts if text] if all(texts) else None


def _label_texts(value: Value) -> list[tuple[str, Span]] | None:
    """The texts under the key of a label: one, a list of them, or the label of an object that only describes it."""
    if not isinstance(value, Group) or not value.braced:
        return _flat(value)
    ranked = [
        (LABEL_KEYS[_plain(key.text)], index)
        for index, (key, each) in enumerate(value.entries)
        if key is not None and _plain(key.text) in LABEL_KEYS and not isinstance(each, Group)
    ]
    if not ranked or any(isinstance(each, Group) for _, each in value.entries):
        return None
    return _flat(value.entries[min(ranked)[1]][1])


def _two(corner: Group) -> list[Value]:
    """The x and the y of a corner."""
    by_name = {_plain(key.text): value for key, value in corner.entries if key is not None}
    return [by_name[axis] for axis in "xy" if axis in by_name] if by_name else [value for _, value in corner.entries]


def _alternate(values: list[Value]) -> bool:
    """Whether a list is a label and a bracket in turn, or a bracket and a label."""
    kinds = [isinstance(value, Text) for value in values]
    return len(kinds) % 2 == 0 and all(first != second for first, second in pairwise(kinds))
