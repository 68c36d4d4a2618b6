"""The stand-ins of test/interfaces against the originals: where the hashes agree, two sides understand each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from interface_hashes import type_hash, type_hashes
from node_fixtures.interfaces import SOURCES

PACKAGES = ("vision_msgs", "foxglove_msgs", "autoware_perception_msgs", "tier4_perception_msgs")
"""Each after those that it uses."""
ORIGINALS = {
    # ros-perception/vision_msgs, e77fa2d97d69abaaa546592892d2d5d16cec9977 (4.1.1)
    "vision_msgs/msg/Detection2DArray": "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968",
    "vision_msgs/msg/VisionInfo": "RIHS01_95d3116a17484ad91c9a2686e1d54890bbfc3ff6c6a2de137738c4950d45d284",
    "vision_msgs/msg/LabelInfo": "RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783",
    # foxglove/schemas, dd8b4f38df88908e05f3ddee18ffddfa5ef7a4cd (3.2.3); later ones have more fields, which stay empty
    "foxglove_msgs/msg/ImageAnnotations": "RIHS01_47c6c0891ba263ec1b20d9b785c4261d4bc41051cbcc01668130e36aa2dcaee3",
    "foxglove_msgs/msg/CompressedVideo": "RIHS01_32039eafc3770e589c86c4dabff9c392ce9955ebffd43f5f60763011d43d8d1d",
    # autowarefoundation/autoware_msgs, 7025d8f7df0ead43037d86f8a4ffda8b397d0293
    "autoware_perception_msgs/msg/DetectedObject": (
        "RIHS01_395e8cae03c45c86ddb3263f9db58f5a1364bdabdcec56c24c817a372f7d566f"
    ),
    # tier4/tier4_autoware_msgs, branch autoware_msg, 98462eda261d799af556a95104dcd177d12138e5
    "tier4_perception_msgs/msg/DetectedObjectsWithFeature": (
        "RIHS01_57ca7ba338d93c8174ea5a411ed093a01cd22df19c934ffb977103c98d697291"
    ),
}
"""Computed in the same way from the originals' .msg files."""


@pytest.fixture(scope="module")
def described(tmp_path_factory) -> Path:
    others = tmp_path_factory.mktemp("types")
    for package in PACKAGES:
        type_hashes(package, sorted((SOURCES / package / "msg").glob("*.msg")), others)
    return others


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_stand_in_has_the_hash_of_its_original(described, name):
    assert type_hash(described, name) == ORIGINALS[name]


def test_a_message_with_another_field_has_another_hash(tmp_path):
    (tmp_path / "Colour.msg").write_text("float64 r\n")
    (tmp_path / "Other.msg").write_text("float32 r\n")
    (tmp_path / "others").mkdir()
    type_hashes("paint", [tmp_path / "Colour.msg", tmp_path / "Other.msg"], tmp_path / "others")
    one, other = (type_hash(tmp_path / "others", f"paint/msg/{name}") for name in ("Colour", "Other"))
    assert one != other


def test_autowares_labels_are_constants_of_its_message():
    from activeo3_ros.node.overlays import AUTOWARE_LABELS

    definition = (SOURCES / "autoware_perception_msgs" / "msg" / "ObjectClassification.msg").read_text()
    constants = re.findall(r"uint8 (\w+) *=", definition)
    assert {*AUTOWARE_LABELS.values(), "UNKNOWN"} <= set(constants)
