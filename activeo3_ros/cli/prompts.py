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

"""`activeo3 prompts`: import the words of the released demo script, and show them beside ours."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from ..core import InvalidInput
from ..vlm.imported_prompts import (
    IMPORT,
    ROLES,
    ImportedPrompts,
    import_script,
    imported_path,
    load_imported,
    save_imported,
)
from ..vlm.prompts import PromptTemplate, load_prompt
from .main import SUCCESS

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")

BRACES = re.compile(r"\$\{(\w+)\}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands `import` and `show`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    importing = actions.add_parser("import", help="read the prompts out of a copy of the released demo script")
    importing.add_argument("file", type=Path, metavar="FILE", help="the script, which is read and never run")
    importing.add_argument("--changed", action="store_true", help="also import requests that are not as released")
    importing.add_argument("--force", action="store_true", help="replace another set that was imported before")
    importing.set_defaults(run_action=_import)
    showing = actions.add_parser("show", help="show our prompts, the imported ones, and how they differ")
    showing.add_argument("role", nargs="?", choices=ROLES, metavar="NAME", help="one of them (default: all)")
    showing.set_defaults(run_action=_show)


def run(args: argparse.Namespace) -> int:
    """Import or show, and give the exit code."""
    return int(args.run_action(args))


def _import(args: argparse.Namespace) -> int:
    found = import_script(args.file)
    if not (found.as_released or args.changed):
        raise InvalidInput(
            f"{args.file}: its requests are not those of the released script (SHA-256 {found.sha256[:12]}), so the "
            "weights may never have seen them; import them all the same with --changed"
        )
    _check_replaces(found, args.force)
    print(f"{save_imported(found)}: {found.describe()} from {found.script} (SHA-256 {found.script_sha256})")
    for role in ROLES:
        print(f"  {role}: {'imported' if role in found.prompts else 'the script has none, our own stays'}")
    print("activeo3 prompts show: how they differ from ours. The presets active_o3 and active_o3_gdino use them now.")
    return SUCCESS


def _check_replaces(found: ImportedPrompts, force: bool) -> None:
    """Raise InvalidInput where another set is there, or a damaged one, and there is no leave to replace it."""
    before = None if force else load_imported()
    if before is not None and before.sha256 != found.sha256:
        raise InvalidInput(f"{imported_path()} is {before.describe()} from {before.script}; replace it with --force")


def _show(args: argparse.Namespace) -> int:
    found = load_imported()
    if found is None:
        print(f"nothing is imported ({imported_path()} is not there); run: {IMPORT}")
    else:
        print(f"{found.describe()} from {found.script} (SHA-256 {found.script_sha256})")
    for role in [args.role] if args.role else ROLES:
        print("\n".join(["", f"== {role}", *_compared(role, found)]))
    return SUCCESS


def _compared(role: str, found: ImportedPrompts | None) -> Iterator[str]:
    """Our prompt, and an imported one as a difference from it."""
    own = _sentences(load_prompt(role))
    imported = None if found is None else found.prompts.get(role)
    if imported is None:
        yield from own
        yield "(no imported request)" if found is not None else ""
        return
    theirs = _sentences(imported.template(role, imported_path()))
    yield from difflib.unified_diff(own, theirs, "own", "imported", n=len(own), lineterm="")


def _sentences(template: PromptTemplate) -> list[str]:
    """The messages of a prompt in their order, a sentence a line."""
    after = template.after_image.replace("$reasoning", template.reasoning.get("full", ""))
    parts = [("system", template.system), ("user", template.before_image), ("", "[picture]"), ("", after)]
    lines = []
    for name, text in parts:
        plain = BRACES.sub(r"$\1", text)
        sentences = [sentence for sentence in SENTENCE_END.split(plain) if sentence.strip()]
        lines += [f"{name}: {sentence}" if name else sentence for sentence in sentences]
    return lines
