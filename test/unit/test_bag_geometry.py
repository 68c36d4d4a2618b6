"""Tracks of a replay: bearings by the camera_info in the bag, positions by its depth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_fixtures.fakes import FINE, FakeSensing, FakeTask, picture

from activeo3_ros.bags.geometry import INFO_TYPE, RecordedGeometry
from activeo3_ros.bags.messages import IMAGE_TYPE, beside, serialize_image
from activeo3_ros.bags.offline import replay
from activeo3_ros.bags.reading import Bag
from activeo3_ros.bags.writing import BagWriter
from activeo3_ros.codecs.depth_message import DepthSettings
from activeo3_ros.codecs.result_cdr import TRACKS_TYPE, typestore
from activeo3_ros.core import ActivePerception, Budget, InvalidInput, Query

START_NS, STEP_NS, FRAMES = 1_700_000_000_000_000_000, 100_000_000, 3
IMAGES, INFOS, DEPTHS = "/front/image_raw", "/front/camera_info", "/front/depth"
EXACT = DepthSettings()


def header(stamp_ns: int, frame_id: str = "optical") -> Any:
    types = typestore().types
    return types["std_msgs/msg/Header"](
        stamp=types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9)), frame_id=frame_id
    )


def camera_info(stamp_ns: int, principal_x: float = 39.5) -> bytes:
    types = typestore().types
    roi = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    k = np.array([100.0, 0.0, principal_x, 0.0, 100.0, 29.5, 0.0, 0.0, 1.0])
    message = types[INFO_TYPE](
        header(stamp_ns), 60, 80, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), np.zeros(12), 0, 0, roi
    )
    return bytes(typestore().serialize_cdr(message, INFO_TYPE))


def depth(stamp_ns: int, metres: float, frame_id: str = "optical", width: int = 80) -> bytes:
    values = np.full((60, width), metres, np.float32)
    message = typestore().types[IMAGE_TYPE](
        header(stamp_ns, frame_id), 60, width, "32FC1", 0, 4 * width, values.view(np.uint8).ravel()
    )
    return bytes(typestore().serialize_cdr(message, IMAGE_TYPE))


def write(path: Path, others: dict[str, tuple[str, list[tuple[int, bytes]]]]) -> Path:
    """A bag with the images and other topics."""
    images = [(t, serialize_image(picture(FINE, 60, 80), t, "optical")) for t in stamps()]
    with BagWriter(path) as writer:
        for topic, (kind, messages) in {IMAGES: (IMAGE_TYPE, images), **others}.items():
            writer.add_topic(topic, kind)
            for time_ns, cdr in messages:
                writer.write(topic, time_ns, cdr)
    return path


def stamps() -> list[int]:
    return [START_NS + number * STEP_NS for number in range(FRAMES)]


def tracks_of(bag_path: Path, settings: DepthSettings = EXACT, depth_topic: str = "") -> tuple[list[Any], list[str]]:
    """The track in each frame of a replay, and what it says of faults."""
    out = bag_path.with_suffix(".out.mcap")
    with Bag(bag_path) as bag, BagWriter(out) as writer:
        geometry = RecordedGeometry(bag, [IMAGES], settings, depth_topic)
        entries, _ = bag.index([IMAGES])
        budget = Budget(max_regions=2)
        perception = ActivePerception(FakeSensing(), FakeTask(), budget)
        replay(bag, entries, perception, Query(), budget, writer, memory=True, geometry=geometry)
        faults = [f"{count}: {fault}" for fault, count in geometry.faults.items()]
    with Bag(out) as bag:
        entries, _ = bag.index(["/activeo3/front/tracks"])
        messages = [typestore().deserialize_cdr(bag.read(entry), TRACKS_TYPE) for entry in entries]
    assert [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in messages] == stamps()
    return [message.tracks[0] for message in messages], faults


def xyz(vector: Any) -> list[float]:
    return [vector.x, vector.y, vector.z]


INFO = {INFOS: (INFO_TYPE, [(t, camera_info(t)) for t in stamps()])}
DEPTH = {DEPTHS: (IMAGE_TYPE, [(t, depth(t, 5.0 + n)) for n, t in enumerate(stamps())])}


def test_tracks_have_positions_from_the_depth_of_their_own_frame(tmp_path):
    tracks, faults = tracks_of(write(tmp_path / "a.mcap", {**INFO, **DEPTH}))
    assert [track.has_position for track in tracks] == [True] * 3
    assert [xyz(track.position) for track in tracks] == pytest.approx(np.array([[0, 0, 5.0], [0, 0, 6.0], [0, 0, 7.0]]))
    assert tracks[2].position_covariance[8] == pytest.approx((0.02 * 7) ** 2)
    assert not faults


def test_with_camera_info_alone_there_are_bearings_and_without_it_neither(tmp_path):
    tracks, faults = tracks_of(write(tmp_path / "a.mcap", INFO))
    assert xyz(tracks[0].bearing) == pytest.approx([0, 0, 1])
    assert not tracks[0].has_position
    assert not faults
    tracks, faults = tracks_of(write(tmp_path / "b.mcap", {}))
    assert np.isnan(xyz(tracks[0].bearing)).all()
    assert not faults
    _, faults = tracks_of(write(tmp_path / "c.mcap", DEPTH))
    assert faults == [f"3: no calibration on {INFOS}"]


def test_a_calibration_that_changes_holds_from_its_stamp_on(tmp_path):
    infos = [(t, camera_info(t, x)) for t, x in zip(stamps(), (39.5, 59.5, 59.5), strict=True)]
    tracks, _ = tracks_of(write(tmp_path / "a.mcap", {INFOS: (INFO_TYPE, infos), **DEPTH}))
    assert [track.position.x for track in tracks] == pytest.approx([0.0, -0.2 * 6, -0.2 * 7])


@pytest.mark.parametrize(
    ("late_ns", "fields", "says"),
    [
        (30_000_000, {}, "3: the depth image nearest in time is 30.0 ms younger than the image"),
        (0, {"frame_id": "depth"}, "3: the depth is in the frame 'depth' and the image in 'optical'"),
        (0, {"width": 40}, "3: the depth has 40 x 60 pixels and the image 80 x 60"),
    ],
)
def test_a_depth_that_does_not_belong_to_the_image_gives_no_position(tmp_path, late_ns, fields, says):
    messages = [(t, depth(t + late_ns, 5.0, **fields)) for t in stamps()]
    tracks, faults = tracks_of(write(tmp_path / "a.mcap", {**INFO, DEPTHS: (IMAGE_TYPE, messages)}))
    assert not any(track.has_position for track in tracks)
    assert len(faults) == 1
    assert faults[0].startswith(says)


def test_stamps_may_be_apart_by_the_tolerance(tmp_path):
    messages = [(t, depth(t + 30_000_000, 5.0)) for t in stamps()]
    bag = write(tmp_path / "a.mcap", {**INFO, DEPTHS: (IMAGE_TYPE, messages)})
    tracks, _ = tracks_of(bag, DepthSettings(tolerance_s=0.03))
    assert all(track.has_position for track in tracks)


def test_the_depth_may_be_on_a_topic_of_another_name(tmp_path):
    bag = write(tmp_path / "a.mcap", {**INFO, "/aligned/image": DEPTH[DEPTHS]})
    tracks, _ = tracks_of(bag, depth_topic="/aligned/image")
    assert all(track.has_position for track in tracks)
    with Bag(bag) as opened:
        with pytest.raises(InvalidInput, match="has no topic '/wrong'"):
            RecordedGeometry(opened, [IMAGES], EXACT, "/wrong")
        with pytest.raises(InvalidInput, match="is sensor_msgs/msg/CameraInfo; depth is sensor_msgs/msg/Image"):
            RecordedGeometry(opened, [IMAGES], EXACT, INFOS)
        with pytest.raises(InvalidInput, match="there are several"):
            RecordedGeometry(opened, [IMAGES, "/rear/image_raw"], EXACT, "/aligned/image")


@pytest.mark.parametrize(
    ("topic", "found"),
    [
        ("/front/image_raw", "/front/depth"),
        ("/front/left/image_raw/compressed", "/front/left/depth"),
        ("/image", "/depth"),
    ],
)
def test_other_topics_of_a_camera_lie_beside_its_images(topic, found):
    assert beside(topic, "depth") == found
