"""Heartbeats for Nav2's lifecycle manager, heard by a process that has the message package `bond`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest
from node_fixtures.client import Client
from node_fixtures.interfaces import environment_with
from node_fixtures.processes import NodeProcess
from waiting import wait_for

from activeo3_ros.node.bond import HEARTBEAT_S, TIMEOUT_S

LISTENER = """
import json, rclpy
from bond.msg import Status

def show(status):
    fields = [status.id, status.instance_id, status.active, status.heartbeat_timeout, status.heartbeat_period]
    print(json.dumps(fields), flush=True)

rclpy.init()
node = rclpy.create_node("manager")
node.create_subscription(Status, "bond", show, 100)
rclpy.spin(node)
"""


@pytest.mark.timeout(400)  # the first time, `bond` is built
def test_an_active_node_tells_that_it_lives_and_when_it_leaves():
    environment = environment_with("bond")
    with NodeProcess(environment=environment) as node, Client() as client:
        listener = subprocess.Popen(
            [sys.executable, "-c", LISTENER], env=environment, stdout=subprocess.PIPE, text=True, cwd="/"
        )
        heard: list[list] = []
        threading.Thread(target=lambda: heard.extend(map(json.loads, listener.stdout)), daemon=True).start()
        try:
            wait_for(lambda: client.node.count_subscribers("/bond"), 30, "the manager")
            assert client.change_state("configure")
            assert not heard, "a node that is not active is not to be waited for"
            for _ in range(2):  # a manager makes a new bond each time
                heard.clear()
                assert client.change_state("activate")
                wait_for(lambda: len(heard) >= 3)
                assert client.change_state("deactivate")
                wait_for(lambda: not heard[-1][2])
                name, instance, _, timeout, period = heard[0]
                assert (name, timeout, period) == ("activeo3", TIMEOUT_S, HEARTBEAT_S)
                assert {entry[1] for entry in heard} == {instance}
                assert [entry[2] for entry in heard] == [True] * (len(heard) - 1) + [False]
            assert client.change_state("activate")
            wait_for(lambda: heard[-1][2])
            node.terminate()
            wait_for(lambda: not heard[-1][2], what="the end of a node that is shut down")
        finally:
            listener.kill()
            listener.wait()
