"""What the user should know about a model's reply: repairs, cut-offs, answers that cannot be used."""

from __future__ import annotations

from .engine import Reply
from .parsing import Answer


def reply_notes(reply: Reply, answer: Answer, usable: bool) -> tuple[str, ...]:
    """What the user should know about a reply: what was repaired in it, that it was cut off, that it is no answer."""
    notes = list(answer.repairs)
    if not reply.finished:
        notes.append(f"the answer was cut off after {len(reply.tokens)} tokens")
    if not usable:
        notes.append(f"the answer could not be used: {excerpt(reply.text)}")
    return tuple(notes)


def excerpt(text: str, length: int = 60) -> str:
    """The beginning of a text, on one line, for a message."""
    line = " ".join(text.split())
    return repr(line if len(line) <= length else line[:length] + "…")
