"""Trains heads of gain maps for the tables of docs/results/gain_maps.md: three seeds, and each part left out in turn.

    python benchmarks/gain_maps_study.py --work DIR [--jobs N] [--heads both-seed0,boxes-seed0,…] -- SOURCES

SOURCES are the options of `activeo3 train proposals` that name the material, such as `--annotations data.yaml images
--part 0:0.75`. Each head is trained by that command in a process of its own, N at once, into DIR/VARIANT-seedSEED; one
that is there already is left as it is, and one that was stopped goes on. `benchmarks/gain_maps.py DIR/*/head.onnx`
then compares them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

VARIANTS = {
    "both": (),
    "boxes": ("--inputs", "boxes"),
    "view": ("--inputs", "view"),
    "unlabelled": ("--ignore-labels",),
    "half": ("--max-pictures", "48"),
    "quarter": ("--max-pictures", "24"),
    "stage2": ("--stage2", "300"),
}
"""What each leaves out or adds; all pictures are 96 of each source, as far as there are so many."""
ALL_PICTURES = ("--max-pictures", "96")
HEADS = [
    *(f"{name}-seed{seed}" for seed in range(3) for name in ("both", "stage2")),
    *(f"{name}-seed0" for name in ("boxes", "view", "unlabelled", "half", "quarter")),
]


def main() -> int:
    """Train what is missing; 1 if a training failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--heads", default=",".join(HEADS), help="VARIANT-seedN, … (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("sources", nargs="+", help="options of activeo3 train proposals, after --")
    args = parser.parse_args()
    with ThreadPoolExecutor(args.jobs) as pool:
        codes = list(pool.map(lambda name: train(name, args), args.heads.split(",")))
    return int(any(codes))


def train(name: str, args: argparse.Namespace) -> int:
    """Train one head, unless it is there; its output goes into a file beside it."""
    variant, _, seed = name.partition("-seed")
    out = args.work / name
    if (out / "report.html").is_file():
        print(f"{out.name}: is there", flush=True)
        return 0
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "activeo3_ros.cli", "train", "proposals", *args.sources, *ALL_PICTURES]
    command += [*VARIANTS[variant], "--seed", seed, "--steps", str(args.steps), "--out", str(out), "--force"]
    command += ["--jobs", "2"]  # one thread waits for the other
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with (out / "log.txt").open("w") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=one_thread, check=False).returncode
    print(f"{out.name}: exit code {code}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
