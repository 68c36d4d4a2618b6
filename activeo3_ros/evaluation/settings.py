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

"""The settings of one benchmark run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .metrics import MAX_DETECTIONS


@dataclass(frozen=True)
class RunSettings:
    """How a run is computed and scored.

    Attributes:
        out: Directory of the results.
        question: Title of the report.
        command: Arguments of `activeo3` that repeat the run.
        seed: Of the bootstrap, and of the subset where one is drawn.
        workers: Number of processes.
        replicates: Number of bootstrap replicates.
        max_detections: Detections that count, of one category in one image.
        sam_weights: Directory of SAM's weights for interactive segmentation, "" for GrabCut.
    """

    out: Path
    question: str
    command: Sequence[str]
    seed: int = 0
    workers: int = 1
    replicates: int = 500
    max_detections: int = MAX_DETECTIONS[-1]
    sam_weights: str = ""
