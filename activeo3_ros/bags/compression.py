"""What rosbag2's own compression leaves: whole files, or single messages, as Zstandard frames.

MCAP's compression of chunks is another matter (`mcap_storage`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import zstandard

from ..core import InvalidInput

SUFFIX = ".zstd"
FORMAT = "zstd"
"""What rosbag2 calls it: the only format that it brings."""
MAGIC = b"\x28\xb5\x2f\xfd"
"""How a frame begins; serialized messages begin with a zero."""
FIRST_BLOCK_BYTES = 18 + 3 + (128 << 10)
"""The longest header of a frame, and of a block with the block: so much of a frame gives its first bytes."""
MAX_MESSAGE_BYTES = 1 << 30
"""A message that claims to be larger is damaged."""
COPY_BYTES = 1 << 20


class DamagedFrame(Exception):
    """Bytes that cannot be decompressed."""


def head_of(stored: Callable[[int], bytes], count: int) -> bytes:
    """The first `count` bytes of a message, compressed or not; b"" if they are damaged.

    stored: gives as many of its first bytes as they lie in the file.
    """
    head = stored(count)
    if not head.startswith(MAGIC):
        return head
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(stored(FIRST_BLOCK_BYTES))[:count]
    except (zstandard.ZstdError, MemoryError):
        return b""


def decompress_message(stored: bytes) -> bytes:
    """The bytes of a message, compressed or not. Raises DamagedFrame."""
    if not stored.startswith(MAGIC):
        return stored
    try:
        # rosbag2 writes the size down; without it, nothing would bound what a damaged frame unfolds to.
        if not 0 <= zstandard.frame_content_size(stored) <= MAX_MESSAGE_BYTES:
            raise DamagedFrame("a compressed message is damaged")
        return zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise DamagedFrame("a compressed message is damaged") from error


def decompress_file(path: Path, directory: Path) -> tuple[Path, str]:
    """Decompress a file into a directory, as far as it goes: the new file, and what is wrong with the old one or "".

    Raises InvalidInput if it cannot be opened, or if there is no room.
    """
    target = directory / path.name.removesuffix(SUFFIX)
    try:
        size = zstandard.frame_content_size(path.open("rb").read(18))
    except (zstandard.ZstdError, OSError):
        size = -1
    free = shutil.disk_usage(directory).free
    if size > free:
        raise InvalidInput(
            f"{path}: unpacks to {size} bytes, and {directory.parent} has {free}; set TMPDIR to a larger disk, "
            f"or unpack it with: zstd -d {path.name}"
        )
    damage = ""
    try:
        with path.open("rb") as packed, target.open("wb") as unpacked:
            reader = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
            try:
                while piece := reader.read(COPY_BYTES):
                    unpacked.write(piece)
            except (zstandard.ZstdError, MemoryError):
                damage = f"is damaged: it cannot be unpacked beyond {unpacked.tell()} bytes"
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be unpacked to {directory}: {error.strerror or error}") from error
    if not damage and size >= 0 and target.stat().st_size < size:
        damage = f"is cut off: {target.stat().st_size} of {size} bytes are there"
    return target, damage
