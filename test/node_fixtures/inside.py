"""The node in the test's own process, for what can only be seen, or broken, from inside."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

import rclpy
from rclpy.parameter import Parameter

from activeo3_ros.node.perception_node import PerceptionNode
from node_fixtures.fakes import load_fake


@contextlib.contextmanager
def node_inside(preset: str = "fake") -> Iterator[PerceptionNode]:
    """A node, unconfigured; nobody spins it, so that what is asked of it is answered where it is asked."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = PerceptionNode(
        load_fake,
        context=context,
        use_global_arguments=False,
        parameter_overrides=[Parameter("preset", value=preset)],
    )
    try:
        yield node
    finally:
        node.end()
        node.destroy_node()
        rclpy.shutdown(context=context)
        gc.collect()  # as in `Client`
