"""Depth images as messages: millimetres and metres, both byte orders, padded rows; anything else is refused."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activeo3_ros.codecs.depth_message import depth_image
from activeo3_ros.core import InvalidInput

EVERYTHING = slice(None)


def message(values: np.ndarray, encoding: str, big: bool = False, padding: int = 0, **fields) -> SimpleNamespace:
    height, width = values.shape
    rows = values.astype(values.dtype.newbyteorder(">" if big else "<"))
    step = width * values.itemsize + padding
    data = b"".join(row.tobytes() + b"\xaa" * padding for row in rows)
    known = {"height": height, "width": width, "encoding": encoding, "is_bigendian": big, "step": step, "data": data}
    return SimpleNamespace(**{**known, **fields})


@settings(deadline=None)
@given(
    st.lists(st.integers(10, 65534), min_size=6, max_size=6), st.booleans(), st.integers(0, 5), st.sampled_from((2, 3))
)
def test_millimetres_become_metres(values, big, padding, rows):
    depth = np.array(values, np.uint16).reshape(rows, -1)
    found = depth_image(message(depth, "16UC1", big, padding), 100)
    assert found.size == (depth.shape[1], depth.shape[0])
    assert found.metres(EVERYTHING, EVERYTHING) == pytest.approx(depth / 1000)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
def test_metres_are_metres_and_what_is_no_measurement_is_nan(big, padding):
    depth = np.array([[1.5, math.nan, math.inf], [-math.inf, 0.0, 72.25]], np.float32)
    found = depth_image(message(depth, "32FC1", big, padding), 100).metres(EVERYTHING, EVERYTHING)
    assert found == pytest.approx(np.array([[1.5, math.nan, math.nan], [math.nan, math.nan, 72.25]]), nan_ok=True)


def test_no_measurement_in_millimetres_is_0_or_the_largest_value():
    found = depth_image(message(np.array([[0, 65535, 2000]], np.uint16), "16UC1"), 100)
    assert found.metres(EVERYTHING, EVERYTHING) == pytest.approx(np.array([[math.nan, math.nan, 2.0]]), nan_ok=True)
    assert found.density() == 0.0, "the pixel that is read is not measured"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"encoding": "bgr8"}, "the encoding 'bgr8', which is none of depth; supported are 16UC1 (mm), 32FC1 (m)"),
        ({"encoding": "mono16"}, "the encoding 'mono16', which is none of depth"),
        ({"encoding": "16UC1; compressedDepth"}, "not compressed"),
        ({"step": 5}, "step is 5 bytes, a row of 3 16UC1 pixels has 6"),
        ({"data": b"\0"}, "data has 1 bytes, step 6 x height 2 makes 12"),
        ({"width": 0}, "at least one pixel"),
        ({"width": 60_000, "height": 60_000}, "exceeds 100 pixels"),
    ],
)
def test_what_is_no_depth_is_refused_with_the_reason(fields, says):
    with pytest.raises(InvalidInput) as error:
        depth_image(message(np.zeros((2, 3), np.uint16), **{"encoding": "16UC1", **fields}), 100)
    assert says in str(error.value)
