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

"""How many pictures a head is taught on, and for how long, so that it is ready within some minutes.

The teacher's looks at a picture of each source, a few scenes and a batch are timed; the rest is counted.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ..core.budget import Budget
from ..core.errors import InvalidInput
from ..core.query import Query
from ..detectors.detector_task import DetectorTask
from ..evaluation.item_files import write_atomically
from ..policies.box_maps import CHANNELS, MAP_CELL_PX
from .proposals import HINT_THRESHOLD, ZOOMS, TrainingSettings
from .proposals_material import FEWEST
from .proposals_net import PAD_PX, GainNet
from .proposals_scenes import Composer
from .proposals_teacher import LookedPicture

MOST_PICTURES, MOST_STEPS, FEWEST_STEPS = 150, 1200, 100
"""More pictures of one source look the same, and more batches change little; after fewer a head knows nothing."""
LOOKING = 0.5
"""Share of the time for the teacher's looks."""
RESERVE = 0.15
"""Share of the time for reading, the report, and what takes longer than it was timed."""
TIMED_SCENES = 4
PLAN = "plan.json"


@dataclass(frozen=True)
class Costs:
    """Seconds that each part of the work takes.

    Attributes:
        look: A picture of each source.
        scene: One scene.
        batch: The network, for one batch.
    """

    look: tuple[float, ...]
    scene: float
    batch: float

    def step(self, settings: TrainingSettings) -> float:
        """One batch, and its part of the judgements."""
        judged = settings.validation_scenes * self.scene / settings.validate_every
        return settings.batch * self.scene + self.batch + judged


@dataclass(frozen=True)
class Plan:
    """What is taught.

    Attributes:
        max_pictures: Of each source.
        steps: Batches.
        seconds: How long it takes, about.
    """

    max_pictures: int
    steps: int
    seconds: float


def planned(
    minutes: float,
    costs: Costs,
    available: Sequence[int],
    settings: TrainingSettings,
    max_pictures: int | None = None,
    steps: int | None = None,
) -> Plan:
    """Choose how many pictures are looked at and how many batches follow.

    Args:
        minutes: Within which it is to be ready.
        costs: As they were timed.
        available: Pictures of each source.
        settings: Of the training; its number of steps does not count.
        max_pictures: Where the user chooses it.
        steps: Where the user chooses it.

    Returns:
        The plan; it takes longer only where even the fewest pictures and batches do, or the user's do.
    """
    total, judge = 60 * minutes * (1 - RESERVE), settings.validation_scenes * costs.scene
    step = costs.step(settings)

    def looking(count: int) -> float:
        return sum(min(count, there) * each for there, each in zip(available, costs.look, strict=True))

    fixed = judge + (steps or 0) * step + settings.stage2_steps * step
    if max_pictures is None:
        within = total - fixed if steps is not None else LOOKING * total
        counts = range(FEWEST, min(MOST_PICTURES, max(FEWEST, *available)) + 1)
        max_pictures = max((count for count in counts if looking(count) <= within), default=FEWEST)
    if steps is None:
        left = (total - fixed - looking(max_pictures)) / step if step else MOST_STEPS
        steps = int(np.clip(math.floor(left), FEWEST_STEPS, MOST_STEPS))
        fixed += steps * step
    return Plan(max_pictures, steps, (fixed + looking(max_pictures)) / (1 - RESERVE))


def timed_costs(
    task: DetectorTask,
    looked: Sequence[LookedPicture],
    look_s: Sequence[float],
    budget: Budget,
    query: Query,
    settings: TrainingSettings,
) -> Costs:
    """Time scenes of some pictures and a batch.

    Args:
        task: Of the preset.
        looked: Pictures that the teacher has looked at.
        look_s: How long it took for one of each source, seconds.
        budget: Of the preset.
        query: Of the preset.
        settings: Of the training.
    """
    composer = Composer(task, looked, budget, query, settings.mosaics, settings.frame_mosaics, HINT_THRESHOLD)
    composer.scene((0,))  # the first one warms up
    begun = time.monotonic()
    sizes = [composer.scene((number,)).size for number in range(1, TIMED_SCENES + 1)]
    composed = time.monotonic()
    width, height = (max(math.ceil(size[axis] / PAD_PX) * PAD_PX for size in sizes) for axis in (0, 1))
    net = GainNet(len(ZOOMS))
    view = torch.zeros(settings.batch, 3, height, width)
    maps = torch.zeros(settings.batch, CHANNELS, height // MAP_CELL_PX, width // MAP_CELL_PX)
    net(view, maps).sum().backward()
    trained = time.monotonic()
    return Costs(tuple(look_s), (composed - begun) / TIMED_SCENES, trained - composed)


def kept_plan(out: Path, asked: Sequence[object]) -> Plan | None:
    """The plan of an earlier run that was asked for the same, so that a run which was stopped goes on as it began."""
    try:
        content = json.loads((out / PLAN).read_text(encoding="utf-8"))
        return Plan(**content["plan"]) if content["asked"] == json.loads(json.dumps(asked)) else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{out / PLAN}: cannot be read: {error}; remove it or give --afresh") from error


def keep_plan(out: Path, asked: Sequence[object], plan: Plan) -> None:
    """Write a plan for the next run."""
    write_atomically(out / PLAN, json.dumps({"asked": asked, "plan": asdict(plan)}))
