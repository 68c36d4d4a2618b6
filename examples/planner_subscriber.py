"""A planner's subscriber: reports objects in its corridor, from results that are good and fresh enough to act on.

python examples/planner_subscriber.py --ros-args -p max_age_s:=0.5
"""

import rclpy
from activeo3_ros.msg import PerceptionResult
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.time import Time


class Planner(Node):
    """Subscribes to the results of one camera; the corridor is the middle third of its image."""

    def __init__(self) -> None:
        super().__init__("planner")
        self.max_age_s = self.declare_parameter("max_age_s", 0.5).value
        self.create_subscription(PerceptionResult, "/activeo3/camera/result", self.on_result, 5)

    def on_result(self, result: PerceptionResult) -> None:
        """Nothing detected means "clear" only in a result that did not fail and is not old."""
        age_s = (self.get_clock().now() - Time.from_msg(result.header.stamp)).nanoseconds / 1e9
        if result.status == PerceptionResult.STATUS_FAILED:
            print(f"blind: {result.status_message}", flush=True)
        elif age_s > self.max_age_s:
            print(f"too old: {age_s:.1f} s", flush=True)
        else:
            left, right = result.image_width / 3, result.image_width * 2 / 3
            ahead = [d for d in result.detections if d.box.x < right and d.box.x + d.box.width > left]
            coarse = " (small objects may be missing)" if result.status == PerceptionResult.STATUS_COARSE else ""
            print(f"ahead: {', '.join(d.label for d in ahead) or 'clear'}{coarse}", flush=True)


if __name__ == "__main__":
    rclpy.init()
    executor = SingleThreadedExecutor()
    executor.add_node(Planner())
    try:
        while rclpy.ok():  # rclpy.spin() misses a signal that comes just before it waits, and waits on
            executor.spin_once(timeout_sec=1.0)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
