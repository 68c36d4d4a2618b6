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

"""Multiple choice: questions with lettered options, and the option that an answer in words means."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Mapping, Sequence

LETTERS = "ABCDEFGH"
VERBS_AFTER_LETTER = (
    "or|and|is|was|because|since|as|given|based|due|seems|looks|appears|would|must|should|fits|matches|describes"
)
"""Words before which a lone A is a letter; before another word in lower case it is an article."""
NEGATED_BEFORE = (
    r"(?:\b(?:not|neither|nor|never|except|than|cannot|without|instead\s+of|exclude|rule\s+out)|n['’]t)\s+"  # noqa: RUF001
    r"(?:be\s+|choose\s+|pick\s+|select\s+|say\s+|the\s+)*(?:(?:option|choice|letter|answer)\s+)?"
    r"(?:[(\[]?[A-H][)\]]?\s*(?:or|nor|and)\s+)?[(\[\"'“‘]*$"  # noqa: RUF001
)
NEGATED_AFTER = (
    r"[)\]\"'”’]*(?:\s+(?:and|or|nor)\s+[(\[]?[A-H][)\]]?)?\s+"  # noqa: RUF001
    r"(?:(?:is|are|was|were|seems|looks|must\s+be|would\s+be)(?:\s+\w+ly)?"
    r"\s+(?:wrong|incorrect|false|not|excluded|impossible|ruled|out)\b"
    r"|(?:is|are|was|were|does|do|did|ca|could|would|wo)n['’]t\b"  # noqa: RUF001
    r"|cannot\b|(?:can|could|does|do|did|would|will)\s+not\b)"
)
OPENING = r"[(\[{<\"'“‘]*\s*"  # noqa: RUF001
NAMED = (
    r"\b(?:answer|choose|pick|select)\b(?:\s*(?:is|would\s+be|must\s+be|should\s+be|option|choice|letter|:|=))*\s*"
    + OPENING
)
"""What introduces a letter as the answer."""
AT_BEGINNING = r"\A\W*(?=[A-H]\s*[).:,\-–—])"  # noqa: RUF001
"""Before a letter at the beginning that is set apart as options are: "B.", "(b)"."""
NUMBERED = r"\b(?:option|choice|letter)\b(?:\s*(?:is|:|=))?\s*" + OPENING
ALTERNATIVE = (
    r"[)\]\"'.:]*\s*(?:,|/|\||&|\bor\b|\band\b)+\s*(?:maybe|perhaps|possibly)?\s*(?:option|choice|letter)?\s*" + OPENING
)
"""Between a letter and one that is named as an alternative to it."""


def lettered_question(question: str, choices: Sequence[str], seed: int, name: str) -> str:
    """Append the options to a question, lettered in a random order.

    Args:
        question: The question.
        choices: The options.
        seed: Seed of the order.
        name: Name of the question, which the order depends on as well.

    Returns:
        The question, a line for each option, and the request for a letter.
    """
    order = letter_order(len(choices), seed, name)
    lines = [f"({LETTERS[place]}) {choices[index]}" for place, index in enumerate(order)]
    return "\n".join([question, *lines, "Answer with the letter of the right option."])


def letter_order(count: int, seed: int, name: str) -> list[int]:
    """Indices of the choices in the order of their letters; the same for a seed and the name of a question."""
    return random.Random(f"{seed} {name}").sample(range(count), count)


def chosen_option(answer: str | None, choices: Sequence[str], order: Sequence[int] | None = None) -> int | None:
    """Find the option that an answer means.

    Where the question was asked with letters, a letter that the answer states decides: alone (`B`, `(b)`), at its
    beginning (`B. red`), or named as the answer (`The answer is B`). Two different letters decide nothing. Otherwise it
    is the choice of whose own words, those that not all choices share, the largest part occurs in the answer.

    Args:
        answer: What the model said, None if it said nothing.
        choices: The texts of the options.
        order: The index of the choice behind each letter, A first; None where the question had no letters.

    Returns:
        An index into `choices`, or None if the answer means none of them, or several alike.
    """
    if not answer or not answer.strip():
        return None
    if order is not None:
        stated = stated_letters(answer, LETTERS[: len(order)])
        if len(stated) == 1:
            return order[LETTERS.index(stated.pop())]
        if stated:
            return None
    said = set(_words(answer))
    by_choice = [set(_words(choice)) for choice in choices]
    shared = set.intersection(*by_choice) if len(by_choice) > 1 else set()
    scores = [len(own & said) / len(own) if (own := words - shared) else 0.0 for words in by_choice]
    best = max(scores)
    return scores.index(best) if best > 0 and scores.count(best) == 1 else None


def stated_letters(answer: str, letters: str) -> set[str]:
    """Find the option letters that an answer states, by the plainest form that it uses.

    An `A` before a lower-case word is an article; a letter that is negated, or called wrong, is not stated. Of an
    answer with `</think>` or `<answer>`, only what is answered counts.

    Args:
        answer: What the model said.
        letters: The letters that stand for options, upper case.

    Returns:
        The letters, upper case; empty if there is none, several if the answer does not decide.
    """
    text = unicodedata.normalize("NFKC", answer).rpartition("</think>")[2]
    if tagged := re.search(r"<answer>(.*?)</answer>", text, re.IGNORECASE | re.DOTALL):
        text = tagged.group(1)
    text = re.sub(r"[*_`$]|\\boxed|\\text", " ", text).strip()
    if alone := re.fullmatch(rf"\W*([{letters}{letters.lower()}])\W*", text):
        return {alone.group(1).upper()}
    upper = _mentions(text, letters)
    either = {**upper, **_mentions(text, letters.lower())}
    for introduction in (NAMED, AT_BEGINNING, NUMBERED):
        stated = set()
        for match in re.finditer(introduction, text, re.IGNORECASE):
            if match.end() in either:
                stated |= {either[match.end()], *_alternatives(text, match.end() + 1, upper)}
        if stated:
            return stated
    return set(upper.values())


def _alternatives(text: str, start: int, mentions: Mapping[int, str]) -> set[str]:
    """The letters that follow another one as alternatives to it: "B or C", "B/C", "B, C"."""
    found = set()
    while (link := re.compile(ALTERNATIVE, re.IGNORECASE).match(text, start)) and link.end() in mentions:
        found.add(mentions[link.end()])
        start = link.end() + 1
    return found


def _mentions(text: str, letters: str) -> dict[int, str]:
    """The letters that stand alone, upper case, by their place; articles and negated ones are left out."""
    found = {}
    for match in re.finditer(rf"(?<![A-Za-z0-9'’])[{letters}](?![A-Za-z0-9])(?!['’][a-z])", text):  # noqa: RUF001
        before, after = text[: match.start()], text[match.end() :]
        article = match.group() in "Aa" and re.match(rf"\s+(?!(?:{VERBS_AFTER_LETTER})\b)[a-z]", after)
        negated = re.search(NEGATED_BEFORE, before, re.IGNORECASE) or re.match(NEGATED_AFTER, after, re.IGNORECASE)
        if not article and not negated:
            found[match.start()] = match.group().upper()
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())
