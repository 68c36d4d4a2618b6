"""What the node adds to the core for a 1080p frame, from callback to publish: queue, unpacking, messages, publishing.

    python benchmarks/node_overhead.py [--preset embedded] [--frames 50]

One process holds the node and a publisher; the core's own time of the very same frames is subtracted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from array import array

import numpy as np

from activeo3_ros.node.transports import own_domain, settings_for_images

TARGET_MS = 15.0


def main() -> int:
    """Print the figures; 1 where the node adds more than the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="embedded")
    parser.add_argument("--frames", type=int, default=50)
    options = parser.parse_args()
    os.environ["ROS_DOMAIN_ID"] = str(own_domain())
    os.environ.update(settings_for_images(os.environ))
    added, core = measure(options.preset, options.frames)
    figures = {
        "preset": options.preset,
        "frames": len(added),
        "core_ms": _distribution(core),
        "added_by_the_node_ms": _distribution(added),
        "target_ms": TARGET_MS,
    }
    print(json.dumps(figures, indent=2))
    return 0 if np.median(added) <= TARGET_MS else 1


def measure(preset: str, frames: int) -> tuple[list[float], list[float]]:
    """Milliseconds that the node added to each frame, and that the core took for it."""
    import rclpy
    from rclpy.executors import MultiThreadedExecutor
    from rclpy.parameter import Parameter
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    from activeo3_ros.node.perception_node import EXECUTOR_THREADS, PerceptionNode

    rclpy.init()
    node = PerceptionNode(parameter_overrides=[Parameter("preset", value=preset)])
    samples: list[dict[str, float]] = []
    executor = MultiThreadedExecutor(EXECUTOR_THREADS)
    executor.add_node(node)
    threading.Thread(target=executor.spin, daemon=True).start()
    node.start()
    if node.state != "active":
        sys.exit(f"node_overhead: {node.last_error}")
    scheduler = node._scheduler
    assert scheduler is not None
    scheduler.latencies.add = lambda timings: samples.append(dict(timings))  # type: ignore[method-assign]

    sender = rclpy.create_node("sender")
    publisher = sender.create_publisher(Image, "camera/image_raw", qos_profile_sensor_data)
    pixels = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), dtype=np.uint8)
    message = Image(height=1080, width=1920, encoding="bgr8", step=3 * 1920, data=array("B", pixels.tobytes()))
    while not publisher.get_subscription_count():
        time.sleep(0.05)
    for _ in range(frames):
        before = len(samples)
        publisher.publish(message)
        end = time.monotonic() + 10
        while len(samples) == before and time.monotonic() < end:
            time.sleep(0.002)
    added = [sample["callback_to_publish"] - sample["total"] for sample in samples]
    core = [sample["total"] for sample in samples]
    node.end()
    return added, core


def _distribution(values: list[float]) -> dict[str, float]:
    return {
        "p50": round(float(np.median(values)), 2),
        "p95": round(float(np.percentile(values, 95)), 2),
        "max": round(max(values), 2),
    }


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # The executor's threads would be waited for.
    os._exit(code)
