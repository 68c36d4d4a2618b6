"""The node in the test's own process, for faults and states that only the inside shows."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import rclpy
from rclpy.parameter import Parameter

from activeo3_ros.node.perception_node import PerceptionNode
from node_fixtures.fakes import load_fake


@contextlib.contextmanager
def node_inside(preset: str = "fake", *remappings: str, **parameters: Any) -> Iterator[PerceptionNode]:
    """An unconfigured node that is not spun: the test calls it directly. remappings: as FROM:=TO."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = PerceptionNode(
        load_fake,
        context=context,
        use_global_arguments=False,
        cli_args=["--ros-args", *(word for rule in remappings for word in ("--remap", rule))],
        parameter_overrides=[Parameter(name, value=value) for name, value in {"preset": preset, **parameters}.items()],
    )
    try:
        yield node
    finally:
        node.end()
        node.destroy_node()
        rclpy.shutdown(context=context)
        gc.collect()  # as in `Client`
