"""How many 1080p frames a second one GPU perceives with a detector of transformers, for 1, 3 and 6 cameras, K = 3.

    python benchmarks/detector_rate.py [--models rt_detr_r18,dfine_s] [--seconds 8] [--out FILE.json] [--tiny]

Weights are random, at the real size: times mean something, boxes do not. On the CPU their boxes are replaced by as many
as a street gives, so that the policy and the merging have as much to do. Rows, all of one run: the floors of the
device, upload and arithmetic, at the rates measured here; the model alone by batch size; frames a second as fast as it
goes; latency of cameras that send 30 frames a second; the share of each stage; and the naive way, each view through the
library's own processor and post-processing, one after the other. `--tiny` tries the script itself on a CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

try:
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing.name} is not installed; this benchmark needs the extra `gpu`", file=sys.stderr)
    sys.exit(0)

from activeo3_ros.cli.serve import SWITCH_S
from activeo3_ros.core import ActivePerception, Budget, Frame, Query, Status
from activeo3_ros.core.interfaces import Detector
from activeo3_ros.detectors import device_views
from activeo3_ros.detectors.centernet import COCO_CLASSES
from activeo3_ros.detectors.detector_task import DetectorTask
from activeo3_ros.detectors.served_detector import ServedDetector
from activeo3_ros.detectors.serving import DetectorServer
from activeo3_ros.detectors.transformers_detector import TransformersDetector
from activeo3_ros.policies.detector_proposals import DetectorProposals

ROAD = Query(classes=("person", "bicycle", "car", "motorcycle", "bus", "truck", "traffic light", "stop sign"))
SIZE = (1920, 1080)
HZ = 30.0
HINTS, BOXES = 60, 12
"""Boxes of a view above 0.03, which the policy takes for hints, and of these above 0.3, which are reported."""
PICTURES = 4
"""Different frames of a camera, sent in turn."""


def dfine(blocks: list[int], stem: list[int], mid: list[int], out: list[int], layers: int, **settings: Any) -> Any:
    """A D-FINE with an HGNetV2 backbone, sizes as its authors published them (arXiv 2410.13842)."""
    backbone = transformers.HGNetV2Config(
        stem_channels=stem,
        stage_in_channels=[stem[-1], *out[:-1]],
        stage_mid_channels=mid,
        stage_out_channels=out,
        stage_num_blocks=blocks,
        stage_numb_of_layers=[layers] * 4,
        hidden_sizes=out,
        out_features=["stage2", "stage3", "stage4"],
        return_idx=[1, 2, 3],
    )
    return transformers.DFineConfig(backbone_config=backbone, encoder_in_channels=out[1:], num_labels=80, **settings)


def rt_detr(depths: list[int], sizes: list[int], kind: str, **settings: Any) -> Any:
    """An RT-DETR with a ResNet backbone (arXiv 2304.08069)."""
    backbone = transformers.RTDetrResNetConfig(
        depths=depths, hidden_sizes=sizes, layer_type=kind, out_features=["stage2", "stage3", "stage4"]
    )
    return transformers.RTDetrConfig(backbone_config=backbone, encoder_in_channels=sizes[1:], num_labels=80, **settings)


MODELS: dict[str, Callable[[], Any]] = {
    "rt_detr_r18": lambda: rt_detr(
        [2, 2, 2, 2], [64, 128, 256, 512], "basic", decoder_layers=3, hidden_expansion=0.5
    ),
    "rt_detr_r50": lambda: rt_detr([3, 4, 6, 3], [256, 512, 1024, 2048], "bottleneck"),
    "dfine_s": lambda: dfine(
        [1, 1, 2, 1], [3, 16, 16], [16, 32, 64, 128], [64, 256, 512, 1024], 3,
        decoder_layers=3, hidden_expansion=0.5, depth_mult=0.34, decoder_n_points=[3, 6, 3],
    ),
    "dfine_l": lambda: dfine([1, 1, 3, 1], [3, 32, 48], [48, 96, 192, 384], [128, 512, 1024, 2048], 6),
    "tiny": lambda: rt_detr(
        [2, 2, 2, 2], [64, 128, 256, 512], "basic", decoder_layers=2, d_model=32, encoder_hidden_dim=32,
        num_queries=100, encoder_ffn_dim=32, decoder_ffn_dim=32, decoder_in_channels=[32, 32, 32],
    ),
}  # fmt: skip


def build(name: str, directory: Path, device: str, precision: str, fuse: bool = False) -> TransformersDetector:
    """A model of random weights as a detector."""
    torch.manual_seed(0)
    config = MODELS[name]()
    config.id2label = dict(enumerate(COCO_CLASSES))
    config.label2id = {label: index for index, label in config.id2label.items()}
    kind = transformers.DFineForObjectDetection if "dfine" in name else transformers.RTDetrForObjectDetection
    kind(config).save_pretrained(directory)
    transformers.RTDetrImageProcessor().save_pretrained(directory)
    return TransformersDetector(str(directory), precision=precision, device=device, fuse=fuse)  # type: ignore[arg-type]


def give_street(detector: TransformersDetector) -> None:
    """Put as many boxes as a street has in the place of what random weights see, when they are back on the CPU.

    Random weights give ties: all boxes, or none.
    """
    generator = np.random.default_rng(0)
    count = detector.model.config.num_queries
    scores = np.full(count, 0.01, np.float32)
    scores[:HINTS] = np.sort(generator.uniform(0.03, 0.3, HINTS))[::-1]
    scores[:BOXES] = np.sort(generator.uniform(0.3, 0.9, BOXES))[::-1]
    read = detector.boxes
    ids = [COCO_CLASSES.index(name) for name in ROAD.classes]

    def boxes(rows: Any, size: tuple[float, float], threshold: float) -> Any:
        street = np.array(rows, np.float32)
        street[:, :2] = generator.uniform(0.1, 0.9, (count, 2))
        street[:, 2:4] = np.exp(generator.uniform(np.log(0.01), np.log(0.2), (count, 2)))
        street[:, 4], street[:, 5] = scores, generator.choice(ids, count)
        return read(street, size, threshold)

    detector.boxes = boxes  # type: ignore[method-assign]


def loop_around(detector: Detector) -> ActivePerception:
    """The loop of the measurement: detector proposals, three regions."""
    task = DetectorTask(detector, label="detector_rate")
    pixels = 2 * detector.input_size.width * detector.input_size.height
    return ActivePerception(DetectorProposals(task=task), task, Budget(3, view_pixels=pixels, crop_pixels=pixels))


def pictures(camera: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Frames with structure at every scale."""
    generator = np.random.default_rng(camera)
    made = []
    for _ in range(PICTURES):
        layers = [
            cv2.resize(generator.integers(0, 256, (size[1] // k + 1, size[0] // k + 1, 3), np.uint8), size)
            for k in (3, 24, 120)
        ]
        made.append(np.mean(layers, axis=0).astype(np.uint8))
    return made


class Camera(threading.Thread):
    """Perceives its frames, as fast as it goes or `hz` times a second; a frame that comes while it is busy is lost."""

    def __init__(self, loop: ActivePerception, frames: list[np.ndarray], seconds: float, hz: float, offset: float):
        super().__init__()
        self.loop, self.frames, self.seconds, self.hz, self.offset = loop, frames, seconds, hz, offset
        self.latencies_ms: list[float] = []
        self.sent, self.regions = 0, 0

    def run(self) -> None:
        """Until the time is over."""
        start = time.perf_counter() + self.offset
        while True:
            now = time.perf_counter()
            if now - start > self.seconds:
                return
            arrived = now
            if self.hz:
                due = max(self.sent, int(max(0.0, now - start) * self.hz))
                arrived = start + due / self.hz
                self.sent = due + 1
                if arrived > now:
                    time.sleep(arrived - now)
            else:
                self.sent += 1
            result = self.loop.perceive(Frame(self.frames[self.sent % len(self.frames)]), ROAD)
            if result.status != Status.COMPLETE:
                raise RuntimeError(result.status_message)
            self.regions += len(result.regions)
            self.latencies_ms.append((time.perf_counter() - arrived) * 1e3)


def run_cameras(loop: ActivePerception, count: int, seconds: float, hz: float, size: tuple[int, int]) -> dict[str, Any]:
    """Frames a second and latency of so many cameras, each a thread of this process."""
    frames = [pictures(camera, size) for camera in range(count)]
    cameras = [
        Camera(loop.for_another_thread(), frames[index], seconds, hz, index / max(hz, 1) / count)
        for index in range(count)
    ]
    start = time.perf_counter()
    for camera in cameras:
        camera.start()
    for camera in cameras:
        camera.join()
    return rates([(each.latencies_ms, each.sent, each.regions) for each in cameras], time.perf_counter() - start, hz)


@contextlib.contextmanager
def served(count: int, name: str, device: str, precision: str, fuse: bool) -> Iterator[list[str]]:
    """The sockets of detectors that are served, each in a process of its own."""
    spawning = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        ends, ready = spawning.Event(), spawning.Barrier(count + 1)
        sockets = [str(Path(directory) / f"socket{number}") for number in range(count)]
        processes = [
            spawning.Process(target=serve, args=(name, each, device, precision, fuse, ready, ends)) for each in sockets
        ]
        for process in processes:
            process.start()
        ready.wait(300)
        try:
            yield sockets
        finally:
            ends.set()
            for process in processes:
                process.join(10)


def serve(name: str, at: str, device: str, precision: str, fuse: bool, ready: Any, ends: Any) -> None:
    """One server of `served`."""
    model = Path(at + ".model")
    detector = build(name, model, device, precision, fuse)
    give_street(detector)
    sys.setswitchinterval(SWITCH_S)  # as `activeo3 serve` does
    server = DetectorServer(detector, name, name, Path(at))
    threading.Thread(target=server.serve, daemon=True).start()
    ready.wait(300)
    ends.wait()
    server.close()


def run_processes(served_at: list[str], count: int, seconds: float, hz: float, size: tuple[int, int]) -> dict[str, Any]:
    """The same, each camera in a process of its own that asks the detector served at a socket."""
    spawning = multiprocessing.get_context("spawn")
    ready, done = spawning.Barrier(count + 1), spawning.Queue()
    processes = [
        spawning.Process(
            target=one_process, args=(served_at[index % len(served_at)], index, count, seconds, hz, size, ready, done)
        )
        for index in range(count)
    ]
    for process in processes:
        process.start()
    ready.wait(120)
    start = time.perf_counter()
    found = [done.get(timeout=seconds + 60) for _ in processes]
    wall = time.perf_counter() - start
    for process in processes:
        process.join(10)
    return rates(found, wall, hz)


def one_process(
    served_at: str,
    index: int,
    count: int,
    seconds: float,
    hz: float,
    size: tuple[int, int],
    ready: Any,
    done: Any,
) -> None:
    """One camera of `run_processes`."""
    loop = loop_around(ServedDetector(served_at))
    frames = pictures(index, size)
    for frame in frames:
        loop.perceive(Frame(frame), ROAD)
    ready.wait(120)
    camera = Camera(loop, frames, seconds, hz, index / max(hz, 1) / count)
    camera.run()
    done.put((camera.latencies_ms, camera.sent, camera.regions))


def rates(cameras: list[tuple[list[float], int, int]], wall: float, hz: float) -> dict[str, Any]:
    """What cameras did, each the latencies of its frames in milliseconds, frames sent, and regions."""
    latencies = np.concatenate([each[0] for each in cameras])
    done, sent = len(latencies), sum(each[1] for each in cameras)
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99]).round(2).tolist()
    return {
        "cameras": len(cameras),
        "hz_each": hz or "as fast as it goes",
        "seconds": round(wall, 2),
        "frames_per_s": round(done / wall, 1),
        "regions_per_frame": round(sum(each[2] for each in cameras) / done, 2),
        "missed_share": round(1 - done / sent, 4),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
    }


@contextlib.contextmanager
def timed_stages() -> Iterator[dict[str, float]]:
    """Seconds by stage that the device works in the block, by events in its queue, which hold nothing up."""
    steps = {
        "cut and resize": (device_views.DeviceViews, "batch"),
        "model": (device_views.BatchGraphs, "__call__"),
        "all of a batch": (device_views.InputBatches, "generate"),
    }
    pairs: dict[str, list[tuple[Any, Any]]] = {name: [] for name in steps}
    originals = {name: getattr(*where) for name, where in steps.items()}

    def timed(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            result = originals[name](*arguments)
            end.record()
            pairs[name].append((start, end))
            return result

        return call

    for name, (owner, attribute) in steps.items():
        setattr(owner, attribute, timed(name))
    spent: dict[str, float] = {}
    try:
        yield spent
    finally:
        for name, (owner, attribute) in steps.items():
            setattr(owner, attribute, originals[name])
        torch.cuda.synchronize()
        spent.update({name: sum(a.elapsed_time(b) for a, b in each) / 1e3 for name, each in pairs.items()})


def stages(run: Callable[[], dict[str, Any]]) -> dict[str, float]:
    """Share of the time of a run in each stage of the device; in the rest it waits for the CPU."""
    with timed_stages() as spent:
        row = run()
    spent["boxes back"] = spent.pop("all of a batch") - spent["model"]
    shares = {name: round(value / row["seconds"], 3) for name, value in spent.items()}
    return {
        "cameras": row["cameras"],
        "frames_per_s": row["frames_per_s"],
        **shares,
        "idle": round(1 - sum(shares.values()), 3),
    }


def naive(detector: TransformersDetector, task: DetectorTask, frame: Frame, repeats: int) -> dict[str, float]:
    """The library's own way: processor, model, post-processing for each of four views, one after the other."""
    processor = transformers.AutoImageProcessor.from_pretrained(detector.model.name_or_path)
    windows = [frame.window] + [type(frame.window)(200.0 * n, 150.0 * n, 640, 360) for n in range(1, 4)]
    times = []
    for repeat in range(repeats + 2):
        start = time.perf_counter()
        for window in windows:
            view = frame.view(window, task.view_size(window.width, window.height, 640 * 640))
            rgb = cv2.cvtColor(view.image, cv2.COLOR_BGR2RGB)
            inputs = processor(images=[rgb], return_tensors="pt").to(detector.device)
            with torch.inference_mode():
                outputs = detector.model(pixel_values=inputs["pixel_values"].to(detector.dtype))
            outputs.logits = outputs.logits.float()
            processor.post_process_object_detection(outputs, threshold=0.03, target_sizes=[rgb.shape[:2]])
        if repeat >= 2:
            times.append((time.perf_counter() - start) * 1e3)
    return {"frame_ms": round(float(np.median(times)), 2), "frames_per_s": round(1e3 / float(np.median(times)), 2)}


def seconds_of(run: Callable[[], Any], repeats: int = 20) -> float:
    """Median seconds of something on the device."""
    times = []
    for _ in range(repeats + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return float(np.median(times[3:]))


def floors(detector: TransformersDetector, size: tuple[int, int]) -> dict[str, float]:
    """What a frame of one view and three crops costs at the least, at the rates of this device."""
    from torch.utils.flop_counter import FlopCounterMode

    pinned = torch.zeros((size[1], size[0], 3), dtype=torch.uint8).pin_memory()
    upload_s = seconds_of(lambda: pinned.to(detector.device, non_blocking=True))
    square = torch.randn(8192, 8192, device=detector.device, dtype=detector.dtype)
    rate = 2 * 8192**3 / seconds_of(lambda: square @ square)
    side = detector.input_size
    values = torch.zeros((1, 3, side.height, side.width), device=detector.device, dtype=detector.dtype)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        detector.model(pixel_values=values)
    flops = counter.get_total_flops()
    return {
        "upload_GB_per_s": round(pinned.nbytes / upload_s / 1e9, 1),
        "frame_MB": round(pinned.nbytes / 1e6, 2),
        "upload_ms_per_frame": round(upload_s * 1e3, 3),
        "matmul_TFLOP_per_s": round(rate / 1e12),
        "GFLOP_per_view": round(flops / 1e9, 1),
        "arithmetic_ms_per_frame": round(4 * flops / rate * 1e3, 3),
        "floor_frames_per_s": round(1 / max(upload_s, 4 * flops / rate)),
    }


def model_alone(detector: TransformersDetector, graphs: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
    """Milliseconds of the model by batch size, by graph and launched kernel by kernel."""
    side = detector.input_size
    found = {}
    for count in (1, 3, 6, 18, 24):
        values = torch.zeros((count, 3, side.height, side.width), device=detector.device, dtype=detector.dtype)
        with torch.inference_mode():
            found[f"{count} by graph"] = round(seconds_of(lambda values=values: graphs(values)) * 1e3, 2)
            plain = seconds_of(lambda values=values: detector.rows(detector.model(pixel_values=values)), 10)
        found[f"{count} kernel by kernel"] = round(plain * 1e3, 2)
    return found


def measure(name: str, arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    """All rows of one model."""
    size = (320, 180) if arguments.tiny else SIZE
    with tempfile.TemporaryDirectory() as directory:
        start = time.perf_counter()
        detector = build(name, Path(directory), device, "fp32" if arguments.tiny else "fp16", arguments.fuse)
        load_s = round(time.perf_counter() - start, 2)
        frame = Frame(pictures(99, size)[0])
        give_street(detector)
        loop = loop_around(detector)
        task, budget = loop.task, loop.budget
        row: dict[str, Any] = {
            "load_s": load_s,
            "parameters_M": round(sum(p.numel() for p in detector.model.parameters()) / 1e6, 1),
        }
        start = time.perf_counter()
        result = loop.perceive(frame, ROAD)
        if result.status != Status.COMPLETE:
            raise RuntimeError(result.status_message)
        row["first_frame_s"] = round(time.perf_counter() - start, 2)
        row["boxes"] = len(result.detections)
        view = frame.view(frame.window, task.view_size(*size, budget.view_pixels))
        row["hints_of_view"] = len(task.detect([view], 0.03, task.resolve(ROAD))[0].boxes)
        counts = (1, 2) if arguments.tiny else (1, 3, 6)
        run = functools.partial(run_cameras, loop, size=size)
        if device == "cuda":
            row["floors"] = floors(detector, size)
            row["model_ms"] = model_alone(detector, detector._view_batcher._generator.batches._run)
        row["one process"] = {
            "fastest": [run(count, seconds=arguments.seconds, hz=0.0) for count in counts],
            "paced": [run(count, seconds=arguments.seconds, hz=HZ) for count in counts],
        }
        served_at = Path(directory) / "socket"
        before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)  # as `activeo3 serve` does
        server = DetectorServer(detector, name, name, served_at)
        threading.Thread(target=server.serve, daemon=True).start()
        run = functools.partial(run_processes, [str(served_at)], size=size)
        row["a process a camera"] = {
            "fastest": [run(count, seconds=arguments.seconds, hz=0.0) for count in counts],
            "paced": [run(count, seconds=arguments.seconds, hz=HZ) for count in counts],
        }
        if device == "cuda":
            row["a process a camera"]["stages"] = [
                stages(functools.partial(run, count, seconds=arguments.seconds / 2, hz=0.0)) for count in counts
            ]
        server.close()
        sys.setswitchinterval(before)
        if counts[-1] > 1:
            with served(2, name, device, "fp32" if arguments.tiny else "fp16", arguments.fuse) as sockets:
                run = functools.partial(run_processes, sockets, size=size)
                row["two servers"] = {
                    "fastest": [run(counts[-1], seconds=arguments.seconds, hz=0.0)],
                    "paced": [run(counts[-1], seconds=arguments.seconds, hz=HZ)],
                }
        row["naive"] = naive(detector, task, frame, 3 if arguments.tiny else 20)
        fastest = row["a process a camera"]["fastest"][-1]["frames_per_s"]
        row["times_naive"] = round(fastest / row["naive"]["frames_per_s"], 2)
        return row


def main() -> int:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", default="rt_detr_r18,dfine_s,rt_detr_r50,dfine_l")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each row (default: %(default)g)")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--fuse", action="store_true", help="compile the models, which takes minutes for each")
    parser.add_argument(
        "--switch-ms", type=float, default=0.0, help="after how long Python lets another thread run; 0: as it is"
    )
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    if not arguments.tiny and not torch.cuda.is_available():
        print("skipped: no CUDA device; --tiny tries the script itself", file=sys.stderr)
        return 0
    if arguments.switch_ms:
        sys.setswitchinterval(arguments.switch_ms / 1e3)
    device = "cpu" if arguments.tiny else "cuda"
    if arguments.tiny:
        arguments.models, arguments.seconds = "tiny", 1.0
    report: dict[str, Any] = {
        "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "switch_ms": sys.getswitchinterval() * 1e3,
        "cpus": len(os.sched_getaffinity(0)),
        "models": {},
    }
    for name in arguments.models.split(","):
        report["models"][name] = measure(name, arguments, device)
        print(json.dumps({name: report["models"][name]}, indent=1), flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
