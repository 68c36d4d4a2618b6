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

"""Prompts that were imported from the released demo script of ACTIVE-o3, and the choice between them and our own.

Reinforcement learning tuned the published weights to the words of their training. Those words are their authors', so
they are read out of a user's own copy of the script (`activeo3 prompts import`) into the cache.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from ..assets.cache import cache_directory, disk_errors_explained, put_in_place, workspace
from ..core.errors import InvalidInput
from .prompts import PromptTemplate, load_prompt, prompt_from, prompt_path
from .script_texts import ChatMessages, Placeholder, Text, chat_messages, read_script

Words = Literal["own", "auto", "imported"]
RELEASED = "07333e07814327df77197498d7f1a355e0afdc6e9b2abe09486f4b9abb5f3fa9"
"""SHA-256 of the requests of the script as it was released."""
SENSING_ROLES, TASK_ROLES = ("sensing_detection", "sensing_question"), ("task_grounding", "task_question")
"""Our prompts for targets and for questions, of the policy and of the task model."""
ROLES = (*SENSING_ROLES, *TASK_ROLES)
REQUIRED = {
    "sensing_question": "no request for regions that help to answer a question, with <answer> tags",
    "task_grounding": "no request for the boxes of an object",
}
"""What the released script has, and how it is told that another file has it not."""
PARTLY = (" for targets, own for questions", " for questions, own for targets")
IMPORT = "activeo3 prompts import FILE"


@dataclass(frozen=True)
class ImportedPrompt:
    """One request of the script.

    Attributes:
        system: The system's message.
        before_image: The user's message before the picture, with our placeholders.
        after_image: The user's message after the picture, with our placeholders.
        min_pixels: The least size of the picture that the request names; None where it names none.
    """

    system: str
    before_image: str
    after_image: str
    min_pixels: int | None = None

    def template(self, role: str, path: Path) -> PromptTemplate:
        """The prompt for our components.

        What a forced beginning, stop texts and the grammar save holds for any words that ask for the same form of
        answer, so they are those of our own prompt; a bare question asks for no form.

        Args:
            role: Of `ROLES`.
            path: Of the set, for messages.
        """
        values: dict[str, Any] = {name: text for name, text in asdict(self).items() if name != "min_pixels"}
        if role != "task_question":
            own = yaml.safe_load(prompt_path(role).read_text(encoding="utf-8"))
            values |= {name: own[name] for name in ("prefix", "stop", "grammar") if name in own}
        return prompt_from(path, values)


@dataclass(frozen=True)
class ImportedPrompts:
    """A set of prompts and its origin.

    Attributes:
        prompts: By our name for the role.
        script: Path of the script that they are from.
        script_sha256: Of that script.
    """

    prompts: Mapping[str, ImportedPrompt]
    script: str
    script_sha256: str

    @property
    def sha256(self) -> str:
        """Of the requests alone: a copy of the script with another path of the weights has the same."""
        requests = {role: asdict(prompt) for role, prompt in self.prompts.items()}
        return hashlib.sha256(json.dumps(requests, sort_keys=True).encode()).hexdigest()

    @property
    def as_released(self) -> bool:
        """Whether these are the requests of the script as it was released."""
        return self.sha256 == RELEASED

    def describe(self) -> str:
        """Origin and checksum in a few words."""
        return f"imported {self.sha256[:12]}{'' if self.as_released else ' (not as released)'}"


@dataclass(frozen=True)
class Wording:
    """The prompts of a component.

    Attributes:
        targets: For queries that name targets.
        question: For queries that ask a question.
        used: Whose words they are, for people.
        imported: The roles, of `ROLES`, whose words are imported.
        released: Whether those are the words of the script as it was released.
    """

    targets: PromptTemplate
    question: PromptTemplate
    used: str
    imported: tuple[str, ...] = ()
    released: bool = False


def imported_path() -> Path:
    """The file of the imported set, there or not."""
    return cache_directory() / "prompts" / "active_o3.yaml"


def import_script(path: Path) -> ImportedPrompts:
    """Read the prompts out of a copy of the released demo script, without running it.

    Args:
        path: Of the script.

    Raises:
        InvalidInput: It is another file, cut, changed beyond recognition, or a request has no placeholder.
    """
    text, sha256 = read_script(path)
    prompts: dict[str, ImportedPrompt] = {}
    lines: dict[str, int] = {}
    for messages in chat_messages(path, text):
        for role, prompt in _roles(path, messages):
            if prompts.setdefault(role, prompt) != prompt:
                raise InvalidInput(
                    f"{path}: lines {lines[role]} and {messages.line} make the request {role} in different words; "
                    "which of them the weights were trained with cannot be told"
                )
            lines.setdefault(role, messages.line)
    missing = [what for role, what in REQUIRED.items() if role not in prompts]
    if missing:
        raise InvalidInput(f"{path}: not the released demo script of ACTIVE-o3, or cut: it has {missing[0]}")
    return ImportedPrompts(prompts, str(path.absolute()), sha256)


def _roles(path: Path, messages: ChatMessages) -> Iterable[tuple[str, ImportedPrompt]]:
    """The requests that messages may make, by our names for them."""
    readings = list(zip(messages.before, messages.after, strict=True))
    with_words = [reading for reading in readings if _has_words(reading)]
    regions = [reading for reading in with_words if "<answer>" in _plain(reading)]
    # A script that asks for regions with a bare question, too, compares: that is no second request.
    for reading in regions or [*with_words, *(each for each in readings if each not in with_words)]:
        names = {piece.name for text in reading for piece in text if isinstance(piece, Placeholder)}
        if not names:
            raise InvalidInput(
                f"{path}: line {messages.line}: the request {_excerpt(_plain(reading))} has no placeholder for a "
                "question or an object, so it would ask the same of every picture"
            )
        kinds = SENSING_ROLES if regions else TASK_ROLES
        before, after = map(_template_text, reading)
        role = kinds[0] if "target" in names else kinds[1]
        yield role, ImportedPrompt(messages.system, before, after, messages.min_pixels)


def _has_words(reading: tuple[Text, Text]) -> bool:
    return any(isinstance(piece, str) and re.search(r"\w", piece) for text in reading for piece in text)


def _plain(reading: tuple[Text, Text]) -> str:
    return "".join(piece for text in reading for piece in text if isinstance(piece, str))


def _excerpt(text: str) -> str:
    words = " ".join(text.split())
    return repr(words if len(words) <= 40 else f"{words[:37]}...")


def _template_text(text: Text) -> str:
    """A text with our placeholders."""
    return "".join(f"${{{p.name}}}" if isinstance(p, Placeholder) else p.replace("$", "$$") for p in text)


def save_imported(prompts: ImportedPrompts) -> Path:
    """Write a set into the cache, in place of one that is there.

    Returns:
        Its file.

    Raises:
        AssetError: The cache cannot be written.
    """
    target = imported_path()
    values = {
        "script": prompts.script,
        "script_sha256": prompts.script_sha256,
        "sha256": prompts.sha256,
        "prompts": {role: asdict(prompt) for role, prompt in prompts.prompts.items()},
    }
    with disk_errors_explained(), workspace(lambda *_: None) as directory:
        written = directory / target.name
        written.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
        put_in_place(written, target)
    return target


def load_imported() -> ImportedPrompts | None:
    """The set in the cache; None where none was imported.

    Raises:
        InvalidInput: The file is damaged, or was changed after the import.
    """
    path = imported_path()
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        given = {role: ImportedPrompt(**prompt) for role, prompt in values["prompts"].items()}
        found = ImportedPrompts(given, str(values["script"]), str(values["script_sha256"]))
        whole = values["sha256"] == found.sha256 and set(given) <= set(ROLES)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise InvalidInput(f"{path}: damaged, or changed since it was imported; run: {IMPORT} --force")
    return found


def chosen_set(words: Words) -> ImportedPrompts | None:
    """The imported set that a setting `words` means; None for our own words.

    Raises:
        InvalidInput: It was asked for, and none was imported; or it is damaged.
    """
    found = None if words == "own" else load_imported()
    if words == "imported" and found is None:
        raise InvalidInput(f"words: imported, but {imported_path()} is not there; run: {IMPORT}")
    return found


def choose_words(words: Words, prompt: str, question_prompt: str, roles: tuple[str, str]) -> Wording:
    """The prompts of a component.

    Args:
        words: "own", "imported", or "auto" for imported ones where there are some.
        prompt: Name or path of our prompt for targets.
        question_prompt: Name or path of our prompt for questions.
        roles: Names of the prompts that imported ones replace: `SENSING_ROLES` or `TASK_ROLES`.

    Raises:
        InvalidInput: A prompt is wrong, or imported words were asked for that are not there.
    """
    given = {role: name for role, name in zip(roles, (prompt, question_prompt), strict=True) if name != role}
    if words == "imported" and given:
        raise InvalidInput(
            f"words: imported contradicts the prompt {next(iter(given.values()))!r}; leave one of them out"
        )
    found = chosen_set(words)
    taken = [role for role in roles if found is not None and role in found.prompts and role not in given]
    if found is None or not taken:
        return Wording(load_prompt(prompt), load_prompt(question_prompt), "own")
    templates = {role: found.prompts[role].template(role, imported_path()) for role in taken}
    targets = templates.get(roles[0]) or load_prompt(prompt)
    question = templates.get(roles[1]) or load_prompt(question_prompt)
    partly = "" if len(taken) == 2 else PARTLY[roles.index(taken[0])]
    return Wording(targets, question, f"{found.describe()}{partly}", tuple(taken), found.as_released)
