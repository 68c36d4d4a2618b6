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

"""Calibration files: written by `activeo3 calibrate`, found and read when a detector is loaded.

The curves stand by side, a row each, as `core.calibration.Calibration` has them. `set_by_hand` holds values that stand
in place of measured ones. `about` and all intervals are for people.

    about: {material: …, date: …, versions: …}
    threshold: 0.3
    half_found_side_px: 20.4
    …
    scores: [0, 0.05, …]
    sides:
    - {side_px: 4, found: 0.02, jitter_px: 1.9, true_share: [0, 0.01, …], found_interval: [0, 0.08], tries: 126}
    set_by_hand: {half_found_side_px: 18}
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml

from ..assets.resources import config_directory
from ..core.calibration import DEFAULT, Calibration
from ..core.errors import InvalidInput
from ..settings import check_settings, named, settings_of, within

logger = logging.getLogger(__name__)

SUFFIX = ".calibration.yaml"
"""What the name of a preset's calibration has in place of `.yaml`; it lies beside the preset."""
DIGITS = 4
"""Significant digits in a file."""
SAME_THRESHOLD = 0.05
"""A calibration holds for thresholds no further from its own than this."""

Share = Annotated[float, within(0, 1)]
Pixels = Annotated[float, within(0, 10_000, "pixels")]


@dataclass(frozen=True)
class SideRow:
    """What is known at one apparent side.

    Attributes:
        side_px: The side, pixels of the detector's input.
        found: Probability that an object of that side is reported.
        jitter_px: Standard deviation of an edge of a box, pixels of the detector's input.
        true_share: Probability that a box of that side is an object, for each of `scores`.
        found_interval: 95 % interval of `found`, for people.
        jitter_interval: 95 % interval of `jitter_px`, for people.
        tries: Looks at objects of that side, for people.
    """

    side_px: Pixels
    found: Share
    jitter_px: Pixels
    true_share: list[float]
    found_interval: list[float] = field(default_factory=list)
    jitter_interval: list[float] = field(default_factory=list)
    tries: Annotated[int, within(0)] = 0


@dataclass(frozen=True)
class CalibrationFile:
    """The keys of a calibration file; those without a meaning here are fields of `core.calibration.Calibration`.

    Attributes:
        scores: Scores, rising.
        sides: The curves, a row for each apparent side, rising.
        about: Material, date, versions, command: for people.
        intervals: 95 % intervals of single values, for people.
        set_by_hand: Values that stand in place of measured ones.
    """

    scores: list[float]
    sides: list[dict[str, Any]]
    repeated_misses: Share
    threshold: Share = DEFAULT.threshold
    half_found_side_px: Pixels = DEFAULT.half_found_side_px
    logits_per_doubling: Annotated[float, within(0.01, 100)] = DEFAULT.logits_per_doubling
    probability_per_score: Annotated[float, within(0, 1000)] = DEFAULT.probability_per_score
    class_side_px: Pixels = DEFAULT.class_side_px
    legible_side_px: Pixels = DEFAULT.legible_side_px
    edge_tolerance_px: Pixels = DEFAULT.edge_tolerance_px
    same_object_iou: Share = DEFAULT.same_object_iou
    same_object_any_class_iou: Share = DEFAULT.same_object_any_class_iou
    about: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, Any] = field(default_factory=dict)
    set_by_hand: dict[str, Any] = field(default_factory=dict)


CURVES = ("sides_px", "found", "scores", "true_share", "jitter_px", "measured")
VALUES = tuple(value.name for value in fields(Calibration) if value.name not in CURVES)
"""Fields of a calibration that are one number."""


def calibration_beside(preset: Path) -> Path:
    """Where the calibration of a preset file lies."""
    return preset.with_name(preset.stem + SUFFIX)


def load_calibration(type_name: str, threshold: float, file: str = "") -> Calibration:
    """Find and read the calibration of a detector.

    Args:
        type_name: The detector's type in presets; the package may bring a calibration of it.
        threshold: Score from which the detector reports.
        file: A calibration file; "" for the package's.

    Returns:
        Its calibration, `DEFAULT` where there is none, which is logged once.

    Raises:
        InvalidInput: The file is missing or wrong.
    """
    path = Path(file).expanduser() if file else config_directory() / "calibration" / f"{type_name}.yaml"
    if not file and not path.is_file():
        _say_once(
            f"the detector {type_name!r} has no calibration: stated defaults are used; measure one with "
            "activeo3 calibrate, or name a file with the setting 'calibration'"
        )
        return DEFAULT
    calibration = read_calibration(path)
    if abs(threshold - calibration.threshold) > SAME_THRESHOLD:
        _say_once(
            f"{path}: was measured at a threshold of {calibration.threshold:g}, the detector reports from "
            f"{threshold:g} on: it finds fewer or more than that says; calibrate again at {threshold:g}"
        )
    return calibration


@cache
def _say_once(message: str) -> None:
    logger.warning("%s", message)


def read_calibration(path: Path) -> Calibration:
    """Read a calibration file.

    Raises:
        InvalidInput: It is missing or wrong; the message says the file, the key, the value and what is allowed.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise InvalidInput(f"{path}: not a readable calibration file: {reason}") from error
    with named(str(path)):
        return _parse(values)


def _parse(values: Any) -> Calibration:
    listed = values.get("sides") if isinstance(values, dict) else None
    for number, row in enumerate(listed if isinstance(listed, list) else (), start=1):
        _check(f"row {number} of sides", SideRow, row)
    _check("a calibration", CalibrationFile, values)
    rows: list[dict[str, Any]] = values["sides"]
    by_hand = values.get("set_by_hand", {})
    unknown = sorted(set(map(str, by_hand)) - set(VALUES))
    if unknown:
        raise InvalidInput(f"set_by_hand has no {unknown[0]!r}; it may hold {', '.join(VALUES)}")
    declared = settings_of(CalibrationFile)
    for name, value in by_hand.items():
        with named("set_by_hand"):
            declared[name].check(value)
    single: dict[str, Any] = {name: float(value) for name, value in {**values, **by_hand}.items() if name in VALUES}
    return Calibration(
        sides_px=tuple(float(row["side_px"]) for row in rows),
        found=tuple(float(row["found"]) for row in rows),
        scores=tuple(map(float, values["scores"])),
        true_share=tuple(tuple(map(float, row["true_share"])) for row in rows),
        jitter_px=tuple(float(row["jitter_px"]) for row in rows),
        measured=str(values.get("about", {}).get("material", "")),
        **single,
    )


def _check(owner: str, declared: type, values: Any) -> None:
    if not isinstance(values, dict):
        raise InvalidInput(f"{owner} must be a mapping of names to values, got {values!r}")
    check_settings(
        owner, declared, values, "unknown key {name!r} of {owner}; known are {known}", "{owner} needs {name!r}"
    )


def calibration_text(
    calibration: Calibration,
    about: Mapping[str, Any],
    intervals: Mapping[str, Sequence[float]],
    rows: Sequence[Mapping[str, Any]],
) -> str:
    """The text of a calibration file.

    Args:
        calibration: The values.
        about: Material, date, versions, command.
        intervals: 95 % intervals of single values.
        rows: For each side what is for people: `found_interval`, `jitter_interval`, `tries`.
    """
    curves = zip(
        calibration.sides_px, calibration.found, calibration.jitter_px, calibration.true_share, rows, strict=True
    )
    values = {
        "about": dict(about),
        **{name: getattr(calibration, name) for name in VALUES},
        "intervals": dict(intervals),
        "scores": list(calibration.scores),
        "sides": [
            {"side_px": side, "found": found, "jitter_px": jitter, "true_share": list(shares), **row}
            for side, found, jitter, shares, row in curves
        ],
    }
    head = (
        "# How far a detector can be believed, by the size at which it saw an object (pixels of its input).\n"
        "# Written by `activeo3 calibrate`; policies and the merging of views read it.\n"
    )
    return head + yaml.safe_dump(
        _rounded(values), sort_keys=False, default_flow_style=None, width=118, allow_unicode=True
    )


def _rounded(value: Any) -> Any:
    """The value with its numbers rounded; an interval that is not known becomes an empty list."""
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        known = [each for each in value if not (isinstance(each, float) and math.isnan(each))]
        return [_rounded(each) for each in known]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
