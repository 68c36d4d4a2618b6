"""Questions with choices: which choice an answer in words means, and how often it is the right one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .official_datasets import LETTERS


def chosen_option(answer: str | None, choices: Sequence[str], order: Sequence[int] | None = None) -> int | None:
    """The index of the choice that an answer means; None if it means none, or several alike.

    order: which choice each letter stood for, where the question was asked with letters; a letter at the beginning of
    the answer then decides. Otherwise it is the choice of whose own words, those that not all choices share, the
    largest part occurs in the answer.
    """
    if not answer or not answer.strip():
        return None
    if order is not None:
        letter = re.match(rf"\W*([{LETTERS[: len(order)]}])(?![A-Za-z])", answer.strip())
        if letter:
            return order[LETTERS.index(letter.group(1))]
    said = set(_words(answer))
    by_choice = [set(_words(choice)) for choice in choices]
    shared = set.intersection(*by_choice) if len(by_choice) > 1 else set()
    scores = [len(own & said) / len(own) if (own := words - shared) else 0.0 for words in by_choice]
    best = max(scores)
    return scores.index(best) if best > 0 and scores.count(best) == 1 else None


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())
