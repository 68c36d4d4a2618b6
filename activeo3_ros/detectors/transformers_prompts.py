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

"""Writes names as the text inputs of the open-vocabulary detectors of transformers, once for all images.

A name that a model cannot read whole is refused: transformers would cut it short without a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..core.errors import UnsupportedQuery
from .transformers_outputs import RawBoxes, best_names, best_of_pairs, best_of_tokens

if TYPE_CHECKING:
    import torch

OMDET_TOKENS = 77
"""Length of the texts of OmDet-Turbo, as its processor has it."""


class Prompt(Protocol):
    """What a model is asked beside the image, and how it answers that."""

    def inputs(self, count: int) -> Mapping[str, torch.Tensor]:
        """The inputs of the model for a batch of `count` images."""

    def read(self, outputs: Any) -> RawBoxes:
        """The boxes in the outputs of the model."""


@dataclass(frozen=True)
class TokenPrompt:
    """Names in one text, whose tokens are scored (GroundingDINO).

    Attributes:
        text: "car. traffic light."
        names: Those in the text.
        tokens: `(names, most)` positions of the tokens of each name; a short name repeats one of its own.
        first_class: Class id of the first name.
        encoded: Inputs of the model, `(1, tokens)` each.
    """

    text: str
    names: Sequence[str]
    tokens: torch.Tensor
    first_class: int
    encoded: Mapping[str, torch.Tensor]

    def inputs(self, count: int) -> Mapping[str, torch.Tensor]:
        return {name: value.expand(count, -1) for name, value in self.encoded.items()}

    def read(self, outputs: Any) -> RawBoxes:
        return best_of_tokens(outputs, self.tokens, self.first_class)


@dataclass(frozen=True)
class NamesPrompt:
    """Each name in a text of its own (OWL-ViT, OWLv2).

    Attributes:
        encoded: Inputs of the model, `(names, tokens)` each.
    """

    encoded: Mapping[str, torch.Tensor]

    def inputs(self, count: int) -> Mapping[str, torch.Tensor]:
        return {name: value.repeat(count, 1) for name, value in self.encoded.items()}

    def read(self, outputs: Any) -> RawBoxes:
        return best_names(outputs)


@dataclass(frozen=True)
class TaskPrompt:
    """Each name in a text of its own, and a task that lists them (OmDet-Turbo).

    Attributes:
        classes: Inputs of the model, `(names, tokens)` each.
        task: Inputs of the model, `(1, tokens)` each.
        count: `(1,)` number of names.
    """

    classes: Mapping[str, torch.Tensor]
    task: Mapping[str, torch.Tensor]
    count: torch.Tensor

    def inputs(self, count: int) -> Mapping[str, torch.Tensor]:
        return {
            **{f"classes_{name}": value.repeat(count, 1) for name, value in self.classes.items()},
            **{f"tasks_{name}": value.expand(count, -1) for name, value in self.task.items()},
            "classes_structure": self.count.expand(count),
        }

    def read(self, outputs: Any) -> RawBoxes:
        return best_of_pairs(_Renamed(outputs.decoder_class_logits, outputs.decoder_coord_logits))


@dataclass(frozen=True)
class _Renamed:
    """Outputs of OmDet-Turbo by the names that other models give them."""

    logits: torch.Tensor
    pred_boxes: torch.Tensor


def token_prompts(tokenizer: Any, config: Any, names: Sequence[str], device: Any) -> list[Prompt]:
    """As few texts as hold all names within the limit of the text encoder; arguments as in `WRITERS`."""
    limit = min(int(getattr(config, "max_text_len", 256)), int(tokenizer.model_max_length))
    texts: list[_Text] = []
    end = limit
    for index, name in enumerate(names):
        words = " ".join(re.sub(r"[.?]", " ", name.lower()).split())  # these end a phrase for the model
        tokens = len(tokenizer(words, add_special_tokens=False)["input_ids"])
        _check_length(name, tokens, limit - 3)  # [CLS], the stop after the name, [SEP]
        if end + tokens + 2 > limit:
            texts.append(_Text(index))
            end = 1
        texts[-1].names.append(name)
        texts[-1].words.append(f"{words}.")
        texts[-1].spans.append((end, end + tokens))
        end += tokens + 1
    return [text.encoded(tokenizer, device) for text in texts]


@dataclass
class _Text:
    """A text for GroundingDINO while names are added to it."""

    first_class: int
    names: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)

    def encoded(self, tokenizer: Any, device: Any) -> TokenPrompt:
        import torch

        text = " ".join(self.words)
        most = max(end - start for start, end in self.spans)
        tokens = [[min(start + step, end - 1) for step in range(most)] for start, end in self.spans]
        encoded = tokenizer([text], return_token_type_ids=True, return_tensors="pt")
        return TokenPrompt(
            text, self.names, torch.tensor(tokens, device=device), self.first_class, _on(encoded, device)
        )


def name_prompts(tokenizer: Any, config: Any, names: Sequence[str], device: Any) -> list[Prompt]:
    """One text a name, for OWL-ViT; arguments as in `WRITERS`."""
    longest = int(config.text_config.max_position_embeddings)
    _check_lengths(tokenizer, names, longest)
    encoded = tokenizer(list(names), padding="max_length", max_length=longest, return_tensors="pt")
    return [NamesPrompt(_on(encoded, device))]


def task_prompts(tokenizer: Any, config: Any, names: Sequence[str], device: Any) -> list[Prompt]:
    """One text a name and one for the task, for OmDet-Turbo; arguments as in `WRITERS`."""
    import torch

    _check_lengths(tokenizer, names, OMDET_TOKENS)
    # A task with many names is cut short, as by the model's own processor: each has a text of its own besides.
    options = {"padding": "max_length", "max_length": OMDET_TOKENS, "truncation": True, "return_tensors": "pt"}
    classes = tokenizer(list(names), return_token_type_ids=False, **options)
    task = tokenizer([f"Detect {', '.join(names)}."], return_token_type_ids=False, **options)
    return [TaskPrompt(_on(classes, device), _on(task, device), torch.tensor([len(names)], device=device))]


def _check_lengths(tokenizer: Any, names: Sequence[str], longest: int) -> None:
    around = len(tokenizer("")["input_ids"])  # the marks of beginning and end
    for name in names:
        tokens = len(tokenizer(name)["input_ids"]) - around if name.strip() else 0
        _check_length(name, tokens, longest - around)


def _check_length(name: str, tokens: int, longest: int) -> None:
    if not 0 < tokens <= longest:
        raise UnsupportedQuery(
            f"cannot look for {name[:60]!r}: this model reads names of 1 to {longest} tokens, this one has {tokens}; "
            "use another name"
        )


def _on(encoded: Mapping[str, torch.Tensor], device: Any) -> dict[str, torch.Tensor]:
    return {name: value.to(device) for name, value in encoded.items()}


WRITERS: Mapping[str, Callable[[Any, Any, Sequence[str], Any], list[Prompt]]] = {
    "grounding-dino": token_prompts,
    "mm-grounding-dino": token_prompts,
    "omdet-turbo": task_prompts,
    "owlv2": name_prompts,
    "owlvit": name_prompts,
}
"""The open-vocabulary models by the `model_type` in their config.json: write names as prompts, given the tokenizer, the
model's configuration, the names and the device. Raise UnsupportedQuery for a name that the model cannot read."""
