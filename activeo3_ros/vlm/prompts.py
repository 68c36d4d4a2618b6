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

"""Loads the prompts in `config/prompts/` and fills them in for one frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Literal, get_args

import yaml

from ..assets.resources import config_directory
from ..core.errors import InvalidInput
from ..core.query import Query
from .answer_grammar import GRAMMARS, answer_regex
from .engine import Prompt

Reasoning = Literal["full", "short", "none"]
REASONING: tuple[str, ...] = get_args(Reasoning)
"""How much a policy may think aloud: as it was trained, in one sentence, or not at all."""
KEYS = ("system", "before_image", "after_image", "reasoning", "prefix", "stop", "grammar")


@dataclass(frozen=True)
class PromptTemplate:
    """One file of `config/prompts/`: see `config/prompts/README.md` for its keys.

    Attributes:
        path: Of the file.
        system: The system's message.
        before_image: The user's message before the picture, with placeholders.
        after_image: The user's message after the picture, with placeholders.
        reasoning: The text of `$reasoning` by the setting of that name.
        prefix: The forced beginning of the answer by that setting.
        stop: Texts that end the answer by that setting.
        grammar: A key of `GRAMMARS`; "" for none.
    """

    path: Path
    system: str
    before_image: str
    after_image: str
    reasoning: Mapping[str, str]
    prefix: Mapping[str, str]
    stop: Mapping[str, tuple[str, ...]]
    grammar: str

    def fill(self, reasoning: str = "none", **values: Any) -> Prompt:
        """The prompt with its `$placeholders` filled in.

        Args:
            reasoning: A value of `REASONING`.
            values: Of the placeholders, by their names.

        Raises:
            InvalidInput: A placeholder has no value.
        """
        values = {name: str(value) for name, value in values.items()}

        def filled(text: str, **more: str) -> str:
            try:
                return Template(text).substitute(values, **more)
            except (KeyError, ValueError) as error:
                known = ", ".join(f"${name}" for name in sorted({*values, "reasoning"}))
                raise InvalidInput(
                    f"{self.path}: placeholder {error} cannot be filled in; there are {known}"
                ) from error

        thinking = self.reasoning.get(reasoning, "").strip()
        return Prompt(
            after=filled(self.after_image, reasoning=thinking),
            before=filled(self.before_image, reasoning=thinking),
            system=self.system,
            prefix=self.prefix.get(reasoning, ""),
            stop=self.stop.get(reasoning, ()),
            regex=self.regex(reasoning, values.get("max_regions")),
            thinks=bool(thinking) and reasoning != "none",
        )

    def regex(self, reasoning: str, at_most: str | None = None) -> str:
        """A regular expression of all that may follow the prefix.

        Args:
            reasoning: A value of `REASONING`.
            at_most: Regions that the answer may list, as the placeholder has it.

        Returns:
            "" where the prompt names no answer grammar.

        Raises:
            InvalidInput: An answer of that grammar cannot begin with the prefix.
        """
        if not self.grammar:
            return ""
        prefix = self.prefix.get(reasoning, "")
        regex = answer_regex(self.grammar, prefix, reasoning != "none", None if at_most is None else int(at_most))
        if regex is None:
            raise InvalidInput(f"{self.path}: an answer of the grammar {self.grammar!r} cannot begin with {prefix!r}")
        return regex


def load_prompt(name_or_path: str) -> PromptTemplate:
    """A prompt of `config/prompts/` by name, or any by the path of a .yaml file.

    Raises:
        InvalidInput: The file cannot be read or its content is wrong.
    """
    path = prompt_path(name_or_path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path}: not a readable prompt: {str(error).splitlines()[0]}") from error
    return prompt_from(path, values)


def prompt_path(name_or_path: str) -> Path:
    """The file of a prompt: of `config/prompts/` for a name, itself for the path of a .yaml file."""
    given = name_or_path.endswith((".yaml", ".yml"))
    return Path(name_or_path).expanduser() if given else config_directory() / "prompts" / f"{name_or_path}.yaml"


def prompt_from(path: Path, values: Any) -> PromptTemplate:
    """The prompt that the keys of a file make up.

    Args:
        path: Of the file, for messages.
        values: Its content.

    Raises:
        InvalidInput: The content is wrong.
    """
    if not isinstance(values, dict):
        raise InvalidInput(f"{path}: a prompt must be a mapping with the keys {', '.join(KEYS)}")
    unknown = sorted(str(key) for key in values if key not in KEYS)
    if unknown:
        raise InvalidInput(f"{path}: unknown key {unknown[0]!r}; known are {', '.join(KEYS)}")
    grammar = str(values.get("grammar", ""))
    if grammar and grammar not in GRAMMARS:
        raise InvalidInput(f"{path}: 'grammar' must be one of {', '.join(GRAMMARS)}, got {grammar!r}")
    template = PromptTemplate(
        path=path,
        system=str(values.get("system", "You are a helpful assistant.")),
        before_image=str(values.get("before_image", "")),
        after_image=str(values.get("after_image", "")),
        reasoning=_texts(path, "reasoning", values.get("reasoning", {})),
        prefix=_texts(path, "prefix", values.get("prefix", {})),
        stop=_stops(path, values.get("stop", [])),
        grammar=grammar,
    )
    for reasoning in REASONING:
        template.regex(reasoning)  # a prefix that does not fit the grammar is refused here, not with the first frame
    return template


def _texts(path: Path, key: str, values: Any) -> dict[str, str]:
    if not isinstance(values, dict) or not set(values) <= set(REASONING):
        raise InvalidInput(f"{path}: {key!r} must be a mapping with keys among {', '.join(REASONING)}, got {values!r}")
    return {str(name): str(text) for name, text in values.items()}


def _stops(path: Path, values: Any) -> dict[str, tuple[str, ...]]:
    """The texts that end an answer, for each setting of `reasoning`; one list holds for all of them."""
    stops = values if isinstance(values, dict) else dict.fromkeys(REASONING, values)
    if not set(stops) <= set(REASONING) or not all(isinstance(texts, list) for texts in stops.values()):
        raise InvalidInput(
            f"{path}: 'stop' must be a list of texts, or a mapping of {', '.join(REASONING)} to lists, got {values!r}"
        )
    return {str(name): tuple(map(str, texts)) for name, texts in stops.items()}


def target_of(query: Query) -> str:
    """The targets of a query, in words for a prompt."""
    names = ", ".join(query.classes)
    if query.text and names:
        return f"{query.text} ({names})"
    return query.text or names or "every object that matters to somebody who drives or moves here"


_QUESTION_STARTS = frozenset(
    [
        *["what", "which", "who", "whose", "whom", "where", "when", "why", "how", "is", "are", "was", "were", "do"],
        *["does", "did", "can", "could", "will", "would", "has", "have", "tell", "read", "count", "describe", "say"],
    ]
)


def is_question(query: Query) -> bool:
    """Whether a query wants an answer in words rather than boxes: a line ends with a question mark, or it begins so."""
    words = query.text.lower().split()
    asks = any(line.rstrip().endswith(("?", "\uff1f")) for line in query.text.splitlines())
    return bool(words) and (asks or words[0].strip(",:") in _QUESTION_STARTS)
