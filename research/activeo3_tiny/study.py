"""The study of activeo3-tiny: GRPO from one start, several seeds, with either form of the reward and with both.

    PYTHONPATH=research python -m activeo3_tiny.study --config research/tiny.yaml --out out/study

trains each combination by `activeo3 train grpo` in a process of its own, several at a time on each GPU, evaluates the
start, every policy and those that do not learn on the same held-out scenes, and writes `evaluation.json`,
`results.md` (tables) and `curves.png`. Finished runs are not repeated, so the same command goes on.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from activeo3_ros.core.optional import require_package
from activeo3_ros.training.config import load_config

from .evaluation import FIXED, Measurements, read_measurements, report_of

REWARDS: dict[str, dict[str, float]] = {
    "both": {},
    "heuristic": {"task": 0.0},
    "task": {"format": 0.0, "overlap": 0.0, "area": 0.0, "coverage": 0.0},
}
"""Weights that differ from 1, by the name of the setting."""
CURVES = ("format", "overlap", "area", "coverage", "task")
EXTRA_CURVES = ("regions/area", "kl", "completions/mean_length")


@dataclass(frozen=True)
class Run:
    """One training run. name: of its directory and in all tables."""

    reward: str
    seed: int
    directory: Path
    device: int

    @property
    def name(self) -> str:
        return f"{self.reward}-seed{self.seed}"

    @property
    def policy(self) -> Path:
        return self.directory / "policy"

    @property
    def scenes(self) -> Path:
        return self.directory / "evaluation.scenes.json"


def configuration(base: Mapping[str, Any], run: Run, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The values of one run's configuration file: those of the study, its weights, its seed, and scenes of its own."""
    reward = {**base.get("reward", {}), "weights": {**base.get("reward", {}).get("weights", {}), **REWARDS[run.reward]}}
    settings = {**base.get("grpo", {}), **changes.get("grpo", {}), "seed": run.seed}
    rest = {name: value for name, value in changes.items() if name != "grpo"}
    data = dict(base["data"])
    if "count" in data:
        data["first_seed"] = data.get("first_seed", 0) + run.seed * data["count"]
    return {**base, **rest, "data": data, "reward": reward, "grpo": settings, "output": str(run.directory)}


def steps_of(run: Run, config: Path, start: str, scenes: int, batch: int) -> list[tuple[Path, list[str]]]:
    """The steps of one run: the file that each writes last, and the module with its arguments."""
    return [
        (run.policy / "model.safetensors", ["activeo3_ros.cli", "train", "grpo", "--config", str(config)]),
        (
            run.scenes,
            [
                "activeo3_tiny.evaluation", "--task", start, "--policy", f"{run.name}={run.policy}", "--fixed",
                "--scenes", str(scenes), "--batch", str(batch), "--out", str(run.directory / "evaluation.json"),
            ],
        ),
    ]  # fmt: skip


def do(run: Run, config: Path, start: str, scenes: int, batch: int) -> None:
    """Train and evaluate one run, its output in `log.txt` beside its results.

    A step that fails, as training may for want of memory while other runs need it too, is tried once more in the time
    left.
    """
    began = time.monotonic()
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(run.device)} if run.device >= 0 else dict(os.environ)
    run.directory.mkdir(parents=True, exist_ok=True)
    with open(run.directory / "log.txt", "a", encoding="utf-8") as log:
        for result, command in steps_of(run, config, start, scenes, batch):
            if not result.exists():
                call = [sys.executable, "-m", *command]
                try:
                    subprocess.run(call, stdout=log, stderr=log, env=environment, check=True)
                except subprocess.CalledProcessError:
                    shorten(config, (time.monotonic() - began) / 60)
                    subprocess.run(call, stdout=log, stderr=log, env=environment, check=True)


def shorten(config: Path, minutes: float) -> None:
    """Take minutes off the time limit in the configuration of a run, if there is one."""
    values = yaml.safe_load(config.read_text(encoding="utf-8"))
    if values.get("max_minutes"):
        values["max_minutes"] = max(0.1, values["max_minutes"] - minutes)
        config.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def baselines(directory: Path, start: str, scenes: int, batch: int, device: int) -> None:
    """Evaluate the start and the policies that do not learn."""
    done = directory / "baselines.scenes.json"
    if done.exists() and set(read_measurements(done)) == {"start", *FIXED}:
        return
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(device)} if device >= 0 else dict(os.environ)
    command = [
        sys.executable, "-m", "activeo3_tiny.evaluation", "--task", start, "--policy", f"start={start}",
        "--scenes", str(scenes), "--batch", str(batch), "--out", str(directory / "baselines.json"),
    ]  # fmt: skip
    with open(directory / "baselines.txt", "a", encoding="utf-8") as log:
        subprocess.run(command, stdout=log, stderr=log, env=environment, check=True)


def collect(directory: Path) -> dict[str, Measurements]:
    """Read all measurements so far, the baselines first."""
    paths = [directory / "baselines.scenes.json", *sorted(directory.glob("*/evaluation.scenes.json"))]
    return {name: each for path in paths if path.exists() for name, each in read_measurements(path).items()}


def table(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    columns = ("small_recall", "recall", "precision", "covered", "format", "overlap", "area", "coverage", "task")
    lines = ["| policy | " + " | ".join(columns) + " | gain in small recall, 95 % interval |"]
    lines.append("| --- " * (len(columns) + 2) + "|")
    gains = report.get("gain_in_small_recall", {})
    for name, values in report["policies"].items():
        gain = gains.get(name)
        words = f"{100 * gain['gain']:+.1f} ({100 * gain['low']:.1f} to {100 * gain['high']:.1f})" if gain else ""
        cells = [f"{values[column]:.3f}" if column in values else "" for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {words} |")
    return "\n".join(lines) + "\n"


def draw_curves(logs: Mapping[str, Path], out: Path, smooth: int = 8) -> None:
    """Learning curves of every term, one line a run, one colour a setting; each point is a mean over `smooth` steps."""
    pyplot = require_package("matplotlib.pyplot", "to draw curves", "matplotlib")
    names = [*CURVES, *EXTRA_CURVES]
    figure, axes = pyplot.subplots(2, 4, figsize=(13, 5.2), constrained_layout=True)
    colours = {"both": "tab:blue", "heuristic": "tab:orange", "task": "tab:green"}
    for run, path in logs.items():
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for axis, name in zip(axes.flat, names, strict=True):
            column = f"rewards/{name}/mean" if name in CURVES else name
            points = [(int(row["step"]), float(row[column])) for row in rows if row.get(column)]
            if len(points) < 2:
                continue
            size = min(smooth, len(points))
            step, value = (np.convolve(each, np.ones(size) / size, "valid") for each in np.array(points, float).T)
            setting = run.partition("-")[0]
            axis.plot(step, value, color=colours.get(setting, "grey"), linewidth=1, alpha=0.8)
    for axis, name in zip(axes.flat, names, strict=True):
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    handles = [pyplot.Line2D([], [], color=colour, label=setting) for setting, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(colours), fontsize=8)
    figure.savefig(out, dpi=80)
    pyplot.close(figure)


def write_results(directory: Path) -> dict[str, Any]:
    """Write the report, the tables and the curves of all finished runs, and give the report."""
    report = report_of(collect(directory))
    (directory / "evaluation.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (directory / "results.md").write_text(table(report), encoding="utf-8")
    logs = {path.parent.name: path for path in sorted(directory.glob("*/log.csv"))}
    if logs:
        draw_curves(logs, directory / "curves.png")
    return report


def main() -> None:
    """Read the command line, and do the study."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration of every run")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rewards", nargs="+", choices=list(REWARDS), default=list(REWARDS))
    parser.add_argument("--start", help="checkpoint to start from and task model (default: the file's)")
    parser.add_argument("--max-steps", type=int, help="updates of each run (default: the file's)")
    parser.add_argument("--minutes", type=float, help="of each run at most (default: the file's)")
    parser.add_argument("--learning-rate", type=float, help="(default: the file's)")
    parser.add_argument("--answers", type=int, help="in one update (default: the file's)")
    parser.add_argument("--scenes", type=int, default=500, help="held-out scenes (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1024, help="views that a model answers at once in the evaluation")
    parser.add_argument("--at-once", type=int, default=9, help="runs at a time, on all GPUs together")
    parser.add_argument("--only-results", action="store_true", help="of finished runs: no training")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.only_results:
        study(args)
    print(table(write_results(args.out)))


def study(args: argparse.Namespace) -> None:
    """Train and evaluate all that is not done yet. A run that fails leaves its `log.txt`, and the others go on."""
    torch = require_package("torch", "to train", "activeo3_ros[train]")
    gpus = torch.cuda.device_count()
    base = yaml.safe_load(args.config.read_text(encoding="utf-8"))
    start = args.start or load_config(args.config).model
    changes: dict[str, Any] = {"model": start, "grpo": {}}
    if base.get("task") is not None:
        changes["task"] = {**base["task"], "engine": {**base["task"]["engine"], "model": start}}
    if args.max_steps:
        changes["grpo"]["max_steps"] = args.max_steps
    if args.minutes:
        changes["max_minutes"] = args.minutes
    if args.learning_rate:
        changes["grpo"]["learning_rate"] = args.learning_rate
    if args.answers:
        changes["grpo"]["per_device_train_batch_size"] = args.answers
    runs = [
        Run(reward, seed, args.out / f"{reward}-seed{seed}", device=-1)
        for seed in args.seeds
        for reward in args.rewards
    ]
    runs = [Run(each.reward, each.seed, each.directory, i % gpus if gpus else -1) for i, each in enumerate(runs)]
    with ThreadPoolExecutor(max(1, args.at_once) + 1) as pool:
        waiting = {"baselines": pool.submit(baselines, args.out, start, args.scenes, args.batch, gpus - 1)}
        for run in runs:
            run.directory.mkdir(parents=True, exist_ok=True)
            config = run.directory / "config.yaml"
            config.write_text(yaml.safe_dump(configuration(base, run, changes), sort_keys=False), encoding="utf-8")
            waiting[run.name] = pool.submit(do, run, config, start, args.scenes, args.batch)
        for name, future in waiting.items():
            error = future.exception()
            print(f"{name}: {'done' if error is None else error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
