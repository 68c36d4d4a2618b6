"""A node whose detector another process serves: a server that goes away is a failed frame, never an empty road."""

from __future__ import annotations

import threading

import numpy as np
from node_fixtures.client import Client
from node_fixtures.processes import NodeProcess, real_node

from activeo3_ros.core import Status
from activeo3_ros.core.frame import InputSize
from activeo3_ros.core.results import DetectedBoxes
from activeo3_ros.detectors.serving import DetectorServer

PRESET = """\
sensing: {{type: full_frame}}
task: {{type: served, socket: {socket}}}
examine_view: true
"""
PICTURE = np.full((48, 64, 3), 90, np.uint8)


class WholeImageDetector:
    """Finds one thing wherever it looks."""

    names = ("thing",)
    input_size = InputSize(64, 64)
    concurrent = True

    def detect(self, images, threshold):
        boxes = [np.array([[0, 0, image.shape[1], image.shape[0]]], float) for image in images]
        return [DetectedBoxes(box, np.array([0.9], np.float32), np.array([0])) for box in boxes]


def served(path):
    server = DetectorServer(WholeImageDetector(), "thing_finder", "x", path)
    threading.Thread(target=server.serve, daemon=True).start()
    return server


def test_frames_fail_while_nobody_serves_and_are_perceived_again_afterwards(tmp_path):
    socket, preset = tmp_path / "socket", tmp_path / "served.yaml"
    preset.write_text(PRESET.format(socket=socket), encoding="utf-8")
    server = served(socket)
    with Client() as client, NodeProcess(real_node(), preset=str(preset), autostart=True, memory=False):
        client.connect()
        assert [each.label for each in client.result_of(PICTURE).detections] == ["thing"]
        server.close()
        for told in ("is gone", "no detector is served"):
            result = client.result_of(PICTURE)
            assert result.status == Status.FAILED and told in result.status_message
        server = served(socket)
        assert [each.label for each in client.result_of(PICTURE).detections] == ["thing"]
    server.close()
