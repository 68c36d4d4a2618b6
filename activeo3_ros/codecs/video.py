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

"""Video files: read frame by frame with the time of each, and written.

A frame is `(h, w, 3)` uint8 BGR, upright: the rotation that a phone notes in the file is applied, so that boxes are in
the pixels that a viewer shows. Its time is the file's own, so that a variable frame rate stays what it is. One frame is
in memory at a time. A frame that the decoder calls damaged is left out and counted, with those after it up to the next
keyframe, whose pixels are predicted from it; a file that ends before its header says it does is read as far as it goes,
and said to be cut short. Changed bytes that decode to their end cannot be noticed, as in a JPEG.

PyAV decodes and encodes: OpenCV's reader gives neither time stamps nor damage nor a missing end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..core import InvalidInput
from ..core.optional import require_package
from .image_files import MAX_IMAGE_PIXELS, Picture, read_image

SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".h264", ".h265", ".hevc", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg"),
    *(".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv", ".y4m"),
)
"""Suffixes of the files that are read as videos."""
PACKAGE = "av>=17"
"""Older ones do not tell where the frames lie in the file, by which a missing end is known."""
HEADER_TELLS_DURATION = {"avi", "flv", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"}
"""Formats whose header says how long they are; elsewhere that is estimated from what is there."""
END_TOLERANCE_FRAMES = 2
"""The last packet of a whole file may end so many frames before the duration in its header."""
SEEK_EARLIER_S = (0.0, 10.0, 60.0)
"""Without an index, a search may end behind the time that it is for: then it is made for so much earlier."""
ASSUMED_RATE = 25.0
"""Frames a second of a stream that names neither a rate nor the times of its frames, as FFmpeg assumes it."""
MAX_RATE = 1000
"""Frames a second; files with a variable rate name more where they mean the unit of their clock."""
TIME_BASE = Fraction(1, 90_000)
"""Seconds; the unit of time in the videos that are written."""
QUALITY = "23"
"""Constant rate factor of x264, which is its default."""
KEYFRAME_EVERY = 60
"""Frames; a process that is killed loses what came after the last keyframe."""


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video.

    Attributes:
        number: Counted from 0 at the place where reading began.
        time_s: Seconds after the beginning of the video.
        image: `(h, w, 3)` uint8, BGR, upright.
    """

    number: int
    time_s: float
    image: Picture


def is_video(path: Path) -> bool:
    """Whether a file is read as a video, by its suffix."""
    return path.suffix.lower() in SUFFIXES


class Video:
    """A video file that is open for reading.

    Attributes:
        path: The file.
        width: Of the stored frames in pixels, before the rotation that the file may ask for.
        height: Likewise.
        duration_s: Seconds, None where the file does not say.
        rate: Frames a second on average.
        created_ns: Time of the recording in nanoseconds since 1970, None where the file does not say.
        problems: What of the video could not be read, in words; complete once `frames` has ended.
        notes: What was assumed, in words; no fault of the file's content.
    """

    def __init__(self, path: Path, container: Any) -> None:
        """Find the video in an open container. Raises InvalidInput if there is none that can be decoded."""
        self.path = path
        self._container = container
        self._stream = _video_stream(path, container)
        self.width, self.height = int(self._stream.codec_context.width), int(self._stream.codec_context.height)
        if self.width * self.height > MAX_IMAGE_PIXELS:
            raise InvalidInput(f"{path}: {self.width} x {self.height} is more than {MAX_IMAGE_PIXELS} pixels a frame")
        told = (self._stream.average_rate, self._stream.guessed_rate)
        self.rate = next((float(rate) for rate in told if rate and rate <= MAX_RATE), ASSUMED_RATE)
        self.duration_s = self._duration_s()
        self.created_ns = _created_ns(container.metadata.get("creation_time", ""))
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._end_s = self._shown_s = 0.0
        """Where the last packet ends, of whichever stream; where the last frame is shown."""

    def count(self, start_s: float = 0.0, duration_s: float | None = None, every: int = 1) -> int | None:
        """About how many frames `frames` will give; None where the file does not say how long it is."""
        if self.duration_s is None:
            return None
        seconds = max(0.0, self.duration_s - start_s)
        if duration_s is not None:
            seconds = min(seconds, duration_s)
        return max(1, round(seconds * self.rate / every))

    def frames(self, start_s: float = 0.0, duration_s: float | None = None, every: int = 1) -> Iterator[VideoFrame]:
        """Decode the frames in the order of their display. May be called again, and begins anew.

        Args:
            start_s: Seconds of the video before the first frame.
            duration_s: Seconds of the video to read; None: to its end.
            every: Every how many frames one is given.

        Raises:
            InvalidInput: No frame of that part can be decoded.
        """
        self.problems, self.notes = [], []
        self._end_s = self._shown_s = 0.0
        end_s = None if duration_s is None else start_s + duration_s
        number, given = -1, 0
        damaged_after_s: list[float] = []
        try:
            for time_s, frame in self._decoded(start_s):
                if time_s < start_s:
                    continue
                if end_s is not None and time_s >= end_s:
                    break
                number += 1
                if frame is None:
                    damaged_after_s.append(self._shown_s)
                    continue
                self._shown_s = time_s
                if number % every == 0:
                    given += 1
                    yield VideoFrame(number, time_s, self._upright(frame))
            else:
                self._check_end()
        finally:  # also where the reader stops early
            if count := len(damaged_after_s):
                frames = "1 damaged frame is" if count == 1 else f"{count} damaged frames are"
                self.problems.append(f"{frames} left out, after {damaged_after_s[0]:.3f} s")
        if not given:
            raise InvalidInput(f"{self.path}: {self._why_nothing(start_s)}")

    def _decoded(self, start_s: float) -> Iterator[tuple[float, Any]]:
        """Time and decoded frame, None for a damaged one, from the keyframe before `start_s` on."""
        av = require_package("av", "to read videos", PACKAGE)
        self._rewind(start_s)
        stream = self._stream
        origin = stream.start_time
        time_s = -1.0 / self.rate
        is_doubtful = False  # since a frame was damaged from which the next ones are predicted
        for packet in self._packets():
            try:
                frames = packet.decode() if packet.stream is stream else []
            except av.error.FFmpegError:
                is_doubtful = True
                yield (time_s if packet.pts is None else float((packet.pts - (origin or 0)) * stream.time_base)), None
                continue
            for frame in frames:
                if frame.pts is None:
                    time_s += 1.0 / self.rate
                    self._note(f"it has no time stamps; {self.rate:g} frames a second are assumed")
                else:
                    origin = frame.pts if origin is None else origin
                    time_s = float((frame.pts - origin) * frame.time_base)
                is_doubtful = frame.is_corrupt or (is_doubtful and not frame.key_frame)
                yield time_s, None if is_doubtful else frame

    def _packets(self) -> Iterator[Any]:
        """The packets of all streams to the end of the file, or to where it cannot be read any more."""
        av = require_package("av", "to read videos", PACKAGE)
        try:
            for packet in self._container.demux():
                if packet.pts is not None:
                    end = (packet.pts + (packet.duration or 0)) * packet.time_base
                    begin = (self._stream.start_time or 0) * self._stream.time_base
                    self._end_s = max(self._end_s, float(end - begin))
                yield packet
        except av.error.FFmpegError as error:
            self.problems.append(f"it cannot be read beyond {self._end_s:.3f} s: {_reason(error)}")

    def _rewind(self, start_s: float) -> None:
        """Open the file anew, at a keyframe before a time, or at its beginning where none can be found."""
        self._reopen()
        stream = self._stream
        if not start_s or stream.start_time is None:  # a stream without times is read from its beginning
            return
        wanted = stream.start_time + int(start_s / stream.time_base)
        for earlier_s in SEEK_EARLIER_S:
            place = max(stream.start_time, wanted - int(earlier_s / stream.time_base))
            self._container.seek(place, stream=stream)
            keyframe = next((packet.pts for packet in self._container.demux(stream) if packet.is_keyframe), None)
            if keyframe is not None and keyframe <= wanted:
                self._container.seek(place, stream=stream)
                return
        self._reopen()

    def _reopen(self) -> None:
        self._container.close()
        self._container = _open(self.path)
        self._stream = _video_stream(self.path, self._container)

    def _check_end(self) -> None:
        """Note that the file ends before its own end, where its header or its index says so."""
        size = self.path.stat().st_size
        missing = [entry for entry in self._stream.index_entries if entry.pos + entry.size > size]
        expected_s = self.duration_s or 0.0
        told = self._container.format.name in HEADER_TELLS_DURATION
        if missing or (told and self._end_s < expected_s - END_TOLERANCE_FRAMES / self.rate):
            self.problems.append(
                f"it is cut short: its last frame is at {self._shown_s:.3f} s, its header says {expected_s:.3f} s"
            )

    def _upright(self, frame: Any) -> Picture:
        image = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
        matrix = frame.side_data.get("DISPLAYMATRIX")
        return image if matrix is None else _turned(image, np.frombuffer(bytes(matrix), np.int32), self.path)

    def _why_nothing(self, start_s: float) -> str:
        if self.problems:
            return f"has no frame that can be read: {'; '.join(self.problems)}"
        if start_s and self._end_s:
            return f"has no frame from {start_s:g} s on; it is {self._end_s:.3f} s long"
        return "has no frame"

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _duration_s(self) -> float | None:
        if self._stream.duration:
            return float(self._stream.duration * self._stream.time_base)
        return self._container.duration / 1e6 if self._container.duration else None

    def close(self) -> None:
        """Close the file."""
        self._container.close()


class PictureSequence:
    """Pictures, in the order of the numbers in their names, as the frames of a video; has what `Video` has."""

    def __init__(self, path: Path, pictures: list[Path], rate: float) -> None:
        """Take the pictures of a directory as frames.

        Args:
            path: The directory, for messages.
            pictures: Its pictures in their order; at least one.
            rate: Frames a second.
        """
        self.path = path
        self._pictures = pictures
        self.rate = rate
        self.duration_s = len(pictures) / rate
        self.problems: list[str] = []
        self.notes: list[str] = []

    def count(self, start_s: float = 0.0, duration_s: float | None = None, every: int = 1) -> int:
        """How many frames `frames` will give."""
        return len(self._chosen(start_s, duration_s)[::every])

    def frames(self, start_s: float = 0.0, duration_s: float | None = None, every: int = 1) -> Iterator[VideoFrame]:
        """Read the pictures one by one; as `Video.frames`."""
        self.problems = []
        chosen = self._chosen(start_s, duration_s)
        if not chosen:
            raise InvalidInput(f"{self.path}: has no frame from {start_s:g} s on; it is {self.duration_s:.3f} s long")
        for number, (index, picture) in enumerate(chosen):
            if number % every == 0:
                try:
                    yield VideoFrame(number, index / self.rate, read_image(picture))
                except InvalidInput as error:
                    self.problems.append(f"the frame {number} is missing: {error}")
        if len(self.problems) == len(chosen[::every]):
            raise InvalidInput(f"{self.path}: has no frame that can be read: {self.problems[0]}")

    def _chosen(self, start_s: float, duration_s: float | None) -> list[tuple[int, Path]]:
        end_s = self.duration_s if duration_s is None else start_s + duration_s
        return [(n, path) for n, path in enumerate(self._pictures) if start_s <= n / self.rate < end_s]


FrameSource = Video | PictureSequence
"""Gives the frames of a video."""


@contextmanager
def open_video(path: Path) -> Iterator[Video]:
    """Open a video for reading.

    Raises:
        InvalidInput: There is no such file, it is no video, it has no moving pictures, or they cannot be decoded.
        MissingPackageError: PyAV is not installed.
    """
    container = _open(path)
    try:
        video = Video(path, container)
    except BaseException:
        container.close()
        raise
    try:
        yield video
    finally:
        video.close()


class VideoWriter:
    """Writes an MP4 with H.264; a context manager. What was written before a kill can be played, too."""

    def __init__(self, path: Path) -> None:
        """Write to a file, which is created with the first frame.

        Args:
            path: The file; an older one is overwritten. Its directory is created.

        Raises:
            MissingPackageError: PyAV is not installed.
        """
        self._av = require_package("av", "to write videos", PACKAGE)
        self.path = path
        self._container: Any = None
        self._stream: Any = None
        self._size = (0, 0)
        self._first_s = 0.0
        self._pts = -1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, image: Picture, time_s: float) -> None:
        """Append a frame.

        Args:
            image: `(h, w, 3)` uint8 BGR. The first one sets the size of the video, in even pixels as H.264 needs it;
                others are fitted into it.
            time_s: When it is shown, seconds; the first frame is shown at once.

        Raises:
            OSError: It cannot be written.
        """
        if self._container is None:
            self._open(image, time_s)
        frame = self._av.VideoFrame.from_ndarray(_fitted(image, self._size), format="bgr24")
        # A frame that is not later than the one before it, as in a damaged file, is shown right after it.
        self._pts = max(self._pts + 1, round((time_s - self._first_s) / TIME_BASE))
        frame.pts, frame.time_base = self._pts, TIME_BASE
        self._mux(frame)

    def close(self) -> None:
        """Write what is left, and close the file."""
        if self._container is None:
            return
        container = self._container
        try:
            self._mux(None)
        finally:
            self._container = None
        self._ask(container.close)

    def _mux(self, frame: Any) -> None:
        """Encode a frame, or what is left of the frames before. Raises OSError with the path where the disk is full."""
        container = self._container
        self._ask(lambda: container.mux(self._stream.encode(frame)))

    def _ask(self, step: Callable[[], None]) -> None:
        try:
            step()
        except self._av.error.FFmpegError as error:
            self._container = None  # FFmpeg must not be asked again once it has failed
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _open(self, image: Picture, time_s: float) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Fragments while it is written, an ordinary file in the end.
        flags = {"movflags": "+hybrid_fragmented+frag_keyframe", "flush_packets": "1"}
        self._container = self._av.open(str(self.path), "w", format="mp4", options=flags)
        height, width = image.shape[:2]
        self._size = width + width % 2, height + height % 2
        self._first_s = time_s
        # Without frames that refer to later ones: with a variable rate those get the length of the video wrong.
        options = {"preset": "veryfast", "crf": QUALITY, "bf": "0"}
        self._stream = self._container.add_stream("libx264", options=options)
        self._stream.width, self._stream.height = self._size
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = TIME_BASE
        self._stream.codec_context.gop_size = KEYFRAME_EVERY


def _open(path: Path) -> Any:
    av = require_package("av", "to read videos", PACKAGE)
    if not path.exists():
        raise InvalidInput(f"{path}: no such file")
    try:
        return av.open(str(path))
    except av.error.FFmpegError as error:
        with path.open("rb") as file:
            is_mp4 = file.read(8)[4:] == b"ftyp"
        if isinstance(error, EOFError):
            reason = "is no video, or ends before its first frame"
        elif is_mp4:
            reason = f"cannot be read: it was cut short, or its recording never ended: {_reason(error)}"
        else:
            reason = f"is no video in a known format: {_reason(error)}"
        raise InvalidInput(f"{path}: {reason}") from error


def _video_stream(path: Path, container: Any) -> Any:
    av = require_package("av", "to read videos", PACKAGE)
    # The cover of a piece of music is a stream of video too.
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        kinds = sorted({stream.type for stream in container.streams})
        raise InvalidInput(f"{path}: has no video{', only ' if kinds else ''}{' and '.join(kinds)}")
    stream = streams[0]
    if stream.codec_context is None or not stream.codec_context.width:
        raise InvalidInput(f"{path}: has no frame, or one whose codec is not known")
    stream.thread_type = "AUTO"
    return stream


def _created_ns(text: str) -> int | None:
    """Nanoseconds since 1970 of a time such as 2026-11-28T21:16:08.000000Z; None for none, or for a clock not set."""
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    seconds = int(time.timestamp())
    return seconds * 10**9 + time.microsecond * 1000 if seconds > 0 else None


def _turned(image: Picture, matrix: Any, path: Path) -> Picture:
    """A frame as its display matrix, of 9 fixed-point numbers, wants it: mirrored, or turned by quarters.

    A pixel at p to the right and q down is shown at a p + c q to the right and b p + d q down.
    """
    a, b, c, d = (int(np.sign(matrix[index])) for index in (0, 1, 3, 4))
    if a and d and not (b or c):
        return np.ascontiguousarray(image[::d, ::a])
    if b and c and not (a or d):
        return np.ascontiguousarray(image.transpose(1, 0, 2)[::b, ::c])
    raise InvalidInput(f"{path}: is turned by an angle that is no quarter turn; turn it before")


def _fitted(image: Picture, size: tuple[int, int]) -> Picture:
    """The image at a size (width, height): its last row and column repeated, or scaled and laid on black."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    if 0 <= size[0] - width <= 1 and 0 <= size[1] - height <= 1:
        padding = (0, size[1] - height, 0, size[0] - width)
        return np.asarray(cv2.copyMakeBorder(image, *padding, cv2.BORDER_REPLICATE), np.uint8)
    scale = min(size[0] / width, size[1] / height)
    fitted = max(1, int(width * scale)), max(1, int(height * scale))
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    canvas[: fitted[1], : fitted[0]] = cv2.resize(image, fitted, interpolation=cv2.INTER_AREA)
    return canvas


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", "") or error).lower()
