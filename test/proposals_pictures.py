"""Pictures with small squares, and a detector of them: where to zoom can be learned from the pictures."""

from __future__ import annotations

import cv2
import numpy as np

from activeo3_ros.core import DetectedBoxes, InputSize

RED, BLUE = (40, 40, 220), (220, 60, 40)
SURE_PX = 10
"""Side from which the detector reports a square; it hints at smaller ones."""


class SquareDetector:
    """Finds red squares. Of those that are too small it only hints, and it hints at small blue ones too."""

    label, names, input_size, concurrent = "squares", ("square", "other"), InputSize(128, 128), False

    def detect(self, images, threshold):
        return [self._detect(np.asarray(image), threshold) for image in images]

    def _detect(self, image, threshold):
        pixels = image.astype(int)
        rows = []
        for colour in (RED, BLUE):
            near = (np.abs(pixels - colour).max(axis=2) < 90).astype(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(near)
            for x, y, width, height, area in stats[1:].tolist():
                is_sure = min(width, height) >= SURE_PX
                if area >= 2 and (colour == RED or not is_sure):
                    rows.append((x, y, width, height, 0.9 if is_sure else 0.15))
        kept = np.array([row for row in sorted(rows, key=lambda row: -row[4]) if row[4] > threshold], float)
        kept = kept.reshape(-1, 5)
        return DetectedBoxes(kept[:, :4], kept[:, 4].astype(np.float32), np.zeros(len(kept), np.intp))


def picture(seed, width=640, height=480):
    """A group of red squares and a larger one of blue ones, all too small for a view of the whole."""
    random = np.random.default_rng(seed)
    image = random.integers(100, 140, (height, width, 3), np.uint8)
    corners = [(x, y) for x in (20, width // 2 + 20) for y in (20, height // 2 + 20)]
    for colour, count, (left, top) in zip((RED, BLUE), (6, 12), random.permutation(corners), strict=False):
        for _ in range(count):
            x, y = left + int(random.integers(0, 140)), top + int(random.integers(0, 140))
            side = int(random.integers(10, 16))
            image[y : y + side, x : x + side] = colour
    return image
