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


@pytest.mark.parametrize(
    "place",
    [
        '"bbox": {"x1": 100, "y1": 50, "x2": 220, "y2": 130}',
        '"bbox": {"xmin": 100, "ymin": 50, "xmax": 220, "ymax": 130}',
        '"xmin": 100, "ymin": 50, "xmax": 220, "ymax": 130',
        '"x0": 100, "y0": 50, "x1": 220, "y1": 130',
        '"box": {"left": 100, "top": 50, "right": 220, "bottom": 130}',
        '"box": {"left": 100, "top": 50, "width": 120, "height": 80}',
        '"box": {"x": 100, "y": 50, "w": 120, "h": 80}',
        '"box": {"center_x": 160, "center_y": 90, "width": 120, "height": 80}',
        '"bbox_xywh": [100, 50, 120, 80]',
        '"box": {"top_left": [100, 50], "bottom_right": {"x": 220, "y": 130}}',
        '"bbox_2d": ["12.5%", "10%", "27.5%", "26%"]',
        '"bbox_2d": {"x1": "12.5 %", "y1": "10 %", "x2": "27.5 %", "y2": "26 %"}',
        '"bbox_2d": ["100px", "50px", "220 px", "130 pixels"]',
        '"bbox_2d": [0.125, 0.1, 0.275, 0.26]',
        '"bbox_2d": ["0.125", "0.1", "0.275", "0.26"]',
        '"bbox_2d": [[100, 50], [220, 50], [220, 130], [100, 130]]',
        '"geometry": {"bbox": [100, 50, 220, 130]}',
        '"rgba": [10, 20, 30, 255], "bbox": [100, 50, 220, 130]',
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ['[{"label": "car", %s}]', '[{%s, "label": "car"}]', "python", "cut off"])
def test_one_box_whatever_its_form(place, form):
    text = form.replace("%s", place)
    if form == "python":
        text = '[{"label": "car", %s}]'.replace("%s", place).replace('"', "'")
    if form == "cut off":
        text = '[{"label": "car", %s}, {"label": "bus", "bbox": {"x1": 300, "y1": 4'.replace("%s", place)
    answer = parse_answer(text, extent=(800, 500))
    ((label, corners),) = [(box.label, box.corners) for box in answer.boxes]
    assert label == "car" and corners == pytest.approx(CAR)
    assert ("the answer breaks off: its last entry was left out" in answer.repairs) == (form == "cut off")


@pytest.mark.parametrize(
    "text",
    [
        "<ref>car</ref><box>(100,50),(220,130)</box><ref>bus</ref><box>(300,40),(420,160)</box>",
        "<|object_ref_start|>car<|object_ref_end|><|box_start|>(100,50),(220,130)<|box_end|>"
        "<|object_ref_start|>bus<|object_ref_end|><|box_start|>(300,40),(420,160)<|box_end|>",
        "<ref>car</ref><box>[[100, 50, 220, 130]]</box>\n<ref>bus</ref><box>[[300, 40, 420, 160]]</box>",
        '{"car": [[100, 50, 220, 130]], "bus": [[300, 40, 420, 160]]}',
        '{"car": [100, 50, 220, 130], "bus": [300, 40, 420, 160]}',
        '[{"car": [100, 50, 220, 130]}, {"bus": [300, 40, 420, 160]}]',
        '{"car": {"bbox": [100, 50, 220, 130]}, "bus": [{"bbox_2d": [300, 40, 420, 160]}]}',
        '{"car_1": [100, 50, 220, 130], "bus_1": {"x1": 300, "y1": 40, "x2": 420, "y2": 160}}',
        '[{"bbox": [100, 50, 220, 130], "class_name": "car"}, {"bbox": [300, 40, 420, 160], "class_name": "bus"}]',
        '[{"bbox": [100, 50, 220, 130], "type": "moving", "className": "car"},'
        ' {"bbox": [300, 40, 420, 160], "label": {"name": "bus"}}]',
        '{"bboxes": [[100, 50, 220, 130], [300, 40, 420, 160]], "labels": ["car", "bus"]}',
        '{"labels": ["car", "bus"], "boxes": [{"x1": 100, "y1": 50, "x2": 220, "y2": 130},'
        ' {"x1": 300, "y1": 40, "x2": 420, "y2": 160}]}',
        '[["car", "bus"], [[100, 50, 220, 130], [300, 40, 420, 160]]]',
        '[["car", 100, 50, 220, 130], ["bus", [300, 40, 420, 160]]]',
        '{"detections": [{"category": "car", "bbox": [100, 50, 220, 130]},'
        ' {"thing": "bus", "box": [300, 40, 420, 160]}]}',
        "1. car: [100, 50, 220, 130]\n2. bus: [300, 40, 420, 160]",
        "- **car**: (100, 50, 220, 130)\n- **bus**: (300, 40), (420, 160)",
        "There is a car at [100, 50, 220, 130]. The bus is at [300, 40, 420, 160].",
        "[100, 50, 220, 130] car\n[300, 40, 420, 160] bus",
        "car:\n[100, 50, 220, 130]\nbus:\n[300, 40, 420, 160]",
        "car 1\n[100, 50, 220, 130]\n\nbus 1\n[300, 40, 420, 160]",
        "| car | [100, 50, 220, 130] |\n| bus | [300, 40, 420, 160] |",
        'A "car" [100, 50, 220, 130] and a "bus" (300, 40, 420, 160)',
        "<car>[100, 50, 220, 130]</car>\n<bus>[300, 40, 420, 160]</bus>",
        '{"结果": [{"标签": "car", "边界框": [100, 50, 220, 130]}, {"标签": "bus", "边界框": [300, 40, 420, 160]}]}',
        '[{"类别": "car", "坐标": [100, 50, 220, 130]}, {"名称": "bus", "框": [300, 40, 420, 160]}]',
    ],
)  # fmt: skip
def test_a_label_wherever_it_stands(text):
    assert boxes(text) == [("car", CAR), ("bus", BUS)]


@pytest.mark.parametrize(
    ("text", "repair", "says_where"),
    [
        ('[{"label": "car", "bbox": null}]', "a box of null was left out", True),
        ('[{"label": "car", "bbox": [1, null, 22, 13]}]', "a box with null in place of a number was left out", True),
        ('[{"label": "car", "bbox": {"x1": null, "y1": null}}]', "a box of null was left out", True),
        ('[{"bbox": {"x1": 1, "y1": 2, "x2": 3}}]', "a box without all of its sides was left out", False),
        ('[{"label": "car", "color": [10, 20, 30, 255]}]', "numbers under the key 'color' were left out", False),
        ('[{"label": "car", "what": [10, 20, 30, 255]}]', "numbers under the key 'what' were left out", False),
        ('[{"label": "car", "bbox": "to the left"}]', "an object without a box was left out", False),
        ('[{"label": "car", "bbox": [1234567890123456789, 50, 2234567890123456789, 130]}]',
         "a box without any area was left out", True),
        ('[{"label": "car", "bbox": [0, 0, 1, 1]}]',
         "a box of coordinates from 0 to 1 was left out: pixels or shares of the image", True),
        ('[{"label": "car", "bbox": [100, 50, 220, 130, 7]}]',
         "5 numbers are neither a box nor a point and were left out", False),
        ('["car", "bus"]', "entries without a box were left out", False),
        ('{"error": "no picture"}', "an entry with the keys 'error' could not be read and was left out", False),
        ('{"boxes": [[100, 50, 220, 130], [300, 40, 420, 160]], "labels": ["car", "bus", "van"]}',
         "3 labels stand beside 2 boxes, which were left out", False),
        ('[{"box": [100, 50, 220, 130], "thing": "bus", "other": "red"}]',
         "a box whose label cannot be told was left out", False),
        ("There is a lot to be said about what stands at [100, 50, 220, 130].",
         "a box whose label cannot be told was left out", False),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named(text, repair, says_where):
    answer = parse_answer(text, extent=(800, 500))
    assert answer.boxes == () and answer.points == ()
    assert repair in answer.repairs
    assert answer.says_where is says_where, "a form that is not known is no empty scene"


def test_what_describes_a_whole_picture_is_no_label():
    text = '{"description": "A street.", "objects": [{"bbox_2d": [100, 50, 220, 130]}, {"bus": [300, 40, 420, 160]}]}'
    assert boxes(text) == [("", CAR), ("bus", BUS)]
    assert boxes('{"description": "car", "bbox_2d": [100, 50, 220, 130]}') == [("car", CAR)]
    assert boxes('{"class": "car", "instances": [{"bbox_2d": [100, 50, 220, 130]}]}') == [("car", CAR)]


@pytest.mark.parametrize("text", ["[]", "{}", '{"detections": []}', '{"car": []}', '{"boxes": [], "labels": []}'])
def test_an_empty_scene_needs_no_note(text):
    answer = parse_answer(text, extent=(800, 500))
    assert answer.says_where and answer.repairs == ()


def test_a_number_of_nineteen_digits_is_clipped_like_any_other():
    assert boxes('[{"bbox": [100, 50, 1234567890123456789, 130], "label": "car"}]', extent=(220, 500)) == [("car", CAR)]


def test_shares_slightly_beyond_the_image_are_shares():
    assert boxes('[{"bbox": [-0.02, 0.5, 0.5, 1.01], "label": "car"}]', extent=(800, 500)) == [
        ("car", (0, 250, 400, 500))
    ]


def test_percent_of_an_unknown_image_is_named():
    answer = parse_answer('[{"bbox": ["10%", "10%", "20%", "20%"], "label": "car"}]')
    assert answer.boxes == () and "coordinates in percent were left out" in answer.repairs


sides = st.tuples(st.integers(2, 400), st.integers(2, 400), st.integers(1, 400), st.integers(1, 400)).map(
    lambda row: (row[0], row[1], row[0] + row[2], row[1] + row[3])
)
FORMS = [
    lambda x1, y1, x2, y2: {"bbox_2d": [x1, y1, x2, y2]},
    lambda x1, y1, x2, y2: {"bbox": {"x1": x1, "y1": y1, "x2": x2, "y2": y2}},
    lambda x1, y1, x2, y2: {"xmin": x1, "ymin": y1, "xmax": x2, "ymax": y2},
    lambda x1, y1, x2, y2: {"box": {"left": x1, "top": y1, "width": x2 - x1, "height": y2 - y1}},
    lambda x1, y1, x2, y2: {"bounding_box": [[x1, y1], [x2, y2]]},
    lambda x1, y1, x2, y2: {"bbox": [f"{x1}px", f"{y1}px", f"{x2}px", f"{y2}px"]},
]


@given(st.lists(st.tuples(sides, st.sampled_from(FORMS), st.sampled_from(["car", "bus", "sign"])), max_size=6))
def test_every_form_gives_the_boxes_that_went_into_it(rows):
    wanted = dict.fromkeys((label, tuple(map(float, row))) for row, _, label in rows)
    assert boxes(json.dumps([{**form(*row), "label": label} for row, form, label in rows]), (800, 800)) == list(wanted)
    by_label = {label: [form(*row) for row, form, each in rows if each == label] for _, _, label in rows}
    assert set(boxes(json.dumps(by_label), (800, 800))) == set(wanted)


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
    '{"bboxes": [{"x1": 1, "y1": "2%", "x2": 30, "y2": 40}, [5, 6, 70, 80]], "labels": ["car", "bus"], "size": [1, 2]}',
    "1. car: (100, 50), (220, 130)\n<ref>bus</ref><box>[[0.1, 0.2, 0.5, 0.6]]</box>{'car': [[1, 2, 3, 4]]}",
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
    assert fuzz(3000) > 800  # `python test/unit/test_parsing.py 100000` checks as many as one likes


NOISE = ["[", '{"a":', '"\\', "[1,", '"', "a", 'a:"', "1", "[1,2,3,4],", '{"label": "', "a:[1,", "'a': '", "<think>",
         "<answer>", " ", "[ ", "aaaa_", '("1" ', "```json\n", "[1 2", "\\", "(1,2),", "1 ",
         '{"x1":1,', "<box>", "<ref>a</ref>", "'", "a: ", '{"label":"a","x":[', "a:\n[1,2,3,4]\n", '["a",[1,2,3,4],',
         "1%", "9", "{'a':[", '"a" ', "[[1,2],[3,4]]"]  # fmt: skip


@pytest.mark.parametrize("unit", NOISE)
def test_much_noise_takes_linear_time(unit):
    check(unit * (250_000 // len(unit)))  # in quadratic time this would run into the timeout


if __name__ == "__main__":
    wanted = int(sys.argv[1])
    print(f"{wanted} mutated answers, of which {fuzz(wanted, seed=1)} still held a box; none raised")
