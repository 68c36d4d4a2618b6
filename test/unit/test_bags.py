"""Our bags can be read by other tools, and back by us."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
from bag_fixtures import write_mcap
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.rosbag2 import Writer

import activeo3_ros.bags
from activeo3_ros.bags.frames import read_frames
from activeo3_ros.bags.messages import IMAGE_TYPE, serialize_image
from activeo3_ros.bags.offline import choose_topics
from activeo3_ros.bags.reading import Bag, read_messages, read_serialized
from activeo3_ros.bags.writing import BagWriter
from activeo3_ros.codecs.result_cdr import FIELDS_SINCE_0_1, RESULT_TYPE, _typestore, result_message, to_cdr, typestore
from activeo3_ros.codecs.result_message import from_message
from activeo3_ros.core import Box, Detection, InvalidInput, Query, Result
from activeo3_ros.core.optional import MissingPackageError

TOPIC = "/camera/image_raw"


@pytest.fixture
def pictures() -> list[np.ndarray]:
    return [np.random.default_rng(seed).integers(0, 256, (9, 16, 3), np.uint8) for seed in range(3)]


@pytest.fixture
def bag(tmp_path, pictures):
    path = tmp_path / "new" / "camera.mcap"
    with BagWriter(path) as writer:
        writer.add_topic(TOPIC, IMAGE_TYPE)
        for number, picture in enumerate(pictures):
            writer.write(TOPIC, 10**9 * number, serialize_image(picture, 10**9 * number + 7, "optical"))
    return path


def test_frames_come_back_pixel_by_pixel_with_their_stamps(bag, pictures):
    frames = list(read_frames(bag, TOPIC))
    assert [frame.stamp_ns for frame in frames] == [7, 10**9 + 7, 2 * 10**9 + 7]
    assert {(frame.frame_id, frame.camera) for frame in frames} == {("optical", "camera")}
    for frame, picture in zip(frames, pictures, strict=True):
        assert np.array_equal(frame.image, picture)


def test_other_tools_read_them_with_the_definitions_inside(bag, pictures):
    with bag.open("rb") as opened:
        decoded = make_reader(opened, decoder_factories=[DecoderFactory()]).iter_decoded_messages()
        messages = [message for _, _, _, message in decoded]
    assert [(m.width, m.height, m.encoding, m.step) for m in messages] == [(16, 9, "bgr8", 48)] * 3
    assert bytes(messages[1].data) == pictures[1].tobytes()


def test_a_result_comes_back_as_the_core_gave_it(tmp_path):
    path = tmp_path / "results.mcap"
    store = typestore()
    types = store.types
    box = types["activeo3_ros/msg/BoundingBox"](1.0, 2.0, 3.0, 4.0)
    message = types[RESULT_TYPE](
        header=types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](1, 2), "optical"),
        camera="camera", status=1, status_message="late", query="car", query_revision=3, image_width=16, image_height=9,
        regions=[types["activeo3_ros/msg/ZoomRegion"](0, box, "far away", float("nan"), 2.0)], regions_age_ms=0.0,
        detections=[types["activeo3_ros/msg/Detection"]("car", 0.5, float("nan"), box, -1, False, "")],
        groundings=[], masks=[], answer="", reasoning="", views=4, pixels=100, tokens=0,
        timings=[types["activeo3_ros/msg/StageTiming"]("sense", 1.5)],
        completed=types["builtin_interfaces/msg/Time"](1, 3),
    )  # fmt: skip
    with BagWriter(path) as writer:
        writer.add_topic("/activeo3/camera/result", RESULT_TYPE)
        writer.write("/activeo3/camera/result", 5, bytes(store.serialize_cdr(message, RESULT_TYPE)))
    ((stamp, read),) = read_messages(path, "/activeo3/camera/result")
    result = from_message(read)
    assert stamp == 5
    assert (result.width, result.height, result.status.name, result.status_message) == (16, 9, "COARSE", "late")
    assert result.detections[0].box.as_tuple() == (1, 2, 3, 4)
    assert result.answer is None
    assert result.regions[0].score != result.regions[0].score  # NaN
    assert (result.cost.views, result.timings_ms) == (4, {"sense": 1.5})


def test_a_topic_that_is_not_there_is_answered_with_those_that_are(bag):
    with pytest.raises(InvalidInput, match="no topic '/other'; it has /camera/image_raw"):
        list(read_frames(bag, "/other"))


def test_a_file_that_is_no_bag_is_said_to_be_none(tmp_path):
    with pytest.raises(InvalidInput, match="no such bag"):
        list(read_frames(tmp_path / "absent.mcap", TOPIC))
    for name, content in (("empty.mcap", b""), ("text.mcap", b"not a bag at all, though it is long enough to be one")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidInput, match="cannot be read as a bag"):
            list(read_frames(tmp_path / name, TOPIC))


def test_a_bag_cut_off_by_a_crash_still_gives_what_it_holds_or_says_why_not(bag, tmp_path):
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(bag.read_bytes()[:-40])
    try:
        assert len(list(read_frames(cut, TOPIC))) <= 3
    except InvalidInput as error:
        assert "cut.mcap" in str(error)


@pytest.mark.parametrize("package", ["lz4", "mcap", "rosbags", "zstandard"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch, package: str):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"{package} is needed .* pip install 'activeo3_ros\[bags\]'"):
        importlib.reload(activeo3_ros.bags)


@pytest.fixture(params=["mcap", "db3"])
def of_0_1(tmp_path, request):
    """A result as version 0.1 recorded it: the fields since then are missing, in the message and in its definition."""
    store = _typestore(FIELDS_SINCE_0_1)
    result = Result(64, 48, Query(classes=("car",)), detections=(Detection("car", 0.5, Box(1, 2, 3, 4)),))
    message = result_message(result, "camera", 5, "optical")
    definition, _ = store.generate_msgdef(RESULT_TYPE, ros_version=2)
    cdr = bytes(store.serialize_cdr(message, RESULT_TYPE))
    if request.param == "mcap":
        return write_mcap(tmp_path / "old.mcap", [(5, cdr)], topic="/result", kind=RESULT_TYPE, definition=definition)
    with Writer(tmp_path / "old", version=8) as writer:  # as rosbag2 does since Iron
        writer.write(writer.add_connection("/result", RESULT_TYPE, typestore=store), 5, cdr)
    return tmp_path / "old"


def test_results_of_version_0_1_are_read_by_the_definition_in_the_bag(of_0_1):
    ((_, message),) = read_messages(of_0_1, "/result")
    assert not hasattr(message.detections[0], "existence")
    result = from_message(message)
    assert [(each.label, each.score, each.box.as_tuple()) for each in result.detections] == [("car", 0.5, (1, 2, 3, 4))]


@pytest.mark.parametrize("definition", ["", "std_msgs/Header header\n", "not a definition $"])
def test_without_a_whole_definition_ours_is_taken(tmp_path, definition: str):
    message = result_message(Result(64, 48, Query(classes=("car",))), "camera", 5, "optical")
    path = write_mcap(tmp_path / "a.mcap", [(5, to_cdr(message))], topic="/r", kind=RESULT_TYPE, definition=definition)
    ((_, read),) = read_messages(path, "/r")
    assert (read.camera, read.image_width) == ("camera", 64)


@pytest.mark.parametrize("cut", [4, 30, -9])
def test_a_message_that_is_not_whole_is_told_in_words(of_0_1, tmp_path, cut: int):
    definition = _typestore(FIELDS_SINCE_0_1).generate_msgdef(RESULT_TYPE, ros_version=2)[0]
    ((_, _, cdr),) = read_serialized(of_0_1, "/result")
    path = write_mcap(tmp_path / "b.mcap", [(5, cdr[:cut])], topic="/r", kind=RESULT_TYPE, definition=definition)
    with pytest.raises(InvalidInput, match=r"a message of /r at 5 ns is not a whole activeo3_ros/msg/PerceptionResult"):
        list(read_messages(path, "/r"))


def test_a_bag_of_ros_1_is_called_so_with_the_way_out(tmp_path):
    for name in ("drive.bag", "drive.mcap", "folder/drive.bag"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"#ROSBAG V2.0\n" + bytes(100))
        with pytest.raises(InvalidInput, match="is a bag of ROS 1; convert it with: rosbags-convert --src"):
            Bag(tmp_path / name if "folder" not in name else tmp_path / "folder")


@pytest.mark.parametrize(
    ("kind", "encoding", "says"),
    [
        ("foxglove.CompressedImage", "protobuf", "/cam (foxglove.CompressedImage in protobuf); only"),
        ("sensor_msgs/Image", "ros1", "/cam (sensor_msgs/Image in ros1); only"),
        (IMAGE_TYPE, "json", "/cam (sensor_msgs/msg/Image in json); only"),
        ("", "cdr", "/cam (of unknown type)"),
        ("sensor_msgs/msg/PointCloud2", "cdr", "/cam (sensor_msgs/msg/PointCloud2)"),
    ],
)
def test_a_bag_without_pictures_of_ros_2_says_what_its_topics_hold(tmp_path, kind: str, encoding: str, says: str):
    with Bag(write_mcap(tmp_path / "a.mcap", [(1, b"\0\1\0\0")], topic="/cam", kind=kind, encoding=encoding)) as bag:
        for wanted in ([], ["/cam"]):
            with pytest.raises(InvalidInput) as error:
                choose_topics(bag, wanted)
            assert says in str(error.value)
            assert ("convert the bag to ROS 2 first" in str(error.value)) == (encoding != "cdr")
