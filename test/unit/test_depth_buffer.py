"""Which depth image and which calibration belong to an image; both are bounded."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from activeo3_ros.node.calibration_history import MAX_KEPT, CalibrationHistory
from activeo3_ros.node.depth_buffer import MAX_KEPT as MAX_DEPTHS
from activeo3_ros.node.depth_buffer import DepthBuffer


def filled(stamps: range, wanted_ns: int) -> DepthBuffer:
    buffer = DepthBuffer()
    for stamp in stamps:
        buffer.put(stamp, str(stamp).encode(), wanted_ns)
    return buffer


def test_an_empty_buffer_has_nothing():
    assert DepthBuffer().nearest(5) is None


@pytest.mark.parametrize(("stamp", "nearest"), [(30, 30), (34, 30), (36, 40), (0, 10), (99, 50)])
def test_the_nearest_in_time_is_found(stamp, nearest):
    assert filled(range(10, 60, 10), 0).nearest(stamp) == (nearest, str(nearest).encode())


def test_of_two_with_one_stamp_the_newer_one_counts():
    buffer = DepthBuffer()
    buffer.put(1, b"old", 1)
    buffer.put(1, b"new", 1)
    assert buffer.nearest(1) == (1, b"new")


def test_the_depth_of_the_frame_in_progress_stays_however_many_come():
    buffer = filled(range(1000), wanted_ns=17)
    assert len(buffer) == MAX_DEPTHS
    assert buffer.nearest(17) == (17, b"17")
    assert buffer.nearest(2000) == (999, b"999")


def info(stamp_ns: int, focal: float = 100.0, **fields) -> SimpleNamespace:
    stamp = SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    known = {"width": 80, "height": 60, "distortion_model": "plumb_bob", "d": [float("nan")], "k": [focal] * 9}
    known |= {"r": [0.0] * 9, "p": [0.0] * 12, "binning_x": 0, "binning_y": 0}
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), roi=roi, **{**known, **fields})


def history(*infos: SimpleNamespace) -> CalibrationHistory:
    found = CalibrationHistory()
    for each in infos:
        found.add(each)
    return found


def test_without_a_calibration_an_image_has_none():
    assert CalibrationHistory().at(5) is None


def test_an_image_has_the_calibration_of_its_time():
    found = history(info(100, 1.0), info(200, 1.0), info(300, 2.0))
    assert [found.at(stamp).k[0] for stamp in (100, 299, 300, 1000)] == [1.0, 1.0, 2.0, 2.0]
    assert found.changes == 1


def test_an_image_from_before_the_first_calibration_has_that_one():
    assert history(info(100, 1.0), info(200, 2.0)).at(50).k[0] == 1.0


def test_one_without_a_stamp_holds_at_once():
    assert history(info(0, 1.0), info(0, 2.0)).at(50).k[0] == 2.0


def test_after_a_recording_began_anew_the_newest_that_came_holds():
    found = history(info(100, 1.0), info(150, 2.0), info(50, 3.0))
    assert [found.at(stamp).k[0] for stamp in (60, 200)] == [3.0, 3.0]


@pytest.mark.parametrize(
    "change",
    [{"width": 90}, {"d": [0.1]}, {"distortion_model": "equidistant"}, {"binning_x": 2}, {"p": [1.0] * 12}],
)
def test_every_field_makes_a_change(change):
    assert history(info(1), info(2)).changes == 0, "the stamp alone is none"
    assert history(info(1), info(2, **change)).changes == 1


def test_a_region_of_interest_that_moves_is_a_change():
    moved = info(2)
    moved.roi.x_offset = 8
    assert history(info(1), moved).changes == 1


def test_a_lens_that_changes_with_every_frame_is_bounded():
    found = history(*(info(stamp, float(stamp)) for stamp in range(1, 1000)))
    assert found.changes == 998
    assert found.at(995).k[0] == 995.0
    assert found.at(1).k[0] == 1000 - MAX_KEPT
