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

"""The errors of the package. Every message says what was wrong, with which value, and what to do."""

from __future__ import annotations

import re


class PerceptionError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidInput(PerceptionError, ValueError):
    """A caller gave a value outside its documented range: an image, a box, a setting."""


class UnsupportedQuery(PerceptionError):
    """The models of this preset cannot serve the query; the message lists the queries that they can serve."""


class Cancelled(PerceptionError):
    """The caller's observer asked the loop to stop; nothing was published."""


class ComponentError(PerceptionError):
    """A policy, task model, detector or segmenter raised, or gave something else than its interface says."""


class EngineError(PerceptionError):
    """An engine cannot be started, or failed while it answered; the message says what to do."""


class OutOfMemory(EngineError):
    """The requests do not fit into the memory of the device together; fewer of them, or smaller images, may."""


def without_numbers(message: str) -> str:
    """The kind of a fault: messages that differ in their numbers only are of one, and told once."""
    return re.sub(r"\d+(\.\d+)?", "", message)
