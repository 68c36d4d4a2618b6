"""How many pictures and batches fit into the minutes that one gives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activeo3_ros.core import InvalidInput
from activeo3_ros.training.proposals import TrainingSettings
from activeo3_ros.training.proposals_plan import (
    FEWEST_STEPS,
    MOST_PICTURES,
    MOST_STEPS,
    PLAN,
    Costs,
    Plan,
    keep_plan,
    kept_plan,
    planned,
)

SETTINGS = TrainingSettings()
TEN_MINUTES_OF_DRIVE = (18_000,)
TWO_BUSY_CORES = Costs((6.0,), 0.05, 0.3)
seconds = st.floats(1e-3, 30)


def test_ten_minutes_of_drive_take_less_than_thirty():
    plan = planned(25, TWO_BUSY_CORES, TEN_MINUTES_OF_DRIVE, SETTINGS)
    assert plan.seconds <= 25 * 60
    assert plan.max_pictures >= 80
    assert plan.steps >= 800


@given(
    st.floats(0.1, 200), st.lists(st.tuples(seconds, st.integers(5, 5000)), min_size=1, max_size=4), seconds, seconds
)
def test_the_minutes_are_kept_but_by_the_least_that_can_be_taught(minutes, sources, scene, batch):
    costs, available = Costs(tuple(look for look, _ in sources), scene, batch), [count for _, count in sources]
    plan = planned(minutes, costs, available, SETTINGS)
    assert 5 <= plan.max_pictures <= MOST_PICTURES
    assert FEWEST_STEPS <= plan.steps <= MOST_STEPS
    is_least = plan.max_pictures == 5 or plan.steps == FEWEST_STEPS
    assert plan.seconds <= 60 * minutes * (1 + 1e-9) or is_least
    longer = planned(2 * minutes, costs, available, SETTINGS)
    assert longer.max_pictures >= plan.max_pictures


def test_what_the_user_chooses_stays():
    plan = planned(5, TWO_BUSY_CORES, TEN_MINUTES_OF_DRIVE, SETTINGS, max_pictures=7)
    assert (plan.max_pictures, plan.seconds <= 300) == (7, True)
    plan = planned(20, TWO_BUSY_CORES, TEN_MINUTES_OF_DRIVE, SETTINGS, steps=300)
    assert (plan.steps, plan.seconds <= 1200) == (300, True)
    assert planned(1, TWO_BUSY_CORES, TEN_MINUTES_OF_DRIVE, SETTINGS, 150, 1200).seconds > 60


def test_a_plan_is_kept_for_what_was_asked(tmp_path):
    plan = Plan(20, 300, 500.0)
    assert kept_plan(tmp_path, [25, None]) is None
    keep_plan(tmp_path, [25, None], plan)
    assert kept_plan(tmp_path, [25, None]) == plan
    assert kept_plan(tmp_path, [10, None]) is None
    (tmp_path / PLAN).write_text("{")
    with pytest.raises(InvalidInput, match=r"plan\.json: cannot be read"):
        kept_plan(tmp_path, [25, None])
