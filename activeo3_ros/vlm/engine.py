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

"""The interface of all engines: requests of an image and a prompt in, text with its probabilities out.

An engine runs one vision-language model. It knows nothing of regions, tasks or ROS; `policies.mllm` and `vlm.task`
write prompts and interpret answers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..core.errors import InvalidInput
from ..core.frame import Image, check_image
from .families import Family

logger = logging.getLogger(__name__)

OnText = Callable[[str], None]


@dataclass(frozen=True)
class Prompt:
    """The words around one image, and the beginning and end of the answer.

    Attributes:
        after: The user's message after the image.
        before: The user's message before the image. Text that is the same for every frame belongs here, where an
            engine can keep its cache.
        system: The system's message.
        prefix: The forced beginning of the answer.
        stop: Texts of which the first one that the model writes ends the answer; it is part of the answer.
        regex: The answer grammar of all that may follow the prefix (see `vlm.answer_grammar`), for engines that can
            hold a model to it; "" for none.
        thinks: Whether the answer is to begin with thoughts.
    """

    after: str
    before: str = ""
    system: str = "You are a helpful assistant."
    prefix: str = ""
    stop: tuple[str, ...] = ()
    regex: str = ""
    thinks: bool = False


@dataclass(frozen=True)
class Turn:
    """An earlier answer of the model in a conversation, and the user's message that followed it.

    Attributes:
        answer: The text of the answer.
        before: The message before its picture.
        image: `(h, w, 3)` uint8 BGR, or None for a message in words alone.
        after: The message after its picture.
    """

    answer: str
    before: str = ""
    image: Image | None = None
    after: str = ""


@dataclass(frozen=True)
class Request:
    """One image and the prompt for it, and perhaps the turns of a conversation that has begun with them.

    Attributes:
        image: `(h, w, 3)` uint8 BGR.
        prompt: The words around it.
        max_new_tokens: Limit of the answer, at least 1.
        on_text: Called with all of the text so far, prefix included, after each step that writes some of it, by any
            thread, and from the beginning again where the request is asked again. It returns at once. Engines that get
            answers as a whole do not call it.
        turns: Earlier answers to this prompt, in their order. The engine `vllm` takes none.

    Raises:
        InvalidInput: An image is another array or empty, or the limit is below 1.
    """

    image: Image
    prompt: Prompt
    max_new_tokens: int = 512
    on_text: OnText | None = field(default=None, compare=False)
    turns: tuple[Turn, ...] = ()

    @property
    def images(self) -> list[Image]:
        """All images of the conversation, in their order."""
        return [self.image, *(turn.image for turn in self.turns if turn.image is not None)]

    def __post_init__(self) -> None:
        for image in self.images:
            check_image(image, "an engine needs a")
            if 0 in image.shape:
                raise InvalidInput(f"an engine needs at least one pixel, got {image.shape[1]} x {image.shape[0]}")
        if self.max_new_tokens < 1:
            raise InvalidInput(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")


@dataclass(frozen=True)
class Token:
    """One token that the model wrote.

    Attributes:
        text: The texts of all tokens, joined, are the text that the model wrote; a character that several tokens make
            up belongs to the last of them.
        probability: Of the model, 0 to 1; NaN where the engine does not report it.
        id: -1 where the engine does not report it.
    """

    text: str
    probability: float = math.nan
    id: int = -1


@dataclass(frozen=True)
class Reply:
    """The answer to one request.

    Attributes:
        text: The prefix and all that was written.
        tokens: The tokens that were written.
        input_size: Width and height at which the model saw the first image, in pixels.
        prompt_tokens: Of the request, its image included.
        finished: False where the limit of tokens cut the answer off.
        notes: For the user, such as a smaller image for want of memory.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    input_size: tuple[int, int] = (0, 0)
    prompt_tokens: int = 0
    finished: bool = True
    notes: tuple[str, ...] = field(default=())

    def probability(self, spans: Iterable[tuple[int, int]]) -> float:
        """Mean probability of the tokens that wrote parts of `text`.

        This is the model's own confidence, no calibrated chance that a box is right.

        Args:
            spans: Start and end of each part.

        Returns:
            0 to 1; NaN where there are no such tokens.
        """
        wanted = sorted(spans)
        position = len(self.text) - sum(len(token.text) for token in self.tokens)
        found: list[float] = []
        for token in self.tokens:
            end = position + len(token.text)
            if any(start < max(end, position + 1) and position < stop for start, stop in wanted):
                found.append(token.probability)
            position = end
        return sum(found) / len(found) if found else math.nan


def tell(request: Request, written: str) -> None:
    """Call `on_text` of a request. It is a courtesy: what it raises is logged, and harms no answer.

    Args:
        request: Under way.
        written: All that was written so far, without the prefix.
    """
    if request.on_text is None:
        return
    try:
        request.on_text(request.prompt.prefix + written)
    except Exception:
        logger.warning("an answer in progress could not be read", exc_info=True)


def aligned(tokens: Sequence[Token], text: str) -> tuple[Token, ...]:
    """Fit tokens to the text of an answer.

    vLLM leaves the token that ends an answer, and characters after a stop text within a token, out of its text, but not
    out of its tokens.

    Args:
        tokens: As an engine lists them.
        text: As the engine returns it.

    Returns:
        As many tokens, whose texts make up `text`; of unknown probability where the two do not fit together.
    """
    fitting: list[Token] = []
    rest = text
    for token in tokens:
        if rest.startswith(token.text):
            piece = token.text
        elif token.text.startswith(rest) or token.text.startswith("<|"):
            piece = rest if token.text.startswith(rest) else ""
        else:
            break
        fitting.append(Token(piece, token.probability, token.id))
        rest = rest[len(piece) :]
    if not rest and len(fitting) == len(tokens):
        return tuple(fitting)
    return tuple(Token("" if index else text, id=token.id) for index, token in enumerate(tokens))


class Engine(Protocol):
    """One loaded model. `generate` may be called from several threads."""

    family: Family
    """How the model sees images and writes coordinates."""

    @property
    def device(self) -> object:
        """Where the model computes: a device whose `str` is torch's name for it, or "remote"."""

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer requests together, decoding greedily.

        Args:
            requests: Any number, of images of any size.

        Returns:
            One reply for each request, in their order.

        Raises:
            OutOfMemory: The requests do not fit together.
            EngineError: The model cannot answer.
        """

    def describe(self) -> str:
        """The model, how and where it runs, in one line for people."""

    def close(self) -> None:
        """Free the device. The engine cannot be used afterwards."""
