"""The second stage of a head: sets of windows are drawn by their gain, and rewarded by what they find and cost."""

import numpy as np
import pytest
import torch

from activeo3_ros.core import Box, DetectedBoxes
from activeo3_ros.core.results import Region
from activeo3_ros.training.proposals_scenes import DENSE_ZOOMS, Scene
from activeo3_ros.training.proposals_sets import GROUP, WEIGHTS, advantages, reward_of, sampled_sets, set_loss

ZOOMS, CELL_PX, CROP = (2.0, 4.0), 16.0, (256, 256)
PLACES = ((30.0, 40.0), (200.0, 150.0))


def scene():
    """Two small objects, which any zoom from 4 on finds."""
    boxes = np.array([[x, y, 8.0, 8.0] for x, y in PLACES])
    found = np.tile((DENSE_ZOOMS >= 3.9).astype(float), (2, 1))
    none = DetectedBoxes(np.empty((0, 4)), np.empty(0, np.float32), np.empty(0, np.intp))
    return Scene(
        np.zeros((192, 256, 3), np.uint8), (1024, 768), none, boxes, np.zeros(2, np.intp), np.ones(2), found,
        np.zeros(2, bool), (0,),
    )  # fmt: skip


def window(x, y, side=64.0):
    return Region(Box(x, y, side, side), "", 0.0)


def draw(rates, start=None, seed=0, count=3):
    random = np.random.default_rng(seed)
    return sampled_sets(rates, rates if start is None else start, scene(), ZOOMS, CELL_PX, CROP, count, random)


def maps(value=0.05):
    return torch.full((2, 12, 16), value)


def test_a_look_has_to_pay_for_itself():
    one, both, wasted = [window(10, 20)], [window(10, 20), window(180, 120)], [window(10, 20), window(100, 20)]
    rewards = [reward_of(scene(), each, 3, CROP).total for each in (one, both, wasted, [])]
    assert rewards == pytest.approx([0.5 + WEIGHTS.looks * 2 / 3, 1 + WEIGHTS.looks / 3, 0.5 + WEIGHTS.looks / 3, 0.1])


def test_sets_lie_in_the_view_and_depend_on_nothing_but_the_seed():
    sets, log_probability, divergence = draw(maps())
    assert len(sets) == GROUP
    assert all(len(each.regions) <= 3 for each in sets)
    for region in (region for each in sets for region in each.regions):
        assert region.box.x >= 0 and region.box.right <= 256 and region.box.y >= 0 and region.box.bottom <= 192
    assert (log_probability < 0).all()
    assert divergence == pytest.approx(0, abs=1e-6)
    again = draw(maps())
    assert [each.regions for each in again[0]] == [each.regions for each in sets]
    assert [each.regions for each in draw(maps(), seed=1)[0]] != [each.regions for each in sets]
    assert (draw(maps(), torch.rand(2, 12, 16))[2] > 0).all()


def test_where_nothing_is_expected_the_set_is_empty():
    sets, _, _ = draw(maps(1e-5))
    assert all(each.regions == () for each in sets)


def test_a_set_counts_by_how_much_better_than_its_group_it_is():
    assert advantages([1.0, 3.0]).tolist() == [-1, 1]
    assert advantages([0.5] * 4).tolist() == [0] * 4
    better = set_loss(torch.tensor([-1.0, -2.0]), torch.zeros(2), [0.0, 1.0])
    worse = set_loss(torch.tensor([-2.0, -1.0]), torch.zeros(2), [0.0, 1.0])
    assert worse < better


def test_maps_learn_from_rewards_alone_where_the_objects_are():
    start = torch.stack([maps(1e-5)[0], maps()[0]])  # all places look alike
    logarithms = torch.log(start).requires_grad_()
    optimizer = torch.optim.Adam([logarithms], 0.1)
    rewards = []
    for step in range(60):
        sets, log_probability, divergence = draw(logarithms.exp(), start, step, 2)
        rewards.append(np.mean([each.reward.total for each in sets]))
        optimizer.zero_grad()
        set_loss(log_probability, divergence, [each.reward.total for each in sets]).backward()
        optimizer.step()
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.4
