# Copyright 2026 The activeo3_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Heartbeats for Nav2's lifecycle manager, which takes a node without them for dead; they need the package `bond`."""

from __future__ import annotations

import uuid
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

from . import qos

try:
    from bond.msg import Status
except ImportError:
    Status = None

TOPIC = "bond"
HEARTBEAT_S = 0.25
"""Seconds between two heartbeats. A manager waits 4 s for one (its parameter `bond_timeout`), so some may be lost."""
TIMEOUT_S = 4.0
"""What the heartbeats name as the time after which the node may be taken for dead, seconds."""
HEARTBEATS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE)


class Bond:
    """One side of a bond: while it is begun, it says that the node is alive; when it ends, that the node left."""

    def __init__(self, node: Node, group: CallbackGroup) -> None:
        """Create the publisher, where `bond` is installed; elsewhere all methods do nothing.

        Args:
            node: The node whose name is the bond's id, as the manager has it in `node_names`.
            group: Callback group of the publisher's events.
        """
        self._node = node
        self._instance = ""
        self._publisher = qos.create_publisher(node, Status, TOPIC, HEARTBEATS, group) if Status else None

    def begin(self) -> None:
        """Tell that the node is active: a new bond, since a broken one cannot be joined again."""
        self._instance = str(uuid.uuid4())
        self.beat()

    def beat(self) -> None:
        """Send the heartbeat that is due, if the bond is begun."""
        if self._instance:
            self._send(active=True)

    def end(self) -> None:
        """Tell that the node leaves, so that nobody waits for its heartbeats to fail."""
        if self._instance:
            self._send(active=False)
        self._instance = ""

    def _send(self, active: bool) -> None:
        if self._publisher is None:
            return
        fields: dict[str, Any] = {"heartbeat_timeout": TIMEOUT_S, "heartbeat_period": HEARTBEAT_S}
        message = Status(id=self._node.get_name(), instance_id=self._instance, active=active, **fields)
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)
