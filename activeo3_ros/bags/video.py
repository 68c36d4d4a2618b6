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

"""A video as the messages of an image topic."""

from __future__ import annotations

from collections.abc import Callable

from ..codecs.image_files import Picture
from ..codecs.video import Video
from .messages import COMPRESSED_TYPE, IMAGE_TYPE, camera_of, serialize_image, serialize_jpeg
from .storage import Topic

DEFAULT_TOPIC = "/camera/image_raw"
"""Of the camera that the node listens to unless it is told another."""
COMPRESSED_ENDING = "/compressed"
"""The end of the topics that carry JPEG, as image_transport names them."""


def image_topic(name: str) -> Topic:
    """The topic of a video: of JPEG where its name ends as image_transport names these, else of raw images."""
    return Topic(name, COMPRESSED_TYPE if name.endswith(COMPRESSED_ENDING) else IMAGE_TYPE)


def serializer(topic: Topic) -> Callable[[Picture, int], bytes]:
    """Makes the messages of a video's topic from a frame and its stamp in nanoseconds.

    Their coordinate frame is CAMERA_optical_frame.
    """
    serialize = serialize_jpeg if topic.type == COMPRESSED_TYPE else serialize_image
    frame_id = f"{camera_of(topic.name).replace('/', '_')}_optical_frame"
    return lambda image, stamp_ns: serialize(image, stamp_ns, frame_id)


def start_ns(video: Video) -> int:
    """The stamp of a video's beginning: when it was recorded, if the file says so, else 0."""
    return video.created_ns or 0
