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

"""The part of `activeo3 perceive` for videos: every frame through the loop, an annotated video, a JSON line a frame."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from ..codecs.image_files import Picture, find_images, natural_order
from ..codecs.picture import draw, side_by_side
from ..codecs.result_json import to_json
from ..codecs.video import FrameSource, PictureSequence, VideoFrame, VideoWriter, is_video, open_video
from ..core import Frame, InvalidInput, Result, Status
from ..core.scene import Scene
from .interruption import stop_after_this_frame
from .progress import progress

Perceive = Callable[[Frame, Scene | None], Result]


@dataclass(frozen=True)
class Before:
    """The other way to perceive a video, shown beside the first.

    Attributes:
        perceive: Perceives a frame.
        memory: Whether its frames are weighed together.
        titles: Of the other way, on the left, and of the first, on the right.
    """

    perceive: Perceive
    memory: bool
    titles: tuple[str, str]


LINES_OF_PROGRESS = 10
"""Where there is no terminal for a bar."""
TIME_DIGITS = 6
"""Of seconds in JSON: the clocks of videos count microseconds at best."""


@dataclass
class Summary:
    """What came of a video.

    Attributes:
        size: Width and height of the first frame, pixels.
        end_s: When the last frame is shown, seconds.
        statuses: Frames by the status of their result.
        labels: Detections of all frames by their label.
        failures: Failed frames by the reason.
        problems: What could not be read.
        notes: What was assumed.
        is_interrupted: Whether Ctrl-C ended it before its end.
    """

    size: tuple[int, int] = (0, 0)
    end_s: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_interrupted: bool = False

    def add(self, shown: VideoFrame, result: Result) -> None:
        """Count the result of a frame."""
        self.size = self.size if self.statuses else (result.width, result.height)
        self.end_s = shown.time_s
        self.statuses[result.status.name.lower()] += 1
        self.labels.update(detection.label for detection in result.detections)
        if result.status is Status.FAILED:
            self.failures[result.status_message] += 1

    def describe(self, path: Path) -> str:
        """A few lines for people: frames by status, objects a frame."""
        frames = self.statuses.total()
        statuses = ", ".join(f"{count} {status}" for status, count in self.statuses.items())
        seen = frames - self.statuses["failed"]
        found = ", ".join(f"{count / seen:.1f} {label}" for label, count in self.labels.most_common())
        lines = [
            f"{path}: {frames} frames of {self.size[0]} x {self.size[1]} px to {self.end_s:.3f} s, {statuses}",
            f"  found in a frame, on average: {found or 'nothing'}",
        ]
        return "\n".join(lines[: 2 if seen else 1])


def split_inputs(inputs: list[str], rate: float | None) -> tuple[list[str], list[Path]]:
    """Tell pictures from videos.

    Args:
        inputs: Paths as the user gave them.
        rate: Frames a second of directories of pictures, None where these are single pictures.

    Returns:
        Pictures and directories of single pictures; then videos, and directories that stand for one.
    """
    moving = [Path(text) for text in inputs if is_video(Path(text)) or (rate is not None and Path(text).is_dir())]
    return [text for text in inputs if Path(text) not in moving], moving


def frame_source(stack: ExitStack, path: Path, rate: float | None) -> FrameSource:
    """Open a video, or a directory of pictures as one.

    Args:
        stack: Closes it.
        path: The video or the directory.
        rate: Frames a second of a directory.

    Raises:
        InvalidInput: It is none.
    """
    if rate is None or not path.is_dir():
        return stack.enter_context(open_video(path))
    pictures, errors = find_images([path])
    if errors:
        raise InvalidInput(errors[0])
    return PictureSequence(path, sorted(pictures, key=natural_order), rate)


def output_files(directory: Path, stem: str, compared: bool = False) -> tuple[Path, Path]:
    """The annotated or compared video and the results of a video."""
    kind = "compared" if compared else "annotated"
    return directory / f"{stem}.{kind}.mp4", directory / f"{stem}.results.jsonl"


def perceive_video(
    source: FrameSource,
    perceive: Perceive,
    files: tuple[Path, Path] | None,
    args: argparse.Namespace,
    before: Before | None = None,
) -> Summary:
    """Perceive the frames of a video in their order, and save each result before the next frame.

    Args:
        source: The frames.
        perceive: Gives the result of a frame, given the scene that its camera shows, if frames are weighed together.
        files: The annotated video and the results to write.
        args: `start`, `duration` and `every` choose frames; `json` prints each result; `memory` has objects followed.
        before: Another way to perceive each frame, which the video shows on the left; its results are not saved.

    Returns:
        What came of it, also where Ctrl-C ended it.

    Raises:
        InvalidInput: No frame could be read.
    """
    summary = Summary()
    part = args.start, args.duration, args.every
    with ExitStack() as stack:
        stop = stack.enter_context(stop_after_this_frame())
        show = stack.enter_context(progress(source.path.name, source.count(*part), LINES_OF_PROGRESS))
        save = _Saver(stack, files)
        scene = Scene() if args.memory else None
        other_scene = Scene() if before is not None and before.memory else None
        for shown in source.frames(*part):
            stamp_ns = round(shown.time_s * 1e9) + 1  # a stamp of 0 means none
            frame = Frame(shown.image, stamp_ns)
            result = perceive(frame, scene)
            summary.add(shown, result)
            line = _line(source.path, shown, result)
            if args.json:
                tqdm.write(line)
            picture = draw(shown.image, result) if files is not None else shown.image
            if before is not None and files is not None:
                other = draw(shown.image, before.perceive(frame, other_scene))
                picture = side_by_side(list(zip(before.titles, (other, picture), strict=True)))
            save(line, picture, shown.time_s)
            show(summary.statuses.total())
            if stop.is_wanted:
                summary.is_interrupted = True
                break
    summary.problems, summary.notes = source.problems, source.notes
    return summary


def _line(path: Path, shown: VideoFrame, result: Result) -> str:
    """A line of JSON: the object of a picture, with number and time of the frame after its name."""
    values = to_json(result, str(path))
    name = {"image": values.pop("image"), "frame": shown.number, "time_s": round(shown.time_s, TIME_DIGITS)}
    return json.dumps({**name, **values}, ensure_ascii=False, allow_nan=False)


class _Saver:
    """Writes results beside the annotated video; the files begin with the first frame."""

    def __init__(self, stack: ExitStack, files: tuple[Path, Path] | None) -> None:
        self._stack = stack
        self._files = files
        self._lines: TextIO | None = None
        self._video: VideoWriter | None = None

    def __call__(self, line: str, picture: Picture, time_s: float) -> None:
        if self._files is None:
            return
        video, lines = self._files
        if self._lines is None or self._video is None:
            lines.parent.mkdir(parents=True, exist_ok=True)
            self._lines = self._stack.enter_context(lines.open("w", encoding="utf-8"))
            self._video = self._stack.enter_context(VideoWriter(video))
        try:
            self._lines.write(line + "\n")
            self._lines.flush()
        except OSError as error:  # which does not know the file
            raise InvalidInput(f"{lines}: {error.strerror}") from error
        self._video.write(picture, time_s)
