"""A server that gave no answer is asked again at intervals, by one caller each; its first answer closes the circuit."""

from __future__ import annotations

from activeo3_ros.vlm.backends.circuit_breaker import CircuitBreaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_closed_one_lets_everybody_through():
    breaker = CircuitBreaker(5.0, Clock())
    assert [breaker.may_try() for _ in range(3)] == [True] * 3
    assert (breaker.is_open, breaker.describe()) == (False, "")


def test_an_open_one_lets_one_through_each_interval_and_says_so():
    clock = Clock()
    breaker = CircuitBreaker(5.0, clock)
    breaker.fail("Connection refused")
    clock.now += 4.9
    assert not breaker.may_try()
    assert breaker.describe() == "no answer for 5 s, asked again every 5 s: Connection refused"
    clock.now += 0.2
    assert [breaker.may_try() for _ in range(3)] == [True, False, False]
    breaker.fail("HTTP 503")
    assert not breaker.may_try()
    clock.now += 5.0
    assert breaker.may_try()
    assert breaker.describe() == "no answer for 10 s, asked again every 5 s: HTTP 503"


def test_the_first_answer_closes_it():
    breaker = CircuitBreaker(5.0, Clock())
    breaker.fail("Connection refused")
    breaker.succeed()
    assert [breaker.may_try() for _ in range(3)] == [True] * 3
    assert breaker.describe() == ""
