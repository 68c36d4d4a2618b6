"""Boxes, views and crops: what goes from source pixels to view pixels and back must not move."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activeo3_ros.core import Box, Frame, InvalidInput
from activeo3_ros.core.frame import fit_within
from activeo3_ros.core.geometry import as_array, from_corners, iou, non_maximum_suppression, share_inside, to_corners

coordinates = st.floats(-500, 2500, allow_nan=False)
lengths = st.floats(0, 2000, allow_nan=False)
boxes = st.builds(Box, coordinates, coordinates, lengths, lengths)
sizes = st.tuples(st.integers(1, 400), st.integers(1, 400))


def test_a_box_knows_its_edges():
    box = Box(10, 20, 30, 40)
    assert (box.right, box.bottom, box.area, box.center) == (40, 60, 1200, (25, 40))


@settings(deadline=None)
@given(boxes)
def test_corners_and_back_is_the_same_box(box):
    np.testing.assert_allclose(from_corners(to_corners([box.as_tuple()]))[0], box.as_tuple(), atol=1e-9)


@settings(deadline=None)
@given(boxes, sizes)
def test_a_clipped_box_lies_inside_the_image(box, size):
    clipped = box.clipped(*size)
    assert 0 <= clipped.x <= size[0]
    assert 0 <= clipped.y <= size[1]
    assert clipped.right <= size[0] + 1e-9
    assert clipped.bottom <= size[1] + 1e-9


@settings(deadline=None)
@given(boxes, sizes)
def test_a_snapped_box_has_whole_pixels_and_contains_what_is_visible(box, size):
    snapped, visible = box.snapped(*size), box.clipped(*size)
    assert all(value == int(value) for value in snapped.as_tuple())
    assert snapped.width >= 1
    assert snapped.height >= 1
    assert snapped.x >= 0
    assert snapped.right <= size[0]
    if visible.width and visible.height:
        assert snapped.x <= visible.x
        assert snapped.right >= visible.right
        assert snapped.y <= visible.y
        assert snapped.bottom >= visible.bottom


@settings(deadline=None)
@given(st.lists(boxes, max_size=6), st.lists(boxes, max_size=6))
def test_iou_is_symmetric_and_bounded(a, b):
    overlaps = iou(as_array(a), as_array(b))
    assert overlaps.shape == (len(a), len(b))
    assert ((overlaps >= 0) & (overlaps <= 1 + 1e-9)).all()
    np.testing.assert_allclose(overlaps, iou(as_array(b), as_array(a)).T)


def test_iou_of_known_boxes():
    assert iou([[0, 0, 2, 2]], [[1, 0, 2, 2], [0, 0, 2, 2], [5, 5, 1, 1], [0, 0, 0, 0]]).tolist() == [[1 / 3, 1, 0, 0]]


def test_share_inside_is_of_the_first_box():
    assert share_inside([[0, 0, 2, 2]], [[1, 0, 10, 10]]).tolist() == [[0.5]]


def test_suppression_keeps_the_best_of_each_object_and_breaks_ties_by_order():
    kept = non_maximum_suppression(
        [[0, 0, 10, 10], [1, 0, 10, 10], [20, 0, 10, 10], [0, 0, 10, 10]], [0.5, 0.9, 0.9, 0.9], 0.5
    )
    assert kept.tolist() == [1, 2]


@st.composite
def windows_in_frames(draw):
    """A frame's size, a window of whole pixels inside it, and the size at which the window is shown."""
    width, height = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    window = Box(x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y)))
    return (width, height), window, draw(sizes)


@settings(deadline=None)
@given(windows_in_frames(), boxes)
def test_source_to_view_and_back_is_exact(case, box):
    (width, height), window, shown = case
    view = Frame(np.zeros((height, width, 3), np.uint8)).view(window, shown)
    back = view.to_source(view.from_source([box.as_tuple()]))[0]
    np.testing.assert_allclose(back, box.as_tuple(), atol=1e-6)


@settings(deadline=None)
@given(windows_in_frames(), st.data())
def test_whole_view_pixels_come_back_within_half_a_source_pixel(case, data):
    """A model that answers in whole pixels of a magnified view moves an edge by less than half a source pixel."""
    (width, height), window, _ = case
    magnification = data.draw(st.integers(1, 4))
    shown = int(window.width) * magnification, int(window.height) * magnification
    view = Frame(np.zeros((height, width, 3), np.uint8)).view(window, shown)
    inside = [window.x, window.y, window.width / 3, window.height / 3]
    rounded = from_corners(np.round(to_corners(view.from_source([inside]))))
    assert np.abs(to_corners(view.to_source(rounded)) - to_corners([inside])).max() <= 0.5 + 1e-9


@settings(deadline=None)
@given(windows_in_frames())
def test_what_is_drawn_in_the_source_is_found_at_its_place_in_the_view(case):
    """The picture moves as the coordinates do: a white rectangle is where `from_source` says, within a view pixel."""
    (width, height), window, _ = case
    if window.width < 4 or window.height < 4:
        return
    image = np.zeros((height, width, 3), np.uint8)
    drawn = Box(window.x + 1, window.y + 1, window.width - 2, window.height - 2)
    image[drawn.slices()] = 255
    view = Frame(image).view(window, (int(window.width) * 3, int(window.height) * 3))
    rows, columns = np.nonzero(view.image[:, :, 0] > 127)
    seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    expected = to_corners(view.from_source([drawn.as_tuple()]))[0]
    assert np.abs(seen - expected).max() <= 1.5  # 3 view pixels are one source pixel: half a source pixel


@settings(deadline=None)
@given(
    st.integers(1, 12000), st.integers(1, 12000), st.integers(1, 4_000_000), st.one_of(st.none(), st.integers(1, 2000))
)
def test_fitting_keeps_to_the_budget(width, height, max_pixels, max_side):
    fitted_width, fitted_height = fit_within(width, height, max_pixels, max_side)
    assert fitted_width >= 1
    assert fitted_height >= 1
    assert fitted_width * fitted_height <= max_pixels
    if max_side:
        assert max(fitted_width, fitted_height) <= max_side


def test_fitting_uses_the_budget():
    assert fit_within(1920, 1080, 512 * 512, 512) == (512, 288)
    assert fit_within(300, 300, 512 * 512, 512) == (512, 512)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        "a picture",
    ],
)
def test_a_frame_says_what_it_needs(image):
    with pytest.raises(InvalidInput, match="a frame needs"):
        Frame(image)


def test_zoom_is_linear_magnification():
    view = Frame(np.zeros((100, 100, 3), np.uint8)).view(Box(10, 10, 20, 20), (80, 80))
    assert view.zoom == 4
