"""No command overwrites what an earlier one left, without --force; what it refuses to overwrite stays as it is."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from bag_fixtures import picture

from activeo3_ros.cli import main as cli
from activeo3_ros.cli.options import check_not_overwritten
from activeo3_ros.core import InvalidInput


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["perceive", "{}/a.png", "--preset", "full_frame", "--out", "{}/out"], "a.annotated.jpg"),
        (["perceive", "{}/a.png", "--preset", "full_frame", "--out", "{}/out"], "a.region3.png"),
        (["demo", "--out", "{}/out"], "summary.json"),
        (["demo", "--out", "{}/out"], "frames"),
        (["train", "data", "coco", "--annotations", "a", "--images", "b", "--out", "{}/out"], "rows.jsonl"),
        (["evaluate", "--coco", "truth.json", "--images", "{}", "--out", "{}/out"], "report.html"),
        (["benchmark", "composite", "--out", "{}/out"], "metrics.json"),
    ],
)
def test_an_earlier_file_stays(tmp_path: Path, command: list[str], name: str, capsys) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture(1))
    earlier = tmp_path / "out" / name
    earlier.parent.mkdir()
    earlier.write_bytes(b"earlier")
    assert cli.main([part.format(tmp_path) for part in command]) == 2
    error = capsys.readouterr().err
    assert "would be overwritten" in error
    assert name in error
    assert "give another --out" in error
    assert error.count("\n") == 1
    assert earlier.read_bytes() == b"earlier"
    assert list(earlier.parent.iterdir()) == [earlier]


def test_several_files_are_counted_and_force_is_the_leave(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abc"]
    check_not_overwritten(files, force=False)
    for file in files[:2]:
        file.touch()
    with pytest.raises(InvalidInput, match="a and 1 more would be overwritten: give another --out, or"):
        check_not_overwritten(files, force=False)
    check_not_overwritten(files, force=True)
