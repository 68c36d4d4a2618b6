"""The one table of parameters: declarations, documentation and limits all come from it."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from node_fixtures.inside import node_inside
from rclpy.parameter import Parameter as RosParameter

from activeo3_ros.core import Budget, InvalidInput, Query
from activeo3_ros.core.budget import LIMITS
from activeo3_ros.node import parameters
from activeo3_ros.node.parameters import AS_PRESET, PARAMETERS, When
from activeo3_ros.presets import preset_names

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "parameters.md"
DEFAULTS = {name: parameter.default for name, parameter in PARAMETERS.items()}


def random_value(choose: random.Random, default: object) -> object:
    """Any value of the type of this default: usual ones, extreme ones and nonsense."""
    text = "".join(chr(choose.choice([65, 95, 47, 32, 0, 10, 937, 128663])) for _ in range(choose.randint(0, 5)))
    texts = ["", text, "raw", "compressed", "embedded", "camera", "front/left", text * 500]
    if isinstance(default, bool):
        return choose.random() < 0.5
    if isinstance(default, int):
        return choose.choice([-1, 0, 1, 3, 2000, choose.randint(-(2**63), 2**63 - 1)])
    if isinstance(default, float):
        return choose.choice([-1.0, 0.0, 0.5, 10.0, math.nan, math.inf, -math.inf, choose.uniform(-1e6, 1e6)])
    if isinstance(default, str):
        return choose.choice(texts)
    return [choose.choice(texts) for _ in range(choose.choice([0, 1, 2, 20, 300]))]


def test_the_documentation_is_written_from_the_table():
    written = PAGE.read_text(encoding="utf-8")
    assert written == parameters.markdown(), "run: python docs/generate.py"


def test_defaults_are_allowed():
    parameters.check(DEFAULTS, set(DEFAULTS), configured=False)


def test_the_default_preset_ships():
    assert PARAMETERS["preset"].default in preset_names()


def test_defaults_leave_the_preset_as_it_is():
    budget, query = Budget(max_regions=5, deadline_ms=80.0), Query("the sign", ("car",), True, 3)
    assert parameters.budget(DEFAULTS, budget) == budget
    assert parameters.query(DEFAULTS, query, 3) == query


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_every_parameter_says_what_it_is(name):
    parameter = PARAMETERS[name]
    descriptor = parameter.descriptor()
    assert parameter.description.endswith(".")
    assert parameter.when.value in descriptor.description
    assert descriptor.read_only == (parameter.when is When.START)
    if isinstance(parameter.default, (int, float)) and not isinstance(parameter.default, bool):
        assert parameter.unit
        assert parameter.low <= parameter.default <= parameter.high
        assert descriptor.integer_range or descriptor.floating_point_range


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("max_regions", 65, "max_regions must be -1 to 64 regions, got 65"),
        ("max_regions", -2, "max_regions must be -1 to 64"),
        ("view_pixels", 10, "view_pixels must be 1024 to"),
        ("deadline_ms", -0.5, "deadline_ms must be 0.0 to"),
        ("deadline_ms", math.nan, "deadline_ms must be -1 to 600000 ms, got nan"),
        ("deadline_ms", math.inf, "got inf"),
        ("transport", "smoke", "transport must be one of raw, compressed, got 'smoke'"),
        ("query", "x" * 1001, "1000 characters, got 1001"),
        ("classes", ["car"] * 201, "200 classes, got 201"),
        ("classes", ["car", "x" * 101], "100 characters, got 101"),
        ("cameras", [], "1 to 16 cameras, got 0"),
        ("cameras", ["a", "a"], "must differ"),
        ("cameras", ["front camera"], "cannot begin a topic's name"),
        ("cameras", ["front/left", "/rear"], "camera '/rear'"),
    ],
)
def test_what_is_not_allowed_is_refused_with_the_reason(name, value, says):
    with pytest.raises(InvalidInput, match=says):
        parameters.check({**DEFAULTS, name: value}, {name}, configured=False)


def test_some_parameters_wait_until_the_node_is_unconfigured():
    changed = {**DEFAULTS, "preset": "full_frame"}
    parameters.check(changed, {"preset"}, configured=False)
    with pytest.raises(InvalidInput, match="call cleanup first"):
        parameters.check(changed, {"preset"}, configured=True)


@pytest.fixture
def node():
    """An active node in this process."""
    with node_inside() as node:
        node.start()
        assert node.state == "active", node.last_error
        yield node


def set_of(values: dict[str, object]) -> list[RosParameter]:
    return [RosParameter(name, PARAMETERS[name].type, value) for name, value in values.items()]


def test_10000_random_sets_reach_a_running_node_and_hold_together_or_not_at_all(node):
    choose, accepted = random.Random(5), 0
    for _ in range(10_000):
        names = choose.sample(sorted(PARAMETERS), choose.randint(1, 4))
        wanted = {name: random_value(choose, PARAMETERS[name].default) for name in names}
        before, revision = parameters.values(node), node._revision
        outcome = node.set_parameters_atomically(set_of(wanted))
        after = parameters.values(node)
        if not outcome.successful:
            assert outcome.reason
            assert after == before
            assert node._revision == revision
            continue
        accepted += 1
        assert after == {**before, **wanted}
        # What may hold in an active node: nothing that waits for another state, and a scheduler that got all of it.
        assert {PARAMETERS[name].when for name in wanted} == {When.ALWAYS}
        assert node._revision == revision + bool(parameters.QUERY & set(wanted))
        assert node._scheduler.settings.budget == parameters.budget(after, node._preset.budget)
        assert node._scheduler.settings.query == parameters.query(after, node._preset.query, node._revision)
    assert 300 < accepted < 9000
    usual = {name: value for name, value in DEFAULTS.items() if PARAMETERS[name].when is When.ALWAYS}
    assert node.set_parameters_atomically(set_of(usual)).successful


def test_each_of_10000_random_values_alone_is_accepted_just_if_it_is_in_its_range(node):
    """The oracle is the table as it is documented: type, range, choices and lengths."""
    choose = random.Random(6)
    always = [parameter for parameter in PARAMETERS.values() if parameter.when is When.ALWAYS]
    usual = {parameter.name: parameter.default for parameter in always}
    for _ in range(10_000):
        parameter = choose.choice(always)
        value = random_value(choose, parameter.default)
        outcome = node.set_parameters_atomically(set_of({parameter.name: value}))
        assert outcome.successful == is_documented(parameter.name, value), (parameter.name, value, outcome.reason)
        if outcome.successful:
            assert node.set_parameters_atomically(set_of({parameter.name: usual[parameter.name]})).successful


def is_documented(name: str, value: object) -> bool:
    """Whether `docs/reference/parameters.md` allows this value."""
    parameter = PARAMETERS[name]
    if name == "query":
        return len(value) <= 1000
    if name == "classes":
        names = [entry for entry in value if entry.strip()]
        return len(names) <= 200 and all(len(entry) <= 100 for entry in names)
    if parameter.low is None:
        return True
    if name in LIMITS and value != AS_PRESET:
        low, high = LIMITS[name]
        return math.isfinite(value) and low <= value <= high
    return math.isfinite(value) and parameter.low <= value <= parameter.high
