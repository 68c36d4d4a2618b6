"""Scores of sequences, against numbers that were worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sequence_fixtures import failed_result, found, result_of, true_sequence

from activeo3_ros.core import Box, Region
from activeo3_ros.core.optional import MissingPackageError
from activeo3_ros.evaluation.sequence_metrics import (
    neighbours,
    precision_at,
    recall_curve,
    score_sequence,
    size_of,
    summarise,
)
from activeo3_ros.evaluation.tracking_scores import check_installed

A, B = Box(10, 10, 20, 20), Box(100, 100, 50, 50)
AT_LEFT, ELSEWHERE = Box(15, 10, 20, 20), Box(400, 300, 30, 30)


def needs_trackeval() -> None:
    try:
        check_installed()
    except MissingPackageError as error:
        pytest.skip(str(error))


def scores_of(truth, results, has_track_ids=False):
    return score_sequence(truth, truth.sequences[0], results, has_track_ids)


def numbers_of(truth, results, has_track_ids=False):
    return summarise([scores_of(truth, results, has_track_ids)])


def test_an_object_is_found_from_the_frame_on_that_shows_it():
    truth = true_sequence([{"a": A, "b": B}] * 4)
    results = [result_of(found(B)), result_of(found(B)), result_of(found(B), found(A)), result_of(found(B), found(A))]
    numbers = numbers_of(truth, results)
    assert numbers["recall"] == pytest.approx(6 / 8)
    assert numbers["recall small"] == pytest.approx(2 / 4)
    assert numbers["recall medium"] == 1
    assert numbers["first detection small, s"] == pytest.approx(0.2)
    assert numbers["first detection medium, s"] == 0
    assert numbers["first detection, s"] == pytest.approx(0.1)
    assert numbers["never found"] == 0
    assert numbers["precision"] == 1
    assert numbers["events a frame"] == pytest.approx(1 / 3), "one appears, in three steps"
    assert numbers["true events a frame"] == 0


def test_an_object_that_is_never_found_waits_to_its_last_frame():
    numbers = numbers_of(true_sequence([{"a": A}, {"a": A}, {"a": A}, {}]), [result_of()] * 4)
    assert numbers["first detection small, s"] == pytest.approx(0.2)
    assert numbers["never found small"] == 1
    assert math.isnan(numbers["half found small, s"])


def test_the_first_look_is_the_first_region_that_holds_half_of_an_object():
    truth = true_sequence([{"a": A, "b": B}] * 3)
    regions = [(), (Region(Box(20, 0, 40, 40)),), (Region(Box(200, 200, 40, 40)),)]
    results = [replace(result_of(), regions=each) for each in regions]
    numbers = numbers_of(truth, results)
    assert numbers["first look small, s"] == pytest.approx(0.1), "half of A lies in the region of the second frame"
    assert numbers["first look medium, s"] == pytest.approx(0.2), "B is never looked at"
    assert math.isnan(numbers_of(truth, [result_of()] * 3)["first look, s"]), "no frame has regions"


def test_half_of_the_objects_are_found_when_the_middle_one_is():
    truth = true_sequence([{"a": A, "b": Box(200, 10, 20, 20), "c": Box(300, 10, 20, 20)}] * 3)
    results = [result_of(found(A)), result_of(found(Box(200, 10, 20, 20))), result_of()]
    assert numbers_of(truth, results)["half found small, s"] == pytest.approx(0.1)


def test_a_frame_without_a_result_is_no_empty_one():
    truth = true_sequence([{"a": A}] * 4)
    scores = scores_of(truth, [result_of(found(A)), None, failed_result(), result_of(found(A))])
    assert (scores.frames, scores.judged, scores.failed, scores.without_result) == (4, 2, 1, 1)
    assert scores.failure == "the detector broke"
    numbers = summarise([scores])
    assert numbers["recall"] == 1
    assert numbers["recall of all frames"] == 0.5
    assert math.isnan(numbers["events a frame"]), "no two judged frames are neighbours"


def test_a_false_object_and_a_second_box_of_a_true_one_count_as_false():
    truth = true_sequence([{"a": A}] * 2)
    numbers = numbers_of(truth, [result_of(found(A), found(AT_LEFT, score=0.5), found(ELSEWHERE)), result_of(found(A))])
    assert numbers["false objects a frame"] == 1
    assert numbers["precision"] == 0.5


def test_detections_of_ignored_objects_count_neither_way():
    numbers = numbers_of(true_sequence([{"a": A, "b": B}], ignored=["b"]), [result_of(found(A), found(B))])
    assert (numbers["recall"], numbers["precision"], numbers["objects a frame"]) == (1, 1, 1)


def test_labels_that_are_no_category_are_told_and_do_not_count():
    scores = scores_of(true_sequence([{"a": A}]), [result_of(found(A, label="dog"))])
    assert scores.unknown == {"dog": 1}
    assert scores.detections == 0


def test_without_ids_in_the_truth_nothing_is_said_of_first_detections():
    numbers = numbers_of(true_sequence([{"": A}] * 2), [result_of(found(A, "1"))] * 2, has_track_ids=True)
    assert numbers["recall"] == 1
    assert all(math.isnan(numbers[name]) for name in ("first detection, s", "true events a frame", "IDF1", "jitter"))


def test_ids_that_swap_halfway_have_half_the_idf1():
    """Both objects keep one of their two ids for half of the 4 frames: IDTP 4, IDFP 4, IDFN 4, so IDF1 0.5. All are
    found, DetA 1; each of the 4 pairs of ids is 2 frames of 4 + 4 - 2, AssA 1 / 3; HOTA is the root of it."""
    needs_trackeval()
    frames = [("1", "2"), ("1", "2"), ("2", "1"), ("2", "1")]
    results = [result_of(found(A, first), found(B, second)) for first, second in frames]
    numbers = numbers_of(true_sequence([{"a": A, "b": B}] * 4), results, has_track_ids=True)
    assert numbers["IDF1"] == pytest.approx(0.5)
    assert numbers["DetA"] == pytest.approx(1)
    assert numbers["AssA"] == pytest.approx(1 / 3)
    assert numbers["HOTA"] == pytest.approx(math.sqrt(1 / 3))


def test_a_miss_and_a_false_object_lower_the_idf1():
    """3 of 4 frames are found, one has a false object instead: IDTP 3, IDFN 1, IDFP 1, so IDF1 6 / 8."""
    needs_trackeval()
    results = [*[result_of(found(A, "1"))] * 3, result_of(found(ELSEWHERE, "9"))]
    numbers = numbers_of(true_sequence([{"a": A}] * 4), results, has_track_ids=True)
    assert numbers["IDF1"] == pytest.approx(0.75)
    assert numbers["DetA"] == pytest.approx(3 / 5)
    assert numbers["AssA"] == pytest.approx(3 / 4)


def test_a_memory_that_finds_nothing_has_an_idf1_of_0():
    needs_trackeval()
    numbers = numbers_of(true_sequence([{"a": A}] * 2), [result_of()] * 2, has_track_ids=True)
    assert numbers["IDF1"] == 0 and numbers["HOTA"] == 0


def test_an_object_of_another_category_is_no_match():
    needs_trackeval()
    truth = true_sequence([{"a": A}])
    truth.categories[2] = "person"  # type: ignore[index]
    truth.label_ids["person"] = 2  # type: ignore[index]
    numbers = numbers_of(truth, [result_of(found(A, "1", label="person"))], has_track_ids=True)
    assert numbers["recall"] == 0 and numbers["IDF1"] == 0 and numbers["HOTA"] == 0


def test_jitter_is_the_change_of_the_error_in_shares_of_the_side():
    """Box and object move alike: no jitter. Then every edge is off by 2 px of 20 that was not before."""
    frames = [Box(x, 10, 20, 20) for x in (10, 30, 50)]
    results = [result_of(found(frames[0])), result_of(found(frames[1])), result_of(found(Box(52, 12, 20, 20)))]
    scores = scores_of(true_sequence([{"a": box} for box in frames]), results)
    assert scores.jitter == pytest.approx([0.0, 0.1])


def test_precision_at_a_recall_takes_the_best_scores_only():
    truth = true_sequence([{"a": A, "b": B}])
    detections = [found(A, score=0.9), found(ELSEWHERE, score=0.5), found(B, score=0.3)]
    scores = [scores_of(truth, [result_of(*detections)])]
    assert precision_at(scores, 0.5) == 1
    assert precision_at(scores, 1.0) == pytest.approx(2 / 3)
    without = [scores_of(truth, [result_of(found(A, score=math.nan), found(ELSEWHERE, score=0.2))])]
    assert precision_at(without, 0.5) == 0.5, "one without a score ranks last"
    assert math.isnan(precision_at(without, 1.0))


def test_recall_over_time_has_a_number_for_each_part_of_the_sequence():
    truth = true_sequence([{"a": A}] * 11)
    scores = scores_of(truth, [result_of()] * 5 + [result_of(found(A))] * 6)
    points = dict(recall_curve([scores], bins=2))
    assert list(points) == pytest.approx([0.25, 0.75])
    assert list(points.values()) == pytest.approx([0.0, 1.0])


def test_sequences_add_up():
    truth = true_sequence([{"a": A}] * 2)
    all_found, none = scores_of(truth, [result_of(found(A))] * 2), scores_of(truth, [result_of()] * 2)
    assert summarise([all_found, none])["recall"] == 0.5
    assert summarise([all_found, none, none])["recall"] == pytest.approx(1 / 3)


@given(st.floats(0.1, 400), st.floats(0.1, 400))
def test_every_box_has_one_size(width: float, height: float):
    assert size_of(Box(0, 0, width, height)) in ("tiny", "small", "medium", "large")


boxes = st.builds(Box, *[st.floats(0, 100)] * 2, *[st.floats(1, 60)] * 2)


@given(st.lists(boxes, max_size=6), st.lists(boxes, max_size=6))
def test_neighbours_are_pairs_and_the_same_seen_backwards(before: list[Box], after: list[Box]):
    first, second = [found(box) for box in before], [found(box) for box in after]
    pairs = neighbours(first, second)
    assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
    assert len(pairs) == len(neighbours(second, first))
    assert len(neighbours(first, first)) <= len(first)
