"""The process ends on a signal whoever takes it and whenever it comes, and with its launch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from activeo3_ros.node.launching import LAUNCH_PID

HEAD = """
import os, signal, subprocess, sys, threading, time
from activeo3_ros.node.end_signals import catch_end_signals, end_with_launch
"""
ANOTHER_THREAD = """
wait = catch_end_signals()
other = threading.Thread(target=time.sleep, args=(3600,), daemon=True)
other.start()
threading.Timer(0.3, signal.pthread_kill, (other.ident, signal.{name})).start()
wait()
"""
BEFORE = """
wait = catch_end_signals()
os.kill(os.getpid(), signal.{name})
wait()
"""


def run(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HEAD + script],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("script", [ANOTHER_THREAD, BEFORE], ids=["taken by another thread", "before the wait"])
def test_a_signal_is_not_slept_through(script, name):
    done = run(script.format(name=name))
    assert (done.returncode, done.stderr) == (0, "")


NODE = """
from activeo3_ros.node.end_signals import catch_end_signals, end_with_launch
wait = catch_end_signals()
end_with_launch()
print("up", flush=True)
wait()
print("ended", flush=True)
"""
LAUNCH = f"""
node = {NODE!r}
variables = {{**os.environ, {LAUNCH_PID!r}: str(os.getpid())}}
read, write = os.pipe()
subprocess.Popen([sys.executable, "-c", node], env=variables, stdout=write)
lines = os.fdopen(read)
assert lines.readline() == "up\\n"
if not os.fork():  # reads on for the one that is killed
    os.close(write)
    print(lines.readline(), end="", flush=True)
    os._exit(0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_ends_with_a_launch_that_is_killed():
    done = run(LAUNCH)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "ended\n"), done.stderr


def test_it_ends_where_the_launch_was_gone_before_it_asked():
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    done = run(NODE, **{LAUNCH_PID: gone.stdout.decode().strip()})
    assert done.stdout == "up\nended\n"


def test_it_does_not_end_with_a_process_that_is_not_its_parent():
    """Behind a prefix such as gdb: nothing is asked of the kernel, and the launch is there."""
    done = run("end_with_launch()\nprint('goes on')", **{LAUNCH_PID: str(os.getppid())})
    assert done.stdout == "goes on\n"
