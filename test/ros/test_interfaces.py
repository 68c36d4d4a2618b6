"""The messages, services and actions are public: robots, bags and scripts depend on each name, type and order."""

import importlib
import json
from pathlib import Path

import pytest
from rclpy.serialization import deserialize_message, serialize_message

import activeo3_ros
from activeo3_ros.assets.resources import message_directory

# One line for each list of fields, as in the files: a changed line breaks the bags that were recorded before.
FIELDS = {
    "msg/BoundingBox": "float32 x, float32 y, float32 width, float32 height",
    "msg/ZoomRegion": "uint8 index, BoundingBox box, string label, float32 score, float32 zoom",
    "msg/Detection": (
        "string label, float32 score, float32 existence, BoundingBox box, int16 region, bool carried, string track_id"
    ),
    "msg/GroundingBox": "string phrase, float32 score, BoundingBox box, int16 region, int32 detection, string text",
    "msg/InstanceMask": (
        "string label, float32 score, BoundingBox box, int16 region, int32 detection, uint32 height, uint32 width, "
        "uint8 encoding, uint8[] data"
    ),
    "msg/StageTiming": "string stage, float32 milliseconds",
    "msg/PerceptionResult": (
        "std_msgs/Header header, string camera, uint8 status, string status_message, string query, "
        "uint32 query_revision, uint32 image_width, uint32 image_height, ZoomRegion[] regions, float32 regions_age_ms, "
        "Detection[] detections, GroundingBox[] groundings, InstanceMask[] masks, string answer, string reasoning, "
        "StageTiming[] timings, uint32 views, uint64 pixels, uint32 tokens, builtin_interfaces/Time completed"
    ),
    "msg/ZoomRegionArray": "std_msgs/Header header, ZoomRegion[] regions",
    "msg/DetectionArray": "std_msgs/Header header, Detection[] detections",
    "msg/GroundingBoxArray": "std_msgs/Header header, GroundingBox[] groundings",
    "msg/InstanceMaskArray": "std_msgs/Header header, InstanceMask[] masks",
    "msg/Track": (
        "string track_id, string label, float32 existence, BoundingBox box, float32 velocity_x, float32 velocity_y, "
        "geometry_msgs/Vector3 bearing, float32 bearing_sigma, bool has_position, geometry_msgs/Point position, "
        "float64[9] position_covariance, builtin_interfaces/Time first_seen, builtin_interfaces/Time last_seen, "
        "float32 zoom, string text"
    ),
    "msg/TrackArray": "std_msgs/Header header, Track[] tracks",
    "srv/SetQuery.Request": "string query, string[] classes",
    "srv/SetQuery.Response": "bool success, string message, uint32 revision",
    "action/Perceive.Goal": ("string camera, string query, string[] classes, uint8 max_regions, float32 deadline_ms"),
    "action/Perceive.Result": "PerceptionResult result",
    "action/Perceive.Feedback": "string stage, ZoomRegion[] regions",
}
CONSTANTS = {
    "msg/InstanceMask": {"ENCODING_RLE": 0, "ENCODING_BITS": 1},
    "msg/PerceptionResult": {"STATUS_COMPLETE": 0, "STATUS_COARSE": 1, "STATUS_FAILED": 2},
}
# What the middleware compares before it connects two nodes, and what a bag records. These four contain all the others
# but the four arrays of a result's lists.
TYPE_HASHES = {
    "msg/PerceptionResult": "RIHS01_44d1ef1eadaec1fa6b46dd157e7bfbb6da0a0e12fd5811aeb58058343e6844f2",
    "msg/TrackArray": "RIHS01_8918820613299a3c768a21d2d706ef249abd59fce75ae16e1e51ad1193199188",
    "action/Perceive": "RIHS01_839def70f1b0901f0a4ab176b6212acafccc0c2e83c765f8810d393d0bb1d3d7",
    "srv/SetQuery": "RIHS01_7eb9659b1c99e6914cc5cec1fa8012d1d3123b19fefa59054e03cf3ecc4f60ad",
}
IDL_NAMES = {"float32": "float", "float64": "double", "bool": "boolean", "float64[9]": "double[9]"}


def interface(name: str) -> type:
    """The generated class of, say, "msg/Detection" or "srv/SetQuery.Request"."""
    kind, _, path = name.partition("/")
    found = importlib.import_module(f"activeo3_ros.{kind}")
    for part in path.split("."):
        found = getattr(found, part)
    return found


def idl_type(type_name: str) -> str:
    """The name of a field's type as the generated classes give it."""
    if type_name.endswith("[]"):
        return f"sequence<{idl_type(type_name[:-2])}>"
    if type_name[0].isupper():
        return f"activeo3_ros/{type_name}"
    return IDL_NAMES.get(type_name, type_name)


def definition_files() -> list[Path]:
    share = message_directory().parent
    return sorted([*share.glob("msg/*.msg"), *share.glob("srv/*.srv"), *share.glob("action/*.action")])


def test_the_tests_see_what_was_built_and_not_the_source_tree():
    assert "site-packages" in Path(activeo3_ros.__file__).parts
    assert (Path(activeo3_ros.__file__).parent / "msg" / "_perception_result.py").is_file()


@pytest.mark.parametrize("name", FIELDS)
def test_fields_have_the_documented_names_types_and_order(name):
    documented = [field.split() for field in FIELDS[name].split(", ")]
    generated = interface(name).get_fields_and_field_types()
    assert list(generated.items()) == [(field, idl_type(type_name)) for type_name, field in documented]


def test_nothing_is_public_that_is_not_documented():
    documented = {name.partition(".")[0] for name in FIELDS}
    assert {f"{path.parent.name}/{path.stem}" for path in definition_files()} == documented


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_keep_their_values(name):
    assert {key: getattr(interface(name), key) for key in CONSTANTS[name]} == CONSTANTS[name]


@pytest.mark.parametrize("name", TYPE_HASHES)
def test_type_hashes_are_those_of_recorded_bags(name):
    prefix = next(parent for parent in Path(activeo3_ros.__file__).parents if (parent / "share").is_dir())
    description = json.loads((prefix / "share" / "activeo3_ros" / f"{name}.json").read_text())
    hashes = {entry["type_name"]: entry["hash_string"] for entry in description["type_hashes"]}
    assert hashes[f"activeo3_ros/{name}"] == TYPE_HASHES[name], "this change breaks the bags recorded before"


@pytest.mark.parametrize("path", definition_files(), ids=lambda path: path.name)
def test_every_field_and_constant_says_what_it_is(path):
    lines = [line for line in path.read_text().splitlines() if line.strip() and line.strip() != "---"]
    assert lines[0].startswith("# "), "the file begins with what it is for"
    for line in lines:
        if not line.startswith("#"):
            comment = line.partition("#")[2].strip()
            assert len(comment.split()) >= 2, f"no comment: {line}"


@pytest.mark.parametrize("path", definition_files(), ids=lambda path: path.name)
def test_every_number_says_its_unit(path):
    units = (
        "pixels",
        "milliseconds",
        "count",
        "ratio",
        "0 to 1",
        "enumeration",
        "bytes",
        "seconds",
        "radians",
        "metres",
    )
    for line in path.read_text().splitlines():
        field, _, comment = line.partition("#")
        words = field.split()
        if len(words) == 2 and words[0].startswith(("float", "int", "uint")):
            assert any(unit in comment for unit in units), f"no unit: {line}"


def test_a_full_result_survives_the_wire():
    from activeo3_ros.msg import (
        BoundingBox,
        Detection,
        GroundingBox,
        InstanceMask,
        PerceptionResult,
        StageTiming,
        ZoomRegion,
    )

    box = BoundingBox(x=1.5, y=2.0, width=30.25, height=4.0)
    sent = PerceptionResult(
        camera="front",
        status=PerceptionResult.STATUS_COARSE,
        status_message="deadline of 100 ms: 1 of 3 regions examined",
        query="trucks",
        query_revision=7,
        image_width=1920,
        image_height=1080,
        regions=[ZoomRegion(index=0, box=box, label="truck?", score=0.25, zoom=4.0)],
        regions_age_ms=66.5,
        detections=[Detection(label="truck", score=0.5, existence=0.75, box=box, region=-1, carried=True)],
        groundings=[GroundingBox(phrase="trucks", score=0.5, box=box, region=-1, detection=0)],
        masks=[
            InstanceMask(
                label="truck", box=box, detection=0, height=4, width=31, encoding=InstanceMask.ENCODING_RLE, data=b"o9"
            )
        ],
        answer="zwei Lkw, 二",
        timings=[StageTiming(stage="sensing", milliseconds=54.5)],
        views=2,
        pixels=2**40,
    )
    sent.header.frame_id = "front_optical"
    assert deserialize_message(serialize_message(sent), PerceptionResult) == sent
