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

"""Notes for the user on a model's reply: repairs, cut-offs, answers that cannot be used."""

from __future__ import annotations

from .engine import Reply
from .parsing import Answer


def reply_notes(reply: Reply, answer: Answer, usable: bool) -> tuple[str, ...]:
    """The notes on one reply: its repairs, whether it was cut off, whether it is no answer."""
    notes = list(answer.repairs)
    if not reply.finished:
        count = len(reply.tokens)  # one for all where the engine counts none
        tokens = f" after {count} tokens" if count > 1 else ""
        whole = f"the answer is whole and reached its limit of {count} tokens"
        notes.append(whole if answer.valid_json else f"the answer was cut off{tokens}")
    if answer.points:
        notes.append(f"{len(answer.points)} points were left out: boxes were asked for")
    if not usable:
        notes.append(f"the answer could not be used: {excerpt(reply.text)}")
    return tuple(notes)


def excerpt(text: str, length: int = 60) -> str:
    """The beginning of a text, on one line, for a message."""
    line = " ".join(text.split())
    return repr(line if len(line) <= length else line[:length] + "…")
