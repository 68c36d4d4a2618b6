"""The vision-language model as policy and as task model: its answers in the loop."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from activeo3_ros.core import ActivePerception, Box, Budget, Frame, InvalidInput, Query, Status
from activeo3_ros.core.errors import EngineError, OutOfMemory
from activeo3_ros.policies.mllm import MllmSensing
from activeo3_ros.policies.zoom_tool import ZoomToolSensing
from activeo3_ros.presets import load_preset
from activeo3_ros.vlm.engine import Reply, Request, Token
from activeo3_ros.vlm.families import FAMILIES, QWEN2_5_VL
from activeo3_ros.vlm.out_of_memory import generate_within_memory
from activeo3_ros.vlm.parsing import parse_answer
from activeo3_ros.vlm.prompts import is_question, load_prompt
from activeo3_ros.vlm.reply_notes import reply_notes
from activeo3_ros.vlm.task import MllmTask, label_for

BUDGET = Budget(max_regions=3, view_pixels=560 * 560, crop_pixels=280 * 280)
CARS = Query(classes=("car",))


class FakeEngine:
    """Writes the given answers, one for each request in turn, with the given probability for every token.

    Each character is a token, so that a test can say which part of an answer has which probability.
    """

    def __init__(self, *answers, family=QWEN2_5_VL, probability=0.5):
        self.family = family
        self.answers = list(answers)
        self.probability = probability
        self.requests: list[Request] = []

    def generate(self, requests):
        self.requests += requests
        return [self.reply(request, self.answers.pop(0)) for request in requests]

    def reply(self, request, text):
        size = request.image.shape[1], request.image.shape[0]
        return Reply(text, tuple(Token(c, self.probability) for c in text), size, finished=True)

    def describe(self):
        return "fake"

    def close(self):
        pass


class FakeSmallMemory(FakeEngine):
    """Raises OutOfMemory for more than `pixels` pixels together, as a device does that is short of memory."""

    def __init__(self, pixels, **settings):
        super().__init__(**settings)
        self.pixels = pixels
        self.refused = 0

    def generate(self, requests):
        if sum(request.image.shape[0] * request.image.shape[1] for request in requests) > self.pixels:
            self.refused += 1
            raise OutOfMemory(f"no room for {len(requests)} requests")
        return [self.reply(request, '[{"bbox_2d": [0, 0, 28, 28], "label": "car"}]') for request in requests]


def perceive(sensing_engine, task_engine, query=CARS, budget=BUDGET, size=(1200, 800), **settings):
    image = np.zeros((size[1], size[0], 3), np.uint8)
    loop = ActivePerception(
        MllmSensing(sensing_engine, **settings), MllmTask(task_engine, crop_side=280), budget, examine_view=False
    )
    return loop.perceive(Frame(image), query)


def region_answer(*corners, label="far cars"):
    items = ", ".join(f'{{"bbox_2d": {list(box)}, "label": "{label}"}}' for box in corners)
    return f"<think>Far away.</think><answer>[{items}]</answer>"


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_boxes_travel_from_the_model_to_the_source_frame_and_back(family):
    frame_box = Box(600.0, 400.0, 300.0, 200.0)
    view = family.fit(1200, 800, BUDGET.view_pixels, 1024)
    extent = family.extent(view)
    corners = [round(frame_box.x / 1200 * extent[0]), round(frame_box.y / 800 * extent[1])]
    corners += [round(frame_box.right / 1200 * extent[0]), round(frame_box.bottom / 800 * extent[1])]
    crop = family.extent(family.fit(1, 1, 280 * 280))
    middle = [round(crop[0] * share) for share in (0.25, 0.5, 0.75, 1.0)]
    found = f'[{{"bbox_2d": {middle}, "label": "car"}}]'
    result = perceive(FakeEngine(region_answer(corners), family=family), FakeEngine(found, family=family))
    assert result.status is Status.COMPLETE, result.status_message
    region = result.regions[0].box
    assert region.as_tuple() == pytest.approx(frame_box.as_tuple(), abs=3)
    car = result.detections[0]
    expected = (region.x + region.width / 4, region.y + region.height / 2, region.width / 2, region.height / 2)
    assert car.box.as_tuple() == pytest.approx(expected, abs=1)
    assert (car.label, car.region, car.score) == ("car", 0, 0.5)
    assert result.reasoning == "Far away." and result.regions[0].label == "far cars"
    assert result.cost.tokens > 50 and result.cost.views == 2


def test_all_regions_are_examined_in_one_call():
    task = FakeEngine("[]", "[]", "[]")
    calls = []
    generate = task.generate
    task.generate = lambda requests: (calls.append(len(requests)), generate(requests))[1]
    perceive(FakeEngine(region_answer([0, 0, 90, 90], [200, 200, 300, 300], [400, 0, 500, 90])), task)
    assert calls == [3]


def test_a_score_is_nan_where_the_engine_gives_no_probabilities():
    found = '[{"bbox_2d": [10, 10, 90, 90], "label": "car"}]'
    engine = FakeEngine(found, probability=math.nan)
    result = perceive(FakeEngine(region_answer([0, 0, 90, 90])), engine)
    assert len(result.detections) == 1 and math.isnan(result.detections[0].score)


def test_the_score_of_a_box_is_the_mean_probability_of_its_own_tokens():
    text = '[{"bbox_2d": [1, 2, 30, 40], "label": "car"}]'
    start, stop = text.index("[1"), text.index("]", text.index("[1")) + 1
    tokens = tuple(Token(c, 0.25 if start <= i < stop else 1.0) for i, c in enumerate(text))
    reply = Reply(text, tokens)
    assert reply.probability([(start, stop)]) == 0.25
    label = text.index("car")
    numbers = stop - start
    assert reply.probability([(start, stop), (label, label + 3)]) == pytest.approx((numbers * 0.25 + 3) / (numbers + 3))
    forced = Reply("abc" + text, tokens)
    assert math.isnan(forced.probability([(0, 3)]))  # what was forced has no probability


def test_repairs_are_told():
    result = perceive(FakeEngine(region_answer([90, 90, 0, 0])), FakeEngine('[{"bbox_2d [1, 2, 90, 90]": "car"}]'))
    assert "sensing: the corners of a box were reversed" in result.status_message
    assert "region 1: a key was fused with its value" in result.status_message


def test_a_policy_that_cannot_be_understood_leaves_the_whole_view_to_the_task_model():
    result = perceive(FakeEngine("I would rather not."), FakeEngine("[]"))
    assert result.status is Status.COMPLETE and result.regions == ()
    assert "sensing: " in result.status_message


def test_answers_that_cannot_be_understood_are_a_failure_and_no_empty_road():
    result = perceive(FakeEngine(region_answer([0, 0, 90, 90])), FakeEngine("<think>hm"))
    assert result.status is Status.FAILED
    assert "none of 1 answers could be used" in result.status_message


def test_prose_in_place_of_a_list_is_no_empty_road_either():
    result = perceive(FakeEngine(region_answer([0, 0, 90, 90])), FakeEngine("I cannot see the picture."))
    assert result.status is Status.FAILED


def test_one_object_named_twice_is_one():
    found = '[{"bbox_2d": [10, 10, 90, 90], "label": "car"}, {"bbox_2d": [12, 10, 90, 91], "label": "cars"}]'
    result = perceive(FakeEngine(region_answer([0, 0, 90, 90])), FakeEngine(found))
    assert [d.label for d in result.detections] == ["car"]


ROAD = region_answer([0, 0, 90, 90])


@pytest.mark.parametrize(
    "found",
    [
        '[{"bbox": {"x1": 10, "y1": 10, "x2": 90, "y2": 90}, "class_name": "bus"}]',
        '{"bus": [[10, 10, 90, 90]], "car": []}',
        "<ref>bus</ref><box>(10,10),(90,90)</box>",
        "1. bus: [10, 10, 90, 90]",
        "There is a bus at [10, 10, 90, 90]",
        '{"boxes": [[10, 10, 90, 90]], "labels": ["bus"]}',
        '[{"bbox_2d": [10, 10, 90, 90], "thing": "bus"}]',
        '[{"bbox_2d": [10, 10, 90, 90], "label": "bu',
        '[{"bbox_2d": [10, 10, 90, 90], "bus": true}]',
        "bus\n[10, 10, 90, 90]",
        "| bus 1 | [10, 10, 90, 90] |",
        "<bus>[10, 10, 90, 90]</bus>",
        '{"bus_bbox": [10, 10, 90, 90]}',
        '{"bbox_2d": [10, 10, 90, 90], "bus": [1, 2], "kind": "a", "colour": "red", "sort": "bus"}',
    ],
)
def test_a_box_of_another_class_is_never_reported_as_the_one_asked(found):
    result = perceive(FakeEngine(ROAD), FakeEngine(found))
    assert "car" not in {detection.label for detection in result.detections}
    assert {detection.label for detection in result.detections} <= {"bus", "a"}
    assert result.detections or "left out" in result.status_message or "could be used" in result.status_message


def test_a_key_that_is_no_class_is_named_and_left_out():
    found = '{"window": [0, 0, 280, 280], "cars": [10, 10, 90, 90]}'
    result = perceive(FakeEngine(ROAD), FakeEngine(found))
    assert [d.label for d in result.detections] == ["car"]
    assert "region 1: boxes of 'window', which is no class that was asked for, were left out" in result.status_message


def test_boxes_that_cannot_be_read_are_a_failure_and_no_empty_road():
    result = perceive(FakeEngine(ROAD), FakeEngine('[{"label": "car", "place": {"from": [1, 2], "to": "there"}}]'))
    assert result.status is Status.FAILED and "could be used" in result.status_message


def test_points_are_no_empty_road():
    result = perceive(FakeEngine(ROAD), FakeEngine('[{"point_2d": [10, 20], "label": "car"}]'))
    assert result.status is Status.FAILED and "1 points were left out: boxes were asked for" in result.status_message


def test_boxes_of_null_are_an_empty_road_and_told():
    result = perceive(FakeEngine(ROAD), FakeEngine('[{"label": "car", "bbox_2d": null}]'))
    assert result.status is Status.COMPLETE and "region 1: a box of null was left out" in result.status_message


def test_boxes_without_a_label_are_told_where_several_classes_are_asked_for():
    query = Query(classes=("car", "bus"))
    result = perceive(FakeEngine(ROAD), FakeEngine('[{"bbox_2d": [10, 10, 90, 90]}]'), query)
    assert [d.label for d in result.detections] == ["object"]
    assert "boxes without a label are reported as 'object'" in result.status_message


@pytest.mark.parametrize(
    ("label", "classes", "name"),
    [
        ("Cars", ("car",), "car"),
        ("bus", ("buses",), "buses"),
        ("traffic_light", ("car", "traffic light"), "traffic light"),
        ("cone", ("con", "cones"), "cones"),
        ("cones", ("con", "cone"), "cone"),
        ("con", ("cone",), "con"),
        ("red car", ("car",), "red car"),
        ("", ("car",), "car"),
    ],
)
def test_the_class_that_a_label_means(label, classes, name):
    assert label_for(label, Query(classes=classes)) == name


def test_what_is_said_of_a_cut_off_answer_is_true():
    def cut(text):
        return Reply(text, tuple(Token(character) for character in text), (280, 280), finished=False)

    for text, says in (
        ('[{"bbox_2d": [10, 10, 90, 90], "label": "car"}, {"bbox_2d": [1', "the answer was cut off after 62 tokens"),
        ('[{"bbox_2d": [10, 10, 90, 90], "label": "car"}]', "the answer is whole and reached its limit of 47 tokens"),
    ):
        reply = cut(text)
        notes = reply_notes(reply, parse_answer(text), True)
        assert says in notes
        assert ("the answer breaks off: its last entry was left out" in notes) == ("cut off" in says)
    unknown = Reply("[1", (Token("[1"),), (280, 280), finished=False)
    assert "the answer was cut off" in reply_notes(unknown, parse_answer("[1"), False), "its tokens were not counted"


def test_a_question_is_answered_from_the_region_that_shows_it():
    regions = region_answer([0, 0, 90, 90], [200, 200, 300, 300])
    replies = ('```json\n{"answer": "unknown"}\n```', '```json\n{"answer": "102", "bbox_2d": [10, 10, 90, 90]}\n```')
    result = perceive(FakeEngine(regions), FakeEngine(*replies), Query("What is the number on the police car?"))
    assert result.answer == "102"
    assert [(g.text, g.region) for g in result.groundings] == [("102", 1)]
    assert result.groundings[0].phrase == "What is the number on the police car?"


def test_a_question_with_its_options_on_further_lines_is_a_question():
    assert is_question(Query("On which side is the person?\n(A) left\n(B) right\nAnswer with the letter."))
    assert not is_question(Query("the person on the left\nwith a hat"))


SEEN = '```json\n{"answer": "102", "bbox_2d": [10, 10, 90, 90]}\n```'


def test_a_gate_looks_at_no_region_where_the_view_suffices():
    sensing = FakeEngine(SEEN, probability=0.95)
    result = perceive(sensing, FakeEngine(), Query("What is the number on the police car?"), gate=0.9)
    assert (result.status, result.answer, result.regions, result.cost.views) == (Status.COMPLETE, "102", (), 1)
    assert "no region was looked at" in result.status_message and result.cost.tokens == len(SEEN)
    assert [(g.text, g.region) for g in result.groundings] == [("102", -1)]


@pytest.mark.parametrize(
    ("of_view", "probability"),
    [(SEEN, 0.5), (SEEN, math.nan), ('{"answer": "102"}', 0.95), ('{"answer": "unknown"}', 0.95), ("<think>hm", 0.95)],
)
def test_a_gate_stays_open_where_the_view_is_not_sure_or_does_not_say_where(of_view, probability):
    sensing = FakeEngine(of_view, region_answer([0, 0, 90, 90]), probability=probability)
    task = FakeEngine('{"answer": "7", "bbox_2d": [10, 10, 90, 90]}')
    result = perceive(sensing, task, Query("What is the number on the police car?"), gate=0.9)
    assert result.answer == "7" and len(result.regions) == 1 and "no region" not in result.status_message


def test_a_gate_and_streamed_regions_contradict_each_other_in_one_line():
    with pytest.raises(InvalidInput, match="set stream_regions: false, or gate: 0"):
        MllmSensing(FakeEngine(), gate=0.9, stream_regions=True)
    with pytest.raises(InvalidInput, match="gate must be 0 to 1"):
        MllmSensing(FakeEngine(), gate=1.5)


def test_a_gate_is_off_unless_it_is_set_and_is_for_questions_alone():
    sensing = FakeEngine(region_answer([0, 0, 90, 90]))
    perceive(sensing, FakeEngine(SEEN), Query("What is the number on the police car?"))
    assert len(sensing.requests) == 1
    sensing = FakeEngine(region_answer([0, 0, 90, 90]))
    assert perceive(sensing, FakeEngine("[]"), CARS, gate=0.9).status is Status.COMPLETE


REASONED = {"question_prompt": "task_question_reasoned", "crop_side": 280}
"""The form in which ZwZ's models were trained to answer."""


def ask_whole(engine, question="What colour is the car?"):
    loop = ActivePerception(MllmSensing(FakeEngine()), MllmTask(engine, **REASONED), Budget(max_regions=0))
    return loop.perceive(Frame(np.zeros((200, 300, 3), np.uint8)), Query(question))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("A car stands at the left, its door is red. <answer>red</answer>", "red"),
        ("<think>Its box is [10, 20, 30, 40].</think><answer> B </answer>", "B"),
        ("The plate says 102.\n<answer>\n102\n</answer>", "102"),
        ("Not to be seen. <answer>unknown</answer>", None),
        ("red", "red"),
    ],
)
def test_an_answer_in_the_form_of_zwz_is_what_stands_between_its_tags(text, answer):
    engine = FakeEngine(text)
    result = ask_whole(engine)
    assert result.status is Status.COMPLETE and result.answer == answer
    prompt = engine.requests[0].prompt
    assert prompt.stop == ("</answer>",) and "What colour is the car?" in prompt.after and "<answer>" in prompt.system


@pytest.mark.parametrize("text", ["The door of the car that stands", "The plate says 102. <answer>10", "<answer>re"])
def test_an_answer_that_was_cut_off_is_none_whatever_stands_there(text):
    """Half a number is another number, and reasoning without an end is no answer."""
    engine = FakeEngine(text)
    engine.reply = lambda request, said: replace(FakeEngine.reply(engine, request, said), finished=False)
    result = ask_whole(engine)
    assert result.status is Status.FAILED and result.answer is None
    assert f"the answer was cut off after {len(text)} tokens" in result.status_message


def test_a_question_without_an_answer_has_none():
    replies = ('{"answer": "unknown"}',)
    result = perceive(FakeEngine(region_answer([0, 0, 90, 90])), FakeEngine(*replies), Query("Which bus is it?"))
    assert result.answer is None and result.detections == () and result.status is Status.COMPLETE


@pytest.mark.parametrize("reasoning", ["full", "none"])
def test_a_policy_may_find_nothing_worth_a_closer_look(reasoning):
    """Then the whole view is examined, and nobody is told that an answer was wrong."""
    prefix = load_prompt("sensing_detection").fill(reasoning, target="car", max_regions=3).prefix
    answer = "<think>Nothing is far away.</think>\n<answer>\n[]\n</answer>"
    if reasoning == "none":
        answer = prefix + "]\n</answer>"
    result = perceive(FakeEngine(answer), FakeEngine("```json\n[]\n```"), reasoning=reasoning)
    assert result.status is Status.COMPLETE and result.status_message == ""
    assert result.regions == () and result.cost.views == 2


def test_no_regions_are_asked_for_where_the_budget_has_none():
    sensing = FakeEngine()
    result = perceive(sensing, FakeEngine("[]"), budget=Budget(max_regions=0, view_pixels=560 * 560))
    assert sensing.requests == [] and result.status is Status.COMPLETE


def test_little_memory_first_splits_the_batch_then_shrinks_the_views():
    sensing = region_answer([0, 0, 90, 90], [200, 200, 300, 300], [400, 0, 500, 90])
    roomy = FakeSmallMemory(280 * 280)
    result = perceive(FakeEngine(sensing), roomy)
    assert result.status is Status.COMPLETE and len(result.detections) == 3 and "memory" not in result.status_message
    tight = FakeSmallMemory(280 * 280 * 0.6)
    result = perceive(FakeEngine(sensing), tight)
    assert result.status is Status.COMPLETE and len(result.detections) == 3
    assert "memory was short: shown at 196 x 196 px" in result.status_message
    # The model saw a smaller picture, so its 28 pixels are more of the region.
    region = result.regions[0].box
    assert result.detections[0].box.width == pytest.approx(region.width * 28 / 196, rel=0.01)


def test_no_memory_at_all_fails_the_frame_and_the_next_one_works():
    engine = FakeSmallMemory(1000)
    result = perceive(FakeEngine(region_answer([0, 0, 90, 90])), engine)
    assert result.status is Status.FAILED and "no room for 1 requests" in result.status_message
    engine.pixels = 10**9
    assert perceive(FakeEngine(region_answer([0, 0, 90, 90])), engine).status is Status.COMPLETE


def test_every_request_is_asked_for_once_memory_suffices():
    engine = FakeSmallMemory(3 * 280 * 280)
    requests = [Request(np.zeros((280, 280, 3), np.uint8), load_prompt("task_grounding").fill(target="x"))] * 7
    assert len(generate_within_memory(engine, requests)) == 7


@pytest.mark.parametrize(("reasoning", "start"), [("full", ""), ("short", "<think>"), ("none", "<answer>\n[")])
def test_reasoning_decides_how_the_answer_begins(reasoning, start):
    engine = FakeEngine(region_answer([0, 0, 90, 90]))
    perceive(engine, FakeEngine("[]"), reasoning=reasoning)
    prompt = engine.requests[0].prompt
    assert prompt.prefix == start and "car" in prompt.after and "car" not in prompt.before.split()


@pytest.mark.parametrize(("reasoning", "stops"), [("full", ("</answer>",)), ("none", ("</answer>", "}]"))])
def test_an_answer_without_thoughts_ends_with_its_list(reasoning, stops):
    assert load_prompt("sensing_detection").fill(reasoning, target="car", max_regions=3).stop == stops


def test_a_prompt_of_ones_own_replaces_ours(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("after_image: Findings for $target, $max_regions times.\nstop: ['</answer>']\n", encoding="utf-8")
    engine = FakeEngine(region_answer([0, 0, 90, 90]))
    perceive(engine, FakeEngine("[]"), prompt=str(path))
    assert engine.requests[0].prompt.after == "Findings for car, 3 times."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("after_image: $nothing", "placeholder 'nothing'"),
        ("afterimage: x", "unknown key 'afterimage'"),
        ("- 1", "mapping"),
        ("stop: {loud: ['x']}", "'stop' must be a list of texts, or a mapping of full, short, none"),
        ("stop: x", "'stop' must be a list of texts"),
    ],
)  # fmt: skip
def test_a_wrong_prompt_is_explained(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=message):
        load_prompt(str(path)).fill(target="x")


@pytest.mark.parametrize("name", ["active_o3", "active_o3_gdino", "qwen25vl_cot", "qwen3_vl_4b", "zwz_4b", "deepeyes"])
def test_a_preset_without_its_weights_says_how_to_get_them(name, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.setenv("ACTIVEO3_CACHE", str(tmp_path))
    with pytest.raises(EngineError.__bases__[0], match="run: activeo3 prefetch"):
        load_preset(name).build()


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def tiny_engine(request, tmp_path_factory):
    """A real model of each generation with the real tokenizer, tiny and with random weights."""
    from tiny_models import build_tiny_model, require_torch

    require_torch()
    from activeo3_ros.vlm.backends.transformers_engine import TransformersEngine

    return TransformersEngine(str(build_tiny_model(tmp_path_factory.mktemp("m"), request.param)), device="cpu")


def test_random_weights_go_the_whole_way(tiny_engine):
    """They say nothing sensible; what they say is accounted for, and it is no empty scene."""
    sensing, task = MllmSensing(tiny_engine), MllmTask(tiny_engine, crop_side=112)
    loop = ActivePerception(sensing, task, Budget(view_pixels=112 * 112, crop_pixels=112 * 112, max_tokens=8))
    result = loop.perceive(Frame(np.zeros((240, 320, 3), np.uint8)), CARS)
    assert result.cost.tokens >= 8
    assert result.status is Status.FAILED or "sensing" in result.status_message


@pytest.mark.parametrize("reasoning", ["full", "short", "none"])
def test_a_written_box_goes_the_whole_way_through_a_real_model(tiny_engine, monkeypatch, reasoning):
    """Prompt, tokens, stop text, parser, coordinates of this generation, crop, and back to the pixels of the frame."""
    from tiny_models import let_write

    monkeypatch.setattr(tiny_engine.model, "generate", tiny_engine.model.generate)  # so that it is put back
    family = tiny_engine.family
    sensing = MllmSensing(tiny_engine, reasoning=reasoning)
    task = MllmTask(tiny_engine, crop_side=8 * family.cell_px)
    loop = ActivePerception(sensing, task, Budget(view_pixels=280 * 280, max_tokens=120), examine_view=False)
    wide, high = family.extent(sensing.view_size(1200, 800, 280 * 280))
    side, _ = family.extent(task.view_size(1, 1, loop.budget.crop_pixels))
    region = f'{round(wide / 2)}, {round(high / 2)}, {round(wide)}, {round(high)}], "label": "far cars"}}]\n</answer>'
    begun = {
        "full": '<think>There.</think>\n<answer>\n[{"bbox_2d": [',
        "short": 'There.</think>\n<answer>\n[{"bbox_2d": [',
        "none": '{"bbox_2d": [',
    }[reasoning]
    car = (
        f'{{"bbox_2d": [{round(side / 4)}, {round(side / 4)}, {round(side / 2)}, {round(side / 2)}], "label": "car"}}]'
    )
    let_write(tiny_engine, begun + region, car + "\n```")
    result = loop.perceive(Frame(np.zeros((800, 1200, 3), np.uint8)), CARS)
    assert result.status is Status.COMPLETE and result.status_message == ""
    assert result.reasoning == ("" if reasoning == "none" else "There.")
    model_px = max(600 / side, 1200 / wide, 800 / high)
    assert result.regions[0].box.as_tuple() == pytest.approx((600, 400, 600, 400), abs=model_px)
    (found,) = result.detections
    assert found.box.as_tuple() == pytest.approx((750, 500, 150, 100), abs=model_px) and found.score > 0.99


def test_a_zoom_by_tool_call_goes_the_whole_way_through_a_real_model(tiny_engine, monkeypatch):
    """The crop of the call is a second picture in the same conversation, and the answer comes from there."""
    from tiny_models import let_write

    monkeypatch.setattr(tiny_engine.model, "generate", tiny_engine.model.generate)  # so that it is put back
    family = tiny_engine.family
    side = 8 * family.cell_px
    sensing = ZoomToolSensing(tiny_engine, shorter_side=side, crop_side=side)
    loop = ActivePerception(sensing, MllmTask(tiny_engine, crop_side=side), Budget(view_pixels=side * side))
    wide, high = family.extent(sensing.view_size(800, 800, side * side))
    box = [round(wide / 2), round(high / 2), round(wide), round(high)]
    call = f'{{"name": "image_zoom_in_tool", "arguments": {{"bbox_2d": {box}, "label": "the car"}}}}'
    let_write(
        tiny_engine,
        f"<think>Small.</think>\n<tool_call>\n{call}\n</tool_call>",
        "<think>Now.</think><answer>102</answer>",
    )
    result = loop.perceive(Frame(np.zeros((800, 800, 3), np.uint8)), Query("What is the number on the car?"))
    assert (result.status, result.answer, result.status_message) == (Status.COMPLETE, "102", "")
    (region,) = result.regions
    assert region.box.as_tuple() == pytest.approx((400, 400, 400, 400), abs=800 / min(wide, high))
    assert region.score > 0.99 and result.reasoning == "Small.\nNow." and result.cost.views == 2
