"""The examples of an own policy and an own detector run on real and drawn pictures, as scripts and in the loop."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from loading import EXAMPLES, load_script

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.packages import CENTERNET, MOTORWAY_PICTURE, require
from activeo3_ros.core import ActivePerception, Box, Budget, Frame, Query
from activeo3_ros.core.geometry import iou
from activeo3_ros.detectors.detector_task import DetectorTask
from activeo3_ros.policies.fixed import FullFrame, Grid


@pytest.fixture(scope="module")
def motorway() -> str:
    """A real picture with tiny cars, where the embedded detector can run at all."""
    try:
        require(CENTERNET)
        return str(require(MOTORWAY_PICTURE))
    except AssetError as error:
        pytest.skip(str(error))


def run(script: str, *arguments: str) -> list[str]:
    """What an example prints."""
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    finished = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines()


def test_the_policy_zooms_along_the_horizon_and_finds_what_the_view_misses(motorway):
    lines = run("own_policy.py", motorway)
    assert all(line.split()[0] in ("car", "truck", "bus") for line in lines)
    zoomed = [line for line in lines if not line.endswith("region -1")]
    assert len(zoomed) >= 5, lines


def test_its_tiles_lie_in_the_view_and_within_the_budget():
    policy = load_script(EXAMPLES / "own_policy.py").Horizon()
    frame = Frame(np.zeros((90, 160, 3), np.uint8))
    view = frame.view(frame.window, policy.view_size(160, 90, 10_000))
    for max_regions in (0, 1, 6, 64):
        regions = policy.propose(view, Query(), Budget(max_regions=max_regions)).regions
        assert len(regions) == max_regions
        for region in regions:
            assert region.box.y >= 0 and region.box.right <= view.width + 1e-6
            assert region.box.bottom <= view.height + 1e-6


LAMPS = [Box(300, 200, 6, 6), Box(1500, 700, 8, 5)]


def street() -> np.ndarray:
    """A grey street of 1920 x 1080 with two red lamps of a few pixels."""
    image = np.full((1080, 1920, 3), 120, np.uint8)
    for lamp in LAMPS:
        image[lamp.slices()] = (30, 20, 230)
    return image


def test_the_detector_finds_lamps_only_when_it_may_zoom():
    lamps = DetectorTask(load_script(EXAMPLES / "own_detector.py").RedLamps())
    frame = Frame(street())
    assert not ActivePerception(FullFrame(), lamps, Budget()).perceive(frame).detections
    result = ActivePerception(Grid(), lamps, Budget(max_regions=12)).perceive(frame)
    overlaps = iou([found.box.as_tuple() for found in result.detections], [lamp.as_tuple() for lamp in LAMPS])
    assert {found.label for found in result.detections} == {"red lamp"}
    assert (overlaps.max(axis=0) > 0.5).all()


def test_the_detector_runs_as_a_script(tmp_path):
    cv2.imwrite(str(tmp_path / "street.png"), street())
    lines = run("own_detector.py", str(tmp_path / "street.png"))
    assert len(lines) >= len(LAMPS)
    assert all(line.startswith("red lamp ") for line in lines)
