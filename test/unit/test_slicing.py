"""Exhaustive slices cover the frame, overlap as said and stay inside."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activeo3_ros.core import Budget, Frame, InvalidInput, Query
from activeo3_ros.policies.slicing import AdaptiveSlices, SahiSlices, tiles


def view_of(width: int, height: int):
    return Frame(np.zeros((height, width, 3), np.uint8)).view(
        Frame(np.zeros((height, width, 3), np.uint8)).window, (max(1, width // 4), max(1, height // 4))
    )


def test_full_hd_has_the_slices_that_sahi_makes_of_it():
    slices = SahiSlices().slices(1920, 1080)
    assert sorted({int(box.x) for box in slices}) == [0, 410, 820, 1230, 1408]
    assert sorted({int(box.y) for box in slices}) == [0, 410, 568]
    assert {(box.width, box.height) for box in slices} == {(512.0, 512.0)}


def test_a_frame_smaller_than_a_slice_is_one_slice():
    assert [box.as_tuple() for box in SahiSlices().slices(300, 200)] == [(0, 0, 300, 200)]


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(32, 800), st.floats(0, 0.9))
def test_slices_cover_the_frame_and_stay_inside(width, height, slice_px, overlap):
    policy = SahiSlices(slice_px, overlap)
    for length, starts in ((width, policy._starts(width)), (height, policy._starts(height))):
        side = min(slice_px, length)
        assert (starts[0], starts[-1] + side) == (0, length)
        assert all(after - before <= side for before, after in itertools.pairwise(starts))


def test_too_small_a_budget_is_refused_and_not_half_a_frame():
    with pytest.raises(InvalidInput, match=r"15 slices .* budget 8 regions"):
        SahiSlices().propose(view_of(1920, 1080), Query(), Budget(max_regions=8))


@pytest.mark.parametrize(
    ("size", "count", "columns"), [((1280, 720), 6, 3), ((3840, 2160), 12, 4), ((720, 1280), 6, 2)]
)
def test_the_adaptive_layout_follows_the_resolution(size, count, columns):
    proposal = AdaptiveSlices().propose(view_of(*size), Query(), Budget(max_regions=64))
    assert len(proposal.regions) == count
    assert len({region.box.x for region in proposal.regions}) == columns
    assert not proposal.used_view


@given(st.floats(1, 5000), st.floats(1, 5000), st.integers(1, 8), st.integers(1, 8), st.floats(0, 0.9))
def test_tiles_end_where_the_area_ends(width, height, columns, rows, overlap):
    boxes = tiles(width, height, columns, rows, overlap)
    assert len(boxes) == columns * rows
    assert (boxes[-1].right, boxes[-1].bottom) == pytest.approx((width, height))


@pytest.mark.parametrize(
    "build", [lambda: SahiSlices(8), lambda: SahiSlices(overlap=1.0), lambda: AdaptiveSlices(-0.1)]
)
def test_settings_out_of_range_are_refused(build):
    with pytest.raises(InvalidInput, match="must be"):
        build()
