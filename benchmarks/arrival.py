"""How many raw frames of a camera in another process arrive at the node, how old, and at what cost.

    python benchmarks/arrival.py [--seconds 20] [--rates 10 30] [--json FILE]

The camera is an ordinary driver: a process of its own with no setting of its transports, that publishes 1080p `bgr8`
frames of 6.2 MB with rclpy's default quality of service (reliable, keep last 10), or with that of sensor data (best
effort, keep last 5). The reader is the node's own subscription, in the node's executor, without models. Each line of
the table is one rate x driver x transports and reliability of the reader:

- arrived: frames that came, of those sent from the first that came to the last;
- the two counts of losses: by the numbers of the messages, and by the middleware's reports;
- age: from the stamp to the callback that enqueues the frame;
- CPU: seconds of processor time for each second, of the driver and of the reader, its share of the middleware included.

`auto` is the node's default; `best_effort` and `reliable` are set by the parameter `qos_overrides…reliability`.
`own` are the transports that the node chooses where the environment names none, `default` are Fast DDS's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from array import array
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from activeo3_ros.node.transports import (
    PROFILES,
    TRANSPORTS,
    largest_receive_buffer,
    own_domain,
    settings_for_images,
    settings_for_node,
)

WIDTH, HEIGHT = 1920, 1080
TOPIC = "/camera/image_raw"
FIRST_S = 20.0
"""How long the first frame may take."""
READERS = ("best_effort", "reliable", "auto")
DRIVERS = ("reliable", "best_effort")
SETTINGS = ("none", "shared_memory")
TRANSPORTS_OF_READER = ("own", "default")
CHOSEN_BY = (TRANSPORTS, *PROFILES, "ROS_AUTOMATIC_DISCOVERY_RANGE")


@dataclass(frozen=True)
class Case:
    """One line: the camera, the setting of its transports, and the reader. depth: of its history, None as the node."""

    rate_hz: float
    driver: str
    setting: str
    transports: str
    reader: str
    depth: int | None
    seconds: float


@dataclass
class Arrived:
    """What the reader noticed: numbers and ages of the frames, the counts of losses, its processor time."""

    numbers: list[int] = field(default_factory=list)
    ages_ms: list[float] = field(default_factory=list)
    lost: int | None = None
    lost_in_transport: int = 0
    cpu: float = float("nan")

    @property
    def sent(self) -> int:
        return self.numbers[-1] - self.numbers[0] + 1 if self.numbers else 0


def main() -> int:
    """Run every case or, started by itself, be the driver or the reader."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rates", type=float, nargs="+", default=[10.0, 30.0], help="frames a second")
    parser.add_argument("--drivers", nargs="+", choices=DRIVERS, default=["reliable"])
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=["none"], help="of the driver's transports")
    parser.add_argument("--transports", nargs="+", choices=TRANSPORTS_OF_READER, default=["own"], help="of the reader")
    parser.add_argument("--depth", type=int, help="of the reader's history, default the node's")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--be", choices=("driver", "reader"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be == "driver":
        return publish(options.drivers[0], options.rates[0])
    if options.be == "reader":
        return read(options.readers[0], options.depth, options.seconds)

    names = ("rate, Hz", "driver", "its setting", "transports", "reader", "arrived", "lost", "in transport")
    print(f"| {' | '.join(names)} | age p50, ms | p95 | CPU driver | reader |")
    print("|---" * (len(names) + 4) + "|", flush=True)
    record: dict[str, Any] = {"receive_buffer_bytes": largest_receive_buffer(), "cases": []}
    cases = itertools.product(options.rates, options.drivers, options.settings, options.transports, options.readers)
    for rate, driver, setting, transports, reader in cases:
        figures = measure(Case(rate, driver, setting, transports, reader, options.depth, options.seconds))
        print(row(figures), flush=True)
        record["cases"].append(figures)
        if options.json:
            options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(case: Case) -> dict[str, Any]:
    """The figures of a line."""
    environment = {name: value for name, value in os.environ.items() if name not in CHOSEN_BY}
    environment["ROS_DOMAIN_ID"] = str(own_domain())
    drivers = {**environment, **(settings_for_images(environment) if case.setting == "shared_memory" else {})}
    readers = dict(environment)
    if case.transports == "own":
        readers |= settings_for_node(environment, largest_receive_buffer())
    command = [sys.executable, __file__, "--rates", str(case.rate_hz), "--drivers", case.driver, "--be", "driver"]
    sending = subprocess.Popen(command, env=drivers, stdout=subprocess.PIPE, text=True)
    command = [sys.executable, __file__, "--readers", case.reader, "--seconds", str(case.seconds), "--be", "reader"]
    command += ["--depth", str(case.depth)] if case.depth is not None else []
    reading = subprocess.Popen(command, env=readers, stdout=subprocess.PIPE, text=True)
    try:
        said, _ = reading.communicate(timeout=FIRST_S + case.seconds + 60)
    finally:
        for process in (sending, reading):
            process.terminate()  # not killed: Fast DDS takes away its segments in /dev/shm only where it may end
        driver_said, _ = sending.communicate(timeout=20)
    arrived = Arrived(**json.loads(said.splitlines()[-1]))
    p50, p95 = np.percentile(arrived.ages_ms or [float("nan")], [50, 95])
    return {
        **asdict(case),
        "sent": arrived.sent,
        "arrived": len(arrived.numbers),
        "arrived_twice": len(arrived.numbers) - len(set(arrived.numbers)),
        "lost": arrived.lost,
        "lost_in_transport": arrived.lost_in_transport,
        "age_ms_p50": round(float(p50), 1),
        "age_ms_p95": round(float(p95), 1),
        "cpu_driver": round(float(driver_said.splitlines()[-1]), 3),
        "cpu_reader": round(arrived.cpu, 3),
    }


def row(figures: dict[str, Any]) -> str:
    """One line of the table."""
    arrived = f"{figures['arrived']} of {figures['sent']}"
    names = ("lost", "lost_in_transport", "age_ms_p50", "age_ms_p95", "cpu_driver", "cpu_reader")
    first = (
        f"{figures['rate_hz']:g}",
        *(figures[name] for name in ("driver", "setting", "transports", "reader")),
        arrived,
    )
    return f"| {' | '.join(str(value) for value in (*first, *(figures[name] for name in names)))} |"


# The processes of a case


def publish(reliability: str, rate: float) -> int:
    """Publish numbered frames with the time of now until the process is ended; print its processor time a second."""
    import rclpy
    from rclpy.qos import QoSProfile, qos_profile_sensor_data
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import Image

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    node = rclpy.create_node("driver")
    profile = QoSProfile(depth=10) if reliability == "reliable" else qos_profile_sensor_data
    publisher = node.create_publisher(Image, TOPIC, profile)
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    message = Image(height=HEIGHT, width=WIDTH, encoding="bgr8", step=3 * WIDTH, data=array("B", pixels.tobytes()))
    number, began, cpu = 0, time.monotonic(), time.process_time()
    due = began
    while not ended.wait(max(0.0, due - time.monotonic())):
        message.header.frame_id = str(number)
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
        number += 1
        due = max(due + 1 / rate, time.monotonic() - 1 / rate)  # a driver that is late does not send a burst
    print((time.process_time() - cpu) / (time.monotonic() - began), flush=True)
    rclpy.try_shutdown()
    return 0


def read(reliability: str, depth: int | None, seconds: float) -> int:
    """Print what came in so many seconds from the first frame on."""
    import rclpy
    from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
    from rclpy.parameter import Parameter
    from rclpy.serialization import deserialize_message
    from std_msgs.msg import Header

    from activeo3_ros.node.camera_input import CameraInput
    from activeo3_ros.node.executor import QuietExecutor
    from activeo3_ros.node.perception_node import EXECUTOR_THREADS

    overrides: dict[str, Any] = {} if reliability == "auto" else {"reliability": reliability}
    overrides |= {} if depth is None else {"depth": depth}
    rclpy.init()
    node = rclpy.create_node(
        "reader",
        parameter_overrides=[
            Parameter(f"qos_overrides.{TOPIC}.subscription.{name}", value=value) for name, value in overrides.items()
        ],
    )
    camera = CameraInput(node, "camera", "raw", MutuallyExclusiveCallbackGroup())
    arrived, first, stamps = Arrived(), threading.Event(), []

    def enqueue(_: str, data: bytes) -> None:
        stamps.append((time.time_ns(), data[:64]))
        first.set()

    camera.connect(enqueue)
    executor = QuietExecutor(EXECUTOR_THREADS)
    executor.add_node(node)
    threading.Thread(target=executor.spin, daemon=True).start()
    if first.wait(FIRST_S):
        began, cpu = time.monotonic(), time.process_time()
        time.sleep(seconds)
        arrived.cpu = (time.process_time() - cpu) / (time.monotonic() - began)
    camera.connect(None)
    for received_ns, head in stamps:
        header = deserialize_message(head, Header)
        sent_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        arrived.ages_ms.append(round((received_ns - sent_ns) / 1e6, 2))
        arrived.numbers.append(int(header.frame_id))
    arrived.lost, arrived.lost_in_transport = camera.images.losses.missing, camera.images.losses.in_transport
    print(json.dumps(asdict(arrived)), flush=True)
    sys.stdout.flush()
    os._exit(0)  # the executor's threads would be waited for


if __name__ == "__main__":
    sys.exit(main())
