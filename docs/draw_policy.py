"""Draws where activeo3-tiny looks before and after GRPO: `python docs/draw_policy.py`, after `make setup EXTRAS=mllm`.

The scene is one of those that nothing was trained on; regions, boxes and scores are what the start and the policy, each
with the start as the task model, really make of it.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from activeo3_ros.codecs.image_files import write_image
from activeo3_ros.codecs.picture import draw
from activeo3_ros.core import ActivePerception, Frame, Query
from activeo3_ros.policies.mllm import MllmSensing
from activeo3_ros.presets import load_preset
from activeo3_ros.training.rows import HELD_OUT_SEED
from activeo3_ros.training.scenes import draw_scene

SCENE = HELD_OUT_SEED + 3
QUERY = Query(classes=("traffic light",))
OUTPUT = Path(__file__).parent / "training" / "where_to_look.jpg"
PANEL_WIDTH = 1100


def main() -> int:
    """Write the picture, the start above and the policy below."""
    trained = load_preset("tiny").build()
    engine = {"type": "transformers", "model": "tiny/start", "cache": "dynamic"}
    start = ActivePerception(
        MllmSensing(engine, reasoning="full", shorter_side=4096), trained.task, trained.budget, examine_view=False
    )
    scene = draw_scene(SCENE)
    panels = []
    for name, perception in (("start", start), ("policy", trained)):
        result = perception.perceive(Frame(scene.image), QUERY)
        print(f"{name}: {len(result.detections)} of {len(scene.of('traffic light'))}, {result.status.name}")
        picture = draw(scene.image, result)
        size = (PANEL_WIDTH, round(PANEL_WIDTH * picture.shape[0] / picture.shape[1]))
        panels.append(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
    write_image(OUTPUT, np.vstack(panels))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
