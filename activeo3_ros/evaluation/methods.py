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

"""The methods under comparison: a preset, or the oracle with a preset's task model, at a number of regions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..core import Budget
from ..core.budget import MAX_REGIONS
from ..presets import Preset, load_preset

BASELINES = ("full_frame", "centre_crop", "grid", "random", "sahi", "adaptive_slices")
OWN_REGIONS = ("sahi", "adaptive_slices")
"""Types of sensing whose number of regions follows from the frame, whatever was asked for."""
ORACLE = "oracle"
"""Takes the windows in which the task model really finds the most true objects."""
BOX_ORACLE = "box_oracle"
"""Takes the windows that show the true boxes largest, for questions whose objects no detection names."""


@dataclass(frozen=True)
class Method:
    """A preset at a number of regions.

    Attributes:
        name: For people; methods of one name differ in their number of regions.
        preset: Its models and its budget.
        regions: Number of regions, instead of that of the preset's budget; None where the policy has its own.
        oracle: Which oracle chooses the regions from the ground truth, "" for none.
    """

    name: str
    preset: Preset
    regions: int | None
    oracle: str = ""

    @property
    def id(self) -> str:
        """Name and number of regions, which name the directory of its results."""
        return self.name if self.regions is None else f"{self.name}-{self.regions}"

    @property
    def budget(self) -> Budget:
        """The preset's budget with this number of regions."""
        return replace(self.preset.budget, max_regions=MAX_REGIONS if self.regions is None else self.regions)

    def facts(self) -> dict[str, Any]:
        """Everything that its results depend on, besides the frame and the query."""
        preset = self.preset
        return {
            "name": self.name,
            "sensing": self.oracle or preset.sensing.facts,
            "task": preset.task.facts,
            "segmenter": preset.segmenter.facts if preset.segmenter else None,
            "examine_view": preset.examine_view,
            "budget": asdict(self.budget),
        }


def choose_methods(
    presets: Sequence[str],
    regions: Sequence[int] | None,
    baselines: bool,
    oracle: str = ORACLE,
    left_out: Sequence[str] = (),
) -> list[Method]:
    """Combine every preset with every number of regions.

    A policy that never zooms runs once, and so does one whose number of regions follows from the frame. The baselines
    and the oracle keep the task model, segmenter and budget of the first preset, so that only the choice of regions
    differs.

    Args:
        presets: Names or files of presets.
        regions: Numbers of regions; None takes each preset's own.
        baselines: Whether to add the fixed policies and the oracle.
        oracle: Which oracle, `ORACLE` or `BOX_ORACLE`; "" for none.
        left_out: Baselines that make no sense for the data set.

    Returns:
        The methods, those of the first preset first.

    Raises:
        InvalidInput: There is no such preset, or it is wrong.
    """
    loaded = [load_preset(name) for name in presets]
    first = loaded[0]
    named = [(preset.name, preset, "") for preset in loaded]
    if baselines:
        for name in BASELINES:
            if name not in [*left_out, *(preset.name for preset in loaded)]:
                baseline = replace(load_preset(name), task=first.task, segmenter=first.segmenter, budget=first.budget)
                named.append((name, baseline, ""))
        if oracle:
            named.append((oracle, first, oracle))
    methods = []
    for name, preset, chooser in named:
        counts: list[int | None] = list(regions or [preset.budget.max_regions])
        if chooser:
            counts = [count for count in counts if count]  # at none, it is the full frame
        elif preset.sensing.type == "full_frame":
            counts = [0]
        elif preset.sensing.type in OWN_REGIONS:
            counts = [None]
        elif baselines and name in BASELINES:
            counts = [count for count in counts if count]
        methods += [Method(name, preset, count, chooser) for count in dict.fromkeys(counts)]
    return methods


def models_key(method: Method) -> str:
    """A key that is equal for methods that one `Runner` can serve."""
    facts = method.facts()
    facts["budget"] = None
    return json.dumps(facts, sort_keys=True, default=str)
