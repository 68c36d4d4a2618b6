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

"""The ROS 2 part of the demo: a player, the node and a recorder, each a process of its own."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..bags.messages import IMAGE_TYPE, serialize_image, stamp_ns
from ..bags.reading import read_messages
from ..bags.writing import BagWriter
from ..codecs.image_files import Picture
from ..codecs.result_cdr import RESULT_TYPE
from ..codecs.result_message import from_message
from ..core import InvalidInput, Result, Status
from ..node.transports import TRANSPORTS, own_domain, settings_for_images
from .processes import ChildProcess, Processes

CAMERA = "camera"
IMAGE_TOPIC = f"/{CAMERA}/image_raw"
NODE = "/activeo3"
RESULT_TOPIC = f"{NODE}/{CAMERA}/result"
FRAME_ID = "camera_optical_frame"
FRAME_RATE_HZ = 10.0
POLL_S = 0.1
ATTEMPTS = 3
LISTENER_PATIENCE_S = 60.0
"""How long the recorder may take to find the node, which loads its models meanwhile."""
LAST_RESULT_PATIENCE_S = 2.0
"""How long the recorder gets after the player is done."""


@dataclass(frozen=True)
class FrameCounts:
    """Counts of the frames by their disposition; `sent` is the sum of the others."""

    sent: int
    processed: int
    dropped: int
    failed: int


def write_bag(path: Path, frames: Iterable[Picture]) -> list[int]:
    """Write frames to a bag at `FRAME_RATE_HZ`, stamped from now on.

    Args:
        path: The bag.
        frames: `(h, w, 3)` BGR pictures.

    Returns:
        Their stamps in nanoseconds.
    """
    start = time.time_ns()
    stamps = []
    with BagWriter(path) as writer:
        writer.add_topic(IMAGE_TOPIC, IMAGE_TYPE)
        for index, frame in enumerate(frames):
            stamps.append(start + round(index * 1e9 / FRAME_RATE_HZ))
            writer.write(IMAGE_TOPIC, stamps[-1], serialize_image(frame, stamps[-1], FRAME_ID))
    return stamps


def run(bag: Path, results: Path, logs: Path, preset: str, classes: Sequence[str], show: Callable[[int], None]) -> None:
    """Play a bag to a node and record its results.

    On a busy machine, processes that start at once sometimes do not discover each other; then all of them start again.

    Args:
        bag: The bag to play.
        results: The bag to write.
        logs: Directory of the processes' logs.
        preset: Preset of the node.
        classes: Classes that the node detects.
        show: Called with the number of frames played so far.

    Raises:
        ProcessDied: One of the three processes ended too early.
    """
    for attempt in range(1, ATTEMPTS + 1):
        results.unlink(missing_ok=True)
        if _run_once(bag, results, logs, preset, classes, show, give_up=attempt < ATTEMPTS):
            return
        print("the processes do not hear each other; starting the three processes again", file=sys.stderr)


def _run_once(
    bag: Path,
    results: Path,
    logs: Path,
    preset: str,
    classes: Sequence[str],
    show: Callable[[int], None],
    give_up: bool,
) -> bool:
    """Whether the bag was played to its end. give_up: stop as soon as the processes do not hear each other."""
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(own_domain()),
        "PYTHONUNBUFFERED": "1",
    }
    # Processes that start at once find each other more surely without (docs/how-to/transports.md).
    environment.pop(TRANSPORTS, None)
    names = ", ".join(f"'{name}'" for name in classes)
    with Processes(logs, environment) as processes:
        recorder = processes.start(
            "recorder", _module("recorder", f"{RESULT_TOPIC}={RESULT_TYPE}", "--out", str(results.resolve()))
        )
        processes.start(
            "perception_node",
            [
                *(sys.executable, str(node_executable()), "--ros-args", "-p", f"preset:={preset}"),
                *("-p", f"cameras:=['{CAMERA}']", "-p", f"classes:=[{names}]", "-p", "autostart:=true"),
                *("-p", f"qos_overrides.{IMAGE_TOPIC}.subscription.reliability:=reliable"),
            ],
        )
        # A result that comes before the recorder listens would look like a dropped frame.
        if not _await_lines(recorder, 1, LISTENER_PATIENCE_S, processes.check) and give_up:
            return False
        player = processes.start(
            "player",
            _module("player", str(bag.resolve()), "--topic", IMAGE_TOPIC, "--node", NODE, "--results", RESULT_TOPIC),
            settings_for_images(environment),  # it alone sends frames of megabytes
        )
        while player.exit_code is None:
            processes.check(may_end=player)
            if give_up and player.lines and not json.loads(player.lines[0])["answered"]:
                return False
            show(len(player.lines))
            time.sleep(POLL_S)
        processes.check(may_end=player)
        show(len(player.lines))
        check = functools.partial(processes.check, may_end=player)
        _await_lines(
            recorder, 1 + len(player.lines), LAST_RESULT_PATIENCE_S, check
        )  # its first line says that it listens
    return True


def read_results(path: Path) -> dict[int, Result]:
    """Read the recorded results, by the stamp of their frame in nanoseconds."""
    return {stamp_ns(message): from_message(message) for _, message in read_messages(path, RESULT_TOPIC)}


def count_frames(sent: Sequence[int], results: dict[int, Result]) -> FrameCounts:
    """Count the frames by their disposition.

    Args:
        sent: Stamps of all frames in nanoseconds.
        results: Results by the stamp of their frame.

    Returns:
        The counts; a frame without a result counts as dropped.
    """
    failed = sum(1 for stamp in sent if stamp in results and results[stamp].status is Status.FAILED)
    dropped = sum(1 for stamp in sent if stamp not in results)
    return FrameCounts(len(sent), len(sent) - failed - dropped, dropped, failed)


def node_executable() -> Path:
    """The path of the installed `perception_node`.

    Raises:
        InvalidInput: ROS or this package is not set up in this shell.
    """
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_prefix
    except ImportError:
        raise InvalidInput("ROS 2 is not set up in this shell; run: . install/setup.sh") from None
    try:
        path = Path(get_package_prefix("activeo3_ros")) / "lib" / "activeo3_ros" / "perception_node"
    except PackageNotFoundError:
        raise InvalidInput("the package activeo3_ros is not set up in this shell; run: . install/setup.sh") from None
    if not path.is_file():
        raise InvalidInput(f"{path} is missing; build the package again: make setup")
    return path


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"activeo3_ros.node.{name}", *arguments]


def _await_lines(child: ChildProcess, lines: int, patience_s: float, check: Callable[[], None]) -> bool:
    """Whether the process wrote so many lines within that time; `check` is called meanwhile, and once at the end."""
    deadline = time.monotonic() + patience_s
    while len(child.lines) < lines and time.monotonic() < deadline:
        check()
        time.sleep(POLL_S)
    check()
    return len(child.lines) >= lines
