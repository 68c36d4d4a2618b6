"""The one table of parameters: declarations, documentation and limits all come from it."""

from __future__ import annotations

import contextlib
import math
import random
from array import array
from pathlib import Path

import pytest
import rclpy
from hypothesis import given, settings
from hypothesis import strategies as st
from node_fixtures.fakes import load_fake
from node_fixtures.inside import node_inside
from rclpy.parameter import Parameter as RosParameter

from activeo3_ros.core import Budget, InvalidInput, Query
from activeo3_ros.core.budget import LIMITS
from activeo3_ros.node import parameters
from activeo3_ros.node.parameters import AS_PRESET, PARAMETERS, When
from activeo3_ros.node.perception_node import PerceptionNode
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
        ("transport", "smoke", "transport must be one of raw, compressed, ffmpeg, foxglove, got 'smoke'"),
        ("query", "x" * 1001, "1000 characters, got 1001"),
        ("classes", ["car"] * 201, "200 classes, got 201"),
        ("classes", ["car", "x" * 101], "100 characters, got 101"),
        ("cameras", [], "1 to 16 cameras, got 0"),
        ("cameras", ["a", "a"], "must differ"),
        ("cameras", ["front camera"], "cannot begin a topic's name"),
        ("cameras", ["front/left", "/rear"], "camera '/rear'"),
        ("depth_cameras", ["camera", "rear"], "depth_cameras names 'rear', which is none of cameras: camera"),
        ("depth_tolerance", 1.5, "depth_tolerance must be 0 to 1 s, got 1.5"),
        ("depth_error", -0.1, "depth_error must be 0 to 0.5"),
    ],
)
def test_what_is_not_allowed_is_refused_with_the_reason(name, value, says):
    with pytest.raises(InvalidInput, match=says):
        parameters.check({**DEFAULTS, name: value}, {name}, configured=False)


CONVERTED = [
    ("deadline_ms", 200, 200.0),
    ("deadline_ms", "200", 200.0),
    ("deadline_ms", "1.5e2", 150.0),
    ("max_regions", 3.0, 3),
    ("max_regions", "3", 3),
    ("view_pixels", 1e5, 100_000),
    ("masks", "True", True),
    ("masks", "false", False),
    ("masks", 1, True),
    ("masks", 0, False),
    ("classes", None, []),
    ("classes", "car", ["car"]),
    ("classes", "traffic light, car", ["traffic light", "car"]),
    ("classes", "", []),
]
REFUSED = [
    ("query", 42, "query must be a text, got 42, which YAML reads as a number: quote it, -p query:='\"…\"'"),
    ("query", 1.1, "got 1.1, which YAML reads as a number"),
    ("query", True, "got true, which YAML reads as true or false"),
    ("query", None, "query must be a text, got an empty list"),
    ("query", ["a", "b"], "query must be a text, got [a, b]"),
    ("classes", [1, 2], "classes must be a list of texts, got [1, 2], which YAML reads as a number: quote it"),
    ("classes", [True], "got [true], which YAML reads as true or false"),
    ("classes", 5, "classes must be a list of texts, got 5, which YAML reads as a number"),
    ("max_regions", 2.5, "max_regions must be a whole number, got 2.5"),
    ("max_regions", math.nan, "max_regions must be a whole number, got nan"),
    ("max_regions", math.inf, "max_regions must be a whole number, got inf"),
    ("max_regions", True, "max_regions must be a whole number, got true"),
    ("max_regions", "010", "max_regions must be a whole number, got 010"),
    ("max_regions", "0x10", "got 0x10"),
    ("max_regions", "many", "got many"),
    ("max_regions", "9" * 5000, "max_regions must be a whole number, got 999"),
    ("max_regions", None, "max_regions must be a whole number, got an empty list"),
    ("deadline_ms", "soon", "deadline_ms must be a number, got soon"),
    ("deadline_ms", False, "deadline_ms must be a number, got false"),
    ("deadline_ms", "nan", "deadline_ms must be a number, got nan"),
    ("masks", 2, "masks must be true or false, got 2"),
    ("masks", 1.0, "masks must be true or false, got 1.0"),
    ("masks", "maybe", "masks must be true or false, got maybe"),
]


@pytest.mark.parametrize(("name", "value", "meant"), CONVERTED)
def test_a_value_of_another_type_is_converted_where_one_alone_can_be_meant(name, value, meant):
    converted = PARAMETERS[name].convert(value)
    assert converted == meant
    assert type(converted) is type(meant)


@pytest.mark.parametrize(("name", "value", "says"), REFUSED)
def test_a_value_of_another_type_is_refused_where_its_meaning_is_lost(name, value, says):
    with pytest.raises(InvalidInput) as refusal:
        PARAMETERS[name].convert(value)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


ANY_TYPE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(),
    st.lists(st.booleans()),
    st.lists(st.text()),
    st.lists(st.integers(-(2**63), 2**63 - 1)).map(lambda numbers: array("q", numbers)),
    st.lists(st.floats()).map(lambda numbers: array("d", numbers)),
)


@given(st.sampled_from(sorted(PARAMETERS)), ANY_TYPE)
@settings(deadline=None, max_examples=1000)
def test_every_parameter_takes_a_value_of_any_type_as_its_own_or_refuses_it_in_a_line(name, value):
    parameter = PARAMETERS[name]
    try:
        converted = parameter.convert(value)
    except InvalidInput as error:
        assert str(error).startswith(f"{name} must be ")
        assert type(value) is not type(parameter.default) or isinstance(value, list)
    else:
        assert type(converted) is type(parameter.default)
        if isinstance(value, (bool, int, float)) and not math.isnan(value):
            assert float(converted) == float(value)


@pytest.mark.parametrize(
    ("written", "name", "value"),
    [
        ("classes: []", "classes", [""]),
        ("classes: car", "classes", ["car"]),
        ("deadline_ms: 200", "deadline_ms", 200.0),
        ("max_regions: 2.0", "max_regions", 2),
        ("masks: 'True'", "masks", True),
        ("autostart: 0", "autostart", False),
        ("diagnostics_period: 2", "diagnostics_period", 2.0),
        ("hardware_id: '0001'", "hardware_id", "0001"),
    ],
)
def test_a_parameter_file_may_write_a_value_as_its_neighbouring_type(tmp_path, written, name, value):
    with node_with_file(tmp_path, written) as node:
        assert parameters.values(node)[name] == value
        assert node.describe_parameter(name).type == PARAMETERS[name].type.value
        assert not node.describe_parameter(name).dynamic_typing


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("cameras: []", "cameras must name 1 to 16 cameras, got 0"),
        ("hardware_id: 0010", "hardware_id must be a text, got 8, which YAML reads as a number"),
        ("query: 42", 'query: "…" in a file'),
        ("masks: maybe", "masks must be true or false, got maybe"),
        ("max_regions: 2.5", "max_regions must be a whole number, got 2.5"),
        ('"qos_overrides./camera/image_raw.subscription.reliability": best', "/camera/image_raw cannot be had"),
        ('"qos_overrides./camera/image_raw.subscription.depth": -1', "/camera/image_raw cannot be had"),
        ('"qos_overrides./diagnostics.publisher.durability": long', "/diagnostics cannot be had"),
    ],
)
def test_a_parameter_file_that_is_not_clear_is_refused_with_a_hint(tmp_path, written, says):
    with pytest.raises(InvalidInput) as refusal, node_with_file(tmp_path, written):
        pass
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("written", "similar"),
    [
        ("max_region: 5", "max_regions"),
        ("deadline: 5.0", "deadline_ms"),
        ('"qos_overrides./camera/image.subscription.depth": 5', "qos_overrides./camera/image_raw.subscription.depth"),
        ("something_of_another_node: 5", ""),
        ("max_regions: 5", ""),
        ("use_sim_time: true", ""),
    ],
)
def test_a_misspelt_parameter_is_told_with_the_one_that_was_meant(tmp_path, written, similar):
    with node_with_file(tmp_path, written) as node:
        warnings = parameters.misspelt(node)
    assert len(warnings) == bool(similar)
    if similar:
        assert f"does not exist and has no effect; did you mean {similar!r}?" in warnings[0]


@contextlib.contextmanager
def node_with_file(folder, line: str):
    """A node in this process that is given a parameter file with one line."""
    path = folder / "parameters.yaml"
    path.write_text(f"/**:\n  ros__parameters:\n    preset: fake\n    {line}\n", encoding="utf-8")
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "--params-file", str(path)], context=context)
    try:
        node = PerceptionNode(load_fake, context=context)
        try:
            yield node
        finally:
            node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


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
