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

"""Labels in the form of YOLO: a `.yaml` with the names of the classes, and a text file for each picture.

The file of `images/…/a.jpg` is `labels/…/a.txt`, a line an object: class number, then centre, width and height of its
box, or the corners of its outline, as shares of the picture. A picture without a file has no objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from ..codecs.image_files import find_images, natural_order
from ..core.errors import InvalidInput
from ..core.geometry import Boxes

SUFFIXES = (".yaml", ".yml")


def read_names(path: Path) -> dict[int, str]:
    """The classes of a data set by number.

    Raises:
        InvalidInput: The file is none of a data set.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path}: not a readable YAML file: {str(error).splitlines()[0]}") from error
    names = values.get("names") if isinstance(values, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(isinstance(number, int) for number in names):
        raise InvalidInput(f"{path}: has no 'names' of classes by number, as the .yaml of a YOLO data set has")
    return {number: str(name) for number, name in names.items()}


def pictures_with_labels(images: Path) -> list[tuple[Path, Path]]:
    """Each picture of a directory with the file of its labels, in the order of their names.

    Raises:
        InvalidInput: There are no pictures, or no directory `labels` in the place of `images`.
    """
    parts = images.absolute().parts
    if "images" not in parts:
        raise InvalidInput(f"{images}: YOLO keeps labels in a directory 'labels' in the place of 'images': none in it")
    place = len(parts) - 1 - parts[::-1].index("images")
    labels = Path(*parts[:place], "labels", *parts[place + 1 :])
    if not labels.is_dir():
        raise InvalidInput(f"{labels}: is no directory; there the labels of {images} have to be")
    found, errors = find_images([str(images)])
    if errors:
        raise InvalidInput(errors[0])
    return [(path, labels / f"{path.stem}.txt") for path in sorted(found, key=natural_order)]


def read_labels(path: Path, classes: Iterable[int], size: tuple[int, int]) -> tuple[Boxes, npt.NDArray[np.intp]]:
    """The labels of a picture.

    Args:
        path: The file; none has no objects.
        classes: Numbers that may occur.
        size: Width and height of the picture, pixels.

    Returns:
        `(n, 4)` boxes in pixels and their `(n,)` class numbers.

    Raises:
        InvalidInput: A line is none of the form; the message says which.
    """
    boxes, numbers, known = [], [], set(classes)
    for row, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [], start=1):
        if not line.strip():
            continue
        try:
            kind, *values = (float(word) for word in line.split())
        except ValueError:
            raise InvalidInput(f"{path}:{row}: is no line of numbers: {line.strip()[:40]!r}") from None
        shares = np.array(values)
        if kind not in known or not np.isfinite(shares).all():
            raise InvalidInput(f"{path}:{row}: class {kind:g} is none of the .yaml, or a number is not finite")
        if len(values) == 4:
            low, high = shares[:2] - shares[2:] / 2, shares[:2] + shares[2:] / 2
        elif len(values) >= 6 and len(values) % 2 == 0:
            outline = shares.reshape(-1, 2)
            low, high = outline.min(axis=0), outline.max(axis=0)
        else:
            raise InvalidInput(f"{path}:{row}: has {len(values)} numbers after the class; 4, or 6 and more in pairs")
        if low.min() < -0.01 or high.max() > 1.01:  # exports round
            raise InvalidInput(f"{path}:{row}: reaches outside of the picture; the numbers have to be shares of it")
        low, high = low.clip(0, 1) * size, high.clip(0, 1) * size
        boxes.append([*low, *(high - low)])
        numbers.append(int(kind))
    return np.array(boxes, np.float64).reshape(-1, 4), np.array(numbers, np.intp)
