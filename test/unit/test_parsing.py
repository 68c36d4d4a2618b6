"""The parser of what a model writes: examples of what it must read, and properties that hold for any text."""

from __future__ import annotations

import json
import math
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activeo3_ros.vlm.parsing import parse_answer

CAR = (100.0, 50.0, 220.0, 130.0)
BUS = (300.0, 40.0, 420.0, 160.0)
SENSING = (
    "<think>The far end of the road is crowded.</think>\n<answer>\n"
    '[{"bbox_2d": [100, 50, 220, 130], "label": "car"}, {"bbox_2d": [300, 40, 420, 160], "label": "bus"}]\n</answer>'
)


def boxes(text, extent=None):
    return [(box.label, box.corners) for box in parse_answer(text, extent).boxes]


def test_a_sensing_answer_as_it_should_be():
    answer = parse_answer(SENSING)
    assert [(box.label, box.corners) for box in answer.boxes] == [("car", CAR), ("bus", BUS)]
    assert answer.reasoning == "The far end of the road is crowded."
    assert answer.well_formed and answer.repairs == ()


def test_a_box_knows_where_its_numbers_and_its_label_stand():
    first = parse_answer(SENSING).boxes[0]
    assert [SENSING[slice(*span)] for span in first.spans] == ["[100, 50, 220, 130]", "car"]


@pytest.mark.parametrize(
    ("text", "repair"),
    [
        ('```json\n[{"bbox_2d": [100, 50, 220, 130], "label": "car"}]\n```', None),
        ('[{"bbox_2d": [100, 50, 220, 130], "label": "car"}]', None),
        ('{"label": "car", "bbox_2d": [100, 50, 220, 130]}', None),
        ('Here it is:\n[{"bbox_2d": [100, 50, 220, 130], "label": "car"}]\nGood luck!', "the answer is not valid JSON"),
        ('[{"bbox_2d [100, 50, 220, 130]": "car"}]', "a key was fused with its value"),
        ('[{"bbox_2d": ["100", "50", "220", "130"], "label": "car"}]', "numbers were written as text"),
        ('[{"bbox_2d": "100, 50, 220, 130", "label": "car"}]', "numbers were written as text"),
        ('[{"bbox_2d": [220, 130, 100, 50], "label": "car"}]', "the corners of a box were reversed"),
        ('[{"bbox_2d": [[100, 50], [220, 130]], "label": "car"}]', None),
        ('[{"bbox_2d": [100, 50, 220, 130, "label": "car"}]', "a list of numbers was never closed"),
        ('[{"bbox_2d": [100, 50, 220, 130], "label": "car"}', "the answer is not valid JSON"),
        ("[{'bbox_2d': [100, 50, 220, 130], 'label': 'car'}]", "the answer is not valid JSON"),
        ('[{bbox_2d: [100, 50, 220, 130], label: "car"}]', "the answer is not valid JSON"),
        ("【{“bbox_2d”：【100，50，220，130】，“label”：“car”}】", "the answer is not valid JSON"),
        ('[{"bbox_2d": [1e2, 5e1, 220.0, 130], "label": "car"}]', None),
        (
            '[{"bbox_2d": [100, 50, 220, 130], "label": "car"}, {"bbox_2d": [300, 40, 42',
            "the answer breaks off: its last entry was left out",
        ),
        (
            '[{"bbox_2d": [100, 50, 220, 130], "label": "car"}, {"bbox_2d": [100, 50, 220, 130], "label": "car"}]',
            "a box was repeated",
        ),
        (
            '[{"bbox_2d": [100, 50, 220, 130], "label": "car"}, {"bbox_2d": [7, 7, 7, 9]}]',
            "a box without any area was left out",
        ),
        ('[{"bbox_2d": [100, 50, 220, 130], "label": "car", "confidence": 0.97}]', None),
    ],
)  # fmt: skip
def test_one_box_however_it_is_written(text, repair):
    answer = parse_answer(text)
    assert [(box.label, box.corners) for box in answer.boxes] == [("car", CAR)]
    assert (repair in answer.repairs) if repair else (answer.repairs == ())


def test_an_answer_may_be_stopped_as_soon_as_its_list_is_closed():
    answer = parse_answer(SENSING[: SENSING.index("]\n</answer>") + 1])
    assert len(answer.boxes) == 2 and answer.repairs == ()
    assert not answer.well_formed, "to have been trained well is to close the tag too"
    cut_off = parse_answer(SENSING[: SENSING.index(', "label": "bus"')])
    assert "the answer has no end" in cut_off.repairs


def test_several_objects_without_a_list():
    text = '{"bbox_2d": [100, 50, 220, 130], "label": "car"}\n{"bbox_2d": [300, 40, 420, 160], "label": "bus"}'
    assert boxes(text) == [("car", CAR), ("bus", BUS)]


def test_a_label_may_hold_anything_that_a_json_string_may():
    label = 'the "big" car, [1, 2, 3, 4] {x}: é 汽车 \\'
    for text in (json.dumps(label), json.dumps(label, ensure_ascii=False)):
        assert boxes('[{"bbox_2d": [100, 50, 220, 130], "label": ' + text + "}]") == [(label, CAR)]


@pytest.mark.parametrize("end", ["", ",", ', "la', ', "label"', ', "label":', ', "label": "traffic li'])
def test_a_box_whose_label_breaks_off_is_left_out(end):
    """Without its label it would be taken for the one class that was asked for."""
    answer = parse_answer('[{"bbox_2d": [300, 40, 420, 160], "label": "bus"}, {"bbox_2d": [100, 50, 220, 130]' + end)
    assert [(box.label, box.corners) for box in answer.boxes] == [("bus", BUS)]
    assert "the answer breaks off: its last entry was left out" in answer.repairs


def test_boxes_are_clipped_to_the_image_and_left_out_beyond_it():
    text = '[{"bbox_2d": [-20, 50, 220, 9000], "label": "car"}, {"bbox_2d": [700, 0, 800, 50], "label": "gone"}]'
    assert boxes(text, extent=(640, 480)) == [("car", (0.0, 50.0, 220.0, 480.0))]


def test_points_for_clicks():
    text = '[{"point_2d": [10, 20], "label": "positive"}, {"point_2d": [900, 20], "label": "negative"}]'
    answer = parse_answer(text, extent=(640, 480))
    assert [(point.label, point.point) for point in answer.points] == [("positive", (10.0, 20.0))]
    assert "a point outside of the image was left out" in answer.repairs


def test_an_empty_list_says_that_there_is_nothing():
    answer = parse_answer("```json\n[]\n```")
    assert answer.says_where and answer.boxes == () and answer.repairs == ()


@pytest.mark.parametrize(
    "text", ["", "   \n", "<think>Where could it be? [1, 2, 3, 4]", "<answer></answer>", "[[[", "{]"]
)
def test_what_says_nothing_is_not_taken_for_an_empty_scene(text):
    answer = parse_answer(text)
    assert not answer.says_where and answer.boxes == ()


def test_numbers_in_the_reasoning_are_no_answer():
    text = (
        '<think>Perhaps [1, 2, 30, 40], or <answer> there?</think><answer>[{"bbox_2d": [100, 50, 220, 130]}]</answer>'
    )
    assert boxes(text) == [("", CAR)]


def test_what_follows_the_first_answer_does_not_count():
    assert boxes(SENSING + '<answer>[{"bbox_2d": [1, 2, 3, 4], "label": "more"}]</answer>') == boxes(SENSING)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"answer": "102", "bbox_2d": [100, 50, 220, 130], "label": "number"}', "102"),
        ('```json\n{"answer": "It says \\"102\\"."}\n```', 'It says "102".'),
        ("The number is 102.", "The number is 102."),
        ("<think>I read it.</think><answer>102</answer>", "102"),
        ('"102"', "102"),
    ],
)
def test_an_answer_in_words(text, words):
    assert parse_answer(text).words == words


coordinates = st.integers(0, 4000)
labels = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.lists(st.tuples(coordinates, coordinates, coordinates, coordinates, labels), max_size=8))
def test_every_valid_answer_is_read_without_repair_of_its_structure(rows):
    wanted = {}
    for x1, y1, x2, y2, label in rows:
        if x1 != x2 and y1 != y2:
            wanted[(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), label.strip()] = None
    items = [{"bbox_2d": row[:4], "label": row[4]} for row in rows]
    for text in (json.dumps(items), json.dumps(items, indent=2, ensure_ascii=False)):
        answer = parse_answer(text)
        assert {(box.corners, box.label) for box in answer.boxes} == set(wanted)
        assert "the answer is not valid JSON" not in answer.repairs


@given(st.text(max_size=300) | st.text("[](){}\"':,<>/answerthink bbox_2d0123456789.-+e\\`\n", max_size=300))
def test_any_text_gives_an_answer_whose_boxes_are_boxes(text):
    check(text)


EXTENT = (640.0, 480.0)


def check(text: str) -> None:
    """What must hold of every answer."""
    answer = parse_answer(text, EXTENT)
    for box in answer.boxes:
        x1, y1, x2, y2 = box.corners
        assert 0 <= x1 < x2 <= EXTENT[0] and 0 <= y1 < y2 <= EXTENT[1]
        assert all(0 <= start <= end <= len(text) for start, end in box.spans)
    for point in answer.points:
        assert 0 <= point.point[0] <= EXTENT[0] and 0 <= point.point[1] <= EXTENT[1]
    assert answer.text in text and all(isinstance(repair, str) for repair in answer.repairs)
    assert not answer.well_formed or answer.valid_json
    assert not any(math.isnan(value) for box in answer.boxes for value in box.corners)


SEEDS = [
    SENSING,
    '```json\n[\n\t{"bbox_2d": [10, 20, 110, 220], "label": "light"},\n\t{"bbox_2d [1, 2, 30, 40]": "person"}\n]\n```',
    '{"answer": "the \\"102\\" on the car", "bbox_2d": [12, 30, 90, 77], "label": "number"}',
    '[{"point_2d": [10, 20], "label": "positive"}, {"points": [[1, 2], [3, 4]], "label": "negative"}]',
    "<think>汽车在【远处】。</think><answer>【{“bbox_2d”：【100，50，220，130】，“label”：“汽车”}】</answer>",
]
PIECES = [
    *[
        "[",
        "]",
        "{",
        "}",
        '"',
        "'",
        ",",
        ":",
        "\\",
        "```",
        "<answer>",
        "</answer>",
        "<think>",
        "</think>",
        "\n",
        "，",
        "“",
    ],
    *["1e999", "-5", "NaN", "null", "bbox_2d", "label", "\x00", "\ud800", "🚗", "٣", "[[1,2],[3,4]]", '{"a":' * 40],
]


def mutated(generator: random.Random) -> str:
    """A well-formed answer after one to twelve random edits."""
    text = generator.choice(SEEDS)
    for _ in range(generator.randint(1, 12)):
        at = generator.randrange(len(text) + 1)
        edit = generator.randrange(6)
        if edit == 0:
            text = text[:at] + generator.choice(PIECES) + text[at:]
        elif edit == 1:
            text = text[:at] + text[at + generator.randint(1, 12) :]
        elif edit == 2:
            text = text[:at]
        elif edit == 3:
            text = text[:at] + chr(generator.randrange(1, 0x3000)) + text[at + 1 :]
        elif edit == 4:
            other = generator.choice(SEEDS)
            text = text[:at] + other[generator.randrange(len(other)) :]
        else:
            start = generator.randrange(len(text) + 1)
            text = text[:at] + text[min(at, start) : max(at, start)] + text[at:]
        text = text[:20_000]
    return text


def fuzz(count: int, seed: int = 0) -> int:
    """Check `count` mutated answers; returns how many of them still held a box."""
    generator = random.Random(seed)
    kept = 0
    for number in range(count):
        text = mutated(generator)
        try:
            check(text)
        except Exception as error:
            raise AssertionError(f"mutation {number} of seed {seed}: {text!r}") from error
        kept += bool(parse_answer(text).boxes)
    return kept


def test_mutated_answers_never_raise_and_often_survive():
    assert fuzz(3000) > 800  # `python test/test_answers.py 100000` checks as many as one likes


NOISE = ["[", '{"a":', '"\\', "[1,", '"', "a", 'a:"', "1", "[1,2,3,4],", '{"label": "', "a:[1,", "'a': '", "<think>",
         "<answer>", " ", "[ ", "aaaa_", '("1" ', "```json\n", "[1 2", "\\", "(1,2),", "1 "]  # fmt: skip


@pytest.mark.parametrize("unit", NOISE)
def test_a_megabyte_of_noise_takes_linear_time(unit):
    check(unit * (1_000_000 // len(unit)))  # in quadratic time this would run into the timeout, by hours


if __name__ == "__main__":
    wanted = int(sys.argv[1])
    print(f"{wanted} mutated answers, of which {fuzz(wanted, seed=1)} still held a box; none raised")
