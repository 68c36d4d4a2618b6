"""Evidence: observations in overlapping views become one list of objects, each as sure as the views make it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activeo3_ros.core import Box, Finding, Findings, Frame
from activeo3_ros.core.calibration import DEFAULT
from activeo3_ros.core.evidence import (
    MAX_OBSERVATIONS,
    Confirmations,
    hypotheses,
    observe,
    strongest,
    to_source_detections,
)

FRAME = Frame(np.zeros((600, 1000, 3), np.uint8))
WHOLE = FRAME.view(FRAME.window, (500, 300))


def merge(observations):
    """One observation for each object, best score first, where each view is believed."""
    return [hypothesis.seen for hypothesis in hypotheses(observations, (), None)]


def crop(x, y, side, region, shown=400):
    return FRAME.view(Box(x, y, side, side), (shown, shown), region)


def on(view, x, y, width, height):
    """A box in source pixels, in those of a view."""
    return Box(*view.from_source([[x, y, width, height]])[0].tolist()).clipped(view.width, view.height)


def seen(view, x, y, width, height, label="car", score=0.6, **more):
    """An observation of a box in source pixels, as `view` would have shown it."""
    box = on(view, x, y, width, height)
    return to_source_detections([Finding(label, box, score, **more)], view)


def boxes(merged):
    return [tuple(round(value, 3) for value in s.box.as_tuple()) for s in merged]


def test_one_object_in_three_views_is_one_detection():
    a, b = crop(100, 100, 200, 0), crop(150, 100, 200, 1)
    merged = merge(seen(WHOLE, 180, 150, 40, 30) + seen(a, 181, 150, 40, 30) + seen(b, 180, 151, 40, 30))
    assert len(merged) == 1


def test_its_score_is_that_of_the_observation_whose_box_is_reported():
    close = crop(100, 100, 200, 0)
    merged = merge(seen(WHOLE, 180, 150, 40, 30, score=0.35) + seen(close, 182, 151, 38, 30, score=0.82))
    assert [(s.finding.score, s.view.region) for s in merged] == [(0.82, 0)]


def test_a_box_cut_by_a_crop_gives_way_to_the_fuller_one():
    cutting = crop(100, 100, 100, 0)  # its right border, x = 200, cuts the car
    merged = merge(seen(WHOLE, 180, 150, 60, 30, score=0.4) + seen(cutting, 180, 150, 60, 30, score=0.9))
    assert boxes(merged) == [(180, 150, 60, 30)]
    assert merged[0].finding.score == 0.4


def test_a_box_cut_by_the_border_of_the_frame_is_whole():
    corner = crop(0, 0, 200, 0)
    merged = merge(seen(corner, 0, 50, 60, 30, score=0.9) + seen(WHOLE, 0, 50, 58, 30, score=0.4))
    assert merged[0].finding.score == 0.9


def test_a_cut_box_without_a_fuller_one_stays():
    cutting = crop(100, 100, 100, 0)
    assert len(merge(seen(cutting, 180, 150, 60, 30))) == 1


def test_two_touching_objects_of_one_class_stay_two():
    close = crop(100, 100, 200, 0)
    both = seen(close, 150, 150, 30, 30) + seen(close, 175, 150, 30, 30)
    blurred = seen(WHOLE, 150, 150, 55, 30, score=0.9)
    merged = merge(blurred + both)
    assert len([s for s in merged if s.view.region == 0]) == 2


def test_a_second_cut_object_at_the_same_border_is_not_explained_away():
    """Two cars overlap at the border of a crop; another view shows one of them whole. The other one must survive."""
    cutting = crop(100, 100, 100, 0)
    front = seen(cutting, 180, 150, 40, 30)
    behind = seen(cutting, 178, 140, 40, 30)
    fuller = seen(crop(170, 100, 150, 1), 180, 150, 40, 30)
    assert len(merge(front + behind + fuller)) == 2


def test_a_car_that_another_view_calls_a_truck_is_one_object():
    close = crop(100, 100, 200, 0)
    merged = merge(seen(WHOLE, 150, 150, 80, 50, "truck", 0.4) + seen(close, 150, 150, 80, 50, "car", 0.7))
    assert [s.finding.label for s in merged] == ["car"]


def test_a_rider_is_not_the_bicycle():
    close = crop(100, 100, 200, 0)
    merged = merge(seen(WHOLE, 150, 130, 40, 90, "person") + seen(close, 145, 180, 60, 50, "bicycle"))
    assert {s.finding.label for s in merged} == {"person", "bicycle"}


def test_small_boxes_that_jitter_are_still_one_object():
    """6 px of the source are 3 px of the small view: half their size is within what the detector's edges jitter."""
    close = crop(100, 100, 100, 0)
    assert len(merge(seen(WHOLE, 148, 150, 8, 6, score=0.3) + seen(close, 150, 152, 7, 6))) == 1


def test_text_comes_from_the_most_magnified_view():
    far, near = crop(100, 100, 200, 0), crop(140, 140, 60, 1)
    merged = merge(
        seen(far, 150, 150, 40, 20, score=0.9, text="1O2", text_score=0.6)
        + seen(near, 150, 150, 40, 20, score=0.5, text="102", text_score=0.9)
    )
    assert [(s.finding.text, s.finding.score) for s in merged] == [("102", 0.9)]


def readings(*texts):
    """One object that views of growing magnification show, each with a text and its score."""
    views = [crop(100, 100, 200, region, shown=400 + 100 * region) for region in range(len(texts))]
    return merge(
        [o for view, (text, score) in zip(views, texts, strict=True) for o in
         seen(view, 150, 150, 40, 20, text=text, text_score=score)]
    )  # fmt: skip


def test_the_text_that_most_views_read_is_reported():
    [merged] = readings(("15", 0.9), ("15", 0.8), ("815", 0.95))
    assert merged.finding.text == "15"
    assert merged.finding.text_score == pytest.approx(0.9 * 1.7 / 2.65)
    assert merged.disputed == ()


def test_a_text_on_which_the_views_disagree_is_not_reported_and_told():
    [merged] = readings(("15", 0.9), ("75", 0.9))
    assert (merged.finding.text, merged.disputed) == ("", ("75", "15"))


def test_case_spaces_and_punctuation_are_no_disagreement():
    [merged] = readings(("ab 12", 0.7), ("AB-12", 0.8))
    assert (merged.finding.text, merged.finding.text_score) == ("AB-12", pytest.approx(0.8))


def test_a_text_of_which_its_only_view_is_not_sure_is_told():
    [merged] = readings(("15", 0.4))
    assert (merged.finding.text, merged.disputed) == ("", ("15",))


def test_a_text_without_a_score_is_believed_where_it_is_magnified_most():
    [merged] = readings(("15", math.nan), ("16", math.nan))
    assert merged.finding.text == "16"


def test_a_piece_of_a_line_that_another_view_read_whole_is_left_out():
    a, b = crop(100, 100, 200, 0), crop(110, 100, 200, 1)
    whole = seen(a, 150, 150, 80, 20, "text", 0.9, text="EXIT 42", text_score=0.9)
    pieces = seen(b, 150, 150, 30, 20, "text", 0.8, text="EXIT", text_score=0.8)
    assert [o.finding.text for o in merge(whole + pieces)] == ["EXIT 42"]
    other = seen(b, 150, 150, 30, 20, "text", 0.8, text="TAXI", text_score=0.8)
    assert len(merge(whole + other)) == 2


def test_a_model_without_scores_is_merged_and_stays_without():
    close = crop(100, 100, 200, 0)
    merged = merge(seen(WHOLE, 150, 150, 80, 50, score=math.nan) + seen(close, 150, 150, 80, 50, score=math.nan))
    assert len(merged) == 1
    assert math.isnan(merged[0].finding.score)


def test_what_lies_outside_the_frame_is_left_out():
    assert to_source_detections([Finding("car", Box(-50, 0, 40, 40), 0.5)], WHOLE) == []


def test_no_observations_are_no_objects():
    assert merge([]) == []


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 900), st.floats(0, 500), st.floats(1, 300), st.floats(1, 300), st.floats(0.01, 1)),
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_merging_invents_nothing_and_does_not_depend_on_order(objects, random):
    views = [WHOLE, crop(100, 100, 300, 0), crop(300, 50, 400, 1)]
    observations = [
        s
        for i, (x, y, w, h, score) in enumerate(objects)
        for s in seen(views[i % 3], x, y, w, h, score=round(score, 6))
    ]
    merged = merge(observations)
    assert len(merged) <= len(observations)
    assert {(s.box, s.finding.score) for s in merged} <= {(s.box, s.finding.score) for s in observations}
    shuffled = list(observations)
    random.shuffle(shuffled)
    assert len(merge(shuffled)) == len(merged)
    assert sorted(map(hash, boxes(merge(shuffled)))) == sorted(map(hash, boxes(merged)))


@pytest.mark.parametrize("count", [1, 5])
def test_every_view_that_shows_an_object_apart_keeps_it_apart(count):
    close = crop(0, 0, 600, 0)
    row = [s for i in range(count) for s in seen(close, 20 + 100 * i, 100, 90, 60)]
    assert len(merge(row)) == count


def weighed(views, observations, calibration=DEFAULT):
    return hypotheses(observations, views, calibration)


def test_a_head_that_the_whole_view_shows_no_object_at_is_denied():
    """A crop calls a head a person; the whole view, which would have shown such a large one, has nothing there."""
    close = crop(400, 100, 200, 0)
    head = seen(close, 460, 130, 80, 80, "person", 0.4)
    body = seen(WHOLE, 420, 120, 160, 420, "person", 0.8)
    found = weighed([WHOLE, close], head + body)
    assert [h.seen.box.width for h in found if h.is_reported] == [160]
    assert next(h for h in found if h.seen.view is close).existence < 0.45


def test_where_no_closer_look_confirms_anything_their_misses_count_less():
    """Cars from above: the whole view sees some by luck, and the closer looks at them see nothing."""
    close = crop(100, 100, 400, 0)
    places = [(120 + 80 * n, 120 + 80 * n, 60, 45) for n in range(4)]
    lucky = [o for place in places for o in seen(WHOLE, *place, score=0.5)]
    [alone] = weighed([WHOLE, close], lucky[:1])
    unconfirmed = weighed([WHOLE, close], lucky)
    assert min(h.existence for h in unconfirmed) > alone.existence
    confirmed = weighed([WHOLE, close], lucky + [o for place in places[1:] for o in seen(close, *place, score=0.5)])
    assert min(h.existence for h in confirmed) < min(h.existence for h in unconfirmed)


def test_where_views_confirm_each_other_as_often_as_promised_the_calibration_holds():
    assert Confirmations(0, 0).found_share == Confirmations(5, 5).found_share == Confirmations(5, 9).found_share == 1


@given(st.floats(0, 1000), st.floats(0, 1000), st.floats(0.1, 10))
def test_a_confirmation_that_is_missing_lowers_what_the_detector_is_believed_to_find(expected, came, more):
    share = Confirmations(expected, came).found_share
    assert 0 < share <= 1
    assert Confirmations(expected + more, came).found_share <= share
    assert Confirmations(expected, came + more).found_share >= share


def test_a_far_car_that_only_the_crop_can_show_is_not_denied():
    close = crop(400, 250, 100, 0)
    [far] = weighed([WHOLE, close], seen(close, 440, 280, 10, 8, score=0.4))
    assert far.is_reported
    assert far.existence > 0.5


def test_what_two_views_show_weakly_is_an_object_and_keeps_its_score():
    close = crop(400, 100, 200, 0)
    weak = [
        o
        for view, score in ((WHOLE, 0.25), (close, 0.28))
        for o in observe(view, Findings(weak=(Finding("car", on(view, 450, 150, 80, 60), score),)))
    ]
    [car] = weighed([WHOLE, close], weak)
    assert car.is_reported
    assert car.seen.finding.score in (0.25, 0.28)
    [alone] = weighed([WHOLE, close], weak[:1])
    assert not alone.is_reported


def test_what_one_view_alone_tells_has_no_existence():
    [car] = weighed([WHOLE], seen(WHOLE, 450, 150, 80, 60))
    assert math.isnan(car.existence)
    assert car.is_reported


def test_a_model_without_a_calibration_is_believed():
    close = crop(400, 100, 200, 0)
    [head] = weighed([WHOLE, close], seen(close, 460, 130, 80, 80, "person", 0.35), None)
    assert head.is_reported
    assert math.isnan(head.existence)


def test_a_text_is_not_denied_by_a_detector_that_sees_no_object():
    close = crop(400, 100, 200, 0)
    [text] = weighed([WHOLE, close], seen(close, 440, 130, 120, 80, "text", 0.35, text="42", text_score=0.9))
    assert text.is_reported


def test_a_second_view_of_the_same_magnification_counts_less_than_one_of_another():
    same, closer = crop(390, 90, 220, 1, shown=220 * 2), crop(440, 120, 100, 1)
    first = crop(400, 100, 200, 0)

    def existence(views):
        box = (450, 150, 60, 50)
        return weighed(views, [o for view in views for o in seen(view, *box, score=0.4)])[0].existence

    assert existence([first, same]) < existence([first, closer])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0.05, 1)), min_size=1, max_size=6), st.permutations(range(3)))
def test_the_order_of_the_views_does_not_matter(objects, order):
    views = [WHOLE, crop(100, 100, 300, 0), crop(300, 50, 400, 1)]
    observations = [
        replace(o, weak=score < 0.3)
        for index, (view, score) in enumerate(objects)
        for o in seen(views[view], 320 + 40 * index, 150 + 7 * index, 60, 50, score=score)
    ]
    first = weighed(views, observations)
    second = weighed([views[index] for index in order], observations[::-1])
    assert [h.seen.box for h in first] == [h.seen.box for h in second]
    assert [h.existence for h in first] == pytest.approx([h.existence for h in second], nan_ok=True)


def test_ten_thousand_false_boxes_are_cut_to_the_best():
    random = np.random.default_rng(0)
    findings = tuple(
        Finding("car", Box(float(x), float(y), 9.0, 9.0), float(score))
        for x, y, score in random.uniform((0, 0, 0.3), (480, 280, 0.9), (10_000, 3))
    )
    kept = strongest(observe(WHOLE, Findings(findings)))
    assert len(kept) == MAX_OBSERVATIONS
    assert len(weighed([WHOLE], kept)) == MAX_OBSERVATIONS
