"""The rows of `gpu_latency.py` that need vLLM; it starts this script, once for each way to start vLLM.

    python benchmarks/vllm_latency.py WAY CHECKPOINT --rows ROWS.json --out OUT.json

WAY `peer` is vLLM as its documentation has it: `LLM.generate` with pictures, its own
processor. `ours` is the engine `vllm` of this project, `ours_fp8` with 8-bit weights, `undrafted` with `drafts: 0`.
CHECKPOINT is what `gpu_latency.py` saved, ROWS.json what it measured.

Random weights write nothing that follows a grammar, so every draft would be refused. In the rows of `ours` that say
"scripted" the model computes all that it would, and its tokens are then replaced, one by one, by well-formed answers of
three regions and of two objects; drafts are accepted as far as they agree with these.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
if importlib.util.find_spec("flashinfer") is None:
    os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")

import numpy as np
import torch
from gpu_latency import CLASSES, DEMO_TOKENS, LONG_TOKENS, TEXT, Bench

from activeo3_ros.core import ActivePerception, Budget, Frame
from activeo3_ros.policies.mllm import MllmSensing
from activeo3_ros.vlm.backends.preprocessing import PixelFormat, patches
from activeo3_ros.vlm.backends.vllm_engine import VllmEngine, _turn
from activeo3_ros.vlm.engine import Prompt, Request
from activeo3_ros.vlm.families import conversation
from activeo3_ros.vlm.task import MllmTask

MEMORY_GB = 21.0
"""What vLLM may take for itself; what PyTorch keeps beside it and the context of CUDA come on top. A card with 24 GB
should do."""
REGIONS = [
    ((212, 401, 603, 702), "traffic light"), ((1012, 345, 1302, 601), "far cars"), ((1404, 388, 1788, 655), "far cars"),
]  # fmt: skip
OBJECTS = [((112, 345, 202, 501), "car"), ((412, 400, 622, 608), "car")]


def memory_share() -> float:
    """The same as a share of this device; on a CPU, where the script is only tried, whatever starts."""
    return MEMORY_GB * 1e9 / torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else 0.2


def used_gb() -> float:
    """What all processes hold of the device; nothing on a CPU."""
    free, total = torch.cuda.mem_get_info() if torch.cuda.is_available() else (0, 0)
    return (total - free) / 1e9


def as_json(boxes: Any) -> str:
    """Boxes in the words of the prompts."""
    entries = [f'{{"bbox_2d": {list(corners)}, "label": "{label}"}}' for corners, label in boxes]
    return f"[{', '.join(entries)}]"


class Script:
    """Lets a running engine write given answers: what it samples is replaced, and drafts are accepted accordingly."""

    def __init__(self, engine: Any, regions: Any = REGIONS) -> None:
        """engine: any that holds vLLM's `LLM` in `_llm` and its tokenizer in `_tokenizer`. regions: what it chooses."""
        self.on, self.steps = False, 0
        self.runner: Any = engine._llm.collective_rpc(lambda worker: getattr(worker, "worker", worker).model_runner)[0]
        tokenizer = engine._tokenizer
        self.task_prefix = tokenizer("```json\n[", add_special_tokens=False).input_ids[-2:]
        # What follows the forced beginning, which has opened the list.
        self.answers = {
            kind: tokenizer(as_json(boxes)[1:], add_special_tokens=False).input_ids
            for kind, boxes in (("sensing", regions), ("task", OBJECTS))
        }
        self.end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        self.drafts: dict[str, list[int]] = {}
        self._sample, self.runner._sample = self.runner._sample, self.sample
        self.drafter = getattr(self.runner, "drafter", None)
        if self.drafter is not None:
            self._propose, self.drafter.propose = self.drafter.propose, self.propose

    def undo(self) -> None:
        """Let the engine write what it samples again."""
        self.runner._sample = self._sample
        if self.drafter is not None:
            self.drafter.propose = self._propose

    def propose(self, *args: Any, **named: Any) -> list[list[int]]:
        drafted: list[list[int]] = self._propose(*args, **named)
        self.drafts = dict(zip(self.runner.input_batch.req_ids, drafted, strict=False))
        return drafted

    def sample(self, logits: Any, metadata: Any) -> Any:
        output = self._sample(logits, metadata)
        self.steps += 1
        if not self.on:
            return output
        tokens = torch.full(output.sampled_token_ids.shape, -1, dtype=output.sampled_token_ids.dtype)
        for row, name in enumerate(self.runner.input_batch.req_ids):
            request = self.runner.requests[name]
            kind = "task" if request.prompt_token_ids[-2:] == self.task_prefix else "sensing"
            rest = [*self.answers[kind], self.end][len(request.output_token_ids) :] or [self.end]
            count = metadata.num_draft_tokens[row] if metadata is not None else 0
            drafted = self.drafts.get(name, [])[:count]
            agreed = 0
            while agreed < min(len(drafted), len(rest) - 1) and drafted[agreed] == rest[agreed]:
                agreed += 1
            tokens[row, : agreed + 1] = torch.tensor(rest[: agreed + 1])
        output.sampled_token_ids.copy_(tokens, non_blocking=True)
        return output


def scripted(bench: Bench, engine: VllmEngine, script: Script, name: str, cameras: int) -> None:
    """Frames through the project's own loop, `ActivePerception`, whose models write the script.

    Each camera has a thread, as in the node, and its next frame ready when one is done. Counted are the frames from
    when all cameras have had two until there are ten for each on average.
    """
    budget = Budget(max_regions=3, view_pixels=2_097_152, crop_pixels=840 * 840, max_tokens=256)
    frames = [Frame(bench.generator.integers(0, 255, (1080, 1920, 3), dtype=np.uint8)) for _ in range(4)]
    taken: list[tuple[float, float, Any]] = []
    warm, stop = threading.Barrier(cameras), threading.Event()
    wanted = 1 if bench.quick else 10

    def camera(number: int) -> None:
        perception = ActivePerception(MllmSensing(engine), MllmTask(engine), budget, examine_view=False)
        for index in range(1000):
            if index == 2:
                warm.wait(120)
            start = time.perf_counter()
            result = perception.perceive(frames[(number + index) % 4], CLASSES)
            if stop.is_set():
                break
            if index >= 2:
                taken.append((start, time.perf_counter(), result))
            if len(taken) >= cameras * wanted:
                stop.set()

    script.on = True
    with ThreadPoolExecutor(cameras) as pool:
        list(pool.map(camera, range(cameras)))
    script.on = False
    latencies = [(end - start) * 1e3 for start, end, _ in taken]
    stages: dict[str, list[float]] = {}
    for _, _, result in taken:
        for stage, milliseconds in result.timings_ms.items():
            stages.setdefault(stage, []).append(milliseconds)
    row = {stage: round(float(np.median(values)), 1) for stage, values in stages.items()}
    found = taken[-1][2]
    counts = {"regions": len(found.regions), "detections": len(found.detections), "tokens": found.cost.tokens}
    took = {f"p{rank}": round(float(np.percentile(latencies, rank)), 1) for rank in (50, 95)}
    rate = len(taken) / (max(end for _, end, _ in taken) - min(start for start, _, _ in taken))
    more = {"frames": len(taken), "frames_per_s": round(rate, 2), "stages": row}
    bench.say(f"loop_scripted_{name}_{cameras}_cameras_ms", {**took, **more, **counts})


def ours(bench: Bench, part: str, checkpoint: str, measured: dict[str, Any]) -> None:
    """All rows of the engine `vllm`."""
    before, start = measured.get("device_used_before_vllm_gb", 0.0), time.perf_counter()
    engine = VllmEngine(
        checkpoint,
        memory_share=memory_share(),
        quantization="fp8" if part == "ours_fp8" else "",
        **({"drafts": 0} if part == "undrafted" else {}),
    )
    name = part.replace("ours", "vllm")
    bench.say(f"start_{name}_s", round(time.perf_counter() - start, 1))
    steps: list[Callable[[], None]] = [lambda: agreement(bench, engine, name, measured)]
    if part != "ours_fp8":
        steps += [lambda: bench.decode(engine, name, (1, 3, 6))]
    if part == "ours":
        steps += [lambda: tower(bench, engine, name), lambda: prefill(bench, engine, name, measured)]
    if part == "undrafted":
        steps += [
            lambda: bench.demo_on_engine(engine, f"on_the_engine_{name}"),
            lambda: bench.frame(engine, name, 1, LONG_TOKENS),
            lambda: bench.frame(engine, name, 6, LONG_TOKENS),
        ]
    else:
        script = Script(engine)
        tokens = [len(script.answers[kind]) for kind in ("sensing", "task")]
        bench.say(f"tokens_of_the_script_{name}", tokens)

        def frame(cameras: int) -> None:
            script.on, script.steps = True, 0
            bench.frame(engine, f"scripted_{name}", cameras, (256, 256), endless=False)
            script.on = False
            count = 2 + bench.rows[f"frame_as_shipped_scripted_{name}_{cameras}_cameras_ms"]["samples"]
            bench.say(f"steps_of_a_frame_{name}_{cameras}_cameras", round(script.steps / count, 1))

        steps += [
            lambda: frame(1),
            lambda: bench.say(f"peak_memory_{name}_1_camera_gb", round(used_gb() - before, 2)),
            lambda: scripted(bench, engine, script, name, 1),
            lambda: frame(6),
            lambda: scripted(bench, engine, script, name, 6),
            lambda: ratios(bench, name),
            lambda: bench.say(f"peak_memory_{name}_6_cameras_gb", round(used_gb() - before, 2)),
        ]
    for number, step in enumerate(steps):
        try:
            step()
        except Exception as error:  # the other rows are worth having
            bench.say(f"failed_{name}_{number}", f"{type(error).__name__}: {error}"[:600])


def ratios(bench: Bench, name: str) -> None:
    """What six cameras cost of the latency of one: all at the same moment in two calls, and each in its own thread."""
    calls, loops = (
        [bench.rows[f"{way}_scripted_{name}_{cameras}_cameras_ms"] for cameras in (1, 6)]
        for way in ("frame_as_shipped", "loop")
    )
    in_two_calls = calls[1]["frame"]["p50"] / calls[0]["frame"]["p50"]
    bench.say(
        f"six_cameras_over_one_{name}",
        {
            "in_two_calls": round(in_two_calls, 2),
            "in_threads": round(loops[1]["p50"] / loops[0]["p50"], 2),
            "in_threads_p95": round(loops[1]["p95"] / loops[0]["p50"], 2),
        },
    )


def agreement(bench: Bench, engine: VllmEngine, name: str, measured: dict[str, Any]) -> None:
    """The first token's probabilities: vLLM against the plain path of transformers, on the likeliest tokens."""
    reference = measured["first_token_reference"]
    picture = np.load(bench.out.with_name("agreement_picture.npy"))
    request = Request(picture, Prompt(TEXT), 1)
    plain = engine._sampling
    params = plain(request)
    params.logprobs = 20
    engine._sampling = lambda _: params  # type: ignore[method-assign]
    entries = engine._answer([request])[0][0].outputs[0].logprobs[0]
    engine._sampling = plain  # type: ignore[method-assign]
    known = dict(zip(reference["ids"], reference["logprobs"], strict=True))
    differences = [abs(entries[token].logprob - known[token]) for token in known if token in entries]
    best = max(entries, key=lambda token: entries[token].logprob)
    bench.say(
        f"agreement_{name}_first_token_logprobs",
        {
            "compared": len(differences),
            "largest_difference": round(max(differences, default=float("nan")), 4),
            "mean_difference": round(float(np.mean(differences)) if differences else float("nan"), 4),
            "same_token": best == reference["ids"][0],
            "plain_first_minus_second": round(reference["logprobs"][0] - reference["logprobs"][1], 4),
        },
    )


def prefill(bench: Bench, engine: VllmEngine, name: str, measured: dict[str, Any]) -> None:
    """One new token: preparing views, vision tower and prefill; beside the floor of their linear layers."""
    for key, sizes in (("256", [(448, 448)]), ("1024", [(896, 896)]), ("2405", [(1820, 1036)]),
                       ("3x900", [(840, 840)] * 3), ("6x2405", [(1820, 1036)] * 6)):  # fmt: skip
        requests = [Request(bench.picture(*size), Prompt(TEXT), 1) for size in sizes]
        took = bench.time(lambda: engine.generate(requests), 6, warm=2)  # noqa: B023
        tokens = sum(width * height // 28**2 + 215 for width, height in sizes)
        language = 2 * 6.53e9 * tokens / measured["matmul_tflops"] / 1e9
        vision = 2 * 630e6 * sum(w * h // 14**2 for w, h in sizes) / measured["matmul_tflops"] / 1e9
        floor = {"language_floor": round(language, 1), "vision_floor": round(vision, 1)}
        bench.say(f"view_to_first_token_{name}_{key}_tokens_ms", {**took, **floor})


def tower(bench: Bench, engine: VllmEngine, name: str) -> None:
    """The vision tower of vLLM alone."""

    def measure(wrapper: Any) -> dict[str, Any]:
        visual = getattr(wrapper, "worker", wrapper).model_runner.get_model().visual
        rows: dict[str, Any] = {}
        for key, sizes in (
            ("900", [(840, 840)]), ("1024", [(896, 896)]), ("2405", [(1820, 1036)]), ("3x900", [(840, 840)] * 3),
            ("3x2405", [(1820, 1036)] * 3),
        ):  # fmt: skip
            pixels, grids = patches([bench.picture(*size) for size in sizes], PixelFormat(), bench.device)
            pixels, grid = pixels.to(bench.dtype), grids.cpu().tolist()
            floor = 2 * 630e6 * len(pixels) / bench.tflops / 1e9
            with torch.inference_mode():
                took = bench.time(lambda: visual(pixels, grid_thw=grid), 8, 3)  # noqa: B023
            rows[key] = {**took, "linear_floor": round(floor, 2), "of_floor": round(took["p50"] / floor, 2)}
        return rows

    with _turn(engine.device):  # on the engine's own stream, whose memory it can use again
        rows = engine._llm.collective_rpc(measure)[0]
    for key, row in rows.items():
        bench.say(f"vision_{name}_{key}_tokens_ms", row)


def peer(bench: Bench, checkpoint: str) -> None:
    """The released demo's shape on vLLM as its documentation has it."""
    from PIL import Image
    from vllm import LLM, SamplingParams

    start = time.perf_counter()
    llm = LLM(
        model=checkpoint, max_model_len=8192, max_num_seqs=32, limit_mm_per_prompt={"image": 1, "video": 0},
        gpu_memory_utilization=memory_share() * 1.2, mm_processor_cache_gb=0,
    )  # fmt: skip
    bench.say("start_peer_s", round(time.perf_counter() - start, 1))

    def answer(sizes: list[tuple[int, int]], limit: int) -> float:
        prompts = [
            {
                "prompt": conversation("You are a helpful assistant.", "", TEXT, ""),
                "multi_modal_data": {"image": Image.fromarray(bench.picture(*size))},
            }
            for size in sizes
        ]
        params = SamplingParams(temperature=0, max_tokens=limit, min_tokens=limit, ignore_eos=True, detokenize=True)
        begun = time.perf_counter()
        llm.generate(prompts, params, use_tqdm=False)
        return (time.perf_counter() - begun) * 1e3

    def median(sizes: list[tuple[int, int]], limit: int, count: int = 4) -> float:
        answer(sizes, limit)
        return round(float(np.median([answer(sizes, limit) for _ in range(count)])), 1)

    whole, crops = [(2240, 1512)], [(840, 840)] * 3
    sense, act = median(whole, DEMO_TOKENS[0]), median(crops, DEMO_TOKENS[1])
    bench.say("demo_shape_on_vllm_ms", {"sense": sense, "act": act, "frame": round(sense + act, 1)})
    for batch in (1, 3, 6):
        sizes = [(448, 448)] * batch
        token = (median(sizes, 136, 3) - median(sizes, 8, 3)) / 128
        bench.say(
            f"decoded_token_peer_batch_{batch}",
            {"ms": round(token, 2), "of_floor": round(token / bench.floor_token, 2)},
        )
    for key, sizes in (("2405", [(1820, 1036)]), ("3x900", crops), ("6x2405", [(1820, 1036)] * 6)):
        bench.say(f"view_to_first_token_peer_{key}_tokens_ms", median(sizes, 1))


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["ours", "ours_fp8", "undrafted", "peer"])
    parser.add_argument("checkpoint")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="on a CPU: tries the script, measures nothing")
    args = parser.parse_args()
    measured = json.loads(args.rows.read_text(encoding="utf-8"))
    bench = Bench(args.tiny, args.checkpoint, args.out, quick=args.tiny)
    bench.floor_token, bench.tflops = measured["floor_decoded_token_ms"], measured["matmul_tflops"]
    if args.part == "peer":
        peer(bench, args.checkpoint)
    else:
        ours(bench, args.part, args.checkpoint, measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
