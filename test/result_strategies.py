"""Any `Result`, for the tests of what it becomes, and its comparison, in which NaN equals NaN.

Numbers are multiples of a power of two that float32 and three (scores: six) decimal digits hold exactly.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from activeo3_ros.core import Box, Cost, Detection, Grounding, InstanceMask, Query, Region, Result, Status

pixels = st.integers(-80_000, 80_000).map(lambda n: n / 8)
lengths = st.integers(0, 80_000).map(lambda n: n / 8)
scores = st.integers(0, 64).map(lambda n: n / 64) | st.just(math.nan)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
boxes = st.builds(Box, pixels, pixels, lengths, lengths)
regions_of_findings = st.integers(-1, 63)
detections = st.builds(Detection, texts, scores, boxes, regions_of_findings, texts, scores, st.booleans())
queries = st.builds(
    Query,
    text=texts,
    classes=st.lists(texts, max_size=3).map(tuple),
    masks=st.booleans(),
    revision=st.integers(0, 2**32 - 1),
)
costs = st.builds(
    Cost, st.integers(0, 2**32 - 1), st.integers(0, 2**63), st.integers(0, 2**32 - 1), st.integers(0, 2**31)
)


@st.composite
def results(draw: st.DrawFn) -> Result:
    """Any result whose groundings and masks belong to one of its detections or to none."""
    found = draw(st.lists(detections, max_size=4).map(tuple))
    links = st.integers(-1, len(found) - 1)
    masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=9))
    return Result(
        draw(st.integers(0, 2**32 - 1)),
        draw(st.integers(0, 2**32 - 1)),
        draw(queries),
        draw(st.sampled_from(Status)),
        draw(texts),
        draw(st.lists(st.builds(Region, boxes, texts, scores, scores), max_size=3).map(tuple)),
        found,
        draw(
            st.lists(st.builds(Grounding, texts, scores, boxes, regions_of_findings, texts, links), max_size=3).map(
                tuple
            )
        ),
        draw(
            st.lists(st.builds(InstanceMask, texts, scores, boxes, masks, regions_of_findings, links), max_size=3).map(
                tuple
            )
        ),
        draw(st.none() | texts.filter(bool)),
        draw(texts),
        draw(st.dictionaries(texts, lengths, max_size=3)),
        draw(costs),
        draw(lengths),
        draw(st.lists(texts, max_size=2).map(tuple)),
    )


def comparable(value: Any) -> Any:
    """A result as nested tuples, with "NaN" for NaN and lists for masks."""
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return type(value).__name__, tuple((each.name, comparable(getattr(value, each.name))) for each in fields)
    if isinstance(value, (tuple, list)):
        return tuple(map(comparable, value))
    if isinstance(value, dict):
        return tuple((key, comparable(each)) for key, each in value.items())
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.kind, value.tolist()
    return "NaN" if isinstance(value, float) and math.isnan(value) else value
