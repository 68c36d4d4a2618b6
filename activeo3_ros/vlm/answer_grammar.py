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

"""Answer grammars: the fixed text of an answer, and the parts that the model decides.

Every engine that can hold a model to a regular expression gets it from here: an answer is then always complete and
readable, and drafts of its fixed parts save decoding steps (`backends.drafts`).
"""

from __future__ import annotations

from dataclasses import dataclass

BOX = '{"bbox_2d": [#, #, #, #], "label": "@"}'
POINT = '{"point_2d": [#, #], "label": "@"}'
"""Objects of an answer as models of the Qwen family write them. #: a whole number of 1 to 4 digits. @: some words."""

NUMBER = "(?:0|[1-9][0-9]{0,3})"
WORDS = r'(?:[^"\\\x00-\x1f]|\\["\\/]){0,100}'
THOUGHTS = "[^<]+"
GAP = r"[ \n\t]{0,2}"
"""Where models differ: one line for the whole list, or one for each object."""


@dataclass(frozen=True)
class AnswerGrammar:
    """One grammar.

    Attributes:
        start: Text before the objects.
        items: Objects that an answer may consist of, with `#` and `@` as in `BOX`.
        end: Text after the objects.
        listed: Whether the answer is a list of any number of objects, or exactly one.
        thoughts: Whether the model may think first, between tags.
    """

    start: str
    items: tuple[str, ...]
    end: str
    listed: bool = True
    thoughts: bool = False


GRAMMARS = {
    "regions": AnswerGrammar("<answer>", (BOX,), "</answer>", thoughts=True),
    "boxes": AnswerGrammar("```json", (BOX,), "```"),
    "points": AnswerGrammar("```json", (POINT,), "```"),
    "words": AnswerGrammar(
        "```json", ('{"answer": "@"}', '{"answer": "@", ' + BOX.removeprefix("{")), "```", listed=False
    ),
}
"""By the name that a prompt in `config/prompts/` gives."""

Piece = tuple[str, bool]
"""A text that stands as it is (True), or a regular expression (False)."""


def answer_regex(grammar: str, prefix: str = "", thinking: bool = False, at_most: int | None = None) -> str | None:
    """A regular expression of all that may follow a prefix in an answer.

    Only groups, classes, alternatives and counted repetitions are used, which all engines support.

    Args:
        grammar: A key of `GRAMMARS`.
        prefix: The beginning of the answer that the model is given.
        thinking: Whether thoughts come first, in a grammar that has them.
        at_most: Objects in a list; None for any number.

    Returns:
        None if no answer of this grammar begins with the prefix.
    """
    after = [_after(prefix, pieces) for pieces in _variants(GRAMMARS[grammar], thinking, at_most)]
    possible = ["".join(escaped(text) if fixed else text for text, fixed in rest) for rest in after if rest]
    if not possible:
        return None
    return possible[0] if len(possible) == 1 else f"(?:{'|'.join(possible)})"


def escaped(text: str) -> str:
    """As `re.escape`, but of special characters alone: not every engine accepts an escaped space or quote."""
    return "".join(f"\\{character}" if character in r"\.^$*+?{}[]|()" else character for character in text)


def _variants(grammar: AnswerGrammar, thinking: bool, at_most: int | None) -> list[list[Piece]]:
    """The answers that a grammar allows, as pieces in their order."""
    start: list[Piece] = [(grammar.start, True), (GAP, False)]
    if thinking and grammar.thoughts:
        start = [("<think>", True), (THOUGHTS, False), ("</think>", True), (GAP, False), *start]
    end: list[Piece] = [(GAP, False), (grammar.end, True)]
    if not grammar.listed:
        return [[*start, *_pieces(item), *end] for item in grammar.items]
    (item,) = grammar.items
    further = "".join(escaped(text) if fixed else text for text, fixed in _pieces(item))
    count = "*" if at_most is None else f"{{0,{at_most - 1}}}"
    more: list[Piece] = [(f"(?:,{GAP}{further}){count}", False)] if at_most is None or at_most > 1 else []
    some = [*start, ("[", True), (GAP, False), *_pieces(item), *more, (GAP, False), ("]", True), *end]
    none = [*start, ("[", True), ("]", True), *end]
    return [some, none] if at_most is None or at_most > 0 else [none]


def _pieces(item: str) -> list[Piece]:
    """A text with # and @ in it, cut at these."""
    pieces: list[Piece] = []
    text = ""
    for character in item:
        if character in "#@":
            pieces += [(text, True), (NUMBER if character == "#" else WORDS, False)]
            text = ""
        else:
            text += character
    return [*pieces, (text, True)]


def _after(prefix: str, pieces: list[Piece]) -> list[Piece] | None:
    """The rest of an answer that begins with a prefix of fixed text; None if it cannot begin so."""
    for index, (text, fixed) in enumerate(pieces):
        if not prefix:
            return pieces[index:]
        if fixed and text.startswith(prefix):
            return [(text[len(prefix) :], True), *pieces[index + 1 :]]
        if fixed and prefix.startswith(text):
            prefix = prefix[len(text) :]
        elif text == GAP:
            prefix = prefix.lstrip(" \n\t")
        else:
            return None
    return [] if not prefix else None
