"""What each level of `/diagnostics` means, from the reports that it is made of."""

from __future__ import annotations

import dataclasses
import math

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from activeo3_ros.node.camera_input import Publishers
from activeo3_ros.node.diagnostics import (
    CameraReport,
    NodeClock,
    NodeReport,
    camera_status,
    loss_warning,
    node_status,
)
from activeo3_ros.node.frame_counters import Counts, Distribution

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE

NODE = NodeReport(
    state="active",
    enabled=True,
    loading_s=0.0,
    error="",
    facts={"preset": "embedded", "device": "cpu"},
    counts=Counts(received=30, processed=20, replaced=10),
    before=Counts(received=15, processed=10, replaced=5),
    seconds=2.0,
    latencies={"total": Distribution(10.0, 20.0, 30.0), "age_at_publish": Distribution(12.0, 25.0, 300.5)},
    hung_threads=0,
    last_error="",
)
NOW_S = 1.8e9
CAMERA = CameraReport(
    camera="front",
    topic="/front/image_raw",
    working=True,
    counts=NODE.counts,
    before=NODE.before,
    seconds=2.0,
    quality_of_service="reliable, volatile",
    lost_before_receipt=0,
    lost_in_transport=0,
    publishers=Publishers(heard=("/driver",)),
    silent_s=0.1,
    stamp_s=NOW_S - 0.05,
    now_s=NOW_S,
    clock=NodeClock.SYSTEM,
)


def failing(processed: int = 0, **named: int) -> dict[str, Counts]:
    """So many frames of each kind since the last report."""
    counts = Counts(received=processed + sum(named.values()), processed=processed, **named)
    return {"before": Counts(), "counts": counts}


@pytest.mark.parametrize(
    ("change", "level", "says"),
    [
        ({}, OK, "5.0 frames a second"),
        ({**failing(3, failed=1), "last_error": "front: boom"}, WARN, "1 frames failed: front: boom"),
        ({"hung_threads": 1}, WARN, "a model hung and was loaded again"),
        ({"loading_s": 3.0}, WARN, "loading models for 3 s"),
        ({**failing(failed=4), "last_error": "front: boom"}, ERROR, "every frame fails: front: boom"),
        ({"state": "unconfigured", "error": "no such file"}, ERROR, "no such file"),
        ({"state": "configuring", "loading_s": 3.0}, STALE, "loading models for 3 s"),
        ({"state": "inactive"}, STALE, "inactive: nothing is looked at"),
        ({"state": "unconfigured"}, STALE, "unconfigured: nothing is looked at"),
        ({"enabled": False}, STALE, "disabled by ~/enable: nothing is looked at"),
    ],
)
def test_the_level_of_the_node(change, level, says):
    status = node_status("activeo3", "robot", dataclasses.replace(NODE, **change))
    assert (status.level, status.message) == (level, says)
    assert (status.name, status.hardware_id) == ("activeo3", "robot")


@pytest.mark.parametrize(
    ("change", "level", "says"),
    [
        ({}, OK, "5.0 frames a second"),
        ({"silent_s": math.nan, "publishers": Publishers()}, WARN, "yet; nobody is known to publish it"),
        (
            {"silent_s": math.nan, "publishers": Publishers(elsewhere=("/cam/image_raw",))},
            WARN,
            "nobody is known to publish it; images are on /cam/image_raw",
        ),
        (
            {"silent_s": math.nan, "publishers": Publishers(unheard=("/driver publishes it as another type",))},
            WARN,
            "nothing has come on /front/image_raw yet; /driver publishes it as another type",
        ),
        (
            {"silent_s": 4.0, "publishers": Publishers(("/driver",), ("/other asks too much",))},
            WARN,
            "for 4.0 s; /driver publishes it; /other asks too much",
        ),
        ({"silent_s": math.nan}, WARN, "nothing has come on /front/image_raw yet; /driver publishes it"),
        ({"silent_s": 4.0}, WARN, "nothing has come on /front/image_raw for 4.0 s; /driver publishes it"),
        (failing(3, rejected=2), WARN, "2 frames rejected, 0 failed"),
        (failing(rejected=2), ERROR, "2 frames rejected, 0 failed"),
        (failing(failed=2), ERROR, "0 frames rejected, 2 failed"),
        (
            {**failing(3, undecoded=2), "video_fault": "waits for a key frame: packets were lost"},
            WARN,
            "2 packets of the video not decoded: waits for a key frame: packets were lost",
        ),
        (failing(undecoded=2), ERROR, "2 packets of the video not decoded"),
        (failing(3, stale=2), WARN, "2 frames older than max_frame_age; do the clocks agree?"),
        (
            {**failing(stale=2), "stamp_s": NOW_S - 95_843_951.1},
            ERROR,
            "older than max_frame_age; stamps are 1109 days behind",
        ),
        (failing(stale=2), ERROR, "2 frames older than max_frame_age"),
        (
            {"stamp_s": NOW_S + 5.0},
            WARN,
            "stamps are 5.0 s ahead of this node's clock; if a bag is played, play it with --clock",
        ),
        ({"stamp_s": NOW_S - 3000.0}, OK, "5.0 frames a second"),
        (
            {"stamp_s": NOW_S - 95_843_951.1},
            WARN,
            "stamps are 1109 days behind this node's clock; if a bag is played, play it",
        ),
        (
            {"stamp_s": NOW_S - 7300.0, "clock": NodeClock.SIMULATED},
            WARN,
            "2.0 h behind this node's clock; use_sim_time is true",
        ),
        (
            {"stamp_s": NOW_S, "now_s": 0.0, "clock": NodeClock.NOT_STARTED},
            WARN,
            "use_sim_time is true and nothing has come on /clock",
        ),
        ({"stamp_s": 5000.0}, OK, "5.0 frames a second; stamps count from a machine's start"),
        ({"stamp_s": 5000.0, "now_s": 5000.1}, OK, "5.0 frames a second"),
        (
            {**failing(stale=2), "stamp_s": 5000.0},
            ERROR,
            "83.3 min ago: their age is unknown, and max_frame_age would refuse all",
        ),
        (
            {"lost_meanwhile": 3, "lost_before_receipt": 9, "loss_remedy": "publish it compressed"},
            WARN,
            "3 frames lost before receipt; publish it compressed",
        ),
        ({"lost_before_receipt": 9}, OK, "5.0 frames a second"),  # long ago
        ({"working": False, "silent_s": math.nan}, STALE, "not looked at"),
    ],
)
def test_the_level_of_a_camera(change, level, says):
    status = camera_status("activeo3", "robot", dataclasses.replace(CAMERA, **change))
    assert status.level == level
    assert says in status.message
    assert status.name == "activeo3: front"


def test_the_values_tell_counts_rates_and_distributions():
    values = {pair.key: pair.value for pair in node_status("activeo3", "robot", NODE).values}
    assert (values["received"], values["processed"], values["replaced"]) == ("30", "20", "10")
    assert (values["preset"], values["device"], values["processed_hz"]) == ("embedded", "cpu", "5.0")
    assert values["total_ms"] == "p50 10.0, p95 20.0, max 30.0"
    assert values["age_at_publish_ms"] == "p50 12.0, p95 25.0, max 300.5"
    values = {pair.key: pair.value for pair in camera_status("activeo3", "robot", CAMERA).values}
    assert (values["received_hz"], values["stamp_age_s"], values["publishers"]) == ("7.5", "0.050", "/driver")
    assert (values["lost_before_receipt"], values["lost_in_transport"]) == ("0", "0")


@pytest.mark.parametrize(("lost", "says"), [(None, ""), (4, ""), (9, "9 of 109 frames of")])
def test_the_log_tells_of_losses_that_are_not_few(lost, says):
    counts = dataclasses.replace(CAMERA.counts, received=100)
    warning = loss_warning(dataclasses.replace(CAMERA, counts=counts, lost_before_receipt=lost, loss_remedy="try this"))
    assert bool(warning) == bool(says) and says in warning
    assert not says or "Try in this order: try this" in warning


def test_a_calibration_that_contradicts_the_image_is_a_warning_with_its_reason():
    report = dataclasses.replace(CAMERA, calibration_error="camera_info shows another shape")
    status = camera_status("activeo3", "robot", report)
    assert (status.level, status.message) == (WARN, "no markers or bearings: camera_info shows another shape")
    values = {pair.key: pair.value for pair in status.values}
    assert values["calibration_error"] == "camera_info shows another shape"


def test_an_age_by_two_clocks_is_unknown():
    report = dataclasses.replace(NODE, latencies={"total": Distribution(10.0, 20.0, 30.0)})
    values = {pair.key: pair.value for pair in node_status("activeo3", "robot", report).values}
    assert values["age_at_publish_ms"] == "unknown"


def test_the_age_of_a_stamp_that_counts_from_a_machines_start_is_unknown():
    report = dataclasses.replace(CAMERA, stamp_s=5000.0)
    values = {pair.key: pair.value for pair in camera_status("activeo3", "robot", report).values}
    assert values["stamp_age_s"] == "unknown"


def test_what_nobody_knows_is_said_to_be_unknown():
    report = dataclasses.replace(CAMERA, lost_before_receipt=None, silent_s=math.nan, stamp_s=math.nan)
    values = {pair.key: pair.value for pair in camera_status("activeo3", "robot", report).values}
    assert values["lost_before_receipt"] == values["silent_s"] == values["stamp_age_s"] == "unknown"
