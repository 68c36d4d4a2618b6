"""How often a node and cameras that start at the same moment exchange nothing, for each way to carry raw images.

    python benchmarks/transport_startup.py [--starts 20] [--load 0 4] [--killed 40] [--ways large_data shared_memory]

A start is a domain of its own in which `--cameras` processes publish 1080p frames of 6.2 MB and one subscribes to them
as the node does (keep last 1), all begun at the same moment. Each line of the table is one way x reliability x number
of processes that burn the CPU meanwhile:

- never found: starts in which some camera was not matched within 15 s;
- silent: starts in which all were matched, and of one no frame came within 10 s;
- lost: gaps in the numbers between the first and the last frame that came, while 2 s were watched;
- the time from sending to receiving, p50 and p95, and the longest wait from match to first frame.

`--killed 40` lets 40 starts of the same way be killed before, at two seconds of age: what they leave in /dev/shm makes
later starts harder. It is not taken away (`fastdds shm clean` does).

`--json` keeps the single starts. Twenty starts take two minutes and more for each line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from activeo3_ros.node.transports import PROFILES, TRANSPORTS, own_domain, profile_for_images

SILENT_S = 10.0
WATCHED_S = 2.0
"""How long frames are counted, from when every camera was heard."""
DISCOVERY_S = 15.0
"""How long a start may take until the subscriber has found every camera."""
KILLED_S = 2.0
"""How old the processes of `--killed` get."""
RATE_HZ = 5.0
WIDTH, HEIGHT = 1920, 1080
OPTIONS = "max_msg_size=1MB&sockets_size=1MB&non_blocking=true&tcp_negotiation_timeout=50"

WAYS: dict[str, dict[str, str]] = {
    "default": {},
    "large_data": {TRANSPORTS: "LARGE_DATA"},
    "large_data_options": {TRANSPORTS: f"LARGE_DATA?{OPTIONS}"},
    "large_data_non_blocking": {TRANSPORTS: "LARGE_DATA?non_blocking=true"},
    "large_data_wide": {TRANSPORTS: "LARGE_DATA?sockets_size=16MB&non_blocking=true"},
    "shared_memory": dict([profile_for_images(os.environ)]),
}
"""The environment that chooses each way; whatever chose one before is taken out."""
CHOSEN_BY = (TRANSPORTS, *PROFILES, "ROS_AUTOMATIC_DISCOVERY_RANGE")
CASES = (
    ("default", "best_effort"),
    ("default", "reliable"),
    ("large_data", "best_effort"),
    ("large_data_options", "best_effort"),
    ("large_data_non_blocking", "best_effort"),
    ("large_data_wide", "best_effort"),
    ("shared_memory", "best_effort"),
    ("shared_memory", "reliable"),
)


@dataclass
class Camera:
    """What the subscriber noticed of one camera; seconds since it began."""

    matched_s: float | None = None
    first_s: float | None = None
    numbers: list[int] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def silent(self) -> bool:
        return self.matched_s is not None and self.first_s is None

    @property
    def lost(self) -> int:
        return self.sent - len(self.numbers)

    @property
    def sent(self) -> int:
        return self.numbers[-1] - self.numbers[0] + 1 if self.numbers else 0


def main() -> int:
    """Run every case or, started by itself, be a camera or the subscriber."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=20)
    parser.add_argument("--cameras", type=int, default=3)
    parser.add_argument("--load", type=int, nargs="+", default=[0], help="processes that burn the CPU meanwhile")
    parser.add_argument("--killed", type=int, default=0, help="starts that are killed before those that count")
    parser.add_argument("--stagger", type=float, default=0.0, help="seconds between the processes of a start")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--reliability", nargs="+", default=["best_effort", "reliable"])
    parser.add_argument("--json", type=Path, help="file for every single start")
    parser.add_argument("--be", choices=("camera", "subscriber"), help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be == "camera":
        return publish(options.number, options.reliability[0])
    if options.be == "subscriber":
        return subscribe(options.cameras, options.reliability[0])

    names = ("transports", "reliability", "load", "starts", "never found", "silent", "lost", "ms p50", "p95")
    print(f"| {' | '.join(names)} | first frame, s |")
    print("|---" * (len(names) + 1) + "|", flush=True)
    record = []
    for load in options.load:
        for way, reliability in CASES:
            if way not in options.ways or reliability not in options.reliability:
                continue
            starts: list[list[Camera]] = []
            for _ in range(options.killed):
                start(way, reliability, options.cameras, options.stagger, kill=True)
            with burning(load):
                for _ in range(options.starts):
                    starts.append(start(way, reliability, options.cameras, options.stagger))
                    sys.stderr.write("s" if any(camera.silent for camera in starts[-1]) else ".")
                    sys.stderr.flush()
            sys.stderr.write("\n")
            print(row(way, reliability, load, starts), flush=True)
            cameras = [[asdict(camera) for camera in one] for one in starts]
            record.append({"way": way, "reliability": reliability, "load": load, "starts": cameras})
            if options.json:
                options.json.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return 0


def row(way: str, reliability: str, load: int, starts: list[list[Camera]]) -> str:
    """One line of the table."""
    cameras = [camera for one in starts for camera in one]
    latencies = [ms for camera in cameras for ms in camera.latencies_ms] or [float("nan")]
    p50, p95 = np.percentile(latencies, [50, 95])
    waits = [camera.first_s - (camera.matched_s or 0.0) for camera in cameras if camera.first_s is not None]
    sent = sum(camera.sent for camera in cameras)
    columns = (
        way,
        reliability,
        str(load),
        str(len(starts)),
        str(sum(any(camera.matched_s is None for camera in one) for one in starts)),
        str(sum(any(camera.silent for camera in one) for one in starts)),
        f"{sum(camera.lost for camera in cameras)} of {sent}",
        f"{p50:.0f}",
        f"{p95:.0f}",
        f"{max(waits, default=float('nan')):.1f}",
    )
    return f"| {' | '.join(columns)} |"


def start(way: str, reliability: str, cameras: int, stagger_s: float, kill: bool = False) -> list[Camera]:
    """Begin the processes of one start, so many seconds after each other; what the subscriber noticed.

    kill: end it early, as a crash does; nothing is noticed then.
    """
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN_BY}
    environment |= {**WAYS[way], "ROS_DOMAIN_ID": str(own_domain())}
    command = [sys.executable, __file__, "--cameras", str(cameras), "--reliability", reliability, "--be"]
    commands = [[*command, "camera", "--number", str(number)] for number in range(cameras)]
    processes = []
    for one in commands:
        processes.append(subprocess.Popen(one, env=environment, stderr=subprocess.DEVNULL))
        time.sleep(stagger_s)
    subscriber = subprocess.Popen([*command, "subscriber"], env=environment, stdout=subprocess.PIPE, text=True)
    if kill:
        time.sleep(KILLED_S)
        for process in (*processes, subscriber):
            process.kill()
        subscriber.communicate()
        return []
    try:
        try:
            said, _ = subscriber.communicate(timeout=DISCOVERY_S + SILENT_S + WATCHED_S + 60)
        except subprocess.TimeoutExpired:  # it has said all it knows, and hangs in the middleware's end
            subscriber.kill()
            said, _ = subscriber.communicate()
    finally:
        for process in (*processes, subscriber):
            process.terminate()  # not killed: Fast DDS takes away its segments in /dev/shm only where it may end
        for process in (*processes, subscriber):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
    return [Camera(**values) for values in json.loads(said)] if said else [Camera() for _ in range(cameras)]


@contextlib.contextmanager
def burning(processes: int) -> Iterator[None]:
    """So many processes that compute all the time."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


# The processes of a start


def profile(reliability: str) -> Any:
    """As the node asks for images."""
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    return QoSProfile(depth=1, reliability=ReliabilityPolicy[reliability.upper()])


def topic(number: int) -> str:
    """Of one camera."""
    return f"camera_{number}/image_raw"


def publish(number: int, reliability: str) -> int:
    """Publish numbered frames with the time of now until the process is ended."""
    import rclpy
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node(f"camera_{number}")
    publisher = node.create_publisher(Image, topic(number), profile(reliability))
    pixels = array("B", bytes(HEIGHT * WIDTH * 3))
    message = Image(height=HEIGHT, width=WIDTH, encoding="bgr8", step=3 * WIDTH, data=pixels)
    frame = 0
    while rclpy.ok():
        message.header.frame_id = str(frame)
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
        frame += 1
        time.sleep(1 / RATE_HZ)
    rclpy.try_shutdown()
    return 0


def subscribe(cameras: int, reliability: str) -> int:
    """Print what came of each camera: until all were heard and watched, or one stayed silent."""
    import rclpy
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("listener")
    began = time.monotonic()
    seen = [Camera() for _ in range(cameras)]

    def heard(camera: Camera, data: bytes) -> None:
        header = deserialize_message(data, Image).header
        sent_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        camera.latencies_ms.append((time.time_ns() - sent_ns) / 1e6)
        camera.numbers.append(int(header.frame_id))
        if camera.first_s is None:
            camera.first_s = time.monotonic() - began

    subscriptions = [
        node.create_subscription(
            Image, topic(number), lambda data, c=camera: heard(c, data), profile(reliability), raw=True
        )
        for number, camera in enumerate(seen)
    ]
    end = None
    while end is None or time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.02)
        now_s = time.monotonic() - began
        for camera, subscription in zip(seen, subscriptions, strict=True):
            if camera.matched_s is None and subscription.get_publisher_count():
                camera.matched_s = now_s
        if end is None and all(camera.first_s is not None for camera in seen):
            end = time.monotonic() + WATCHED_S
        silent = any(camera.silent and now_s - camera.matched_s > SILENT_S for camera in seen)
        if silent or (now_s > DISCOVERY_S and any(camera.matched_s is None for camera in seen)):
            break
    print(json.dumps([asdict(camera) for camera in seen]), flush=True)
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
