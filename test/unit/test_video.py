"""Videos: each frame upright and with its own time, what is damaged or missing said, whole files whatever happens."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from video_fixtures import (
    cut,
    number_in,
    numbered_frame,
    remux,
    steady_times,
    with_display_matrix,
    write_sound,
    write_video,
)

from activeo3_ros.codecs import video as video_module
from activeo3_ros.codecs.video import PictureSequence, Video, VideoFrame, VideoWriter, open_video
from activeo3_ros.core import InvalidInput

VARIABLE_TIMES = [0.0, 0.1, 0.15, 0.4, 1.0, 1.04, 2.0, 2.5]
COUNT = 30


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of numbered frames at 10 Hz."""
    return write_video(tmp_path_factory.mktemp("video") / "steady.mp4", steady_times(COUNT))


def read(path: Path, *part: float) -> tuple[list[VideoFrame], Video]:
    with open_video(path) as video:
        return list(video.frames(*part)), video


# ---- times -----------------------------------------------------------------------------------------------------------


def test_every_frame_of_a_variable_rate_has_its_own_time(tmp_path):
    frames, video = read(write_video(tmp_path / "a.mp4", VARIABLE_TIMES))
    assert [frame.time_s for frame in frames] == pytest.approx(VARIABLE_TIMES, abs=1e-4)
    assert [number_in(frame.image) for frame in frames] == list(range(len(VARIABLE_TIMES)))
    assert [frame.number for frame in frames] == list(range(len(VARIABLE_TIMES)))
    assert video.problems == video.notes == []


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=6))
def test_what_is_written_is_read_at_its_times(tmp_path_factory, steps_ms):
    times = [float(time) for time in np.cumsum([0, *steps_ms]) / 1000]
    frames, _ = read(write_video(tmp_path_factory.mktemp("video") / "a.mp4", times))
    assert [frame.time_s for frame in frames] == pytest.approx(times, abs=1e-4)


def test_times_begin_with_the_first_frame_that_is_written(tmp_path):
    frames, _ = read(write_video(tmp_path / "a.mp4", [60.0, 60.5]))
    assert [frame.time_s for frame in frames] == pytest.approx([0.0, 0.5])


def test_a_frame_that_is_not_later_than_the_one_before_is_shown_after_it(tmp_path):
    frames, _ = read(write_video(tmp_path / "a.mp4", [0.0, 0.5, 0.5, 0.2, 1.0]))
    assert [number_in(frame.image) for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.time_s for frame in frames] == pytest.approx([0.0, 0.5, 0.5, 0.5, 1.0], abs=1e-3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_part_is_read_by_its_seconds_and_numbered_from_its_beginning(steady, tmp_path, name):
    frames, video = read(remux(steady, tmp_path / name), 1.0, 0.6, 2)
    assert [number_in(frame.image) for frame in frames] == [10, 12, 14]
    assert [frame.number for frame in frames] == [0, 2, 4]
    assert [frame.time_s for frame in frames] == pytest.approx([1.0, 1.2, 1.4], abs=1e-3)
    assert video.count(1.0, 0.6, 2) == 3
    assert video.problems == []


def test_a_stream_without_times_is_read_at_an_assumed_rate_which_is_said(steady, tmp_path):
    frames, video = read(remux(steady, tmp_path / "a.h264"))
    assert [number_in(frame.image) for frame in frames] == list(range(COUNT))
    assert [frame.time_s for frame in frames][:3] == pytest.approx([0.0, 1 / video.rate, 2 / video.rate])
    assert video.notes == [f"it has no time stamps; {video.rate:g} frames a second are assumed"]
    assert video.duration_s is None or video.duration_s > 0


def test_the_time_of_recording_is_read_where_the_file_tells_it(steady):
    assert video_module._created_ns("2026-11-28T21:16:08.500000Z") == 1_795_900_568_500_000_000
    assert video_module._created_ns("1904-01-01T00:00:00Z") is None  # a camera whose clock was never set
    assert read(steady)[1].created_ns is None


# ---- rotation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)),
        ((-1, 0, 0, -1), lambda image: cv2.rotate(image, cv2.ROTATE_180)),
        ((0, -1, 1, 0), lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE)),
        ((-1, 0, 0, 1), lambda image: cv2.flip(image, 1)),
        ((0, 1, 1, 0), lambda image: cv2.transpose(image)),
    ],
)
def test_a_video_that_is_stored_turned_is_given_upright(steady, tmp_path, matrix, upright):
    frames, _ = read(with_display_matrix(steady, tmp_path / "a.mp4", *matrix), 0.0, 0.5)
    for frame, stored in zip(frames, read(steady, 0.0, 0.5)[0], strict=True):
        assert np.array_equal(frame.image, upright(stored.image))


def test_a_video_that_is_turned_by_another_angle_is_refused(steady, tmp_path):
    with pytest.raises(InvalidInput, match=r"a\.mp4: is turned by an angle that is no quarter turn"):
        read(with_display_matrix(steady, tmp_path / "a.mp4", 0.87, 0.5, -0.5, 0.87))


# ---- what is missing or damaged --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), [("a.mp4", {"movflags": "faststart"}), ("a.mkv", {})])
def test_of_a_video_cut_short_all_that_is_there_is_given_and_the_end_is_said(steady, tmp_path, name, options):
    whole = remux(steady, tmp_path / name, **options)
    assert read(whole)[1].problems == []
    frames, video = read(cut(whole, tmp_path / f"cut-{name}", 0.7))
    assert 5 < len(frames) < COUNT
    assert [number_in(frame.image) for frame in frames] == list(range(len(frames)))
    (problem,) = (text for text in video.problems if "cut short" in text)
    assert f"its last frame is at {frames[-1].time_s:.3f} s, its header says " in problem


def test_a_part_before_the_cut_is_whole(steady, tmp_path):
    whole = remux(steady, tmp_path / "a.mkv")
    frames, video = read(cut(whole, tmp_path / "cut.mkv", 0.7), 0.0, 0.5)
    assert len(frames) == 5
    assert video.problems == []


def test_an_mp4_cut_before_its_index_is_refused_with_the_reason(steady, tmp_path):
    whole = remux(steady, tmp_path / "a.mp4")  # the index is at the end
    with pytest.raises(InvalidInput, match=r"cut\.mp4: cannot be read: it was cut short, or its recording never ended"):
        read(cut(whole, tmp_path / "cut.mp4", 0.7))


def test_damaged_frames_and_those_predicted_from_them_are_left_out_and_counted(tmp_path):
    whole = remux(write_video(tmp_path / "long.mp4", steady_times(80)), tmp_path / "a.mp4", movflags="faststart")
    with av.open(str(whole)) as container:
        packets = [(packet.pos, packet.size, packet.is_keyframe) for packet in container.demux() if packet.size]
    data = bytearray(whole.read_bytes())
    at, size, _ = packets[15]
    data[at : at + size] = bytes(size)
    (tmp_path / "bad.mp4").write_bytes(data)
    frames, video = read(tmp_path / "bad.mp4")
    next_keyframe = next(number for number in range(16, 80) if packets[number][2])
    kept = [*range(15), *range(next_keyframe, 80)]
    assert [(frame.number, number_in(frame.image)) for frame in frames] == [(number, number) for number in kept]
    assert [frame.time_s for frame in frames] == pytest.approx([number / 10 for number in kept])
    assert video.problems == [f"{next_keyframe - 15} damaged frames are left out, after 1.400 s"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("text.mp4", b"this is no video\n" * 50, "is no video in a known format"),
        ("empty.mp4", b"", "is no video"),
        ("none.mp4", None, "no such file"),
    ],
)
def test_a_file_that_is_no_video_is_refused(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=f"{name}: {says}"):
        read(tmp_path / name)


def test_sound_alone_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"sound\.mp4: has no video, only audio"):
        read(write_sound(tmp_path / "sound.mp4"))


@pytest.mark.parametrize("name", ["none.mp4", "none.mkv"])
def test_a_video_without_a_frame_is_refused(tmp_path, name):
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(InvalidInput, match=rf"{name}: (has no video|is no video, or ends before its first frame)"):
        read(tmp_path / name)


def test_a_part_beyond_the_end_is_refused_with_the_length(steady):
    with pytest.raises(InvalidInput, match=r"has no frame from 60 s on; it is [23]\.\d+ s long"):
        read(steady, 60.0)


def test_frames_of_too_many_pixels_are_refused_before_one_is_decoded(steady, monkeypatch):
    monkeypatch.setattr(video_module, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(InvalidInput, match=r"64 x 48 is more than 1000 pixels a frame"):
        read(steady)


def test_one_frame_at_a_time_is_in_memory(tmp_path):
    path = write_video(tmp_path / "a.mp4", steady_times(200), 320, 240)
    tracemalloc.start()
    with open_video(path) as video:
        count = sum(1 for _ in video.frames())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 200
    assert peak < 10 * 320 * 240 * 3


# ---- writing ---------------------------------------------------------------------------------------------------------


def test_odd_sizes_and_sizes_that_change_are_fitted_into_an_even_one(tmp_path):
    with VideoWriter(tmp_path / "a.mp4") as writer:
        for number, (width, height) in enumerate([(161, 97), (161, 97), (320, 97), (20, 400)]):
            writer.write(np.full((height, width, 3), 200, np.uint8), number)
    frames, _ = read(tmp_path / "a.mp4")
    assert [frame.image.shape for frame in frames] == [(98, 162, 3)] * 4
    assert np.abs(frames[1].image.astype(int) - 200).max() < 6


def test_nothing_is_left_of_a_video_without_frames(tmp_path):
    VideoWriter(tmp_path / "a.mp4").close()
    assert not (tmp_path / "a.mp4").exists()


def test_a_killed_writer_leaves_a_video_that_can_be_played(tmp_path):
    script = (
        "import os, signal, sys; import numpy as np; from pathlib import Path\n"
        "from activeo3_ros.codecs.video import VideoWriter\n"
        "writer = VideoWriter(Path(sys.argv[1]))\n"
        "for n in range(300): writer.write(np.random.default_rng(n).integers(0, 255, (48, 64, 3), np.uint8), n / 10)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, tmp_path / "a.mp4"]).returncode == -9
    frames, _ = read(tmp_path / "a.mp4")
    assert len(frames) > 100


def test_a_full_disk_is_named_by_its_file():
    writer = VideoWriter(Path("/dev/full"))
    frames = (np.random.default_rng(number).integers(0, 255, (240, 320, 3), np.uint8) for number in range(200))
    with pytest.raises(OSError, match="No space left") as error:
        any(writer.write(frame, number) for number, frame in enumerate(frames))
    assert error.value.filename == "/dev/full"
    writer.close()


# ---- numbered pictures -----------------------------------------------------------------------------------------------


def test_pictures_are_frames_at_a_rate_and_one_that_cannot_be_read_is_said(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), numbered_frame(number))
    paths[4].write_bytes(b"no picture")
    source = PictureSequence(tmp_path, paths, 4.0)
    frames = list(source.frames(0.5, 2.0, 2))
    assert [(frame.number, frame.time_s, number_in(frame.image)) for frame in frames] == [
        (0, 0.5, 2), (4, 1.5, 6), (6, 2.0, 8),
    ]  # fmt: skip
    assert source.count(0.5, 2.0, 2) == 4
    (problem,) = source.problems
    assert "the frame 2 is missing" in problem
    assert "4.png" in problem
