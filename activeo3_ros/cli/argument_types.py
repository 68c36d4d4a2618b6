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

"""Types of arguments: each checks the text of an argument and says in one line what is wrong with it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """The type of a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {low} to {high}, got {value}")
        return value

    return parse


def number(low: float, high: float = math.inf) -> Callable[[str], float]:
    """The type of a number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None
        if not low <= value <= high or math.isinf(value):
            limit = f"{low:g} to {high:g}" if high < math.inf else f"a number from {low:g} on"
            raise argparse.ArgumentTypeError(f"must be {limit}, got {text}")
        return value

    return parse


def whole_numbers(low: int, high: int) -> Callable[[str], tuple[int, ...]]:
    """The type of whole numbers from `low` to `high`, separated by commas."""
    parse = whole_number(low, high)
    return lambda text: tuple(parse(part) for part in text.split(","))


def part(text: str) -> tuple[float, float]:
    """The type of LOW:HIGH, shares of a whole."""
    low, _, high = text.partition(":")
    try:
        shares = float(low), float(high)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be two shares such as 0:0.75, got {text!r}") from None
    if not 0 <= shares[0] < shares[1] <= 1:
        raise argparse.ArgumentTypeError(f"must rise within 0 to 1, such as 0:0.75, got {text!r}")
    return shares


def class_names(text: str) -> tuple[str, ...]:
    """The type of names separated by commas."""
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise argparse.ArgumentTypeError("must name at least one class, for example car,person")
    return found


def renamed_label(text: str) -> tuple[str, str]:
    """The type of LABEL=CATEGORY."""
    label, equals, category = text.partition("=")
    if not (label.strip() and equals and category.strip()):
        raise argparse.ArgumentTypeError(f"must be LABEL=CATEGORY, got {text!r}")
    return label.strip(), category.strip()


def numbered_class(text: str) -> tuple[int, str]:
    """The type of NUMBER=NAME."""
    number, equals, name = text.partition("=")
    if not (number.strip().isdecimal() and equals and name.strip()):
        raise argparse.ArgumentTypeError(f"must be NUMBER=NAME, such as 3=car, got {text!r}")
    return int(number), name.strip()
