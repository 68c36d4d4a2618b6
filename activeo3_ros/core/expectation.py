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

"""What the memory of a scene tells a policy before a frame is looked at."""

from __future__ import annotations

from dataclasses import dataclass

from .geometry import Box


@dataclass(frozen=True)
class ExpectedObject:
    """An object of earlier frames where it should be in this one.

    Attributes:
        label: Class name.
        box: In pixels of the view of the whole frame.
        existence: Probability that it is there, 0 to 1.
    """

    label: str
    box: Box
    existence: float


@dataclass(frozen=True)
class PastZoom:
    """A zoom of an earlier frame.

    Attributes:
        window: The part that it showed, in pixels of the view of the whole frame, where it is now.
        zoom: Its pixels for each pixel of that view.
        age_s: How long ago it was, seconds.
    """

    window: Box
    zoom: float
    age_s: float


@dataclass(frozen=True)
class Expectation:
    """What memory says before a frame is looked at.

    Attributes:
        objects: The objects that should be in it.
        zooms: What was zoomed into in the last seconds.
    """

    objects: tuple[ExpectedObject, ...] = ()
    zooms: tuple[PastZoom, ...] = ()
