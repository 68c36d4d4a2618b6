"""Memory of a process that reads raw images, before, while and after it is late: what a reader's history keeps.

    python benchmarks/reader_memory.py [--depth 5] [--cameras 3] [--pauses 4]

Ordinary drivers (`benchmarks/node_soak.py`) publish 1080p at 10 Hz from processes of their own; this process takes each
message as the node does, serialized, and forgets it. Then it takes none for a while, so that the histories fill up.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

import node_soak

from activeo3_ros.cli.argument_types import whole_number
from activeo3_ros.node.diagnostics import resident_memory_mb
from activeo3_ros.node.transports import PROFILES, TRANSPORTS, own_domain

STEADY_S, PAUSE_S = 4.0, 1.5
LONGEST_START_S = 60.0
FIRST_FRAMES = 20
"""After so many the readers have what they need to run."""


def main() -> int:
    """Print the memory in each phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--depth", type=whole_number(1, 100), default=5, help="of each history, frames (default: %(default)s)"
    )
    parser.add_argument("--cameras", type=whole_number(1, len(node_soak.CAMERAS)), default=3)
    parser.add_argument(
        "--pauses", type=whole_number(1, 1000), default=4, help="how often it is late (default: %(default)s)"
    )
    args = parser.parse_args()
    import rclpy
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import Image

    os.environ["ROS_DOMAIN_ID"] = str(own_domain())
    for name in (TRANSPORTS, *PROFILES):
        os.environ.pop(name, None)
    cameras = node_soak.CAMERAS[: args.cameras]
    command = [sys.executable, node_soak.__file__, "--ordinary-drivers", "--camera"]
    drivers = [subprocess.Popen([*command, camera], stdout=subprocess.DEVNULL) for camera in cameras]
    try:
        rclpy.init()
        node = rclpy.create_node("reader")
        taken = 0

        def take(_: bytes) -> None:
            nonlocal taken
            taken += 1

        for camera in cameras:
            node.create_subscription(Image, f"{camera}/image_raw", take, QoSProfile(depth=args.depth), raw=True)

        def spin(seconds: float) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                rclpy.spin_once(node, timeout_sec=0.1)

        start = time.monotonic()
        while taken < FIRST_FRAMES:
            spin(0.1)
            if time.monotonic() - start > LONGEST_START_S:
                print(f"{taken} frames came in {LONGEST_START_S:.0f} s: a driver did not start", file=sys.stderr)
                return 1
        print(f"{args.cameras} x {args.depth} frames are {args.cameras * args.depth * node_soak.FRAME_MB:.0f} MiB")
        for number in range(args.pauses):
            spin(STEADY_S)
            before = resident_memory_mb()
            time.sleep(PAUSE_S)
            late = resident_memory_mb()
            spin(1.0)
            print(
                f"pause {number + 1}: {before:.0f} MiB before, {late:.0f} in it, {resident_memory_mb():.0f} after",
                flush=True,
            )
    finally:
        for driver in drivers:
            driver.send_signal(signal.SIGTERM)
        for driver in drivers:
            driver.wait(30)
    return 0


if __name__ == "__main__":
    sys.exit(main())
