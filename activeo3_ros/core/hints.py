"""Words for messages about settings and parameters. Needs nothing but the standard library."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    dict: "a mapping of names to values",
    Mapping: "a mapping of names to values",
}
"""The name of each type in messages."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the known one that is most like it; "" where none is."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
