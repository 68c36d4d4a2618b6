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
from pathlib import Path

from activeo3_ros.node.transports import PROFILES, TRANSPORTS, own_domain

CAMERAS = ("front", "left", "right")
DRIVER = Path(__file__).parent / "node_soak.py"
STEADY_S, PAUSE_S = 4.0, 1.5
FRAME_MB = 1920 * 1080 * 3 / 2**20
PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """Print the memory in each phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=5, help="of each history, frames (default: %(default)s)")
    parser.add_argument("--cameras", type=int, default=3, choices=range(1, 1 + len(CAMERAS)))
    parser.add_argument("--pauses", type=int, default=4, help="how often it is late (default: %(default)s)")
    args = parser.parse_args()
    import rclpy
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import Image

    os.environ["ROS_DOMAIN_ID"] = str(own_domain())
    for name in (TRANSPORTS, *PROFILES):
        os.environ.pop(name, None)
    cameras = CAMERAS[: args.cameras]
    command = [sys.executable, str(DRIVER), "--ordinary-drivers", "--camera"]
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
        while taken < 20:
            rclpy.spin_once(node, timeout_sec=1.0)

        def spin(seconds: float) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                rclpy.spin_once(node, timeout_sec=0.1)

        print(f"{args.cameras} x {args.depth} frames are {args.cameras * args.depth * FRAME_MB:.0f} MiB")
        for number in range(args.pauses):
            spin(STEADY_S)
            before = resident_mb()
            time.sleep(PAUSE_S)
            late = resident_mb()
            spin(1.0)
            print(
                f"pause {number + 1}: {before:.0f} MiB before, {late:.0f} in it, {resident_mb():.0f} after", flush=True
            )
    finally:
        for driver in drivers:
            driver.send_signal(signal.SIGTERM)
        for driver in drivers:
            driver.wait(30)
    return 0


def resident_mb() -> float:
    """Of this process, MiB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE / 2**20


if __name__ == "__main__":
    sys.exit(main())
