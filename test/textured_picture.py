"""A picture with corners everywhere, for tests of what follows them."""

import cv2
import numpy as np


def picture(seed=0, width=1000, height=600):
    """A picture with corners everywhere."""
    random = np.random.default_rng(seed)
    image = np.full((height, width, 3), 90, np.uint8)
    for x, y, w, h, grey in random.integers((0, 0, 20, 20, 0), (width, height, 90, 90, 255), (250, 5)).tolist():
        cv2.rectangle(image, (x, y), (x + w, y + h), (grey, 255 - grey, grey // 2), -1)
    return cv2.GaussianBlur(image, (9, 9), 0)
