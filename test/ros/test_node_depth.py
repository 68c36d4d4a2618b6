"""Where tracks are: bearings by camera_info, positions by depth images, and what makes them none."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np
import pytest
from activeo3_ros.msg import Track, TrackArray
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from node_fixtures.client import RELIABLE, Client
from node_fixtures.client import image as bgr_message
from node_fixtures.fakes import FINE, picture
from node_fixtures.processes import NodeProcess
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from waiting import wait_for

WIDTH, HEIGHT = 80, 60
K = [100.0, 0.0, 39.5, 0.0, 100.0, 29.5, 0.0, 0.0, 1.0]
"""The middle of the picture is the principal point, counted in pixel centres."""


def depth_message(depth: np.ndarray, stamp: Time, frame_id: str = "optical") -> Image:
    """Of `(h, w)` uint16 or float32."""
    height, width = depth.shape
    encoding = {"u": "16UC1", "f": "32FC1"}[depth.dtype.kind]
    message = Image(height=height, width=width, encoding=encoding, step=width * depth.itemsize)
    message.header = Header(stamp=stamp, frame_id=frame_id)
    message.data = array("B", depth.tobytes())
    return message


class Rig:
    """A camera with calibration and depth before a node; each frame has a stamp of its own, 0.1 s after the last."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.tracks: list[TrackArray] = client.collect(TrackArray, "camera/tracks")
        self.infos = client.node.create_publisher(CameraInfo, "/camera/camera_info", RELIABLE)
        self.depths = client.node.create_publisher(Image, "/camera/depth", RELIABLE)
        self.images = client.images["camera"]
        self.tenths = 10
        wait_for(lambda: self.infos.get_subscription_count() and self.depths.get_subscription_count(), 30)

    def next_stamp(self) -> Time:
        self.tenths += 1
        return Time(sec=self.tenths // 10, nanosec=self.tenths % 10 * 100_000_000)

    def info(self, stamp: Time, **fields) -> CameraInfo:
        values = {"width": WIDTH, "height": HEIGHT, "k": K, "distortion_model": "plumb_bob", **fields}
        return CameraInfo(header=Header(stamp=stamp, frame_id="optical"), **values)

    def frame(self, depth: np.ndarray | None, late_ns: int = 0, frame_id: str = "optical", **info) -> Track | None:
        """Publish an image with its camera_info and depth; the track of the thing that fills the picture."""
        stamp = self.next_stamp()
        before = len(self.tracks)
        self.infos.publish(self.info(stamp, **info))
        if depth is not None:
            self.depths.publish(depth_message(depth, Time(sec=stamp.sec, nanosec=stamp.nanosec + late_ns), frame_id))
        self.images.publish(bgr_message(picture(FINE, HEIGHT, WIDTH), stamp))
        mine = wait_for(lambda: [each for each in self.tracks[before:] if each.header.stamp == stamp], 15)[0]
        return next((track for track in mine.tracks if track.label == "thing"), None)

    def steady(self, wanted, *depth, **fields) -> Track:
        """The track of the first frame that is as wanted; topics may come in any order, so a frame may miss another."""

        def track() -> Track | None:
            found = self.frame(*depth, **fields)
            return found if found is not None and wanted(found) else None

        return wait_for(track, 30)


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
