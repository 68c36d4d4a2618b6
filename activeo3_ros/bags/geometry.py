# Copyright 2026 The activeo3_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""The calibration and the depth of recorded images, for the tracks that a replay writes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from rosbags.serde import SerdeError

from ..codecs.camera_info import camera_model, is_rectified
from ..codecs.depth_message import DepthSettings, check_stamps, registered_depth
from ..codecs.result_cdr import typestore
from ..core.camera import CameraModel
from ..core.errors import InvalidInput, without_numbers
from ..core.position import DepthImage
from .messages import IMAGE_TYPE, beside, image_message
from .reading import Bag, Damage, DamagedMessage, Entry, topic_type

INFO_TYPE = "sensor_msgs/msg/CameraInfo"
CALIBRATIONS_KEPT = 32
"""Deserialized camera_info: a bag has one for each image, and most are alike."""


class RecordedGeometry:
    """Gives each image of a bag its calibration and its depth.

    An image has the `camera_info` beside its topic with the newest stamp that is not younger, else the oldest, and the
    depth image that is nearest in time.

    Attributes:
        damage: The losses of the topics that are read.
        faults: Images without calibration or depth, by the reason; of reasons that differ in their numbers, the first.
    """

    def __init__(self, bag: Bag, image_topics: Sequence[str], settings: DepthSettings, depth_topic: str = "") -> None:
        """Index the topics.

        Args:
            bag: The bag.
            image_topics: Its image topics.
            settings: How depth images are read.
            depth_topic: The depth of the only image topic; "": `depth` beside each image topic, where the bag has it.

        Raises:
            InvalidInput: The depth topic is missing or of another type, or there are several image topics for it.
        """
        if depth_topic and len(image_topics) > 1:
            raise InvalidInput(f"{depth_topic} is the depth of one topic with pictures, and there are several")
        if depth_topic and topic_type(bag, depth_topic) != IMAGE_TYPE:
            found = bag.topics[depth_topic].describe_type()
            raise InvalidInput(f"{bag.path}: {depth_topic} is {found}; depth is {IMAGE_TYPE}, not compressed")
        self._bag = bag
        self._settings = settings
        self._info_topics = {topic: beside(topic, "camera_info") for topic in image_topics}
        self._depth_topics = {topic: depth_topic or beside(topic, "depth") for topic in image_topics}
        wanted = {**dict.fromkeys(self._info_topics.values(), INFO_TYPE)}
        wanted |= dict.fromkeys(self._depth_topics.values(), IMAGE_TYPE)
        present = [topic for topic, kind in wanted.items() if topic in bag.topics and bag.topics[topic].type == kind]
        entries, self.damage = bag.index(present) if present else ([], Damage())
        self._entries: dict[str, list[Entry]] = {topic: [] for topic in wanted}
        for entry in entries:
            self._entries[entry.topic].append(entry)
        self.has_depth = any(self._entries[topic] for topic in self._depth_topics.values())
        self.faults: Counter[str] = Counter()
        self._kinds: dict[str, str] = {}
        self._calibration = lru_cache(CALIBRATIONS_KEPT)(self._read_calibration)

    def of(
        self, topic: str, stamp_ns: int, frame_id: str, size: tuple[int, int]
    ) -> tuple[CameraModel | None, DepthImage | None]:
        """The calibration and the depth of an image, None for what it has not; the reason is counted.

        Args:
            topic: The topic of the image.
            stamp_ns: Its stamp, nanoseconds.
            frame_id: Its coordinate frame.
            size: Its width and height, pixels.
        """
        model = self._tried(lambda: self._model(topic, stamp_ns, size))
        if model is None or not self.has_depth:
            return model, None
        return model, self._tried(lambda: self._depth(topic, stamp_ns, frame_id, size))

    def _tried(self, find: Callable[[], Any]) -> Any:
        try:
            return find()
        except (InvalidInput, DamagedMessage) as error:
            self.faults[self._kinds.setdefault(without_numbers(str(error)), str(error))] += 1
            return None

    def _model(self, topic: str, stamp_ns: int, size: tuple[int, int]) -> CameraModel | None:
        entries = self._entries[self._info_topics[topic]]
        if not entries:
            if self.has_depth:
                raise InvalidInput(f"no calibration on {self._info_topics[topic]}")
            return None
        index = bisect_right(entries, stamp_ns, key=lambda entry: entry.stamp_ns) - 1
        return camera_model(self._calibration(entries[max(0, index)]), size, is_rectified(topic))

    def _read_calibration(self, entry: Entry) -> Any:
        try:
            return typestore().deserialize_cdr(self._bag.read(entry), INFO_TYPE)
        except SerdeError as error:
            raise InvalidInput(f"a message of {entry.topic} is not a whole {INFO_TYPE}: {error}") from error

    def _depth(self, topic: str, stamp_ns: int, frame_id: str, size: tuple[int, int]) -> DepthImage | None:
        entries = self._entries[self._depth_topics[topic]]
        if not entries:
            return None
        index = bisect_left(entries, stamp_ns, key=lambda entry: entry.stamp_ns)
        near = entries[max(0, index - 1) : index + 1]
        nearest = min(near, key=lambda entry: abs(entry.stamp_ns - stamp_ns))
        check_stamps(nearest.stamp_ns, stamp_ns, self._settings.tolerance_s)
        message = image_message(self._bag.read(nearest), IMAGE_TYPE)
        return registered_depth(message, frame_id, size, self._settings)
