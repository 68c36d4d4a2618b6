"""How often the embedded preset reads right, wrong or nothing, on photographs with known text drawn into them.

    python benchmarks/reading.py --seeds reporting

The photographs are the two road pictures that `activeo3 prefetch demo` fetches, enlarged twice, the motorway's own
sign painted over. Drawn into them are signs, number plates on vehicles, displays and traffic lights with a countdown,
small, a little blurred, tilted and noisy; pages fill a picture of their own. Some scenes must not be answered: a
countdown or a sign where a number plate is asked for, one of several cars as "the taxi", and pictures without text.

An answer is right if it holds all letters and digits in the order of the truth and no others, else it is wrong. The
constants of the reader were chosen with the seeds `tuning`; docs/results/reading.md has the figures of `reporting`,
which was looked at once while the rules were written, and of `fresh`, which was run once, at the end.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from activeo3_ros.assets.packages import MOTORWAY_PICTURE, TERRAIN_PICTURE, require
from activeo3_ros.core import Frame, Query, Result, Status
from activeo3_ros.core.frame import Image
from activeo3_ros.detectors.vocabulary import TEXT
from activeo3_ros.presets import load_preset

SEEDS = {"tuning": 0, "reporting": 100_000, "fresh": 200_000}
SCENES = 64
ENLARGED = 2
MOTORWAY_SIGN = (22, 272, 90, 54)
VEHICLES = {
    "motorway": [(322, 322, 60, 38), (449, 310, 46, 30), (835, 310, 38, 34), (766, 260, 28, 24), (720, 242, 27, 30)],
    "terrain": [(230, 455, 208, 135), (503, 450, 105, 80), (635, 437, 75, 60), (725, 422, 68, 52), (790, 405, 45, 45)],
}
"""Boxes of vehicles large enough for a plate that can be read, pixels of the photographs."""
# Letters that no reader tells from digits or from each other in these fonts are left out: I, O, Q.
LETTERS, DIGITS = "ABCDEFGHJKLMNPRSTUVWXYZ", "0123456789"
WORDS = ["EXIT", "STOP", "TAXI", "SLOW", "SCHOOL", "BRIDGE", "MARKET", "AIRPORT", "NORTH", "STATION", "WORKS"]
FONTS = [cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_TRIPLEX]
SEGMENTS = ["abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg"]
"""Lit segments of the digits 0 to 9 of a seven-segment display."""
INK, PAPER = (20, 20, 20), (235, 235, 235)
Box = tuple[int, int, int, int]
Rng = np.random.Generator


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture, the query, and its only right answer, "" where none can be given."""

    kind: str
    image: Image
    query: str
    truth: str


def panel(lines: list[str], ink: tuple[int, ...], paper: tuple[int, ...], font: int) -> Image:
    """Lines of text on a panel, 40 px a letter."""
    sizes = [cv2.getTextSize(line, font, 1.8, 4)[0] for line in lines]
    width, step = max(size[0] for size in sizes) + 50, 75
    image = np.full((step * len(lines) + 25, width, 3), paper, np.uint8)
    for row, (line, size) in enumerate(zip(lines, sizes, strict=True)):
        place = (width - size[0]) // 2, step * row + 65
        cv2.putText(image, line, place, font, 1.8, ink, 4, cv2.LINE_AA)
    return image


def digits(number: str, colour: tuple[int, ...]) -> Image:
    """A dark display with a number in seven segments, 70 px a digit."""
    image = np.full((110, 25 + 60 * len(number), 3), (25, 22, 20), np.uint8)
    for index, digit in enumerate(number):
        x0, y0, w, h = 22 + 60 * index, 20, 34, 70
        ends = {
            "a": ((0, 0), (w, 0)),
            "b": ((w, 0), (w, h // 2)),
            "c": ((w, h // 2), (w, h)),
            "d": ((0, h), (w, h)),
            "e": ((0, h // 2), (0, h)),
            "f": ((0, 0), (0, h // 2)),
            "g": ((0, h // 2), (w, h // 2)),
        }
        for segment in SEGMENTS[int(digit)]:
            start, end = ends[segment]
            cv2.line(image, (x0 + start[0], y0 + start[1]), (x0 + end[0], y0 + end[1]), colour, 8, cv2.LINE_AA)
    return image


def traffic_light(number: str, lit: int) -> Image:
    """A traffic light with three lamps, the lit one beside the countdown that some have."""
    colours = [(40, 40, 235), (30, 190, 250), (150, 230, 60)]
    image = np.full((360, 130, 3), (28, 28, 28), np.uint8)
    for lamp, colour in enumerate(colours):
        shade = colour if lamp == lit else tuple(channel // 5 for channel in colour)
        cv2.circle(image, (65, 65 + 115 * lamp), 48, shade, -1, cv2.LINE_AA)
    countdown = cv2.resize(digits(number, colours[lit]), None, fx=0.9, fy=0.9, interpolation=cv2.INTER_AREA)
    beside = np.full((360, countdown.shape[1], 3), (28, 28, 28), np.uint8)
    top = 65 + 115 * lit - countdown.shape[0] // 2
    beside[top : top + countdown.shape[0]] = countdown
    return np.asarray(np.concatenate([image, beside], axis=1), np.uint8)


def paste(image: Image, patch: Image, x: float, y: float, height: float, rng: Rng) -> None:
    """Draw a patch at a height in pixels with its top left corner at x, y: tilted, shaded, blurred, noisy."""
    scale = height / patch.shape[0]
    turn = np.deg2rad(rng.uniform(-3, 3))
    linear = scale * np.array([[np.cos(turn), -np.sin(turn) + rng.uniform(-0.08, 0.08)], [np.sin(turn), np.cos(turn)]])
    matrix = np.concatenate([linear, [[x], [y]]], axis=1)
    size = image.shape[1::-1]
    small = cv2.GaussianBlur(patch, (0, 0), max(0.01, 0.45 / scale)).astype(np.float32) * rng.uniform(0.7, 1.0)
    drawn = cv2.warpAffine(small, matrix, size, flags=cv2.INTER_LINEAR)
    cover = cv2.warpAffine(np.ones(patch.shape[:2], np.float32), matrix, size)[..., None]
    noise = rng.normal(0, 4, image.shape).astype(np.float32)
    mixed = image * (1 - cover) + (drawn + noise) * cover
    image[:] = np.clip(mixed, 0, 255).astype(np.uint8)


def photographs() -> dict[str, Image]:
    """The two photographs, without text of their own, enlarged."""
    pictures = {}
    for name, asset in (("motorway", MOTORWAY_PICTURE), ("terrain", TERRAIN_PICTURE)):
        image = np.asarray(cv2.imread(str(require(asset))), np.uint8)
        if name == "motorway":
            x, y, width, height = MOTORWAY_SIGN
            image[y : y + height, x : x + width] = image[y + height + 8 : y + 2 * height + 8, x : x + width]
        pictures[name] = np.asarray(
            cv2.resize(image, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC), np.uint8
        )
    return pictures


class Drawer:
    """Draws the scenes of one seed."""

    def __init__(self, pictures: dict[str, Image], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.name = str(self.rng.choice(list(pictures)))
        self.image = pictures[self.name].copy()

    def plate_text(self) -> str:
        letters, numbers = self.rng.choice(list(LETTERS), 3), self.rng.choice(list(DIGITS), 3)
        return f"{''.join(letters)} {''.join(numbers)}"

    def number(self) -> str:
        return str(self.rng.integers(10, 100))

    def anywhere(self, patch: Image, low: float, high: float) -> None:
        """Draw a patch at a height between two, anywhere in the picture beside the vehicles."""
        height = float(np.exp(self.rng.uniform(np.log(low), np.log(high))))
        width = patch.shape[1] * height / patch.shape[0]
        for _ in range(50):
            x = self.rng.uniform(20, max(21, self.image.shape[1] - 1.1 * width - 20))
            y = self.rng.uniform(0.3 * self.image.shape[0], self.image.shape[0] - 1.2 * height - 20)
            if not self.hides_vehicle(x, y, 1.1 * width, 1.2 * height):
                break
        paste(self.image, patch, x, y, height, self.rng)

    def hides_vehicle(self, x: float, y: float, width: float, height: float) -> bool:
        """Whether a patch there would stand before a vehicle, whose text it then might be."""
        boxes = ENLARGED * np.array(VEHICLES[self.name])
        apart_x = (boxes[:, 0] > x + width) | (boxes[:, 0] + boxes[:, 2] < x)
        apart_y = (boxes[:, 1] > y + height) | (boxes[:, 1] + boxes[:, 3] < y)
        return not bool((apart_x | apart_y).all())

    def on_vehicle(self, box: Box, text: str) -> None:
        """Draw a number plate low on a vehicle."""
        x, y, width, height = (ENLARGED * side for side in box)
        patch = panel([text], INK, PAPER if self.rng.random() < 0.5 else (60, 200, 240), cv2.FONT_HERSHEY_DUPLEX)
        plate_width = self.rng.uniform(0.38, 0.55) * width
        plate_height = plate_width * patch.shape[0] / patch.shape[1]
        paste(self.image, patch, x + 0.25 * width, y + 0.72 * height - plate_height / 2, plate_height, self.rng)

    def sign_panel(self) -> tuple[Image, str]:
        lines = list(self.rng.choice(WORDS, self.rng.integers(1, 3), replace=False))
        if self.rng.random() < 0.5:
            lines[-1] = f"{lines[-1]} {self.number()}"
        ink, paper = [(PAPER, (150, 70, 20)), (INK, PAPER), (PAPER, (60, 110, 10))][self.rng.integers(3)]
        return panel(lines, ink, paper, int(self.rng.choice(FONTS))), " ".join(lines)

    def sign(self) -> tuple[str, str]:
        patch, text = self.sign_panel()
        self.anywhere(patch, 30 * (1 + text.count(" ")) / 2, 120)
        return str(self.rng.choice(["what does the sign say", "read the text"])), text

    def plate(self) -> tuple[str, str]:
        boxes = VEHICLES[self.name]
        text = self.plate_text()
        self.on_vehicle(boxes[self.rng.integers(min(3, len(boxes)))], text)
        return str(self.rng.choice(["read the license plate", "the number plate of the car"])), text

    def display(self) -> tuple[str, str]:
        text = "".join(self.rng.choice(list(DIGITS), self.rng.integers(2, 4)))
        self.anywhere(digits(text, (40, 120, 250)), 24, 110)
        return "read the display", text

    def countdown(self) -> tuple[str, str]:
        text = self.number()
        self.anywhere(traffic_light(text, int(self.rng.integers(3))), 90, 320)
        return "the number on the traffic light", text

    def page(self) -> tuple[str, str]:
        lines = [" ".join(self.rng.choice(WORDS, 2)) for _ in range(self.rng.integers(3, 6))]
        patch = panel(lines, INK, PAPER, int(self.rng.choice(FONTS)))
        self.image = np.full((1160, 2136, 3), 240, np.uint8)
        paste(self.image, patch, 250, 150, min(800, 1600 / patch.shape[1] * patch.shape[0]), self.rng)
        return "read the text", " ".join(lines)

    def countdown_for_a_plate(self) -> tuple[str, str]:
        self.countdown()
        return "read the license plate", ""

    def sign_for_a_plate(self) -> tuple[str, str]:
        self.sign()
        return "read the license plate", ""

    def which_car(self) -> tuple[str, str]:
        for box in VEHICLES[self.name][:3]:
            self.on_vehicle(box, self.plate_text())
        return "the number on the taxi", ""

    def no_text(self) -> tuple[str, str]:
        queries = ["read the text", "what does the sign say", "the number on the car", "read the license plate"]
        return str(self.rng.choice(queries)), ""


DRAWN: list[Callable[[Drawer], tuple[str, str]]] = [
    Drawer.sign,
    Drawer.plate,
    Drawer.display,
    Drawer.countdown,
    Drawer.sign,
    Drawer.plate,
    Drawer.display,
    Drawer.countdown,
    Drawer.page,
    Drawer.countdown_for_a_plate,
    Drawer.sign_for_a_plate,
    Drawer.which_car,
    Drawer.no_text,
]


def scene(pictures: dict[str, Image], seed: int) -> Scene:
    """The scene of a seed; the kinds take turns."""
    drawer, draw = Drawer(pictures, seed), DRAWN[seed % len(DRAWN)]
    query, truth = draw(drawer)
    return Scene(draw.__name__.replace("_", " "), drawer.image, query, truth)


def symbols(text: str) -> str:
    """The letters and digits of a text, upper case."""
    return "".join(character for character in text.upper() if character.isalnum())


def judged(result: Result, truth: str) -> tuple[str, str]:
    """Judge a result: "right", "wrong" or "silent", and what it claims to have read.

    Where there is nothing to answer, a text under a name that no detector found is a claim too.
    """
    found = [(g, result.detections[g.detection].label) for g in result.groundings if g.text]
    claims = [g.text for g, label in found if g.phrase not in (TEXT, label)]
    given = result.answer or ("" if truth else ", ".join(claims))
    if result.status is Status.FAILED or not given:
        return "silent", ""
    return ("right" if symbols(given) == symbols(truth) else "wrong"), given


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", choices=SEEDS, default="tuning")
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--list", action="store_true", help="print each scene's query, truth and answer")
    arguments = parser.parse_args()
    pictures, perception = photographs(), load_preset("embedded").build()
    counts: dict[str, Counter[str]] = {}
    milliseconds = []
    start = time.perf_counter()
    for index in range(arguments.scenes):
        each = scene(pictures, SEEDS[arguments.seeds] * len(DRAWN) + index)
        result = perception.perceive(Frame(each.image), Query(each.query))
        verdict, given = judged(result, each.truth)
        counts.setdefault(each.kind, Counter())[verdict] += 1
        milliseconds.append(result.timings_ms["total"])
        if arguments.list:
            print(f"{index:>3} {each.kind:<22} {verdict:<7} {each.query!r}: {each.truth!r} read as {given!r}")
            print(f"    {result.status_message}")
    print(f"{arguments.scenes} scenes, seeds {arguments.seeds}")
    print(f"{'scene':<22} {'scenes':>6} {'right':>6} {'wrong':>6} {'silent':>6}")
    to_answer = [kind for kind in counts if any(kind == draw.__name__ for draw in DRAWN[:9])]
    groups = {"all to be answered": to_answer, "all to be left": [kind for kind in counts if kind not in to_answer]}
    for kind, count in counts.items():
        print(row(kind, count))
    for name, kinds in groups.items():
        print(row(name, sum((counts[kind] for kind in kinds), Counter())))
    total: Counter[str] = sum(counts.values(), Counter())
    given = total["right"] + total["wrong"]
    print(f"wrong of the answers given: {total['wrong']} of {given}, {total['wrong'] / max(1, given):.1%}")
    print(f"median {np.median(milliseconds):.0f} ms a scene, {time.perf_counter() - start:.0f} s in all")


def row(name: str, count: Counter[str]) -> str:
    """A row of the table, in shares."""
    scenes = count.total()
    shares = " ".join(f"{count[verdict] / max(1, scenes):>6.2f}" for verdict in ("right", "wrong", "silent"))
    return f"{name:<22} {scenes:>6} {shares}"


if __name__ == "__main__":
    main()
