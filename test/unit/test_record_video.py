"""A bag from a video in one command: each frame a message, with the video's own times."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from video_fixtures import cut, number_in, remux, steady_times, write_sound, write_video

from activeo3_ros.bags.messages import COMPRESSED_TYPE, IMAGE_TYPE, frame_from_cdr
from activeo3_ros.bags.reading import Bag
from activeo3_ros.cli import main as cli
from activeo3_ros.core import Frame

TIMES = [0.0, 0.1, 0.15, 0.4, 1.0]


def frames_of(path: Path, topic: str, kind: str) -> list[Frame]:
    """The frames of a bag, which has that topic alone."""
    with Bag(path) as bag:
        assert [(found.name, found.type) for found in bag.topics.values()] == [(topic, kind)]
        entries, damage = bag.index([topic])
        assert not damage
        assert [entry.stamp_ns for entry in entries] == [entry.log_time_ns for entry in entries]
        return [frame_from_cdr(bag.read(entry), kind, "front") for entry in entries]


@pytest.mark.parametrize(
    ("arguments", "topic", "kind"),
    [
        ([], "/camera/image_raw", IMAGE_TYPE),
        (["--topic", "/front/image_raw/compressed"], "/front/image_raw/compressed", COMPRESSED_TYPE),
    ],
)
def test_each_frame_becomes_a_message_with_its_own_time(tmp_path, arguments, topic, kind, capsys):
    clip, bag = write_video(tmp_path / "clip.mp4", TIMES), tmp_path / "bags" / "clip.mcap"
    assert cli.main(["record", str(clip), *arguments, "--out", str(bag)]) == 0
    frames = frames_of(bag, topic, kind)
    assert [number_in(frame.image) for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.stamp_ns / 1e9 for frame in frames] == pytest.approx(TIMES, abs=1e-4)
    assert {frame.frame_id for frame in frames} == {f"{topic.split('/')[1]}_optical_frame"}
    said = capsys.readouterr()
    assert said.out == f"{bag}: 5 frames on {topic}\n"
    assert "record: 5 of 5" in said.err, "progress"


def test_stamps_begin_when_the_video_was_recorded(tmp_path):
    clip, bag = write_video(tmp_path / "clip.mp4", TIMES), tmp_path / "clip.mcap"
    dated = remux(clip, tmp_path / "dated.mp4", created="2026-11-28T10:00:00.000000Z")
    assert cli.main(["record", str(dated), "--out", str(bag)]) == 0
    stamps = [frame.stamp_ns / 1e9 for frame in frames_of(bag, "/camera/image_raw", IMAGE_TYPE)]
    assert stamps == pytest.approx([1_795_860_000 + time for time in TIMES], abs=1e-3)


def test_a_part_is_recorded_by_its_seconds(tmp_path):
    clip, bag = write_video(tmp_path / "clip.mp4", steady_times(30)), tmp_path / "part.mcap"
    assert cli.main(["record", str(clip), "--out", str(bag), "--start", "1", "--duration", "1", "--every", "5"]) == 0
    frames = frames_of(bag, "/camera/image_raw", IMAGE_TYPE)
    assert [number_in(frame.image) for frame in frames] == [10, 15]
    assert [frame.stamp_ns / 1e9 for frame in frames] == pytest.approx([1.0, 1.5])


def test_of_a_video_cut_short_what_is_there_is_recorded(tmp_path, capsys):
    whole = remux(write_video(tmp_path / "clip.mp4", steady_times(30)), tmp_path / "whole.mkv")
    assert cli.main(["record", str(cut(whole, tmp_path / "cut.mkv", 0.7)), "--out", str(tmp_path / "a.mcap")]) == 2
    assert 5 < len(frames_of(tmp_path / "a.mcap", "/camera/image_raw", IMAGE_TYPE)) < 30
    assert "cut.mkv: it is cut short: its last frame is at " in capsys.readouterr().err


def test_nothing_is_begun_for_a_video_of_no_use_and_nothing_overwritten(tmp_path, capsys):
    out = tmp_path / "a.mcap"
    clip = write_video(tmp_path / "clip.mp4", TIMES)
    sound = write_sound(tmp_path / "sound.mp4")
    mistakes = {
        (str(sound),): "has no video, only audio",
        (str(clip), "--start", "60"): "has no frame from 60 s on",
        (str(tmp_path),): "is no video by its suffix; topics are given with --topic",
        (str(clip), "--topic", "/a", "--topic", "/b"): "a video is written on one topic, got /a, /b",
        (): "nothing to record: give topics with --topic, or a video",
        ("--topic", "/a", "--every", "2"): "--start and --every choose frames of a video",
    }
    for arguments, says in mistakes.items():
        assert cli.main(["record", *arguments, "--out", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert says in line
        assert not out.exists()
    out.write_bytes(b"earlier")
    assert cli.main(["record", str(clip), "--out", str(out)]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert out.read_bytes() == b"earlier"
    assert cli.main(["record", str(clip), "--out", str(out), "--force"]) == 0


def test_raw_images_that_the_disk_cannot_hold_are_refused_before_they_are_written(tmp_path, monkeypatch, capsys):
    clip = write_video(tmp_path / "clip.mp4", TIMES)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 999, 999))
    assert cli.main(["record", str(clip), "--out", str(tmp_path / "a.mcap")]) == 2
    assert "are free; take a part of the video, or a topic that ends with /compressed" in capsys.readouterr().err
    assert cli.main(["record", str(clip), "--topic", "/a/compressed", "--out", str(tmp_path / "a.mcap")]) == 0
