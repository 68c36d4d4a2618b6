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

"""Finds the messages that a Python script sends to a vision-language model, by its syntax tree; nothing of it runs.

A text may be put together from constants that stand elsewhere, f-strings, `+`, `%`, `.format` and `.replace`, handed on
by calls, and chosen by conditions. All of that is followed. What only a run could tell, such as a file that the script
reads, is refused with its line.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InvalidInput

MAX_SCRIPT_BYTES = 1_000_000
"""The released script has 29 kB; a larger file is something else."""
MAX_READINGS = 16
"""Texts that one place in a script may have, by its conditions and calls."""
MAX_DEPTH = 64
RUN_TIME_NAMES = {
    "question": "question",
    "query": "question",
    "object": "target",
    "objects": "target",
    "target": "target",
    "category": "target",
    "class_name": "target",
}
"""Names of what a script asks about, whatever value they get in it: the placeholder of ours that stands for them."""

Scope = ast.FunctionDef | ast.AsyncFunctionDef | None
"""The function that a piece of code is in; None for the script itself."""


@dataclass(frozen=True)
class Placeholder:
    """A part of a text that is known at run time; name: a placeholder of our prompts."""

    name: str


Text = tuple[str | Placeholder, ...]


@dataclass(frozen=True)
class ChatMessages:
    """One request of the script.

    Attributes:
        line: Of the messages.
        system: The system's message.
        before: The texts that the user's message may have before the picture.
        after: The texts that it may have after the picture, in the same order.
        min_pixels: The least size of the picture that the request names, None where it names none.
    """

    line: int
    system: str
    before: tuple[Text, ...]
    after: tuple[Text, ...]
    min_pixels: int | None


class _Unknown(Exception):
    """A value that cannot be told without running the script; `line` and the reason for people."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")


def read_script(path: Path) -> tuple[str, str]:
    """The text of a script, and the SHA-256 of the file.

    Raises:
        InvalidInput: It is no file, too large, or no text.
    """
    try:
        with path.open("rb") as opened:
            content = opened.read(MAX_SCRIPT_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_SCRIPT_BYTES:
        raise InvalidInput(f"{path}: is larger than {MAX_SCRIPT_BYTES} bytes; the released demo script has 29 kB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidInput(f"{path}: is no text; give the Python script of the released demo")
    return text, hashlib.sha256(content).hexdigest()


def chat_messages(path: Path, text: str) -> list[ChatMessages]:
    """The requests with a picture that a script makes, in the order of its lines.

    Args:
        path: For messages.
        text: Of the script.

    Returns:
        None for a script without such requests; those of functions that it never calls are left out.

    Raises:
        InvalidInput: The text is no whole Python script, or a request cannot be told without running it.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise InvalidInput(
            f"{path}: line {error.lineno or 1}: not a whole Python script ({error.msg}); is it cut?"
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise InvalidInput(f"{path}: not a Python script: {error}") from error
    try:
        return list(_Script(tree).requests())
    except _Unknown as error:
        raise InvalidInput(f"{path}: {error}") from error
    except RecursionError as error:
        raise InvalidInput(f"{path}: is nested too deeply to be read") from error


class _Script:
    """The parts of a syntax tree by scope and name."""

    def __init__(self, tree: ast.Module) -> None:
        self._parents: dict[Scope, Scope] = {None: None}
        self._nodes: dict[Scope, list[ast.AST]] = {None: []}
        self._functions: dict[str, list[ast.FunctionDef | ast.AsyncFunctionDef]] = {}
        self._sort(tree, None)
        self._reached = self._reachable()

    def _sort(self, node: ast.AST, scope: Scope) -> None:
        for child in ast.iter_child_nodes(node):
            self._nodes[scope].append(child)
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self._parents[child], self._nodes[child] = scope, []
                self._functions.setdefault(child.name, []).append(child)
                self._sort(child, child)
            else:
                self._sort(child, scope)

    def _reachable(self) -> list[Scope]:
        """The script itself and the functions that it calls, directly or not; all where it calls none."""
        reached: list[Scope] = [None]
        for scope in reached:
            for call in self._calls(scope):
                reached += [f for f in self._functions.get(_called(call), ()) if f not in reached]
        return reached if len(reached) > 1 else list(self._nodes)

    def _calls(self, scope: Scope) -> Iterator[ast.Call]:
        return (node for node in self._nodes[scope] if isinstance(node, ast.Call))

    def requests(self) -> Iterator[ChatMessages]:
        """The requests with a picture, by line."""
        found = [(node, scope) for scope in self._reached for node in self._nodes[scope] if isinstance(node, ast.List)]
        for node, scope in sorted(found, key=lambda each: each[0].lineno):
            messages = [_entries(item) for item in node.elts if isinstance(item, ast.Dict)]
            roles = {_constant(message.get("role")): message.get("content") for message in messages}
            parts = self._listed(roles.get("user"), scope)
            if any(_is_image(part) for part in parts):
                yield self._request(node.lineno, roles.get("system"), parts, scope)

    def _request(
        self, line: int, system: ast.expr | None, parts: Sequence[dict[str, ast.expr]], scope: Scope
    ) -> ChatMessages:
        places = [index for index, part in enumerate(parts) if _is_image(part)]
        if len(places) > 1:
            raise _Unknown(line, f"a request with {len(places)} pictures; ours have one")
        before, after = parts[: places[0]], parts[places[0] + 1 :]
        texts = [(b, a) for b in self._joined(before, scope) for a in self._joined(after, scope)]
        smallest = parts[places[0]].get("min_pixels")
        return ChatMessages(
            line,
            self._system(system, scope),
            tuple(b for b, _ in texts),
            tuple(a for _, a in texts),
            None if smallest is None else _whole_number(smallest),
        )

    def _system(self, node: ast.expr | None, scope: Scope) -> str:
        if node is None:
            return "You are a helpful assistant."  # what the models' chat template adds
        parts = self._listed(node, scope)
        readings = self._joined(parts, scope) if parts else self._texts(node, scope)
        if len(readings) != 1 or any(isinstance(piece, Placeholder) for piece in readings[0]):
            raise _Unknown(node.lineno, "the system's message is not the same for every request")
        return "".join(map(str, readings[0]))

    def _listed(self, node: ast.expr | None, scope: Scope) -> list[dict[str, ast.expr]]:
        """The parts of a message, each by its keys; none where its content is no list."""
        if isinstance(node, ast.Name):
            values = self._assigned(node.id, scope)
            node = values[0][0] if len(values) == 1 else None
        return (
            [_entries(item) for item in node.elts if isinstance(item, ast.Dict)] if isinstance(node, ast.List) else []
        )

    def _joined(self, parts: Sequence[dict[str, ast.expr]], scope: Scope) -> list[Text]:
        return _product([self._texts(part["text"], scope) for part in parts if "text" in part])

    def _texts(self, node: ast.expr, scope: Scope, depth: int = 0) -> list[Text]:
        """All texts that an expression may have."""
        if depth > MAX_DEPTH:
            raise _Unknown(node.lineno, "a text that is made from itself")
        found = list(dict.fromkeys(self._read(node, scope, depth + 1)))
        if len(found) > MAX_READINGS:
            raise _Unknown(node.lineno, f"a text that may be one of more than {MAX_READINGS}")
        return found

    def _read(self, node: ast.expr, scope: Scope, depth: int) -> list[Text]:
        match node:
            case ast.Constant(value=str() as text):
                return [(text,) if text else ()]
            case ast.JoinedStr(values=values):
                return _product([self._texts(value, scope, depth) for value in values])
            case ast.FormattedValue(value=value, format_spec=None) if node.conversion in (-1, ord("s")):
                return self._texts(value, scope, depth)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return _product([self._texts(left, scope, depth), self._texts(right, scope, depth)])
            case ast.BinOp(left=left, op=ast.Mod(), right=right):
                return self._percent(left, right, scope, depth)
            case ast.IfExp(body=body, orelse=other):
                return [*self._texts(body, scope, depth), *self._texts(other, scope, depth)]
            case ast.BoolOp(op=ast.Or(), values=values):
                return [text for value in values for text in self._texts(value, scope, depth)]
            case ast.Name(id=name):
                return self._named(name, node, scope, depth)
            case ast.Attribute(attr=name) if name in RUN_TIME_NAMES:
                return [(Placeholder(RUN_TIME_NAMES[name]),)]
            case ast.Subscript(value=table, slice=ast.Constant(value=str() as key)):
                return self._entry(table, key, node, scope, depth)
            case ast.Call(func=ast.Attribute(value=value, attr=method)):
                return self._method(node, value, method, scope, depth)
            case ast.Call(func=ast.Name(id="str"), args=[value], keywords=[]):
                return self._texts(value, scope, depth)
        raise _Unknown(node.lineno, f"{_shown(node)} cannot be told without running the script")

    def _named(self, name: str, node: ast.expr, scope: Scope, depth: int) -> list[Text]:
        if name in RUN_TIME_NAMES:
            return [(Placeholder(RUN_TIME_NAMES[name]),)]
        values = self._assigned(name, scope)
        if not values:
            raise _Unknown(node.lineno, f"{name} is set nowhere in this script; is it cut?")
        return [text for value, of in values for text in self._texts(value, of, depth)]

    def _assigned(self, name: str, scope: Scope) -> list[tuple[ast.expr, Scope]]:
        """The values that a name gets in the nearest scope that has it, each with the scope of its expression."""
        values: list[tuple[ast.expr, Scope]] = []
        for node in self._nodes[scope]:
            match node:
                case ast.Assign(targets=targets, value=value):
                    if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                        values.append((value, scope))
                case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                    values.append((value, scope))
                case ast.AugAssign(target=ast.Name(id=target)) if target == name:
                    raise _Unknown(node.lineno, f"{name} is made in several steps, and nothing here is run")
        if scope is None:
            return values
        names = [each.arg for each in (*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs)]
        if name in names:
            values += self._given(scope, name)
        return values or self._assigned(name, self._parents[scope])

    def _given(self, function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> list[tuple[ast.expr, Scope]]:
        """The values that the calls of a function give to a parameter; its default where one gives none."""
        arguments = function.args
        positional = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
        defaults: dict[str, ast.expr | None] = {each.arg: None for each in (*arguments.posonlyargs, *arguments.args)}
        defaults |= dict(zip(positional[len(positional) - len(arguments.defaults) :], arguments.defaults, strict=True))
        defaults |= dict(zip((each.arg for each in arguments.kwonlyargs), arguments.kw_defaults, strict=True))
        names = positional[1:] if positional[:1] in (["self"], ["cls"]) else positional
        given: list[tuple[ast.expr, Scope]] = []
        calls = [(call, of) for of in self._reached for call in self._calls(of) if _called(call) == function.name]
        for call, of in calls:
            if any(isinstance(each, ast.Starred) for each in call.args) or any(
                each.arg is None for each in call.keywords
            ):
                raise _Unknown(call.lineno, f"{name} is handed to {function.name} by * or **")
            values: dict[str | None, ast.expr] = {keyword.arg: keyword.value for keyword in call.keywords}
            values.update(zip(names, call.args, strict=False))
            value = values.get(name)
            default = defaults[name]
            if value is not None:
                given.append((value, of))
            elif default is not None:
                given.append((default, self._parents[function]))
            else:
                raise _Unknown(call.lineno, f"{function.name} is called without {name}")
        default = defaults[name]
        if not calls and default is not None:
            given.append((default, self._parents[function]))
        if not given:
            raise _Unknown(
                function.lineno, f"nothing calls {function.name}, so that its {name} is not known; is the script cut?"
            )
        return given

    def _entry(self, table: ast.expr, key: str, node: ast.expr, scope: Scope, depth: int) -> list[Text]:
        """The value of a key in a dictionary that the script writes out, or that is known at run time."""
        if isinstance(table, ast.Name):
            dictionaries = [(value, of) for value, of in self._assigned_or_none(table.id, scope)]
            found = [(_entries(value).get(key), of) for value, of in dictionaries if isinstance(value, ast.Dict)]
            texts = [text for value, of in found if value is not None for text in self._texts(value, of, depth)]
            if texts:
                return texts
        if key in RUN_TIME_NAMES:
            return [(Placeholder(RUN_TIME_NAMES[key]),)]
        raise _Unknown(node.lineno, f"{_shown(node)} cannot be told without running the script")

    def _assigned_or_none(self, name: str, scope: Scope) -> list[tuple[ast.expr, Scope]]:
        try:
            return self._assigned(name, scope)
        except _Unknown:
            return []

    def _method(self, call: ast.Call, value: ast.expr, method: str, scope: Scope, depth: int) -> list[Text]:
        """The results of `.format`, `.replace`, `.strip` and `.join`."""
        arguments = call.args
        if method == "format":
            return [text for template in self._texts(value, scope, depth) for text in
                    self._formatted(template, call, scope, depth)]  # fmt: skip
        if method == "replace" and len(arguments) == 2 and not call.keywords:
            old = _constant(arguments[0])
            news = self._texts(arguments[1], scope, depth)
            if isinstance(old, str) and old:
                return [_replaced(text, old, new) for text in self._texts(value, scope, depth) for new in news]
        if method in ("strip", "lstrip", "rstrip") and not arguments and not call.keywords:
            return [_stripped(text, method) for text in self._texts(value, scope, depth)]
        separator = _constant(value)
        listed = arguments[0] if len(arguments) == 1 else None
        if method == "join" and isinstance(separator, str) and isinstance(listed, (ast.List, ast.Tuple)):
            items = [self._texts(item, scope, depth) for item in listed.elts]
            return _product([each for item in items for each in ([(separator,)], item)][1:])
        raise _Unknown(call.lineno, f"{_shown(call)} cannot be told without running the script")

    def _formatted(self, template: Text, call: ast.Call, scope: Scope, depth: int) -> list[Text]:
        """A template with the fields of `.format` filled in."""
        named = {keyword.arg: keyword.value for keyword in call.keywords}
        order = itertools.count()
        pieces: list[list[Text]] = []
        for piece in template:
            if isinstance(piece, Placeholder):
                raise _Unknown(call.lineno, "a text that is known at run time is used as a template")
            for literal, name, form, conversion in _fields(piece, call.lineno):
                pieces.append([(literal,) if literal else ()])
                if name is None:
                    continue
                if form or conversion:
                    raise _Unknown(call.lineno, f"the field {name!r} of a template is formatted at run time")
                place = next(order) if not name else int(name) if name.isdigit() else -1
                value = named.get(name) if place < 0 else call.args[place] if place < len(call.args) else None
                if value is not None and not isinstance(value, ast.Starred):
                    pieces.append(self._texts(value, scope, depth))
                elif None in named and name in RUN_TIME_NAMES:  # .format(**row)
                    pieces.append([(Placeholder(RUN_TIME_NAMES[name]),)])
                else:
                    raise _Unknown(call.lineno, f"the field {name!r} of a template has no value that can be told")
        return _product(pieces)

    def _percent(self, left: ast.expr, right: ast.expr, scope: Scope, depth: int) -> list[Text]:
        """A template with each `%s` filled in."""
        values = list(right.elts) if isinstance(right, ast.Tuple) else [right]
        texts = []
        for template in self._texts(left, scope, depth):
            if any(isinstance(piece, Placeholder) for piece in template):
                raise _Unknown(left.lineno, "a text that is known at run time is used as a template")
            literals = "".join(map(str, template)).replace("%%", "\0").split("%s")
            if len(literals) != len(values) + 1 or any("%" in literal for literal in literals):
                raise _Unknown(left.lineno, "only %s can be read in a template, once for each value")
            pieces: list[list[Text]] = [[(literals[0].replace("\0", "%"),)]]
            for value, literal in zip(values, literals[1:], strict=True):
                pieces += [self._texts(value, scope, depth), [(literal.replace("\0", "%"),)]]
            texts += _product(pieces)
        return texts


def _called(call: ast.Call) -> str:
    """The name of the function or method that is called."""
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _entries(node: ast.Dict | ast.expr) -> dict[str, ast.expr]:
    """The values of a dictionary by those keys that are texts."""
    if not isinstance(node, ast.Dict):
        return {}
    pairs = ((_constant(key), value) for key, value in zip(node.keys, node.values, strict=True))
    return {key: value for key, value in pairs if isinstance(key, str)}


def _constant(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def _is_image(part: dict[str, ast.expr]) -> bool:
    return "image" in part or "image_url" in part or _constant(part.get("type")) == "image"


def _whole_number(node: ast.expr) -> int:
    """A product of whole numbers."""
    match node:
        case ast.Constant(value=int() as value):
            return int(value)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _whole_number(left) * _whole_number(right)
    raise _Unknown(node.lineno, f"{_shown(node)} is no whole number")


def _shown(node: ast.AST) -> str:
    """An expression as it stands, on one short line."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fields(template: str, line: int) -> Iterable[tuple[str, str | None, str | None, str | None]]:
    try:
        return list(string.Formatter().parse(template))
    except ValueError as error:
        raise _Unknown(line, f"a template that .format refuses: {error}") from error


def _product(pieces: Sequence[Sequence[Text]]) -> list[Text]:
    """Every way to join one text of each place."""
    joined: list[Text] = [()]
    for choices in pieces:
        joined = [_merged(text + choice) for text in joined for choice in choices][: MAX_READINGS + 1]
    return joined


def _merged(text: Text) -> Text:
    """The same text without neighbouring or empty literals."""
    merged: list[str | Placeholder] = []
    for piece in text:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        elif piece != "":
            merged.append(piece)
    return tuple(merged)


def _replaced(text: Text, old: str, new: Text) -> Text:
    """A text with a literal part replaced wherever it stands."""
    pieces: list[str | Placeholder] = []
    for piece in text:
        if isinstance(piece, Placeholder):
            pieces.append(piece)
            continue
        first, *rest = piece.split(old)
        pieces.append(first)
        for each in rest:
            pieces += [*new, each]
    return _merged(tuple(pieces))


def _stripped(text: Text, method: str) -> Text:
    """A text without white space at its ends; what is known at run time stays as it is."""
    pieces = list(text)
    if pieces and isinstance(pieces[0], str) and method != "rstrip":
        pieces[0] = pieces[0].lstrip()
    if pieces and isinstance(pieces[-1], str) and method != "lstrip":
        pieces[-1] = pieces[-1].rstrip()
    return _merged(tuple(pieces))
