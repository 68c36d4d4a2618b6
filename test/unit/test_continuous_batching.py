"""Continuous batching: a request joins at the next step of the model, and waits for no other answer."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import wait_for

from activeo3_ros.core.errors import EngineError, OutOfMemory
from activeo3_ros.vlm.continuous_batching import ContinuousBatching

Asked = tuple[str, int]
"""A text, and the steps that its answer takes."""


class FakeModel:
    """Answers each text in capitals, after as many steps as were asked for. Fails at what a test tells it to."""

    def __init__(self, step_s: float = 0.002, at_most: int = 1000) -> None:
        self.step_s, self.at_most = step_s, at_most
        self.left: dict[str, list[Any]] = {}
        self.batches: list[list[str]] = []
        self.held = threading.Event()
        self.held.set()
        self.can_abort = True
        self._count = 0
        self._busy = threading.Lock()

    def add(self, request: Asked) -> str:
        text, steps = request
        if text == "refused":
            raise EngineError("is too long")
        if text == "interrupted":
            raise KeyboardInterrupt
        self._count += 1
        self.left[f"{self._count}"] = [text, steps]
        return f"{self._count}"

    def step(self) -> list[tuple[str, str]]:
        assert self._busy.acquire(blocking=False), "stepped by two threads at once"
        try:
            texts = [text for text, _ in self.left.values()]
            self.batches.append(texts)
            self.held.wait(30)
            time.sleep(self.step_s)
            if "broken" in texts:
                raise EngineError("cannot answer that")
            if "interrupt" in texts:
                raise KeyboardInterrupt
            if len(texts) > self.at_most:
                raise OutOfMemory(f"{len(texts)} do not fit")
            for each in self.left.values():
                each[1] -= 1
            done = [name for name, (_, steps) in self.left.items() if steps <= 0]
            return [(name, self.left.pop(name)[0].upper()) for name in done]
        finally:
            self._busy.release()

    def abort(self, names: Sequence[str]) -> None:
        if not self.can_abort:
            raise RuntimeError("is dead")
        for name in names:
            self.left.pop(name, None)


def outcome(batching: ContinuousBatching, *asked: Asked) -> Any:
    try:
        return batching.generate(asked)
    except (EngineError, KeyboardInterrupt) as error:
        return f"{type(error).__name__}: {error}"


Starts = Callable[..., "Future[Any]"]


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def batching(model: FakeModel) -> ContinuousBatching:
    return ContinuousBatching(model, contextlib.nullcontext)


@pytest.fixture
def ask(model: FakeModel, batching: ContinuousBatching) -> Iterator[Starts]:
    """Asks in a thread of its own, and returns when the model has been given that."""
    with ThreadPoolExecutor(8) as pool:

        def start(*asked: Asked) -> Future[Any]:
            known = len(batching._arrived) + len(model.left)
            future = pool.submit(outcome, batching, *asked)
            wait_for(lambda: future.done() or len(batching._arrived) + len(model.left) > known)
            return future

        yield start
        model.held.set()


def test_answers_come_in_the_order_of_the_requests(batching: ContinuousBatching) -> None:
    assert batching.generate([("a", 3), ("b", 1), ("c", 2)]) == ["A", "B", "C"]
    assert batching.generate([]) == []


def test_a_later_request_joins_those_under_way_and_need_not_wait_for_their_end(model: FakeModel, ask: Starts) -> None:
    model.held.clear()
    long = ask(("long", 50))
    short = ask(("short", 2))
    model.held.set()
    assert short.result(10) == ["SHORT"]
    assert not long.done()
    assert long.result(10) == ["LONG"]
    assert ["long", "short"] in model.batches


def test_the_model_goes_on_when_the_thread_that_stepped_it_has_its_answer(model: FakeModel, ask: Starts) -> None:
    model.held.clear()
    first = ask(("first", 1))
    others = [ask((f"other {n}", 5 + 5 * n)) for n in range(3)]
    model.held.set()
    assert first.result(10) == ["FIRST"]
    assert [other.result(10) for other in others] == [[f"OTHER {n}"] for n in range(3)]


def test_a_request_that_is_refused_fails_alone_with_its_call(model: FakeModel, ask: Starts) -> None:
    model.held.clear()
    fine = ask(("fine", 5))
    refused = ask(("fine as well", 5), ("refused", 5))
    model.held.set()
    assert refused.result(10) == "EngineError: is too long"
    assert fine.result(10) == ["FINE"]
    assert ["fine", "fine as well"] not in model.batches, "the rest of a call that failed is not answered"


def test_a_request_that_breaks_a_step_fails_alone(model: FakeModel, ask: Starts) -> None:
    model.held.clear()
    asked = [ask((text, 5)) for text in ("a", "b", "broken", "c", "d")]
    model.held.set()
    assert [each.result(10) for each in asked] == [
        ["A"], ["B"], "EngineError: cannot answer that", ["C"], ["D"]
    ]  # fmt: skip


def test_calls_that_do_not_fit_into_memory_together_are_answered_in_parts(model: FakeModel, ask: Starts) -> None:
    model.held.clear()
    model.at_most = 2
    asked = [ask((text, 3)) for text in ("a", "b", "c", "d", "e")]
    model.held.set()
    assert [each.result(10) for each in asked] == [["A"], ["B"], ["C"], ["D"], ["E"]]


def test_a_request_that_does_not_fit_alone_fails_alone(model: FakeModel, batching: ContinuousBatching) -> None:
    model.at_most = 2
    assert outcome(batching, ("a", 1), ("b", 1), ("c", 1)) == "OutOfMemory: 3 do not fit"
    assert not model.left, "nothing of it stays in the model"
    assert batching.generate([("d", 1)]) == ["D"]


def test_an_interrupt_ends_all_that_is_under_way_and_nothing_after_it(
    model: FakeModel, batching: ContinuousBatching, ask: Starts
) -> None:
    model.held.clear()
    stopped = ask(("interrupt", 5))
    other = ask(("other", 5))
    wait_for(lambda: bool(batching._arrived))
    model.held.set()
    assert stopped.result(10) == "KeyboardInterrupt: "
    assert other.result(10) == ["OTHER"], "it had not been taken up"
    assert not model.left


def test_an_interrupt_while_a_request_is_added_forgets_no_thread(model: FakeModel, ask: Starts) -> None:
    model.held.clear()
    first = ask(("first", 3))
    stopped = ask(("a", 3), ("interrupted", 3))
    last = ask(("last", 3))
    model.held.set()
    # The thread of the first steps the model, so the interrupt is its own.
    assert first.result(10) == "KeyboardInterrupt: "
    assert stopped.result(10) == "EngineError: interrupted while several were answered"
    assert last.result(10) == ["LAST"]


def test_all_threads_get_the_error_of_a_model_that_cannot_drop_requests(model: FakeModel, ask: Starts) -> None:
    model.held.clear()
    model.can_abort = False
    asked = [ask((text, 5)) for text in ("a", "broken", "b")]
    model.held.set()
    # What could not be dropped stays in the model and breaks every further step.
    assert [each.result(10) for each in asked] == ["EngineError: cannot answer that"] * 3


def test_each_step_is_within_its_turn(model: FakeModel) -> None:
    """Such as a lock that another model takes for its steps."""
    lock = threading.Lock()
    batching = ContinuousBatching(model, lambda: lock)
    with ThreadPoolExecutor(1) as pool:
        lock.acquire()
        asked = pool.submit(batching.generate, [("a", 2)])
        time.sleep(0.05)
        assert not model.batches
        lock.release()
        assert asked.result(10) == ["A"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(["a", "b", "broken", "refused"]), st.integers(1, 6)), min_size=1, max_size=3
        ),
        min_size=1,
        max_size=12,
    )
)
def test_every_call_gets_its_own_answers_or_its_own_error(calls: list[list[Asked]]) -> None:
    """Whatever comes together, and whatever breaks."""
    model = FakeModel(step_s=0.0)
    batching = ContinuousBatching(model, contextlib.nullcontext)
    with ThreadPoolExecutor(len(calls)) as pool:
        outcomes = list(pool.map(lambda asked: outcome(batching, *asked), calls))
    for asked, got in zip(calls, outcomes, strict=True):
        texts = [text for text, _ in asked]
        if "refused" in texts:
            assert got == "EngineError: is too long"
        elif "broken" in texts:
            assert got == "EngineError: cannot answer that"
        else:
            assert got == [text.upper() for text in texts]
    assert not model.left
