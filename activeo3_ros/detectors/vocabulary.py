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

"""Maps a query to the classes of a detector with a fixed list of them, and tells whether it asks to read.

Nothing is guessed: an unknown word makes the whole query unsupported, for "the red car" answered with every car would
be wrong. Nor is a relation: "the person on the bicycle" is no query for every person and every bicycle.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml

from ..assets.resources import config_directory
from ..core.errors import InvalidInput, UnsupportedQuery
from ..core.query import Query

TEXT = "text"
"""The label of a piece of text that was found by reading rather than by a detector's class."""

ON = ("on", "of", "at", "in")
"""Relations between a text and what it is on."""
SIMILAR = 0.8
"""Similarity from which a known word is offered for an unknown one: a letter lost in a short word is less."""

Reading = Literal["", "text", "number"]


@dataclass(frozen=True)
class Target:
    """A query in the terms of the detector.

    Attributes:
        classes: Classes to detect.
        free_text: Whether text itself is asked for, on `hosts` or wherever it is.
        hosts: Classes on whose objects free text counts; empty: wherever it is.
        reading: What to read on the objects, "" for nothing.
        phrase: The words of the query that the objects of `classes` answer, "" if only a list of classes names them.
        narrower: Whether the query means some of the objects of `classes` or `hosts`, and it cannot be told which.
        notes: Facts that the user should know about how the query was understood.
    """

    classes: tuple[str, ...]
    free_text: bool = False
    hosts: tuple[str, ...] = ()
    reading: Reading = ""
    phrase: str = ""
    narrower: bool = False
    notes: tuple[str, ...] = ()

    def phrase_of(self, name: str) -> str:
        """The words of the query that an object of a class answers.

        Its class's name where something is read and the query does not name it, or names it narrower than the detector
        can tell: a text on some car is no text on the taxi.
        """
        return name if self.reading and (self.narrower or not self.phrase) else self.phrase


class Vocabulary:
    """Maps queries to the classes of a detector by a table of synonyms."""

    def __init__(self, classes: Sequence[str], table: Mapping[str, Any]) -> None:
        """Read the table.

        Args:
            classes: The detector's.
            table: As in `config/vocabulary/coco.yaml`; what leads to classes that the detector lacks is left out.
        """
        self.classes = tuple(classes)
        own: dict[str, tuple[str, ...]] = {}
        for name in self.classes:
            key = " ".join(_words(name)) or name.lower()
            own[key] = tuple(dict.fromkeys([*own.get(key, ()), name]))
        table_names, self._lacking = _meanings(own, table)
        self._meanings: dict[str, tuple[str, ...]] = {**table_names, **own}
        # A class is what it says, whatever the table makes of the word.
        self._narrower = set(table.get("narrower", ())) - own.keys()
        self._carriers = set(table.get("text_carriers", ())) - own.keys()
        self._read_text = set(table.get("read_text", ()))
        self._read_number = set(table.get("read_number", ()))
        self._carried_by = {
            carrier: tuple(name for host in hosts for name in own.get(host, ()))
            for carrier, hosts in (table.get("carried_by") or {}).items()
        }
        self._amounts = set(table.get("amounts", ()))
        self._relations = set(table.get("relations", ()))
        self._places = set(table.get("places", ()))
        self._separators = set(table.get("separators", ()))
        self._fillers = set(table.get("fillers", ()))
        self._longest = max(len(name.split()) for name in [*self._meanings, *self._carriers])

    @lru_cache(maxsize=256)  # noqa: B019 - a vocabulary lives as long as its models, and a query is asked every frame
    def resolve(self, query: Query) -> Target:
        """Translate a query.

        Raises:
            UnsupportedQuery: A part of it is unknown; the message says what can be served.
        """
        if not query.text:
            return self._resolve_classes(query.classes) if query.classes else Target(self.classes)
        target = self._resolve_text(query.text)
        if not query.classes:
            return target
        # The list of classes is what to detect; the phrase then only says what to read there.
        listed = self._resolve_classes(query.classes)
        return replace(target, classes=listed.classes, notes=tuple(dict.fromkeys([*target.notes, *listed.notes])))

    def _resolve_classes(self, names: Iterable[str]) -> Target:
        found: list[str] = []
        notes: list[str] = []
        for name in names:
            meaning = self._lookup(_words(name) or [name.lower()])
            if meaning is None:
                raise UnsupportedQuery(f"unknown class {name!r}; {self._offer(name.lower())}")
            found += meaning[1]
            notes += self._lacking_note(name, meaning[0])
        return Target(tuple(dict.fromkeys(found)), notes=tuple(dict.fromkeys(notes)))

    def _lacking_note(self, said: str, meaning: str) -> list[str]:
        """The note on a name of several classes of which the detector has some; none where it has all."""
        lacking = self._lacking.get(meaning)
        return [f"{said!r} is looked for without {', '.join(lacking)}: no class of this detector"] if lacking else []

    def _resolve_text(self, text: str) -> Target:
        words = _words(re.sub(r"['\u2019]s\b", "", text.lower()))
        things: list[_Thing] = []
        reading: Reading = ""
        relation, position, clause = "", 0, 0
        while position < len(words):
            word = words[position]
            thing = self._thing(words, position)
            if thing is not None:
                joined = None
                if len(things) > clause and (relation or things[-1].end == position):
                    joined = _joined(things[-1], thing, relation)
                    if joined is None and relation:
                        raise UnsupportedQuery(
                            f"cannot serve {text!r}: this preset cannot judge {relation!r}; ask for "
                            f"{things[-1].name!r} or {thing.name!r} alone"
                        )
                things = [*things[:-1], joined] if joined else [*things, thing]
                relation, position = "", thing.end
                continue
            if word in self._read_number:
                if self._counts(words[position:]):
                    raise UnsupportedQuery(
                        f"cannot serve {text!r}: this preset does not count; ask for the objects alone"
                    )
                reading = "number"
            elif word in self._read_text:
                reading = reading or "text"
            elif word.isdecimal() or word in self._amounts:
                raise UnsupportedQuery(
                    f"cannot serve {text!r}: this preset does not count, and finds nothing by its number; ask for the "
                    "objects alone"
                )
            elif word in self._relations or word in self._places:
                relation = relation if relation in self._places else word
            elif word in self._separators:
                relation, clause = "", len(things)
            elif word not in self._fillers:
                phrase = " ".join(words[position : position + 2])
                raise UnsupportedQuery(f"cannot serve {text!r}: {word!r} is unknown; {self._offer(phrase)}")
            position += 1
        if relation in self._places:
            raise UnsupportedQuery(f"cannot serve {text!r}: this preset cannot judge {relation!r}; ask without it")
        if not things and not reading:
            raise UnsupportedQuery(f"cannot serve {text!r}: it names nothing to look for; {self._offer()}")
        return self._target(things, reading)

    def _thing(self, words: Sequence[str], start: int) -> _Thing | None:
        """What the longest name that begins at a word means, None if none does."""
        for end in range(min(start + self._longest, len(words)), start, -1):
            said = words[start:end]
            carrier = self._find(self._carriers, said)
            if carrier:
                return _Thing(" ".join(said), self._carried_by.get(carrier, ()), end, is_carrier=True)
            meaning = self._lookup(said)
            if meaning:
                return _Thing(
                    " ".join(said), meaning[1], end, is_narrower=meaning[0] in self._narrower, meaning=meaning[0]
                )
        return None

    def _target(self, things: Sequence[_Thing], reading: Reading) -> Target:
        carriers = [thing for thing in things if thing.is_carrier]
        objects = [thing for thing in things if not thing.is_carrier]
        free_text = bool(carriers) or not objects
        hosts = [name for thing in carriers for name in thing.classes] if all(t.classes for t in carriers) else []
        notes = []
        for thing in things:
            for name in [thing.name] if thing.is_narrower and not thing.is_carrier else [thing.host]:
                if thing.is_narrower:
                    note = f"{name!r} is looked for as {thing.classes[0]!r}: this detector cannot tell them apart"
                    notes.append(f"{note}, so what several of them read is no answer" if reading or free_text else note)
            notes += self._lacking_note(thing.host or thing.name, thing.meaning)
            if thing.is_carrier:
                where = f"any text on a {' or '.join(thing.classes)}" if hosts else "text, wherever it is,"
                notes.append(f"{thing.name!r} is no class of this detector: {where} is reported as {TEXT!r}")
        carrying = hosts or ([name for thing in objects for name in thing.classes] if reading else [])
        if carrying:
            notes.append(f"text in front of a {' or '.join(dict.fromkeys(carrying))} cannot be told from text on it")
        return Target(
            tuple(dict.fromkeys(name for thing in objects for name in thing.classes)),
            free_text,
            tuple(dict.fromkeys(hosts)),
            reading or ("text" if free_text else ""),
            " and ".join(dict.fromkeys(thing.name for thing in objects)),
            any(thing.is_narrower for thing in things),
            tuple(dict.fromkeys(notes)),
        )

    def _counts(self, words: Sequence[str]) -> bool:
        """Whether words that begin with one for a number ask how many there are: "number of cars"."""
        if len(words) < 3 or words[1] != "of":
            return False
        thing = self._thing(words, 2)
        return thing is not None and not thing.is_carrier and thing.name not in self._meanings

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

    def _offer(self, unknown: str = "") -> str:
        """What to ask for instead: names with a word like the first of the unknown ones, else all classes."""
        names = [*self._meanings, *self._carriers]
        known = {word for name in names for word in name.split()}
        like = set(difflib.get_close_matches(unknown.split(" ")[0], known, 2, SIMILAR))
        similar = [name for name in names if like & set(name.split())]
        similar.sort(key=lambda name: -difflib.SequenceMatcher(None, name, unknown).ratio())
        if similar:
            return f"did you mean {' or '.join(map(repr, similar[:3]))}?"
        return f"this preset detects {', '.join(self.classes)}, and reads numbers and text on them and on signs"


@dataclass(frozen=True)
class _Thing:
    """Something that a query names: objects to detect, or a carrier of text with the classes of what it is part of.

    Attributes:
        name: The words of the query.
        classes: Of the objects; of a carrier, those that it is looked for on, none for anywhere.
        end: Index of the word after it.
        is_carrier: Whether it carries text and has no class.
        is_narrower: Whether it means some of the objects of the classes alone.
        host: The words that name the objects that a carrier is on, "" if the query does not.
        meaning: The name in the table that the objects have, "" for none.
    """

    name: str
    classes: tuple[str, ...]
    end: int
    is_carrier: bool = False
    is_narrower: bool = False
    host: str = ""
    meaning: str = ""


def _joined(first: _Thing, second: _Thing, relation: str) -> _Thing | None:
    """A carrier of text and the objects that it is on as one: "the plate of the bus", "the bus plate"; else None."""
    if first.is_carrier and not second.is_carrier and relation in ON:
        carrier, host = first, second
    elif second.is_carrier and not first.is_carrier and not relation:
        carrier, host = second, first
    else:
        return None
    return replace(
        carrier,
        classes=host.classes,
        end=second.end,
        is_narrower=host.is_narrower,
        host=host.name,
        meaning=host.meaning,
    )


def _meanings(
    own: Mapping[str, tuple[str, ...]], table: Mapping[str, Any]
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """The classes that each name in a table means, and those of its group that the detector does not have.

    Args:
        own: The detector's classes by name in the form of the table.
        table: The table.
    """
    meanings: dict[str, tuple[str, ...]] = {}
    lacking: dict[str, tuple[str, ...]] = {}
    for name, members in (table.get("groups") or {}).items():
        known = tuple(name for member in members for name in own.get(member, ()))
        if known:
            meanings[name] = known
            lacking[name] = tuple(member for member in members if member not in own)
    for name, others in (table.get("synonyms") or {}).items():
        if name in own:
            meanings.update(dict.fromkeys(others, own[name]))
    return meanings, {name: lacking[name] for name in lacking if name not in own}


def _words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return re.findall(r"[^\W_]+", text.lower())


def load_vocabulary(classes: Sequence[str], name: str = "coco") -> Vocabulary:
    """Load a vocabulary.

    Args:
        classes: The detector's.
        name: Of a file in `config/vocabulary/`, without its ending, or the path of a .yaml file of that form.

    Raises:
        InvalidInput: There is no such file, or it holds no such table.
    """
    is_path = name.endswith((".yaml", ".yml"))
    path = Path(name).expanduser() if is_path else config_directory() / "vocabulary" / f"{name}.yaml"
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InvalidInput(f"{path}: not a readable vocabulary: {str(error).splitlines()[0]}") from error
    if not isinstance(table, dict):
        raise InvalidInput(f"{path}: a vocabulary is a mapping with synonyms, groups and more, got {table!r}")
    return Vocabulary(classes, table)
