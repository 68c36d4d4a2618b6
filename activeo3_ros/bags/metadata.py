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

"""The `metadata.yaml` of a bag: the files, and the topics with their types and numbers of messages."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ..core import InvalidInput
from .compression import FORMAT

NAME = "metadata.yaml"


@dataclass(frozen=True)
class Metadata:
    """The part of a `metadata.yaml` that reading needs.

    Attributes:
        files: Names of the files, in their order; none if it does not say.
        types: Type of each topic.
        counts: Number of messages of each topic; None if it does not say.
        problem: Its fault in words, or "".
    """

    files: list[str] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] | None = None
    problem: str = ""

    def expected(self, topics: Collection[str]) -> dict[str, int] | None:
        """The number of messages of some topics; None if it does not say."""
        return None if self.counts is None else {topic: self.counts.get(topic, 0) for topic in topics}


def read_metadata(directory: Path) -> Metadata:
    """The metadata of a bag's directory, as far as they can be read.

    Raises:
        InvalidInput: The bag is compressed in a way that is not supported.
    """
    path = directory / NAME
    if not path.is_file():
        return Metadata(problem=f"{NAME} is missing")
    try:
        information = yaml.safe_load(path.read_text(encoding="utf-8"))["rosbag2_bagfile_information"]
        compression = str(information.get("compression_format") or FORMAT)
        files = [Path(str(name)).name for name in information.get("relative_file_paths") or []]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return Metadata(problem=f"{NAME} cannot be read")
    if compression != FORMAT:
        raise InvalidInput(
            f"{directory}: is compressed as {compression!r}, only {FORMAT!r} is read; write it anew with: "
            "ros2 bag convert"
        )
    try:
        rows = [(row["topic_metadata"], row["message_count"]) for row in information["topics_with_message_count"]]
        types = {str(topic["name"]): str(topic["type"]) for topic, _ in rows}
        counts = {str(topic["name"]): int(count) for topic, count in rows}
    except (KeyError, TypeError, ValueError):
        return Metadata(files, problem=f"{NAME} is not as ROS 2 writes it")
    return Metadata(files, types, counts)
