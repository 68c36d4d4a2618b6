"""Every frame is counted once, and latencies are those of the newest frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activeo3_ros.node.frame_counters import Distribution, FrameCounters, FrameDisposition, Gaps, Latencies


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
    gaps = Gaps()
    assert gaps.missing is None, "before the first number nobody knows"
    gaps.note("front", None)
    assert gaps.missing is None
    for number in (10, 11, 14, 15):  # 12 and 13; what was sent before 10 was not meant for us
        gaps.note("front", number)
    assert gaps.missing == 2
    for number in (1, 3):  # one that started again under the same name
        gaps.note("front", number)
    assert gaps.missing == 3
    for number in (100, 101, 102):
        gaps.note("rear", number)
        gaps.note("front", number - 96)  # 4, 5, 6
    assert gaps.missing == 3


def test_senders_that_come_and_go_take_no_memory():
    gaps = Gaps()
    for sender in range(1000):
        gaps.note(sender, 1)
    assert len(gaps._newest) == Gaps.MAX_SENDERS
    assert gaps.missing == 0


def test_latencies_are_those_of_the_newest_samples():
    latencies = Latencies()
    for value in [10_000.0] * 50 + [float(n) for n in range(1, 201)]:
        latencies.add({"total": value, "age": float("nan")})
    assert latencies.distributions() == {"total": Distribution(100.5, pytest.approx(190.05), 200.0)}
