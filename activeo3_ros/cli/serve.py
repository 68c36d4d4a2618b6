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

"""`activeo3 serve`: run a preset's detector in a process of its own, for all processes of this user that ask it."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path

from ..core import InvalidInput
from ..detectors.serving import DetectorServer, check_can_listen
from ..presets import load_preset
from .argument_types import number
from .interruption import Stop, stop_after_this_frame
from .main import SUCCESS

SWITCH_S = 0.0005
"""After so long Python lets another thread run."""
POLL_S = 0.1
"""Between two looks whether somebody wants the server to end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description = (
        "Run the detector of a preset for several processes: frames reach it through shared memory, and what all of "
        "them ask at the same time is answered as one batch. Others use it by 'task: {type: served, socket: FILE}'. "
        "Ctrl-C or SIGTERM ends it, exit code 0."
    )
    parser.add_argument("preset", metavar="PRESET", help="a preset by name, or a .yaml file: its detector is served")
    parser.add_argument(
        "--socket", type=Path, required=True, metavar="FILE", help="where to listen; only this user can connect"
    )
    parser.add_argument(
        "--log-period",
        type=number(0, 86_400),
        default=10.0,
        metavar="S",
        help="seconds between two lines that say what was answered, 0 for none (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    preset = load_preset(args.preset, may_name_classes=True)
    component = preset.task.detector
    if component is None:
        raise InvalidInput(
            f"the task {preset.task.type!r} of preset {preset.name!r} is no detector, which alone is served"
        )
    if component.type == "served":
        raise InvalidInput(f"preset {preset.name!r} asks a served detector itself; give the preset of the real one")
    check_can_listen(args.socket)
    # A thread that has the next batch waits 5 ms for one that reads the last; this process does nothing else.
    sys.setswitchinterval(SWITCH_S)
    with stop_after_this_frame() as stop:
        server = DetectorServer(
            component.build().detector, component.type, json.dumps(component.facts, default=str), args.socket
        )
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        try:
            print(f"serving {component.type} ({len(server.welcome.names)} classes) at {args.socket}", flush=True)
            print(f"use it with: task: {{type: served, socket: {args.socket}}}", flush=True)
            _report(server, stop, args.log_period)
        finally:
            server.close()
    return SUCCESS


def _report(server: DetectorServer, stop: Stop, period_s: float) -> None:
    """Say what is answered, until somebody wants an end."""
    said_at, said = time.monotonic(), 0
    while not stop.is_wanted:
        time.sleep(POLL_S)
        passed = time.monotonic() - said_at
        if period_s and passed >= period_s:
            answered = server.views_answered
            print(
                f"{server.clients} connected, {(answered - said) / passed:.1f} views a second, {answered} in all",
                file=sys.stderr,
                flush=True,
            )
            said_at, said = time.monotonic(), answered
