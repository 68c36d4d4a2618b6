"""Three 1080p cameras at 10 Hz into the node for a while, and whether it would survive a day.

    python benchmarks/node_soak.py --seconds 600
    python benchmarks/node_soak.py --seconds 600 --ordinary-drivers

With --gain-maps the head, or the one that the package brings, chooses the regions of the preset `embedded`.
Prints a line every 10 s and a table at the end; exits 1 where a promise is broken: no crash, counts that add up, memory
of the second half growing by less than 1 %, no result older than `max_frame_age` plus one inference, and every camera
within 20 % of its fair share. Publishers and the node are processes of their own.

`--ordinary-drivers`: the cameras publish with rclpy's default quality of service (reliable, keep last 10), and no
process has a setting of its transports. Every frame that they sent must then be processed, replaced, stale, failed,
rejected or lost by the node's counts, and the share of lost ones is printed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from activeo3_ros.node.transports import PROFILES, TRANSPORTS, own_domain, settings_for_images

CAMERAS = ("front", "left", "right")
RATE_HZ = 10.0
MAX_FRAME_AGE_S = 1.0
MAX_GROWTH = 0.01
MAX_UNFAIRNESS = 0.2
DIAGNOSTICS_S = 0.2
FRAME_MB = 1920 * 1080 * 3 / 2**20
LONG_S = 500.0
"""A run of this many seconds tells 1 % of growth from noise. In a shorter one on a busy machine every camera may have a
frame waiting at the end and none at the beginning: one frame a camera is allowed on top. A node that keeps one of 50
frames that it receives is still found in a minute."""
RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_ARENA_MAX": "2"}
"""glibc hands a freed frame back at once: resident memory then is what the node holds, without what the C library keeps
for later, which moves by a tenth. Costs some speed."""
WARM_UP_S = 5.0
"""The first seconds, while caches fill, are not judged."""
STALLS, STALL_S = 3, 0.6
"""Times and seconds that the node is held up in the first seconds. Fast DDS never gives back the memory of a place in a
reader's history, and all five places of a camera are used the first time that the node is late: 5 frames of 6 MB that
come within a second or after minutes. Later growth is the node's own."""
ENDING_S = 5.0
"""Seconds from the last frame that is sent to the last counts."""
OPENING_S = 3.0
"""Seconds from advertising its topic to the first frame: a driver opens its camera then. The node cannot know of a
frame that is sent before it and the driver have found each other."""


@dataclass
class Observed:
    """What the node said: results by camera, ages and latencies in milliseconds, memory in MiB as diagnostics came."""

    results: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CAMERAS, 0))
    ages_ms: list[float] = field(default_factory=list)
    inferences_ms: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    failed: int = 0


def main() -> int:
    """Run the soak or, started by itself, be one camera."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--preset", default="embedded")
    parser.add_argument("--gain-maps", nargs="?", const="", metavar="HEAD", help="instead of --preset")
    parser.add_argument("--node", nargs="+", help="command that starts the node; default the installed perception_node")
    parser.add_argument("--ordinary-drivers", action="store_true", help="account for every frame of such drivers")
    parser.add_argument("--camera", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.camera:
        return play(options.camera, options.ordinary_drivers)
    os.environ["ROS_DOMAIN_ID"] = str(own_domain())
    if options.ordinary_drivers:
        for name in (TRANSPORTS, *PROFILES):
            os.environ.pop(name, None)
    else:
        os.environ.update(settings_for_images(os.environ))
    return soak(options.seconds, options.preset, options.node or [installed_node()], options.ordinary_drivers)


def installed_node() -> str:
    """The executable that `ros2 run` starts."""
    from ament_index_python.packages import get_package_prefix

    return str(Path(get_package_prefix("activeo3_ros")) / "lib" / "activeo3_ros" / "perception_node")


def play(camera: str, ordinary: bool) -> int:
    """Publish 1080p frames with the time of now until SIGINT, print their number, and end with SIGTERM."""
    import rclpy
    from rclpy.qos import QoSProfile, qos_profile_sensor_data
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node(f"camera_{camera}")
    profile = QoSProfile(depth=10) if ordinary else qos_profile_sensor_data
    publisher = node.create_publisher(Image, f"{camera}/image_raw", profile)
    rng = np.random.default_rng(CAMERAS.index(camera))
    coarse = rng.integers(0, 255, (27, 48, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (1920, 1080), interpolation=cv2.INTER_CUBIC)
    message = Image(height=1080, width=1920, encoding="bgr8", step=3 * 1920, data=array("B", picture.tobytes()))
    message.header.frame_id = camera
    stop, end = threading.Event(), threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())  # rclpy's would end a publish half way
    signal.signal(signal.SIGTERM, lambda *_: (stop.set(), end.set()))
    sent = 0
    stop.wait(OPENING_S if ordinary else 0.0)
    while not stop.wait(1 / RATE_HZ):
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
        sent += 1
    print(sent, flush=True)
    end.wait()
    rclpy.shutdown()
    return 0


def soak(seconds: float, preset: str, node: list[str], ordinary: bool = False) -> int:
    """Start everything, watch, and judge."""
    arguments = ["--ros-args", "-p", f"preset:={preset}", "-p", f"cameras:=[{', '.join(CAMERAS)}]"]
    arguments += ["-p", "autostart:=true", "-p", "memory:=true", "-p", f"max_frame_age:={MAX_FRAME_AGE_S}"]
    arguments += ["-p", f"diagnostics_period:={DIAGNOSTICS_S}"]
    environment = {**os.environ, **RETURN_FREED_MEMORY}
    with tempfile.TemporaryFile() as log:
        processes = [subprocess.Popen([*node, *arguments], stdout=log, stderr=subprocess.STDOUT, env=environment)]
        driver = [sys.executable, __file__, *(["--ordinary-drivers"] if ordinary else []), "--camera"]
        try:
            observed = watch(seconds, processes, driver)
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)  # not killed: Fast DDS would leave its segments in /dev/shm
            code, *_ = [process.wait(10) for process in processes]
        if observed is None or code != 0:
            log.seek(0)
            print(log.read().decode(errors="replace")[-4000:], file=sys.stderr)
            print(f"the node ended early or with exit code {code}", file=sys.stderr)
            return 1
    return judge(observed, seconds, ordinary)


def watch(seconds: float, processes: list[subprocess.Popen[bytes]], driver: list[str]) -> Observed | None:
    """Collect from when every camera had a result; None if that took 5 minutes or the node ended.

    Args:
        seconds: How long.
        processes: The node; the drivers are started when it is active, and added.
        driver: Command of a driver, without the name of its camera.
    """
    import rclpy
    from activeo3_ros.msg import PerceptionResult
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.qos import QoSProfile

    rclpy.init()
    node = rclpy.create_node("soak")
    observed = Observed()
    heard: set[str] = set()
    began = 0.0

    def on_result(result: PerceptionResult) -> None:
        nonlocal began
        heard.add(result.camera)
        if not began and len(heard) == len(CAMERAS):
            began = time.monotonic()
        if not began or time.monotonic() - began < WARM_UP_S:
            return
        observed.results[result.camera] += 1
        observed.failed += result.status == PerceptionResult.STATUS_FAILED
        stamp, completed = result.header.stamp, result.completed
        observed.ages_ms.append((completed.sec - stamp.sec) * 1e3 + (completed.nanosec - stamp.nanosec) / 1e6)
        timings = {timing.stage: timing.milliseconds for timing in result.timings}
        observed.inferences_ms.append(timings.get("decode", 0.0) + timings.get("total", 0.0))

    def on_diagnostics(array: DiagnosticArray) -> None:
        for status in array.status:
            values = {pair.key: pair.value for pair in status.values}
            if "memory_mb" in values and began and time.monotonic() - began > WARM_UP_S:
                observed.memory_mb.append(float(values["memory_mb"]))
            camera = status.name.rpartition(": ")[2]
            if camera in CAMERAS:
                names = ("received", "pending", "processed", "replaced", "stale", "failed", "rejected")
                observed.counts[camera] = {name: int(values[name]) for name in names}
                lost = values["lost_before_receipt"]
                observed.lost[camera] = int(lost) if lost.isdigit() else 0
            elif values.get("state") == "active" and len(processes) == 1:
                processes.extend(subprocess.Popen([*driver, camera], stdout=subprocess.PIPE) for camera in CAMERAS)

    for camera in CAMERAS:
        node.create_subscription(PerceptionResult, f"/activeo3/{camera}/result", on_result, 10)
    node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, QoSProfile(depth=10))
    stalls = 0
    start = shown = time.monotonic()
    while (time.monotonic() - began < seconds + WARM_UP_S) if began else (time.monotonic() - start < 300):
        rclpy.spin_once(node, timeout_sec=0.1)
        if processes[0].poll() is not None:
            return None
        if began and stalls < STALLS and time.monotonic() - began > (stalls + 1) * WARM_UP_S / (STALLS + 1):
            stalls += 1
            processes[0].send_signal(signal.SIGSTOP)
            time.sleep(STALL_S)
            processes[0].send_signal(signal.SIGCONT)
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            memory = observed.memory_mb[-1] if observed.memory_mb else float("nan")
            print(
                f"{shown - start:4.0f} s  results {sum(observed.results.values()):6d}  memory {memory:.0f} MiB",
                flush=True,
            )
    for process, camera in zip(processes[1:], CAMERAS, strict=False):
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        observed.sent[camera] = int(process.stdout.readline())
    end = time.monotonic() + ENDING_S
    while time.monotonic() < end:  # frames on their way arrive, and those that wait are processed
        rclpy.spin_once(node, timeout_sec=0.1)
    if not began:
        print(f"cameras that never had a result: {sorted(set(CAMERAS) - heard)}", file=sys.stderr)
    return observed if began else None


def judge(observed: Observed, seconds: float, ordinary: bool = False) -> int:
    """Print the figures and the promises; 1 if one is broken. ordinary: account for every frame that was sent."""
    half = observed.memory_mb[len(observed.memory_mb) // 2 :]
    # Means of the ends: several frames of 6 MB are on their way at any time, so that a median moves in steps of 1.3 %.
    ends = max(1, len(half) // 3)
    before, after = float(np.mean(half[:ends])), float(np.mean(half[-ends:]))
    growth, max_growth = (
        after / before - 1,
        MAX_GROWTH + (0.0 if seconds >= LONG_S else len(CAMERAS) * FRAME_MB / before),
    )
    served = np.array(list(observed.results.values()))
    fair = served.sum() / len(CAMERAS)
    ages, inferences = np.array(observed.ages_ms), np.array(observed.inferences_ms)
    limit_ms = MAX_FRAME_AGE_S * 1e3 + inferences.max()
    for camera, counts in observed.counts.items():
        print(camera, ", ".join(f"{name} {value}" for name, value in counts.items()))
    if ordinary:
        print_account(observed)
    for name, values in (("age of a result", ages), ("inference", inferences)):
        p50, p95, most = np.percentile(values, [50, 95, 100])
        print(f"{name}, ms: p50 {p50:.0f}, p95 {p95:.0f}, max {most:.0f}")
    promises = {
        "the counts of every camera add up": all(
            counts["received"] == sum(counts.values()) - counts["received"] for counts in observed.counts.values()
        ),
        "no frame failed": observed.failed == 0,
        f"memory of the second half grew by less than {max_growth:.1%}: {growth:+.2%}": growth < max_growth,
        f"no result is older than {limit_ms:.0f} ms: {ages.max():.0f} ms": bool(ages.max() <= limit_ms),
        # One frame more or less is no unfairness.
        f"every camera within {MAX_UNFAIRNESS:.0%} of {fair:.0f} frames: {served.min()} to {served.max()}": bool(
            np.abs(served - fair).max() <= MAX_UNFAIRNESS * fair + 1
        ),
    }
    if ordinary:
        promises["every frame that was sent is accounted for"] = all(
            observed.sent[camera] == counts["received"] + observed.lost[camera]
            for camera, counts in observed.counts.items()
        )
    for promise, kept in promises.items():
        print("kept  " if kept else "BROKEN", promise)
    return 0 if all(promises.values()) else 1


def print_account(observed: Observed) -> None:
    """One line for each camera and one for all: how many frames were sent, what became of them, the share lost."""
    total: Counter[str] = Counter()
    for camera, counts in observed.counts.items():
        ends = {name: value for name, value in counts.items() if name != "received"}
        line = Counter({"sent": observed.sent[camera], **ends, "lost": observed.lost[camera]})
        line["unaccounted"] = line["sent"] - sum(ends.values()) - line["lost"]
        total.update(line)
        print(f"account of {camera}: {account(line)}")
    print(f"account of all: {account(total)}")


def account(line: Counter[str]) -> str:
    """The parts of an account, and the share of the frames that was lost."""
    parts = ", ".join(f"{name} {value}" for name, value in line.items())
    return f"{parts}; {line['lost'] / max(1, line['sent']):.2%} lost"


if __name__ == "__main__":
    sys.exit(main())
