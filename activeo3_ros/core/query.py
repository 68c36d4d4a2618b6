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

"""The query: what the user wants to know about a frame."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InvalidInput

MAX_TEXT_LENGTH = 1000
MAX_CLASSES = 200
MAX_CLASS_LENGTH = 100


@dataclass(frozen=True)
class Query:
    """What the user wants to know.

    Attributes:
        text: A phrase or question ("the number on the police car"); "" when only classes are asked for.
        classes: Names to detect; empty together with an empty text asks for everything that the preset knows.
        masks: Whether each detection should come with an instance mask. The result's notes say how many have none.
        revision: Counts changes of the query, echoed in every result.

    Raises:
        InvalidInput: The text, a name or the list of names is too long.
    """

    text: str = ""
    classes: tuple[str, ...] = ()
    masks: bool = False
    revision: int = 0

    def __post_init__(self) -> None:
        if len(self.text) > MAX_TEXT_LENGTH:
            raise InvalidInput(f"a query may have {MAX_TEXT_LENGTH} characters, got {len(self.text)}; shorten it")
        if len(self.classes) > MAX_CLASSES:
            raise InvalidInput(f"a query may name {MAX_CLASSES} classes, got {len(self.classes)}")
        longest = max(map(len, self.classes), default=0)
        if longest > MAX_CLASS_LENGTH:
            raise InvalidInput(f"a class's name may have {MAX_CLASS_LENGTH} characters, got {longest}")
        object.__setattr__(self, "text", self.text.strip())
        object.__setattr__(self, "classes", tuple(name.strip() for name in self.classes if name.strip()))
