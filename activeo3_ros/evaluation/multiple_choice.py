"""Multiple choice: questions with lettered options, and the option that an answer in words means."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

LETTERS = "ABCDEFGH"
NEGATIONS = r"(?:not|n't|neither|nor|never|except|isn.t|than)"


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

    An `A` before a lower-case word is an article, an `I` before one a pronoun; a letter behind a negation is not
    stated.

    Args:
        answer: What the model said.
        letters: The letters that stand for options, upper case.

    Returns:
        The letters, upper case; empty if there is none, several if the answer does not decide.
    """
    text = re.sub(r"[*_`$]|\\boxed|\\text", " ", answer).strip()
    letter = rf"[({{\[\"']?\s*([{letters}{letters.lower()}])\s*[)}}\]\"']?"
    if alone := re.fullmatch(rf"\W*{letter}\W*", text):
        return {alone.group(1).upper()}
    mentioned = _mentioned(text, letters)
    named = re.findall(
        r"\b(?:answer|option|choice|choose|pick|select)\b(?:\s+(?:is|would be|must be|should be|option|choice))*"
        rf"\s*[:=]?\s*{letter}(?![\w'])",
        text,
        re.IGNORECASE,
    )
    named = [found for found in named if found.isupper() or found.upper() not in "AI"]
    if named and len(mentioned | {found.upper() for found in named}) > 1:
        # "The answer is B, not A" leaves one; "The answer is A or B" two.
        rest = {found.upper() for found in named}
        joined = re.search(rf"\b[{letters}]\b\s*(?:or|and|/|&|,)\s*(?:option\s+)?\(?[{letters}]\b", text)
        return mentioned if joined else rest
    if named:
        return {found.upper() for found in named}
    # A letter with a delimiter at the beginning, as options are written.
    first = re.match(rf"\W*(?:\(([{letters}{letters.lower()}])\)|([{letters}{letters.lower()}])\s*[).:,\-–—])", text)  # noqa: RUF001
    if first:
        found = (first.group(1) or first.group(2)).upper()
        alternatives = re.match(rf"\s*(?:(?:or|and)\b|\(?[{letters}]\)?(?![\w'])(?!\s+[a-z]))", text[first.end() :])
        return mentioned | {found} if alternatives else {found}
    return mentioned


def _mentioned(text: str, letters: str) -> set[str]:
    """The letters that stand alone in upper case, articles, pronouns and negated ones left out."""
    found = set()
    for match in re.finditer(rf"(?<![\w'’])([{letters}])(?![\w'’])", text):  # noqa: RUF001
        before, after = text[: match.start()], text[match.end() :]
        article = match.group(1) in "AI" and re.match(r"\s+(?!(?:or|and|is|because|since|as)\b)[a-z]", after)
        negated = re.search(rf"\b{NEGATIONS}\s+(?:option\s+|choice\s+)?[(\"']?$", before, re.IGNORECASE)
        if not article and not negated:
            found.add(match.group(1))
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())
