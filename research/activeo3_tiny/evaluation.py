"""Compares policies on drawn scenes that none was trained on, beside policies that do not learn.

    PYTHONPATH=research python -m activeo3_tiny.evaluation --task DIR --policy NAME=DIR … --out FILE

Every policy gets the same scenes, the same budget and the same task model. `random` and `grid` choose without the view;
`taught` draws regions as the supervised start's examples do: a sampled start does the same. `oracle` knows where the
small targets are. Intervals are 95 % by bootstrap over scenes. `activeo3_tiny.study` does this for many runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from activeo3_ros.core import Budget, Frame
from activeo3_ros.core.geometry import share_inside
from activeo3_ros.core.interfaces import SensingPolicy
from activeo3_ros.policies.fixed import Grid, Random
from activeo3_ros.policies.gain_maps import LearnedProposals
from activeo3_ros.policies.mllm import MllmSensing
from activeo3_ros.training.rewards import RewardSettings, match
from activeo3_ros.training.rollout_batcher import RolloutBatcher
from activeo3_ros.training.rows import Row
from activeo3_ros.training.scoring import Scored, Scorer, TrainingError
from activeo3_ros.vlm.engine import Engine
from activeo3_ros.vlm.engine_registry import shared_engine
from activeo3_ros.vlm.families import Family
from activeo3_ros.vlm.task import MllmTask

from .scene_rows import HELD_OUT_SEED, SceneRows
from .scenes import SMALL_AREA_PX
from .warm_start import random_regions

TINY_PIXELS = 448 * 252
"""Of the view and of each crop that `activeo3-tiny` gets."""
COVERED = 0.9
"""A target counts as covered if this share of it lies in one region."""
RESAMPLES = 2000
ORACLE_AREA = 0.0115
"""Of each region of the oracle, as a share of the picture: just what the area term allows."""


def regions_as_text(boxes: npt.ArrayLike) -> str:
    """`(n, 4)` boxes in pixels of the view as the answer of a policy that would choose them."""
    items = [
        {"bbox_2d": [round(x), round(y), round(x + width), round(y + height)], "label": "region"}
        for x, y, width, height in np.asarray(boxes, np.float64).reshape(-1, 4).tolist()
    ]
    return f"<think>given</think>\n<answer>{json.dumps(items)}</answer>"


def fixed_answers(policy: SensingPolicy, scorer: Scorer, rows: Sequence[Row], frames: Sequence[Frame]) -> list[str]:
    """Write the regions of a policy that is no language model as answers."""
    answers = []
    for row, frame in zip(rows, frames, strict=False):
        view = frame.view(frame.window, scorer.view_size(row))
        answers.append(
            regions_as_text([r.box.as_tuple() for r in policy.propose(view, row.query, scorer.budget).regions])
        )
    return answers


def taught_answers(scorer: Scorer, rows: Sequence[Row], seed: int = 0) -> list[str]:
    """Regions drawn as in the supervised start's examples, which say nothing of where targets are."""
    rng = np.random.default_rng(seed)
    drawn = [np.array(random_regions(rng, *scorer.view_size(row), scorer.budget.max_regions), float) for row in rows]
    return [regions_as_text(np.hstack([each[:, :2], each[:, 2:] - each[:, :2]])) for each in drawn]


def oracle_answers(scorer: Scorer, rows: Sequence[Row]) -> list[str]:
    """Regions of the least area allowed, each around the small targets that no earlier one has and that fit
    together.
    """
    answers = []
    for row in rows:
        width, height = scorer.view_size(row)
        scale = np.array([width / row.width, height / row.height] * 2)
        boxes = (
            np.array([box for box in row.boxes if box[2] * box[3] < SMALL_AREA_PX], np.float64).reshape(-1, 4) * scale
        )
        side = np.sqrt(ORACLE_AREA * width * height)
        regions: list[tuple[float, float, float, float]] = []
        left = list(range(len(boxes)))
        while left and len(regions) < scorer.budget.max_regions:
            centres = boxes[left, :2] + boxes[left, 2:] / 2
            windows = [
                (min(max(x - side / 2, 0.0), width - side), min(max(y - side / 2, 0.0), height - side), side, side)
                for x, y in [*centres.tolist(), *((a + b) / 2 for a in centres for b in centres)]
            ]
            inside = share_inside(boxes[left], windows) >= COVERED
            best = int(inside.sum(axis=0).argmax())
            if not inside[:, best].any():
                break
            regions.append(windows[best])
            left = [index for index, taken in zip(left, inside[:, best], strict=False) if not taken]
        answers.append(regions_as_text(regions))
    return answers


def model_answers(sensing: MllmSensing, scorer: Scorer, rows: Sequence[Row], frames: Sequence[Frame]) -> list[str]:
    """Ask a policy by the project's prompt, with greedy decoding."""
    requests = [
        sensing.request(frame.view(frame.window, scorer.view_size(row)), row.query, scorer.budget)
        for row, frame in zip(rows, frames, strict=False)
    ]
    return [reply.text for reply in sensing.engine.generate(requests)]


def measure(scored: Sequence[Scored]) -> dict[str, npt.NDArray[np.float64]]:
    """Per scene: small targets, those found, all targets, those found, those covered, detections, and the reward
    terms.

    Raises TrainingError where the task model failed on a scene: it must not count as a scene without detections.
    """
    failed = [each for each in scored if each.failure]
    if failed:
        raise TrainingError(
            f"the task model failed on {len(failed)} of {len(scored)} scenes, so that nothing can be measured; on "
            f"{failed[0].row.image}: {failed[0].failure}; fix the task model and run the same command again"
        )
    columns: dict[str, list[float]] = {
        name: [] for name in ("small", "small_found", "targets", "found", "covered", "detections")
    }
    for each in scored:
        detections = [d for d in each.detections or () if d.label in each.row.classes]
        targets = np.array(each.row.boxes, np.float64).reshape(-1, 4)
        small = targets[:, 2] * targets[:, 3] < SMALL_AREA_PX
        hits = match([d.box.as_tuple() for d in detections], [d.score for d in detections], targets, 0.5)
        found = np.zeros(len(targets), bool)
        found[hits[hits >= 0]] = True
        covered = (share_inside(targets, each.regions) >= COVERED).any(axis=1) if len(each.regions) else found & False
        values = (small.sum(), (found & small).sum(), len(targets), found.sum(), covered.sum(), len(detections))
        for name, value in zip(columns, values, strict=False):
            columns[name].append(float(value))
        for name, value in each.reward.terms.items():
            columns.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in columns.items()}


def summarize(measured: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, float]:
    """Shares over all scenes."""
    total = {name: float(values.sum()) for name, values in measured.items()}
    return {
        "small_recall": total["small_found"] / max(1.0, total["small"]),
        "recall": total["found"] / max(1.0, total["targets"]),
        "precision": total["found"] / max(1.0, total["detections"]),
        "covered": total["covered"] / max(1.0, total["targets"]),
        **{
            name: float(measured[name].mean())
            for name in ("format", "overlap", "area", "coverage", "task")
            if name in measured
        },
    }


def gain_interval(
    before: Mapping[str, npt.NDArray[np.float64]], after: Mapping[str, npt.NDArray[np.float64]], seed: int = 0
) -> tuple[float, float, float]:
    """Gain in small-object recall, and its 95 % interval by bootstrap over scenes, the same scenes for both."""
    rng = np.random.default_rng(seed)
    count = len(before["small"])
    picks = rng.integers(0, count, (RESAMPLES, count))
    small = np.maximum(1.0, before["small"][picks].sum(axis=1))
    gains = (after["small_found"] - before["small_found"])[picks].sum(axis=1) / small
    low, high = np.quantile(gains, (0.025, 0.975))
    gain = (after["small_found"] - before["small_found"]).sum() / max(1.0, before["small"].sum())
    return float(gain), float(low), float(high)


Measurements = Mapping[str, npt.NDArray[np.float64]]
FIXED = ("random", "grid", "taught", "oracle")
GAIN_MAPS = "gain_maps"
"""The head that the package brings for its embedded detector, on photographs: always three regions, if any pays."""


def evaluate(
    policies: Mapping[str, Mapping[str, Any] | Engine],
    task: Mapping[str, Any] | Engine,
    count: int,
    fixed: Sequence[str] = FIXED,
    first_seed: int = HELD_OUT_SEED,
    max_regions: int = 3,
) -> Iterator[tuple[str, Measurements]]:
    """The name and the measurements of each policy, as they become known.

    policies: engines, or their settings, by name; those of `fixed` follow. task: an engine, or its settings.
    """
    rows = list(SceneRows(count, first_seed))
    frames = [row.frame() for row in rows]
    by_name = {row.image: frame for row, frame in zip(rows, frames, strict=False)}
    batcher = RolloutBatcher(shared_engine(task) if isinstance(task, Mapping) else task)
    family: Family = batcher.family
    budget = Budget(max_regions, TINY_PIXELS, TINY_PIXELS, 200)
    settings = RewardSettings(min_purity=0.002)
    task_model = MllmTask(batcher, keep_aspect=True)
    scorer = Scorer(settings, family, budget, None, task_model, lambda row: by_name[row.image], batcher)
    for name, engine in policies.items():
        sensing = MllmSensing(engine, reasoning="full", shorter_side=4096)
        yield name, measure(scorer.score(model_answers(sensing, scorer, rows, frames), rows))
    ways = {
        "random": lambda: fixed_answers(Random(), scorer, rows, frames),
        "grid": lambda: fixed_answers(Grid(), scorer, rows, frames),
        GAIN_MAPS: lambda: fixed_answers(LearnedProposals(min_gain=0.0, reports=False), scorer, rows, frames),
        "taught": lambda: taught_answers(scorer, rows),
        "oracle": lambda: oracle_answers(scorer, rows),
    }
    for name in fixed:
        yield name, measure(scorer.score(ways[name](), rows))


def report_of(measured: Mapping[str, Measurements], start: str = "start") -> dict[str, Any]:
    """Summarize each policy and its gain over the start, as JSON takes it."""
    report: dict[str, Any] = {
        "scenes": len(next(iter(measured.values()))["small"]) if measured else 0,
        "policies": {name: summarize(each) for name, each in measured.items()},
    }
    if start in measured:
        report["gain_in_small_recall"] = {
            other: dict(zip(("gain", "low", "high"), gain_interval(measured[start], each), strict=True))
            for other, each in measured.items()
            if other != start
        }
    return report


def write_measurements(path: Path, measured: Mapping[str, Measurements]) -> None:
    """Write the measurements of each scene, so that policies measured apart can be compared."""
    values = {name: {column: each.tolist() for column, each in columns.items()} for name, columns in measured.items()}
    path.write_text(json.dumps(values) + "\n", encoding="utf-8")


def read_measurements(path: Path) -> dict[str, Measurements]:
    """Read the file of `write_measurements`."""
    values = json.loads(path.read_text(encoding="utf-8"))
    return {name: {column: np.array(each) for column, each in columns.items()} for name, columns in values.items()}


def engine_settings(directory: str, batch: int) -> dict[str, Any]:
    """Of the engine that answers many small views at once."""
    return {"type": "transformers", "model": directory, "attention": "auto", "cache": "dynamic", "max_batch": batch}


def main() -> None:
    """Read the command line, evaluate, and print the summary of each policy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", required=True, help="checkpoint of the task model")
    parser.add_argument("--policy", action="append", default=[], metavar="NAME=DIR", help="a checkpoint to evaluate")
    parser.add_argument(
        "--fixed", nargs="*", choices=[*FIXED, GAIN_MAPS], default=FIXED, help="policies that do not learn"
    )
    parser.add_argument("--start", default="start", help="the policy that gains are over (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--batch", type=int, default=512, help="views that a model answers at once")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; beside it one with every scene")
    args = parser.parse_args()

    from .qwen_speed import speed_up_qwen

    speed_up_qwen()
    policies = dict(each.split("=", 1) for each in args.policy)
    measured: dict[str, Measurements] = {}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name, values in evaluate(
        {name: engine_settings(path, args.batch) for name, path in policies.items()},
        engine_settings(args.task, args.batch),
        args.scenes,
        args.fixed,
    ):
        measured[name] = values
        report = report_of(measured, args.start)
        args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        write_measurements(args.out.with_suffix(".scenes.json"), measured)
        print(name, json.dumps(report["policies"][name]), flush=True)


if __name__ == "__main__":
    main()
