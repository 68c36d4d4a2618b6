"""A slow policy beside fast frames: every frame has a result, and its regions say how old they are."""

import threading

import numpy as np
import pytest
from textured_picture import picture

from activeo3_ros.core import (
    ActivePerception,
    Box,
    Budget,
    Finding,
    Findings,
    Frame,
    Proposal,
    Region,
    Scene,
    Status,
)
from activeo3_ros.core.background import MAX_AGE_S, BackgroundSensing

STEP_NS = 100_000_000
PICTURE = picture()


class SlowPolicy:
    """Chooses one window, when it is told to."""

    concurrent = True

    def __init__(self):
        self.may_answer, self.error, self.calls = threading.Event(), None, 0

    def view_size(self, width, height, max_pixels):
        return 500, 300

    def propose(self, view, query, budget):
        self.calls += 1
        assert self.may_answer.wait(30)
        if self.error:
            raise self.error
        return Proposal((Region(Box(100, 100, 100, 100), "there"),), Findings(), tokens=7)


class Finder:
    """Finds one thing in the whole frame."""

    batch_size = 4

    def view_size(self, width, height, max_pixels):
        return 400, 300

    def examine(self, views, query, budget):
        return [Findings((Finding("car", Box(*v.from_source([[420, 300, 60, 40]])[0]), 0.9),)) for v in views]

    def answer(self, query, findings, groundings):
        return None


@pytest.fixture
def slow():
    policy, scene = SlowPolicy(), Scene()
    scene.sensing = BackgroundSensing()
    perception = ActivePerception(policy, Finder(), Budget())

    def perceive(number, image=PICTURE):
        return perception.perceive(Frame(np.ascontiguousarray(image), stamp_ns=number * STEP_NS), scene=scene)

    yield policy, perceive, scene
    policy.may_answer.set()


def finish(policy, scene):
    """Let the policy answer once, and wait until its answer is there."""
    choice = scene.sensing._pending
    policy.may_answer.set()
    assert choice.is_done.wait(30)
    policy.may_answer.clear()


def test_frames_do_not_wait_and_ids_are_stable_across_a_change_of_regions(slow):
    policy, perceive, scene = slow
    before = [perceive(number) for number in (1, 2, 3)]
    assert all(result.status == Status.COMPLETE and result.regions == () for result in before)
    finish(policy, scene)
    after = [perceive(number) for number in (4, 5)]
    assert [len(result.regions) for result in after] == [1, 1]
    assert [result.regions_age_ms for result in after] == [300.0, 400.0]
    ids = [{found.track_id for found in result.detections} for result in (*before, *after)]
    assert all(each >= ids[0] for each in ids)
    assert [result.cost.tokens for result in after] == [7, 0]


def test_regions_move_with_the_camera(slow):
    policy, perceive, scene = slow
    perceive(1)
    finish(policy, scene)
    still, moved = perceive(2), perceive(3, np.roll(PICTURE, -20, axis=1))
    assert still.regions[0].box.x == pytest.approx(200, abs=3)
    assert moved.regions[0].box.x == pytest.approx(180, abs=6)


def test_an_error_of_the_policy_fails_one_frame_and_is_told(slow):
    policy, perceive, scene = slow
    perceive(1)
    policy.error = RuntimeError("no memory")
    finish(policy, scene)
    failed = perceive(2)
    assert failed.status == Status.FAILED
    assert "no memory" in failed.status_message
    assert perceive(3).status == Status.COMPLETE


def test_a_cut_forgets_the_regions_of_another_scene(slow):
    policy, perceive, scene = slow
    perceive(1)
    finish(policy, scene)
    assert perceive(2).regions
    assert perceive(3, picture(1)).regions == ()


def test_a_policy_that_hangs_is_told(slow):
    _, perceive, _ = slow
    results = [perceive(1 + 10 * number) for number in range(round(MAX_AGE_S) + 3)]
    assert results[1].status == Status.COMPLETE
    assert "it hangs" in results[-1].status_message


def test_a_slow_policy_is_called_once_at_a_time_however_often_the_picture_is_cut(slow):
    policy, perceive, scene = slow
    for number in range(1, 7):
        assert perceive(number, picture(number)).regions == ()
    assert policy.calls == 1
    policy.may_answer.set()
    assert scene.sensing._last.is_done.wait(30)
    assert perceive(7, picture(6)).regions == (), "what was chosen is for a scene that is gone"
