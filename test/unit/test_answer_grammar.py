"""Answer grammars: the regular expressions that engines hold a model to, and how the parser reads such answers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activeo3_ros.assets.resources import config_directory
from activeo3_ros.core import InvalidInput
from activeo3_ros.vlm.answer_grammar import GRAMMARS, answer_regex
from activeo3_ros.vlm.parsing import parse_answer
from activeo3_ros.vlm.prompts import REASONING, load_prompt

BOX = '{"bbox_2d": [12, 0, 1820, 345], "label": "far cars"}'
BUS = '{"bbox_2d": [300, 40, 420, 160], "label": "bus"}'
EXAMPLES = {
    "regions": f"<answer>\n[{BOX}, {BUS}]\n</answer>",
    "boxes": f"```json\n[{BOX}]\n```",
    "points": '```json\n[{"point_2d": [1, 2], "label": "positive"}]\n```',
    "words": '```json\n{"answer": "102", ' + BOX[1:] + "\n```",
}
PROMPTS = sorted(path.stem for path in (config_directory() / "prompts").glob("*.yaml"))


def allows(grammar: str, text: str, **settings) -> bool:
    return re.fullmatch(answer_regex(grammar, **settings) or "(?!)", text) is not None


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        ("regions", f"<answer>\n[{BOX}]\n</answer>"),
        ("regions", f"<answer>[{BOX}, {BUS}]</answer>"),
        ("regions", "<answer>\n[]\n</answer>"),
        ("boxes", f"```json\n[\n\t{BOX},\n\t{BUS}\n]\n```"),
        ("boxes", "```json\n[]\n```"),
        ("boxes", '```json\n[{"bbox_2d": [0, 1, 22, 333], "label": "汽车 \\"x\\""}]\n```'),
        ("points", '```json\n[{"point_2d": [1, 2], "label": "positive"}]\n```'),
        ("words", '```json\n{"answer": "unknown"}\n```'),
        ("words", '```json\n{"answer": "102", ' + BOX[1:] + "\n```"),
    ],
)
def test_an_answer_as_it_was_trained_is_allowed(grammar, text):
    assert allows(grammar, text)
    assert parse_answer(text).repairs == ()


@pytest.mark.parametrize(
    "text",
    [
        "<answer>\nnothing\n</answer>",
        '<answer>\n[{"bbox_2d": [1, 2, 3], "label": "x"}]\n</answer>',
        '<answer>\n[{"bbox_2d": [1, 2, 3, 45678], "label": "x"}]\n</answer>',
        '<answer>\n[{"bbox_2d": [1, 2, 3, 04], "label": "x"}]\n</answer>',
        '<answer>\n[{"bbox_2d": [1, 2, 3, 4]}]\n</answer>',
        f"<answer>\n[{BOX}\n</answer>",
        f"<answer>\n[{BOX}]",
        f"<think>Hm.</think><answer>\n[{BOX}]\n</answer>",
    ],
)
def test_anything_else_is_not(text):
    assert not allows("regions", text)


def test_no_more_regions_than_the_budget_has():
    answers = [f"<answer>[{', '.join([BOX] * count)}]</answer>" for count in range(5)]
    assert [allows("regions", text, at_most=3) for text in answers] == [True, True, True, True, False]
    assert [allows("regions", text, at_most=1) for text in answers] == [True, True, False, False, False]


def test_what_was_forced_is_not_written_again():
    rest = f"12, 0, 1820, 345], {BOX.partition('], ')[2]}, {BOX}]\n</answer>"
    assert allows("regions", rest, prefix='<answer>\n[{"bbox_2d": [')
    assert not allows("regions", "]\n</answer>", prefix='<answer>\n[{"bbox_2d": [')
    assert allows("regions", "]\n</answer>", prefix="<answer>\n[")
    assert allows("regions", "Hm.</think>\n<answer>[]</answer>", prefix="<think>", thinking=True)
    assert allows("words", '102"}\n```', prefix='```json\n{"answer": "')
    assert answer_regex("regions", "Sure!") is None


labels = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='\\"'), max_size=100)
rows = st.lists(st.tuples(*[st.integers(0, 9999)] * 4, labels), max_size=3)


@given(rows)
def test_every_answer_of_whole_numbers_is_allowed_and_read_as_it_was_meant(rows):
    items = ", ".join(f'{{"bbox_2d": [{a}, {b}, {c}, {d}], "label": "{label}"}}' for a, b, c, d, label in rows)
    text = f"<think>Far away.</think>\n<answer>\n[{items}]\n</answer>"
    assert allows("regions", text, thinking=True, at_most=3)
    assert parse_answer(text).well_formed


@given(st.data())
def test_whatever_is_allowed_is_valid(data):
    regex = answer_regex("regions", thinking=True, at_most=3)
    text = data.draw(st.from_regex(regex, fullmatch=True))
    answer = parse_answer(text)
    assert answer.well_formed and len(answer.boxes) <= 3
    assert not {"the answer is not valid JSON", "a key was fused with its value"} & set(answer.repairs)


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("reasoning", REASONING)
def test_every_shipped_prompt_says_how_its_answer_goes_on(name, reasoning):
    prompt = load_prompt(name).fill(reasoning, target="car", question="which?", max_regions=3)
    grammar = load_prompt(name).grammar
    if not grammar:  # the model's own form, such as a tool call: it is read as it comes
        assert prompt.regex == prompt.prefix == ""
        return
    answer = ("<think>Hm.</think>\n" if grammar == "regions" and reasoning != "none" else "") + EXAMPLES[grammar]
    assert answer.startswith(prompt.prefix)
    assert re.fullmatch(prompt.regex, answer.removeprefix(prompt.prefix))


def test_only_what_grammars_know_is_used():
    """No look-around, no lazy or possessive repetition, no classes by letter: engines' grammars differ in these."""
    for grammar in GRAMMARS:
        for thinking in (False, True):
            regex = answer_regex(grammar, thinking=thinking, at_most=3)
            assert not re.search(r"\(\?[^:]|[*+?}][?+]|\\[a-mo-qsu-wyzA-Z0-9]", regex)


def test_a_prompt_whose_grammar_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("after_image: x\ngrammar: poems\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match="'grammar' must be one of regions, boxes, points, words, got 'poems'"):
        load_prompt(str(path))
    path.write_text("after_image: x\ngrammar: boxes\nprefix: {none: 'Sure, '}\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match="an answer of the grammar 'boxes' cannot begin with 'Sure, '"):
        load_prompt(str(path))


def test_a_prompt_without_a_grammar_leaves_the_answer_to_the_model(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("after_image: x\n", encoding="utf-8")
    assert load_prompt(str(path)).fill().regex == ""
