"""The obstacles of the planner's page, between three processes: positions, their age, and no word of free space."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from activeo3_ros.msg import BoundingBox, Track, TrackArray
from loading import EXAMPLES, load_script
from node_fixtures.client import RELIABLE, Client
from node_fixtures.fakes import EMPTY, RAISES, picture
from node_fixtures.processes import NodeProcess, end
from node_fixtures.rig import HEIGHT, WIDTH, Rig
from sensor_msgs.msg import PointCloud2
from waiting import wait_for

AGES = 1e12
"""Seconds: the frames of the tests are stamped from 1970 on."""
DISTANCE_M, FOCAL_PX = 5.0, 100.0
FLAT = np.full((HEIGHT, WIDTH), DISTANCE_M, np.float32)


class Listener(Rig):
    """A rig whose obstacles are heard, and what the example prints."""

    def __init__(self, client: Client, log) -> None:
        super().__init__(client)
        self.clouds: list[PointCloud2] = []
        self._log = log
        client.node.create_subscription(PointCloud2, "/obstacles", self.clouds.append, RELIABLE)
        wait_for(lambda: client.node.count_publishers("/obstacles"), 30, "the example")
        wait_for(lambda: client.node.count_subscribers("/camera/camera_info") > 1, 30, "the example")
        wait_for(lambda: self.frame(FLAT) and self.clouds, 60, "a first cloud")

    def obstacles(self, track: Track | None, stamp) -> tuple[Track | None, np.ndarray]:
        """The points of the frame with this stamp."""
        cloud = wait_for(lambda: [each for each in self.clouds if each.header.stamp == stamp], 15, "a cloud")[0]
        assert cloud.header.frame_id == "optical"
        return track, points_of(cloud)

    def after(self, depth: np.ndarray | None) -> tuple[Track | None, np.ndarray]:
        """The track and the points of one more frame."""
        track = self.frame(depth)
        return self.obstacles(track, self.stamp)

    @property
    def lines(self) -> list[str]:
        return self._log.read_text().splitlines()


def points_of(cloud: PointCloud2) -> np.ndarray:
    """A record of each point, read by the names and offsets that the message gives."""
    layout = np.dtype(
        {
            "names": [field.name for field in cloud.fields],
            "formats": ["<f4"] * len(cloud.fields),
            "offsets": [field.offset for field in cloud.fields],
            "itemsize": cloud.point_step,
        }
    )
    assert len(cloud.data) == cloud.row_step * cloud.height == cloud.width * cloud.point_step
    return np.frombuffer(cloud.data, layout)


@pytest.fixture(scope="module")
def listener(tmp_path_factory) -> Iterator[Listener]:
    log = tmp_path_factory.mktemp("obstacles") / "log.txt"
    command = [sys.executable, str(EXAMPLES / "track_obstacles.py"), "--ros-args", "-p", f"max_age_s:={AGES}"]
    with NodeProcess(depth_cameras="camera", autostart=True), Client() as client, log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd="/")
        try:
            client.connect()
            yield Listener(client, log)
        finally:
            end(process)
            print(log.read_text())


def measured(listener: Listener) -> tuple[Track, np.ndarray]:
    """A frame whose depth and calibration were there in time, at both processes."""

    def found():
        track, points = listener.after(FLAT)
        return track is not None and track.has_position and np.ptp(points["x"]) > 1 and (track, points)

    return wait_for(found, 30)


def test_an_object_is_as_wide_as_it_looks_and_as_uncertain_as_its_track(listener):
    track, points = measured(listener)
    (sigma_x, _, sigma_z) = np.sqrt(np.diag(np.array(track.position_covariance).reshape(3, 3)))
    assert points["x"].min() == pytest.approx(-WIDTH / 2 / FOCAL_PX * DISTANCE_M - sigma_x, abs=0.05)
    assert points["x"].max() == pytest.approx(WIDTH / 2 / FOCAL_PX * DISTANCE_M + sigma_x, abs=0.05)
    assert [points["z"].min(), points["z"].max()] == pytest.approx([DISTANCE_M - sigma_z, DISTANCE_M + sigma_z])
    assert points["zz"] == pytest.approx(sigma_z**2, rel=1e-5)
    assert points["existence"] == pytest.approx(track.existence)
    assert not points["age"].any()
    assert {f"camera:{number:.0f}" for number in points["track"]} == {track.track_id}


def test_what_is_no_longer_measured_stays_grows_uncertain_and_leaves_when_it_is_too_old(listener):
    _, fresh = measured(listener)
    _, held = listener.after(None)
    assert held["age"] == pytest.approx(0.1, abs=1e-4)
    assert held["zz"] == pytest.approx(fresh["zz"][0] + (2.0 * 0.1) ** 2, rel=1e-4), "max_speed of 2 m/s"
    for _ in range(10):
        _, points = listener.after(None)
    assert not len(points)
    assert listener.lines[-1].startswith("no obstacle; without a position: thing camera:")


def test_an_object_that_a_frame_does_not_show_is_not_gone(listener):
    measured(listener)
    listener.client.result_of(picture(EMPTY, HEIGHT, WIDTH), stamp=listener.next_stamp())
    _, points = listener.obstacles(None, listener.stamp)
    assert len(points)


def test_a_frame_that_failed_gives_no_cloud_and_is_called_blindness(listener):
    measured(listener)
    listener.client.result_of(picture(RAISES, HEIGHT, WIDTH), stamp=listener.next_stamp())
    failed = listener.stamp
    wait_for(lambda: listener.lines[-1].startswith("blind: "))
    measured(listener)
    assert failed not in [cloud.header.stamp for cloud in listener.clouds]


@pytest.fixture
def example():
    return load_script(EXAMPLES / "track_obstacles.py")


def track(number: int, **fields) -> Track:
    return Track(track_id=f"camera:{number}", label="car", box=BoundingBox(width=10.0, height=10.0), **fields)


def test_an_object_in_an_unknown_place_is_named_and_marks_nothing(example):
    objects = example.ObstacleList(hold_s=1.0, least_existence=0.5)
    nowhere = track(1, existence=0.9, has_position=False)
    nowhere.position.x = nowhere.position.y = nowhere.position.z = math.nan
    assert objects.update(TrackArray(tracks=[nowhere]), None, 0) == [nowhere]
    assert not objects.by_track


def test_time_that_jumps_back_forgets_what_was_measured_later(example):
    objects = example.ObstacleList(hold_s=1.0, least_existence=0.5)
    seen = track(1, existence=0.9, has_position=True)
    objects.update(TrackArray(tracks=[seen]), None, 10**10)
    assert objects.by_track
    objects.update(TrackArray(), None, 10**9)
    assert not objects.by_track
