"""Answers on which the task model failed get no task reward, never one of zero."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from grpo_fixtures import BrokenTask

from activeo3_ros.core import Budget, Frame, View
from activeo3_ros.training import scoring
from activeo3_ros.training.grpo import reward_functions
from activeo3_ros.training.panels import draw_scored
from activeo3_ros.training.rewards import RewardSettings
from activeo3_ros.training.rows import Row
from activeo3_ros.training.scoring import Scorer, TrainingError
from activeo3_ros.vlm.families import QWEN2_5_VL
from activeo3_tiny.evaluation import measure

TARGET = (56.0, 56.0, 56.0, 56.0)
ROWS = [Row(f"picture {index}", 560, 560, ("car",), (TARGET,), ("car",)) for index in range(4)]

RAISED = "the task model BrokenTask raised RuntimeError"
PLACE = r" \(grpo_fixtures.py, line \d+\)"


def answer(x: int = 56, side: int = 56) -> str:
    box = f'{{"bbox_2d": [{x}, 56, {x + side}, {56 + side}], "label": "car"}}'
    return f"<think>why</think><answer>[{box}]</answer>"


def frame_of(row: Row) -> Frame:
    """As bright as its picture has a number."""
    return Frame(np.full((560, 560, 3), int(row.image.split()[1]), np.uint8))


def scorer_with(fails: Callable[[View], str]) -> Scorer:
    """fails: gives the message where the task model raises, "" where it works."""
    return Scorer(
        RewardSettings(), QWEN2_5_VL, Budget(3, 560 * 560, 560 * 560), task=BrokenTask(fails), frame_of=frame_of
    )


def picture(view: View) -> int:
    return int(view.image[0, 0, 0])


def test_an_examination_that_failed_gives_no_task_reward_and_costs_the_others_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scorer = scorer_with(lambda view: "it cannot\nread this" if picture(view) == 1 else "")
    with caplog.at_level(logging.WARNING, scoring.__name__):
        scored = scorer.score([answer()] * 5, [ROWS[0], ROWS[1], ROWS[1], ROWS[2], ROWS[3]])
    for index in (0, 3, 4):
        assert scored[index].reward.terms["task"] == 2, "it found the target"
        assert scored[index].reward.total == 6 and not scored[index].failure
    for index in (1, 2):
        assert set(scored[index].reward.terms) == {"format", "overlap", "area", "coverage"}
        assert scored[index].reward.total == 4
        assert scored[index].detections is None
        assert re.fullmatch(f"{RAISED}: it cannot read this{PLACE}", scored[index].failure)
    [warning] = [each.getMessage() for each in caplog.records if each.name == scoring.__name__]
    assert "failed on 2 of 5 answers" in warning
    assert re.search(f"{RAISED}: it cannot read this{PLACE}$", warning)


def test_a_failure_is_warned_of_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    broken = {1}
    scorer = scorer_with(lambda view: "it cannot read this" if picture(view) in broken else "")
    with caplog.at_level(logging.WARNING, scoring.__name__):
        for x in (56, 60):
            assert [bool(each.failure) for each in scorer.score([answer(x)] * 3, ROWS[:3])] == [False, True, False]
    assert sum(each.name == scoring.__name__ for each in caplog.records) == 1
    broken.clear()
    again = scorer.score([answer()] * 3, ROWS[:3])
    assert [each.reward.terms["task"] for each in again] == [2, 2, 2]


def test_a_task_model_that_always_fails_is_one_clear_line() -> None:
    scorer = scorer_with(lambda view: "CUDA error: no kernel image\nis available")
    with pytest.raises(TrainingError) as error:
        scorer.score([answer()] * 4, ROWS)
    said = str(error.value)
    assert re.search(f"failed on 4 of 4 examinations: {RAISED}: CUDA error: no kernel image is available{PLACE};", said)
    assert "fix the task model" in said and "{task: 0}" in said and "\n" not in said


def test_a_task_model_may_fail_on_one_picture_but_not_on_one_after_the_other() -> None:
    scorer = scorer_with(lambda view: "gone")
    for row in ROWS[:2]:
        assert all(each.failure for each in scorer.score([answer(), answer(60)], [row] * 2))
    with pytest.raises(TrainingError, match=r"3 times in a row: .*leave out picture 2"):
        scorer.score([answer(), answer(60)], [ROWS[2]] * 2)


def test_a_task_model_that_goes_on_failing_on_most_ends_the_training() -> None:
    broken = {0, 1, 2}
    scorer = scorer_with(lambda view: "no memory" if picture(view) in broken else "")
    for x in (56, 60):
        scorer.score([answer(x)] * 4, ROWS)
    broken.discard(2)
    scorer.score([answer(64)] * 4, ROWS)  # half of them is not most
    broken.add(2)
    for x in (68, 72):
        scorer.score([answer(x)] * 4, ROWS)
        scorer.score([answer(56)], [ROWS[3]])  # known already: it says nothing of how the task model is now
    with pytest.raises(TrainingError, match=r"3 of 4 examinations, and on more than half of them 3 times in a row: "):
        scorer.score([answer(76)] * 4, ROWS)


def test_answers_without_regions_need_no_task_model() -> None:
    scored = scorer_with(lambda view: "gone").score(["<think></think><answer>[]</answer>"] * 2, ROWS[:2])
    assert [each.reward.terms["task"] for each in scored] == [0, 0]
    assert [each.failure for each in scored] == ["", ""]


def test_cached_examinations_stay_while_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full cache drops the oldest, which must not count as an examination without detections."""
    monkeypatch.setattr(scoring, "CACHE_SIZE", 2)
    scorer = scorer_with(lambda view: "")
    scorer.score([answer()] * 2, ROWS[:2])
    again = scorer.score([answer()] * 2, [ROWS[0], ROWS[2]])
    assert [each.reward.terms["task"] for each in again] == [2, 2]


def test_the_trainer_gets_none_for_the_missing_term_alone() -> None:
    scorer = scorer_with(lambda view: "gone" if picture(view) == 1 else "")
    logged: dict[str, float] = {}
    functions, weights = reward_functions(scorer, ROWS, lambda scored: None)
    completions = [[{"content": answer()}] for _ in ROWS]
    got = {
        each.__name__: each(completions, row=[0, 1, 2, 3], log_metric=lambda name, value: logged.update({name: value}))
        for each in functions
    }
    assert weights == [1] * 5
    assert got.pop("task") == [2, None, 2, 2]
    assert all(each == [1, 1, 1, 1] for each in got.values())
    assert logged["task/failed"] == 0.25


def test_a_panel_says_that_the_task_model_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = scorer_with(lambda view: "gone" if picture(view) == 1 else "")
    written: list[str] = []
    monkeypatch.setattr("activeo3_ros.training.panels.cv2.putText", lambda tile, line, *_: written.append(line))
    for each in scorer.score([answer()] * 3, ROWS[:3]):
        draw_scored(each, frame_of(each.row))
    assert written[0].endswith("task 2.00)") and written[1].endswith("4.00 (format 1.00, overlap 1.00, area 1.00, "
                                                                     "coverage 1.00, task failed)")  # fmt: skip


def measured(fails: Callable[[View], str], rows: Sequence[Row]) -> dict[str, np.ndarray]:
    return measure(scorer_with(fails).score([answer()] * len(rows), rows))


def test_an_evaluation_does_not_count_a_failure_as_nothing_found() -> None:
    assert measured(lambda view: "", ROWS)["found"].tolist() == [1, 1, 1, 1]
    with pytest.raises(
        TrainingError,
        match=rf"failed on 1 of 4 scenes.*picture 3: {RAISED}: no memory{PLACE};",
    ):
        measured(lambda view: "no memory" if picture(view) == 3 else "", ROWS)
