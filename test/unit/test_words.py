"""One word, one thing: the private words of version 0.1 stay out of code, tests and pages."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTEAD = {
    r"gather(ing|s|ed)?": "batch, DynamicBatcher",
    r"rungs?|ladders?": "scale, pyramid",
    r"slots?": "LatestFrameQueue",
    r"lanes?": "worker thread",
    r"fates?": "disposition",
    r"ledgers?": "FrameCounters",
    r"sightings?": "Observation",
    r"mend(s|ed|ing)?": "fix, repair",
    r"masks_of_truth": "ground_truth_masks",
}
"""Private word, and the word of the field that stands for it now."""
ELSEWHERE = {
    r"gather(ing|s|ed)?": r"asyncio\.gather|\.gather\(|_gather\(|\"Gather",  # functions of libraries
    r"slots?": "slot_mapping",  # vLLM's argument
    r"lanes?": "Advanced-Lane-Lines",  # a repository
    r"mend(s|ed|ing)?": r"\"mend\"",  # a public key of `doctor --json`
}
"""Where a word is somebody else's."""
ROADS = ("research/", "test/unit/test_setup.py")
"""Where lanes are those of a road, or a name that means nothing."""
OLD_WORDS = ("test/unit/test_words.py", "CHANGELOG.rst")


def pages() -> list[str]:
    """Tracked and new files that people read: code, tests, pages, settings."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [name for name in names if name.endswith((".py", ".md", ".rst", ".yaml", ".msg", ".srv", ".action"))]


@pytest.mark.parametrize("word", INSTEAD)
def test_a_private_word_is_not_used(word):
    pattern = re.compile(rf"(?<![A-Za-z])(?:{word})(?![A-Za-z])", re.IGNORECASE)
    elsewhere = re.compile(ELSEWHERE.get(word, r"(?!)"))
    found = [
        f"{name}:{number}: {line.strip()[:80]}"
        for name in pages()
        if name not in OLD_WORDS and not name.startswith(ROADS) and (ROOT / name).is_file()
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line) and not elsewhere.search(line)
    ]
    assert not found, f"say {INSTEAD[word]}:\n" + "\n".join(found[:20])
