"""The pages do what they say: every block that is marked `# runs here` runs, page by page (test/page_scripts.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_scripts import run_script, script_of

from activeo3_ros.assets.cache import AssetError
from activeo3_ros.assets.packages import NEEDED_BY, require

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {
    str(page.relative_to(ROOT)): script_of(page.read_text(encoding="utf-8"))
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
LIMIT_S = 120.0
"""For one page."""


@pytest.mark.parametrize("page", [page for page, script in SCRIPTS.items() if script.blocks])
def test_the_commands_of_a_page_run(page: str, tmp_path: Path):
    script = SCRIPTS[page]
    if script.missing:
        pytest.skip(f"{page} needs {', '.join(script.missing)}")
    try:
        for asset in NEEDED_BY["demo"]:
            require(asset)
    except AssetError as error:
        pytest.skip(str(error))
    code, printed = run_script(script, tmp_path, LIMIT_S)
    assert code == 0, f"{page}:\n{printed[-5000:]}"


def test_no_mark_is_misspelt():
    assert not {page: script.misspelt for page, script in SCRIPTS.items() if script.misspelt}


PAGE = """
Some words.

```sh
# runs here
echo one > made
cd sub 2>/dev/null || mkdir sub
```

```sh
exit 7  # is not marked
```

```sh
# runs here (needs json, no_such_package)
test -f made && cat made
```

```sh
# Runs here
rm -rf /
```
"""


def test_marked_blocks_run_in_order_in_one_folder(tmp_path: Path):
    script = script_of(PAGE)
    assert len(script.blocks) == 2
    assert script.missing == ["no_such_package"]
    assert script.misspelt == ("# Runs here",)
    code, printed = run_script(script, tmp_path, 10)
    assert code == 0, printed
    assert printed.splitlines()[-1] == "one"


def test_the_first_failing_command_ends_a_page_and_is_shown(tmp_path: Path):
    script = script_of("```sh\n# runs here\necho before\nfalse\necho after\n```\n")
    code, printed = run_script(script, tmp_path, 10)
    assert code == 1
    assert printed.splitlines() == ["+ echo before", "before", "+ false"]


def test_a_page_that_does_not_end_is_killed_with_all_it_started(tmp_path: Path):
    script = script_of("```sh\n# runs here\n(sleep 60; touch late) &\nsleep 60\n```\n")
    code, printed = run_script(script, tmp_path, 0.5)
    assert code == -9
    assert printed.endswith("killed after 0.5 s")
