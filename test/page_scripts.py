"""The shell blocks of pages that say "runs here": what a reader types, run page by page.

A block of kind `sh` takes part if its first line is the mark `# runs here`, or, with the Python packages that it needs,
`# runs here (needs torch, transformers)`. The blocks of a page run in their order, in one shell and one empty folder.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SHELL_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"# runs here(?: \(needs (\w+(?:, \w+)*)\))?")
ALMOST = re.compile(r"#\s*runs?\b.*\bhere", re.IGNORECASE)
"""What somebody may write who means the mark: it must not pass for a comment."""


@dataclass(frozen=True)
class PageScript:
    """The marked blocks of one page.

    Attributes:
        blocks: Their text, in the order of the page.
        needs: The Python packages that they need.
        misspelt: First lines that look like the mark and are none.
    """

    blocks: tuple[str, ...]
    needs: tuple[str, ...]
    misspelt: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """The packages that are needed and not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def script_of(text: str) -> PageScript:
    """The marked blocks in the text of a page."""
    blocks, needs, misspelt = [], [], []
    for block in SHELL_BLOCK.findall(text):
        first, _, rest = block.partition("\n")
        if match := MARK.fullmatch(first.strip()):
            blocks.append(rest)
            needs += (match[1] or "").replace(" ", "").split(",") if match[1] else []
        elif ALMOST.match(first.strip()):
            misspelt.append(first)
    return PageScript(tuple(blocks), tuple(dict.fromkeys(needs)), tuple(misspelt))


def run_script(script: PageScript, folder: Path, limit_s: float) -> tuple[int, str]:
    """Run the blocks of a page in a folder.

    Args:
        script: The blocks.
        folder: An empty folder.
        limit_s: Seconds after which the shell and all that it started are killed.

    Returns:
        The exit code, that of the first command that fails, and everything that was printed, with the commands.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        ["sh", "-ex", "-c", "\n".join(script.blocks)],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as shell:
        try:
            printed, _ = shell.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            printed, _ = shell.communicate()
            printed += f"\nkilled after {limit_s:g} s".encode()
    return shell.returncode, printed.decode(errors="replace")
