"""What holds for every test: ROS apart from the shell's, SIGINT as usual, and the marker of its folder."""

import os
import signal
from pathlib import Path

import pytest
from isolation import isolate

TESTS = Path(__file__).parent

isolate(os.environ)  # before any test imports rclpy

# A shell starts what it runs in the background with SIGINT ignored, and children inherit that: the tests that interrupt
# a process must find it interruptible however the tests themselves were started.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the marker of its folder, so that `-m "unit or ros"` chooses layers."""
    for item in items:
        if item.path.is_relative_to(TESTS):
            item.add_marker(item.path.relative_to(TESTS).parts[0])
