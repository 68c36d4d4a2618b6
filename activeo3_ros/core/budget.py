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

"""Budget and cost of one frame. Methods are compared at equal budgets."""

from __future__ import annotations

from dataclasses import dataclass, fields

from .errors import InvalidInput

MAX_REGIONS = 64
MAX_VIEW_PIXELS = 64_000_000


@dataclass(frozen=True)
class Budget:
    """The most that one frame may spend.

    Attributes:
        max_regions: Regions to zoom into, 0 to 64; 0 keeps to the view of the whole frame.
        view_pixels: Pixels of the view of the whole frame.
        crop_pixels: Pixels of each zoomed crop.
        max_tokens: Tokens that a language model may write for one view.
        deadline_ms: Milliseconds for the whole frame; 0 sets no deadline.

    Raises:
        InvalidInput: A value is outside its range in `LIMITS`.
    """

    max_regions: int = 3
    view_pixels: int = 512 * 512
    crop_pixels: int = 512 * 512
    max_tokens: int = 512
    deadline_ms: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            whole = name != "deadline_ms"
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise InvalidInput(f"{name} must be a {'whole ' if whole else ''}number, got {value!r}")
            if not low <= value <= high:
                raise InvalidInput(f"{name} must be {low} to {high}, got {value}")


LIMITS: dict[str, tuple[float, float]] = {
    "max_regions": (0, MAX_REGIONS),
    "view_pixels": (32 * 32, MAX_VIEW_PIXELS),
    "crop_pixels": (32 * 32, MAX_VIEW_PIXELS),
    "max_tokens": (1, 8192),
    "deadline_ms": (0.0, 600_000.0),
}
"""The range of every field of `Budget`, both ends included; parameters and configuration files check against it too."""


@dataclass(frozen=True)
class Cost:
    """The cost of one frame.

    Attributes:
        views: Views that a model was given.
        pixels: Their pixels.
        tokens: Tokens that language models wrote.
        calls: Calls of a model.
    """

    views: int = 0
    pixels: int = 0
    tokens: int = 0
    calls: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Cost)))
