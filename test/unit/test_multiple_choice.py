"""The option that an answer means, with letters and without."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activeo3_ros.evaluation.multiple_choice import chosen_option, stated_letters

CHOICES = ["a red car", "a blue van", "a green bus", "a white truck"]
ORDER = [2, 0, 3, 1]
"""Letter A stood for the green bus, B for the red car, C for the white truck, D for the blue van."""
A, B, C, D = ORDER


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        # A letter alone.
        ("B", B), ("b", B), ("(B)", B), ("B.", B), ("**B**", B), (" (b) ", B), ("\\boxed{B}", B), ("'C'", C),
        # As options are written.
        ("B. a red car", B), ("B) a red car", B), ("(B) a red car", B), ("B: a red car", B), ("B - a red car", B),
        ("D, because it is blue", D), ("A. It is green", A), ("(A) a green bus", A),
        # Named as the answer.
        ("The answer is B.", B), ("Answer: B", B), ("answer is (C)", C), ("The correct option is D", D),
        ("I choose option C", C), ("The correct answer is: **A**", A), ("My answer is A", A), ("Option A", A),
        ("The best choice is B, not A.", B), ("The answer is B; A is wrong.", B),
        # Somewhere in a sentence.
        ("It must be C", C), ("I think it is D because of the colour", D), ("It's B!", B),
        ("The answer is (C) a white truck, since A and B do not fit", C), ("It is B because A is wrong", B),
        ("Between A and B, I choose B", B), ("The options are A, B, C, D. The answer is C.", C),
        ("D instead of C", D), ("A is wrong, so B", B), ("Option A. Option B is wrong", A), ("C (not D)", C),
        ("The answer is a", A), ("\uff22", B), ("\u7b54\u6848\u662fB\u3002", B), ("Answer:\nA", A),
        ("<think>A, or C?</think>B", B), ("A or C? <answer>B</answer>", B), ("A) is wrong. The answer is B", B),
        # An article is no letter.
        ("The answer is A red car", B), ("The answer is a red car", B), ("Answer: A blue van", D),
        ("A red car", B), ("A white truck stands there", C), ("A blue van, I think", D), ("I see a green bus", A),
        # Two letters decide nothing.
        ("A or B", None), ("B or C", None), ("Either A or D", None), ("The answer is A or B", None), ("B, C", None),
        ("A and B", None), ("A/B", None), ("A, B, C, D", None), ("The answer is C or maybe D", None), ("A|B", None),
        ("Option A or option B", None), ("(A) or (B)", None), ("A. or B.", None), ("B and C are both right", None),
        # A negated letter is not chosen.
        ("It is not A", None), ("not B but C", C), ("The answer cannot be A", None), ("I cannot choose A", None),
        ("neither A nor B", None), ("A is incorrect", None), ("It isn't A", None), ("The answer is not A or B", None),
        # Words decide where there is no letter.
        ("the van", D), ("it is green", A), ("red or blue", None), ("nothing", None), ("", None), (None, None),
        ("E", None), ("Because", None), ("Definitely", None),
    ],
)  # fmt: skip
def test_a_lettered_answer_means_the_option_that_it_states(answer, option):
    assert chosen_option(answer, CHOICES, ORDER) == option


@pytest.mark.parametrize("answer", ["B", "The answer is B", "A red car"])
def test_without_letters_words_alone_decide(answer):
    assert chosen_option(answer, CHOICES) == (0 if "red" in answer else None)


@given(st.text(), st.sampled_from(["ABCD", "AB", "ABCDEFGH"]))
def test_any_text_states_letters_that_stand_for_options(text, letters):
    assert stated_letters(text, letters) <= set(letters)


@given(st.sampled_from("ABCD"), st.sampled_from(["{}", "({})", "{}.", "Answer: {}", "The answer is {}.", "**{}**"]))
def test_every_letter_is_read_in_every_form(letter, form):
    assert stated_letters(form.format(letter), "ABCD") == {letter}
