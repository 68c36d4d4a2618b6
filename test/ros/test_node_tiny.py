"""The MLLM's whole way over DDS: image, view, prompt, text, parser, coordinates, crops, merge, result message."""

from __future__ import annotations

import math

import pytest
import yaml
from tiny_models import require_torch, with_full_tokenizer

require_torch()

from activeo3_ros.msg import PerceptionResult  # noqa: E402
from node_fixtures.client import Client  # noqa: E402
from node_fixtures.processes import NodeProcess, real_node  # noqa: E402
from waiting import wait_for  # noqa: E402

from activeo3_ros.assets.resources import config_directory  # noqa: E402
from activeo3_ros.assets.weights import local_model  # noqa: E402
from activeo3_ros.core.geometry import iou  # noqa: E402
from activeo3_tiny.scene_rows import HELD_OUT_SEED  # noqa: E402
from activeo3_tiny.scenes import draw_scene  # noqa: E402

SCENES = range(1, 7)
CAMERAS = ("camera", "rear")


@pytest.fixture(scope="module")
def client():
    # Frames of 6 MB.
    reliable = {f"qos_overrides./{camera}/image_raw.subscription.reliability": "reliable" for camera in CAMERAS}
    node = NodeProcess(
        real_node(), preset="tiny", cameras=list(CAMERAS), autostart=True, inference_timeout=600.0, **reliable
    )
    with node, Client(CAMERAS) as client:
        wait_for(lambda: not node.running or client._is_active(), 120, "two models to load")
        client.connect()
        yield client


def test_the_trained_policy_zooms_and_its_model_finds_lights_where_they_are(client):
    """Six held-out scenes: the small model misses many lights, but its detections must lie on real ones."""
    found = 0
    for seed in SCENES:
        scene = draw_scene(HELD_OUT_SEED + seed)
        result = client.result_of(scene.image, timeout_s=100)
        assert result.status == PerceptionResult.STATUS_COMPLETE, result.status_message
        assert (result.image_width, result.image_height) == (1920, 1080)
        assert 1 <= len(result.regions) <= 3
        assert all(region.zoom > 1 for region in result.regions)
        assert result.reasoning
        assert result.tokens > 0
        for box in (seen.box for seen in [*result.regions, *result.detections]):
            assert 0 <= box.x < box.x + box.width <= 1920
            assert 0 <= box.y < box.y + box.height <= 1080
        assert all(0 < d.score <= 1 or math.isnan(d.score) for d in result.detections)
        lights = [light.box.as_tuple() for light in scene.of("traffic light")]
        boxes = [(d.box.x, d.box.y, d.box.width, d.box.height) for d in result.detections]
        if lights and boxes:
            found += int((iou(boxes, lights).max(axis=1) >= 0.5).sum())
    assert found >= 1


def test_frames_of_several_cameras_are_perceived_together_and_each_gets_its_own_result(client):
    scenes = {camera: draw_scene(HELD_OUT_SEED + seed).image for seed, camera in enumerate(CAMERAS, 1)}
    alone = {camera: client.result_of(image, camera, timeout_s=100) for camera, image in scenes.items()}
    assert [result.status_message for result in alone.values()] == ["", ""]
    before = len(client.results)
    for camera, image in scenes.items():
        client.publish(image, camera)
    together = wait_for(lambda: (new := client.results[before:])[1:] and new, 100, "a result of each camera")
    assert sorted(result.camera for result in together) == sorted(CAMERAS)
    for result in together:
        assert result.status == PerceptionResult.STATUS_COMPLETE, result.status_message
        assert regions(result) == pytest.approx(regions(alone[result.camera]), abs=1.0)


def test_diagnostics_say_what_runs_and_where(client):
    _, _, values = client.status()
    assert values["sensing"].startswith("MllmSensing: policy on cpu with transformers")
    assert values["task"].startswith("MllmTask: start on cpu with transformers")
    assert values["device"] == "cpu"


def test_with_the_whole_tokenizer_of_qwen_it_zooms_and_finds_all_the_same(tmp_path):
    """The tiny models' own tokenizer is a part of it: cut short to save space, and otherwise the same words."""
    models = {name: with_full_tokenizer(local_model(f"tiny/{name}"), tmp_path / name) for name in ("policy", "start")}
    preset = yaml.safe_load((config_directory() / "tiny.yaml").read_text(encoding="utf-8"))
    preset["sensing"]["engine"]["model"], preset["task"]["engine"]["model"] = map(str, models.values())
    path = tmp_path / "whole_tokenizer.yaml"
    path.write_text(yaml.safe_dump(preset), encoding="utf-8")
    reliable = {"qos_overrides./camera/image_raw.subscription.reliability": "reliable"}
    node = NodeProcess(real_node(), preset=str(path), cameras=["camera"], autostart=True, **reliable)
    with node, Client(["camera"]) as client:
        wait_for(lambda: not node.running or client._is_active(), 120, "two models to load")
        client.connect()
        result = client.result_of(draw_scene(HELD_OUT_SEED + 1).image, timeout_s=100)
        assert result.status == PerceptionResult.STATUS_COMPLETE, result.status_message
        assert 1 <= len(result.regions) <= 3 and all(region.label == "traffic light" for region in result.regions)
        assert "zoom" in result.reasoning and result.tokens > 50


def regions(result: PerceptionResult) -> list[float]:
    """Corner and size of each region, one after the other, pixels."""
    return [value for region in result.regions for value in (region.box.x, region.box.y, region.box.width)]
