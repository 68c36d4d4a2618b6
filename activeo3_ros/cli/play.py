"""`activeo3 play`: publish a bag on its topics, where there is no `ros2 bag`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..bags.pacing import Pacer
from ..bags.reading import Bag, Entry, topic_type
from ..core import InvalidInput
from ..node.transports import settings_for_images
from .argument_types import number
from .main import SUCCESS
from .progress import progress

if TYPE_CHECKING:
    from ..node.bag_publisher import BagPublisher

CLOCK_HZ = 40.0
LINES_OF_PROGRESS = 10
"""Where there is no terminal for a bar."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("bag", type=Path, metavar="BAG", help="a directory of ROS 2, an .mcap or a .db3 file")
    parser.add_argument(
        "--topic", action="append", default=[], metavar="T", help="publish only this one (may be repeated)"
    )
    parser.add_argument("--rate", type=number(0.01, 100), default=1.0, help="how fast, 1 is as recorded (default: 1)")
    parser.add_argument("--loop", action="store_true", help="begin again at the end")
    parser.add_argument(
        "--paused", action="store_true", help="wait at the beginning, until Enter or the service ~/pause says to go on"
    )
    parser.add_argument(
        "--clock",
        type=number(1, 1000),
        nargs="?",
        const=CLOCK_HZ,
        default=0.0,
        metavar="HZ",
        help="publish the recorded time on /clock, for nodes with use_sim_time (default rate: 40)",
    )
    parser.add_argument(
        "--wait", type=number(0, 3600), default=0.0, metavar="S", help="seconds to wait for subscribers of all topics"
    )


def run(args: argparse.Namespace) -> int:
    """Index the bag, publish it once or for ever."""
    os.environ.update(settings_for_images(os.environ))  # else most raw images are lost; before ROS reads it
    try:
        from ..node import bag_publisher
    except ImportError as error:
        raise InvalidInput(f"ROS 2 is not set up in this shell ({error}); run: . install/setup.sh") from None
    with Bag(args.bag) as bag:
        for topic in args.topic:
            topic_type(bag, topic)
        entries, damage = bag.index(args.topic or list(bag.topics), by_header=False)
        if damage:
            print(f"activeo3 play: {args.bag}: {damage.describe()}", file=sys.stderr)
        if not entries:
            raise InvalidInput(f"{args.bag}: has no message that can be read")
        pacer = Pacer(args.rate, args.paused)
        with bag_publisher.ros_context():
            node = bag_publisher.BagPublisher(bag, list(dict.fromkeys(e.topic for e in entries)), pacer, args.clock)
            for topic, reason in node.left_out.items():
                print(f"activeo3 play: {topic} is left out: {reason}", file=sys.stderr)
            entries = [entry for entry in entries if entry.topic in node.topics]
            if args.wait and not node.wait_for_subscribers(args.wait):
                raise InvalidInput(f"not every topic has a subscriber after {args.wait:g} s: {', '.join(node.topics)}")
            if args.paused:
                print(f"paused; press Enter, or call /{bag_publisher.NODE_NAME}/pause with false", file=sys.stderr)

            def toggle() -> None:
                pacer.pause(not pacer.is_paused)

            bag_publisher.run(node, lambda: _play(node, entries, args.loop), toggle)
    return SUCCESS


def _play(node: BagPublisher, entries: Sequence[Entry], loop: bool) -> None:
    while True:
        with progress("play", len(entries), LINES_OF_PROGRESS, "message") as show:
            published, damaged = node.publish(entries, show)
        print(f"{published} messages published, {damaged} could not be read", file=sys.stderr)
        if not loop:
            return
