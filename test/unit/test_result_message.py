"""A result becomes a message, bytes, a message and the same result; and its digest is that of version 0.1."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from result_strategies import comparable, results

from activeo3_ros.codecs.result_cdr import (
    FIELDS_SINCE_0_1,
    from_cdr,
    result_digest,
    result_message,
    to_cdr,
)
from activeo3_ros.codecs.result_message import ARRAY_TYPES, MAX_TEXT, MessageLibrary, array_message, clean, from_message
from activeo3_ros.core import Box, Cost, Detection, Grounding, InstanceMask, InvalidInput, Query, Region, Result, Status

BOX = Box(1.5, 2.0, 30.25, 4.0)
KNOWN = Result(
    1920,
    1080,
    Query("der Lkw, 二", revision=7),
    Status.COARSE,
    "late",
    regions=(Region(Box(0, 0, 400, 300), "far away", math.nan, 2.5),),
    detections=(Detection("truck", 0.5, BOX, 0), Detection("car", math.nan, BOX)),
    groundings=(Grounding("der Lkw", 0.25, BOX, 0, "102", detection=0),),
    masks=(InstanceMask("truck", 0.5, Box(1, 2, 3, 2), np.array([[0, 1, 1], [0, 1, 0]], bool), 0, detection=0),),
    answer="102",
    reasoning="both",
    timings_ms={"sense": 1.5, "total": 20.0},
    cost=Cost(4, 2**40, 17, 4),
)
DIGEST_OF_0_1 = "7caafd9fdd89175fe3960ee6b3c9eba8c4241b1597761757c62f4df7dd2d3152"
"""What version 0.1 gave for `KNOWN`, which had no links then."""


def message_of(result: Result) -> Any:
    return result_message(result, "front", 1_000_000_007, "optical")


def carried(result: Result) -> Result:
    """The part of a result that a message carries."""
    text = result.query.text or ", ".join(result.query.classes)
    return replace(
        result,
        query=Query(text, revision=result.query.revision),
        cost=replace(result.cost, calls=0),
        notes=(),
    )


@settings(deadline=None)
@given(results())
def test_a_result_comes_back_from_the_bytes_of_its_message(result):
    back = from_message(from_cdr(to_cdr(message_of(result))))
    assert comparable(back) == comparable(carried(result))


@settings(deadline=None)
@given(st.floats(width=32), st.floats())
def test_any_number_arrives_as_the_nearest_that_a_message_holds_and_nan_as_nan(single, double):
    with np.errstate(over="ignore"):
        rounded = float(np.float32(double))
    if math.isinf(rounded) and math.isfinite(double):
        double = rounded = 1.0  # no coordinate and no score is that large
    back = from_message(from_cdr(to_cdr(message_of(replace(KNOWN, regions=(Region(BOX, "", single, double),))))))
    assert comparable(back.regions) == comparable((Region(BOX, "", single, rounded),))


def test_the_header_is_that_of_the_image_and_a_replay_was_done_when_its_work_would_have_been():
    message = message_of(KNOWN)
    assert (message.camera, message.header.frame_id) == ("front", "optical")
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1, 7)
    assert (message.completed.sec, message.completed.nanosec) == (1, 20_000_007)


def test_what_points_to_one_object_carries_its_index():
    message = message_of(KNOWN)
    assert message.groundings[0].detection == message.masks[0].detection == 0
    assert message.detections[0].label == "truck"


def test_what_nothing_fills_yet_says_so():
    found = message_of(KNOWN).detections[0]
    assert math.isnan(found.existence)
    assert (found.carried, found.track_id) == (False, "")
    assert message_of(KNOWN).regions_age_ms == 0


def test_a_message_of_version_0_1_is_read():
    message = message_of(replace(KNOWN, groundings=(), masks=()))
    old = SimpleNamespace(**{k: v for k, v in vars(message).items() if k != "regions_age_ms"})
    old.detections = [
        SimpleNamespace(**{k: v for k, v in vars(d).items() if k not in ("existence", "carried")})
        for d in message.detections
    ]
    assert comparable(from_message(old)) == comparable(carried(replace(KNOWN, groundings=(), masks=())))


def test_a_message_whose_index_is_damaged_is_refused():
    message = message_of(KNOWN)
    message.groundings[0].detection = 2
    with pytest.raises(InvalidInput, match=r"Grounding\.detection must be -1 .* the 2 detections .* got 2"):
        from_message(message)


def test_the_names_of_two_hundred_classes_are_read_back_as_far_as_a_query_reaches():
    classes = tuple(f"class number {index}" for index in range(200))
    back = from_message(message_of(replace(KNOWN, query=Query(classes=classes))))
    assert back.query.text.startswith("class number 0, class number 1, ")


@pytest.mark.parametrize("name", ARRAY_TYPES)
def test_a_list_on_a_topic_of_its_own_is_that_of_the_result(name):
    types = SimpleNamespace(**dict.fromkeys(ARRAY_TYPES.values(), SimpleNamespace))
    message = message_of(KNOWN)
    array = array_message(name, message, MessageLibrary(types, bytes, SimpleNamespace()))
    assert getattr(array, name) is getattr(message, name)
    assert array.header is message.header


@settings(deadline=None)
@given(st.text(st.characters(), max_size=20))
def test_any_text_becomes_one_that_middleware_can_carry(text):
    cleaned = clean(text)
    assert "\0" not in cleaned
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert len(clean(text * MAX_TEXT)) <= MAX_TEXT


def test_without_the_new_fields_the_digest_is_that_of_version_0_1():
    assert result_digest([message_of(KNOWN)], left_out=FIELDS_SINCE_0_1) == DIGEST_OF_0_1
    assert result_digest([message_of(KNOWN)]) != DIGEST_OF_0_1


def test_the_digest_knows_all_but_the_times():
    later = replace(KNOWN, timings_ms={"sense": 9.0, "total": 90.0})
    assert result_digest([message_of(later)]) == result_digest([message_of(KNOWN)])
    for change in (
        {"detections": (*KNOWN.detections, Detection("car", 0.5, BOX))},
        {"groundings": (replace(KNOWN.groundings[0], detection=1),)},
        {"status": Status.COMPLETE},
        {"regions_age_ms": 1.0},
    ):
        assert result_digest([message_of(replace(KNOWN, **change))]) != result_digest([message_of(KNOWN)])
    assert result_digest([message_of(KNOWN)] * 2) != result_digest([message_of(KNOWN)])
