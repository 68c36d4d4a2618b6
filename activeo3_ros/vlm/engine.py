"""What every engine offers: requests of an image and a prompt in, text with its probabilities out.

An engine runs one vision-language model. It knows nothing of regions, tasks or ROS; what a prompt asks for and what its
answer means is up to `policies.mllm` and `vlm.task`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..core.errors import InvalidInput
from ..core.frame import Image, check_image
from .families import Family


@dataclass(frozen=True)
class Prompt:
    """The words around one image, and how the answer begins and ends.

    system, before, after: the system's message, and the user's before and after the image. What stays the same from
    frame to frame belongs before it, where an engine can keep its cache. prefix: what the answer is made to begin with.
    stop: texts of which the first one that the model writes ends the answer; it is part of the answer.
    regex: of all that may follow the prefix (see `vlm.answer_grammar`), for engines that can hold a model to it; ""
    leaves the form of the answer to the model.
    """

    after: str
    before: str = ""
    system: str = "You are a helpful assistant."
    prefix: str = ""
    stop: tuple[str, ...] = ()
    regex: str = ""


@dataclass(frozen=True)
class Request:
    """One image, `(h, w, 3)` uint8 BGR, and what to say about it in at most `max_new_tokens` tokens.

    Raises InvalidInput for any other array, an empty one too, and for a limit below 1.
    """

    image: Image
    prompt: Prompt
    max_new_tokens: int = 512

    def __post_init__(self) -> None:
        check_image(self.image, "an engine needs a")
        if 0 in self.image.shape:
            raise InvalidInput(f"an engine needs at least one pixel, got {self.image.shape[1]} x {self.image.shape[0]}")
        if self.max_new_tokens < 1:
            raise InvalidInput(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")


@dataclass(frozen=True)
class Token:
    """One token that the model wrote. probability: of the model, 0 to 1; NaN where the engine cannot tell.

    The texts of the tokens, one after the other, are what the model wrote: a character that several tokens make up
    belongs to the last of them. id: -1 where the engine does not tell.
    """

    text: str
    probability: float = math.nan
    id: int = -1


@dataclass(frozen=True)
class Reply:
    """What the model answered.

    text: the prefix and all that was written. input_size: width and height at which the model saw the image, in pixels.
    prompt_tokens: of the request, its image included. finished: False where the limit of tokens cut the answer off.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    input_size: tuple[int, int] = (0, 0)
    prompt_tokens: int = 0
    finished: bool = True
    notes: tuple[str, ...] = field(default=())

    def probability(self, spans: Iterable[tuple[int, int]]) -> float:
        """Mean probability of the tokens that wrote the given parts of `text`; NaN where there are none.

        A mean of token probabilities is what the model itself gives, no calibrated chance that the box is right.
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


def aligned(tokens: Sequence[Token], text: str) -> tuple[Token, ...]:
    """The tokens with the parts of `text` that they wrote; of unknown probability where the two do not fit together.

    vLLM leaves the token that ends an answer, and what follows a stop text within a token, out of its text, but not out
    of its tokens.
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
        """Where the model computes, whose `str` is what torch calls it, or "remote"."""

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply for each request, in their order, greedily decoded; the requests are answered together.

        Raises OutOfMemory if they do not fit together, EngineError if the model cannot answer.
        """

    def describe(self) -> str:
        """The model, how and where it runs, in one line for people."""

    def close(self) -> None:
        """Free what the engine holds. It cannot be used afterwards."""
