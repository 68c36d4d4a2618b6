"""activeo3-tiny, the model of research/: the MLLM's whole way with a model that finds things, on a CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_models import require_torch

require_torch()

from activeo3_ros.core import ActivePerception, Frame, Query, Status  # noqa: E402
from activeo3_ros.core.geometry import as_array, iou  # noqa: E402
from activeo3_ros.presets import load_preset  # noqa: E402
from activeo3_tiny.scene_rows import HELD_OUT_SEED  # noqa: E402
from activeo3_tiny.scenes import draw_scene  # noqa: E402

SCENES = (1, 2, 4)


@pytest.fixture(scope="module")
def perception() -> ActivePerception:
    return load_preset("tiny").build()


def test_the_weights_are_two_small_files_of_the_source_tree() -> None:
    weights = list((Path(__file__).parents[2] / "research").rglob("*.safetensors"))
    assert sorted(path.parent.name for path in weights) == ["policy", "start"]
    assert sum(path.stat().st_size for path in weights) <= 30_000_000


def test_it_looks_closer_and_its_answers_need_no_repair(perception: ActivePerception) -> None:
    for seed in SCENES:
        scene = draw_scene(HELD_OUT_SEED + seed)
        result = perception.perceive(Frame(scene.image), Query(classes=("traffic light",)))
        assert result.status is Status.COMPLETE, result.status_message
        assert 1 <= len(result.regions) <= 3
        assert all(region.zoom > 448 / 1920 for region in result.regions), "closer than the view"
        assert result.reasoning


def test_the_task_role_finds_what_a_crop_shows(perception: ActivePerception) -> None:
    """Each traffic light, in a window of 200 px around it."""
    found = total = 0
    for seed in SCENES:
        scene = draw_scene(HELD_OUT_SEED + seed)
        lights = scene.of("traffic light")[:2]
        for light in lights:
            x, y = light.box.center
            window = type(light.box)(x - 100, y - 100, 200, 200).clipped(scene.image.shape[1], scene.image.shape[0])
            crop = np.ascontiguousarray(scene.image[window.snapped(1920, 1080).slices()])
            view = Frame(crop).view(
                Frame(crop).window, perception.task.view_size(window.width, window.height, 448 * 252)
            )
            [found_there] = perception.task.examine([view], Query(classes=("traffic light",)), perception.budget)
            boxes = view.to_source(as_array(finding.box for finding in found_there.objects))
            boxes[:, :2] += (window.x, window.y)
            found += bool(len(boxes)) and bool(iou(boxes, [light.box.as_tuple()]).max() >= 0.5)
            total += 1
    assert total >= 3
    assert found >= total / 2
