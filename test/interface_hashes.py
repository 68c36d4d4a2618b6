"""Type hashes of messages from their definitions alone (REP-2016), as the generators compute them: nothing is built."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rosidl_adapter.msg import convert_msg_to_idl
from rosidl_generator_type_description import generate_type_hash


def type_hashes(package: str, definitions: Sequence[Path], others: Path, prefix: Path = Path(sys.prefix)) -> None:
    """Compute the hashes of a package's messages.

    Args:
        package: Its name.
        definitions: Its `.msg` files, in any directory.
        others: Where the descriptions of all packages are kept, `others/PACKAGE/msg/NAME.json`; this package's are
            written there, for those that use it.
        prefix: Of ROS, whose packages are found as well.
    """
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "msg").mkdir()
        for path in definitions:
            convert_msg_to_idl(path.parent, package, Path(path.name), root / "msg")
        known = [entry for entry in (prefix / "share").iterdir() if (entry / "msg").is_dir()]
        includes = [*known, *(entry for entry in others.iterdir() if entry.name != package)]
        arguments = root / "arguments.json"
        arguments.write_text(
            json.dumps(
                {
                    "package_name": package,
                    "output_dir": str(others / package),
                    "idl_tuples": [f"{root}:msg/{path.stem}.idl" for path in definitions],
                    "include_paths": [f"{entry.name}:{entry}" for entry in includes],
                }
            )
        )
        generate_type_hash(str(arguments))


def type_hash(others: Path, name: str) -> str:
    """The hash of `PACKAGE/msg/NAME` after `type_hashes` of its package."""
    description = json.loads((others / f"{name}.json").read_text(encoding="utf-8"))
    return next(entry["hash_string"] for entry in description["type_hashes"] if entry["type_name"] == name)
