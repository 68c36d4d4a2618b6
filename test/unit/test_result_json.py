"""Results as JSON: what a script reads is what the core said."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from result_strategies import comparable, results

from activeo3_ros.codecs.result_json import from_json, to_json
from activeo3_ros.codecs.rle import decode_rle
from activeo3_ros.core import Box, Cost, Detection, Grounding, InstanceMask, Query, Region, Result, Status

BOX = Box(1.25, 2.5, 30.0, 40.0)


def written(result: Result) -> dict:
    """What a strict JSON reader gets."""
    return json.loads(json.dumps(to_json(result, "a.jpg"), allow_nan=False))


@settings(deadline=None)
@given(results())
def test_a_result_comes_back_from_its_json(result):
    """All but the query's classes, its wish for masks and its revision."""
    values = written(result)
    assert comparable(from_json(values)) == comparable(replace(result, query=Query(result.query.text)))
    assert to_json(from_json(values), "a.jpg") == values


def test_json_of_version_0_1_is_read():
    values = written(Result(100, 80, Query("the car"), detections=(Detection("car", 0.5, BOX),)))
    for key in ("status_message", "notes", "regions_age_ms", "reasoning"):
        del values[key]
    for key in ("existence", "carried", "track_id"):
        del values["detections"][0][key]
    del values["cost"]["calls"]
    assert from_json(values).detections[0].box == BOX


def test_one_object_is_one_record_with_what_belongs_to_it_linked_by_index():
    result = written(
        Result(
            100,
            80,
            Query("the car"),
            detections=(Detection("car", 0.9, BOX), Detection("car", 0.5, BOX, track_id="7", carried=True)),
            groundings=(Grounding("the car", 0.5, BOX, detection=1),),
            masks=(InstanceMask("car", 0.5, BOX, np.ones((2, 2), bool), detection=1),),
        )
    )
    assert result["groundings"][0]["detection"] == result["masks"][0]["detection"] == 1
    linked = result["detections"][1]
    assert (linked["track_id"], linked["carried"], linked["existence"]) == ("7", True, None)


def test_a_score_that_does_not_exist_is_null_and_never_a_number():
    result = written(
        Result(
            100,
            80,
            Query("the car"),
            regions=(Region(BOX, "far away"),),
            detections=(Detection("car", math.nan, BOX), Detection("car", 0.5, BOX, region=2)),
            groundings=(Grounding("the car", math.nan, BOX, text="102"),),
        )
    )
    assert result["regions"] == [
        {"x": 1.25, "y": 2.5, "width": 30, "height": 40, "label": "far away", "score": None, "zoom": None}
    ]
    assert [found["score"] for found in result["detections"]] == [None, 0.5]
    assert result["groundings"][0]["score"] is None
    assert result["groundings"][0]["text"] == "102"


def test_a_failed_result_says_failed_and_an_unanswered_query_has_no_answer():
    result = written(Result(100, 80, Query("the car"), Status.FAILED, "no models"))
    assert (result["status"], result["answer"], result["query"]) == ("failed", None, "the car")


def test_what_it_cost_is_there():
    cost = Cost(views=4, pixels=1_000_000, tokens=17, calls=2)
    result = written(Result(100, 80, Query(), answer="102", timings_ms={"sense": 1.0, "total": 2.5}, cost=cost))
    assert result["cost"] == {"views": 4, "pixels": 1_000_000, "tokens": 17, "calls": 2}
    assert result["timings_ms"] == {"sense": 1.0, "total": 2.5}
    assert result["answer"] == "102"


@settings(deadline=None)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_a_mask_comes_back_from_its_run_lengths(mask: np.ndarray):
    result = written(Result(100, 80, Query(), masks=(InstanceMask("car", 0.5, BOX, mask),)))
    (entry,) = result["masks"]
    assert np.array_equal(decode_rle(entry["counts"].encode(), *entry["size"]), mask)


@settings(deadline=None)
@given(st.floats(allow_nan=True, allow_infinity=True, width=32))
def test_any_score_gives_valid_json(score: float):
    entry = written(Result(100, 80, Query(), detections=(Detection("car", score, BOX),)))["detections"][0]
    assert (
        entry["score"] is None if not math.isfinite(score) else abs(entry["score"] - score) <= 1e-6 + 1e-6 * abs(score)
    )
