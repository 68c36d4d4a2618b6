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

"""The second stage of a head: group-relative policy optimisation over sampled sets of windows.

The maps of a head are a policy: of all windows that the greedy choice compares, one is drawn with a probability that
rises with its gain, the maps lose what it finds, and so on, until the set is full or stopping is drawn. The sets of one
scene are a group; each is rewarded by what it finds and by the looks that it leaves, and made more likely as far as it
is better than its group. Every set is used once, so the ratio to the policy that drew it is 1 and needs no clipping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..core.geometry import as_array
from ..core.results import Region
from ..policies.map_windows import LABEL, GainMaps, Placements, window_sizes
from .proposals_scenes import Scene
from .rewards import Reward, RewardWeights, combine, looks_term

GROUP = 8
"""Sets of a scene."""
TEMPERATURE = 0.1
"""Probability grows with the gain to the power of 1 / this."""
STOP_GAIN = 0.1
"""Expected objects of a window that is as likely as stopping: what the policy asks of a look by default."""
KL_WEIGHT = 0.04
"""Of the divergence from the head that the stage began with."""
LOWEST_GAIN = 1e-6
WEIGHTS = RewardWeights(format=0.0, overlap=0.0, area=0.0, coverage=0.0, task=1.0, looks=0.1)
"""The terms about form are those of written answers; windows are always well formed."""


@dataclass(frozen=True)
class SampledSet:
    """One set of windows, and what its reward is made of."""

    regions: tuple[Region, ...]
    reward: Reward


def reward_of(scene: Scene, regions: Sequence[Region], max_regions: int, crop_size: tuple[int, int]) -> Reward:
    """Reward a set: the share of what could be newly found that it finds, and the looks that it leaves."""
    found = float(scene.gain_of(regions, crop_size).sum()) / max(1.0, float(scene.new.sum()))
    looks = looks_term(as_array(region.box for region in regions), max_regions)
    return combine({"task": found, "looks": looks}, WEIGHTS)


def sampled_sets(
    rates: Tensor,
    start: Tensor,
    scene: Scene,
    zooms: Sequence[float],
    cell_px: float,
    crop_size: tuple[int, int],
    max_regions: int,
    random: np.random.Generator,
) -> tuple[list[SampledSet], Tensor, Tensor]:
    """Draw a group of sets.

    Args:
        rates: `(z, h, w)` expected objects of the head in training.
        start: `(z, h, w)` of the head that the stage began with.
        scene: The scene.
        zooms: Magnification of each map.
        cell_px: View pixels along a side of a cell.
        crop_size: Width and height of the largest crop, pixels.
        max_regions: Windows in a set at most.
        random: Draws.

    Returns:
        The sets; `(g,)` the logarithm of the probability of each; `(g,)` the divergence from the start along it.
    """
    levels = [level for level, zoom in enumerate(zooms) if not level or zoom <= scene.largest_zoom * 1.01]
    shape = GainMaps(tuple(zooms), np.zeros(tuple(rates.shape)), cell_px)
    places = [
        Placements.of(shape, scene.size, window_sizes(scene.size, crop_size, zooms[level], zooms[level])[0])
        for level in levels
    ]
    shares = [tuple(torch.from_numpy(each).to(rates) for each in (place.down, place.across)) for place in places]
    begins = np.cumsum([0, *(len(place.top) * len(place.left) for place in places)])
    now, before = rates.expand(GROUP, *rates.shape), start.expand(GROUP, *start.shape)
    log_probability, divergence = rates.new_zeros(GROUP), rates.new_zeros(GROUP)
    chosen: list[list[Region]] = [[] for _ in range(GROUP)]
    goes_on = np.ones(GROUP, bool)
    for _ in range(max_regions):
        log_now, log_before = (_log_probabilities(each, levels, shares) for each in (now, before))
        each_kl = (log_now.exp() * (log_now - log_before)).sum(dim=1)
        cumulative = log_now.detach().double().exp().cumsum(dim=1).numpy()
        drawn = [int(np.searchsorted(row, u * row[-1])) for row, u in zip(cumulative, random.uniform(size=GROUP))]  # noqa: B905
        active = torch.from_numpy(goes_on.astype(np.float32)).to(rates)
        log_probability = log_probability + active * log_now[torch.arange(GROUP), torch.tensor(drawn)]
        divergence = divergence + active * each_kl
        shown = torch.zeros_like(now[:, :1])
        level_of = np.zeros(GROUP, int)
        for index, number in enumerate(drawn):
            if number >= begins[-1]:
                goes_on[index] = False
            if not goes_on[index]:
                continue
            which = int(np.searchsorted(begins, number, side="right")) - 1
            place, (down, across) = places[which], shares[which]
            row, column = divmod(number - int(begins[which]), len(place.left))
            shown[index, 0] = torch.outer(down[row], across[column])
            level_of[index] = levels[which]
            chosen[index].append(Region(place.box(row, column), LABEL, 0.0))
        if not goes_on.any():
            break
        picked = torch.arange(GROUP), torch.from_numpy(level_of)
        now = torch.relu(now - now[picked][:, None] * shown)
        before = torch.relu(before - before[picked][:, None] * shown)
    sets = [SampledSet(tuple(each), reward_of(scene, each, max_regions, crop_size)) for each in chosen]
    return sets, log_probability, divergence


def _log_probabilities(rates: Tensor, levels: Sequence[int], shares: Sequence[tuple[Tensor, ...]]) -> Tensor:
    """`(g, n + 1)` logarithm of the probability of each window, and of stopping."""
    gains = [
        (down @ rates[:, level] @ across.T).flatten(1) for level, (down, across) in zip(levels, shares, strict=True)
    ]
    stop = torch.full_like(gains[0][:, :1], STOP_GAIN)
    logits = torch.cat([*gains, stop], dim=1).clamp_min(LOWEST_GAIN).log() / TEMPERATURE
    return torch.log_softmax(logits, dim=1)


def advantages(rewards: Sequence[float]) -> Tensor:
    """`(g,)` how much better each set is than its group, in standard deviations; 0 where all are alike."""
    values = torch.tensor(rewards, dtype=torch.float32)
    spread = values.std(correction=0)
    return (values - values.mean()) / spread if spread > LOWEST_GAIN else torch.zeros_like(values)


def set_loss(log_probability: Tensor, divergence: Tensor, rewards: Sequence[float]) -> Tensor:
    """Of one group: the mean of its sets."""
    return (KL_WEIGHT * divergence - advantages(rewards) * log_probability).mean()
