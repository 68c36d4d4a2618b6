"""The options of `activeo3 node` as the arguments of ROS. test/ros/test_without_ros2.py runs the node itself."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from activeo3_ros.cli import node
from activeo3_ros.core import InvalidInput


def arguments(*options: str) -> list[str]:
    """What ROS is given for a command line, without the mark --ros-args."""
    parser = argparse.ArgumentParser()
    node.add_arguments(parser)
    args = parser.parse_args(options)
    mark, *rest = node.ros_arguments(args, dict(map(node._assignment, args.param)))
    assert mark == "--ros-args"
    return rest


def test_the_node_starts_by_itself_and_tells_its_counts_unless_told_otherwise():
    assert arguments() == ["-p", "autostart:=true", "-p", "log_period:=5.0"]
    assert arguments("-p", "autostart:=false")[-2:] == ["-p", "autostart:=false"], "the last one holds"


def test_options_come_first_then_the_file_then_the_parameters(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.touch()
    given = arguments(
        "--cameras", "front,rear", "--preset", "grid", "-r", "a:=b", "--params-file", str(file), "-p", "masks:=true"
    )
    assert given == [
        *("-r", "a:=b", "-p", "autostart:=true", "-p", "log_period:=5.0", "-p", "cameras:=front,rear"),
        *("-p", "preset:=grid", "--params-file", str(file), "-p", "masks:=true"),
    ]


@pytest.mark.parametrize("option", ["--cameras", "--preset"])
def test_an_empty_option_is_refused_by_its_name(option: str):
    with pytest.raises(InvalidInput, match=f"{option} must not be empty"):
        arguments(option, " ")


@pytest.mark.parametrize("text", ["masks", "masks=true", ":=true", "masks:="])
def test_what_is_no_assignment_is_refused(text: str):
    with pytest.raises(InvalidInput, match="must be NAME:=VALUE"):
        arguments("-p", text)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--cameras", "front", "-p", "cameras:=rear"), "--cameras and -p cameras:= say the same thing twice"),
        (("--params-file", "none.yaml"), "--params-file none.yaml: no such file"),
    ],
)
def test_a_contradiction_and_a_missing_file_are_refused(options: tuple[str, ...], says: str):
    with pytest.raises(InvalidInput, match=says):
        arguments(*options)


def test_an_unknown_parameter_is_refused_with_the_one_that_is_like_it():
    known = ["max_regions", "masks"]
    node.check_names({"masks": "true", "use_sim_time": "true", "qos_overrides./a.subscription.depth": "1"}, known)
    with pytest.raises(InvalidInput, match="the node has no such parameter; did you mean 'masks'"):
        node.check_names({"mask": "true"}, known)
