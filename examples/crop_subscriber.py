"""Cuts each detected object out of its image: images by cv_bridge where it is installed, else by this package.

python examples/crop_subscriber.py --ros-args -p directory:=/tmp/crops
"""

from collections import OrderedDict
from pathlib import Path

import cv2
import rclpy
from activeo3_ros.msg import PerceptionResult
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from activeo3_ros.codecs.image_message import image_to_bgr

try:
    from cv_bridge import CvBridge, CvBridgeError
except ImportError:
    CvBridge = None

MAX_PIXELS = 50_000_000
KEPT_IMAGES = 30


def to_bgr(message):
    """The pixels of an image, (height, width, 3) uint8 BGR.

    cv_bridge is right for 8-bit colours and grey without padded rows; this package decodes what it refuses or misreads,
    padded rows and 16 bits among them.
    """
    is_plain = message.encoding in ("bgr8", "rgb8", "mono8") and message.step * message.height == len(message.data)
    channels = 1 if message.encoding == "mono8" else 3
    if CvBridge is not None and is_plain and message.step == message.width * channels:
        try:
            return CvBridge().imgmsg_to_cv2(message, "bgr8")
        except CvBridgeError:
            pass
    return image_to_bgr(message, MAX_PIXELS)


class Cropper(Node):
    """Keeps the newest images until their results come; writes DIRECTORY/SECONDS.NANOSECONDS-NUMBER-LABEL.png."""

    def __init__(self) -> None:
        super().__init__("cropper")
        self.directory = Path(self.declare_parameter("directory", "crops").value)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.images = OrderedDict()
        self.create_subscription(Image, "/camera/image_raw", self.on_image, qos_profile_sensor_data)
        self.create_subscription(PerceptionResult, "/activeo3/camera/result", self.on_result, 5)

    def on_image(self, image: Image) -> None:
        """A result has the stamp of its image."""
        self.images[(image.header.stamp.sec, image.header.stamp.nanosec)] = image
        while len(self.images) > KEPT_IMAGES:
            self.images.popitem(last=False)

    def on_result(self, result: PerceptionResult) -> None:
        """Write the detections that have pixels."""
        stamp = (result.header.stamp.sec, result.header.stamp.nanosec)
        if stamp not in self.images or result.status == PerceptionResult.STATUS_FAILED:
            return
        pixels = to_bgr(self.images[stamp])
        for number, found in enumerate(result.detections):
            left, top = max(0, int(found.box.x)), max(0, int(found.box.y))
            crop = pixels[top : int(found.box.y + found.box.height), left : int(found.box.x + found.box.width)]
            if crop.size:
                path = self.directory / f"{stamp[0]}.{stamp[1]:09d}-{number}-{found.label.replace('/', '_')}.png"
                cv2.imwrite(str(path), crop)
                print(path, flush=True)


if __name__ == "__main__":
    rclpy.init()
    executor = SingleThreadedExecutor()
    executor.add_node(Cropper())
    try:
        while rclpy.ok():  # rclpy.spin() misses a signal that comes just before it waits, and waits on
            executor.spin_once(timeout_sec=1.0)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
