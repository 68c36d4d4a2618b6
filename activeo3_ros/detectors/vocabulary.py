"""Maps a query to the classes of a detector with a fixed list of them, and tells whether it asks to read.

Nothing is guessed: an unknown word makes the whole query unsupported, for "the red car" answered with every car would
be wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import yaml

from ..assets.resources import config_directory
from ..core.errors import InvalidInput, UnsupportedQuery
from ..core.query import Query

TEXT = "text"
"""The label of a piece of text that was found by reading rather than by a detector's class."""

Reading = Literal["", "text", "number"]


@dataclass(frozen=True)
class Target:
    """A query in the terms of the detector.

    Attributes:
        classes: Classes to detect.
        free_text: Whether text itself is asked for, wherever it is.
        reading: What to read on the objects, "" for nothing.
        phrase: The words of the query that the findings answer, "" if only classes were asked for.
        notes: Facts that the user should know about how the query was understood.
    """

    classes: tuple[str, ...]
    free_text: bool = False
    reading: Reading = ""
    phrase: str = ""
    notes: tuple[str, ...] = ()


class Vocabulary:
    """Maps queries to the classes of a detector by a table of synonyms."""

    def __init__(self, classes: Sequence[str], table: Mapping[str, Any]) -> None:
        """Read the table.

        Args:
            classes: The detector's.
            table: As in `config/vocabulary/coco.yaml`.

        Raises:
            InvalidInput: The table names a class that the detector does not have.
        """
        self.classes = tuple(classes)
        self._meanings = _meanings(self.classes, table)
        self._narrower = set(table.get("narrower", ()))
        self._carriers = set(table.get("text_carriers", ()))
        self._read_text = set(table.get("read_text", ()))
        self._read_number = set(table.get("read_number", ()))
        self._fillers = set(table.get("fillers", ()))
        self._longest = max(len(name.split()) for name in [*self._meanings, *self._carriers])

    @lru_cache(maxsize=256)  # noqa: B019 - a vocabulary lives as long as its models, and a query is asked every frame
    def resolve(self, query: Query) -> Target:
        """Translate a query.

        Raises:
            UnsupportedQuery: A part of it is unknown; the message says what can be served.
        """
        if not query.text:
            return Target(self._resolve_classes(query.classes) if query.classes else self.classes)
        target = self._resolve_text(query.text)
        if not query.classes:
            return target
        # The list of classes is what to detect; the phrase then only says what to read there.
        return Target(
            self._resolve_classes(query.classes), target.free_text, target.reading, target.phrase, target.notes
        )

    def _resolve_classes(self, names: Iterable[str]) -> tuple[str, ...]:
        found: list[str] = []
        for name in names:
            meaning = self._lookup(name.lower().split())
            if meaning is None:
                raise UnsupportedQuery(f"unknown class {name!r}; {self._offer()}")
            found += meaning[1]
        return tuple(dict.fromkeys(found))

    def _resolve_text(self, text: str) -> Target:
        words = re.findall(r"[^\W_]+", text.lower())
        classes: list[str] = []
        phrases: list[str] = []
        notes: list[str] = []
        free_text, reading = False, ""
        position = 0
        while position < len(words):
            taken = 0
            for length in range(min(self._longest, len(words) - position), 0, -1):
                candidate = words[position : position + length]
                carrier = self._find(self._carriers, candidate)
                meaning = None if carrier else self._lookup(candidate)
                if carrier:
                    free_text, taken = True, length
                    phrases.append(" ".join(candidate))
                elif meaning:
                    name, meant = meaning
                    classes += meant
                    phrases.append(" ".join(candidate))
                    if name in self._narrower:
                        notes.append(f"{name!r} is looked for as {meant[0]!r}: this detector cannot tell them apart")
                    taken = length
                if taken:
                    break
            if not taken:
                word = words[position]
                if word in self._read_number:
                    reading = "number"
                elif word in self._read_text:
                    reading = reading or "text"
                elif word not in self._fillers:
                    raise UnsupportedQuery(f"cannot serve {text!r}: {word!r} is unknown; {self._offer()}")
                taken = 1
            position += taken
        if not classes and (reading or free_text):
            free_text = True
            phrases = phrases or [TEXT]
        if not classes and not free_text:
            raise UnsupportedQuery(f"cannot serve {text!r}: it names nothing to look for; {self._offer()}")
        return Target(
            tuple(dict.fromkeys(classes)),
            free_text,
            reading or ("text" if free_text else ""),  # type: ignore[arg-type]
            " and ".join(dict.fromkeys(phrases)),
            tuple(dict.fromkeys(notes)),
        )

    def _lookup(self, words: Sequence[str]) -> tuple[str, tuple[str, ...]] | None:
        """The name in the table that some words mean, and its classes."""
        name = self._find(self._meanings, words)
        return None if name is None else (name, self._meanings[name])

    @staticmethod
    def _find(names: Iterable[str] | Mapping[str, Any], words: Sequence[str]) -> str | None:
        """The words as a name in a collection, as they stand or with the last one in the singular."""
        last = words[-1]
        for ending in ("", "es", "s"):
            if last.endswith(ending) and len(last) > len(ending):
                name = " ".join([*words[:-1], last[: len(last) - len(ending)]])
                if name in names:
                    return name
        return None

    def _offer(self) -> str:
        return f"this preset detects {', '.join(self.classes)}, and reads numbers and text on them and on signs"


def _meanings(classes: Sequence[str], table: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    meanings: dict[str, tuple[str, ...]] = {name: (name,) for name in classes}
    for kind in ("synonyms", "groups"):
        for key, others in (table.get(kind) or {}).items():
            members = [key] if kind == "synonyms" else others
            unknown = [name for name in members if name not in classes]
            if unknown:
                raise InvalidInput(
                    f"vocabulary: {kind} name the class {unknown[0]!r}, which the detector does not have"
                )
            for name in others if kind == "synonyms" else [key]:
                meanings[name] = tuple(members)
    return meanings


def load_vocabulary(classes: Sequence[str], name: str = "coco") -> Vocabulary:
    """Load a vocabulary that comes with the package.

    Args:
        classes: The detector's.
        name: Of the file in `config/vocabulary/`, without its ending.
    """
    path = config_directory() / "vocabulary" / f"{name}.yaml"
    return Vocabulary(classes, yaml.safe_load(path.read_text(encoding="utf-8")))
