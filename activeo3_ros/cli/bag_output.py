"""The bag that a command writes: the name it may have, and how it takes the place of an older one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..bags.writing import CHUNK_BYTES, BagWriter
from ..core import InvalidInput


def check_bag_out(out: Path) -> None:
    """Check that a path can be that of a bag to write.

    Raises:
        InvalidInput: It is a directory, or does not end with .mcap.
    """
    if out.is_dir():
        raise InvalidInput(f"--out {out} is a directory; give a file, for example {out / 'results.mcap'}")
    if out.suffix != ".mcap":
        raise InvalidInput(f"--out {out}: bags are written as MCAP; give a name that ends with .mcap")


@contextmanager
def write_anew(out: Path, chunk_bytes: int = CHUNK_BYTES) -> Iterator[BagWriter]:
    """Write a bag that takes the place of an older one once it has begun.

    Args:
        out: The file.
        chunk_bytes: How much a crash may lose.

    Raises:
        InvalidInput: It cannot be written.
    """
    unfinished = out.with_name(f".{out.name}.new")
    try:
        with BagWriter(unfinished, chunk_bytes) as writer:
            os.replace(unfinished, out)
            yield writer
    except OSError as error:
        raise InvalidInput(f"--out {out}: cannot be written: {error.strerror or error}") from error
