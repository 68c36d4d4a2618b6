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

"""The bytes and texts of the tokens of a model's vocabulary."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any


class TokenBytes:
    """The bytes that each token stands for; none for special tokens.

    Byte-level BPE tokens may end inside a character, so they are no texts of their own.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = set(tokenizer.all_special_ids)
        # Added to the vocabulary as a whole. Some are text that an answer consists of: Qwen3's <think> is one token.
        self._known = {
            token: b"" if added.special else added.content.encode()
            for token, added in tokenizer.added_tokens_decoder.items()
        }

    def __getitem__(self, token: int) -> bytes:
        if token not in self._known:
            self._known[token] = self._bytes(token)
        return self._known[token]

    def _bytes(self, token: int) -> bytes:
        if token in self._special:
            return b""
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if piece is None:
            return b""  # an id beyond the vocabulary, which the model's padded output layer can produce
        return bytes(_BYTE_OF[character] for character in piece)

    def texts(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token.

        Args:
            tokens: Ids of an answer, in their order.

        Returns:
            A text for each; a character that several tokens make up belongs to the last of them.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        texts = [decoder.decode(self[token]) for token in tokens]
        if texts:
            texts[-1] += decoder.decode(b"", final=True)  # of a character that was never finished
        return texts


def _byte_level_alphabet() -> dict[str, int]:
    """The character by which byte-level BPE (GPT-2's) writes each byte, and that byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + rank): byte for rank, byte in enumerate(others)}}


_BYTE_OF = _byte_level_alphabet()
