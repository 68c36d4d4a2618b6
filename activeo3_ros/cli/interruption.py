"""Ctrl-C as a wish: the step in progress is finished, and what was written so far is whole."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether somebody wants the work to end."""

    is_wanted = False


@contextmanager
def stop_after_this_frame() -> Iterator[Stop]:
    """Turns the first Ctrl-C or SIGTERM into a wish, so that files are closed in order; a second one interrupts."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def want(signum: int, frame: FrameType | None) -> None:
        if stop.is_wanted:
            raise KeyboardInterrupt
        stop.is_wanted = True

    try:
        for number in before:
            signal.signal(number, want)
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
