"""The memory of a camera: what stays, what is forgotten, and what never crosses a cut."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textured_picture import picture

from activeo3_ros.core import Box, Finding, Findings, Frame, InvalidInput, Query, Scene
from activeo3_ros.core.calibration import DEFAULT
from activeo3_ros.core.evidence import hypotheses, observe, strongest
from activeo3_ros.core.scene import FORGOTTEN_BELOW, MAX_GAP_S, MAX_HYPOTHESES

QUERY = Query(classes=("car",))
PICTURE = picture()
STEP_NS = 100_000_000


def look(scene, objects, stamp_ns, image=PICTURE, query=QUERY, crops=(), weak=()):
    """One frame: the whole view shows `objects`, `(x, y, width, height, score[, label])` in source pixels, if at all;
    `crops` are `(window, objects)`.
    """
    frame = Frame(image, stamp_ns=stamp_ns, camera="front")
    whole = frame.view(frame.window, (500, 300))
    scene.expect(frame, whole, query)
    views, observations = [whole], observe(whole, Findings(findings(whole, objects), weak=findings(whole, weak)))
    for region, (window, shown) in enumerate(crops):
        view = frame.view(Box(*window), (400, 400), region)
        views.append(view)
        observations += observe(view, Findings(findings(view, shown)))
    found = hypotheses(strongest(observations), views, DEFAULT)
    return scene.update(found, views, DEFAULT)


def findings(view, objects):
    boxes = view.from_source([o[:4] for o in objects]).tolist()
    return tuple(Finding(o[5] if len(o) > 5 else "car", Box(*box), o[4]) for o, box in zip(objects, boxes, strict=True))


def run(scene, frames, **more):
    return [look(scene, objects, (1 + number) * STEP_NS, **more) for number, objects in enumerate(frames)]


CAR = (400, 300, 60, 40, 0.8)


def test_an_object_keeps_its_id_and_one_that_comes_later_gets_another():
    first, second, third = run(Scene(), [[CAR], [CAR], [CAR, (700, 200, 60, 40, 0.9)]])
    ids = {o.track.track_id for o in first + second + third}
    assert len(first) == len(second) == 1
    assert first[0].track.track_id == second[0].track.track_id
    assert len({o.track.track_id for o in third}) == len(ids) == 2
    assert first[0].track.track_id in {o.track.track_id for o in third}
    assert first[0].track.track_id.startswith("front:")


def test_the_first_frame_of_a_scene_reports_what_it_reports_as_a_picture_alone():
    [objects] = run(Scene(), [[CAR, (700, 200, 60, 40, 0.31)]])
    assert sorted(o.finding.score for o in objects) == [0.31, 0.8]


def test_an_object_that_one_frame_misses_is_carried_with_its_last_score():
    *_, missed = run(Scene(), [[CAR], [CAR], [CAR], []])
    [car] = missed
    assert car.carried
    assert car.finding.score == 0.8
    assert car.region == -1
    assert car.track.last_seen_ns == 3 * STEP_NS


def test_an_object_that_is_gone_is_denied_after_some_frames_and_its_id_is_not_used_again():
    frames = run(Scene(), [[CAR], [CAR], *[[]] * 30, [CAR], [CAR]])
    assert frames[-3] == []
    assert frames[-1][0].track.track_id != frames[0][0].track.track_id


def test_an_object_that_moves_is_expected_further_on():
    scene = Scene()
    run(scene, [[(400 + 15 * n, 300, 60, 40, 0.8)] for n in range(6)])
    frame = Frame(PICTURE, stamp_ns=7 * STEP_NS, camera="front")
    [expected] = scene.expect(frame, frame.view(frame.window, (500, 300)), QUERY).objects
    assert expected.box.x * 2 == pytest.approx(400 + 15 * 6, abs=8)
    [car] = scene.update((), (), DEFAULT)
    assert car.track.velocity[0] == pytest.approx(150, abs=60)


def test_an_object_stays_where_it_is_while_the_camera_pans():
    scene = Scene()
    for number in range(4):
        shift = 12 * number
        image = cv2.warpAffine(
            PICTURE, np.float32([[1, 0, -shift], [0, 1, 0]]), (1000, 600), borderMode=cv2.BORDER_REFLECT
        )
        objects = [(400 - shift, 300, 60, 40, 0.8)] if number < 2 else []
        [car] = look(scene, objects, (1 + number) * STEP_NS, image)
    assert car.carried
    assert car.box.x == pytest.approx(400 - 36, abs=6)
    assert car.track.velocity == pytest.approx((-120, 0), abs=30)


@pytest.mark.parametrize(("period_s", "is_reported"), [(0.1, False), (0.4, False), (1.0, True)])
def test_a_camera_of_one_frame_a_second_reports_what_is_new_at_once(period_s, is_reported):
    """A tenth of a second later a second frame confirms it; who gets one frame a second cannot wait for it."""
    scene = Scene()
    look(scene, [CAR], STEP_NS)
    new = (700, 200, 60, 40, 0.45)
    reported = look(scene, [CAR, new], STEP_NS + int(period_s * 1e9))
    assert (len(reported) == 2) == is_reported


def test_a_weak_box_keeps_an_object_alive_that_a_strong_one_founded():
    scene = Scene()
    run(scene, [[CAR], [CAR]])
    for number in range(20):
        [car] = look(scene, [], (3 + number) * STEP_NS, weak=[(*CAR[:4], 0.22)])
    assert not car.carried
    assert car.finding.score == 0.22


def test_the_label_is_that_of_most_looks():
    truck = (*CAR[:4], 0.5, "truck")
    *_, last = run(Scene(), [[CAR], [CAR], [CAR], [truck]])
    assert [(o.finding.label, o.finding.score) for o in last] == [("car", 0.8)]


def test_all_views_vote_on_the_label_before_it_is_reported_first():
    scene, car, truck = Scene(), (0.6, "car"), (0.65, "truck")
    run(scene, [[]])
    place = (400, 300, 60, 40)
    crops = [((350, 250, 200, 150), [(*place, *car)]), ((380, 280, 100, 80), [(*place, *car)])]
    [found] = look(scene, [(*place, *truck)], 2 * STEP_NS, crops=crops)
    assert found.finding.label == "car"


def test_what_comes_into_the_frame_grows_as_fast_as_it_moves():
    scene = Scene()
    boxes = [(1000 - 20 * n, 200, min(20 * n, 80), 120) for n in range(1, 9)]
    for number, box in enumerate(boxes, 1):
        found = look(scene, [(*box, 0.9)], number * STEP_NS)
    [person] = found
    assert person.box.as_tuple() == pytest.approx(boxes[-1], abs=6)


@pytest.mark.parametrize(("step", "is_held_back"), [(2, False), (16, True)])
def test_what_moves_on_by_its_own_size_is_held_back_until_a_view_reports_it(step, is_held_back):
    """A sign beside the road, while the camera turns."""
    scene, shown = Scene(), []
    for number in range(8):
        shift = step * number
        image = cv2.warpAffine(
            PICTURE, np.float32([[1, 0, -shift], [0, 1, 0]]), (1000, 600), borderMode=cv2.BORDER_WRAP
        )
        sign = (500 - shift, 300, 16, 12)
        strong, weak = ([(*sign, 0.8)], []) if number != 5 else ([], [(*sign, 0.25)])
        shown.append(look(scene, strong, (1 + number) * STEP_NS, image, weak=weak))
    assert [len(objects) for objects in shown] == [1, 1, 1, 1, 1, 0 if is_held_back else 1, 1, 1]
    assert len({o.track.track_id for objects in shown for o in objects}) == 1


CLOSE = (350, 250, 200, 200)


def test_one_object_that_is_never_confirmed_says_so_once_however_many_frames_show_it():
    """A stone that the whole view calls a car: frame after frame no reason to doubt the crops more."""
    scene = Scene()
    shares = []
    for number in range(30):
        look(scene, [CAR], (1 + number) * STEP_NS, crops=[(CLOSE, [])])
        shares.append(scene.confirmations.found_share)
    assert shares[0] < 1
    assert shares[1:] == pytest.approx([shares[0]] * 29, abs=0.02)


def test_what_many_objects_say_of_the_calibration_is_remembered_after_them_and_fades():
    scene = Scene()
    for number in range(8):
        car = (360 + 15 * number, 260 + 15 * number, 12, 9, 0.8)
        look(scene, [car], (1 + 15 * number) * STEP_NS, crops=[(CLOSE, [])])
    told = scene.confirmations
    assert told.expected > 3
    for number in range(200):
        look(scene, [], (130 + 15 * number) * STEP_NS)
    assert scene.confirmations.expected < 0.01 * told.expected
    assert Scene().confirmations.expected == 0


def test_text_is_voted_over_looks():
    scene = Scene()
    for number, text in enumerate(["815", "15", "15", "15"]):
        frame = Frame(PICTURE, stamp_ns=(1 + number) * STEP_NS)
        view = frame.view(frame.window, (500, 300))
        scene.expect(frame, view, QUERY)
        read = Finding("car", Box(200, 150, 30, 20), 0.8, text=text, text_score=0.9)
        [car] = scene.update(hypotheses(observe(view, Findings((read,))), [view], DEFAULT), [view], DEFAULT)
    assert car.finding.text == car.track.text == "15"


@pytest.mark.parametrize(
    "change",
    [
        {"stamp_ns": STEP_NS},
        {"stamp_ns": 0},
        {"stamp_ns": 4 * STEP_NS + round(MAX_GAP_S * 1e9) + 1},
        {"query": Query(classes=("person",))},
        {"query": replace(QUERY, revision=1)},
        {"image": picture(1)},
        {"image": np.zeros_like(PICTURE)},
        {"image": cv2.resize(PICTURE, (800, 480))},
    ],
)
def test_nothing_is_carried_across_a_new_beginning(change):
    scene = Scene()
    run(scene, [[CAR]] * 4)
    assert look(scene, [], **{"stamp_ns": 5 * STEP_NS, **change}) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stamp_ns": STEP_NS}, "this frame is 0.300 s older than the last one"),
        ({"stamp_ns": 0}, "without a stamp"),
        ({"image": cv2.resize(PICTURE, (800, 480))}, "the size changed from 1000 x 600 to 800 x 480"),
        ({}, ""),
    ],
)
def test_why_a_frame_cannot_follow_the_last_one_is_told(change, says):
    scene = Scene()
    run(scene, [[CAR]] * 4)
    look(scene, [CAR], **{"stamp_ns": 5 * STEP_NS, **change})
    assert says in scene.note if says else scene.note == ""


def test_a_repeated_stamp_is_the_same_moment():
    scene = Scene()
    before = run(scene, [[CAR]] * 3)[-1]
    again = look(scene, [CAR], 3 * STEP_NS)
    assert [o.track.track_id for o in again] == [o.track.track_id for o in before]


def test_an_object_that_no_view_looks_at_loses_existence_by_the_survival_rate_alone():
    scene, far = Scene(survival_s=2.0), (480, 200, 8, 6, 0.9)
    crop = ((430, 150, 100, 100), [far])
    for number in range(3):
        [before] = look(scene, [], (1 + number) * STEP_NS, crops=[crop])
    # Nothing is examined: a policy of crops alone that looks elsewhere.
    frame = Frame(PICTURE, stamp_ns=8 * STEP_NS, camera="front")
    scene.expect(frame, frame.view(frame.window, (500, 300)), QUERY)
    elsewhere = frame.view(Box(0, 0, 100, 100), (400, 400), 0)
    [after] = scene.update((), [elsewhere], DEFAULT)
    assert after.existence == pytest.approx(before.existence * math.exp(-0.5 / 2.0))


def test_memory_is_bounded_and_the_least_likely_go_first():
    scene = Scene()
    random = np.random.default_rng(0)
    for number in range(3):
        places, scores = random.uniform((0, 0), (980, 580), (10_000, 2)), random.choice([0.31, math.nan], 10_000)
        crowd = [(x, y, 12, 12, score) for (x, y), score in zip(places, scores, strict=True)]
        objects = look(scene, [CAR, *crowd], (1 + number) * STEP_NS)
        frame = Frame(PICTURE, stamp_ns=(1 + number) * STEP_NS)
    assert scene.forgotten > 0
    assert "least likely objects were forgotten" in scene.note
    expected = scene.expect(replace_stamp(frame, 4), frame.view(frame.window, (500, 300)), QUERY)
    assert len(expected.objects) <= MAX_HYPOTHESES
    assert any(o.finding.score == 0.8 for o in objects)
    assert all(o.existence >= FORGOTTEN_BELOW for o in objects)
    assert len(objects) <= 1000 + MAX_HYPOTHESES


def replace_stamp(frame, number):
    return Frame(frame.image, stamp_ns=number * STEP_NS, camera="front")


def test_a_score_that_does_not_exist_stays_so():
    first, second = run(Scene(), [[(*CAR[:4], math.nan)], [(*CAR[:4], math.nan)]])
    assert math.isnan(first[0].finding.score)
    assert math.isnan(second[0].finding.score)
    assert 0 < second[0].existence < 1


def test_a_survival_time_that_is_none_is_refused():
    for value in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InvalidInput, match="survival_s"):
            Scene(value)


def test_a_successor_goes_on_with_the_ids_and_remembers_nothing():
    scene = Scene()
    [before] = run(scene, [[CAR]])[-1]
    successor = scene.successor()
    [after] = look(successor, [CAR], 2 * STEP_NS)
    assert after.track.track_id != before.track.track_id


moves = st.lists(
    st.lists(
        st.tuples(st.integers(50, 800), st.integers(50, 450), st.integers(20, 120), st.integers(20, 90)), max_size=4
    ),
    min_size=1,
    max_size=4,
)


def transformed(box, how):
    x, y, width, height = box
    return {
        "shifted": (x + 30, y + 20, width, height),
        "scaled": (2 * x, 2 * y, 2 * width, 2 * height),
        "mirrored": (1000 - x - width, y, width, height),
    }[how]


@pytest.mark.parametrize("how", ["shifted", "scaled", "mirrored"])
@settings(deadline=None, max_examples=20)
@given(moves, st.integers(0, 2**32 - 1))
def test_what_happens_to_a_sequence_happens_to_its_objects(how, frames, seed):
    """On grey pictures, where the camera is still: then nothing but the boxes tells."""
    scores = np.random.default_rng(seed).uniform(0.3, 1, 4)
    plain = [[(*box, float(scores[i])) for i, box in enumerate(boxes)] for boxes in frames]
    other = [[(*transformed(o[:4], how), o[4]) for o in objects] for objects in plain]
    scale = 2 if how == "scaled" else 1
    first = run(Scene(), plain, image=np.full((600, 1000, 3), 90, np.uint8))
    second = run(Scene(), other, image=np.full((600 * scale, 1000 * scale, 3), 90, np.uint8))
    for before, after in zip(first, second, strict=True):
        expected = sorted((*transformed(o.box.as_tuple(), how), o.carried, o.existence) for o in before)
        assert np.allclose(sorted((*o.box.as_tuple(), o.carried, o.existence) for o in after), expected, atol=0.01)


@settings(deadline=None, max_examples=15)
@given(moves)
def test_ids_are_never_used_again(frames):
    scene = Scene()
    seen, last = set(), set()
    for number, boxes in enumerate([*frames, [], [], *frames]):
        now = {o.track.track_id for o in look(scene, [(*box, 0.9) for box in boxes], (1 + number) * STEP_NS)}
        assert not (now - last) & (seen - last - now)
        seen, last = seen | now, now
    scene.reset()
    fresh = {o.track.track_id for o in look(scene, [CAR], 100 * STEP_NS)}
    assert not fresh & seen


def told(objects):
    """What a frame says of its objects but their ids, in the order of their places."""
    return sorted((*o.box.as_tuple(), o.finding.label, o.carried, o.existence) for o in objects)


def test_a_mirrored_sequence_of_a_camera_that_turns_is_mirrored():
    def frames(mirrored):
        scene = Scene()
        for number in range(6):
            shift = 10 * number
            image = cv2.warpAffine(PICTURE, np.float32([[1, 0, -shift], [0, 1, 0]]), (1000, 600), borderMode=2)
            car = (600 - shift, 300, 60, 40)
            if mirrored:
                image, car = np.ascontiguousarray(image[:, ::-1]), transformed(car, "mirrored")
            # From the fourth frame on only the motion of the camera tells where it is.
            yield look(scene, [(*car, 0.9)] if number < 3 else [], (1 + number) * STEP_NS, image)

    for plain, mirrored in zip(frames(False), frames(True), strict=True):
        [before], [after] = plain, mirrored
        assert after.carried == before.carried
        assert after.box.as_tuple() == pytest.approx(transformed(before.box.as_tuple(), "mirrored"), abs=3)


@settings(deadline=None, max_examples=10)
@given(moves, moves)
def test_after_a_cut_a_scene_is_as_a_new_one(before, after):
    scene, fresh, other = Scene(), Scene(), picture(1)
    earlier = run(scene, [[(*box, 0.8) for box in boxes] for boxes in before])
    ids = {o.track.track_id for objects in earlier for o in objects}
    for number, boxes in enumerate(after):
        objects, stamp_ns = [(*box, 0.8) for box in boxes], (1 + len(before) + number) * STEP_NS
        cut = look(scene, objects, stamp_ns, other)
        assert told(cut) == told(look(fresh, objects, stamp_ns, other))
        assert not ids & {o.track.track_id for o in cut}


@settings(deadline=None, max_examples=8)
@given(st.permutations(range(4)), st.integers(0, 2**32 - 1))
def test_the_order_of_the_views_of_a_frame_does_not_matter(order, seed):
    random = np.random.default_rng(seed)
    crops = []
    for x in (100, 250, 400, 550):
        found = [(*random.uniform((x, 200), (x + 120, 300)), 50, 40, score) for score in random.uniform(0.3, 0.9, 2)]
        crops.append(((x, 200, 200, 200), found))
    whole = [(*random.uniform((100, 200), (700, 350)), 60, 45, 0.5) for _ in range(3)]
    first, second = Scene(), Scene()
    for number in range(1, 4):
        one = look(first, whole, number * STEP_NS, crops=crops)
        other = look(second, whole, number * STEP_NS, crops=[crops[index] for index in order])
        for a, b in zip(told(one), told(other), strict=True):
            assert (a[4], a[5]) == (b[4], b[5])
            assert (*a[:4], a[6]) == pytest.approx((*b[:4], b[6]))


@settings(deadline=None, max_examples=20)
@given(st.floats(0.05, 20.0), st.lists(st.integers(10_000_000, 1_900_000_000), min_size=1, max_size=4))
def test_what_nobody_looks_at_loses_existence_by_the_time_alone(survival_s, steps_ns):
    scene, far = Scene(survival_s), (480, 200, 8, 6, 0.9)
    for number in range(1, 4):
        [before] = look(scene, [], number * STEP_NS, crops=[((430, 150, 100, 100), [far])])
    stamp_ns = 3 * STEP_NS
    for step_ns in steps_ns:
        stamp_ns += step_ns
        frame = Frame(PICTURE, stamp_ns=stamp_ns, camera="front")
        expected = scene.expect(frame, frame.view(frame.window, (500, 300)), QUERY).objects
        scene.update((), [frame.view(Box(0, 0, 100, 100), (400, 400), 0)], DEFAULT)
    remains = before.existence * math.exp(-(stamp_ns - 3 * STEP_NS) / 1e9 / survival_s)
    if remains > FORGOTTEN_BELOW:
        frame = Frame(PICTURE, stamp_ns=stamp_ns, camera="front")
        expected = scene.expect(frame, frame.view(frame.window, (500, 300)), QUERY).objects
        assert [each.existence for each in expected] == pytest.approx([remains], rel=0.01)


scores = st.one_of(st.floats(0, 1), st.just(math.nan))


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 30),
            st.sampled_from(["picture", "black", "small", "other"]),
            st.lists(st.tuples(st.integers(-50, 1050), st.integers(-50, 650), st.integers(0, 400), scores), max_size=6),
        ),
        max_size=8,
    )
)
def test_whatever_comes_in_whatever_order_is_told_in_numbers_and_nothing_is_carried_backwards(frames):
    images = {
        "picture": PICTURE,
        "black": np.zeros_like(PICTURE),
        "small": cv2.resize(PICTURE, (800, 480)),
        "other": picture(1),
    }
    scene, last = Scene(), (0, "")
    for stamp, kind, boxes in frames:
        found = look(scene, [(x, y, side, side, score) for x, y, side, score in boxes], stamp * STEP_NS, images[kind])
        height, width = images[kind].shape[:2]
        for o in found:
            assert math.isnan(o.existence) or 0 <= o.existence <= 1
            assert math.isnan(o.finding.score) or 0 <= o.finding.score <= 1
            assert 0 <= o.box.x <= o.box.right <= width + 1e-6 and 0 <= o.box.y <= o.box.bottom <= height + 1e-6
            assert math.isfinite(o.box.area)
        if stamp == 0 or stamp < last[0] or ("small" in (kind, last[1]) and kind != last[1]):
            assert not any(o.carried for o in found)
        last = stamp, kind
