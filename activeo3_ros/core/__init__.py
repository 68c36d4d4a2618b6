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

"""The core: a frame goes in, a policy says where to zoom, the zoomed crops are examined, one `Result` comes out.

Here: the loop (`ActivePerception`), the values that go in (`Frame`, `Query`, `Budget`) and come out (`Result`), boxes
and their arithmetic, what all views of a frame say together (`evidence`), the memory of a camera (`Scene`), the
interfaces that models implement, the errors. NumPy and OpenCV only.
Not here: models, presets, files, messages, ROS.

>>> from activeo3_ros.core import ActivePerception, Budget, Frame, Query
>>> perception = ActivePerception(policy, task_model, Budget(max_regions=3))  # doctest: +SKIP
>>> result = perception.perceive(Frame(image), Query(classes=("car",)))       # doctest: +SKIP
>>> [(found.label, found.score, found.box) for found in result.detections]    # doctest: +SKIP

`presets.load_preset("embedded").build()` gives an `ActivePerception` with models that are ready to use.
"""

from .budget import Budget, Cost
from .errors import Cancelled, ComponentError, EngineError, InvalidInput, OutOfMemory, PerceptionError, UnsupportedQuery
from .frame import GLOBAL_VIEW, Frame, InputSize, View
from .geometry import Box
from .interfaces import Detector, OpenVocabularyDetector, Segmenter, SensingPolicy, TaskModel
from .loop import ActivePerception
from .query import Query
from .results import (
    NO_DETECTION,
    DetectedBoxes,
    Detection,
    Finding,
    Findings,
    Grounding,
    InstanceMask,
    Proposal,
    Region,
    Result,
    Status,
    Track,
)
from .scene import Scene

__all__ = [
    "GLOBAL_VIEW",
    "NO_DETECTION",
    "ActivePerception",
    "Box",
    "Budget",
    "Cancelled",
    "ComponentError",
    "Cost",
    "DetectedBoxes",
    "Detection",
    "Detector",
    "EngineError",
    "Finding",
    "Findings",
    "Frame",
    "Grounding",
    "InputSize",
    "InstanceMask",
    "InvalidInput",
    "OpenVocabularyDetector",
    "OutOfMemory",
    "PerceptionError",
    "Proposal",
    "Query",
    "Region",
    "Result",
    "Scene",
    "Segmenter",
    "SensingPolicy",
    "Status",
    "TaskModel",
    "Track",
    "UnsupportedQuery",
    "View",
]
