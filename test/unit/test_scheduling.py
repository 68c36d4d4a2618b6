"""The scheduler without ROS: latest frame wins, every frame is counted once, a fault fails its own frame alone."""

from __future__ import annotations

import threading
import time
import types
import weakref
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
from waiting import wait_for

from activeo3_ros.core import (
    ActivePerception,
    Box,
    Budget,
    Finding,
    Findings,
    Frame,
    InputSize,
    InvalidInput,
    Query,
    Status,
    UnsupportedQuery,
)
from activeo3_ros.core.errors import EngineError
from activeo3_ros.core.scene import MAX_HYPOTHESES
from activeo3_ros.detectors.detector_task import DetectorTask
from activeo3_ros.node.frame_counters import Counts, FrameCounters
from activeo3_ros.node.jobs import DecodedFrame, FrameOutcome, Job, PerceiveRequest, RejectedFrame, Settings
from activeo3_ros.node.scheduler import Busy, Scheduler
from activeo3_ros.policies.detector_proposals import DetectorProposals
from activeo3_ros.vlm import engine_registry as choice
from activeo3_ros.vlm.engine import Prompt, Reply, Request
from activeo3_ros.vlm.engine_registry import shared_engine

MALFORMED = b"malformed"


class FakeDecoder:
    """A message is one byte: the grey of the picture. stamps_ns: stamps by message, 0 where none is given."""

    def __init__(self) -> None:
        self.stamps_ns: dict[bytes, int] = {}

    def decode(self, camera: str, data: bytes) -> DecodedFrame:
        if data == MALFORMED:
            raise RejectedFrame("malformed", "its header")
        return DecodedFrame(Frame(picture(data[0]), self.stamps_ns.get(data, 0), camera=camera), "header")


class FakePublisher:
    """Keeps what is published."""

    def __init__(self) -> None:
        self.outcomes: list[FrameOutcome] = []

    def publish(self, outcome: FrameOutcome) -> None:
        self.outcomes.append(outcome)


class FakeRobot:
    """Cameras, a clock and a subscriber around a real scheduler."""

    def __init__(
        self, preset: FakePreset | None = None, cameras: tuple[str, ...] = ("a", "b", "c"), **settings
    ) -> None:
        self.counters = FrameCounters(cameras)
        self.decoder, self.publisher = FakeDecoder(), FakePublisher()
        self.outcomes = self.publisher.outcomes
        self.now_ns = 0
        self.scheduler = Scheduler(
            self.counters,
            cameras,
            load=(preset or FakePreset()).build,
            decoder=self.decoder,
            publisher=self.publisher,
            now_ns=lambda: self.now_ns,
            settings=Settings(**settings),
        )
        assert self.scheduler.wait_loaded(10)
        self.scheduler.open_gate()

    def __enter__(self) -> FakeRobot:
        return self

    def __exit__(self, *_) -> None:
        self.scheduler.stop(0.1, "the test is over")

    def send(self, grey: int = FINE, camera: str = "a") -> None:
        self.scheduler.enqueue(camera, bytes([grey]))

    @property
    def jobs(self) -> list[Job]:
        """The jobs in progress."""
        return self.scheduler._pool.jobs

    def settled(self, camera: str = "a") -> Counts:
        """The counts once nothing is pending; they must add up."""
        counts = wait_for(lambda: not self.counters.counts(camera).pending and self.counters.counts(camera))
        assert counts.add_up
        return counts


# Memory


class CrowdTask(FakeTask):
    """Finds a thing in each square of 4 pixels."""

    def examine(self, views, query, budget):
        return [
            Findings(tuple(Finding("thing", Box(x, y, 2, 2), 0.5) for x in range(0, 80, 2) for y in range(0, 60, 2)))
            for _ in views
        ]


class CrowdPreset(FakePreset):
    def build(self):
        return ActivePerception(FakeSensing(), CrowdTask(), Budget(max_regions=0))


def test_what_memory_cannot_hold_is_counted_for_its_camera():
    with FakeRobot(CrowdPreset(), memory=True) as robot:
        robot.decoder.stamps_ns[bytes([FINE])] = 1
        assert robot.scheduler.forgotten("a") == 0
        robot.send()
        robot.settled()
        forgotten = robot.scheduler.forgotten("a")
        assert robot.scheduler.forgotten("b") == 0
    [outcome] = robot.outcomes
    assert len(outcome.result.detections) > MAX_HYPOTHESES
    assert forgotten == len(outcome.result.detections) - MAX_HYPOTHESES
    assert f"{forgotten} of the least likely objects were forgotten" in outcome.result.status_message


# Frames


def test_every_frame_is_processed_or_replaced():
    with FakeRobot(FakePreset(step_s=0.002)) as robot:
        for _ in range(50):
            robot.send()
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
                    robot.send(camera=camera)
            time.sleep(0.002)
        served = Counter(outcome.camera for outcome in robot.outcomes)
    assert min(served.values()) > 0.8 * sum(served.values()) / 3


def test_frames_are_ignored_while_the_gate_is_closed():
    with FakeRobot() as robot:
        robot.scheduler.close_gate()
        robot.send()
        time.sleep(0.05)
        assert robot.counters.counts("a") == Counts()


def test_frames_that_wait_when_the_gate_closes_are_stale_and_a_frame_in_progress_is_finished():
    with FakeRobot(FakePreset(step_s=0.05)) as robot:
        robot.send()
        wait_for(lambda: robot.jobs)
        robot.send()
        robot.scheduler.close_gate()
        counts = robot.settled()
    assert (counts.processed, counts.stale) == (1, 1)


def test_a_frame_older_than_the_limit_is_stale():
    with FakeRobot(max_frame_age_s=1.0) as robot:
        robot.now_ns = 100_000_000_000
        for grey, age_s, disposition in ((101, 1.5, "stale"), (102, 0.5, "processed"), (103, -1000.0, "processed")):
            robot.decoder.stamps_ns[bytes([grey])] = robot.now_ns - int(age_s * 1e9)
            before = getattr(robot.settled(), disposition)
            robot.send(grey)
            assert getattr(robot.settled(), disposition) == before + 1, age_s


def test_a_frame_without_a_stamp_has_no_age():
    with FakeRobot(max_frame_age_s=1.0) as robot:
        robot.now_ns = 100_000_000_000
        robot.send()
        assert robot.settled().processed == 1


# Faults


@pytest.mark.parametrize("grey", [RAISES, GARBAGE, NO_MEMORY, NAN_BOX])
def test_a_frame_whose_model_breaks_gives_a_failed_result_and_the_next_one_is_fine(grey):
    with FakeRobot() as robot:
        robot.send(grey)
        assert robot.settled().failed == 1
        robot.send(FINE)
        assert robot.settled().processed == 1
    assert [outcome.result.status for outcome in robot.outcomes] == [Status.FAILED, Status.COMPLETE]
    assert robot.outcomes[0].result.status_message
    assert not robot.outcomes[0].result.detections


def test_a_malformed_message_is_rejected_with_a_failed_result():
    with FakeRobot() as robot:
        robot.scheduler.enqueue("a", MALFORMED)
        counts = robot.settled()
    assert (counts.rejected, counts.failed) == (1, 0)
    assert (robot.outcomes[0].result.status, robot.outcomes[0].header) == (Status.FAILED, "its header")


def test_a_model_that_hangs_is_given_up_and_loaded_again():
    with FakeRobot(inference_timeout_s=0.2) as robot:
        robot.send(HANGS, "a")
        wait_for(lambda: robot.scheduler.watch() or robot.outcomes)
        assert robot.outcomes[0].result.status == Status.FAILED
        told = robot.outcomes[0].result.status_message
        assert told == "the task model FakeTask did not answer within 0.2 s and was given up"
        assert robot.settled("a").failed == 1
        robot.send(FINE, "b")
        assert robot.settled("b").processed == 1
        assert robot.scheduler.hung_pools == 1


class StuckDetector:
    names, input_size, concurrent = ("thing",), InputSize(40, 30), False

    def detect(self, images, threshold):
        time.sleep(3600)


class StuckSegmenter:
    def segment(self, frame, detections):
        time.sleep(3600)


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (
            lambda task: ActivePerception(DetectorProposals(task=task), task),
            "policy DetectorProposals with the detector",
        ),
        (lambda task: ActivePerception(FakeSensing(), task), "detector 'mine'"),
        (
            lambda task: ActivePerception(FakeSensing(), FakeTask(), segmenter=StuckSegmenter()),
            "segmenter StuckSegmenter",
        ),
    ],
    ids=["policy", "detector", "segmenter"],
)
def test_the_message_names_what_hangs(build, named):
    preset = FakePreset()
    preset.build = lambda: build(DetectorTask(StuckDetector(), label="mine"))
    with FakeRobot(preset, inference_timeout_s=0.2, query=Query(masks=True)) as robot:
        robot.send(FINE)
        wait_for(lambda: robot.scheduler.watch() or robot.outcomes)
        assert robot.outcomes[0].result.status_message.startswith(f"the {named}")


def test_after_several_hangs_frames_fail_with_the_reason_and_no_more_memory_is_spent():
    with FakeRobot(inference_timeout_s=0.1) as robot:
        for _ in range(3):
            robot.send(HANGS)
            before = len(robot.outcomes)
            wait_for(lambda before=before: robot.scheduler.watch() or len(robot.outcomes) > before)
        robot.send(FINE)
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
    monkeypatch.setattr(choice, "load_engine_class", lambda kind: StuckEngine)
    StuckEngine.made = 0
    preset = FakePreset()
    preset.build = lambda: ActivePerception(FakeSensing(), AskingTask(), Budget(max_regions=2))
    with FakeRobot(preset, inference_timeout_s=0.2) as robot:
        robot.send(HANGS, "a")
        wait_for(lambda: robot.scheduler.watch() or robot.outcomes)
        robot.scheduler.settings = Settings()
        robot.send(FINE, "b")
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
            self.together.wait(30)
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
                robot.send(FINE, camera)
            assert [robot.settled(camera).failed for camera in "abc"] == [0, 0, 0]
    assert Counter(outcome.camera for outcome in robot.outcomes) == {"a": 3, "b": 3, "c": 3}


def test_the_results_of_one_camera_keep_their_order_where_cameras_are_perceived_together():
    with serving(1) as robot:
        for grey, stamp in ((SLOW, 1), (FINE, 2)):
            robot.decoder.stamps_ns[bytes([grey])] = stamp
        robot.send(SLOW)
        wait_for(lambda: robot.jobs)
        robot.send(FINE)
        assert robot.settled().processed == 2
    assert [outcome.frame.stamp_ns for outcome in robot.outcomes] == [1, 2]


def test_a_hang_ends_the_frames_of_all_cameras_that_share_the_models_and_each_is_counted():
    with serving(3, inference_timeout_s=0.5) as robot:
        robot.send(FINE, "a")
        robot.send(FINE, "b")  # both wait for ever: the third camera has nothing to ask
        wait_for(lambda: len(robot.jobs) == 2)
        wait_for(lambda: robot.scheduler.watch() or len(robot.outcomes) == 2)
        assert [robot.settled(camera).failed for camera in "ab"] == [1, 1]
        assert robot.scheduler.wait_loaded(5)
        for camera in "abc":
            robot.send(FINE, camera)
        assert [robot.settled(camera).processed for camera in "abc"] == [1, 1, 1]


def test_a_result_that_cannot_be_published_counts_as_failed():
    robot = FakeRobot()
    robot.publisher.publish = lambda outcome: 1 / 0
    with robot:
        robot.send()
        assert robot.settled().failed == 1
    assert "publishing failed" in robot.scheduler.last_error


def test_models_that_cannot_be_loaded_say_why():
    with FakeRobot(FakePreset(fails="the file is not there")) as robot:
        assert robot.scheduler.error == "RuntimeError: the file is not there"
        robot.send()
        assert robot.settled().failed == 1
    assert robot.outcomes[0].result.status_message == "no models: RuntimeError: the file is not there"


# Stopping


def test_stopping_ends_a_frame_in_progress_at_its_next_step():
    """Two regions of three seconds each: it may finish the first, and must not begin the second."""
    with FakeRobot(FakePreset(step_s=3.0)) as robot:
        robot.scheduler.settings = Settings(budget=Budget(max_regions=2, deadline_ms=60_000.0))
        robot.send()
        wait_for(lambda: robot.jobs)
        start = time.monotonic()
        assert robot.scheduler.stop(15, "the node is being cleaned up")
        assert time.monotonic() - start < 5.9
        assert robot.settled().failed == 1
    assert robot.outcomes[0].result.status == Status.FAILED


def test_stopping_does_not_wait_for_a_model_that_hangs():
    with FakeRobot() as robot:
        robot.send(HANGS)
        wait_for(lambda: robot.jobs and robot.jobs[0].decoded)
        assert not robot.scheduler.stop(0.1, "the node is being shut down")
        assert robot.settled().failed == 1
        assert robot.outcomes[0].result.status_message == "the node is being shut down"


def test_models_are_freed_when_the_scheduler_stops():
    with FakeRobot() as robot:
        models = weakref.ref(robot.scheduler.perception.task)
        assert robot.scheduler.stop(5, "")
        assert models() is None


# Queries and perceive requests


def test_a_frame_uses_the_query_and_budget_in_force_when_its_turn_comes():
    with FakeRobot() as robot:
        robot.scheduler.settings = Settings(Query("the sign", revision=7), Budget(max_regions=1))
        robot.send()
        robot.settled()
    assert robot.outcomes[0].result.query.revision == 7
    assert len(robot.outcomes[0].result.regions) == 1


def test_a_query_that_the_models_cannot_serve_is_refused_beforehand():
    with FakeRobot() as robot:
        robot.scheduler.check_query(Query("the sign"))
        with pytest.raises(UnsupportedQuery, match="not unicorns"):
            robot.scheduler.check_query(Query("a unicorn"))


def test_frames_keep_to_the_former_query_until_what_the_new_one_needs_is_loaded():
    loading = threading.Event()

    class FakeLibrary(FakeTask):
        def examine(self, views, query, budget):
            if query.text == "the plate" and not views:
                assert loading.wait(30)
            return super().examine(views, query, budget)

    preset = FakePreset()
    preset.build = lambda: ActivePerception(FakeSensing(), FakeLibrary(), Budget(max_regions=2))
    with FakeRobot(preset) as robot:
        robot.scheduler.settings = Settings(Query("the sign", revision=1))
        robot.send()
        robot.settled()
        robot.scheduler.check_query(Query("the plate"))  # does not wait
        robot.scheduler.settings = Settings(Query("the plate", revision=2))
        assert not robot.scheduler.ready(Query("the plate"))
        robot.send()
        robot.settled()
        with pytest.raises(UnsupportedQuery, match="not unicorns"):
            robot.scheduler.check_query(Query("a unicorn"))
        loading.set()
        wait_for(lambda: robot.scheduler.ready(Query("the plate")))
        robot.send()
        robot.settled()
    asked = [outcome.result.query for outcome in robot.outcomes]
    assert [(query.text, query.revision) for query in asked] == [("the sign", 1), ("the sign", 1), ("the plate", 2)]


def test_a_request_uses_the_newest_frame_its_own_query_and_leaves_the_counts_alone():
    with FakeRobot() as robot:
        robot.send(111)
        before = robot.settled()
        steps = []
        request = PerceiveRequest(
            "a", b"", query=Query("the sign"), feedback=lambda stage, regions: steps.append(stage)
        )
        robot.scheduler.perceive(request)
        assert request.done.wait(30)
        assert request.outcome.frame.image[0, 0, 0] == 111
        assert request.outcome.result.answer == "102"
        assert steps[-2:] == ["examine", "merge"]
        assert robot.settled() == before


def test_a_request_waits_for_a_first_frame_and_can_be_given_up():
    with FakeRobot() as robot:
        request = PerceiveRequest("a", b"")
        robot.scheduler.perceive(request)
        with pytest.raises(Busy):
            robot.scheduler.perceive(PerceiveRequest("b", b""))
        robot.scheduler.end_request(request, "nobody wants it")
        assert (request.done.is_set(), request.outcome, request.reason) == (True, None, "nobody wants it")
        second = PerceiveRequest("a", b"")
        robot.scheduler.perceive(second)
        robot.send()
        assert second.done.wait(30)
        assert second.outcome.result.status == Status.COMPLETE


def test_a_request_does_not_get_a_frame_from_before_the_frames_were_forgotten():
    with FakeRobot() as robot:
        robot.send(111)
        robot.settled()
        robot.scheduler.forget_frames()
        request = PerceiveRequest("a", b"")
        robot.scheduler.perceive(request)
        assert not request.done.wait(0.1)
        robot.send(112)
        assert request.done.wait(30)
        assert request.outcome.frame.image[0, 0, 0] == 112


def test_a_cancelled_request_ends_at_its_next_step():
    with FakeRobot(FakePreset(step_s=0.1)) as robot:
        examining = threading.Event()
        request = PerceiveRequest(
            "a",
            b"",
            budget=Budget(max_regions=2, deadline_ms=60_000.0),
            feedback=lambda stage, regions: examining.set() if stage == "examine" else None,
        )
        robot.scheduler.perceive(request)
        robot.send()
        assert examining.wait(30)
        request.cancelled.set()
        assert request.done.wait(30)
        assert request.outcome.result.status_message == "cancelled by the client"


@pytest.mark.parametrize(
    ("age_s", "counted"),
    [(0.25, True), (0.0, True), (-0.05, True), (3599.0, True), (95_843_951.073, False), (-5.0, False)],
)
def test_an_age_counts_only_where_stamp_and_node_follow_one_clock(age_s, counted):
    with FakeRobot() as robot:
        stamp_ns = 1_700_000_000 * 10**9
        robot.decoder.stamps_ns[bytes([FINE])] = stamp_ns
        robot.now_ns = stamp_ns + round(age_s * 1e9)
        robot.send()
        assert robot.settled().processed == 1
        latencies = robot.scheduler.latencies.distributions()
    assert "total" in latencies
    assert ("age_at_publish" in latencies) == counted
    assert not counted or latencies["age_at_publish"].max == pytest.approx(age_s * 1e3, abs=1e-3)


@pytest.mark.parametrize(
    ("error", "says", "traceback"),
    [
        (EngineError("no server at x; start it"), "no server at x; start it", False),
        (RuntimeError("a fault"), "RuntimeError: a fault", True),
    ],
)
def test_models_that_cannot_be_loaded_are_told_with_a_traceback_only_where_the_fault_is_ours(
    caplog, error, says, traceback
):
    def load():
        raise error

    preset = FakePreset()
    preset.build = load
    with FakeRobot(preset) as robot:
        assert robot.scheduler.error == says
    assert any(record.exc_info for record in caplog.records) == traceback


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([FINE, RAISES, GARBAGE, NO_MEMORY, 0]), max_size=30))
def test_any_sequence_of_frames_and_faults_is_accounted_for(greys):
    with FakeRobot() as robot:
        for grey in greys:
            robot.scheduler.enqueue("a", bytes([grey]) if grey else MALFORMED)
        counts = robot.settled()
    assert counts.received == len(greys)
    assert len(robot.outcomes) == counts.processed + counts.failed + counts.rejected


def test_settings_are_checked_where_they_are_made():
    with pytest.raises(InvalidInput):
        Settings(budget=Budget(max_regions=1000))


# Memory


def stamped(robot: FakeRobot, numbers: range, camera: str = "a") -> list[set[str]]:
    """The track ids of frames that are sent one after the other, 0.1 s apart by their stamps."""
    ids = []
    for number in numbers:
        robot.decoder.stamps_ns[bytes([FINE])] = number * 100_000_000
        done = len(robot.outcomes)
        robot.send(camera=camera)
        wait_for(lambda done=done: len(robot.outcomes) > done)
        ids.append({found.track_id for found in robot.outcomes[-1].result.detections})
    return ids


def test_with_a_memory_each_camera_has_its_own_ids_and_keeps_them():
    with FakeRobot(memory=True) as robot:
        a, b = stamped(robot, range(1, 4)), stamped(robot, range(1, 4), "b")
    assert a[0]
    assert a[0] == a[1] == a[2]
    assert b[0] == b[2]
    assert all(track_id.startswith("a:") for track_id in a[0])
    assert all(track_id.startswith("b:") for track_id in b[0])


def test_without_a_memory_there_are_no_ids_and_turning_it_off_forgets():
    with FakeRobot(memory=True) as robot:
        [before] = stamped(robot, range(1, 2))
        robot.scheduler.settings = Settings(memory=False)
        assert stamped(robot, range(2, 3)) == [{""}]
        robot.scheduler.settings = Settings(memory=True)
        [after] = stamped(robot, range(3, 4))
    assert after
    assert not before & after


def test_a_request_is_a_picture_of_its_own():
    with FakeRobot(memory=True) as robot:
        [before] = stamped(robot, range(1, 2))
        request = PerceiveRequest("a", b"")
        robot.scheduler.perceive(request)
        assert request.done.wait(30)
        [after] = stamped(robot, range(2, 3))
    assert {found.track_id for found in request.outcome.result.detections} == {""}
    assert before == after
