"""Draws road scenes with exact boxes and masks: unlimited training and test data that needs no download.

A scene is a straight street seen by a camera at 1.5 m: sky, houses, kerbs, poles, a junction with a zebra crossing, the
horizon. Cars, people, cones, signs with numbers and traffic lights stand where they stand in streets: lights on poles
at the junction, signs on poles along the kerb, people at the crossing and on the pavement, cones along a lane, cars in
lanes. Most of them are far away, hence small and near the junction: a few pixels in a small view, which shows where to
zoom, not the class. The same seed always gives the same scene.

>>> scene = draw_scene(seed=7)
>>> scene.image.shape
(1080, 1920, 3)
>>> scene.objects[0].label in LABELS
True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from activeo3_ros.core.frame import Image
from activeo3_ros.core.geometry import Box

LABELS = ("traffic light", "sign", "cone", "person", "car")
NUMBERS = ("30", "50", "70", "80")
"""Texts of signs, in km/h."""
FULL_HD = (1920, 1080)
SQUARE = (1024, 1024)
SMALL_AREA_PX = 32.0 * 32.0
"""Objects whose box has less are small, as in COCO."""
MIN_SIDE_PX = 7.0
"""Smaller objects are not drawn: their edges would be undefined."""

_CAMERA_HEIGHT_M = 1.5
_SHIFT = 4
"""Fractional bits of the coordinates that OpenCV draws at."""

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class SceneObject:
    """One object. box: its visible pixels, in whole pixels of the image; mask: `(h, w)` bool over that box; text: on
    signs.
    """

    label: str
    box: Box
    mask: npt.NDArray[np.bool_]
    text: str = ""

    @property
    def is_small(self) -> bool:
        return self.box.area < SMALL_AREA_PX


@dataclass(frozen=True)
class Scene:
    """One drawn street. image: `(h, w, 3)` uint8 BGR. vanishing_point: where the street ends, in pixels."""

    image: Image
    objects: tuple[SceneObject, ...]
    vanishing_point: Point
    seed: int

    def of(self, label: str) -> tuple[SceneObject, ...]:
        """The objects of one label."""
        return tuple(each for each in self.objects if each.label == label)


class _Canvas:
    """Draws each shape twice: anti-aliased into the picture, and as the number of its object into a map of objects."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.ids = np.zeros(image.shape[:2], np.uint8)
        self.current = 0

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        fixed = np.rint(np.array(points) * 2**_SHIFT).astype(np.int32)
        cv2.fillPoly(self.image, [fixed], colour, cv2.LINE_AA, _SHIFT)
        if self.current:
            cv2.fillPoly(self.ids, [fixed], self.current, cv2.LINE_8, _SHIFT)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        centre, size = (_fixed(x), _fixed(y)), max(1, _fixed(radius))
        cv2.circle(self.image, centre, size, colour, -1, cv2.LINE_AA, _SHIFT)
        if self.current:
            cv2.circle(self.ids, centre, size, self.current, -1, cv2.LINE_8, _SHIFT)

    def text(self, text: str, x: float, y: float, height: float, colour: Colour) -> None:
        """Text centred at a point; it lies inside a shape that is already in the map of objects."""
        scale = height / 22.0  # Hershey digits are about 22 px tall at scale 1
        thickness = max(1, round(scale * 2.2))
        (width, tall), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
        origin = (round(x - width / 2), round(y + tall / 2))
        cv2.putText(self.image, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)


def _fixed(value: float) -> int:
    return int(np.rint(value * 2**_SHIFT))


@dataclass(frozen=True)
class _Street:
    """Where things are: metres to the right of the camera, up from the ground, and ahead, to pixels."""

    width: int
    height: int
    focal: float
    vanishing: Point
    left: float
    right: float
    """Kerbs, metres to the right of the camera."""
    junction: float
    """Metres ahead."""

    def scale(self, ahead: float) -> float:
        """Pixels per metre."""
        return self.focal / ahead

    def at(self, right: float, up: float, ahead: float) -> Point:
        scale = self.scale(ahead)
        return self.vanishing[0] + right * scale, self.vanishing[1] + (_CAMERA_HEIGHT_M - up) * scale


Draw = Callable[[_Canvas, np.random.Generator, float, float, float], str]
"""Draws one object with its foot (x, y) in pixels at a scale in pixels per metre; gives the text on it."""


def draw_scene(seed: int, size: tuple[int, int] = FULL_HD) -> Scene:
    """The scene of a seed at `size` (width, height in pixels). Raises ValueError below 256 px a side."""
    width, height = size
    if min(size) < 256:
        raise ValueError(f"a scene needs at least 256 px a side, got {width} x {height}")
    rng = np.random.default_rng([seed, width, height])
    left = -rng.uniform(3.5, 9.0)
    street = _Street(
        width,
        height,
        focal=0.7 * max(width, 1.3 * height),
        vanishing=(width * rng.uniform(0.15, 0.85), height * rng.uniform(0.25, 0.65)),
        left=left,
        right=left + rng.uniform(9.0, 13.0),
        junction=rng.uniform(45.0, 110.0),
    )
    night = rng.random() < 0.25
    canvas = _Canvas(_background(rng, street, night))
    _markings(canvas, rng, street)
    poles = _poles(canvas, rng, street)
    objects = _objects(canvas, rng, street, poles)
    image = _finish(canvas.image, rng)
    return Scene(image, tuple(objects), street.vanishing, seed)


def _background(rng: np.random.Generator, street: _Street, night: bool) -> Image:
    width, height = street.width, street.height
    horizon = street.vanishing[1]
    light = rng.uniform(0.25, 0.45) if night else rng.uniform(0.75, 1.0)
    high, low = np.array([230, 170, 110]) * light, np.array([235, 215, 190]) * light
    if rng.random() < 0.4:  # overcast
        high = low = np.full(3, rng.uniform(150, 225) * light)
    ground = rng.uniform((70, 90, 70), (110, 150, 130)) * light
    share = np.clip(np.arange(height)[:, None] / horizon, 0, 1)
    rows = np.where(np.arange(height)[:, None] < horizon, high + (low - high) * share, ground)
    pillar = rows.astype(np.uint8)[:, None]
    image = np.asarray(cv2.resize(pillar, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
    canvas = _Canvas(image)
    # Houses and trees along both sides, farthest first.
    for side, kerb in ((-1, street.left), (1, street.right)):
        for ahead in sorted(rng.uniform(18, 160, rng.integers(4, 10)), reverse=True):
            base = kerb + side * rng.uniform(5, 14)
            x, y = street.at(base, 0, ahead)
            scale = street.scale(ahead)
            wide, tall = rng.uniform(8, 18) * scale, rng.uniform(4, 14) * scale
            shade = _colour(rng.uniform((60, 60, 60), (200, 200, 210)) * light)
            x0, x1 = (x - wide, x) if side < 0 else (x, x + wide)
            if rng.random() < 0.6:
                canvas.rectangle(x0, y - tall, x1, y, shade)
                pane = _colour(np.array(shade) * 0.6)
                for column in range(1, 4):
                    for row in range(1, 3):
                        cx, cy = x0 + wide * column / 4, y - tall * row / 3
                        canvas.rectangle(cx - wide * 0.05, cy - tall * 0.07, cx + wide * 0.05, cy + tall * 0.07, pane)
            else:
                green = _colour(rng.uniform((30, 70, 30), (70, 140, 80)) * light)
                canvas.rectangle(
                    (x0 + x1) / 2 - 0.15 * scale, y - 3 * scale, (x0 + x1) / 2 + 0.15 * scale, y, (40, 60, 80)
                )
                canvas.disc((x0 + x1) / 2, y - 4 * scale, 2.2 * scale, green)
    near, far = 1.6, 400.0
    tone = rng.uniform(60, 120) * light
    pave = _colour(np.array([1.35, 1.35, 1.35]) * tone)
    for kerb, outer in ((street.left, street.left - 3.0), (street.right, street.right + 3.0)):
        canvas.polygon(
            [street.at(kerb, 0, near), street.at(kerb, 0, far), street.at(outer, 0, far), street.at(outer, 0, near)],
            pave,
        )
    asphalt = _colour(np.array([1.0, 0.98, 0.96]) * tone)
    canvas.polygon(
        [
            street.at(r, 0, a)
            for r, a in ((street.left, near), (street.left, far), (street.right, far), (street.right, near))
        ],
        asphalt,
    )
    cross = [street.at(0, 0, street.junction)[1], street.at(0, 0, street.junction + 9)[1]]
    canvas.rectangle(0, cross[1], width, cross[0], asphalt)
    return image


def _markings(canvas: _Canvas, rng: np.random.Generator, street: _Street) -> None:
    white = _colour(np.full(3, rng.uniform(150, 240)))
    centre = (street.left + street.right) / 2
    for ahead in np.arange(4.0, street.junction - 4, 8.0):
        corners = (
            (centre - 0.08, ahead),
            (centre - 0.08, ahead + 3),
            (centre + 0.08, ahead + 3),
            (centre + 0.08, ahead),
        )
        canvas.polygon([street.at(right, 0, far) for right, far in corners], white)
    for right in np.arange(street.left + 0.4, street.right - 0.4, 1.0):  # the zebra crossing before the junction
        corners = (
            (right, street.junction - 4),
            (right, street.junction - 0.5),
            (right + 0.5, street.junction - 0.5),
            (right + 0.5, street.junction - 4),
        )
        canvas.polygon([street.at(r, 0, far) for r, far in corners], white)


@dataclass(frozen=True)
class _Pole:
    right: float
    ahead: float
    carries: str


def _poles(canvas: _Canvas, rng: np.random.Generator, street: _Street) -> list[_Pole]:
    """Poles at the junction's corners and along the kerbs, farthest first; each carries a light, a sign, or a lamp
    only.
    """
    poles = []
    for kerb, side in ((street.left, -1), (street.right, 1)):
        for ahead in (street.junction - 1, street.junction + 10):
            if rng.random() < 0.7:
                poles.append(_Pole(kerb + side * rng.uniform(0.4, 1.2), ahead, "traffic light"))
        for ahead in rng.uniform(16, 110, rng.integers(1, 4)):
            carries = "sign" if rng.random() < 0.65 else ""
            poles.append(_Pole(kerb + side * rng.uniform(0.5, 1.5), float(ahead), carries))
    poles.sort(key=lambda pole: -pole.ahead)
    for pole in poles:
        x, y = street.at(pole.right, 0, pole.ahead)
        scale = street.scale(pole.ahead)
        top = {"traffic light": 3.4, "sign": 2.6}.get(pole.carries, 6.0)
        half = max(0.6, 0.07 * scale)
        canvas.rectangle(x - half, y - top * scale, x + half, y, _colour(np.full(3, rng.uniform(60, 150))))
    return poles


def _objects(canvas: _Canvas, rng: np.random.Generator, street: _Street, poles: list[_Pole]) -> list[SceneObject]:
    """Put objects where they belong, farthest first, unless one would overlap another or leave the picture."""
    wanted: list[tuple[float, str, float, float]] = []  # metres ahead, label, right, up
    for pole in poles:
        if pole.carries:
            wanted.append((pole.ahead, pole.carries, pole.right, 3.4 if pole.carries == "traffic light" else 2.1))
    centre = (street.left + street.right) / 2

    def near_or_far(low: float, high: float) -> float:
        return float(street.junction + rng.uniform(-6, 14) if rng.random() < 0.65 else rng.uniform(low, high))

    for _ in range(rng.integers(0, 5)):
        lane = rng.choice([(street.left + centre) / 2, (street.right + centre) / 2])
        wanted.append((near_or_far(12, 100), "car", float(lane + rng.uniform(-0.4, 0.4)), 0.0))
    for _ in range(rng.integers(0, 5)):
        ahead = near_or_far(9, 90)
        outside = rng.choice([street.left - rng.uniform(0.4, 2.4), street.right + rng.uniform(0.4, 2.4)])
        crossing = rng.random() < 0.35
        wanted.append(
            (
                street.junction - 2 if crossing else ahead,
                "person",
                float(rng.uniform(street.left, street.right) if crossing else outside),
                0.0,
            )
        )
    if rng.random() < 0.6:
        start, kerb = near_or_far(8, 70), rng.choice([street.left + 0.6, street.right - 0.6, centre])
        for step in range(rng.integers(1, 5)):
            wanted.append((start + 3.0 * step, "cone", float(kerb), 0.0))

    taken: list[tuple[float, float, float, float]] = []
    objects: list[SceneObject] = []
    for ahead, label, right, up in sorted(wanted, key=lambda each: -each[0]):
        scale = street.scale(ahead)
        tall, wide = _METRES[label]
        x, y = street.at(right, up, ahead)
        x0, y0, x1, y1 = x - wide * scale / 2, y - tall * scale, x + wide * scale / 2, y
        if min(tall, wide) * scale < MIN_SIDE_PX * 0.6 or tall * scale < MIN_SIDE_PX:
            continue
        if x0 < 1 or y0 < 1 or x1 > street.width - 2 or y1 > street.height - 2:
            continue
        if any(
            x0 - 2 < right_ and x1 + 2 > left_ and y0 - 2 < low and y1 + 2 > top for left_, top, right_, low in taken
        ):
            continue
        taken.append((x0, y0, x1, y1))
        canvas.current = len(objects) + 1
        text = _DRAW[label](canvas, rng, x, y, scale)
        objects.append(_measured(canvas, label, text, (x0, y0, x1, y1)))
        canvas.current = 0
    return objects


def _measured(canvas: _Canvas, label: str, text: str, around: tuple[float, float, float, float]) -> SceneObject:
    """The object just drawn, with the box and mask of the pixels that it really covers."""
    x0, y0 = max(0, int(around[0]) - 4), max(0, int(around[1]) - 4)
    patch = canvas.ids[y0 : int(around[3]) + 6, x0 : int(around[2]) + 6] == canvas.current
    rows, columns = np.flatnonzero(patch.any(axis=1)), np.flatnonzero(patch.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    box = Box(float(x0 + left), float(y0 + top), float(right - left), float(bottom - top))
    return SceneObject(label, box, patch[top:bottom, left:right].copy(), text)


def _draw_light(canvas: _Canvas, rng: np.random.Generator, x: float, y: float, scale: float) -> str:
    tall, wide = (side * scale for side in _METRES["traffic light"])
    canvas.rectangle(x - wide / 2, y - tall, x + wide / 2, y, (28, 28, 28))
    lit = rng.integers(3)
    for index, bright in enumerate(((40, 40, 240), (40, 190, 250), (90, 230, 60))):
        colour = bright if index == lit else _colour(np.array(bright) * 0.25)
        canvas.disc(x, y - tall * (5 - 2 * index) / 6, tall * 0.14, colour)
    return ""


def _draw_sign(canvas: _Canvas, rng: np.random.Generator, x: float, y: float, scale: float) -> str:
    radius = _METRES["sign"][0] * scale / 2
    text = str(rng.choice(NUMBERS))
    canvas.disc(x, y - radius, radius, (40, 40, 215))
    canvas.disc(x, y - radius, radius * 0.76, (245, 245, 245))
    canvas.text(text, x, y - radius, radius * 0.8, (20, 20, 20))
    return text


def _draw_cone(canvas: _Canvas, rng: np.random.Generator, x: float, y: float, scale: float) -> str:
    tall, wide = (side * scale for side in _METRES["cone"])
    orange = (20, int(rng.uniform(80, 125)), 245)
    canvas.polygon(
        [
            (x - wide * 0.08, y - tall),
            (x + wide * 0.08, y - tall),
            (x + wide * 0.36, y - tall * 0.1),
            (x - wide * 0.36, y - tall * 0.1),
        ],
        orange,
    )
    canvas.polygon(
        [
            (x - wide * 0.2, y - tall * 0.62),
            (x + wide * 0.2, y - tall * 0.62),
            (x + wide * 0.27, y - tall * 0.4),
            (x - wide * 0.27, y - tall * 0.4),
        ],
        (240, 240, 240),
    )
    canvas.rectangle(x - wide / 2, y - tall * 0.12, x + wide / 2, y, orange)
    return ""


def _draw_person(canvas: _Canvas, rng: np.random.Generator, x: float, y: float, scale: float) -> str:
    tall, wide = (side * scale for side in _METRES["person"])
    coat, legs = _colour(rng.uniform(20, 240, 3)), _colour(rng.uniform(20, 110, 3))
    skin = _colour(np.array([140, 175, 225]) * rng.uniform(0.45, 1.0))
    canvas.rectangle(x - wide * 0.3, y - tall * 0.5, x - wide * 0.03, y, legs)
    canvas.rectangle(x + wide * 0.03, y - tall * 0.5, x + wide * 0.3, y, legs)
    canvas.polygon(
        [
            (x - wide * 0.5, y - tall * 0.82),
            (x + wide * 0.5, y - tall * 0.82),
            (x + wide * 0.34, y - tall * 0.42),
            (x - wide * 0.34, y - tall * 0.42),
        ],
        coat,
    )
    canvas.disc(x, y - tall * 0.91, tall * 0.09, skin)
    return ""


def _draw_car(canvas: _Canvas, rng: np.random.Generator, x: float, y: float, scale: float) -> str:
    tall, wide = (side * scale for side in _METRES["car"])
    paint = _colour(rng.uniform(25, 235, 3))
    for side in (-1, 1):
        canvas.rectangle(
            x + side * wide * 0.38 - wide * 0.08, y - tall * 0.25, x + side * wide * 0.38 + wide * 0.08, y, (25, 25, 25)
        )
    canvas.polygon(
        [
            (x - wide * 0.36, y - tall),
            (x + wide * 0.36, y - tall),
            (x + wide * 0.46, y - tall * 0.55),
            (x - wide * 0.46, y - tall * 0.55),
        ],
        paint,
    )
    canvas.polygon(
        [
            (x - wide * 0.31, y - tall * 0.93),
            (x + wide * 0.31, y - tall * 0.93),
            (x + wide * 0.39, y - tall * 0.6),
            (x - wide * 0.39, y - tall * 0.6),
        ],
        (70, 55, 45),
    )
    canvas.rectangle(x - wide / 2, y - tall * 0.58, x + wide / 2, y - tall * 0.16, paint)
    for side in (-1, 1):
        canvas.rectangle(
            x + side * wide * 0.4 - wide * 0.07,
            y - tall * 0.5,
            x + side * wide * 0.4 + wide * 0.07,
            y - tall * 0.38,
            (40, 40, 220),
        )
    return ""


_DRAW: dict[str, Draw] = {
    "traffic light": _draw_light,
    "sign": _draw_sign,
    "cone": _draw_cone,
    "person": _draw_person,
    "car": _draw_car,
}
_METRES = {
    "traffic light": (1.1, 0.44),
    "sign": (0.9, 0.9),
    "cone": (0.75, 0.6),
    "person": (1.75, 0.62),
    "car": (1.5, 1.85),
}
"""Height and width."""


def _finish(image: Image, rng: np.random.Generator) -> Image:
    """A little blur, and the noise of a sensor."""
    if rng.random() < 0.25:
        image = np.asarray(cv2.GaussianBlur(image, (3, 3), rng.uniform(0.3, 0.8)), np.uint8)
    height, width = image.shape[:2]
    y, x = (int(value) for value in rng.integers(0, _NOISE_SPARE_PX, 2))
    noise = _noise(height + _NOISE_SPARE_PX, width + _NOISE_SPARE_PX)
    return np.asarray(cv2.add(image, noise[y : y + height, x : x + width]), np.uint8)


_NOISE_SPARE_PX = 64


@lru_cache(maxsize=4)
def _noise(height: int, width: int) -> Image:
    """Noise that scenes cut a random window from: drawing it anew would cost more than the scene."""
    return np.random.default_rng(0).integers(0, 14, (height, width, 3), np.uint8)


def _colour(values: npt.ArrayLike) -> Colour:
    blue, green, red = (int(v) for v in np.clip(np.asarray(values, np.float64), 0, 255))
    return blue, green, red
