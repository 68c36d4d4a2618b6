"""Results as JSON: what a script reads is what the core said."""

from __future__ import annotations

import json
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from activeo3_ros.codecs.result_json import to_json
from activeo3_ros.codecs.rle import decode_rle
from activeo3_ros.core import Box, Cost, Detection, Grounding, InstanceMask, Query, Region, Result, Status

BOX = Box(1.25, 2.5, 30.0, 40.0)


def written(result: Result) -> dict:
    """What a strict JSON reader gets."""
    return json.loads(json.dumps(to_json(result, "a.jpg"), allow_nan=False))


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


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_a_mask_comes_back_from_its_run_lengths(mask: np.ndarray):
    result = written(Result(100, 80, Query(), masks=(InstanceMask("car", 0.5, BOX, mask),)))
    (entry,) = result["masks"]
    assert np.array_equal(decode_rle(entry["counts"].encode(), *entry["size"]), mask)


@given(st.floats(allow_nan=True, allow_infinity=True, width=32))
def test_any_score_gives_valid_json(score: float):
    entry = written(Result(100, 80, Query(), detections=(Detection("car", score, BOX),)))["detections"][0]
    assert (
        entry["score"] is None if not math.isfinite(score) else abs(entry["score"] - score) <= 1e-6 + 1e-6 * abs(score)
    )
