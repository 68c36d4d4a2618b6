"""Changes and requests while the node runs: parameters, the query, enable, the action perceive."""

from __future__ import annotations

import random
import time

import pytest
from action_msgs.msg import GoalStatus
from activeo3_ros.action import Perceive
from activeo3_ros.msg import PerceptionResult
from diagnostic_msgs.msg import DiagnosticStatus
from node_fixtures.client import Client
from node_fixtures.fakes import FINE, HANGS, RAISES, SLOW, picture
from node_fixtures.processes import NodeProcess
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters
from waiting import wait_for

from activeo3_ros.node.parameters import PARAMETERS
from activeo3_ros.node.perceive_action import AS_NODE

CAMERAS = ("camera", "rear")


@pytest.fixture(scope="module")
def node():
    with NodeProcess(cameras=CAMERAS, autostart=True, diagnostics_period=0.1) as node:
        yield node


@pytest.fixture(scope="module")
def client(node):
    with Client(CAMERAS) as client:
        client.connect()
        yield client
        assert node.running
        assert "a callback of" not in node.text, "an exception got out of a callback"


# Parameters


def test_every_parameter_is_declared_as_the_table_says(client):
    request = DescribeParameters.Request(names=list(PARAMETERS))
    descriptors = client.call(DescribeParameters, "describe_parameters", request).descriptors
    for parameter, got in zip(PARAMETERS.values(), descriptors, strict=True):
        expected = parameter.descriptor()
        assert (got.name, got.type, got.description, got.read_only) == (
            expected.name,
            expected.type,
            expected.description,
            expected.read_only,
        )
        assert got.integer_range == expected.integer_range
        assert got.floating_point_range == expected.floating_point_range


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"max_regions": 1000}, "max_regions"),
        ({"max_regions": -3}, "max_regions"),
        ({"view_pixels": 5}, "view_pixels must be 1024"),
        ({"deadline_ms": float("nan")}, "deadline_ms"),
        ({"deadline_ms": "soon"}, "deadline_ms must be a number, got soon"),
        ({"query": 42}, "query must be a text, got 42, which YAML reads as a number: quote it"),
        ({"query": "x" * 5000}, "1000 characters"),
        ({"query": "a unicorn"}, "not unicorns"),
        ({"preset": "other"}, "while the node is unconfigured"),
        ({"cameras": ["new"]}, "read-only"),
        ({"nonsense": 1}, "undeclared"),
    ],
)
def test_a_change_that_is_not_allowed_says_why_and_changes_nothing(client, change, says):
    (name,) = change
    before = client.get_parameters(name)
    answer = client.set_parameters(**change)[0]
    assert not answer.successful
    assert says in answer.reason
    assert client.get_parameters(name) == before
    assert client.result_of(picture()).status == PerceptionResult.STATUS_COMPLETE


def test_what_may_change_only_while_unconfigured_may_be_set_to_the_value_that_it_has(client):
    (value,) = client.get_parameters("preset")
    assert client.set_parameters(preset=value.string_value)[0].successful


def test_a_change_may_be_written_as_its_neighbouring_type(client):
    assert client.set_parameters(deadline_ms=60_000)[0].successful
    assert client.get_parameters("deadline_ms")[0].double_value == 60_000.0
    assert client.set_parameters_atomically(deadline_ms=-1, max_regions=1.0, masks="True").successful
    result = client.result_of(picture())
    assert (len(result.regions), len(result.masks)) == (1, len(result.detections))
    assert client.set_parameters_atomically(max_regions=-1, masks=0, classes="").successful


def test_several_changes_hold_together_or_not_at_all(client):
    refused = client.set_parameters_atomically(max_regions=1, deadline_ms=-7.0)
    assert not refused.successful
    assert len(client.result_of(picture()).regions) == 2
    assert client.set_parameters_atomically(max_regions=1, masks=True).successful
    result = client.result_of(picture())
    assert (len(result.regions), len(result.masks)) == (1, len(result.detections))
    assert client.set_parameters_atomically(max_regions=-1, masks=False).successful


def test_300_random_changes_do_no_harm(client):
    choose = random.Random(3)
    values = {
        bool: lambda: choose.random() < 0.5,
        int: lambda: choose.choice([-1, 0, 1, 5000, choose.randint(-(2**63), 2**63 - 1)]),
        float: lambda: choose.choice([-1.0, 0.0, 1e3, float("nan"), float("inf"), choose.uniform(-1e9, 1e9)]),
        str: lambda: choose.choice(["", "sign", "x" * 3000, "Ωñ\n", "raw"]),
        list: lambda: choose.choice([[], ["car"], ["car"] * 300, [""]]),
    }
    for number in range(300):
        names = choose.sample(sorted(PARAMETERS), choose.randint(1, 4))
        client.set_parameters_atomically(**{name: values[type(PARAMETERS[name].default)]() for name in names})
        if number % 25 == 0:
            assert client.get_state() == "active"
    reset = {name: p.default for name, p in PARAMETERS.items() if not p.descriptor().read_only and name != "preset"}
    assert client.set_parameters_atomically(**reset).successful
    assert client.result_of(picture()).status == PerceptionResult.STATUS_COMPLETE


# The deadline and diagnostics


def test_a_frame_that_would_miss_its_deadline_is_published_coarse_with_the_reason(client):
    assert client.set_parameters(deadline_ms=100.0)[0].successful
    result = client.result_of(picture(SLOW))
    assert result.status == PerceptionResult.STATUS_COARSE
    assert result.status_message.startswith("the deadline of 100 ms left time for")
    assert len(result.regions) < 2
    assert result.detections
    assert client.set_parameters(deadline_ms=-1.0)[0].successful


def test_diagnostics_tell_rates_latencies_memory_and_models(client):
    for _ in range(3):
        client.result_of(picture(), stamp=client.node.get_clock().now().to_msg())

    def measured():
        level, _, values = client.status()
        return level == 0 and values.get("age_at_publish_ms", "unknown") != "unknown" and values

    values = wait_for(measured)
    assert {"preset", "sensing", "task", "device", "memory_mb", "processed_hz", "last_error"} <= set(values)
    for stage in ("queue", "decode", "examine", "total", "callback_to_publish", "age_at_publish"):
        assert values[f"{stage}_ms"].startswith("p50 "), stage
    assert float(client.status("camera")[2]["received_hz"]) >= 0
    assert client.diagnostics[-1].status[0].hardware_id


# The query


def test_a_query_holds_from_the_next_frame_on_and_its_revision_is_echoed(client):
    first = client.set_query("the sign", ("car",))
    assert first.success
    result = client.result_of(picture())
    assert (result.query, result.query_revision, result.answer) == ("the sign", first.revision, "102")
    second = client.set_query("the plate")
    assert second.revision == first.revision + 1
    assert client.result_of(picture(), "rear").query_revision == second.revision
    assert client.get_parameters("query")[0].string_value == "the plate"
    assert client.set_query("").success


def test_a_query_that_cannot_be_served_leaves_the_former_one_in_force(client):
    former = client.set_query("the sign")
    refused = client.set_query("a unicorn")
    assert (refused.success, refused.revision) == (False, former.revision)
    assert "finds things, not unicorns" in refused.message
    assert client.result_of(picture()).query == "the sign"
    assert "1000 characters" in client.set_query("x" * 2000).message
    assert client.set_query("").success


def test_a_query_whose_models_still_load_holds_from_when_they_are_there(client):
    former = client.set_query("the sign")
    accepted = client.set_query("a rare thing")
    assert accepted.success
    assert "is being loaded" in accepted.message
    assert client.get_parameters("query")[0].string_value == "a rare thing"
    assert not client.set_query("a unicorn").success
    assert client.result_of(picture()).query_revision == former.revision
    wait_for(lambda: client.status()[2]["query_ready"] == "false")
    result = wait_for(lambda: (r := client.result_of(picture())).query_revision == accepted.revision and r)
    assert result.query == "a rare thing"
    wait_for(lambda: client.status()[2]["query_ready"] == "true")
    assert client.set_query("").success


# Enable


def test_a_disabled_node_perceives_no_frame_until_it_is_enabled(client):
    client.result_of(picture())
    assert client.enable(False).success
    results = len(client.results)
    client.publish(picture())
    time.sleep(0.3)
    assert len(client.results) == results
    wait_for(lambda: client.status()[:2] == (3, "disabled by ~/enable: nothing is looked at"))
    assert client.enable(True).success
    assert client.result_of(picture()).detections


# Perceive requests


def test_a_request_has_its_own_query_and_leaves_the_standing_one_alone(client):
    # Slow, for a client hears no feedback any more once it has the result.
    standing = client.result_of(picture(SLOW))
    feedback = []
    handle = client.perceive(feedback.append, camera="camera", query="the sign", max_regions=1)
    assert handle.accepted
    outcome = client.outcome(handle)
    assert outcome.status == GoalStatus.STATUS_SUCCEEDED
    result = outcome.result.result
    assert (result.query, result.answer, result.camera) == ("the sign", "102", "camera")
    assert len(result.regions) == 1
    assert result.header == standing.header
    stages = [message.feedback.stage for message in feedback]
    assert stages[:2] == ["decode", "sense"]
    assert len(wait_for(lambda: [m for m in feedback if m.feedback.regions])[-1].feedback.regions) == 1
    assert client.result_of(picture()).query == standing.query


def test_a_request_zooms_as_the_node_does_unless_it_says_how_often(client):
    client.result_of(picture())

    def regions_and_message(**goal):
        result = client.outcome(client.perceive(camera="camera", **goal)).result.result
        assert result.status == PerceptionResult.STATUS_COMPLETE
        return len(result.regions), result.status_message

    assert regions_and_message(max_regions=AS_NODE) == (2, "")
    assert client.set_parameters(max_regions=1)[0].successful
    assert regions_and_message() == (1, "")
    assert regions_and_message(max_regions=2) == (2, "")
    # What a client sends that sets nothing: a result that looks complete must say what was left out.
    regions, message = regions_and_message(max_regions=Perceive.Goal().max_regions)
    assert regions == 0
    assert "only the view of the whole frame was examined; 255 takes the node's" in message
    assert client.set_parameters(max_regions=-1)[0].successful


def test_a_disabled_node_still_serves_requests(client):
    client.result_of(picture())
    client.enable(False)
    assert client.outcome(client.perceive(camera="camera")).status == GoalStatus.STATUS_SUCCEEDED
    client.enable(True)


def test_a_request_whose_frame_fails_aborts_with_the_reason(client):
    client.result_of(picture(RAISES))
    outcome = client.outcome(client.perceive(camera="camera"))
    assert outcome.status == GoalStatus.STATUS_ABORTED
    assert "the engine broke" in outcome.result.result.status_message
    client.result_of(picture(FINE))


@pytest.mark.parametrize(
    ("goal", "says"),
    [
        ({"camera": "nonsense"}, "unknown camera 'nonsense'; this node has camera, rear"),
        ({"camera": ""}, "unknown camera ''"),
        ({"camera": "camera", "query": "a unicorn"}, "not unicorns"),
        ({"camera": "camera", "query": "x" * 2000}, "1000 characters"),
        ({"camera": "camera", "max_regions": 200}, "max_regions must be 0 to 64"),
        ({"camera": "camera", "deadline_ms": float("nan")}, "deadline_ms"),
        ({"camera": "camera", "deadline_ms": -5.0}, "deadline_ms"),
    ],
)
def test_a_goal_that_cannot_be_served_is_rejected_with_the_reason(node, client, goal, says):
    assert not client.perceive(**goal).accepted
    wait_for(lambda: f"goal rejected: {says}" in node.text or says in node.text.split("goal rejected: ")[-1])


# With a node of their own


def test_a_request_can_be_cancelled_and_a_second_one_is_rejected_meanwhile():
    with (
        NodeProcess(node_name="second", cameras=["solo"], autostart=True) as node,
        Client(("solo",), "second") as client,
    ):
        client.connect()
        waiting = client.perceive(camera="solo")  # no frame has come yet
        assert waiting.accepted
        assert not client.perceive(camera="solo").accepted
        wait_for(lambda: "another request is still in progress" in node.text)
        assert client.cancel(waiting).goals_canceling
        outcome = client.outcome(waiting)
        assert outcome.status == GoalStatus.STATUS_CANCELED
        assert "cancelled" in outcome.result.result.status_message
        client.result_of(picture(), "solo")
        assert client.outcome(client.perceive()).status == GoalStatus.STATUS_SUCCEEDED
        assert client.change_state("deactivate")
        assert not client.perceive(camera="solo").accepted
        wait_for(lambda: "the node is not active" in node.text)


def test_a_request_that_is_cancelled_in_progress_ends_at_its_next_step(client):
    """Three views of 0.3 s each: cancelled in the first, none of the others is begun."""
    client.result_of(picture(SLOW))
    feedback = []
    assert client.set_parameters(deadline_ms=60_000.0)[0].successful  # one view at a time
    handle = client.perceive(feedback.append, camera="camera", max_regions=2)
    wait_for(lambda: [message for message in feedback if message.feedback.stage == "examine"])
    assert client.cancel(handle).goals_canceling
    outcome = client.outcome(handle)
    assert outcome.status == GoalStatus.STATUS_CANCELED
    assert outcome.result.result.status_message == "cancelled by the client"
    assert [message.feedback.stage for message in feedback].count("examine") == 1
    assert client.set_parameters(deadline_ms=-1.0)[0].successful
    assert client.result_of(picture()).status == PerceptionResult.STATUS_COMPLETE


def test_services_answer_while_a_frame_is_in_progress():
    with NodeProcess(node_name="second", cameras=["solo"], autostart=True), Client(("solo",), "second") as client:
        client.connect()
        client.publish(picture(HANGS), "solo")
        wait_for(lambda: client.counts("solo")["pending"])
        assert client.get_state() == "active"
        assert client.set_parameters(max_regions=1)[0].successful
        assert client.get_parameters("max_regions")[0].type == ParameterType.PARAMETER_INTEGER
        assert client.set_query("sign").success
        level, _, values = client.status()
        assert level in (DiagnosticStatus.OK[0], DiagnosticStatus.WARN[0])
        assert values["pending"] == "1"
