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

"""Reads any text as a tree of named values with their positions, as far as it resembles JSON.

Total and linear: any text gives a tree, in time proportional to its length. A bracket that is never closed ends with
the bracket around it, a quote that closes nothing is noise, and what the end of the text cuts off is marked as cut.
What the values mean is left to `answer_places`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

Span = tuple[int, int]
"""Start and end of a part of the text that was parsed."""

MAX_DEPTH = 64
MAX_ENTRIES = 10_000
"""Of one group; more is left out."""
MAX_LIST = 16
"""Numbers of a list that is never closed."""
MAX_DIGITS = 300
"""A longer number is read as its beginning, which is far outside of any image."""

NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
UNIT = r"(?:\s?(?:%|(?:px|pixels?|percent)\b))?"
# Each repetition ends at a character that no other repetition of the same start passes, which makes the scan linear. It
# runs on text in which full-width punctuation is ASCII and escaped quotes are masked, character for character.
_TOKEN = re.compile(
    rf"""
      "(?P<double>[^"\n]*)"(?=\s*(?:[:,;\[\](){{}}=<`]|\Z)|\s+")
    | (?<!\w)'(?P<single>[^'\n]*)'(?=\s*(?:[:,;\[\](){{}}=<`]|\Z)|\s+')
    | (?P<broken> (?<![^\s:,;=(\[{{]) (?:"[^"\n]*|'[^'\n]*)\s*\Z )
    | <\|?(?:ref|object_ref_start)\|?>(?P<ref>[^<\n]{{0,400}})<
    | (?P<box><\|?(?:box|box_start|bbox|bbox_2d)\|?>)
    | (?P<box_end><(?:/(?:box|bbox|bbox_2d)|\|box_end\|)>)
    | (?P<number>(?<![\w.]){NUMBER}{UNIT})
    | (?P<word>[^\W\d]\w*(?:[ \-][^\W\d]\w*)*)
    | (?P<open>[\[({{])
    | (?P<close>[\])}}])
    | (?P<colon>[:=])
    | (?P<comma>[,;])
    """,
    re.VERBOSE,
)
_QUANTITY = re.compile(rf"\s*({NUMBER})\s?(%|px|pixels?|percent)?\s*")
_PUNCTUATION = str.maketrans("，、；：［］【】（）｛｝“”„‘’＂＇－．", ',,;:[][](){}"""\'\'"\'-.')  # noqa: RUF001


@dataclass
class Number:
    """A number; `unit` is "", "%" or "px", and `quoted` tells that it was written as text."""

    value: float
    span: Span
    unit: str = ""
    quoted: bool = False


@dataclass
class Text:
    """A string, or bare words."""

    text: str
    span: Span
    quoted: bool = True

    @property
    def is_null(self) -> bool:
        """Whether it is a bare word for no value."""
        return not self.quoted and self.text.lower() in ("null", "none", "nan", "undefined", "true", "false")


@dataclass
class Group:
    """Values in brackets, each with the name before its colon, or None.

    Attributes:
        start: Of its opening bracket in the text.
        braced: Whether the bracket is a brace.
        round: Whether it is a parenthesis.
        entries: Names and values in their order.
        end: Of its closing bracket in the text.
        cut: Whether the text ends within it.
        key: The name that waits for its value.
    """

    start: int
    braced: bool = False
    round: bool = False
    entries: list[tuple[Text | None, Value]] = field(default_factory=list)
    end: int = -1
    cut: bool = False
    key: Text | None = None

    @property
    def span(self) -> Span:
        return self.start, self.end

    @property
    def named(self) -> bool:
        """Whether any value has a name."""
        return any(key is not None for key, _ in self.entries)


Value: TypeAlias = Number | Text | Group


def masked(text: str) -> str:
    """The text with ASCII punctuation and without escaped quotes, character for character."""
    return text.translate(_PUNCTUATION).replace("\\\\", "\ue000\ue000").replace('\\"', "\ue000\ue001")


def quantity(text: str, span: Span, quoted: bool = True) -> Number | None:
    """A text that is nothing but a number with or without unit, as a number."""
    match = _QUANTITY.fullmatch(text) if len(text) < 2 * MAX_DIGITS or not quoted else None
    if match is None:
        return None
    return Number(float(match[1][:MAX_DIGITS].rstrip("eE+-")), span, _unit(match[2]), quoted)


def read_tree(text: str, start: int, end: int, repair: Callable[[str], None]) -> Group:
    """Read a part of a text.

    Args:
        text: All of it.
        start: Of the part.
        end: Of the part.
        repair: Takes the repairs, in words for people.

    Returns:
        The group of all that stands in no bracket; bare words and numbers there are left out unless they have a name.
    """
    return _TreeReader(text, start, end, repair).root


class _TreeReader:
    def __init__(self, text: str, start: int, end: int, repair: Callable[[str], None]) -> None:
        self._text, self._offset, self._repair = text, start, repair
        self.root = Group(start)
        self._stack = [self.root]
        self._open = {True: 0, False: 0}
        self._skipped = 0
        body = masked(text[start:end])
        for match in _TOKEN.finditer(body):
            kind = str(match.lastgroup)
            if kind == "open":
                self._begin(match.start(), match["open"])
            elif kind == "close":
                self._close(match["close"] == "}", match.end())
            elif kind == "number":
                # The last digits of a number may be missing where the text ends.
                if match.end() < len(body) or len(self._stack) == 1:
                    self._number(match)
            elif kind == "colon":
                self._colon(match.start())
            elif kind == "comma":
                self._stack[-1].key = None
            elif kind == "box":
                self._stack[-1].key = Text("box", self._span(match, kind))
                self._begin(match.start(), "[")
            elif kind == "box_end":
                self._close(False, match.end())
            elif kind == "broken":
                self._stack[-1].cut = True
            else:
                self._words(match, kind)
        for group in self._stack[1:]:
            group.end, group.cut = end, True

    def _span(self, match: re.Match[str], group: str) -> Span:
        return match.start(group) + self._offset, match.end(group) + self._offset

    def _add(self, value: Value) -> None:
        top = self._stack[-1]
        if top is self.root and top.key is None and not isinstance(value, Group):
            if isinstance(value, Number):
                return
            if top.entries and top.entries[-1][0] is None and isinstance(top.entries[-1][1], Text):
                top.entries.pop()
        if len(top.entries) < MAX_ENTRIES:
            top.entries.append((top.key, value))
        else:
            self._repair(f"only the first {MAX_ENTRIES} entries of a list were read")
        top.key = None

    def _number(self, match: re.Match[str]) -> None:
        number = quantity(match["number"], self._span(match, "number"), quoted=False)
        if number is not None:
            self._add(number)

    def _words(self, match: re.Match[str], kind: str) -> None:
        span = self._span(match, kind)
        if kind == "ref":
            self._stack[-1].key = Text("ref", span)
        self._add(Text(_unescaped(self._text[slice(*span)]), span, kind != "word"))

    def _colon(self, at: int) -> None:
        """The text before it is a name."""
        top = self._stack[-1]
        if not top.entries or top.entries[-1][0] is not None or isinstance(top.entries[-1][1], Group):
            return
        _, value = top.entries.pop()
        name = value if isinstance(value, Text) else Text(self._text[slice(*value.span)], value.span)
        if _numbers_alone(top):
            self._end(at)
            self._repair("a list of numbers was never closed")
        self._stack[-1].key = name

    def _begin(self, at: int, bracket: str) -> None:
        if bracket == "{" and _numbers_alone(self._stack[-1]):
            self._end(at)
            self._repair("a list of numbers was never closed")
        if len(self._stack) > MAX_DEPTH:
            self._skipped += 1
            self._repair("brackets in too many brackets were left out")
            return
        group = Group(at + self._offset, braced=bracket == "{", round=bracket == "(")
        self._add(group)
        self._stack.append(group)
        self._open[group.braced] += 1

    def _close(self, braced: bool, at: int) -> None:
        if self._skipped:
            self._skipped -= 1
        elif self._open[braced]:
            while self._stack[-1].braced != braced or self._stack[-1] is self.root:
                if _numbers_alone(self._stack[-1]):
                    self._repair("a list of numbers was never closed")
                self._end(at)
            self._end(at)

    def _end(self, at: int) -> None:
        group = self._stack.pop()
        self._open[group.braced] -= 1
        group.end = at + self._offset


def _numbers_alone(group: Group) -> bool:
    """Whether a bracket that is no brace holds numbers and nothing else."""
    entries = group.entries
    few = not group.braced and 0 < len(entries) <= MAX_LIST
    return few and all(key is None and isinstance(value, Number) for key, value in entries)


def _unit(written: str | None) -> str:
    return "" if not written else "%" if written in ("%", "percent") else "px"


def _unescaped(raw: str) -> str:
    """A JSON string without its escapes; as it stands where they are wrong."""
    if "\\" not in raw:
        return raw
    try:
        return str(json.loads(f'"{raw}"', strict=False))
    except ValueError:
        return raw
