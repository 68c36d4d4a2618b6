"""Every frame is counted once, and latencies are those of the newest frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activeo3_ros.node.frame_counters import Distribution, FrameCounters, FrameDisposition, Latencies, Losses


@given(st.lists(st.sampled_from([None, *FrameDisposition]), max_size=100))
def test_counts_add_up_whatever_happens(steps):
    counters, pending = FrameCounters(["a"]), 0
    for disposition in steps:
        if disposition is None:
            counters.receive("a")
            pending += 1
        elif pending:
            counters.settle("a", disposition)
            pending -= 1
        counts = counters.counts("a")
        assert counts.add_up
        assert counts.pending == pending


def test_numbers_tell_what_was_sent_and_never_received():
    losses = Losses()
    assert losses.missing is None, "before the first number nobody knows"
    losses.note("front", None)
    assert losses.missing is None
    for number in (10, 11, 14, 15):  # 12 and 13; what was sent before 10 was not meant for us
        losses.note("front", number)
    assert losses.missing == 2
    for number in (1, 3):  # one that started again under the same name
        losses.note("front", number)
    assert losses.missing == 3
    for number in (100, 101, 102):
        losses.note("rear", number)
        losses.note("front", number - 96)  # 4, 5, 6
    assert losses.missing == 3


def test_a_loss_that_the_middleware_reports_shows_in_both_counts_at_once_and_is_not_counted_twice():
    losses = Losses()
    losses.report(7)  # before the first image
    losses.note("front", 10)
    assert (losses.missing, losses.in_transport) == (0, 0)
    losses.report(2)  # 11 and 12, of which the numbers know nothing yet
    assert (losses.missing, losses.in_transport) == (2, 2)
    losses.note("front", 13)
    assert (losses.missing, losses.in_transport) == (2, 2)
    losses.note("front", 16)  # 14 and 15 were overwritten in a queue
    assert (losses.missing, losses.in_transport) == (4, 2)


@given(st.lists(st.one_of(st.integers(0, 5), st.tuples(st.sampled_from("ab"), st.integers(1, 5))), max_size=50))
def test_the_part_is_never_larger_than_the_whole(steps):
    losses, numbers = Losses(), {"a": 0, "b": 0}
    for step in steps:
        if isinstance(step, int):
            losses.report(step)
        else:
            sender, gone = step
            numbers[sender] += gone
            losses.note(sender, numbers[sender])
        assert losses.missing is None or 0 <= losses.in_transport <= losses.missing


def test_without_sequence_numbers_only_the_reports_are_known():
    losses = Losses()
    losses.note("front", None)
    losses.report(3)
    assert (losses.missing, losses.in_transport) == (None, 3)


def test_senders_that_come_and_go_take_no_memory():
    losses = Losses()
    for sender in range(1000):
        losses.note(sender, 1)
    assert len(losses._newest) == Losses.MAX_SENDERS
    assert losses.missing == 0


def test_latencies_are_those_of_the_newest_samples():
    latencies = Latencies()
    for value in [10_000.0] * 50 + [float(n) for n in range(1, 201)]:
        latencies.add({"total": value, "age": float("nan")})
    assert latencies.distributions() == {"total": Distribution(100.5, pytest.approx(190.05), 200.0)}
