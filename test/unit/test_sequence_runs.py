"""Methods over sequences: with a memory against without, paired over the sequences."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from sequence_fixtures import found, result_of, true_sequence

from activeo3_ros.core import Box
from activeo3_ros.core.optional import MissingPackageError
from activeo3_ros.evaluation.methods import Method
from activeo3_ros.evaluation.sequence_report import format_ratio, text_comparison
from activeo3_ros.evaluation.sequence_runs import AT_EQUAL_RECALL, judge_sequences, with_and_without_memory
from activeo3_ros.evaluation.settings import RunSettings
from activeo3_ros.evaluation.tracking_scores import check_installed
from activeo3_ros.presets import load_preset

pytest.importorskip("faster_coco_eval", reason="needs requirements/eval.txt")

A, ELSEWHERE = Box(10, 10, 20, 20), Box(400, 300, 30, 30)
SETTINGS = RunSettings(Path("out"), "Is it sooner?", [], replicates=50)


@pytest.fixture(autouse=True)
def trackeval() -> None:
    try:
        check_installed()
    except MissingPackageError as error:
        pytest.skip(str(error))


def compared(sequences: int):
    """A car is found after 0.2 s without a memory, beside a surer false object, and after 0.1 s with one."""
    one = true_sequence([{"a": A}] * 4)
    truth = replace(one, sequences=tuple(replace(one.sequences[0], name=str(n)) for n in range(sequences)))
    methods = with_and_without_memory([Method("embedded", load_preset("embedded"), 3)])
    nothing, right = result_of(), result_of(found(A, "1", score=0.6))
    alone = [nothing, nothing, *[result_of(found(A, score=0.6), found(ELSEWHERE, score=0.9))] * 2]
    results = {
        "embedded-3-alone": [alone] * sequences,
        "embedded-3-memory": [[nothing, right, right, right]] * sequences,
    }
    judged, comparisons = judge_sequences(SETTINGS, truth, methods, results)
    return judged, {each.metric: each for each in comparisons}


def test_a_memory_is_compared_with_none_on_the_same_sequences():
    judged, comparisons = compared(3)
    assert [each.method.id for each in judged] == ["embedded-3-alone", "embedded-3-memory"]
    first = comparisons["first detection small, s"]
    assert first.values == pytest.approx((0.1, 0.2))
    assert first.ratio is not None and first.ratio.value == pytest.approx(2)
    assert (first.ratio.low, first.ratio.high) == pytest.approx((2, 2)), "all sequences are alike"
    assert first.verdict == "clear"
    assert format_ratio(first) == "without / with = 2.00 [2.00, 2.00]"
    assert "embedded-3-memory - embedded-3-alone = -0.100 [-0.100, -0.100], clear" in text_comparison(first)


def test_precision_is_compared_at_the_recall_that_both_reach():
    _, comparisons = compared(2)
    assert comparisons[AT_EQUAL_RECALL].values == pytest.approx((1.0, 0.5)), "the false objects are the surer ones"


def test_one_sequence_has_no_interval():
    judged, comparisons = compared(1)
    assert comparisons["recall"].difference.value == pytest.approx(0.25)
    assert comparisons["recall"].verdict == "no interval: one sequence"
    assert math.isnan(judged[1].quality["recall"].low)


def test_ids_are_judged_with_a_memory_alone():
    judged, comparisons = compared(2)
    assert math.isnan(judged[0].quality["IDF1"].value)
    assert judged[1].quality["IDF1"].value == pytest.approx(6 / 7), "3 of 4 frames, no false one"
    assert "IDF1" not in comparisons
