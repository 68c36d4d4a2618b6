"""Results on the topics of a camera: the result always, every other topic only for its subscribers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest
import rclpy
from activeo3_ros.msg import PerceptionResult, TrackArray
from node_fixtures.fakes import picture
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, RegionOfInterest
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray
from waiting import wait_for

from activeo3_ros.core import Box, Detection, Frame, Grounding, InstanceMask, Query, Region, Result, Status, Track
from activeo3_ros.node import overlays, qos, result_publisher
from activeo3_ros.node.camera_input import CameraInput
from activeo3_ros.node.jobs import FrameOutcome
from activeo3_ros.node.message_library import RCLPY
from activeo3_ros.node.result_publisher import ARRAYS, ResultPublisher

BOX = Box(1.0, 2.0, 30.0, 40.0)
HEADER = Header(frame_id="optical")


def outcome(status: Status = Status.COMPLETE) -> FrameOutcome:
    """A frame with one record in each list."""
    mask = InstanceMask("car", 0.5, BOX, np.ones((40, 30), bool))
    result = Result(
        80,
        60,
        Query("the car"),
        status,
        regions=(Region(BOX, "car", 0.5, 2.0),),
        detections=(Detection("car", 0.5, BOX),),
        groundings=(Grounding("the car", 0.5, BOX),),
        masks=(mask,),
    )
    return FrameOutcome("front", HEADER, result, Frame(picture(), camera="front"))


class Bench:
    """A publisher in a node, what it built, and subscriptions in another node of this process."""

    def __init__(self, node: Node, listener: Node) -> None:
        self.camera = CameraInput(node, "front", "raw", MutuallyExclusiveCallbackGroup())
        self.publisher = ResultPublisher(node, [self.camera], lambda: 10.0)
        self.listener = listener
        self.built: Counter[str] = Counter()
        self._executor = SingleThreadedExecutor(context=listener.context)
        self._executor.add_node(listener)

    def subscribe(self, kind: type, name: str) -> list:
        """Messages of a topic from now on; returns once the publisher knows of the subscriber."""
        received: list = []
        self.listener.create_subscription(kind, f"/publishing/front/{name}", received.append, qos.RESULTS)
        topics = self.publisher._topics["front"]
        publisher = {"result": topics._result, "annotated/compressed": topics._annotated, "markers": topics._markers}
        publisher["tracks"] = topics._tracks
        publisher = {**publisher, **topics._arrays}[name]
        wait_for(publisher.get_subscription_count)
        return received

    def calibrate(self, info: CameraInfo, topic: str = "/front/image_raw") -> None:
        """As if this camera_info had come, for images on this topic."""
        self.camera._on_camera_info(info)
        self.camera.topic = topic

    def receive(self, received: list, number: int = 1) -> list:
        wait_for(lambda: self._executor.spin_once(timeout_sec=0.1) or len(received) >= number)
        return received


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = [Node(name, context=context, use_global_arguments=False) for name in ("publishing", "listening")]
    bench = Bench(*nodes)
    build, draw = result_publisher.array_message, overlays.annotated

    def array_message(name, *rest):
        bench.built[name] += 1
        return build(name, *rest)

    def annotated(*arguments):
        bench.built["annotated"] += 1
        return draw(*arguments)

    monkeypatch.setattr(result_publisher, "array_message", array_message)
    monkeypatch.setattr(overlays, "annotated", annotated)
    try:
        yield bench
    finally:
        for node in nodes:
            node.destroy_node()
        rclpy.shutdown(context=context)


def test_without_a_subscriber_only_the_result_is_built(bench):
    results = bench.subscribe(PerceptionResult, "result")
    bench.publisher.publish(outcome())
    (result,) = bench.receive(results)
    assert [len(getattr(result, name)) for name in ARRAYS] == [1, 1, 1, 1]
    assert not bench.built


def test_tracks_are_published_with_their_ids_and_times_and_what_is_unknown_is_nan(bench):
    tracks = bench.subscribe(TrackArray, "tracks")
    track = Track("front:7", "car", 0.75, BOX, (1.5, -2.0), 1_000_000_007, 2_000_000_009, 4.0, "102")
    bench.publisher.publish(outcome(Status.FAILED))
    good = outcome()
    bench.publisher.publish(replace(good, result=replace(good.result, tracks=(track,))))
    (message,) = bench.receive(tracks)
    (found,) = message.tracks
    assert message.header == HEADER
    assert (found.track_id, found.label, found.text, found.existence) == ("front:7", "car", "102", 0.75)
    assert (found.box.x, found.velocity_x, found.velocity_y, found.zoom) == (1.0, 1.5, -2.0, 4.0)
    assert (found.first_seen.sec, found.first_seen.nanosec) == (1, 7)
    assert (found.last_seen.sec, found.last_seen.nanosec) == (2, 9)
    assert not found.has_position
    unknown = [found.bearing.x, found.bearing_sigma, found.position.z, *found.position_covariance]
    assert np.isnan(unknown).all()


@pytest.mark.parametrize("name", ARRAYS)
def test_a_list_with_a_subscriber_is_published_as_it_stands_in_the_result(bench, name):
    lists, results = bench.subscribe(ARRAYS[name], name), bench.subscribe(PerceptionResult, "result")
    bench.publisher.publish(outcome())
    (message,), (result,) = bench.receive(lists), bench.receive(results)
    assert str(getattr(message, name)) == str(getattr(result, name))  # as text, for NaN does not equal itself
    assert message.header == result.header == HEADER
    assert bench.built == {name: 1}, "the other lists have no subscriber"


@pytest.mark.parametrize("name", ARRAYS)
def test_the_records_of_a_list_are_those_of_the_result_and_not_made_again(bench, name):
    result = bench.publisher.message(outcome())
    (record,), (original,) = getattr(result_publisher.array_message(name, result, RCLPY), name), getattr(result, name)
    assert record is original


def test_a_late_subscriber_gets_the_lists_of_later_frames(bench):
    results = bench.subscribe(PerceptionResult, "result")
    bench.publisher.publish(outcome())
    bench.receive(results)
    late = bench.subscribe(ARRAYS["detections"], "detections")
    bench.publisher.publish(outcome())
    bench.receive(results, 2)
    assert len(bench.receive(late)) == 1
    assert bench.built == {"detections": 1}


def test_a_frame_that_failed_has_a_result_and_no_lists(bench):
    lists, results = bench.subscribe(ARRAYS["detections"], "detections"), bench.subscribe(PerceptionResult, "result")
    bench.publisher.publish(outcome(Status.FAILED))
    assert bench.receive(results)[0].status == PerceptionResult.STATUS_FAILED
    bench.publisher.publish(outcome())
    assert len(bench.receive(lists)) == 1, "an empty list must not be mistaken for an empty road"
    assert bench.built == {"detections": 1}


def test_a_picture_that_cannot_be_drawn_takes_nothing_of_the_result_back(bench, monkeypatch):
    results = bench.subscribe(PerceptionResult, "result")
    bench.subscribe(CompressedImage, "annotated/compressed")
    monkeypatch.setattr(overlays, "annotated", lambda *_: 1 / 0)
    bench.publisher.publish(outcome())
    assert bench.receive(results)[0].status == PerceptionResult.STATUS_COMPLETE


K = [100.0, 0.0, 79.5, 0.0, 100.0, 59.5, 0.0, 0.0, 1.0]
"""Of a sensor of 160 x 120 pixels; the picture has 80 x 60."""
P = [200.0, 0.0, 79.5, 0.0, 0.0, 200.0, 59.5, 0.0, 0.0, 0.0, 1.0, 0.0]
ROI = RegionOfInterest(x_offset=40, y_offset=30, width=80, height=60)


def sensor(**fields) -> CameraInfo:
    return CameraInfo(**{"width": 160, "height": 120, "k": K, "p": P, "distortion_model": "plumb_bob", **fields})


@pytest.mark.parametrize(
    ("info", "topic", "corner"),
    [
        # The box's corner 1, 2 is 41, 32 of the sensor, 39 and 28 pixels of 100 from its middle; at 10 m.
        (sensor(roi=ROI), "/front/image_raw", (-3.9, -2.8)),
        (sensor(roi=ROI), "/front/image_rect", (-1.95, -1.4)),
        (sensor(roi=ROI, d=[0.1] * 5), "/front/image_rect_color/compressed", (-1.95, -1.4)),
        # 2, 4 of the whole sensor.
        (sensor(binning_x=2, binning_y=2), "/front/image_raw", (-7.8, -5.6)),
        (sensor(), "/front/image_raw", (-7.8, -5.6)),
    ],
)
def test_markers_are_where_the_calibration_says(bench, info, topic, corner):
    arrays = bench.subscribe(MarkerArray, "markers")
    bench.calibrate(info, topic)
    bench.publisher.publish(outcome())
    (outline,) = [m for m in bench.receive(arrays)[0].markers if m.type == Marker.LINE_STRIP and m.ns == "detections"]
    assert (outline.points[0].x, outline.points[0].y, outline.points[0].z) == pytest.approx((*corner, 10.0))


def test_distortion_is_undone_in_the_markers(bench):
    arrays = bench.subscribe(MarkerArray, "markers")
    distortion = [-0.2, 0.05, 0.0, 0.0, 0.0]
    bench.calibrate(sensor(d=distortion))
    bench.publisher.publish(outcome())
    (outline,) = [m for m in bench.receive(arrays)[0].markers if m.type == Marker.LINE_STRIP and m.ns == "detections"]
    corners = np.array([[[point.x, point.y, point.z]] for point in outline.points[:4]])
    seen, _ = cv2.projectPoints(corners, np.zeros(3), np.zeros(3), np.array(K).reshape(3, 3), np.array(distortion))
    expected = [[1, 2], [31, 2], [31, 42], [1, 42]]
    assert (seen.reshape(4, 2) + 0.5) / 2 == pytest.approx(np.array(expected, float), abs=0.01)


def test_a_calibration_that_contradicts_the_image_gives_no_markers_one_warning_and_a_reason(bench, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(type(bench.camera._node.get_logger()), "warning", lambda _, text, **__: said.append(text))
    arrays = bench.subscribe(MarkerArray, "markers")
    bench.calibrate(sensor(roi=RegionOfInterest(x_offset=100, width=80, height=60)))
    for _ in range(3):
        bench.publisher.publish(outcome())
    assert [[m.action for m in array.markers] for array in bench.receive(arrays, 3)] == [[Marker.DELETEALL]] * 3
    assert len(said) == 1 and said[0].startswith("front: no markers or bearings: camera_info: the region of interest")
    assert bench.camera.calibration_error in said[0]
    bench.calibrate(sensor())
    bench.publisher.publish(outcome())
    assert len(bench.receive(arrays, 4)[-1].markers) > 1
    assert not bench.camera.calibration_error


def test_a_track_has_a_bearing_where_the_camera_is_calibrated(bench):
    tracks = bench.subscribe(TrackArray, "tracks")
    bench.calibrate(sensor())
    good, track = outcome(), Track("front:7", "car", 0.75, Box(30, 20, 20, 20), sigma=1.0)
    bench.publisher.publish(replace(good, result=replace(good.result, tracks=(track,))))
    (found,) = bench.receive(tracks)[0].tracks
    bearing = np.array([found.bearing.x, found.bearing.y, found.bearing.z])
    assert np.linalg.norm(bearing) == pytest.approx(1.0)
    assert bearing[2] > 0.99
    assert found.bearing_sigma > 0
