"""Regions that are examined while others are still written: the same results, from earlier on."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import wait_for

from activeo3_ros.codecs.result_json import to_json
from activeo3_ros.core import (
    ActivePerception,
    Box,
    Budget,
    Cancelled,
    EngineError,
    Findings,
    Frame,
    Proposal,
    Query,
    Region,
    Result,
    Status,
)
from activeo3_ros.core.interfaces import StreamingPolicy, StreamingTask
from activeo3_ros.policies.mllm import MllmSensing
from activeo3_ros.vlm.continuous_batching import ContinuousBatching
from activeo3_ros.vlm.engine import Reply, Request, Token, tell
from activeo3_ros.vlm.families import QWEN2_5_VL
from activeo3_ros.vlm.parsing import parse_answer
from activeo3_ros.vlm.region_reader import RegionReader
from activeo3_ros.vlm.task import MllmTask

CARS = Query(classes=("car",))
BUDGET = Budget(max_regions=3, view_pixels=560 * 560, crop_pixels=280 * 280)
FRAME = Frame(np.random.default_rng(0).integers(0, 255, (800, 1200, 3), np.uint8))
Corners = tuple[int, int, int, int]
THREE: list[Corners] = [(28, 56, 112, 140), (200, 56, 300, 140), (400, 200, 500, 280)]


def written(boxes: Sequence[Corners], label: str = "far cars") -> str:
    return "[" + ", ".join(f'{{"bbox_2d": {list(box)}, "label": "{label}"}}' for box in boxes) + "]"


class StepByStep:
    """A model that writes one character of each of its answers a step, as `answer` makes them from a request."""

    def __init__(self, answer: Callable[[Request], str]) -> None:
        self.answer = answer
        self.under_way: dict[str, tuple[Request, str, int]] = {}
        self.begun: list[tuple[Request, int]] = []
        """Each request, and the step at which it came."""
        self.steps = 0
        self._names = map(str, itertools.count())
        self.before_step: Callable[[], None] = lambda: None

    def add(self, request: Request) -> str:
        name = next(self._names)
        self.under_way[name] = request, self.answer(request), 0
        self.begun.append((request, self.steps))
        return name

    def step(self) -> list[tuple[str, Reply]]:
        self.before_step()
        self.steps += 1
        done = []
        for name, (request, text, count) in list(self.under_way.items()):
            if text == "broken":
                raise EngineError("cannot answer that")
            self.under_way[name] = request, text, count + 1
            tell(request, text[: count + 1])
            if count + 1 >= len(text):
                size = request.image.shape[1], request.image.shape[0]
                del self.under_way[name]
                tokens = tuple(Token(character, 0.5) for character in text)
                done.append((name, Reply(request.prompt.prefix + text, tokens, size)))
        return done

    def abort(self, names: Sequence[str]) -> None:
        for name in names:
            self.under_way.pop(name, None)


class Engine:
    """Answers sensing requests with the given text; in a crop it finds a car whose place depends on the pixels."""

    family = QWEN2_5_VL
    device = "cpu"

    def __init__(self, sensing: str, task: Callable[[Request], str] | None = None, at_most: int = 3) -> None:
        self.model = StepByStep(lambda request: sensing if is_sensing(request) else (task or found_in)(request))
        self._batching = ContinuousBatching(self.model, contextlib.nullcontext)
        self.model.before_step = self._let_crops_come
        self.reader, self.boxes = RegionReader((672.0, 448.0), at_most), 0

    def _let_crops_come(self) -> None:
        """A step of a real model takes longer than it takes to make a crop."""
        for request, text, count in self.model.under_way.values():
            if is_sensing(request) and request.on_text is not None:
                self.boxes += len(self.reader.new_boxes(request.prompt.prefix + text[:count]))
                wait_for(lambda: len(self.steps_of(False)) + len(self._batching._arrived) >= self.boxes)

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        return self._batching.generate(requests)

    def describe(self) -> str:
        return "fake"

    def close(self) -> None: ...

    def steps_of(self, sensing: bool) -> list[int]:
        """The steps at which requests of a role came."""
        return [step for request, step in self.model.begun if is_sensing(request) == sensing]


def is_sensing(request: Request) -> bool:
    return "zoom" in request.prompt.before


def found_in(request: Request) -> str:
    x = int(request.image.astype(np.int64).sum() % 200)
    return f"```json\n{written([(x, 20, x + 40, 60)], 'car')}\n```"


def perceive(
    sensing: str,
    streams: bool,
    task: Callable[[Request], str] | None = None,
    examine_view: bool = False,
    budget: Budget = BUDGET,
    **more: Any,
) -> tuple[Result, Engine]:
    engine = Engine(sensing, task, budget.max_regions)
    policy, model = MllmSensing(engine, stream_regions=streams), MllmTask(engine, crop_side=280)
    assert isinstance(policy, StreamingPolicy)
    assert isinstance(model, StreamingTask)
    loop = ActivePerception(policy, model, budget, examine_view=examine_view)
    return loop.perceive(FRAME, CARS, **more), engine


def told(result: Result) -> dict[str, Any]:
    """All that a result says but its times."""
    values: dict[str, Any] = to_json(replace(result, timings_ms={}), "frame")
    return values


@pytest.mark.parametrize("examine_view", [False, True])
@pytest.mark.parametrize("boxes", [[], THREE[:1], THREE, [*THREE, (10, 300, 80, 380)], [*THREE[:2], THREE[0]]])
def test_the_result_is_the_same_as_one_after_the_other(boxes: list[Corners], examine_view: bool) -> None:
    answer = written(boxes)[1:]
    plain, _ = perceive(answer, False, examine_view=examine_view)
    streamed, _ = perceive(answer, True, examine_view=examine_view)
    assert plain.status == Status.COMPLETE
    assert told(streamed) == told(plain)
    assert set(streamed.timings_ms) == set(plain.timings_ms)
    assert sum(streamed.timings_ms.values()) <= 2 * streamed.timings_ms["total"] + 1e-6


def test_a_region_is_begun_as_soon_as_its_coordinates_are_written() -> None:
    answer = written(THREE)[1:]
    (_, one_by_one), (_, streamed) = perceive(answer, False), perceive(answer, True)
    assert one_by_one.steps_of(sensing=False) == [len(answer)] * 3
    first, second, third = sorted(streamed.steps_of(sensing=False))
    assert first < second < third < len(answer)
    assert first >= answer.index("]")
    assert third >= answer.rindex("], ")


def test_no_more_regions_are_begun_than_the_budget_allows() -> None:
    answer = written([*THREE, (10, 300, 80, 380), (100, 300, 180, 380)])[1:]
    result, engine = perceive(answer, True, budget=replace(BUDGET, max_regions=2))
    assert len(engine.steps_of(sensing=False)) == 2 == len(result.regions)
    assert result.cost.views == 3


@pytest.mark.parametrize("streams", [False, True])
def test_an_error_is_the_same_failure(streams: bool) -> None:
    result, _ = perceive("broken", streams)
    assert (result.status, result.status_message) == (Status.FAILED, "EngineError: cannot answer that")
    result, _ = perceive(written(THREE)[1:], streams, task=lambda request: "no car")
    assert result.status == Status.FAILED
    assert result.status_message.startswith(
        "EngineError: none of 3 answers could be used; the first is '```json [no car'"
    )
    result, _ = perceive(written(THREE)[1:], streams, task=lambda request: "broken")
    assert (result.status, result.status_message) == (Status.FAILED, "EngineError: cannot answer that")


def test_one_crop_without_a_usable_answer_is_a_note_as_ever() -> None:
    seen: list[int] = []

    def task(request: Request) -> str:
        seen.append(1)
        return "no car" if int(request.image[0, 0, 0]) == first else found_in(request)

    frame_view = FRAME.image[80:200, 60:240]
    first = int(frame_view[0, 0, 0])
    results = [told(perceive(written(THREE)[1:], streams, task=task)[0]) for streams in (False, True)]
    assert results[0] == results[1]


def test_what_the_whole_answer_does_not_have_is_thrown_away_and_noted() -> None:
    """A list of two corners that goes on: first it reads as a box, in the end as the box around a polygon."""
    answer = '{"bbox_2d": [[10, 20], [200, 220], [30, 300], [10, 40]], "label": "cars"}]'
    (plain, _), (streamed, engine) = perceive(answer, False), perceive(answer, True)
    begun = len(engine.steps_of(sensing=False))
    expected, got = told(plain), told(streamed)
    assert (begun, streamed.cost.views) == (2, 3), "it was spent, so it is counted"
    assert "examined for nothing" in streamed.status_message
    for values in (expected, got):
        for key in ("status_message", "notes", "cost"):
            values.pop(key)
    assert got == expected


def test_a_caller_can_cancel_between_regions_and_nothing_stays_under_way() -> None:
    def observer(stage: str, regions: Sequence[Region]) -> None:
        if len(regions) == 2 or stage == "merge":
            raise Cancelled("enough")

    engine = Engine(written(THREE)[1:])
    loop = ActivePerception(
        MllmSensing(engine, stream_regions=True), MllmTask(engine, crop_side=280), BUDGET, examine_view=False
    )
    with pytest.raises(Cancelled):
        loop.perceive(FRAME, CARS, observer=observer)
    assert not engine.model.under_way
    assert loop.perceive(FRAME, CARS).status == Status.COMPLETE


class Careless:
    """A policy that yields what it is told to."""

    streams = True

    def __init__(self, *values: Any) -> None:
        self.values = values

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return 560, 560

    def propose(self, *_: Any) -> Proposal:
        raise AssertionError("is not asked")

    def propose_streaming(self, *_: Any) -> Iterator[Any]:
        yield from self.values


REGION = Region(Box(10, 20, 100, 100))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([REGION], "gave NoneType instead of a Proposal"),
        ([REGION, "done"], "gave str instead of a Proposal"),
        ([Region(Box(600, 0, 10, 10)), Proposal()], "gave the region"),
        ([Proposal(findings=Findings())], "gave findings with regions one by one"),
    ],
)
def test_a_policy_that_does_not_keep_to_the_interface_fails_the_frame(values: list[Any], message: str) -> None:
    loop = ActivePerception(Careless(*values), MllmTask(Engine(""), crop_side=280), BUDGET)
    result = loop.perceive(FRAME, CARS)
    assert result.status == Status.FAILED
    assert message in result.status_message


def test_a_listener_that_raises_harms_no_answer() -> None:
    request = Request(np.zeros((28, 28, 3), np.uint8), MllmTask(Engine(""))._prompt.fill(target="car", question=""))
    assert Engine("").generate([replace(request, on_text=lambda text: 1 / 0)])[0].text.endswith("```")


coordinates = st.tuples(*[st.integers(0, 560)] * 4)
answers = st.one_of(
    st.lists(st.tuples(coordinates, st.sampled_from(["", "car", "far cars [2]", 'a "sign"'])), max_size=6).map(
        lambda boxes: json.dumps([{"bbox_2d": list(box), "label": label} for box, label in boxes])
    ),
    st.text(alphabet='[]{}"0123456789,. :abcdeflx_<>/\n', max_size=80),
)


@settings(deadline=None)
@given(answers, st.integers(0, 4))
def test_a_growing_answer_gives_each_box_once_and_any_text_is_read(text: str, at_most: int) -> None:
    reader = RegionReader((560.0, 560.0), at_most)
    early = [box.corners for end in range(len(text) + 1) for box in reader.new_boxes(text[:end])]
    assert len(early) <= at_most
    answer = parse_answer(text, (560.0, 560.0))
    whole = [box.corners for box in answer.boxes]
    if answer.valid_json and len({*whole}) == len(whole) and max([2.0, *map(max, whole)]) > 2:
        assert early == whole[:at_most]
