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

"""Sample panels of a training run: pictures with targets, chosen regions, detections and the reward in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..core import Frame
from .rows import Row
from .scoring import Scored

PANEL_ANSWERS = 4


class Panels:
    """Saves a panel of the newest answers every so many steps."""

    def __init__(self, directory: Path, every: int, frames: Callable[[Row], Frame]) -> None:
        """Save nothing yet.

        Args:
            directory: Of the panels, made when the first is saved.
            every: Steps between panels, 0 for none.
            frames: Gives the picture of a row.
        """
        self._directory, self._every, self._frames = directory, every, frames
        self._latest: Sequence[Scored] = ()

    def remember(self, scored: Sequence[Scored]) -> None:
        """Keep the newest answers until the next ones come."""
        self._latest = scored

    def callback(self, transformers: Any) -> Any:
        """Make the trainer's callback that saves panels at the end of steps."""
        panels = self

        class SavePanels(transformers.TrainerCallback):  # type: ignore[misc, name-defined, unused-ignore]
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if panels._every and state.is_world_process_zero and state.global_step % panels._every == 0:
                    panels.save(state.global_step)

        return SavePanels()

    def save(self, step: int) -> None:
        """Write the panel of the newest answers, one of each picture, to `step-NNNNNN.jpg`."""
        different = list({each.row.image: each for each in self._latest}.values())[:PANEL_ANSWERS]
        if not different:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        tiles = [draw_scored(each, self._frames(each.row)) for each in different]
        cv2.imwrite(str(self._directory / f"step-{step:06d}.jpg"), np.vstack(tiles))


def draw_scored(scored: Scored, frame: Frame, width: int = 960, height: int = 540) -> Any:
    """Draw targets (green), regions (orange), detections (red) and the reward in words.

    Args:
        scored: The answer with its reward.
        frame: Its picture.
        width: Of the drawing, pixels.
        height: Of the drawing, pixels.

    Returns:
        `(height, width, 3)` uint8 BGR.
    """
    scale = min(width / frame.width, (height - 24) / frame.height)
    size = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    tile = np.zeros((height, width, 3), np.uint8)
    tile[: size[1], : size[0]] = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
    found = [each.box.as_tuple() for each in scored.detections or ()]
    for boxes, colour in ((scored.row.boxes, (80, 220, 80)), (scored.regions, (0, 150, 255)), (found, (60, 60, 255))):
        for x, y, wide, tall in np.asarray(boxes, np.float64).reshape(-1, 4) * scale:
            cv2.rectangle(tile, (int(x) - 1, int(y) - 1), (int(x + wide) + 1, int(y + tall) + 1), colour, 1)
    words = ", ".join(f"{name} {value:.2f}" for name, value in scored.reward.terms.items())
    words += ", task failed" if scored.failure else ""
    line = f"{', '.join(scored.row.classes)}: {scored.reward.total:.2f} ({words})"
    cv2.putText(tile, line, (6, height - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return tile
