"""The node with a detector of another package."""

from __future__ import annotations

import numpy as np
import pytest
from node_fixtures.client import Client
from node_fixtures.processes import NodeProcess, real_node
from plugin_package import CODE, PRESET, install
from waiting import wait_for


def test_the_node_uses_a_detector_and_a_policy_of_another_package(tmp_path):
    preset = tmp_path / "gizmo.yaml"
    preset.write_text(PRESET, encoding="utf-8")
    environment = install(tmp_path)
    with Client() as client, NodeProcess(real_node(), environment=environment, preset=str(preset), autostart=True):
        client.connect()
        result = client.result_of(np.full((48, 64, 3), 90, np.uint8))
    assert {each.label for each in result.detections} == {"gizmo"}
    assert [region.label for region in result.regions] == ["left"]


@pytest.fixture
def own_class(tmp_path):
    """A preset that names a class, and the environment in which its module can be imported."""
    preset = tmp_path / "own.yaml"
    preset.write_text("sensing: {type: full_frame}\ntask: {type: 'own_gizmo:GizmoDetector'}\n", encoding="utf-8")
    (tmp_path / "own_gizmo.py").write_text(CODE, encoding="utf-8")
    return preset, tmp_path


def test_a_preset_that_names_a_class_is_for_whoever_starts_the_node(own_class, monkeypatch):
    preset, directory = own_class
    monkeypatch.setenv("PYTHONPATH", str(directory), prepend=":")
    with Client() as client, NodeProcess(real_node(), preset=str(preset), autostart=True):
        client.connect()
        assert client.result_of(np.full((48, 64, 3), 90, np.uint8)).detections[0].label == "gizmo"


def test_a_preset_chosen_over_the_network_cannot_name_a_class(own_class, monkeypatch):
    preset, directory = own_class
    monkeypatch.setenv("PYTHONPATH", str(directory), prepend=":")
    with Client() as client, NodeProcess(real_node(), preset="full_frame", diagnostics_period=0.1):
        assert client.set_parameters(preset=str(preset))[0].successful
        assert not client.change_state("configure")
        wait_for(lambda: "not one chosen while it runs" in client.status()[1])
