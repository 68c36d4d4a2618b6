"""Turns tracks with positions into a cloud of obstacles with covariance and age, which marks and never clears.

python examples/track_obstacles.py --ros-args -p hold_s:=1.0 -p max_speed:=2.0
"""

from dataclasses import dataclass

import numpy as np
import rclpy
from activeo3_ros.msg import PerceptionResult, Track, TrackArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, PointCloud2, PointField

from activeo3_ros.codecs.camera_info import camera_model
from activeo3_ros.core import InvalidInput

FIELDS = ("x", "y", "z", "xx", "xy", "xz", "yy", "yz", "zz", "existence", "age", "track")
"""Of each point, float32: position (m), its covariance (m^2), existence, age (s), and the number in the track_id."""
SPACING_M = 0.1
MOST_POINTS = 200


@dataclass
class Obstacle:
    """Where an object was when a frame last measured it, in the optical frame of that image."""

    track_id: str
    label: str
    existence: float
    position: np.ndarray  # (3,) metres
    covariance: np.ndarray  # (3, 3) square metres
    left_right: tuple[float, float]  # where its visible surface ends, from the position along x, metres
    measured_ns: int

    def covariance_at(self, age_s: float, max_speed: float) -> np.ndarray:
        """The covariance, and as a standard deviation how far it may have moved meanwhile, the robot's way included."""
        return self.covariance + np.eye(3) * (max_speed * age_s) ** 2

    def points(self, age_s: float, max_speed: float, sigmas: float) -> np.ndarray:
        """`(n, len(FIELDS))`: its visible width, from the nearest to the farthest place that is plausible."""
        covariance = self.covariance_at(age_s, max_speed)
        towards = self.position / np.linalg.norm(self.position)
        deep = sigmas * float(np.sqrt(towards @ covariance @ towards))
        wide = sigmas * float(np.sqrt(covariance[0, 0]))
        across, along = np.meshgrid(
            _from_to(self.left_right[0] - wide, self.left_right[1] + wide), _from_to(-deep, deep)
        )
        places = self.position + across.reshape(-1, 1) * [1.0, 0.0, 0.0] + along.reshape(-1, 1) * towards
        same = [*covariance[np.triu_indices(3)], self.existence, age_s, float(self.track_id.rpartition(":")[2])]
        return np.hstack([places, np.tile(same, (len(places), 1))]).astype(np.float32)


def _from_to(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, min(MOST_POINTS, 1 + int(np.ceil((high - low) / SPACING_M))))


class ObstacleList:
    """Objects by track_id. One leaves `hold_s` after its last position, never because a frame did not show it."""

    def __init__(self, hold_s: float, least_existence: float) -> None:
        self.hold_s, self.least_existence = hold_s, least_existence
        self.by_track: dict[str, Obstacle] = {}

    def update(self, tracks: TrackArray, model, now_ns: int) -> list[Track]:
        """Take the positions of one frame; return the tracks that have never had one, or not for `hold_s`."""
        for track in tracks.tracks:
            if track.has_position and track.existence >= self.least_existence:
                self.by_track[track.track_id] = _obstacle(track, model, now_ns)
        self.by_track = {key: each for key, each in self.by_track.items() if 0 <= age(each, now_ns) <= self.hold_s}
        return [track for track in tracks.tracks if track.track_id not in self.by_track]


def age(obstacle: Obstacle, now_ns: int) -> float:
    """Seconds since it was measured."""
    return (now_ns - obstacle.measured_ns) / 1e9


def _obstacle(track: Track, model, now_ns: int) -> Obstacle:
    position = np.array([track.position.x, track.position.y, track.position.z])
    left_right = (0.0, 0.0)
    if model is not None:
        middle = track.box.y + track.box.height / 2
        ends = model.rays([(track.box.x, middle), (track.box.x + track.box.width, middle)])[:, 0] * position[2]
        if np.isfinite(ends).all():
            left_right = float(ends[0] - position[0]), float(ends[1] - position[0])
    covariance = np.array(track.position_covariance).reshape(3, 3)
    return Obstacle(track.track_id, track.label, track.existence, position, covariance, left_right, now_ns)


class TrackObstacles(Node):
    """Publishes /obstacles for every frame that may be acted on. Its silence means "blind", and so must it be read."""

    def __init__(self) -> None:
        super().__init__("track_obstacles")
        self.max_age_s = self.declare_parameter("max_age_s", 0.5).value
        self.max_speed = self.declare_parameter("max_speed", 2.0).value  # of objects against the robot, m/s
        self.sigmas = max(0.0, self.declare_parameter("sigmas", 1.0).value)
        self.obstacles = ObstacleList(
            self.declare_parameter("hold_s", 1.0).value, self.declare_parameter("least_existence", 0.5).value
        )
        self.info: CameraInfo | None = None
        self.image_size: tuple[int, int] | None = None
        self.cloud = self.create_publisher(PointCloud2, "obstacles", 5)
        self.create_subscription(CameraInfo, "/camera/camera_info", self.on_info, qos_profile_sensor_data)
        self.create_subscription(PerceptionResult, "/activeo3/camera/result", self.on_result, 5)
        self.create_subscription(TrackArray, "/activeo3/camera/tracks", self.on_tracks, 5)

    def on_info(self, info: CameraInfo) -> None:
        """The calibration gives the width of what a box shows."""
        self.info = info

    def on_result(self, result: PerceptionResult) -> None:
        """A frame that failed has no tracks; what was known of the scene grows old."""
        if result.status == PerceptionResult.STATUS_FAILED:
            print(f"blind: {result.status_message}", flush=True)
        else:
            self.image_size = result.image_width, result.image_height

    def on_tracks(self, tracks: TrackArray) -> None:
        """Publish what is known at the stamp of the image."""
        stamp = Time.from_msg(tracks.header.stamp)
        late_s = (self.get_clock().now() - stamp).nanoseconds / 1e9
        if late_s > self.max_age_s:
            print(f"too old: {late_s:.1f} s", flush=True)
            return
        unplaced = self.obstacles.update(tracks, self._model(), stamp.nanoseconds)
        known = self.obstacles.by_track.values()
        points = [each.points(age(each, stamp.nanoseconds), self.max_speed, self.sigmas) for each in known]
        self.cloud.publish(cloud(tracks, np.vstack(points) if points else np.empty((0, len(FIELDS)), np.float32)))
        names = ", ".join(f"{each.label} {np.linalg.norm(each.position):.1f} m" for each in known) or "no obstacle"
        missing = ", ".join(f"{track.label} {track.track_id}" for track in unplaced)
        print(names + (f"; without a position: {missing}" if missing else ""), flush=True)

    def _model(self):
        """The camera; None where it is not known yet or contradicts the images: widths are then 0."""
        if self.info is None or self.image_size is None:
            return None
        try:
            return camera_model(self.info, self.image_size, rectified=False)
        except InvalidInput as error:
            print(f"no widths: {error}", flush=True)
            return None


def cloud(tracks: TrackArray, points: np.ndarray) -> PointCloud2:
    """A message of `(n, len(FIELDS))` float32 in the frame and at the time of the image."""
    message = PointCloud2(header=tracks.header, height=1, width=len(points), is_dense=True)
    message.fields = [
        PointField(name=name, offset=4 * place, datatype=PointField.FLOAT32, count=1)
        for place, name in enumerate(FIELDS)
    ]
    message.point_step = 4 * len(FIELDS)
    message.row_step = message.point_step * len(points)
    message.data = points.astype("<f4").tobytes()
    return message


if __name__ == "__main__":
    rclpy.init()
    executor = SingleThreadedExecutor()
    executor.add_node(TrackObstacles())
    try:
        while rclpy.ok():  # rclpy.spin() misses a signal that comes just before it waits, and waits on
            executor.spin_once(timeout_sec=1.0)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
