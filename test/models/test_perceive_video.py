"""`activeo3 perceive` on videos, as a user runs it: a line of JSON a frame, a video that can be played, whole files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from video_fixtures import cut, numbered_frame, remux, steady_times, with_display_matrix, write_sound, write_video
from waiting import wait_for

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.packages import NEEDED_BY, require
from activeo3_ros.codecs.result_json import from_json
from activeo3_ros.codecs.video import VideoWriter, open_video

TIMES = [0.0, 0.1, 0.5, 0.6, 1.0]
FAST = ("--preset", "full_frame", "--max-regions", "0")


@pytest.fixture(scope="module", autouse=True)
def picture() -> np.ndarray:
    """A part of a motorway with cars; skips where the models are missing."""
    try:
        path = [require(asset) for asset in NEEDED_BY["demo"]][-2]
    except AssetError as error:
        pytest.skip(str(error))
    return np.asarray(cv2.imread(str(path)))[240:400, 280:520]


def activeo3(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["activeo3", *map(str, arguments)], capture_output=True, text=True, timeout=200, check=False)


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def shown_times(path: Path) -> list[float]:
    with open_video(path) as video:
        return [frame.time_s for frame in video.frames()]


def film(path: Path, picture: np.ndarray, times: list[float]) -> Path:
    """A video of a picture that moves to the left."""
    with VideoWriter(path) as writer:
        for number, time_s in enumerate(times):
            writer.write(np.roll(picture, -4 * number, axis=1), time_s)
    return path


def test_every_frame_has_a_line_and_is_shown_annotated_at_its_time(tmp_path, picture):
    clip = film(tmp_path / "clip.mp4", picture, TIMES)
    finished = activeo3("perceive", clip, *FAST, "--out", tmp_path / "out")
    assert finished.returncode == 0, finished.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clip.annotated.mp4", "clip.results.jsonl"]
    lines = lines_of(tmp_path / "out" / "clip.results.jsonl")
    assert list(lines[0])[:5] == ["image", "frame", "time_s", "width", "height"]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3, 4]
    assert [line["time_s"] for line in lines] == pytest.approx(TIMES, abs=1e-4)
    assert {(line["image"], line["width"], line["height"]) for line in lines} == {(str(clip), 240, 160)}
    assert all(from_json(line).detections for line in lines), "each frame shows cars"
    assert shown_times(tmp_path / "out" / "clip.annotated.mp4") == pytest.approx(TIMES, abs=1e-4)
    with open_video(clip) as before, open_video(tmp_path / "out" / "clip.annotated.mp4") as after:
        pairs = zip(before.frames(), after.frames(), strict=True)
        assert all(np.abs(a.image.astype(int) - b.image).max() > 100 for a, b in pairs), "boxes are drawn"
    assert "5 frames of 240 x 160 px to 1.000 s, 5 complete" in finished.stdout
    assert "found in a frame, on average: " in finished.stdout
    assert "clip.mp4: 5 of 5" in finished.stderr, "progress"

    again = activeo3("perceive", clip, *FAST, "--out", tmp_path / "out")
    assert again.returncode == 2
    assert "clip.annotated.mp4 and 1 more would be overwritten" in again.stderr
    assert activeo3("perceive", clip, *FAST, "--out", tmp_path / "out", "--force", "--duration", 0.2).returncode == 0
    assert len(lines_of(tmp_path / "out" / "clip.results.jsonl")) == 2


def test_an_object_keeps_its_number_over_frames_unless_each_is_perceived_by_itself(tmp_path, picture):
    clip = film(tmp_path / "clip.mp4", picture, [0.0, 0.1, 0.2, 0.3])
    followed = [json.loads(line) for line in activeo3("perceive", clip, *FAST, "--json").stdout.splitlines()]
    numbers = [{each["track_id"] for each in line["detections"]} for line in followed]
    assert numbers[2] & numbers[3] and "" not in numbers[3]
    alone = activeo3("perceive", clip, *FAST, "--json", "--no-memory").stdout.splitlines()
    assert {each["track_id"] for line in alone for each in json.loads(line)["detections"]} == {""}


def test_json_is_printed_and_boxes_are_in_the_upright_frame(tmp_path, picture):
    clip = film(tmp_path / "clip.mp4", picture, TIMES)
    turned = with_display_matrix(clip, tmp_path / "turned.mp4", 0, 1, -1, 0)
    finished = activeo3("perceive", turned, *FAST, "--json", "--start", 0.1, "--every", 2)
    lines = [json.loads(line) for line in finished.stdout.splitlines()]
    assert [(line["frame"], line["time_s"]) for line in lines] == [(0, 0.1), (2, 0.6)]
    assert {(line["width"], line["height"]) for line in lines} == {(160, 240)}


def test_numbered_pictures_are_a_video_at_a_rate(tmp_path):
    (tmp_path / "frames").mkdir()
    for number in (1, 2, 10):
        cv2.imwrite(str(tmp_path / "frames" / f"{number}.png"), numbered_frame(number, 128, 96))
    finished = activeo3("perceive", tmp_path / "frames", "--fps", 5, *FAST, "--out", tmp_path / "out")
    assert finished.returncode == 0, finished.stderr
    assert shown_times(tmp_path / "out" / "frames.annotated.mp4") == pytest.approx([0.0, 0.2, 0.4])
    assert [line["time_s"] for line in lines_of(tmp_path / "out" / "frames.results.jsonl")] == [0.0, 0.2, 0.4]


def test_of_a_video_cut_short_the_results_stay_and_one_line_says_so(tmp_path):
    whole = remux(write_video(tmp_path / "whole.mp4", steady_times(20)), tmp_path / "a.mkv")
    clip = cut(whole, tmp_path / "cut.mkv", 0.7)
    finished = activeo3("perceive", clip, *FAST, "--out", tmp_path / "out")
    assert finished.returncode == 2
    (line,) = (line for line in finished.stderr.splitlines() if line.startswith("activeo3: "))
    assert line.startswith(f"activeo3: {clip}: it is cut short: its last frame is at ")
    count = len(lines_of(tmp_path / "out" / "cut.results.jsonl"))
    assert 5 < count < 20
    assert len(shown_times(tmp_path / "out" / "cut.annotated.mp4")) == count


def test_a_video_of_no_use_is_one_line_and_the_others_are_perceived(tmp_path):
    write_sound(tmp_path / "sound.mp4")
    (tmp_path / "text.mov").write_text("no video")
    write_video(tmp_path / "good.mp4", [0.0])
    names = ["sound.mp4", "text.mov", "good.mp4", "none.avi"]
    finished = activeo3("perceive", *(tmp_path / name for name in names), *FAST, "--json")
    assert finished.returncode == 2
    problems = [line for line in finished.stderr.splitlines() if line.startswith("activeo3: ")]
    assert [line.rpartition("/")[2] for line in problems] == [
        "sound.mp4: has no video, only audio",
        "text.mov: is no video in a known format: invalid data found when processing input",
        "none.avi: no such file",
    ]
    assert [Path(json.loads(line)["image"]).name for line in finished.stdout.splitlines()] == ["good.mp4"]


def test_options_of_videos_without_a_video_are_a_mistake(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), numbered_frame(1))
    finished = activeo3("perceive", tmp_path / "a.png", "--start", 2, "--every", 5)
    assert finished.returncode == 2
    assert finished.stderr.startswith("activeo3: --start, --every: there is no video")


def test_ctrl_c_leaves_whole_lines_and_a_video_that_can_be_played(tmp_path, picture):
    clip = film(tmp_path / "clip.mp4", picture, steady_times(400))
    results = tmp_path / "out" / "clip.results.jsonl"
    command = ["activeo3", "perceive", clip, *FAST, "--out", tmp_path / "out"]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        wait_for(lambda: results.exists() and results.read_text().count("\n") >= 5, 60, "some results")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "activeo3: interrupted" in said
    lines = lines_of(results)
    assert 5 <= len(lines) < 400
    assert len(shown_times(tmp_path / "out" / "clip.annotated.mp4")) == len(lines)


def test_a_compared_video_shows_each_frame_twice_side_by_side(tmp_path, picture):
    clip = film(tmp_path / "clip.mp4", picture, TIMES[:3])
    finished = activeo3("perceive", clip, "--max-regions", 1, "--compare", "regions", "--out", tmp_path / "out")
    assert finished.returncode == 0, finished.stderr
    compared = tmp_path / "out" / "clip.compared.mp4"
    assert shown_times(compared) == pytest.approx(TIMES[:3], abs=1e-3)
    assert not (tmp_path / "out" / "clip.annotated.mp4").exists()
    height, width = picture.shape[:2]
    with open_video(compared) as video:
        assert video.width == 2 * width and video.height > height
        for frame in video.frames():
            left, right = frame.image[:, :width], frame.image[:, width:]
            assert np.abs(left.astype(int) - right).mean() > 1, "the regions are drawn on the right alone"
    (first, *_) = lines_of(tmp_path / "out" / "clip.results.jsonl")
    assert len(first["regions"]) == 1, "the results are those with regions"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--compare", "memory"), "--compare writes a video: say with --out where"),
        (("--compare", "memory", "--no-memory", "--out", "o"), "--no-memory has both sides without one"),
        (("--compare", "regions", "--max-regions", 0, "--out", "o"), "with --max-regions 0 neither side has any"),
    ],
)
def test_a_comparison_of_a_thing_with_itself_is_refused(tmp_path, picture, arguments, says):
    clip = film(tmp_path / "clip.mp4", picture, TIMES[:2])
    finished = activeo3("perceive", clip, *arguments)
    assert finished.returncode == 2
    assert says in finished.stderr and len(finished.stderr.splitlines()) == 1
