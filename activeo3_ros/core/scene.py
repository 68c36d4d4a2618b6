# Copyright 2026 The activeo3_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""The memory of one camera: the objects of its earlier frames, where they should be now, and how sure they are.

A frame has two turns with it. `Scene.expect` moves every remembered object to the frame's time, by its own velocity and
by the camera's motion, and tells policies what to expect. `Scene.update` weighs what the views of the frame show: seen
objects are confirmed, those that a view should have shown are denied, and the others lose existence by the survival
rate alone. The mathematics within one frame is that of `evidence`: a picture alone is a sequence of one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from .background import BackgroundSensing
from .calibration import DEFAULT, Array, Calibration
from .errors import InvalidInput
from .evidence import (
    CUT_MARGIN_PX,
    CUT_WEIGHT,
    MIN_WEAK_SCORE,
    NO_CONFIRMATIONS,
    Confirmations,
    FrameObject,
    Hypothesis,
    Looks,
    Observation,
    ReadText,
    clip_to,
    prior_log_odds,
    read_texts,
    with_text,
)
from .expectation import Expectation, ExpectedObject, PastZoom
from .frame import GLOBAL_VIEW, Frame, View
from .geometry import Box, Boxes, areas, as_array, iou
from .motion import STILL, Motion, MotionEstimator
from .query import Query
from .results import Finding, Track

SURVIVAL_S = 1.0
"""Mean time for which an object is believed to stay where no view shows it."""
MAX_HYPOTHESES = 300
"""Objects that a scene remembers; beyond them the least likely go first."""
MAX_GAP_S = 2.0
"""After a longer time without a frame nothing of the scene is known any more."""
REPORTED_FROM = 0.8
"""Existence from which an object is reported that at least two frames show."""
REPORTED_AT_ONCE_FROM = 0.97
"""Existence from which an object is reported that one frame shows."""
MAX_WAIT_S = 0.5
"""Where frames are further apart, what a picture alone reports is reported at once: it waits no longer for a second."""
REPORTED_UNTIL = 0.3
"""An object that is reported stays so until its existence is below this."""
FORGOTTEN_BELOW = 0.05
"""Existence below which an object is forgotten."""
MAX_LOG_ODDS = 4.0
"""No object is surer than this, so that one that goes is denied in time."""
MAX_DENIAL = math.log(0.4)
"""Log-odds that the misses of one frame take at most: an object may be hidden for a moment, from all views alike."""
SAME_OBJECT_IOU = 0.3
"""A box and a remembered object of one label are the same from this overlap on, both grown by how far they may be
off."""
OTHER_LABEL_IOU = 0.5
"""The same for different labels."""
DUPLICATE_IOU, DUPLICATE_OTHER_LABEL_IOU = 0.5, 0.7
"""Two remembered objects, of one label and of two, are one from this overlap on."""
FIRST_VELOCITY_SIDES = 2.0
"""Standard deviation of the velocity of an object that was seen once, in its sides a second."""
ACCELERATION_SIDES = 2.0
"""Standard deviation of an object's acceleration, in its sides a second squared."""
GROWTH_SIDES = 0.3
"""Standard deviation of the change of its width and height, in its sides, for the square root of a second."""
SIGMA_SCALE = 1.5
"""An edge is off by this many of its standard deviations from frame to frame: neighbouring frames err alike."""
MIN_SIGMA_SHARE = 0.04
"""No edge of a box is surer than this share of its side."""
MIN_SHARE_INSIDE = 0.3
"""An object of which less than this share is left in the frame has gone out of it."""
LABEL_LEAD = 1.5
"""The label of an object that is reported changes to one with this many times its votes."""
MAX_TEXTS = 20
MAX_PATH = 25
"""Past centres of a track that are kept, for its tail in pictures."""
ZOOM_STEPS = 2
"""Looks at magnifications within half an octave are one test, repeated."""
REPEATED_LATER = 0.4
"""How much looks of different frames at one magnification depend on each other, as `Calibration.repeated_misses` says
it for views of one frame: objects move, so less."""
FADING_S = 1.0
"""A look of so long ago counts 1/e of one of now."""
CONFIRMATIONS_FADE_S = 10.0
"""What forgotten objects said of how far the calibration holds counts 1/e after this time: a camera moves on."""
ZOOM_MEMORY_S = 2.0
MAX_PAST_ZOOMS = 60
SURVIVAL_LIMITS = (1e-3, 1.0 - 1e-3)

Pair = tuple[float, float]
"""x and y."""


@dataclass(eq=False)
class _Remembered:
    """One hypothesis over several frames: where it is (source pixels), how it moves (a second), how sure it is.

    The centre follows a Kalman filter of constant velocity, the same for both axes; width and height follow one that
    lets them change at random. Numbers, not arrays: there are few, and a scene has many objects.
    """

    number: int
    track_id: str
    prior: float
    center: Pair
    size: Pair
    variance: float
    first_ns: int
    last_ns: int
    finding: Finding
    region: int
    times_seen: int = 0
    reported: bool = False
    is_reliable: bool = False
    is_hidden: bool = False
    is_held_back: bool = False
    last_box: Box | None = None
    zoom: float = 1.0
    labels: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    texts: deque[ReadText] = field(default_factory=lambda: deque(maxlen=MAX_TEXTS))
    tests: dict[int, tuple[float, float, int]] = field(default_factory=dict)
    faded: float = 0.0
    confirmations: Confirmations = NO_CONFIRMATIONS
    """In the mean of the frames that told any: the same object is missed for the same reason."""
    frames_told: int = 0

    def __post_init__(self) -> None:
        self.log_odds = self.prior
        self.velocity: Pair = (0.0, 0.0)
        """Its own: without what the camera's motion adds at its place."""
        self.camera_velocity: Pair = (0.0, 0.0)
        self.size_variance = 2 * self.variance
        self.covariance = (self.variance, 0.0, (FIRST_VELOCITY_SIDES * self.side) ** 2)
        """Of the centre along an axis: its variance, its covariance with the velocity, the velocity's variance."""
        self.box = self._box()
        self._path: deque[Pair] = deque(maxlen=MAX_PATH)
        self._path_shift: Pair = (0.0, 0.0)

    @property
    def existence(self) -> float:
        return 1 / (1 + math.exp(-self.log_odds))

    @property
    def label(self) -> str:
        """The class name that the looks are for; once it is reported it changes only to one with far more votes."""
        return self.finding.label

    def vote(self, seen: Finding, members: Sequence[Observation]) -> str:
        """Count the votes of a frame's views and return the label that the object has from now on.

        A view's vote is its support, half of it where it cuts the object.
        """
        for member in sorted(members, key=lambda each: each.support):
            finding = member.finding
            support = member.support * (CUT_WEIGHT if member.is_cut else 1.0)
            self.labels[finding.label] = self.labels.get(finding.label, 0.0) + support
            self.scores[finding.label] = finding.score
        self.scores[seen.label] = seen.score
        leader = min(self.labels, key=lambda each: (-self.labels[each], each))
        lead = LABEL_LEAD if self.reported else 1.0
        return leader if self.labels[leader] > lead * self.labels[self.label] else self.label

    def _box(self) -> Box:
        (x, y), (width, height) = self.center, self.size
        return Box(x - width / 2, y - height / 2, width, height)

    @property
    def side(self) -> float:
        return math.sqrt(self.size[0] * self.size[1])

    @property
    def sigma(self) -> float:
        """How far an edge may be off, source pixels; no more than half the side."""
        return min(math.sqrt(self.covariance[0]), 0.5 * self.side)

    @property
    def path(self) -> tuple[Pair, ...]:
        """Its last centres, moved as the camera moved the place where it was, oldest first."""
        dx, dy = self._path_shift
        return tuple((x + dx, y + dy) for x, y in self._path)

    def extend_path(self) -> None:
        """Add where it is now."""
        self._path.append((self.center[0] - self._path_shift[0], self.center[1] - self._path_shift[1]))

    def move(self, center: Pair, velocity: Pair, by_camera: Pair, elapsed_s: float) -> None:
        """Predict the state at the time of the next frame.

        Args:
            center: Where it will be.
            velocity: Its own, turned with the camera.
            by_camera: How far the camera alone moves the place where it was.
            elapsed_s: Time from frame to frame.
        """
        self.center, self.velocity = center, velocity
        self.last_box, self.box = self.box, self._box()
        if elapsed_s:
            self.camera_velocity = (by_camera[0] / elapsed_s, by_camera[1] / elapsed_s)
        self._path_shift = (self._path_shift[0] + by_camera[0], self._path_shift[1] + by_camera[1])
        place, both, speed = self.covariance
        pushed = ACCELERATION_SIDES * self.side * elapsed_s
        self.covariance = (
            place + 2 * elapsed_s * both + elapsed_s**2 * speed + (pushed * elapsed_s / 2) ** 2,
            both + elapsed_s * speed + pushed**2 * elapsed_s / 2,
            speed + pushed**2,
        )
        self.size_variance += (GROWTH_SIDES * self.side) ** 2 * elapsed_s

    def correct(self, box: Box, sigma: float, at_border: bool) -> None:
        """Take in a box that shows all of it, or what a border of the frame leaves of it."""
        if at_border:  # what comes in or goes out changes its size as fast as it moves
            self.size_variance += self.side**2
        place, both, speed = self.covariance
        gain, speed_gain = place / (place + sigma**2), both / (place + sigma**2)
        (x, y), (measured_x, measured_y) = self.center, box.center
        dx, dy = measured_x - x, measured_y - y
        self.center = (x + gain * dx, y + gain * dy)
        self.velocity = (self.velocity[0] + speed_gain * dx, self.velocity[1] + speed_gain * dy)
        self.covariance = (place - gain * place, both - gain * both, speed - speed_gain * both)
        size_gain = self.size_variance / (self.size_variance + 2 * sigma**2)
        width, height = self.size
        self.size = (width + size_gain * (box.width - width), height + size_gain * (box.height - height))
        self.size_variance *= 1 - size_gain
        self.box = self._box()

    def weigh(self, looks: Sequence[tuple[int, float]], stamp_ns: int, repeated: float) -> None:
        """Add the looks of a frame to those before.

        Looks at one magnification are one test, repeated: the same object is missed for the same reason, and the same
        false one found. Their average counts, as much as that many dependent looks do; old ones fade.

        Args:
            looks: The magnification of each, in steps of half an octave, and the log-odds that it adds.
            stamp_ns: Time of the frame.
            repeated: See `Calibration.repeated_misses`.
        """
        for step, evidence in looks:
            mean, number, last_ns = self.tests.get(step, (0.0, 0.0, stamp_ns))
            number *= math.exp(-(stamp_ns - last_ns) / 1e9 / FADING_S)
            self.tests[step] = ((mean * number + evidence) / (number + 1), number + 1, stamp_ns)
        weighed = self.prior + self.faded
        signs = [(step, mean > 0) for step, (mean, _, _) in self.tests.items()]
        for step, (mean, number, _) in self.tests.items():
            same = [other for other, sign in signs if sign == (mean > 0) and 0 < abs(step - other) < ZOOM_STEPS]
            alike = sum(1 - abs(step - other) / ZOOM_STEPS for other in same)
            weighed += mean * number / (1 + (number - 1) * REPEATED_LATER) / (1 + repeated * alike)
        self.log_odds = min(max(weighed, self.log_odds + MAX_DENIAL, -MAX_LOG_ODDS), MAX_LOG_ODDS)

    def confirm(self, told: Confirmations) -> None:
        """Take in how often the views of a frame confirmed what another one reported of it."""
        if told.expected > 0:
            self.frames_told += 1
            share = 1 / self.frames_told
            self.confirmations = self.confirmations.times(1 - share) + told.times(share)

    def survive(self, elapsed_s: float, survival_s: float) -> None:
        """Lose existence by the time alone, until a view finds it again."""
        low, high = SURVIVAL_LIMITS
        surviving = min(max(self.existence * math.exp(-elapsed_s / survival_s), low), high)
        log_odds = math.log(surviving / (1 - surviving))
        self.faded += log_odds - self.log_odds
        self.log_odds = log_odds

    def take(self, hypothesis: Hypothesis, stamp_ns: int, sigma: float, view_zoom: float) -> None:
        """Take in what the views of one frame show of it.

        Args:
            hypothesis: What they show.
            stamp_ns: Time of the frame.
            sigma: How far an edge of its box may be off, source pixels.
            view_zoom: Magnification of the view of the whole frame.
        """
        seen = hypothesis.seen
        label = self.vote(seen.finding, hypothesis.members)
        is_same = label == seen.finding.label
        self.finding = seen.finding if is_same else replace(seen.finding, label=label, score=self.scores[label])
        self.region, self.last_ns = seen.view.region, stamp_ns
        self.texts.extend(read_texts(hypothesis.members))
        self.zoom = max(self.zoom, *(member.view.zoom / view_zoom for member in hypothesis.members))
        self.times_seen += 1
        self.is_reliable |= hypothesis.is_reported
        if not seen.is_cut:
            self.correct(seen.box, sigma, _touches_border(seen))

    def report(self, size: tuple[int, int], carried: bool) -> FrameObject:
        """The object as a frame of this size reports it."""
        label, box = self.label, self.box.clipped(*size)
        finding, disputed = with_text(self.finding, list(self.texts))
        by_camera = self.camera_velocity
        velocity = (self.velocity[0] + by_camera[0], self.velocity[1] + by_camera[1])
        track = Track(
            self.track_id,
            label,
            self.existence,
            box,
            velocity if self.times_seen > 1 else (math.nan, math.nan),
            self.first_ns,
            self.last_ns,
            self.zoom,
            finding.text,
            self.path,
            math.sqrt(self.covariance[0]),
        )
        region = GLOBAL_VIEW if carried else self.region
        return FrameObject(finding, box, region, self.existence, disputed, track, carried)


class Scene:
    """The memory of one camera. One thread at a time may use it.

    Attributes:
        survival_s: Mean time for which an object is believed to stay where no view shows it, seconds.
        forgotten: Hypotheses that were forgotten because there were more than `MAX_HYPOTHESES`.
        note: What the user should know of the last frame, "" if nothing.
        motion: Of the camera, from the last frame to this one.
        sensing: Chooses regions in a thread of its own; None where each frame waits for its own regions.
    """

    def __init__(self, survival_s: float = SURVIVAL_S) -> None:
        """Begin with nothing.

        Args:
            survival_s: See the attribute.

        Raises:
            InvalidInput: It is not more than 0.
        """
        if not 0 < survival_s < math.inf:
            raise InvalidInput(f"survival_s must be more than 0 seconds, got {survival_s!r}")
        self.survival_s = survival_s
        self.forgotten = 0
        self.note = ""
        self.sensing: BackgroundSensing | None = None
        self._numbers = count(1)
        self.reset()

    def successor(self) -> Scene:
        """A new scene that remembers nothing and goes on with the ids, where another thread may still use this one."""
        new = Scene(self.survival_s)
        new._numbers, new.forgotten = self._numbers, self.forgotten
        new.sensing = None if self.sensing is None else BackgroundSensing()
        return new

    def reset(self) -> None:
        """Forget everything. The ids of tracks go on."""
        self.motion = STILL
        if self.sensing is not None:
            self.sensing.forget()
        self._objects: list[_Remembered] = []
        self._zooms: list[tuple[Box, float, int]] = []
        self._confirmations_of_forgotten = NO_CONFIRMATIONS
        self._motion = MotionEstimator()
        self._frame: tuple[Query, int, int] | None = None
        self._camera = ""
        self._stamp_ns = 0
        self._elapsed_s = 0.0
        self._view_zoom = 1.0
        self._is_new = True

    def expect(self, frame: Frame, view: View, query: Query) -> Expectation:
        """Move everything to the time of a frame; `update` follows.

        Nothing is remembered across another size or query, a frame that is older than the last one or more than
        `MAX_GAP_S` younger, a frame without a stamp, and a cut of the picture.

        Args:
            frame: The frame.
            view: The whole of it.
            query: What it is asked.

        Returns:
            What should be in the frame.
        """
        kind = (query, frame.width, frame.height)
        elapsed_s = (frame.stamp_ns - self._stamp_ns) / 1e9
        self.note = self._what_is_wrong(frame, elapsed_s)
        if self.note or self._frame != kind or elapsed_s > MAX_GAP_S:
            self.reset()
        motion = self._motion.update(view)
        if motion is None:  # the picture was cut
            self.reset()
            motion = self._motion.update(view) or STILL
        self.motion, self._is_new = motion, self._frame is None
        self._elapsed_s = 0.0 if self._is_new else elapsed_s
        self._frame, self._stamp_ns, self._view_zoom = kind, frame.stamp_ns, view.zoom
        self._camera = frame.camera
        kept = math.exp(-self._elapsed_s / CONFIRMATIONS_FADE_S)
        self._confirmations_of_forgotten = self._confirmations_of_forgotten.times(kept)
        self._move_objects(motion)
        self._move_zooms(motion)
        return self._expectation(view)

    @property
    def confirmations(self) -> Confirmations:
        """What the objects of the frames so far say of how far the calibration holds, each of them once."""
        return sum((each.confirmations for each in self._objects), self._confirmations_of_forgotten)

    def _what_is_wrong(self, frame: Frame, elapsed_s: float) -> str:
        """Why a frame cannot follow the last one, "" if it can or none came before."""
        if not frame.stamp_ns:
            return "frames without a stamp are not weighed together"
        if self._frame is None:
            return ""
        if elapsed_s < 0:
            return f"this frame is {-elapsed_s:.3f} s older than the last one: what was remembered is forgotten"
        if (frame.width, frame.height) != self._frame[1:]:
            before = "{} x {}".format(*self._frame[1:])
            return f"the size changed from {before} to {frame.width} x {frame.height}: what was remembered is forgotten"
        return ""

    @property
    def _frame_size(self) -> tuple[int, int]:
        assert self._frame is not None, "expect comes before update"
        return self._frame[1:]

    def _move_objects(self, motion: Motion) -> None:
        """Move every object to the time of the frame, and forget what has gone out of it."""
        objects, number = self._objects, len(self._objects)
        if not objects:
            return
        state = np.array([(*each.center, *each.velocity) for each in objects])
        center, velocity = state[:, :2], state[:, 2:]
        moved = motion.moved_points(np.concatenate([center + velocity * self._elapsed_s, center]))
        rows = np.concatenate([moved[:number], motion.turned(velocity), moved[number:] - center], axis=1).tolist()
        for each, (x, y, own_x, own_y, dx, dy) in zip(objects, rows, strict=True):
            each.move((x, y), (own_x, own_y), (dx, dy), self._elapsed_s)
        boxes, frame = as_array(each.box for each in objects), Box(0.0, 0.0, *map(float, self._frame_size))
        left = areas(clip_to(boxes, frame))
        is_shown = ((left > 0) & (left >= MIN_SHARE_INSIDE * areas(boxes))).tolist()
        self._keep([each for each, shown in zip(objects, is_shown, strict=True) if shown])

    def _keep(self, kept: list[_Remembered]) -> None:
        """Forget the other objects, but not what they said of the calibration."""
        numbers = {each.number for each in kept}
        gone = (each.confirmations for each in self._objects if each.number not in numbers)
        self._confirmations_of_forgotten = sum(gone, self._confirmations_of_forgotten)
        self._objects = kept

    def _move_zooms(self, motion: Motion) -> None:
        """Move the windows of past zooms with the camera, and forget old ones."""
        kept = [each for each in self._zooms if self._stamp_ns - each[2] <= ZOOM_MEMORY_S * 1e9][-MAX_PAST_ZOOMS:]
        moved = motion.moved_boxes(as_array(each[0] for each in kept)).tolist()
        self._zooms = [(Box(*row), zoom, stamp) for row, (_, zoom, stamp) in zip(moved, kept, strict=True)]

    def _expectation(self, view: View) -> Expectation:
        boxes = view.from_source(as_array(each.box for each in self._objects)).tolist()
        windows = view.from_source(as_array(each[0] for each in self._zooms)).tolist()
        return Expectation(
            tuple(
                ExpectedObject(each.label, Box(*box), each.existence)
                for each, box in zip(self._objects, boxes, strict=True)
            ),
            tuple(
                PastZoom(Box(*window), zoom / view.zoom, (self._stamp_ns - stamp) / 1e9)
                for window, (_, zoom, stamp) in zip(windows, self._zooms, strict=True)
            ),
        )

    def update(
        self, found: Sequence[Hypothesis], views: Sequence[View], calibration: Calibration | None = None
    ) -> list[FrameObject]:
        """Weigh what the views of the frame show.

        Args:
            found: What they show together, as `evidence.hypotheses` gives it.
            views: All views of the frame that were examined.
            calibration: Of the detector; None for a model whose scores say nothing: what it shows is believed at once,
                and the stated defaults tell how long it is carried.

        Returns:
            The objects to report, best score first.
        """
        is_believed = calibration is None
        calibration = calibration or DEFAULT
        sigmas = _sigmas(found, calibration)
        shown = self._match(found, sigmas)
        taken = {id(hypothesis) for group in shown for hypothesis in group}
        new = [h for h in found if id(h) not in taken and _is_worth_remembering(h)]
        shown += [[hypothesis] for hypothesis in new]
        sigma = {id(hypothesis): value for hypothesis, value in zip(found, sigmas.tolist(), strict=True)}
        prior = prior_log_odds(calibration)
        self._objects += [self._remember(hypothesis, sigma[id(hypothesis)], prior) for hypothesis in new]
        for each, group in zip(self._objects, shown, strict=True):
            for hypothesis in group:
                each.take(hypothesis, self._stamp_ns, sigma[id(hypothesis)], self._view_zoom)
            each.extend_path()
        self._weigh([[m for h in group for m in h.members] for group in shown], views, calibration)
        shown = self._without_duplicates(shown)
        for each, group, moves_on in zip(self._objects, shown, self._move_on(), strict=True):
            self._decide(each, group, moves_on, is_believed)
        self._zooms += [(v.window, v.zoom, self._stamp_ns) for v in views if v.region != GLOBAL_VIEW]
        objects = [each.report(self._frame_size, not group) for each, group in self._reported(shown)]
        self._forget()
        return sorted(objects, key=lambda o: (-_finite(o.finding.score), o.box.as_tuple()))

    def _match(self, found: Sequence[Hypothesis], sigmas: Array) -> list[list[Hypothesis]]:
        """For each remembered object what shows it: one whole box, or pieces of it in different views.

        Those that a view reports choose first, and among the objects those that are reported.
        """
        shown: list[list[Hypothesis]] = [[] for _ in self._objects]
        if not found or not self._objects:
            return shown
        expected = _grown(as_array(o.box for o in self._objects), np.array([o.sigma for o in self._objects]))
        overlap = iou(_grown(as_array(h.seen.box for h in found), sigmas), expected)
        for view in {id(h.seen.view): h.seen.view for h in found if h.seen.is_cut}.values():
            rows = [row for row, h in enumerate(found) if h.seen.is_cut and h.seen.view is view]
            overlap[rows] = iou(as_array(found[row].seen.box for row in rows), clip_to(expected, view.window))
        labels = np.array([o.label for o in self._objects])
        same = np.array([h.seen.finding.label for h in found])[:, None] == labels
        fits = overlap >= np.where(same, SAME_OBJECT_IOU, OTHER_LABEL_IOU)
        pairs = [
            (found[row].seen.weak, not self._objects[column].reported, -overlap[row, column], column, row)
            for row, column in np.argwhere(fits).tolist()
        ]
        taken = set()
        for _, _, _, column, row in sorted(pairs):
            group = shown[column]
            is_piece = group and found[row].seen.is_cut and not _share_a_view(found[row], group)
            if row not in taken and (not group or is_piece):
                taken.add(row)
                group.append(found[row])
        return shown

    def _remember(self, hypothesis: Hypothesis, sigma: float, prior: float) -> _Remembered:
        seen = hypothesis.seen
        size = (seen.box.width, seen.box.height)
        number, stamp = next(self._numbers), self._stamp_ns
        track_id = f"{self._camera}:{number}" if self._camera else str(number)
        return _Remembered(
            number, track_id, prior, seen.box.center, size, sigma**2, stamp, stamp, seen.finding, seen.view.region
        )

    def _weigh(self, observed: list[list[Observation]], views: Sequence[View], calibration: Calibration) -> None:
        """Add the evidence of the frame's looks to each object."""
        if not self._objects:
            return
        looks = Looks.at(as_array(each.box for each in self._objects), observed, views, calibration)
        # A detector that finds no object says nothing about a text that a reader read.
        is_text = np.array([bool(each.texts) for each in self._objects])
        looked = (looks.looked & (looks.found | ~is_text[:, None])).tolist()
        steps = np.round(ZOOM_STEPS * looks.zoom).astype(int).tolist()
        for each, told in zip(self._objects, looks.confirmations, strict=True):
            each.confirm(told)
        by_look = looks.evidence(self.confirmations.found_share).tolist()
        for each, members, by_view, evidence in zip(self._objects, observed, looked, by_look, strict=True):
            if not members:
                each.survive(self._elapsed_s, self.survival_s)
            else:
                each.faded = 0.0
            if any(by_view):
                new = [(step, value) for step, value, has in zip(steps, evidence, by_view, strict=True) if has]
                each.weigh(new, self._stamp_ns, calibration.repeated_misses)

    def _without_duplicates(self, shown: list[list[Hypothesis]]) -> list[list[Hypothesis]]:
        """Forget objects that have come to lie on another one, unless a view of this frame shows both.

        Of two the one stays that is reported already, else the surer, else the older. The other one, where it stays
        too, is not reported before they have come apart.

        Returns:
            What shows each of the objects that are left.
        """
        order = sorted(
            range(len(self._objects)),
            key=lambda n: (not self._objects[n].reported, -self._objects[n].log_odds, self._objects[n].number),
        )
        boxes = as_array(each.box for each in self._objects)
        labels = np.array([each.label for each in self._objects])
        same = labels[:, None] == labels[None, :]
        overlap = iou(boxes, boxes) >= np.where(same, DUPLICATE_IOU, DUPLICATE_OTHER_LABEL_IOU)
        gone: set[int] = set()
        for each in self._objects:
            each.is_hidden = False
        ranks = {number: rank for rank, number in enumerate(order)}
        for rank, keeper in enumerate(order):
            if keeper not in gone:
                near = np.flatnonzero(overlap[keeper]).tolist()
                later = [n for n in near if ranks[n] > rank and n not in gone]
                for n in later:
                    self._objects[n].is_hidden = True
                gone |= {n for n in later if not any(_share_a_view(h, shown[keeper]) for h in shown[n])}
        kept = [n for n in range(len(self._objects)) if n not in gone]
        self._keep([self._objects[n] for n in kept])
        return [shown[n] for n in kept]

    def _move_on(self) -> list[bool]:
        """Whether each object moved by most of its size since the last frame."""
        if not self._objects:
            return []
        boxes = as_array(each.box for each in self._objects)
        before = as_array(each.last_box or each.box for each in self._objects)
        moves_on: list[bool] = (iou(boxes, before).diagonal() < SAME_OBJECT_IOU).tolist()
        return moves_on

    def _decide(self, each: _Remembered, group: Sequence[Hypothesis], moves_on: bool, is_believed: bool) -> None:
        """Whether an object is reported. The first frame of a scene, and a late one, is judged as a picture alone.

        What moves on by most of its size from one frame to the next is held back until a view reports it: its place is
        a guess where none does, and a weak box there may be of anything.
        """
        if each.reported or each.is_held_back:
            each.reported = each.existence >= REPORTED_UNTIL
        elif each.is_hidden:
            each.reported = False
        elif self._is_new or is_believed or self._elapsed_s > MAX_WAIT_S:
            each.reported = any(hypothesis.is_reported for hypothesis in group)
        else:
            needed = REPORTED_AT_ONCE_FROM if each.times_seen == 1 else REPORTED_FROM
            each.reported = bool(group) and each.is_reliable and each.existence >= needed
        is_shown = any(not member.weak for hypothesis in group for member in hypothesis.members)
        each.is_held_back = each.reported and not is_shown and (each.is_held_back or moves_on)
        each.reported &= not each.is_held_back

    def _reported(self, shown: list[list[Hypothesis]]) -> list[tuple[_Remembered, list[Hypothesis]]]:
        return [pair for pair in zip(self._objects, shown, strict=True) if pair[0].reported]

    def _forget(self) -> None:
        kept = [each for each in self._objects if each.existence >= FORGOTTEN_BELOW]
        too_many = max(0, len(kept) - MAX_HYPOTHESES)
        self.forgotten += too_many
        if too_many:
            note = f"{too_many} of the least likely objects were forgotten: at most {MAX_HYPOTHESES} are remembered"
            self.note = "; ".join(filter(None, (self.note, note)))
        kept = sorted(kept, key=lambda each: (-each.log_odds, each.number))[:MAX_HYPOTHESES]
        self._keep(sorted(kept, key=lambda each: each.number))


def _is_worth_remembering(hypothesis: Hypothesis) -> bool:
    """Whether later frames may make an object of it."""
    return any(not member.weak or member.finding.score >= MIN_WEAK_SCORE for member in hypothesis.members)


def _touches_border(seen: Observation) -> bool:
    """Whether a border of the frame may cut it."""
    width, height = seen.view.source_size
    margin, box = CUT_MARGIN_PX / seen.view.zoom, seen.box
    return box.x < margin or box.y < margin or width - box.right < margin or height - box.bottom < margin


def _share_a_view(hypothesis: Hypothesis, group: Sequence[Hypothesis]) -> bool:
    views = {id(member.view) for other in group for member in other.members}
    return any(id(member.view) in views for member in hypothesis.members)


def _sigmas(found: Sequence[Hypothesis], calibration: Calibration) -> Array:
    """`(n,)` how far an edge of each observed box may be off, source pixels."""
    sides = np.sqrt([h.seen.box.area for h in found])
    zooms = np.array([h.seen.view.zoom for h in found])
    jitter = calibration.edge_jitter_px(np.sqrt([h.seen.finding.box.area for h in found])) / zooms
    return np.asarray(SIGMA_SCALE * np.maximum(jitter, MIN_SIGMA_SHARE * sides))


def _grown(boxes: Boxes, margins: Array) -> Boxes:
    """`(n, 4)` boxes with `(n,)` margins around them."""
    margins = margins[:, None]
    return np.concatenate([boxes[:, :2] - margins, boxes[:, 2:] + 2 * margins], axis=1)


def _finite(score: float) -> float:
    return -1.0 if math.isnan(score) else score
