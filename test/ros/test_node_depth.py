"""Where tracks are: bearings by camera_info, positions by depth images, and what makes them none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from activeo3_ros.msg import TrackArray
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from node_fixtures.client import RELIABLE, Client
from node_fixtures.fakes import FINE, picture
from node_fixtures.processes import NodeProcess
from node_fixtures.rig import HEIGHT, WIDTH, K, Rig
from sensor_msgs.msg import CameraInfo, CompressedImage
from waiting import wait_for


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with NodeProcess(depth_cameras="camera", autostart=True), Client() as client:
        client.connect()
        yield Rig(client)


def flat(metres: float) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), metres, np.float32)


def vector(message) -> list[float]:
    return [message.x, message.y, message.z]


def test_a_track_has_a_position_on_its_bearing_with_its_covariance(rig):
    track = rig.steady(lambda found: found.has_position, flat(5.0))
    assert vector(track.position) == pytest.approx([0.0, 0.0, 5.0], abs=1e-6)
    assert vector(track.bearing) == pytest.approx([0.0, 0.0, 1.0], abs=1e-6)
    covariance = np.array(track.position_covariance).reshape(3, 3)
    assert covariance == pytest.approx(covariance.T)
    assert covariance[2, 2] == pytest.approx((0.02 * 5.0) ** 2, rel=1e-3), "the parameter depth_error, of a flat wall"
    assert covariance[0, 0] == pytest.approx((5.0 * track.bearing_sigma) ** 2, rel=1e-2)


def test_millimetres_are_read(rig):
    track = rig.steady(lambda found: found.has_position, np.full((HEIGHT, WIDTH), 2500, np.uint16))
    assert track.position.z == pytest.approx(2.5)


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf, 0.0])
def test_what_is_no_measurement_is_no_position_and_no_fault(rig, nothing):
    track = rig.steady(lambda found: not found.has_position, flat(nothing))
    assert np.isnan([*vector(track.position), *track.position_covariance]).all()
    assert np.isfinite(vector(track.bearing)).all()
    assert np.isfinite(track.bearing_sigma)


@pytest.mark.parametrize(
    ("depth", "fields", "says"),
    [
        (flat(5.0), {"late_ns": 30_000_000}, "is 30.0 ms younger than the image, and depth_tolerance is 0 s"),
        (flat(5.0)[:30], {}, "the depth has 80 x 30 pixels and the image 80 x 60"),
        (flat(5.0), {"frame_id": "depth_optical"}, "the depth is in the frame 'depth_optical' and the image in"),
    ],
)
def test_a_depth_that_does_not_belong_to_the_image_gives_no_position_and_is_told(rig, depth, fields, says):
    rig.steady(lambda found: not found.has_position, depth, **fields)

    def told():
        track = rig.frame(depth, **fields)
        assert not track.has_position
        level, message, values = rig.client.status("camera")
        return level == DiagnosticStatus.WARN[0] and says in message and says in values["depth_fault"]

    wait_for(told, 30)
    rig.steady(lambda found: found.has_position, flat(5.0))
    wait_for(lambda: rig.frame(flat(5.0)) and not rig.client.status("camera")[2]["depth_fault"], 30)


def test_stamps_may_be_apart_by_the_tolerance_that_a_parameter_sets(rig):
    assert all(result.successful for result in rig.client.set_parameters(depth_tolerance=0.04))
    try:
        track = rig.steady(lambda found: found.has_position, flat(4.0), late_ns=30_000_000)
        assert track.position.z == pytest.approx(4.0)
    finally:
        rig.client.set_parameters(depth_tolerance=0.0)


def test_a_calibration_that_changes_holds_for_its_own_images_and_is_counted(rig):
    before = int(rig.client.status("camera")[2]["calibration_changes"])
    shifted = [100.0, 0.0, 59.5, 0.0, 100.0, 29.5, 0.0, 0.0, 1.0]
    track = rig.steady(lambda found: found.has_position and found.position.x < -0.1, flat(5.0), k=shifted)
    assert vector(track.position) == pytest.approx([-1.0, 0.0, 5.0], abs=1e-6)
    wait_for(lambda: rig.frame(flat(5.0), k=shifted) and _changes(rig) > before, 30)
    track = rig.steady(lambda found: found.has_position and abs(found.position.x) < 0.1, flat(5.0))
    assert vector(track.bearing) == pytest.approx([0.0, 0.0, 1.0], abs=1e-6)


def _changes(rig: Rig) -> int:
    return int(rig.client.status("camera")[2]["calibration_changes"])


def test_a_camera_that_is_not_asked_for_depth_does_not_subscribe_to_it():
    with NodeProcess(node_name="without", cameras=["flat"], autostart=True), Client(("flat",), "without") as client:
        client.connect()
        assert not client.node.count_subscribers("/flat/depth")
        assert client.node.count_subscribers("/flat/camera_info")


def test_a_missing_calibration_and_a_depth_topic_of_another_type_are_named():
    with (
        NodeProcess(node_name="compressed_depth", cameras=["tof"], depth_cameras=["tof"], autostart=True),
        Client(("tof",), "compressed_depth") as client,
    ):
        client.connect()
        client.node.create_publisher(CompressedImage, "/tof/depth", RELIABLE)
        infos = client.node.create_publisher(CameraInfo, "/tof/camera_info", RELIABLE)
        tracks = client.collect(TrackArray, "tof/tracks")
        wait_for(infos.get_subscription_count, 30)
        seconds = iter(range(10, 1000))

        def told(says: str) -> bool:
            client.result_of(picture(FINE, HEIGHT, WIDTH), "tof", Time(sec=next(seconds)))
            return bool(tracks) and says in client.status("tof")[1]

        wait_for(lambda: told("no positions: no calibration has come on /tof/camera_info"), 30)
        infos.publish(CameraInfo(width=WIDTH, height=HEIGHT, k=K))
        wait_for(lambda: told("publishes it as sensor_msgs/msg/CompressedImage, and sensor_msgs/msg/Image is read"), 30)
