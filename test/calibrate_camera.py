"""Writes `real_camera.json`: a real distorted camera, from pictures of a chessboard.

    python test/calibrate_camera.py DIR

DIR is `camera_cal` of https://github.com/udacity/CarND-Advanced-Lane-Lines (MIT licence, Copyright 2016-2018 Udacity,
Inc.). The boards that tests use take no part in the calibration.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np

ROWS, COLUMNS = 6, 9
HELD_OUT = ("calibration3", "calibration8", "calibration13", "calibration18")
TARGET = Path(__file__).parent / "real_camera.json"


def corners_of(path: Path) -> tuple[np.ndarray, tuple[int, int]] | None:
    """`(54, 2)` corners in OpenCV's pixel centres, and the size of the picture; None where not all are found."""
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    found, corners = cv2.findChessboardCorners(grey, (COLUMNS, ROWS))
    if not found:
        return None
    until = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 50, 1e-3)
    return cv2.cornerSubPix(grey, corners, (5, 5), (-1, -1), until).reshape(-1, 2), grey.shape[::-1]


def main() -> None:
    board = np.mgrid[:COLUMNS, :ROWS].T.reshape(-1, 2)
    points = np.concatenate([board, np.zeros((len(board), 1))], axis=1).astype(np.float32)
    boards = {}
    for path in sorted(Path(sys.argv[1]).glob("calibration*.jpg")):
        found = corners_of(path)
        if found is not None and found[1] == (1280, 720):  # two pictures have another size
            boards[path.stem] = found[0]
    used = [corners for name, corners in boards.items() if name not in HELD_OUT]
    error, matrix, distortion, *_ = cv2.calibrateCamera([points] * len(used), used, (1280, 720), None, None)
    values = {
        "source": "https://github.com/udacity/CarND-Advanced-Lane-Lines, camera_cal (MIT), by test/calibrate_camera.py",
        "size": [1280, 720],
        "k": np.round(matrix.ravel(), 4).tolist(),
        "d": np.round(distortion.ravel(), 7).tolist(),
        "calibrated_with": len(used),
        "rms_px": round(error, 3),
        "boards": {name: np.round(boards[name], 2).tolist() for name in HELD_OUT if name in boards},
    }
    TARGET.write_text(json.dumps(values) + "\n", encoding="utf-8")
    print({key: value for key, value in values.items() if key != "boards"}, list(values["boards"]))


if __name__ == "__main__":
    main()
