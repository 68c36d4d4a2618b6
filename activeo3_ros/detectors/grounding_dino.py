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

"""GroundingDINO (Liu et al. 2023) with the settings of its authors: finds what words name.

The model scores each box against each token of its prompt. A box gets the class with the best token, so that a part of
a class's name counts for that class alone. More classes than the text encoder holds go into several prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from ..core.errors import InvalidInput
from ..core.frame import Image, InputSize
from ..core.interfaces import OpenVocabularyDetector
from ..core.results import DetectedBoxes
from ..settings import validated, within
from .transformers_detector import TransformersDetector


class GroundingDino(TransformersDetector):
    """Finds what words name; any open-vocabulary model of transformers fits, but the defaults are GroundingDINO's."""

    @validated
    def __init__(
        self,
        model: str | Path = "IDEA-Research/grounding-dino-tiny",
        text_threshold: Annotated[float, within(0.01, 1)] = 0.25,
        max_side: Annotated[int, within(64, 4096, "pixels")] = 1024,
        device: str = "auto",
    ) -> None:
        """Load the model.

        Args:
            model: A directory, or the hub id of a model that `activeo3 prefetch` brought here.
            text_threshold: Score from which a word counts for a box.
            max_side: A view's longer side as the model sees it.
            device: "auto" for the first CUDA device, else the CPU; or a name that torch knows, such as "cuda:1".

        Raises:
            MissingPackageError: torch or transformers is not installed.
            AssetError: The weights are not on this machine.
            EngineError: They cannot be loaded.
            InvalidInput: The model has fixed classes.
        """
        super().__init__(model, batch_size=4, device=device)
        if not isinstance(self, OpenVocabularyDetector):
            raise InvalidInput(f"{model} finds {', '.join(self.names[:3])} … and no other words")
        self.text_threshold = text_threshold
        self.input_size = InputSize(max_side, max_side)

    def detect(self, images: Sequence[Image], threshold: float) -> list[DetectedBoxes]:
        return super().detect(images, max(threshold, self.text_threshold))
