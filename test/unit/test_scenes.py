"""Drawn road scenes: the same seed gives the same scene, and boxes and masks fit its pixels."""

from __future__ import annotations

import numpy as np
import pytest

from activeo3_tiny.scenes import FULL_HD, LABELS, SQUARE, draw_scene

SEEDS = range(12)


@pytest.mark.parametrize("size", [FULL_HD, SQUARE])
def test_a_seed_always_gives_the_same_scene(size: tuple[int, int]) -> None:
    first, again, other = draw_scene(5, size), draw_scene(5, size), draw_scene(6, size)
    assert first.image.shape == (size[1], size[0], 3)
    assert np.array_equal(first.image, again.image)
    assert [o.box for o in first.objects] == [o.box for o in again.objects]
    assert not np.array_equal(first.image, other.image)


def test_boxes_and_masks_are_those_of_the_pixels_drawn() -> None:
    for seed in SEEDS:
        scene = draw_scene(seed)
        for each in scene.objects:
            box, mask = each.box, each.mask
            assert mask.shape == (box.height, box.width)
            assert all(side.any() for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1])), "the box is tight"
            assert box == box.clipped(scene.image.shape[1], scene.image.shape[0])


def test_objects_do_not_hide_each_other() -> None:
    for seed in SEEDS:
        scene = draw_scene(seed)
        covered = np.zeros(scene.image.shape[:2], int)
        for each in scene.objects:
            covered[each.box.slices()] += each.mask
        assert covered.max() <= 1


def test_most_objects_are_small_and_every_class_occurs() -> None:
    objects = [each for seed in range(40) for each in draw_scene(seed).objects]
    assert {each.label for each in objects} == set(LABELS)
    assert np.mean([each.is_small for each in objects]) > 0.6
    assert any(not each.is_small for each in objects)


def test_small_objects_are_where_the_street_ends_and_lights_hang_above_people() -> None:
    near = []
    heights: dict[str, list[float]] = {"traffic light": [], "person": []}
    for seed in range(30):
        scene = draw_scene(seed)
        for each in scene.objects:
            _, y = each.box.center
            if each.is_small:
                near.append(abs(y - scene.vanishing_point[1]) < 0.12 * scene.image.shape[0])
            if each.label in heights:
                heights[each.label].append((y - scene.vanishing_point[1]) / each.box.height)
    assert np.mean(near) > 0.9
    assert np.median(heights["traffic light"]) < np.median(heights["person"])


def test_signs_carry_their_number_and_nothing_else_does() -> None:
    objects = [each for seed in range(20) for each in draw_scene(seed).objects]
    assert all(each.text.isdigit() == (each.label == "sign") for each in objects)


def test_a_scene_too_small_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 256 px"):
        draw_scene(0, (200, 400))
