"""Several threads that ask one engine at the same time are answered together, each with its own replies and errors."""

from __future__ import annotations

import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from waiting import wait_for

from activeo3_ros.core import ActivePerception, Budget, Frame, Query
from activeo3_ros.core.errors import EngineError, OutOfMemory
from activeo3_ros.node.frame_counters import FrameCounters
from activeo3_ros.node.jobs import DecodedFrame, Settings
from activeo3_ros.node.scheduler import Scheduler
from activeo3_ros.policies.mllm import MllmSensing
from activeo3_ros.vlm.dynamic_batching import Call, DynamicBatcher, answer_together
from activeo3_ros.vlm.engine import Prompt, Reply, Request
from activeo3_ros.vlm.families import family_named
from activeo3_ros.vlm.out_of_memory import generate_within_memory
from activeo3_ros.vlm.task import MllmTask


class FakeEngine:
    """Repeats each prompt, one batch at a time, and notes the batches. Fails at what a test tells it to fail at."""

    family = family_named("qwen2_5_vl")

    def __init__(self, takes_s: float = 0.05, at_most: int = 1000, says: str = "") -> None:
        self.takes_s, self.at_most, self.says = takes_s, at_most, says
        self.batches: list[list[str]] = []
        self._busy = threading.Lock()

    def generate(self, requests):
        assert self._busy.acquire(blocking=False), "asked by two threads at once"
        try:
            texts = [request.prompt.after for request in requests]
            self.batches.append(texts)
            time.sleep(self.takes_s)
            if "broken" in texts:
                raise EngineError("cannot answer that")
            if len(texts) > self.at_most:
                raise OutOfMemory(f"{len(texts)} do not fit")
            return [
                Reply(self.says or text, input_size=request.image.shape[1::-1])
                for request, text in zip(requests, texts, strict=True)
            ]
        finally:
            self._busy.release()

    def describe(self) -> str:
        return "fake"

    def close(self) -> None:
        pass


def ask(engine, *texts: str) -> list[str]:
    image = np.zeros((56, 56, 3), np.uint8)
    replies = generate_within_memory(engine, [Request(image, Prompt(text)) for text in texts])
    return [reply.text for reply in replies]


def test_each_thread_gets_its_own_replies_and_few_batches_serve_many():
    engine = FakeEngine()
    shared = DynamicBatcher(engine)
    with ThreadPoolExecutor(6) as pool:
        for step in range(5):
            asked = [(f"{step} camera {n} view", f"{step} camera {n} crop") for n in range(6)]
            assert list(pool.map(lambda texts: ask(shared, *texts), asked)) == [list(texts) for texts in asked]
    assert sum(map(len, engine.batches)) == 60
    assert len(engine.batches) <= 10  # two at most for the first step, and hardly more than one for each other


def test_one_thread_alone_never_waits_for_others():
    engine = FakeEngine(takes_s=0.0)
    shared = DynamicBatcher(engine)
    shared._last_s = 3600.0  # its wait for company would be minutes
    assert ask(shared, "a", "b") == ["a", "b"]
    assert engine.batches == [["a", "b"]]


def test_a_request_that_breaks_the_engine_fails_alone():
    shared = DynamicBatcher(FakeEngine())

    def outcome(text: str):
        try:
            return ask(shared, text)
        except EngineError as error:
            return str(error)

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(outcome, ["fine", "broken", "fine too"]))
    assert outcomes == [["fine"], "cannot answer that", ["fine too"]]


def test_one_bad_request_among_many_costs_few_more_calls():
    """A training step asks hundreds of them together."""
    engine = FakeEngine(takes_s=0.0)
    calls = [Call([Request(np.zeros((56, 56, 3), np.uint8), Prompt(f"{n}"))]) for n in range(64)]
    calls[37] = Call([Request(np.zeros((56, 56, 3), np.uint8), Prompt("broken"))])
    answer_together(engine, calls)
    assert [n for n, call in enumerate(calls) if call.error is not None] == [37]
    assert [call.replies[0].text for call in calls if call.error is None] == [f"{n}" for n in range(64) if n != 37]
    assert len(engine.batches) == 13  # all, and then two halves of each of 64, 32, 16, 8, 4 and 2


def test_many_bad_requests_in_a_row_leave_the_others_their_answers():
    """All answers of a training step that are about one bad picture, the first ones at that."""
    texts = ["broken"] * 8 + [f"{n}" for n in range(56)]
    calls = [Call([Request(np.zeros((56, 56, 3), np.uint8), Prompt(text))]) for text in texts]
    answer_together(FakeEngine(takes_s=0.0), calls, give_up=7)
    assert [call.error is not None for call in calls] == [True] * 8 + [False] * 56


def test_the_last_camera_is_answered_though_all_others_broke_the_engine():
    calls = [Call([Request(np.zeros((56, 56, 3), np.uint8), Prompt(text))]) for text in ["broken"] * 15 + ["fine"]]
    answer_together(FakeEngine(takes_s=0.0), calls)
    assert [call.error is not None for call in calls] == [True] * 15 + [False]


def test_an_engine_that_answers_nothing_is_not_asked_for_each():
    engine = FakeEngine(takes_s=0.0, at_most=0)
    calls = [Call([Request(np.zeros((56, 56, 3), np.uint8), Prompt(f"{n}"))]) for n in range(64)]
    answer_together(engine, calls, give_up=7)
    assert all(isinstance(call.error, OutOfMemory) for call in calls)
    assert len(engine.batches) <= 12


def test_requests_that_do_not_fit_together_are_answered_apart():
    engine = FakeEngine(at_most=2)
    shared = DynamicBatcher(engine)
    with ThreadPoolExecutor(4) as pool:
        asked = [[f"{n}a", f"{n}b", f"{n}c"] for n in range(4)]
        assert list(pool.map(lambda texts: ask(shared, *texts), asked)) == asked


def test_the_next_call_after_an_error_is_answered():
    shared = DynamicBatcher(FakeEngine())
    with pytest.raises(EngineError):
        ask(shared, "broken")
    assert ask(shared, "fine") == ["fine"]


def test_the_frames_of_several_cameras_share_the_calls_of_a_language_model():
    engine = FakeEngine(takes_s=0.1, says='[{"bbox_2d": [10, 10, 100, 100], "label": "cone"}]')
    shared = DynamicBatcher(engine)
    cameras, outcomes = ("left", "front", "right"), []
    frame = np.zeros((600, 800, 3), np.uint8)

    def decode(camera: str, data: bytes) -> DecodedFrame:
        return DecodedFrame(Frame(frame, camera=camera), "header")

    scheduler = Scheduler(
        FrameCounters(cameras),
        cameras,
        load=lambda: ActivePerception(MllmSensing(shared), MllmTask(shared), Budget(max_regions=1)),
        decoder=types.SimpleNamespace(decode=decode),
        publisher=types.SimpleNamespace(publish=outcomes.append),
        now_ns=lambda: 0,
        settings=Settings(query=Query(classes=("cone",))),
    )
    assert scheduler.wait_loaded(10)
    scheduler.open_gate()
    for camera in cameras:
        scheduler.enqueue(camera, b"image")
    wait_for(lambda: len(outcomes) == 3)
    scheduler.stop(5, "the test is over")
    assert {outcome.camera: len(outcome.result.detections) for outcome in outcomes} == dict.fromkeys(cameras, 2)
    # One after the other it would be six calls: a view and then its crops, for each camera.
    assert len(engine.batches) <= 4
    assert max(map(len, engine.batches)) >= 2
