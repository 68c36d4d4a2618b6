"""The forms in which prompts ask for answers: what of an answer is fixed text, and what the model decides.

An engine that can hold a model to a regular expression gets it from here, whichever engine it is: an answer is then
always complete and readable, and engines that know how write its fixed parts without asking the model for each token.
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
class Form:
    """start, end: what surrounds an answer. items: objects that it may be made of.

    listed: as a list of any number of them. thoughts: the model may think first, between tags.
    """

    start: str
    items: tuple[str, ...]
    end: str
    listed: bool = True
    thoughts: bool = False


FORMS = {
    "regions": Form("<answer>", (BOX,), "</answer>", thoughts=True),
    "boxes": Form("```json", (BOX,), "```"),
    "points": Form("```json", (POINT,), "```"),
    "words": Form("```json", ('{"answer": "@"}', '{"answer": "@", ' + BOX.removeprefix("{")), "```", listed=False),
}
"""By the name that a prompt in `config/prompts/` gives."""

Piece = tuple[str, bool]
"""A text that stands as it is (True), or a regular expression (False)."""


def answer_regex(form: str, prefix: str = "", thinking: bool = False, at_most: int | None = None) -> str | None:
    """A regular expression of all that may follow `prefix` in an answer of a form; None if no such answer begins so.

    form: a key of `FORMS`. thinking: thoughts come first, in a form that has them. at_most: objects in a list.
    Only groups, classes, alternatives and counted repetitions are used, which the grammars of all engines know.
    """
    after = [_after(prefix, pieces) for pieces in _variants(FORMS[form], thinking, at_most)]
    possible = ["".join(escaped(text) if fixed else text for text, fixed in rest) for rest in after if rest]
    if not possible:
        return None
    return possible[0] if len(possible) == 1 else f"(?:{'|'.join(possible)})"


def escaped(text: str) -> str:
    """As `re.escape`, but of what has a meaning alone: not every grammar knows an escaped space or quote."""
    return "".join(f"\\{character}" if character in r"\.^$*+?{}[]|()" else character for character in text)


def _variants(form: Form, thinking: bool, at_most: int | None) -> list[list[Piece]]:
    """The answers that a form allows, as pieces in their order."""
    start: list[Piece] = (
        [("<think>", True), (THOUGHTS, False), ("</think>", True), (GAP, False)] if thinking and form.thoughts else []
    )
    start += [(form.start, True), (GAP, False)]
    end: list[Piece] = [(GAP, False), (form.end, True)]
    if not form.listed:
        return [[*start, *_pieces(item), *end] for item in form.items]
    (item,) = form.items
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
    """What is left of an answer that begins with a prefix of fixed text; None if it cannot begin so."""
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
