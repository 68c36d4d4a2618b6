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

"""The command `activeo3`: the table of its subcommands, and how errors become one line and an exit code.

Exit codes: 0 success, 2 bad usage or bad input, 1 a failure of ours, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from .. import __version__

COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": ("doctor", "report what this machine can run and what is missing"),
    "prefetch": ("prefetch", "fetch the files that a preset needs, so that nothing is fetched at run time"),
    "demo": ("demo", "run a bag through a node on real pictures and compare with baselines"),
    "perceive": ("perceive", "run the loop on pictures and videos, print the results"),
    "node": ("node", "run the ROS 2 node, where there is no ros2 run"),
    "serve": ("serve", "run a detector for several processes, which share one copy of it"),
    "replay": ("replay", "run a bag through the loop and write the results as a bag"),
    "play": ("play", "publish a bag on its topics, or a video on one, where there is no ros2 bag"),
    "record": ("record", "record topics, or a video, as a bag, where there is no ros2 bag"),
    "evaluate": ("evaluate", "compare presets and budgets with a ground truth"),
    "calibrate": ("calibrate", "measure without labels how small an object a detector finds and what its scores mean"),
    "benchmark": ("benchmark", "run a benchmark of the paper, or the one that needs no data set"),
    "validate": ("validate", "judge a vision-language policy with each choice of words, reasoning and engine"),
    "prompts": ("prompts", "import the released prompts of ACTIVE-o3, and show them beside ours"),
    "train": ("train", "train a policy, and make its training data"),
}
"""Subcommand: its module in `activeo3_ros.cli`, imported only when the subcommand is used, and its one line of help.

A module has `add_arguments(parser)` and `run(args) -> int`, which returns the exit code."""

SUCCESS, FAILURE, BAD_INPUT = 0, 1, 2
INTERRUPTED = 128 + signal.SIGINT


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(BAD_INPUT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: Its name and arguments; None takes those of this process.

    Returns:
        The exit code.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        args = _parse(argv)
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("activeo3: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(f"{__package__}."):
            traceback.print_exc()
        print(f"activeo3: {error}; activeo3 doctor says what is missing and how to install it", file=sys.stderr)
        return BAD_INPUT
    except Exception as error:
        # Imported here because the core brings NumPy and OpenCV with it, which `activeo3 --help` does without.
        from ..core.errors import PerceptionError

        if isinstance(error, PerceptionError):
            print(f"activeo3: {_one_line(error)}", file=sys.stderr)
            return BAD_INPUT
        if isinstance(error, OSError) and error.filename is not None:  # a path that the user gave, a disk that is full
            print(f"activeo3: {error.filename}: {error.strerror or _one_line(error)}", file=sys.stderr)
            return BAD_INPUT
        traceback.print_exc()
        print(f"activeo3: failed, which is a fault of this program: {_one_line(error)}", file=sys.stderr)
        return FAILURE


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="activeo3",
        description="Active perception: choose regions in a small view, examine them at full resolution.",
    )
    parser.add_argument("--version", action="version", version=f"activeo3 {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name, (module_name, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if name in argv[:1]:
            module = importlib.import_module(f".{module_name}", __package__)
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser.parse_args(argv)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
