"""Draws the regions that activeo3-tiny chooses before and after GRPO, and the detections in them.

    python research/draw_policy.py [--out FILE.jpg]

after `make setup EXTRAS=mllm`. The scene is held out; regions, boxes and scores are those of the start (above) and of
the policy (below), both with the start as the task model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from activeo3_ros.codecs.image_files import write_image
from activeo3_ros.codecs.picture import draw
from activeo3_ros.core import ActivePerception, Frame, Query
from activeo3_ros.policies.mllm import MllmSensing
from activeo3_ros.presets import load_preset
from activeo3_tiny.scene_rows import HELD_OUT_SEED
from activeo3_tiny.scenes import draw_scene

SCENE = HELD_OUT_SEED + 3
QUERY = Query(classes=("traffic light",))
OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "training" / "where_to_look.jpg"
PANEL_WIDTH = 1100


def main() -> int:
    """Write the picture, the start above and the policy below."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUTPUT, metavar="FILE", help="(default: %(default)s)")
    args = parser.parse_args()
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
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_image(args.out, np.vstack(panels))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
