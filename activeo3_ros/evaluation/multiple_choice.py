"""Multiple choice: questions with lettered options, and the option that an answer in words means."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

LETTERS = "ABCDEFGH"


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
    """Find the choice that an answer means.

    A letter at the beginning of the answer decides if the question was asked with letters. Otherwise the distinctive
    words of each choice, those that not all choices share, are counted: the choice wins with the largest part of them
    in the answer.

    Args:
        answer: The answer of a model; None if there is none.
        choices: The options.
        order: Index of the choice of each letter, where the question was asked with letters.

    Returns:
        The index of the choice; None if the answer means none, or several alike.
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
