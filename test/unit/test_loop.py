"""The loop: view, regions, crops, findings, one merged result; and what it does when a part fails."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from result_strategies import results

from activeo3_ros.core import (
    ActivePerception,
    Box,
    Budget,
    Cancelled,
    Finding,
    Findings,
    Frame,
    Grounding,
    InstanceMask,
    InvalidInput,
    Proposal,
    Query,
    Region,
    Scene,
    Status,
    UnsupportedQuery,
    loop,
)
from activeo3_ros.core.frame import fit_within

FRAME = Frame(np.random.default_rng(0).integers(0, 255, (400, 800, 3), np.uint8))


class LeftAndRight:
    """A policy that always proposes the same two windows, as shares of the view."""

    def __init__(self, findings=None):
        self.findings = findings

    def view_size(self, width, height, max_pixels):
        return fit_within(width, height, max_pixels)

    def propose(self, view, query, budget):
        half = view.width / 2
        regions = (
            Region(Box(0, 0, half, view.height), "left", 0.9),
            Region(Box(half, 0, half, view.height), "right"),
        )
        return Proposal(
            regions[: budget.max_regions], self.findings, used_view=self.findings is not None, reasoning="both sides"
        )


class CentreFinder:
    """A task model that finds one object in the middle of every view, a quarter of the view wide."""

    batch_size = 1

    def __init__(self, delay_s=0.0, error=None, findings=None):
        self.delay_s, self.error, self.findings = delay_s, error, findings

    def view_size(self, width, height, max_pixels):
        return fit_within(width, height, max_pixels)

    def examine(self, views, query, budget):
        time.sleep(self.delay_s * len(views))
        if self.error:
            raise self.error
        if self.findings is not None:
            return self.findings
        boxes = [Box(v.width * 3 / 8, v.height * 3 / 8, v.width / 4, v.height / 4) for v in views]
        return [Findings((Finding("cone", box, 0.7, query.text),), tokens=5) for box in boxes]

    def answer(self, query, findings, groundings):
        return f"{len(groundings)} found" if query.text else None


BUDGET = Budget(view_pixels=80 * 40, crop_pixels=100 * 100)


def test_findings_come_back_in_source_pixels_with_their_region():
    result = ActivePerception(LeftAndRight(Findings()), CentreFinder(), BUDGET).perceive(FRAME)
    assert result.status == Status.COMPLETE
    found = {d.region: tuple(round(v, 6) for v in d.box.as_tuple()) for d in result.detections}
    assert found == {0: (150, 150, 100, 100), 1: (550, 150, 100, 100)}
    assert [d.score for d in result.detections] == [0.7, 0.7]


def test_regions_are_reported_as_they_were_cropped():
    result = ActivePerception(LeftAndRight(Findings()), CentreFinder(), BUDGET).perceive(FRAME)
    assert [(r.box, r.label) for r in result.regions] == [
        (Box(0, 0, 400, 400), "left"),
        (Box(400, 0, 400, 400), "right"),
    ]
    assert result.regions[0].score == 0.9
    assert math.isnan(result.regions[1].score)
    assert result.regions[0].zoom == 2.5  # 400 source pixels are 40 of the view and 100 of the crop


def test_the_cost_counts_every_view_once():
    result = ActivePerception(LeftAndRight(Findings()), CentreFinder(), BUDGET).perceive(FRAME)
    assert (result.cost.views, result.cost.calls) == (3, 3)
    assert result.cost.pixels == 80 * 40 + 2 * 100 * 100
    assert result.cost.tokens == 10


def test_the_stages_are_timed_and_lie_within_the_total():
    timings = ActivePerception(LeftAndRight(Findings()), CentreFinder(), BUDGET).perceive(FRAME).timings_ms
    assert list(timings) == ["view", "sense", "crop", "examine", "merge", "total"]
    assert sum(timings.values()) - timings["total"] <= timings["total"]


def test_without_regions_the_task_model_sees_the_whole_frame():
    result = ActivePerception(LeftAndRight(), CentreFinder(), BUDGET).perceive(FRAME, budget=Budget(max_regions=0))
    assert result.regions == ()
    assert [d.region for d in result.detections] == [-1]
    assert result.cost.views == 1


def test_a_policy_that_only_chooses_leaves_the_view_to_the_task_model():
    result = ActivePerception(LeftAndRight(), CentreFinder(), BUDGET).perceive(FRAME)
    assert {d.region for d in result.detections} == {-1, 0, 1}
    result = ActivePerception(LeftAndRight(), CentreFinder(), BUDGET, examine_view=False).perceive(FRAME)
    assert {d.region for d in result.detections} == {0, 1}


def test_a_phrase_gives_groundings_and_an_answer():
    result = ActivePerception(LeftAndRight(Findings()), CentreFinder(), BUDGET).perceive(FRAME, Query("the far cone"))
    assert [g.phrase for g in result.groundings] == ["the far cone", "the far cone"]
    assert result.answer == "2 found"
    assert ActivePerception(LeftAndRight(Findings()), CentreFinder(), BUDGET).perceive(FRAME).groundings == ()


def test_a_grounding_is_linked_to_the_detection_of_the_same_object():
    """Where a plain detection comes before it, its index counts the detections and not the groundings."""
    box = Box(10, 10, 8, 8)
    plain = Findings((Finding("bollard", box, 0.9),))
    result = ActivePerception(LeftAndRight(plain), CentreFinder(), BUDGET).perceive(FRAME, Query("the far cone"))
    assert [d.label for d in result.detections] == ["bollard", "cone", "cone"]
    assert [g.detection for g in result.groundings] == [1, 2]
    for grounding in result.groundings:
        assert result.detections[grounding.detection].box == grounding.box


class EverySecond:
    """A segmenter that separates every second object, and links it to `shift` objects further on."""

    def __init__(self, shift=0):
        self.shift = shift

    def segment(self, frame, detections):
        return [
            InstanceMask(d.label, d.score, d.box, np.ones((100, 100), bool), d.region, index + self.shift)
            for index, d in enumerate(detections)
            if index % 2
        ]


def test_a_mask_is_linked_to_its_detection_also_where_others_have_none():
    perception = ActivePerception(LeftAndRight(Findings()), CentreFinder(), BUDGET, EverySecond())
    result = perception.perceive(FRAME, Query(masks=True))
    assert [mask.detection for mask in result.masks] == [1]
    assert result.detections[1].box == result.masks[0].box
    assert result.notes == ("1 of 2 objects have no mask: no whole outline was found",)
    assert result.status == Status.COMPLETE


def test_a_segmenter_that_links_to_an_object_that_is_not_there_fails():
    perception = ActivePerception(LeftAndRight(Findings()), CentreFinder(), BUDGET, EverySecond(shift=1))
    result = perception.perceive(FRAME, Query(masks=True))
    assert result.status == Status.FAILED
    assert "InstanceMask.detection must be -1 (none) or an index into the 2 detections" in result.status_message


@settings(deadline=None)
@given(results(), st.integers(-5, 10))
def test_an_index_that_is_not_in_the_detections_is_refused(result, index):
    linked = Grounding("", 0.5, Box(0, 0, 1, 1), detection=index)
    if -1 <= index < len(result.detections):
        assert replace(result, groundings=(linked,)).groundings == (linked,)
    else:
        with pytest.raises(InvalidInput, match=r"Grounding\.detection must be"):
            replace(result, groundings=(linked,))


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), MemoryError(), ValueError("x"), KeyError("y")])
def test_a_model_that_fails_gives_a_failed_result_and_not_an_empty_road(error):
    perception = ActivePerception(LeftAndRight(Findings()), CentreFinder(error=error), BUDGET)
    result = perception.perceive(FRAME, Query(revision=4))
    assert result.status == Status.FAILED
    assert type(error).__name__ in result.status_message
    assert result.detections == ()
    assert result.query.revision == 4


def test_the_same_failure_is_logged_once_a_minute(caplog, monkeypatch):
    """With its traceback; a server that is gone fails every frame, and each result says so."""
    now = [1000.0]
    monkeypatch.setattr(loop, "_logged", {})
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])

    def fail(error):
        result = ActivePerception(LeftAndRight(Findings()), CentreFinder(error=error), BUDGET).perceive(FRAME)
        assert result.status == Status.FAILED and str(error) in result.status_message

    for _ in range(3):
        fail(RuntimeError("the server is gone"))
    fail(RuntimeError("no memory"))
    assert ["the server is gone" in record.exc_text for record in caplog.records] == [True, False]
    now[0] += 60
    fail(RuntimeError("the server is gone"))
    assert len(caplog.records) == 3


def test_a_model_that_answers_for_fewer_views_than_asked_fails():
    result = ActivePerception(LeftAndRight(Findings()), CentreFinder(findings=[Findings()]), BUDGET).perceive(FRAME)
    assert result.status == Status.FAILED


def test_an_unsupported_query_says_what_is_supported():
    error = UnsupportedQuery("knows cones only")
    result = ActivePerception(LeftAndRight(Findings()), CentreFinder(error=error), BUDGET).perceive(FRAME)
    assert (result.status, result.status_message) == (Status.FAILED, "knows cones only")


def test_a_deadline_stops_the_zooming_and_says_so():
    perception = ActivePerception(LeftAndRight(Findings()), CentreFinder(delay_s=0.1), BUDGET)
    perception.perceive(FRAME)  # from here on the loop knows the latency of a view
    result = perception.perceive(FRAME, budget=Budget(deadline_ms=150, view_pixels=3200, crop_pixels=10000))
    assert result.status == Status.COARSE
    assert result.status_message == "the deadline of 150 ms left time for 1 of 2 regions"
    assert [r.label for r in result.regions] == ["left"]
    assert {d.region for d in result.detections} == {0}


def test_a_deadline_leaves_time_for_what_follows_the_last_region():
    class SlowSegmenter:
        def segment(self, frame, detections):
            time.sleep(0.3)
            return []

    deadline = Budget(deadline_ms=600, view_pixels=3200, crop_pixels=10000)
    perception = ActivePerception(LeftAndRight(Findings()), CentreFinder(delay_s=0.2), BUDGET, SlowSegmenter())
    assert perception.perceive(FRAME, Query(masks=True), deadline).status == Status.COMPLETE  # it knows no better yet
    result = perception.perceive(FRAME, Query(masks=True), deadline)
    assert (result.status, len(result.regions)) == (Status.COARSE, 1)
    assert result.timings_ms["total"] < 600


def test_a_deadline_that_is_met_changes_nothing():
    perception = ActivePerception(LeftAndRight(Findings()), CentreFinder(), BUDGET)
    result = perception.perceive(FRAME, budget=Budget(deadline_ms=60_000, view_pixels=3200, crop_pixels=10000))
    assert (result.status, len(result.regions)) == (Status.COMPLETE, 2)


def test_the_observer_sees_each_step_and_can_cancel():
    seen = []
    perception = ActivePerception(LeftAndRight(Findings()), CentreFinder(), BUDGET)
    perception.perceive(FRAME, observer=lambda stage, regions: seen.append((stage, len(regions))))
    assert seen == [("sense", 0), ("examine", 2), ("merge", 2)]

    def cancel(stage, regions):
        if stage == "examine":
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        perception.perceive(FRAME, observer=cancel)
    assert perception.perceive(FRAME).status == Status.COMPLETE


def test_masks_that_nobody_can_make_are_said_to_be_missing():
    result = ActivePerception(LeftAndRight(Findings()), CentreFinder(), BUDGET).perceive(FRAME, Query(masks=True))
    assert result.status == Status.COMPLETE
    assert "makes no masks" in result.status_message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_regions", -1),
        ("max_regions", 1000),
        ("max_regions", 2.5),
        ("max_regions", True),
        ("view_pixels", 0),
        ("crop_pixels", -100),
        ("max_tokens", 0),
        ("deadline_ms", -1),
        ("deadline_ms", math.nan),
        ("deadline_ms", "soon"),
    ],
)
def test_a_budget_out_of_range_names_the_field_and_the_value(field, value):
    with pytest.raises(InvalidInput, match=f"{field} must be .*{str(value).strip()}"):
        Budget(**{field: value})


def test_a_query_has_limits():
    with pytest.raises(InvalidInput, match="1000 characters, got 1001"):
        Query("x" * 1001)
    with pytest.raises(InvalidInput, match="200 classes, got 201"):
        Query(classes=("car",) * 201)


@pytest.mark.parametrize("size", [(1, 1), (1, 8000), (8000, 1), (3, 2)])
def test_frames_of_odd_sizes_are_perceived(size):
    frame = Frame(np.zeros((size[1], size[0], 3), np.uint8))
    result = ActivePerception(LeftAndRight(), CentreFinder(), BUDGET).perceive(frame)
    assert result.status == Status.COMPLETE, result.status_message
    for region in result.regions:
        assert region.box.clipped(*size) == region.box


# Memory


def frames_of(count, start=1):
    return [Frame(FRAME.image, stamp_ns=(start + number) * 100_000_000, camera="front") for number in range(count)]


def test_with_a_scene_objects_have_ids_and_tracks_in_their_order():
    perception, scene = ActivePerception(LeftAndRight(Findings()), CentreFinder(), BUDGET), Scene()
    first, second = (perception.perceive(frame, scene=scene) for frame in frames_of(2))
    assert [d.track_id for d in first.detections] == [t.track_id for t in first.tracks]
    assert {d.track_id for d in first.detections} == {d.track_id for d in second.detections}
    assert len({d.track_id for d in first.detections}) == 2
    assert not any(d.carried for d in second.detections)
    assert list(second.timings_ms)[:3] == ["view", "expect", "sense"]


def test_what_a_model_without_a_calibration_shows_first_after_empty_frames_is_reported_at_once():
    task, scene = CentreFinder(), Scene()
    perception = ActivePerception(LeftAndRight(Findings()), task, BUDGET)
    shown, task.findings = task.findings, [Findings(), Findings()]
    frames = frames_of(5)
    for frame in frames[:4]:
        assert not perception.perceive(frame, scene=scene).detections
    task.findings = shown
    assert len(perception.perceive(frames[4], scene=scene).detections) == 2


def test_without_a_scene_nothing_is_remembered():
    perception = ActivePerception(LeftAndRight(Findings()), CentreFinder(), BUDGET)
    for frame in frames_of(2):
        result = perception.perceive(frame)
        assert result.tracks == ()
        assert {d.track_id for d in result.detections} == {""}


def test_a_failed_frame_reports_nothing_and_the_next_one_goes_on():
    task, scene = CentreFinder(), Scene()
    perception = ActivePerception(LeftAndRight(Findings()), task, BUDGET)
    frames = frames_of(3)
    before = perception.perceive(frames[0], scene=scene)
    task.error = RuntimeError("broken")
    failed = perception.perceive(frames[1], scene=scene)
    assert (failed.status, failed.detections, failed.tracks) == (Status.FAILED, (), ())
    task.error = None
    after = perception.perceive(frames[2], scene=scene)
    assert {d.track_id for d in before.detections} == {d.track_id for d in after.detections}


def test_an_object_that_is_carried_gets_no_mask_and_is_not_missed():
    task, scene = CentreFinder(), Scene()
    perception = ActivePerception(LeftAndRight(Findings()), task, BUDGET, EverySecond())
    first, second, third = frames_of(3)
    for frame in (first, second):
        perception.perceive(frame, Query(masks=True), scene=scene)
    task.findings = [Findings(), Findings()]
    result = perception.perceive(third, Query(masks=True), scene=scene)
    assert result.detections
    assert all(d.carried and d.region == -1 for d in result.detections)
    assert result.masks == ()
    assert not result.notes


class Expecting(LeftAndRight):
    """A policy that keeps what it was told to expect."""

    def propose_expecting(self, view, query, budget, expected):
        self.expected = expected
        return self.propose(view, query, budget)


def test_a_policy_that_can_is_told_what_to_expect_in_view_pixels():
    policy, scene = Expecting(Findings()), Scene()
    perception = ActivePerception(policy, CentreFinder(), BUDGET)
    first, second = frames_of(2)
    perception.perceive(first, scene=scene)
    assert (policy.expected.objects, policy.expected.zooms) == ((), ())
    perception.perceive(second, scene=scene)
    assert [o.label for o in policy.expected.objects] == ["cone", "cone"]
    assert sorted(round(o.box.x, 3) for o in policy.expected.objects) == [15, 55]
    assert [(round(z.window.x, 3), z.zoom, z.age_s) for z in policy.expected.zooms] == [(0, 2.5, 0.1), (40, 2.5, 0.1)]


def test_what_is_wrong_with_the_order_of_frames_is_told_in_the_result():
    perception, scene = ActivePerception(LeftAndRight(Findings()), CentreFinder(), BUDGET), Scene()
    old, new = frames_of(2)
    perception.perceive(new, scene=scene)
    assert "older than the last one" in perception.perceive(old, scene=scene).status_message


class Broken:
    """A fault: a policy, task model and segmenter in one, of which a method is replaced by what a test wants."""

    batch_size = 1

    def __init__(self, **methods):
        for name, method in methods.items():
            setattr(self, name, method)

    def view_size(self, width, height, max_pixels):
        return 80, 40

    def propose(self, view, query, budget):
        return Proposal((Region(Box(0, 0, 20, 20)),))

    def examine(self, views, query, budget):
        return [Findings((Finding("cone", Box(1, 1, 5, 5), 0.5),)) for _ in views]

    def answer(self, query, findings, groundings):
        return None

    def segment(self, frame, detections):
        return []


NAN_BOX = Box(float("nan"), 0, 5, 5)


@pytest.mark.parametrize(
    ("method", "answer", "complaint"),
    [
        ("view_size", (0, 5), "the policy Broken gave the view size (0, 5)"),
        ("view_size", "large", "the policy Broken gave the view size 'large'"),
        ("propose", None, "the policy Broken gave NoneType instead of a Proposal"),
        ("propose", Proposal((Region(NAN_BOX),)), "the policy Broken gave a box whose coordinates are not finite"),
        ("propose", Proposal((Region(Box(90, 0, 5, 5)),)), "the policy Broken gave the region [90.0, 0.0, 5.0, 5.0]"),
        ("propose", Proposal((Region(Box(0, 0, 0, 5)),)), "the policy Broken gave the region [0.0, 0.0, 0.0, 5.0]"),
        ("examine", None, "the task model Broken gave NoneType instead of a list of Findings"),
        ("examine", [], "the task model Broken gave 0 findings for 2 views"),
        ("examine", [Findings((Finding("cone", NAN_BOX),))] * 2, "the task model Broken gave a box whose coordinates"),
        ("examine", [Findings((Finding("cone", Box(0, 0, 1, 1), 7),))] * 2, "the task model Broken gave the score 7"),
        ("segment", None, "the segmenter Broken gave NoneType instead of a list of InstanceMasks"),
        (
            "segment",
            [InstanceMask("cone", 0.5, Box(0, 0, 4, 4), np.ones((3, 4), bool))],
            "the segmenter Broken gave a mask bool (3, 4) for a box of 4 x 4 px",
        ),
        (
            "segment",
            [InstanceMask("cone", 0.5, Box(798, 0, 4, 4), np.ones((4, 4), bool))],
            "the segmenter Broken gave a mask at (798, 0, 4, 4) in 800 x 400 px",
        ),
    ],
)
def test_a_component_that_gives_something_else_fails_the_frame_with_its_name(method, answer, complaint):
    broken = Broken(**{method: lambda *_: answer})
    result = ActivePerception(broken, broken, BUDGET, broken).perceive(FRAME, Query(masks=True))
    assert result.status == Status.FAILED
    assert complaint in result.status_message


@pytest.mark.parametrize(
    ("method", "kind"),
    [("propose", "policy"), ("examine", "task model"), ("answer", "task model"), ("segment", "segmenter")],
)
def test_a_component_that_raises_is_named_and_its_traceback_logged(method, kind, caplog):
    def fail(*_):
        raise ZeroDivisionError(f"in {method}")

    fine, broken = Broken(), Broken(**{method: fail})
    parts = {"policy": fine, "task model": fine, "segmenter": fine, kind: broken}
    loop = ActivePerception(parts["policy"], parts["task model"], BUDGET, parts["segmenter"])
    result = loop.perceive(FRAME, Query(masks=True))
    assert result.status == Status.FAILED
    assert f"the {kind}" in result.status_message
    assert f"Broken raised ZeroDivisionError: in {method}" in result.status_message
    assert caplog.records[-1].exc_info
