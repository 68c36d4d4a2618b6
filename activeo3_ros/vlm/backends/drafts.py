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

"""Drafts the next tokens of an answer, so that a model checks many at once instead of writing one after the other.

Most of an answer follows from its grammar and not from the model: brackets, keys, the label of the box before. An
engine that decodes speculatively hands such a draft to the model together with the last token; the model accepts the
beginning that it would have written itself. Up to rounding the answer is the same: where two tokens are almost equally
likely, a step of several tokens may round otherwise than a step of one, and the answers then differ from there on (see
test/gpu/test_vllm.py). Most digits and a new label are still written one by one.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..answer_grammar import BOX, GRAMMARS, POINT

ITEMS = {"bbox": BOX, "point": POINT}
CONTEXT_TOKENS = 96
"""The last tokens that a draft depends on: two boxes and more."""
_ASSISTANT = "<|im_start|>assistant\n"
_NUMBERS = re.compile(r'"(bbox|point)_2d": \[([\d, ]*)$')
_AFTER_NUMBERS = re.compile(r'"(bbox|point)_2d": \[[\d, ]+(\][^\[\]]*\]?[^\[\]]*)$')
_LABELS = re.compile(r'"label": "([^"]*)"')
_OPENED = re.compile(r'(?:^|\n)(\[(?:\{(?:"[a-z_0-9]*"?:? ?)?)?)$')


def likely_continuation(text: str) -> str:
    """The most likely continuation of an answer by its grammar.

    Args:
        text: The answer so far, or the end of it, forced beginning included.

    Returns:
        "" where only the model knows.
    """
    numbers = _NUMBERS.search(text)
    if numbers:
        kind, written = numbers.groups()
        if not written or written.endswith(" "):
            return ""  # digits
        if written.endswith(","):
            return " "
        known = written.split(", ")
        if len(known) == ITEMS[kind].count("#"):
            return _after_numbers("", kind, text)
        # The right and the lower end of a small box often begin as the left and the upper one do.
        return f", {known[-2]}" if len(known) > 1 else ", "
    after = _AFTER_NUMBERS.search(text)
    if after:
        return _after_numbers(after[2], after[1], text)
    opened = _OPENED.search(text)
    return _rest(opened[1], f"[{BOX.partition('#')[0]}") if opened else ""


def _after_numbers(written: str, kind: str, text: str) -> str:
    """The text after the numbers of a box, up to those of the next one. written: the part that is there already."""
    labels = _LABELS.findall(text)
    closed = written.count('"') == 4
    following, _, rest = ITEMS[kind].partition("#")
    start, _, end = rest.rpartition("#")[2].partition("@")
    if not written.startswith(start):
        return _rest(written, f"{start}{labels[-1]}{end}, {following}" if labels else start)
    label = written[len(start) :].split('"')[0]
    if closed:
        item = f"{start}{label}{end}"
        return _rest(written, f"{item}, {following}") or _rest(written, f"{item}]\n{_end(text)}")
    likely = next((known for known in reversed(labels) if known.startswith(label)), None)
    return "" if likely is None else _rest(written, f"{start}{likely}{end}, {following}")


def _rest(written: str, whole: str) -> str:
    return whole[len(written) :] if whole.startswith(written) else ""


def _end(text: str) -> str:
    return GRAMMARS["regions" if GRAMMARS["regions"].start in text else "boxes"].end


class Tokenizer(Protocol):
    """The part of a tokenizer that drafts need."""

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any: ...

    def decode(self, token_ids: Any) -> Any: ...


class AnswerDrafts:
    """Drafts of a fixed number of tokens for the answers of one model."""

    def __init__(self, tokenizer: Tokenizer, count: int) -> None:
        """count: tokens of each draft. A shorter one is filled up with tokens that the model rejects."""
        self._tokenizer, self._count = tokenizer, count
        self._texts = _Texts(tokenizer)
        self._encoded = functools.lru_cache(4096)(self._encode)
        self._filling = self._encode(",")[-1]

    def draft(self, tokens: npt.NDArray[np.integer[Any]] | Sequence[int]) -> list[int]:
        """A draft.

        Args:
            tokens: Ids of the conversation so far, its answer last.

        Returns:
            `count` token ids that may follow.
        """
        text = "".join(map(self._texts.__getitem__, np.asarray(tokens[-CONTEXT_TOKENS:]).tolist()))
        text = text.rpartition(_ASSISTANT)[2]
        likely = self._encoded(likely_continuation(text))[: self._count]
        return [*likely, *[self._filling] * (self._count - len(likely))]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids if text else []
        return ids


class _Texts(dict[int, str]):
    """The text of each token, decoded once: a step needs some thousand."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, token: int) -> str:
        text = self[token] = str(self._tokenizer.decode([token]))
        return text
