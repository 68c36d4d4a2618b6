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

"""`activeo3 play`: publish a bag on its topics, or a video on one, where there is no `ros2 bag`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..bags.pacing import Pacer
from ..bags.reading import Bag, Entry, Topic, topic_type
from ..bags.video import COMPRESSED_ENDING, DEFAULT_TOPIC, image_topic, serializer, start_ns
from ..codecs.image_files import Picture
from ..codecs.video import is_video, open_video
from ..core import InvalidInput
from ..node.transports import settings_for_images
from .argument_types import number
from .main import BAD_INPUT, SUCCESS
from .progress import progress

if TYPE_CHECKING:
    from ..node.bag_publisher import BagPublisher, Recorded

CLOCK_HZ = 40.0
LINES_OF_PROGRESS = 10
"""Where there is no terminal for a bar."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "bag", type=Path, metavar="BAG", help="a directory of ROS 2, an .mcap or a .db3 file; or a video, by its suffix"
    )
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="T",
        help="publish only this one (may be repeated); of a video the topic to publish on, as JPEG where it ends with "
        f"{COMPRESSED_ENDING} (default: {DEFAULT_TOPIC})",
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
        help="publish the recorded time on /clock, for nodes with use_sim_time (default rate: 40); "
        "the frames of a video are then stamped with it, else with the time of the system",
    )
    parser.add_argument(
        "--wait", type=number(0, 3600), default=0.0, metavar="S", help="seconds to wait for subscribers of all topics"
    )


def run(args: argparse.Namespace) -> int:
    """Publish a bag or a video, once or for ever."""
    os.environ.update(settings_for_images(os.environ))  # else most raw images are lost; before ROS reads it
    try:
        from ..node import bag_publisher
    except ImportError as error:
        raise InvalidInput(f"ROS 2 is not set up in this shell ({error}); run: . install/setup.sh") from None
    with ExitStack() as stack:
        recording = (_video if is_video(args.bag) else _bag)(args, stack)
        pacer = Pacer(args.rate, args.paused)
        stack.enter_context(bag_publisher.ros_context())
        node = bag_publisher.BagPublisher(args.bag, recording.topics, pacer, args.clock)
        for topic, reason in node.left_out.items():
            print(f"activeo3 play: {topic} is left out: {reason}", file=sys.stderr)
        if args.wait and not node.wait_for_subscribers(args.wait):
            raise InvalidInput(f"not every topic has a subscriber after {args.wait:g} s: {', '.join(node.topics)}")
        if args.paused:
            print(f"paused; press Enter, or call /{bag_publisher.NODE_NAME}/pause with false", file=sys.stderr)

        def toggle() -> None:
            pacer.pause(not pacer.is_paused)

        bag_publisher.run(node, lambda: _play(node, recording, args.loop), toggle)
    for text in (*recording.notes(), *recording.problems()):
        print(f"activeo3 play: {args.bag}: {text}", file=sys.stderr)
    return BAD_INPUT if recording.problems() else SUCCESS


@dataclass(frozen=True)
class _Recording:
    """A bag or a video to play.

    Attributes:
        topics: Its topics.
        count: Number of messages of some of them; None where nobody knows.
        messages: The messages of some of them, from the beginning. They are given a clock, for stamps of now.
        problems: What of it could not be read, known after the last message.
        notes: What was assumed, likewise.
    """

    topics: list[Topic]
    count: Callable[[list[str]], int | None]
    messages: Callable[[list[str], Callable[[], int]], Iterator[Recorded]]
    problems: Callable[[], list[str]] = list
    notes: Callable[[], list[str]] = list


def _bag(args: argparse.Namespace, stack: ExitStack) -> _Recording:
    bag = stack.enter_context(Bag(args.bag))
    for topic in args.topic:
        topic_type(bag, topic)
    entries, damage = bag.index(args.topic or list(bag.topics), by_header=False)
    if damage:
        print(f"activeo3 play: {args.bag}: {damage.describe()}", file=sys.stderr)
    if not entries:
        raise InvalidInput(f"{args.bag}: has no message that can be read")

    def chosen(topics: list[str]) -> list[Entry]:
        return [entry for entry in entries if entry.topic in topics]

    def messages(topics: list[str], now_ns: Callable[[], int]) -> Iterator[Recorded]:
        from ..node.bag_publisher import Recorded

        return (Recorded(entry.topic, entry.log_time_ns, partial(bag.read, entry)) for entry in chosen(topics))

    names = dict.fromkeys(entry.topic for entry in entries)
    return _Recording([bag.topics[name] for name in names], lambda topics: len(chosen(topics)), messages)


def _video(args: argparse.Namespace, stack: ExitStack) -> _Recording:
    video = stack.enter_context(open_video(args.bag))
    if len(args.topic) > 1:
        raise InvalidInput(f"{args.bag}: a video is published on one topic, got {', '.join(args.topic)}")
    topic = image_topic(args.topic[0] if args.topic else DEFAULT_TOPIC)
    serialize, begin_ns = serializer(topic), start_ns(video)

    def read(image: Picture, stamp_ns: int | None, now_ns: Callable[[], int]) -> bytes:
        return serialize(image, now_ns() if stamp_ns is None else stamp_ns)

    def messages(topics: list[str], now_ns: Callable[[], int]) -> Iterator[Recorded]:
        from ..node.bag_publisher import Recorded

        for shown in video.frames():
            time_ns = begin_ns + round(shown.time_s * 1e9)
            # Nodes with use_sim_time compare stamps with /clock, others with the system's.
            yield Recorded(topic.name, time_ns, partial(read, shown.image, time_ns if args.clock else None, now_ns))

    return _Recording([topic], lambda topics: video.count(), messages, lambda: video.problems, lambda: video.notes)


def _play(node: BagPublisher, recording: _Recording, loop: bool) -> None:
    while True:
        with progress("play", recording.count(node.topics), LINES_OF_PROGRESS, "message") as show:
            messages = recording.messages(node.topics, lambda: node.get_clock().now().nanoseconds)
            published, damaged = node.publish(messages, show)
        print(f"{published} messages published, {damaged} could not be read", file=sys.stderr)
        if not loop:
            return
