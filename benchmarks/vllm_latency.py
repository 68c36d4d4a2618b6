"""The rows of `gpu_latency.py` that need vLLM; it starts this script, once for each way to start vLLM.

    python benchmarks/vllm_latency.py {ours,ours_fp8,peer} CHECKPOINT --rows ROWS.json --out OUT.json

`peer` is vLLM as somebody would use it who reads its documentation: `LLM.generate` with pictures, its own processor.
`ours` is the engine `vllm` of this project. CHECKPOINT is what `gpu_latency.py` saved, ROWS.json what it measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

import numpy as np
import torch
from gpu_latency import DEMO_TOKENS, LONG_TOKENS, TEXT, Bench

from activeo3_ros.engines.base import Prompt, Request
from activeo3_ros.engines.pixels import PixelFormat, patches
from activeo3_ros.engines.qwen import conversation
from activeo3_ros.engines.vllm_engine import VllmEngine

MEMORY_GB = 23.0
"""What vLLM may take: a card with 24 GB should do."""


def memory_share() -> float:
    """The same as a share of this device."""
    return MEMORY_GB * 1e9 / torch.cuda.mem_get_info()[1]


def used_gb() -> float:
    """What all processes hold of the device."""
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 1e9


def ours(bench: Bench, part: str, checkpoint: str, measured: dict[str, Any]) -> None:
    """All rows of the engine `vllm`."""
    before, start = measured.get("device_used_before_vllm_gb", 0.0), time.perf_counter()
    engine = VllmEngine(
        checkpoint,
        memory_share=memory_share(),
        quantization="fp8" if part == "ours_fp8" else "",
    )
    name = part.replace("ours", "vllm")
    bench.say(f"start_{name}_s", round(time.perf_counter() - start, 1))
    steps = [
        lambda: agreement(bench, engine, name, measured),
        lambda: bench.decode(engine, name, (1, 3, 6)),
        lambda: bench.frame(engine, name, 1),
        lambda: bench.frame(engine, f"{name}_three_regions", 1, LONG_TOKENS),
        lambda: bench.say(f"peak_memory_{name}_1_camera_gb", round(used_gb() - before, 2)),
        lambda: bench.demo_on_engine(engine, f"on_the_engine_{name}"),
        lambda: prefill(bench, engine, name, measured),
        lambda: tower(bench, engine, name),
        lambda: bench.frame(engine, name, 6),
        lambda: bench.frame(engine, f"{name}_three_regions", 6, LONG_TOKENS),
        lambda: bench.say(f"peak_memory_{name}_6_cameras_gb", round(used_gb() - before, 2)),
    ]
    for number, step in enumerate(steps):
        try:
            step()
        except Exception as error:  # the other rows are worth having
            bench.say(f"failed_{name}_{number}", f"{type(error).__name__}: {error}"[:600])


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
    """The vision tower of vLLM alone, step by step and as a CUDA graph."""

    def measure(wrapper: Any) -> dict[str, Any]:
        runner = getattr(wrapper, "worker", wrapper).model_runner
        visual, graphs = runner.get_model().visual, runner.encoder_cudagraph_manager
        rows: dict[str, Any] = {}
        for key, sizes in (("1024", [(896, 896)]), ("2405", [(1820, 1036)]), ("3x900", [(840, 840)] * 3)):
            pixels, grids = patches([bench.picture(*size) for size in sizes], PixelFormat(), torch.device("cuda"))
            pixels, grid = pixels.to(torch.bfloat16), grids.cpu()
            floor = 2 * 630e6 * len(pixels) / bench.tflops / 1e9
            values = {"pixel_values": pixels, "image_grid_thw": grid}
            with torch.inference_mode():
                rows[key] = {
                    "step_by_step": bench.time(lambda: visual(pixels, grid_thw=grid.tolist()), 8, 3),  # noqa: B023
                    "graph": bench.time(lambda: graphs.execute(values), 8, 3) if graphs else None,  # noqa: B023
                    "linear_floor": round(floor, 2),
                }
        return rows

    for key, row in engine._llm.collective_rpc(measure)[0].items():
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
    parser.add_argument("part", choices=["ours", "ours_fp8", "peer"])
    parser.add_argument("checkpoint")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    measured = json.loads(args.rows.read_text(encoding="utf-8"))
    bench = Bench(False, args.checkpoint, args.out, False)
    bench.floor_token, bench.tflops = measured["floor_decoded_token_ms"], measured["matmul_tflops"]
    if args.part == "peer":
        peer(bench, args.checkpoint)
    else:
        ours(bench, args.part, args.checkpoint, measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
