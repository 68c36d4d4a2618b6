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

"""The compression of rosbag2 itself, read through `zstandard`: whole files, or single messages, as Zstandard frames.

The compression of chunks is MCAP's own (`mcap_records`). Ours is the first bytes of a message without the rest, a
damaged file unpacked as far as it goes, and the room on the disk that is asked for before.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import zstandard

from ..core import InvalidInput
from .storage import CDR_HEAD_BYTES, DamagedMessage

SUFFIX = ".zstd"
FORMAT = "zstd"
"""Its name in `metadata.yaml`: the only format that rosbag2 brings."""
MAGIC = b"\x28\xb5\x2f\xfd"
"""How a frame begins; serialized messages begin with a zero."""
FIRST_BLOCK_BYTES = 18 + 3 + (128 << 10)
"""The longest header of a frame, and of a block with the block: so much of a frame gives its first bytes."""
MAX_MESSAGE_BYTES = 1 << 30
"""A message that claims to be larger is damaged."""
COPY_BYTES = 1 << 20


def head_of(stored: bytes | memoryview) -> bytes:
    """The first `CDR_HEAD_BYTES` of a message, decompressed; fewer if it is shorter, none if they are damaged.

    Args:
        stored: The message as it is stored, or its first `FIRST_BLOCK_BYTES`.
    """
    if stored[: len(MAGIC)] != MAGIC:
        return bytes(stored[:CDR_HEAD_BYTES])
    try:
        first = zstandard.ZstdDecompressor().decompressobj().decompress(stored[:FIRST_BLOCK_BYTES])
    except (zstandard.ZstdError, MemoryError):
        return b""
    return first[:CDR_HEAD_BYTES]


def decompress_message(stored: bytes) -> bytes:
    """The bytes of a message, compressed or not.

    Raises:
        DamagedMessage: They cannot be decompressed.
    """
    if not stored.startswith(MAGIC):
        return stored
    try:
        # rosbag2 writes the size down; without it, nothing would bound the memory that a damaged frame asks for.
        if 0 <= zstandard.frame_content_size(stored) <= MAX_MESSAGE_BYTES:
            return zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError):
        pass
    raise DamagedMessage("a compressed message is damaged")


def decompress_file(path: Path, directory: Path) -> tuple[Path, str]:
    """Decompress a file into a directory, as far as it goes.

    Returns:
        The new file, and the damage of the old one, or "".

    Raises:
        InvalidInput: The file cannot be opened, or there is no room for the new one.
    """
    target = directory / path.name.removesuffix(SUFFIX)
    size, damage = -1, ""
    try:
        with path.open("rb") as packed, target.open("wb") as unpacked:
            try:
                size = zstandard.frame_content_size(packed.read(18))
                _check_room(path, size, directory)
                packed.seek(0)
                reader = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
                while piece := reader.read(COPY_BYTES):
                    unpacked.write(piece)
            except (zstandard.ZstdError, MemoryError):
                damage = f"is damaged: it cannot be unpacked beyond {unpacked.tell()} bytes"
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be unpacked to {directory}: {error.strerror or error}") from error
    if not damage and target.stat().st_size < size:
        damage = f"is cut off: {target.stat().st_size} of {size} bytes are there"
    return target, damage


def _check_room(path: Path, size: int, directory: Path) -> None:
    free = shutil.disk_usage(directory).free
    if size > free:
        raise InvalidInput(
            f"{path}: unpacks to {size} bytes, and {directory.parent} has {free}; set TMPDIR to a larger disk, "
            f"or unpack it with: zstd -d {path.name}"
        )
