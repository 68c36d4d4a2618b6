"""The worker without ROS: newest frame wins, fair turns, every frame accounted for, faults stay with their frame."""

from __future__ import annotations

import threading
import time
import types
import weakref
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from node_fixtures.client import wait_for
from node_fixtures.fakes import (
    FINE,
    GARBAGE,
    HANGS,
    NAN_BOX,
    NO_MEMORY,
    RAISES,
    SLOW,
    FakePreset,
    FakeSensing,
    FakeTask,
    picture,
    shows,
)

from activeo3_ros.core import ActivePerception, Budget, Findings, Frame, InvalidInput, Query, Status, UnsupportedQuery
from activeo3_ros.node.frame_counters import Counts, Distribution, FrameCounters, FrameDisposition, Gaps, Latencies
from activeo3_ros.node.scheduling import (
    Busy,
    Job,
    LatestFrameQueue,
    PerceiveRequest,
    Prepared,
    Rejected,
    Settings,
    Worker,
)
from activeo3_ros.vlm import engine_registry as choice
from activeo3_ros.vlm.engine import Prompt, Reply, Request
from activeo3_ros.vlm.engine_registry import shared_engine

MALFORMED = b"malformed"


class FakeRobot:
    """Cameras, a clock and somebody who listens, around a real worker. A message is one byte: the picture's grey."""

    def __init__(
        self, preset: FakePreset | None = None, cameras: tuple[str, ...] = ("a", "b", "c"), **settings
    ) -> None:
        self.ledger = FrameCounters(cameras)
        self.outcomes = []
        self.now_ns = 0
        self.stamps = {}
        self.worker = Worker(
            self.ledger,
            cameras,
            load=(preset or FakePreset()).build,
            prepare=self._prepare,
            deliver=self.outcomes.append,
            now_ns=lambda: self.now_ns,
            settings=Settings(**settings),
        )
        assert self.worker.wait_loaded(10)
        self.worker.open_gate()

    def __enter__(self) -> FakeRobot:
        return self

    def __exit__(self, *_) -> None:
        self.worker.stop(0.1, "the test is over")

    def _prepare(self, camera: str, data: bytes) -> Prepared:
        if data == MALFORMED:
            raise Rejected("malformed", "its header")
        return Prepared(Frame(picture(data[0]), self.stamps.get(data, 0), camera=camera), "header")

    def offer(self, grey: int = FINE, camera: str = "a") -> None:
        self.worker.offer(camera, bytes([grey]))

    def settled(self, camera: str = "a") -> Counts:
        """The counts once nothing is pending; they must add up."""
        counts = wait_for(lambda: not self.ledger.counts(camera).pending and self.ledger.counts(camera))
        assert counts.add_up
        return counts


# LatestFrameQueue


def test_the_newest_frame_of_a_camera_wins():
    slots = LatestFrameQueue(["a"])
    assert slots.put(Job("a", b"old")) is None
    assert slots.put(Job("a", b"new")).data == b"old"
    assert slots.take(0).data == b"new"
    assert slots.take(0) is None


def test_cameras_take_turns_however_fast_one_of_them_is():
    slots = LatestFrameQueue(["fast", "slow"])
    order = []
    for _ in range(10):
        slots.put(Job("fast", b""))
        slots.put(Job("slow", b""))
        job = slots.take(0)
        order.append(job.camera)
        slots.done(job)
    assert order == ["fast", "slow"] * 5


def test_a_camera_waits_until_its_last_frame_is_done_and_the_others_do_not():
    slots = LatestFrameQueue(["a", "b"])
    slots.put(Job("a", b"first"))
    first = slots.take(0)
    slots.put(Job("a", b"second"))
    assert slots.take(0) is None
    slots.put(Job("b", b""))
    assert slots.take(0).camera == "b"
    slots.done(first)
    assert slots.take(0).data == b"second"


@given(st.lists(st.sampled_from(["a", "b", "c", "take"]), max_size=60))
def test_a_camera_with_a_frame_waits_for_at_most_one_turn_of_each_other(steps):
    slots, waiting = LatestFrameQueue(["a", "b", "c"]), {}
    for step in steps:
        if step != "take":
            slots.put(Job(step, b""))
            waiting.setdefault(step, 0)
            continue
        job = slots.take(0)
        assert (job is None) == (not waiting)
        if job is not None:
            slots.done(job)
            waiting.pop(job.camera)
            waiting = {camera: turns + 1 for camera, turns in waiting.items()}
            assert all(turns <= 2 for turns in waiting.values())


# Accounting


@given(st.lists(st.sampled_from([None, *FrameDisposition]), max_size=100))
def test_counts_add_up_whatever_happens(steps):
    ledger, pending = FrameCounters(["a"]), 0
    for fate in steps:
        if fate is None:
            ledger.receive("a")
            pending += 1
        elif pending:
            ledger.settle("a", fate)
            pending -= 1
        counts = ledger.counts("a")
        assert counts.add_up
        assert counts.pending == pending


def test_numbers_tell_what_was_sent_and_never_received():
    gaps = Gaps()
    assert gaps.missing is None, "before the first number nobody knows"
    gaps.note("front", None)
    assert gaps.missing is None
    for number in (10, 11, 14, 15):  # 12 and 13; what was sent before 10 was not meant for us
        gaps.note("front", number)
    assert gaps.missing == 2
    for number in (1, 3):  # one that started again under the same name
        gaps.note("front", number)
    assert gaps.missing == 3
    for number in (100, 101, 102):
        gaps.note("rear", number)
        gaps.note("front", number - 96)  # 4, 5, 6
    assert gaps.missing == 3


def test_senders_that_come_and_go_take_no_memory():
    gaps = Gaps()
    for sender in range(1000):
        gaps.note(sender, 1)
    assert len(gaps._newest) == Gaps.MAX_SENDERS
    assert gaps.missing == 0


def test_latencies_are_those_of_the_newest_samples():
    latencies = Latencies()
    for value in [10_000.0] * 50 + [float(n) for n in range(1, 201)]:
        latencies.add({"total": value, "age": float("nan")})
    assert latencies.distributions() == {"total": Distribution(100.5, pytest.approx(190.05), 200.0)}


# Frames


def test_every_frame_is_processed_or_replaced():
    with FakeRobot(FakePreset(step_s=0.002)) as robot:
        for _ in range(50):
            robot.offer()
            time.sleep(0.001)
        counts = robot.settled()
    assert counts.received == 50
    assert counts.processed + counts.replaced == 50
    assert len(robot.outcomes) == counts.processed


def test_every_camera_gets_its_share():
    with FakeRobot(FakePreset(step_s=0.001)) as robot:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            for camera, frames in (("a", 5), ("b", 1), ("c", 2)):
                for _ in range(frames):
                    robot.offer(camera=camera)
            time.sleep(0.002)
        served = Counter(outcome.camera for outcome in robot.outcomes)
    assert min(served.values()) > 0.8 * sum(served.values()) / 3


def test_frames_are_ignored_while_the_gate_is_closed():
    with FakeRobot() as robot:
        robot.worker.close_gate()
        robot.offer()
        time.sleep(0.05)
        assert robot.ledger.counts("a") == Counts()


def test_what_waits_when_the_gate_closes_is_stale_and_what_is_looked_at_is_finished():
    with FakeRobot(FakePreset(step_s=0.05)) as robot:
        robot.offer()
        wait_for(lambda: robot.worker._generation.jobs)
        robot.offer()
        robot.worker.close_gate()
        counts = robot.settled()
    assert (counts.processed, counts.stale) == (1, 1)


def test_a_frame_older_than_the_limit_is_not_taken_up():
    with FakeRobot(max_frame_age_s=1.0) as robot:
        robot.now_ns = 100_000_000_000
        for grey, age_s, fate in ((101, 1.5, "stale"), (102, 0.5, "processed"), (103, -1000.0, "processed")):
            robot.stamps[bytes([grey])] = robot.now_ns - int(age_s * 1e9)
            before = getattr(robot.settled(), fate)
            robot.offer(grey)
            assert getattr(robot.settled(), fate) == before + 1, age_s


def test_a_frame_without_a_stamp_has_no_age():
    with FakeRobot(max_frame_age_s=1.0) as robot:
        robot.now_ns = 100_000_000_000
        robot.offer()
        assert robot.settled().processed == 1


# Faults


@pytest.mark.parametrize("grey", [RAISES, GARBAGE, NO_MEMORY, NAN_BOX])
def test_a_frame_whose_model_breaks_gives_a_failed_result_and_the_next_one_is_fine(grey):
    with FakeRobot() as robot:
        robot.offer(grey)
        assert robot.settled().failed == 1
        robot.offer(FINE)
        assert robot.settled().processed == 1
    assert [outcome.result.status for outcome in robot.outcomes] == [Status.FAILED, Status.COMPLETE]
    assert robot.outcomes[0].result.status_message
    assert not robot.outcomes[0].result.detections


def test_a_malformed_message_is_rejected_with_a_failed_result():
    with FakeRobot() as robot:
        robot.worker.offer("a", MALFORMED)
        counts = robot.settled()
    assert (counts.rejected, counts.failed) == (1, 0)
    assert (robot.outcomes[0].result.status, robot.outcomes[0].header) == (Status.FAILED, "its header")


def test_a_model_that_hangs_is_given_up_and_loaded_again():
    with FakeRobot(inference_timeout_s=0.2) as robot:
        robot.offer(HANGS, "a")
        wait_for(lambda: robot.worker.watch() or robot.outcomes)
        assert robot.outcomes[0].result.status == Status.FAILED
        assert "did not answer within 0.2 s" in robot.outcomes[0].result.status_message
        assert robot.settled("a").failed == 1
        robot.offer(FINE, "b")
        assert robot.settled("b").processed == 1
        assert robot.worker.hung_threads == 1


def test_after_several_hangs_frames_fail_with_the_reason_and_no_more_memory_is_spent():
    with FakeRobot(inference_timeout_s=0.1) as robot:
        for _ in range(3):
            robot.offer(HANGS)
            before = len(robot.outcomes)
            wait_for(lambda before=before: robot.worker.watch() or len(robot.outcomes) > before)
        robot.offer(FINE)
        assert robot.settled().failed == 4
        assert "threads hang" in robot.outcomes[-1].result.status_message


class StuckEngine:
    """An engine that never returns from a picture that hangs, and only serves one call at a time."""

    family = types.SimpleNamespace(cell_px=1)
    device = "cpu"
    made = 0

    def __init__(self) -> None:
        type(self).made += 1

    def generate(self, requests):
        if any(int(request.image[0, 0, 0]) == HANGS for request in requests):
            time.sleep(3600)
        return [Reply("") for _ in requests]

    def close(self) -> None:
        pass


class AskingTask(FakeTask):
    """A task whose model is an engine that all components of the process share."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = shared_engine({"type": "stuck"})

    def examine(self, views, query, budget):
        self.engine.generate([Request(view.image, Prompt("?")) for view in views])
        return [Findings() for _ in views]


def test_an_engine_that_hangs_is_not_shared_with_the_models_that_are_loaded_next(monkeypatch):
    monkeypatch.setitem(choice.ENGINE_TYPES, "stuck", "")
    monkeypatch.setattr(choice, "_class_of", lambda kind: StuckEngine)
    StuckEngine.made = 0
    preset = FakePreset()
    preset.build = lambda: ActivePerception(FakeSensing(), AskingTask(), Budget(max_regions=2))
    with FakeRobot(preset, inference_timeout_s=0.2) as robot:
        robot.offer(HANGS, "a")
        wait_for(lambda: robot.worker.watch() or robot.outcomes)
        robot.worker.settings = Settings()
        robot.offer(FINE, "b")
        assert robot.settled("b").processed == 1
        assert robot.settled("a").failed == 1
    assert StuckEngine.made == 2


# Several cameras at once


class FakeServer(FakeTask):
    """A task model that answers only once all cameras have asked, as none would ever do one after the other."""

    concurrent = True

    def __init__(self, cameras: int) -> None:
        super().__init__()
        self.together = threading.Barrier(cameras)

    def examine(self, views, query, budget):
        if views and not shows(views[0], SLOW):
            self.together.wait(10)
        return super().examine(views, query, budget)


class FakeChooser(FakeSensing):
    concurrent = True


def serving(cameras: int, **settings) -> FakeRobot:
    """A robot whose models answer `cameras` cameras together."""
    preset = FakePreset()
    preset.build = lambda: ActivePerception(FakeChooser(), FakeServer(cameras), Budget(max_regions=2))
    return FakeRobot(preset, **settings)


def test_models_that_can_answer_all_cameras_together():
    with serving(3) as robot:
        for _ in range(3):
            for camera in "abc":
                robot.offer(FINE, camera)
            assert [robot.settled(camera).failed for camera in "abc"] == [0, 0, 0]
    assert Counter(outcome.camera for outcome in robot.outcomes) == {"a": 3, "b": 3, "c": 3}


def test_the_results_of_one_camera_keep_their_order_where_cameras_are_looked_at_together():
    with serving(1) as robot:
        for grey, stamp in ((SLOW, 1), (FINE, 2)):
            robot.stamps[bytes([grey])] = stamp
        robot.offer(SLOW)
        wait_for(lambda: robot.worker._generation.jobs)
        robot.offer(FINE)
        assert robot.settled().processed == 2
    assert [outcome.frame.stamp_ns for outcome in robot.outcomes] == [1, 2]


def test_a_hang_ends_the_frames_of_all_cameras_that_share_the_models_and_each_is_counted():
    with serving(3, inference_timeout_s=0.5) as robot:
        robot.offer(FINE, "a")
        robot.offer(FINE, "b")  # both wait for ever: the third camera has nothing to ask
        wait_for(lambda: len(robot.worker._generation.jobs) == 2)
        wait_for(lambda: robot.worker.watch() or len(robot.outcomes) == 2)
        assert [robot.settled(camera).failed for camera in "ab"] == [1, 1]
        assert robot.worker.wait_loaded(5)
        for camera in "abc":
            robot.offer(FINE, camera)
        assert [robot.settled(camera).processed for camera in "abc"] == [1, 1, 1]


def test_a_result_that_cannot_be_published_counts_as_failed():
    robot = FakeRobot()
    robot.worker._deliver = lambda outcome: 1 / 0
    with robot:
        robot.offer()
        assert robot.settled().failed == 1
    assert "publishing failed" in robot.worker.last_error


def test_models_that_cannot_be_loaded_say_why():
    worker = Worker(
        FrameCounters(["a"]),
        ["a"],
        load=FakePreset(fails="the file is not there").build,
        prepare=lambda camera, data: pytest.fail("no frame was offered"),
        deliver=lambda outcome: None,
        now_ns=lambda: 0,
        settings=Settings(),
    )
    assert worker.wait_loaded(5)
    assert worker.error == "RuntimeError: the file is not there"
    worker.stop(1, "")


# Stopping


def test_stopping_ends_what_is_looked_at_at_its_next_step():
    """Two regions of a second each: it may finish the first, and must not begin the second."""
    with FakeRobot(FakePreset(step_s=1.0)) as robot:
        robot.worker.settings = Settings(budget=Budget(max_regions=2, deadline_ms=60_000.0))
        robot.offer()
        wait_for(lambda: robot.worker._generation.jobs)
        start = time.monotonic()
        assert robot.worker.stop(5, "the node is being cleaned up")
        assert time.monotonic() - start < 1.8
        assert robot.settled().failed == 1
    assert robot.outcomes[0].result.status == Status.FAILED


def test_stopping_does_not_wait_for_a_model_that_hangs():
    with FakeRobot() as robot:
        robot.offer(HANGS)
        wait_for(lambda: robot.worker._generation.jobs and robot.worker._generation.jobs[0].prepared)
        assert not robot.worker.stop(0.1, "the node is being shut down")
        assert robot.settled().failed == 1
        assert robot.outcomes[0].result.status_message == "the node is being shut down"


def test_models_are_let_go_of_when_the_worker_stops():
    with FakeRobot() as robot:
        models = weakref.ref(robot.worker.perception.task)
        assert robot.worker.stop(5, "")
        assert models() is None


# Queries and looks


def test_the_query_and_budget_in_force_when_a_frame_is_taken_up_are_used():
    with FakeRobot() as robot:
        robot.worker.settings = Settings(Query("the sign", revision=7), Budget(max_regions=1))
        robot.offer()
        robot.settled()
    assert robot.outcomes[0].result.query.revision == 7
    assert len(robot.outcomes[0].result.regions) == 1


def test_a_query_that_the_models_cannot_serve_is_refused_beforehand():
    with FakeRobot() as robot:
        robot.worker.check_query(Query("the sign"))
        with pytest.raises(UnsupportedQuery, match="not unicorns"):
            robot.worker.check_query(Query("a unicorn"))


def test_frames_keep_to_the_former_query_until_what_the_new_one_needs_is_loaded():
    loading = threading.Event()

    class FakeLibrary(FakeTask):
        def examine(self, views, query, budget):
            if query.text == "the plate" and not views:
                assert loading.wait(10)
            return super().examine(views, query, budget)

    preset = FakePreset()
    preset.build = lambda: ActivePerception(FakeSensing(), FakeLibrary(), Budget(max_regions=2))
    with FakeRobot(preset) as robot:
        robot.worker.settings = Settings(Query("the sign", revision=1))
        robot.offer()
        robot.settled()
        robot.worker.check_query(Query("the plate"))  # does not wait
        robot.worker.settings = Settings(Query("the plate", revision=2))
        assert not robot.worker.ready(Query("the plate"))
        robot.offer()
        robot.settled()
        with pytest.raises(UnsupportedQuery, match="not unicorns"):
            robot.worker.check_query(Query("a unicorn"))
        loading.set()
        wait_for(lambda: robot.worker.ready(Query("the plate")))
        robot.offer()
        robot.settled()
    asked = [outcome.result.query for outcome in robot.outcomes]
    assert [(query.text, query.revision) for query in asked] == [("the sign", 1), ("the sign", 1), ("the plate", 2)]


def test_a_look_uses_the_newest_frame_its_own_query_and_leaves_the_counts_alone():
    with FakeRobot() as robot:
        robot.offer(111)
        before = robot.settled()
        steps = []
        look = PerceiveRequest("a", b"", query=Query("the sign"), feedback=lambda stage, regions: steps.append(stage))
        robot.worker.look(look)
        assert look.done.wait(5)
        assert look.outcome.frame.image[0, 0, 0] == 111
        assert look.outcome.result.answer == "102"
        assert steps[-2:] == ["examine", "merge"]
        assert robot.settled() == before


def test_a_look_waits_for_a_first_frame_and_can_be_given_up():
    with FakeRobot() as robot:
        look = PerceiveRequest("a", b"")
        robot.worker.look(look)
        with pytest.raises(Busy):
            robot.worker.look(PerceiveRequest("b", b""))
        robot.worker.end_request(look, "nobody wants it")
        assert (look.done.is_set(), look.outcome, look.reason) == (True, None, "nobody wants it")
        second = PerceiveRequest("a", b"")
        robot.worker.look(second)
        robot.offer()
        assert second.done.wait(5)
        assert second.outcome.result.status == Status.COMPLETE


def test_a_cancelled_look_ends_at_its_next_step():
    with FakeRobot(FakePreset(step_s=0.1)) as robot:
        examining = threading.Event()
        look = PerceiveRequest(
            "a",
            b"",
            budget=Budget(max_regions=2, deadline_ms=60_000.0),
            feedback=lambda stage, regions: examining.set() if stage == "examine" else None,
        )
        robot.worker.look(look)
        robot.offer()
        assert examining.wait(5)
        look.cancelled.set()
        assert look.done.wait(5)
        assert look.outcome.result.status_message == "cancelled by the client"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([FINE, RAISES, GARBAGE, NO_MEMORY, 0]), max_size=30))
def test_any_sequence_of_frames_and_faults_is_accounted_for(greys):
    with FakeRobot() as robot:
        for grey in greys:
            robot.worker.offer("a", bytes([grey]) if grey else MALFORMED)
        counts = robot.settled()
    assert counts.received == len(greys)
    assert len(robot.outcomes) == counts.processed + counts.failed + counts.rejected


def test_settings_are_checked_where_they_are_made():
    with pytest.raises(InvalidInput):
        Settings(budget=Budget(max_regions=1000))
