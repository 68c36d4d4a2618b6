"""The queue between callbacks and worker threads: the latest frame wins, cameras take turns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from activeo3_ros.node.frame_queue import LatestFrameQueue
from activeo3_ros.node.jobs import Job, PerceiveRequest


def test_the_latest_frame_of_a_camera_wins():
    queue = LatestFrameQueue(["a"])
    assert queue.put(Job("a", b"old")) is None
    assert queue.put(Job("a", b"new")).data == b"old"
    assert queue.take(0).data == b"new"
    assert queue.take(0) is None


def test_cameras_take_turns_however_fast_one_of_them_is():
    queue = LatestFrameQueue(["fast", "slow"])
    order = []
    for _ in range(10):
        queue.put(Job("fast", b""))
        queue.put(Job("slow", b""))
        job = queue.take(0)
        order.append(job.camera)
        queue.done(job)
    assert order == ["fast", "slow"] * 5


def test_a_camera_waits_until_its_last_frame_is_done_and_the_others_do_not():
    queue = LatestFrameQueue(["a", "b"])
    queue.put(Job("a", b"first"))
    first = queue.take(0)
    queue.put(Job("a", b"second"))
    assert queue.take(0) is None
    queue.put(Job("b", b""))
    assert queue.take(0).camera == "b"
    queue.done(first)
    assert queue.take(0).data == b"second"


@given(st.lists(st.sampled_from(["a", "b", "c", "take"]), max_size=60))
def test_a_camera_with_a_frame_waits_for_at_most_one_turn_of_each_other(steps):
    queue, waiting = LatestFrameQueue(["a", "b", "c"]), {}
    for step in steps:
        if step != "take":
            queue.put(Job(step, b""))
            waiting.setdefault(step, 0)
            continue
        job = queue.take(0)
        assert (job is None) == (not waiting)
        if job is not None:
            queue.done(job)
            waiting.pop(job.camera)
            waiting = {camera: turns + 1 for camera, turns in waiting.items()}
            assert all(turns <= 2 for turns in waiting.values())


def test_a_perceive_request_goes_first_and_survives_a_clear():
    queue, request = LatestFrameQueue(["a"]), PerceiveRequest("a", b"")
    queue.put(Job("a", b"waiting"))
    queue.put_request(request)
    assert [job.data for job in queue.clear()] == [b"waiting"]
    queue.put(Job("a", b"later"))
    assert queue.take(0) is request
    assert queue.take(0).data == b"later"


def test_a_thread_that_wants_no_job_any_more_leaves_it_for_another():
    queue = LatestFrameQueue(["a"])
    queue.put(Job("a", b"frame"))
    assert queue.take(0, wanted=lambda: False) is None
    assert queue.take(0).data == b"frame"
