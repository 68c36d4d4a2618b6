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

"""`activeo3 record`: record topics, or a video, as a bag, where there is no `ros2 bag`."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
import time
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from ..bags.messages import IMAGE_TYPE
from ..bags.video import COMPRESSED_ENDING, DEFAULT_TOPIC, image_topic, serializer, start_ns
from ..codecs.video import Video, is_video, open_video
from ..core import InvalidInput
from ..node.transports import settings_for_images
from .bag_output import check_bag_out, write_anew, write_live
from .interruption import stop_after_this_frame
from .main import BAD_INPUT, SUCCESS
from .options import add_force_argument, add_part_arguments, check_not_overwritten
from .progress import progress

LINES_OF_PROGRESS = 10
"""Where there is no terminal for a bar."""
RAW_BYTES_A_PIXEL = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.description = (
        "Record topics until Ctrl-C, which leaves a whole bag and exit code 0, or for the seconds of --duration, from "
        "when it begins to wait for them; without a message no bag is left, and the exit code is 2. Or turn a video "
        "into a bag, its frames stamped with their times from the moment of its recording on, if the file tells that, "
        "else from 0."
    )
    parser.add_argument("video", nargs="?", type=Path, metavar="VIDEO", help="a video, by its suffix, not topics")
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="T",
        help="a topic to record (may be repeated); of a video the topic to write, as JPEG where it ends with "
        f"{COMPRESSED_ENDING} (default: {DEFAULT_TOPIC})",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the bag to write, an .mcap file")
    add_part_arguments(parser)
    add_force_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Record to a bag that is whole however it ends."""
    check_bag_out(args.out)
    if args.video is None:
        if not args.topic:
            raise InvalidInput("nothing to record: give topics with --topic, or a video")
        if args.start or args.every != 1:
            raise InvalidInput("--start and --every choose frames of a video; topics are recorded whole")
    elif not is_video(args.video):
        raise InvalidInput(f"{args.video}: is no video by its suffix; topics are given with --topic")
    elif len(args.topic) > 1:
        raise InvalidInput(f"{args.video}: a video is written on one topic, got {', '.join(args.topic)}")
    check_not_overwritten([args.out], args.force)
    return _record_topics(args) if args.video is None else _record_video(args)


def _record_video(args: argparse.Namespace) -> int:
    topic = image_topic(args.topic[0] if args.topic else DEFAULT_TOPIC)
    serialize, part, written = serializer(topic), (args.start, args.duration, args.every), 0
    with ExitStack() as stack:
        video = stack.enter_context(open_video(args.video))
        count = video.count(*part)
        if topic.type == IMAGE_TYPE:
            _check_room(args.out, video, count or 0)
        frames = video.frames(*part)
        first = next(frames)  # raises InvalidInput before the bag is begun
        stop = stack.enter_context(stop_after_this_frame())
        writer = stack.enter_context(write_anew(args.out))
        writer.add_topic(topic.name, topic.type)
        show = stack.enter_context(progress("record", count, LINES_OF_PROGRESS))
        for shown in chain([first], frames):
            stamp_ns = start_ns(video) + round(shown.time_s * 1e9)
            writer.write(topic.name, stamp_ns, serialize(shown.image, stamp_ns))
            written += 1
            show(written)
            if stop.is_wanted:
                break
    print(f"{args.out}: {written} frames on {topic.name}")
    for text in (*video.notes, *video.problems):
        print(f"activeo3 record: {args.video}: {text}", file=sys.stderr)
    if stop.is_wanted:
        raise KeyboardInterrupt
    return BAD_INPUT if video.problems else SUCCESS


def _check_room(out: Path, video: Video, frames: int) -> None:
    """Raise InvalidInput where a bag of raw images cannot fit on the disk."""
    needed = frames * video.width * video.height * RAW_BYTES_A_PIXEL
    free = shutil.disk_usage(next(folder for folder in out.absolute().parents if folder.exists())).free
    if needed > free:
        raise InvalidInput(
            f"--out {out}: raw images need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; take a part of the "
            f"video, or a topic that ends with {COMPRESSED_ENDING}"
        )


def _record_topics(args: argparse.Namespace) -> int:
    os.environ.update(settings_for_images(os.environ))  # else most raw images are lost; before ROS reads it
    try:
        from ..node import recorder
        from ..node.bag_publisher import ros_context
    except ImportError as error:
        raise InvalidInput(f"ROS 2 is not set up in this shell ({error}); run: . install/setup.sh") from None
    recorded, within = 0, "" if args.duration is None else f" in {args.duration:g} s"
    with ExitStack() as stack:
        stop = stack.enter_context(stop_after_this_frame())
        stack.enter_context(ros_context())
        writer = stack.enter_context(write_live(args.out))
        show = stack.enter_context(progress("record", None, LINES_OF_PROGRESS, "message"))

        def count(topic: str) -> None:
            nonlocal recorded
            recorded += 1
            show(recorded)

        ends = math.inf if args.duration is None else time.monotonic() + args.duration
        print(f"waiting for {', '.join(args.topic)}; Ctrl-C ends the recording", file=sys.stderr, flush=True)
        counts_of = recorder.record(writer, args.topic, count, lambda: stop.is_wanted or time.monotonic() >= ends)
    for topic in args.topic:
        counts = counts_of.get(topic)
        print(f"{topic}: {counts.describe() if counts else 'nobody published it'}")
    if not recorded:
        raise InvalidInput(f"{args.out}: nothing was recorded{within}")
    print(f"{args.out}: {recorded} messages")
    return SUCCESS
