# Copyright 2026 The activeo3_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""When the process has to end: on SIGINT, on SIGTERM, and with the launch that started it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable

from .launching import LAUNCH_PID

PR_SET_PDEATHSIG = 1


def catch_end_signals() -> Callable[[], None]:
    """Catch SIGINT and SIGTERM from now on; call in the main thread.

    Returns:
        A function that returns when one of them has come, also before the call. A `threading.Event` would sleep on
        where another thread than the main one takes the signal, or where it comes just before the wait.
    """
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    return lambda: _read(woken)


def _read(woken: int) -> None:
    os.read(woken, 1)


def end_with_launch() -> None:
    """Have SIGTERM sent to this process when the launch that started it ends, however that ends.

    Without it a node whose launch was killed goes on, unseen, beside the one that is launched next. Nothing happens
    without a launch, behind a prefix such as gdb, whose child this process is, or off Linux.
    """
    launch = int(os.environ.get(LAUNCH_PID, "0"))
    if not launch or not sys.platform.startswith("linux"):
        return
    if os.getppid() == launch:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # After the request: a launch that has ended by now sends no signal any more.
    with contextlib.suppress(PermissionError):
        try:
            os.kill(launch, 0)
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGTERM)
