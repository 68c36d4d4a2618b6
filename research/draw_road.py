"""Draws a road with cars and the results of two presets on it: `full_frame` above, `embedded` below.

    python research/draw_road.py [--out FILE.jpg]

after `make setup`. The road is drawn, so nobody else has rights in the picture; regions, boxes and scores are those of
the presets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from activeo3_ros.codecs.image_files import write_image
from activeo3_ros.codecs.picture import draw
from activeo3_ros.core import Frame, Query
from activeo3_ros.presets import load_preset

Canvas = npt.NDArray[np.float32]
Colour = tuple[float, float, float]

WIDTH, HEIGHT = 1920, 1080
HORIZON = 460
VANISHING_X = 1000.0
ROAD = 1200.0
"""Half the width of the road at the lower edge of the picture, pixels."""
LANES = (-0.75, -0.25, 0.25, 0.75)
"""Middle of each lane, as a share of the road's half width."""
BODIES = ((40, 40, 190), (205, 205, 210), (62, 58, 52), (165, 95, 40), (228, 228, 230), (95, 140, 60), (125, 122, 120))
"""Colours of cars: blue, green, red."""
SMOOTH = 4
"""Each car is drawn this much larger and shrunk."""
OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "scene.jpg"
PANEL_WIDTH = 1100


def road(rng: np.random.Generator) -> Canvas:
    """An empty road under a grey sky, `(HEIGHT, WIDTH, 3)`."""
    rows = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None]
    picture = np.broadcast_to((225, 210, 190) + rows * np.array((40, 70, 95)), (HEIGHT, WIDTH, 3)).astype(np.float32)
    columns = np.arange(WIDTH)
    for height, base, colour in ((90, -5, (165, 160, 140)), (55, 18, (110, 135, 108)), (24, 36, (70, 108, 80))):
        profile = HORIZON + base - height * (0.5 + 0.5 * np.sin(columns / (4.5 * height) + height))
        behind = np.arange(HEIGHT)[:, None] > profile
        picture[behind] = (np.array(colour) + texture(rng, 8, 7)[..., None])[behind]
    depth = (np.arange(HORIZON, HEIGHT) - HORIZON + 1)[:, None] / (HEIGHT - HORIZON)
    across = (columns[None] - VANISHING_X) / (ROAD * depth)
    ground = (np.array((72, 132, 106)) + texture(rng, 6, 9)[..., None])[HORIZON:]
    asphalt = (np.array((100, 98, 97)) + texture(rng, 2, 4)[..., None])[HORIZON:]
    surface = np.where((np.abs(across) < 1)[..., None], asphalt, ground)
    dashes = (3 / depth) % 1 < 0.45
    for line in (-0.97, -0.5, 0.0, 0.5, 0.97):
        painted = (np.abs(across - line) < 0.01) & (dashes | (abs(line) > 0.9))
        surface[painted] = 235
    picture[HORIZON:] = surface
    return picture


def texture(rng: np.random.Generator, grain: int, strength: float) -> Canvas:
    """Smooth noise, `(HEIGHT, WIDTH)`; grain: size of its spots, pixels."""
    coarse = rng.standard_normal((HEIGHT // grain, WIDTH // grain)).astype(np.float32)
    return np.asarray(strength * cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), np.float32)


def car(body: Colour, width: int) -> Canvas:
    """A car from behind, `(0.8 width, width, 4)` blue, green, red, opacity 0 to 1."""
    size = np.array((width * SMOOTH, int(width * SMOOTH * 0.8)))
    sprite = np.zeros((size[1], size[0], 4), np.float32)

    def fill(colour: npt.ArrayLike, *points: tuple[float, float], opacity: float = 1.0) -> None:
        mask = np.zeros(sprite.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.round(np.array(points) * size).astype(np.int32)], 255, cv2.LINE_AA)
        share = (mask / 255 * opacity).astype(np.float32)[..., None]
        sprite[..., :3] += (np.array(colour, np.float32) - sprite[..., :3]) * share
        sprite[..., 3:] = np.maximum(sprite[..., 3:], share)

    def bar(colour: npt.ArrayLike, x: float, y: float, right: float, bottom: float, opacity: float = 1.0) -> None:
        fill(colour, (x, y), (right, y), (right, bottom), (x, bottom), opacity=opacity)

    paint = np.array(body, np.float32)
    dark, bright = paint * 0.55, np.clip(paint * 1.25 + 15, 0, 255)
    bar((25, 25, 28), 0.01, 0.93, 0.99, 0.99, opacity=0.75)
    for wheel in (0.07, 0.75):
        bar((22, 22, 24), wheel, 0.72, wheel + 0.18, 0.95)
    fill(
        paint,
        (0.03, 0.5),
        (0.08, 0.42),
        (0.92, 0.42),
        (0.97, 0.5),
        (0.98, 0.78),
        (0.94, 0.86),
        (0.06, 0.86),
        (0.02, 0.78),
    )
    fill(dark, (0.1, 0.44), (0.2, 0.12), (0.27, 0.07), (0.73, 0.07), (0.8, 0.12), (0.9, 0.44))
    fill(bright, (0.24, 0.1), (0.3, 0.06), (0.7, 0.06), (0.76, 0.1))
    fill((52, 46, 38), (0.235, 0.14), (0.765, 0.14), (0.85, 0.38), (0.15, 0.38))
    fill((150, 140, 130), (0.3, 0.15), (0.5, 0.15), (0.38, 0.37), (0.19, 0.37), opacity=0.18)
    for step in np.linspace(0, 1, 24, endpoint=False):
        bar(
            np.clip(paint * (1.15 - 0.55 * step), 0, 255),
            0.05,
            0.43 + 0.42 * step,
            0.95,
            0.45 + 0.42 * step,
            opacity=0.5,
        )
    bar(bright, 0.14, 0.435, 0.86, 0.455, opacity=0.8)
    for lamp in (0.05, 0.78):
        bar((35, 25, 190), lamp, 0.5, lamp + 0.17, 0.6)
        bar((80, 70, 255), lamp + 0.04, 0.52, lamp + 0.13, 0.56)
    bar((90, 215, 235), 0.36, 0.6, 0.64, 0.68)
    for letter in range(6):
        bar((30, 30, 30), 0.39 + 0.04 * letter, 0.62, 0.41 + 0.04 * letter, 0.66)
    bar(dark * 0.7, 0.07, 0.74, 0.93, 0.85)
    bar((30, 30, 30), 0.1, 0.8, 0.9, 0.84)
    return np.asarray(cv2.resize(sprite, (width, int(width * 0.8)), interpolation=cv2.INTER_AREA), np.float32)


def park(picture: Canvas, lane: float, depth: float, body: Colour) -> None:
    """Draw a car into a lane; depth: 0 at the horizon, 1 at the lower edge."""
    width = max(6, round(ROAD * 0.5 * depth * 0.46))
    sprite = car(body, width)
    haze = 0.5 * np.exp(-9 * depth)
    left = round(VANISHING_X + lane * ROAD * depth - width / 2)
    top = round(HORIZON + depth * (HEIGHT - HORIZON) - sprite.shape[0])
    patch = picture[top : top + sprite.shape[0], left : left + width]
    sprite = sprite[: patch.shape[0], : patch.shape[1]]
    colour = sprite[..., :3] * (1 - haze) + np.array((200, 200, 195), np.float32) * haze
    patch += (colour - patch) * sprite[..., 3:]


def scene(seed: int = 4) -> tuple[npt.NDArray[np.uint8], int]:
    """A road with cars from near to far, `(HEIGHT, WIDTH, 3)` BGR, and the number of cars."""
    rng = np.random.default_rng(seed)
    picture = road(rng)
    cars = []
    for lane in LANES:
        depth = rng.uniform(0.03, 0.04)
        while depth < 0.6:
            cars.append((depth, lane, BODIES[rng.integers(len(BODIES))]))
            depth *= rng.uniform(1.45, 2.4)
    for depth, lane, body in sorted(cars):
        park(picture, lane, depth, body)
    noisy = cv2.GaussianBlur(picture, (0, 0), 0.7) + rng.standard_normal(picture.shape) * 2.5
    return np.clip(noisy, 0, 255).astype(np.uint8), len(cars)


def main() -> None:
    """Write the results of two presets on the scene, one below the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUTPUT, metavar="FILE", help="(default: %(default)s)")
    args = parser.parse_args()
    image, cars = scene()
    panels = []
    for preset in ("full_frame", "embedded"):
        perception = load_preset(preset).build()
        query = Query(classes=("car",))
        perception.perceive(Frame(image), query)  # the first run is slow
        result = perception.perceive(Frame(image), query)
        print(f"{preset}: {len(result.detections)} of {cars} cars with {result.cost.views} views")
        size = PANEL_WIDTH, round(PANEL_WIDTH * HEIGHT / WIDTH)
        panels.append(
            draw(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), result)[160:520]
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_image(args.out, np.concatenate([panels[0], np.full((8, PANEL_WIDTH, 3), 255, np.uint8), panels[1]]))
    print(f"{args.out}: {args.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
