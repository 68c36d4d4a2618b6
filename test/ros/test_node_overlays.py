"""Boxes for tools that know `vision_msgs`, between processes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import types

import pytest
from activeo3_ros.msg import BoundingBox, Detection, GroundingBox, PerceptionResult
from builtin_interfaces.msg import Time
from node_fixtures.client import Client
from node_fixtures.fakes import FINE, RAISES, picture
from node_fixtures.interfaces import environment_with
from node_fixtures.processes import NodeProcess
from sensor_msgs.msg import RegionOfInterest
from visualization_msgs.msg import Marker
from waiting import wait_for

from activeo3_ros.core.camera import CameraModel
from activeo3_ros.node.overlays import _known_score, image_annotations, markers, rois

TOPIC = "/activeo3/camera/detections_2d"
TYPE_HASH = "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968"
"""Of Detection2DArray in vision_msgs 4, Iron and later: two sides with other fields do not have the same."""

INFORMED = """
import json, rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile
from vision_msgs.msg import LabelInfo, VisionInfo

def show_info(info):
    print(json.dumps([info.header.frame_id, info.method, info.database_location, info.database_version]), flush=True)

def show_labels(labels):
    print(json.dumps([[entry.class_id, entry.class_name] for entry in labels.class_map]), flush=True)

rclpy.init()
node = rclpy.create_node("listener")
latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
node.create_subscription(LabelInfo, "/activeo3/camera/label_info", show_labels, latched)
node.create_subscription(VisionInfo, "/activeo3/camera/vision_info", show_info, latched)
rclpy.spin(node)
"""

LISTENER = f"""
import json, rclpy
from vision_msgs.msg import Detection2DArray

def show(array):
    print(json.dumps([
        [d.header.frame_id, d.header.stamp.sec, d.bbox.center.position.x, d.bbox.center.position.y, d.bbox.center.theta,
         d.bbox.size_x, d.bbox.size_y, d.id, [[r.hypothesis.class_id, r.hypothesis.score] for r in d.results]]
        for d in array.detections if array.header == d.header]), flush=True)

rclpy.init()
node = rclpy.create_node("listener")
node.create_subscription(Detection2DArray, "{TOPIC}", show, 10)
print("[]", flush=True)
rclpy.spin(node)
"""


@pytest.fixture(scope="module")
def environment():
    return environment_with("vision_msgs")


@pytest.mark.timeout(400)  # the first time, it is built
def test_a_process_that_knows_only_vision_msgs_gets_the_boxes(environment):
    with NodeProcess(autostart=True, environment=environment), Client() as client:
        client.connect()
        listener = subprocess.Popen(
            [sys.executable, "-c", LISTENER], env=environment, stdout=subprocess.PIPE, text=True, cwd="/"
        )
        heard = []
        threading.Thread(target=lambda: heard.extend(map(json.loads, listener.stdout)), daemon=True).start()
        try:
            wait_for(lambda: client.node.count_subscribers(TOPIC), 30, "the listener")
            wait_for(lambda: client.result_of(picture(FINE), stamp=Time(sec=7)) and heard[1:], 30, "a message")
            (info,) = client.node.get_publishers_info_by_topic(TOPIC)
            assert str(info.topic_type_hash) == TYPE_HASH
            number = len(heard)
            client.result_of(picture(RAISES))
            result = client.result_of(picture(FINE, 120, 200), stamp=Time(sec=8))
            wait_for(lambda: heard[number:] and heard[-1][0][1] == 8)
        finally:
            listener.kill()
            listener.wait()
    assert all(heard[1:]), "an empty list must not be mistaken for an empty road"
    assert len(heard[-1]) == len(result.detections)
    frame_id, _, x, y, theta, width, height, track, ((label, score),) = heard[-1][0]
    box = result.detections[0].box
    assert (x, y, width, height) == (box.x + box.width / 2, box.y + box.height / 2, box.width, box.height)
    assert (frame_id, theta, label) == ("optical", 0.0, "thing")
    assert track.startswith("camera:")
    assert score == pytest.approx(result.detections[0].existence), "the detector gives no score"


@pytest.mark.timeout(400)
def test_a_late_subscriber_learns_how_to_read_the_boxes_and_that_the_query_changed(environment):
    with NodeProcess(autostart=True, environment=environment) as node, Client() as client:
        client.connect()
        client.result_of(picture(FINE))
        with subprocess.Popen(
            [sys.executable, "-c", INFORMED], env=environment, stdout=subprocess.PIPE, text=True, cwd="/"
        ) as listener:
            heard: list[list] = []
            threading.Thread(target=lambda: heard.extend(map(json.loads, listener.stdout)), daemon=True).start()
            try:
                wait_for(lambda: len(heard) == 2, 30, f"both messages; {node.text}")
                (info,) = (entry for entry in heard if entry and entry[0] == "optical")
                _, method, location, revision = info
                assert "preset fake" in method and location == "/activeo3/camera/label_info" and revision == 0
                assert client.set_query("", ["sign", "car"]).success
                wait_for(lambda: client.result_of(picture(FINE)).query_revision == 1)
                wait_for(lambda: len(heard) == 4)
                assert [[0, "sign"], [1, "car"]] in heard[2:]
                assert ["optical", method, location, 1] in heard[2:]
            finally:
                listener.kill()


@pytest.mark.parametrize(
    ("score", "existence", "sent"),
    [(0.4, 0.9, 0.4), (math.nan, 0.9, 0.9), (math.nan, math.nan, 0.0), (1.5, math.nan, 1.0)],
)
def test_a_score_is_a_number_from_0_to_1(score, existence, sent):
    assert _known_score(Detection(score=score, existence=existence)) == pytest.approx(sent)


class FakeClassification(types.SimpleNamespace):
    """Stands for `autoware_perception_msgs/ObjectClassification`, which is not on PyPI."""

    UNKNOWN, CAR, PEDESTRIAN = 0, 1, 7


class FakeRoi:
    """Stands for `tier4_perception_msgs/DetectedObjectWithFeature`."""

    def __init__(self) -> None:
        self.object = types.SimpleNamespace(existence_probability=0.0, classification=[])
        self.feature = types.SimpleNamespace(roi=RegionOfInterest())


@pytest.fixture
def fake_autoware(monkeypatch):
    array = type("FakeRois", (types.SimpleNamespace,), {"feature_objects": property(lambda self: self.found)})
    modules = {
        "autoware_perception_msgs": {"ObjectClassification": FakeClassification},
        "tier4_perception_msgs": {
            "DetectedObjectWithFeature": FakeRoi,
            "DetectedObjectsWithFeature": lambda header: array(header=header, found=[]),
        },
    }
    for name, members in modules.items():
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setitem(sys.modules, f"{name}.msg", types.SimpleNamespace(**members))


def test_a_region_of_interest_is_whole_pixels_inside_the_image(fake_autoware):
    boxes = {
        "car": BoundingBox(x=10.4, y=20.6, width=5.2, height=4.0),
        "Person": BoundingBox(x=-3.0, y=470.5, width=8.0, height=30.0),
        "traffic light": BoundingBox(x=0.0, y=0.0, width=640.0, height=480.0),
        "outside": BoundingBox(x=640.0, y=10.0, width=5.0, height=5.0),
    }
    found = [Detection(label=label, score=0.25, existence=math.nan, box=box) for label, box in boxes.items()]
    array = rois(PerceptionResult(image_width=640, image_height=480, detections=found))
    sent = [
        (r.feature.roi.x_offset, r.feature.roi.y_offset, r.feature.roi.width, r.feature.roi.height)
        for r in array.feature_objects
    ]
    assert sent == [(10, 20, 6, 5), (0, 470, 5, 10), (0, 0, 640, 480)]
    assert [r.object.classification[0].label for r in array.feature_objects] == [1, 7, 0]
    assert {r.object.existence_probability for r in array.feature_objects} == {0.25}


class FakeMessage(types.SimpleNamespace):
    """Stands for the messages of `foxglove_msgs`, which is not on PyPI: lists for what is filled by appending."""

    LINE_LOOP = 2

    def __init__(self, **fields: object) -> None:
        super().__init__(**{"points": [], "texts": [], **fields})


def test_foxglove_draws_each_box_and_label_over_the_image_of_the_same_stamp(monkeypatch):
    names = ("Color", "ImageAnnotations", "Point2", "PointsAnnotation", "TextAnnotation")
    monkeypatch.setitem(sys.modules, "foxglove_msgs", types.ModuleType("foxglove_msgs"))
    fakes = types.SimpleNamespace(**dict.fromkeys(names, FakeMessage))
    monkeypatch.setitem(sys.modules, "foxglove_msgs.msg", fakes)
    box = BoundingBox(x=10.0, y=20.0, width=30.0, height=40.0)
    result = PerceptionResult(detections=[Detection(label="van", score=0.25, box=box)])
    result.header.stamp = Time(sec=7)
    drawn = image_annotations(result)
    (outline,), (label,) = drawn.points, drawn.texts
    assert [(point.x, point.y) for point in outline.points] == [(10, 20), (40, 20), (40, 60), (10, 60)]
    assert (outline.type, outline.timestamp, label.timestamp) == (2, Time(sec=7), Time(sec=7))
    assert (label.text, label.position.x, label.position.y) == ("van 0.25", 10, 20)


def test_a_detection_and_a_grounding_of_one_object_have_two_outlines_and_one_label():
    box = BoundingBox(x=10.0, y=20.0, width=30.0, height=40.0)
    result = PerceptionResult(
        image_width=640,
        detections=[Detection(label="van", score=0.25, box=box), Detection(label="car", score=0.5, box=box)],
        groundings=[GroundingBox(phrase="the number", text="102", box=box, detection=1)],
    )
    drawn = markers(result, CameraModel((500.0, 500.0, 319.5, 239.5)), 5.0).markers
    assert [marker.ns for marker in drawn if marker.type == Marker.LINE_STRIP and marker.action == Marker.ADD] == [
        "detections",
        "detections",
        "groundings",
    ]
    assert [marker.text for marker in drawn if marker.type == Marker.TEXT_VIEW_FACING] == ["van 0.25", "102"]


def test_a_box_that_the_lens_cannot_show_is_left_out_and_the_others_stay():
    boxes = [BoundingBox(x=300.0, y=200.0, width=40.0, height=40.0), BoundingBox(width=40.0, height=40.0)]
    result = PerceptionResult(detections=[Detection(label="car", box=box) for box in boxes])
    camera = CameraModel((300.0, 300.0, 319.5, 239.5), (-0.9, 0.0, 0.0, 0.0, 0.0), "plumb_bob")
    drawn = [marker for marker in markers(result, camera, 5.0).markers if marker.type == Marker.LINE_STRIP]
    assert [marker.id for marker in drawn] == [0]


def test_without_a_calibration_the_markers_of_the_last_result_go():
    result = PerceptionResult(detections=[Detection(label="car", box=BoundingBox(width=4.0, height=4.0))])
    assert [marker.action for marker in markers(result, None, 5.0).markers] == [Marker.DELETEALL]
