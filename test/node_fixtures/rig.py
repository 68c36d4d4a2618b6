"""A camera with calibration and depth before a node."""

from __future__ import annotations

from array import array

import numpy as np
from activeo3_ros.msg import Track, TrackArray
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from waiting import wait_for

from node_fixtures.client import RELIABLE, Client
from node_fixtures.client import image as bgr_message
from node_fixtures.fakes import FINE, picture

WIDTH, HEIGHT = 80, 60
K = [100.0, 0.0, 39.5, 0.0, 100.0, 29.5, 0.0, 0.0, 1.0]
"""The middle of the picture is the principal point, counted in pixel centres."""


def depth_message(depth: np.ndarray, stamp: Time, frame_id: str = "optical") -> Image:
    """Of `(h, w)` uint16 or float32."""
    height, width = depth.shape
    encoding = {"u": "16UC1", "f": "32FC1"}[depth.dtype.kind]
    message = Image(height=height, width=width, encoding=encoding, step=width * depth.itemsize)
    message.header = Header(stamp=stamp, frame_id=frame_id)
    message.data = array("B", depth.tobytes())
    return message


class Rig:
    """A camera with calibration and depth before a node; each frame has a stamp of its own, 0.1 s after the last."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.tracks: list[TrackArray] = client.collect(TrackArray, "camera/tracks")
        self.infos = client.node.create_publisher(CameraInfo, "/camera/camera_info", RELIABLE)
        self.depths = client.node.create_publisher(Image, "/camera/depth", RELIABLE)
        self.images = client.images["camera"]
        self.tenths = 10
        wait_for(lambda: self.infos.get_subscription_count() and self.depths.get_subscription_count(), 30)

    def next_stamp(self) -> Time:
        self.tenths += 1
        self.stamp = Time(sec=self.tenths // 10, nanosec=self.tenths % 10 * 100_000_000)
        return self.stamp

    def info(self, stamp: Time, **fields) -> CameraInfo:
        values = {"width": WIDTH, "height": HEIGHT, "k": K, "distortion_model": "plumb_bob", **fields}
        return CameraInfo(header=Header(stamp=stamp, frame_id="optical"), **values)

    def frame(self, depth: np.ndarray | None, late_ns: int = 0, frame_id: str = "optical", **info) -> Track | None:
        """Publish an image with its camera_info and depth; the track of the thing that fills the picture."""
        stamp = self.next_stamp()
        before = len(self.tracks)
        self.infos.publish(self.info(stamp, **info))
        if depth is not None:
            self.depths.publish(depth_message(depth, Time(sec=stamp.sec, nanosec=stamp.nanosec + late_ns), frame_id))
        self.images.publish(bgr_message(picture(FINE, HEIGHT, WIDTH), stamp))
        mine = wait_for(lambda: [each for each in self.tracks[before:] if each.header.stamp == stamp], 15)[0]
        return next((track for track in mine.tracks if track.label == "thing"), None)

    def steady(self, wanted, *depth, **fields) -> Track:
        """The track of the first frame that is as wanted; topics may come in any order, so a frame may miss another."""

        def track() -> Track | None:
            found = self.frame(*depth, **fields)
            return found if found is not None and wanted(found) else None

        return wait_for(track, 30)
