"""A model that zooms by tool calls: its boxes become regions, its crops come back to it, and its errors are told."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activeo3_ros.core import ActivePerception, Budget, Frame, Query, Status
from activeo3_ros.policies.zoom_tool import ZoomToolSensing
from activeo3_ros.vlm.engine import Reply, Request, Token
from activeo3_ros.vlm.families import FAMILIES, QWEN2_5_VL
from activeo3_ros.vlm.task import MllmTask
from activeo3_ros.vlm.tool_calls import ZoomCall, zoom_calls

WIDTH, HEIGHT = 1120, 560
BUDGET = partial(Budget, view_pixels=WIDTH * HEIGHT, crop_pixels=280 * 280, max_tokens=200)
QUESTION = Query("What is the number on the car?")
ANSWER = "<think>Now I see it.</think><answer>102</answer>"


def call(*corners, label="the car", **more):
    """A call as Qwen2.5-VL, Qwen3-VL and DeepEyes write it."""
    body = json.dumps({"name": "image_zoom_in_tool", "arguments": {"bbox_2d": corners, "label": label, **more}})
    return f"<think>It is small.</think> <tool_call>\n{body}\n</tool_call>"


def call_in_xml(*corners, label="the car"):
    """A call as Qwen3.5 writes it."""
    box = f"<parameter=bbox_2d>\n{list(corners)}\n</parameter>\n<parameter=label>\n{label}\n</parameter>"
    return f"<think>\nSmall.\n</think>\n\n<tool_call>\n<function=image_zoom_in_tool>\n{box}\n</function>\n</tool_call>"


class ScriptedEngine:
    """Stands in for a model: writes the given answers in turn."""

    device = "cpu"

    def __init__(self, *answers, family=QWEN2_5_VL, finished=True):
        self.family, self.answers, self.finished = family, list(answers), finished
        self.requests: list[Request] = []

    def generate(self, requests):
        self.requests += requests
        texts = [self.answers.pop(0) for _ in requests]
        return [
            Reply(text, tuple(Token(c, 0.5) for c in text), each.image.shape[1::-1], finished=self.finished)
            for text, each in zip(texts, requests, strict=True)
        ]

    def describe(self):
        return "scripted"

    def close(self):
        pass


def frame():
    return Frame(np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))


def perceive(engine, query=QUESTION, max_regions=3, image=None, **settings):
    sensing = ZoomToolSensing(engine, shorter_side=560, crop_side=280, **settings)
    task = MllmTask(engine, crop_side=280, keep_aspect=True)
    loop = ActivePerception(sensing, task, BUDGET(max_regions), examine_view=False)
    return loop.perceive(image or frame(), query)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
@pytest.mark.parametrize("written", [call, call_in_xml], ids=["json", "xml"])
def test_a_call_becomes_a_region_and_its_crop_goes_back_as_the_tools_answer(family, written):
    size = family.fit(WIDTH, HEIGHT, 2_097_152, 560)
    wide, high = family.extent(size)
    engine = ScriptedEngine(written(wide // 2, high // 2, wide, high), ANSWER, family=family)
    image = frame()
    result = perceive(engine, image=image)
    assert (result.status, result.answer, result.status_message) == (Status.COMPLETE, "102", "")
    (region,) = result.regions
    assert region.box.as_tuple() == pytest.approx((WIDTH / 2, HEIGHT / 2, WIDTH / 2, HEIGHT / 2), abs=2)
    assert region.label == "the car" and region.score == 0.5
    first, second = engine.requests
    assert first.turns == () and first.prompt == second.prompt and np.array_equal(first.image, second.image)
    (turn,) = second.turns
    assert turn.answer.endswith("</tool_call>")
    assert turn.before.startswith("<tool_response>") and turn.after.endswith("</tool_response>")
    crop = image.view(region.box, turn.image.shape[1::-1]).image
    assert np.array_equal(turn.image, crop), "resampled once from the frame at its full resolution"
    assert all(side % family.cell_px == 0 for side in turn.image.shape[:2])


def test_what_was_looked_at_is_told_and_paid_for_once():
    engine = ScriptedEngine(call(0, 0, 280, 280), call(280, 0, 560, 280, label="a sign"), ANSWER)
    result = perceive(engine)
    assert [region.label for region in result.regions] == ["the car", "a sign"]
    assert len(engine.requests) == 3, "the task model did not look at the regions again"
    assert result.cost.views == 3 and result.cost.tokens == sum(map(len, (call(0, 0, 280, 280), ANSWER))) + len(
        call(280, 0, 560, 280, label="a sign")
    )
    assert result.reasoning == "It is small.\nIt is small.\nNow I see it."
    assert result.detections == ()


def test_a_part_of_a_part_is_in_the_pixels_of_the_frame():
    """`img_idx` 1 is the first crop: 280 x 140 px of the view's right lower quarter, shown at 392 x 196 px."""
    engine = ScriptedEngine(call(560, 280, 1120, 560), call(0, 0, 196, 98, img_idx=1), ANSWER)
    result = perceive(engine)
    inner = result.regions[1].box
    assert engine.requests[2].turns[0].image.shape == (196, 392, 3)
    assert inner.as_tuple() == pytest.approx((560, 280, 280, 140), abs=1)


WRONG = [
    ("<tool_call>\n{'name': 'rotate', 'arguments': {'angle': 90}}\n</tool_call>", "unknown tool 'rotate'"),
    ('<tool_call>{"bbox_2d": [0, 0, 90, 90]}</tool_call>', "names no tool"),
    ('<tool_call>{"name": "image_zoom_in_tool", "arguments": {}}</tool_call>', "has no box"),
    ('<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [1, 2, 3]}}</tool_call>', "has no box"),
    ('<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": "left"}}</tool_call>', "has no box"),
    ('<tool_call>{"name": "image_zoom_in_tool", "argum', "the tool call breaks off"),
    ("<tool_call>zoom please</tool_call>", "names no tool"),
    (call(5000, 5000, 6000, 6000), "the box [5000, 5000, 6000, 6000] is outside of the picture, 0 to 1120 x 560"),
    (call(-90, -90, -10, -10), "the box [-90, -90, -10, -10] is outside of the picture"),
    (call(10, 10, 11, 11), "the box is smaller than 2 pixels of the camera"),
    (call(0, 0, 90, 90, img_idx=3), "there is no picture 3; pictures are 0 to 0"),
    (call(0, 0, 90, 90, img_idx=-1), "there is no picture -1"),
]


@pytest.mark.parametrize(("text", "complaint"), WRONG)
def test_a_call_that_cannot_be_followed_is_told_to_the_model_and_to_the_user(text, complaint):
    engine = ScriptedEngine(text, ANSWER)
    result = perceive(engine)
    assert result.answer == "102" and result.regions == ()
    assert f"sensing: tool call 1: {complaint}" in result.status_message or complaint in result.status_message
    (turn,) = engine.requests[1].turns
    assert turn.image is None and turn.after.startswith("<tool_response>\nError: ") and complaint in turn.after


def test_a_box_that_reaches_outside_is_cut_and_that_is_told():
    result = perceive(ScriptedEngine(call(1000, 400, 1300, 700), ANSWER))
    assert result.regions[0].box.as_tuple() == pytest.approx((1000, 400, 120, 160), abs=1)
    assert "a tool call's box reached outside of the picture and was cut" in result.status_message


@pytest.mark.parametrize(("max_calls", "max_regions", "asked"), [(2, 8, 3), (6, 1, 2), (16, 4, 5)])
def test_turns_are_bounded_and_without_an_answer_the_task_model_examines_the_regions(max_calls, max_regions, asked):
    """A model that never stops calling ends with what it chose: no answer is invented, and no road is empty."""
    calls = [call(0, 0, 90 + n, 90) for n in range(asked)]
    reads = ['```json\n{"answer": "102"}\n```'] * (asked - 1)
    engine = ScriptedEngine(*calls, *reads)
    result = perceive(engine, max_calls=max_calls, max_regions=max_regions)
    assert len(result.regions) == asked - 1 and result.answer == "102"
    assert "sensing: the model called the tool after its last call, and gave no answer" in result.status_message
    last = engine.requests[asked - 1].turns[-1]
    assert "No more calls are possible" in last.after


def test_faulty_calls_are_bounded_too_and_then_the_whole_view_is_examined():
    wrong = "<tool_call>zoom please</tool_call>"
    engine = ScriptedEngine(wrong, wrong, wrong, '```json\n{"answer": "unknown"}\n```')
    result = perceive(engine, max_calls=2)
    assert result.status is Status.COMPLETE and result.answer is None and result.regions == ()
    assert "tool call 2" in result.status_message and len(engine.requests) == 4


@pytest.mark.parametrize("text", ["", "<think>I wonder", "<answer></answer>", '{"name": "image_zoom_in_tool"}'])
def test_a_conversation_without_an_answer_is_no_answer(text):
    engine = ScriptedEngine(text, "I rather would not.", finished=False)
    result = perceive(engine)
    assert result.status is Status.FAILED and result.answer is None
    assert "none of 1 answers could be used" in result.status_message


def test_an_unknown_answer_is_none_and_no_failure():
    result = perceive(ScriptedEngine(call(0, 0, 90, 90), "<answer>unknown</answer>"))
    assert result.status is Status.COMPLETE and result.answer is None and len(result.regions) == 1


def test_for_classes_the_calls_choose_regions_and_the_task_model_finds():
    found = '```json\n[{"bbox_2d": [14, 14, 56, 56], "label": "car"}]\n```'
    engine = ScriptedEngine(call(0, 0, 280, 280), "<answer>done</answer>", found)
    result = perceive(engine, Query(classes=("car",)))
    assert [d.label for d in result.detections] == ["car"] and result.detections[0].region == 0
    assert "Targets: car." in engine.requests[0].prompt.after


def test_only_the_first_of_several_calls_in_one_answer_is_followed():
    engine = ScriptedEngine(call(0, 0, 90, 90) + call(90, 90, 200, 200), ANSWER)
    result = perceive(engine)
    assert len(result.regions) == 1 and "only the first of 2 tool calls" in result.status_message


def test_no_zoom_is_asked_for_where_the_budget_has_none():
    engine = ScriptedEngine('```json\n{"answer": "102"}\n```')
    assert perceive(engine, max_regions=0).answer == "102" and engine.requests[0].turns == ()


def test_a_call_that_is_only_thought_of_is_none():
    assert zoom_calls("<think>I may use <tool_call>zoom</tool_call> later</think><answer>1</answer>") == []


@given(st.text(alphabet='<>/tool_cal{}[]"nmebx2d:,0123 -functi=', max_size=200))
def test_any_text_is_calls_or_errors_and_raises_nothing(text):
    for found in zoom_calls(f"<tool_call>{text}</tool_call>"):
        assert isinstance(found, (str, ZoomCall)) and "\n" not in str(found)
