"""How many 1080p cameras at 30 Hz one node carries on two cores, where the model is on a GPU.

    python benchmarks/node_served.py [--cameras 1,2,3] [--seconds 10]

A stand-in takes the place of the GPU: a served detector that waits as long as RT-DETR-R18 takes for a batch there
(`benchmarks/results/detector_rate_nvidia_h200_2026-11-28.json`) and gives as many boxes as a street has. The rest is
real: raw images from a process of their own for each camera, DDS, the node, results received by this process. All of it
shares two cores; the time of each process on them says what limits.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from activeo3_ros.core.frame import Image, InputSize, View
from activeo3_ros.core.results import DetectedBoxes
from activeo3_ros.detectors.centernet import COCO_CLASSES
from activeo3_ros.detectors.serving import DetectorServer
from activeo3_ros.node.transports import own_domain, settings_for_images
from activeo3_ros.vlm.dynamic_batching import CallBatcher

HZ = 30.0
CORES = 2
WARM_UP_S = 3.0
FIGURES = Path(__file__).parent / "results" / "detector_rate_nvidia_h200_2026-11-28.json"
HINTS, BOXES = 60, 12
"""Boxes of a view above 0.03, and of these above 0.3."""
PRESET = """\
sensing: {{type: detector_proposals}}
task: {{type: served, socket: {socket}}}
budget: {{max_regions: 3, view_pixels: 819200, crop_pixels: 819200}}
query: {{classes: [person, bicycle, car, motorcycle, bus, truck, traffic light, stop sign]}}
"""


class StandInForGpu:
    """Takes as long as the real model does on a GPU; its boxes are those of no picture."""

    names = tuple(COCO_CLASSES)
    input_size = InputSize(640, 640, keeps_aspect=False)
    concurrent = True
    batch_size = 24

    def __init__(self) -> None:
        model_ms = json.loads(FIGURES.read_text(encoding="utf-8"))["models"]["rt_detr_r18"]["model_ms"]
        rows = {int(name.split()[0]): value for name, value in model_ms.items() if name.endswith("by graph")}
        self._counts, self._times_ms = list(rows), list(rows.values())
        self._batcher = CallBatcher(self)
        generator = np.random.default_rng(0)
        scores = np.sort(np.append(generator.uniform(0.3, 0.9, BOXES), generator.uniform(0.03, 0.3, HINTS - BOXES)))
        self._scores = scores[::-1].astype(np.float32)
        self._centers = generator.uniform(0.1, 0.8, (HINTS, 2))
        self._sizes = np.exp(generator.uniform(np.log(0.01), np.log(0.2), (HINTS, 2)))
        ids = [self.names.index(name) for name in ("person", "car", "truck", "traffic light")]
        self._class_ids = generator.choice(ids, HINTS)

    def detect(self, images: Sequence[Image], threshold: float) -> list[DetectedBoxes]:
        raise NotImplementedError("is given views")

    def detect_views(self, views: Sequence[View], threshold: float) -> list[DetectedBoxes]:
        return self._batcher.generate([(view.size, threshold) for view in views])

    def generate(self, requests: Sequence[tuple[tuple[int, int], float]]) -> list[DetectedBoxes]:
        """One batch."""
        time.sleep(float(np.interp(len(requests), self._counts, self._times_ms)) / 1e3)
        return [self._street(size, threshold) for size, threshold in requests]

    def _street(self, size: tuple[int, int], threshold: float) -> DetectedBoxes:
        kept = self._scores > threshold
        boxes = np.hstack([self._centers, np.minimum(self._sizes, 1 - self._centers)]) * (*size, *size)
        return DetectedBoxes(boxes[kept], self._scores[kept], self._class_ids[kept])


def publish(camera: str) -> int:
    """Publish 1080p frames with the time of now, on time, until the process is ended."""
    import rclpy
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image as ImageMessage

    rclpy.init()
    node = rclpy.create_node(f"camera_{camera}")
    publisher = node.create_publisher(ImageMessage, f"{camera}/image_raw", qos_profile_sensor_data)
    coarse = np.random.default_rng(0).integers(0, 255, (27, 48, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (1920, 1080), interpolation=cv2.INTER_CUBIC)
    message = ImageMessage(height=1080, width=1920, encoding="bgr8", step=3 * 1920, data=array("B", picture.tobytes()))
    message.header.frame_id = camera
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    due = time.monotonic()
    while not ended:
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
        due = max(due + 1 / HZ, time.monotonic() - 1 / HZ)
        time.sleep(max(0.0, due - time.monotonic()))
    rclpy.shutdown()
    return 0


def serve(path: str) -> int:
    """Serve the stand-in until the process is ended."""
    server = DetectorServer(StandInForGpu(), "stand_in", "stand_in", Path(path))
    signal.signal(signal.SIGTERM, lambda *_: server.close())
    server.serve()
    return 0


@contextlib.contextmanager
def running(commands: dict[str, list[str]]) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Processes by name, ended after the block."""
    processes = {name: subprocess.Popen(command) for name, command in commands.items()}
    try:
        yield processes
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for process in processes.values():
            process.wait(20)


def cpu_s(process: subprocess.Popen[bytes]) -> float:
    """Seconds that a process has had of all cores."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(count: int, seconds: float, memory: bool) -> dict[str, Any]:
    """One row: so many cameras into one node."""
    import rclpy
    from activeo3_ros.msg import PerceptionResult

    cameras = [f"camera{number}" for number in range(count)]
    with tempfile.TemporaryDirectory() as directory:
        socket, preset = Path(directory) / "socket", Path(directory) / "served.yaml"
        preset.write_text(PRESET.format(socket=socket), encoding="utf-8")
        me = [sys.executable, "-P", __file__]
        node = ["activeo3", "node", "--cameras", ",".join(cameras), "--preset", str(preset)]
        node += ["-p", f"memory:={str(memory).lower()}", "-p", "log_period:=0.0"]
        with running({"server": [*me, "--serve", str(socket)]}) as server:
            while not socket.is_socket():
                time.sleep(0.05)
            commands = {"node": node, **{f"publisher {camera}": [*me, "--publish", camera] for camera in cameras}}
            with running(commands) as processes:
                listener = rclpy.create_node("listener")
                ages_ms: list[float] = []
                statuses: list[int] = []
                began = [0.0]

                def on_result(result: PerceptionResult) -> None:
                    if began[0]:
                        stamp = result.header.stamp
                        ages_ms.append(time.time() * 1e3 - (stamp.sec * 1e3 + stamp.nanosec / 1e6))
                        statuses.append(result.status)
                    heard.add(result.camera)

                heard: set[str] = set()
                for camera in cameras:
                    listener.create_subscription(PerceptionResult, f"/activeo3/{camera}/result", on_result, 50)
                until = time.monotonic() + 60
                while len(heard) < count and time.monotonic() < until:
                    rclpy.spin_once(listener, timeout_sec=0.1)
                until = time.monotonic() + WARM_UP_S
                while time.monotonic() < until:
                    rclpy.spin_once(listener, timeout_sec=0.1)
                every = {**server, **processes}
                before = {name: cpu_s(process) for name, process in every.items()}
                began[0] = time.monotonic()
                while time.monotonic() - began[0] < seconds:
                    rclpy.spin_once(listener, timeout_sec=0.1)
                wall = time.monotonic() - began[0]
                spent = {name: (cpu_s(process) - before[name]) / wall for name, process in every.items()}
                listener.destroy_node()
    publishers = sum(value for name, value in spent.items() if name.startswith("publisher"))
    p50, p95 = np.percentile(ages_ms, [50, 95]).round(1).tolist() if ages_ms else (float("nan"),) * 2
    return {
        "cameras": count,
        "memory": memory,
        "results_per_s": round(len(ages_ms) / wall, 1),
        "sent_per_s": HZ * count,
        "not_complete": sum(status != PerceptionResult.STATUS_COMPLETE for status in statuses),
        "age_p50_ms": p50,
        "age_p95_ms": p95,
        "cores": {
            "node": round(spent["node"], 2),
            "server": round(spent["server"], 2),
            "cameras": round(publishers, 2),
        },
    }


def main() -> int:
    """Print a line for each number of cameras."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", default="1,2,3")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row (default: %(default)g)")
    parser.add_argument("--publish", help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish:
        return publish(options.publish)
    if options.serve:
        threading.current_thread().name = "server"
        return serve(options.serve)
    import rclpy

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    os.environ["ROS_DOMAIN_ID"] = str(own_domain())
    os.environ.update(settings_for_images(os.environ))
    rclpy.init()
    for count in map(int, options.cameras.split(",")):
        for memory in (False, True):
            print(json.dumps(measure(count, options.seconds, memory)), flush=True)
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
